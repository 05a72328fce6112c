/**
 * Downloads that survive interruption.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { isFile } from "./_folder.ts";
import type { TaskOptions } from "./dataset.ts";

/** The official binary version of CIFAR-10. */
export const CIFAR10_ARCHIVE = {
  url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
  md5: "c32a1d4ab5d03f1284b67883e8d87530",
  /** Bytes. */
  size: 170_052_171,
} as const;

/** Options of {@linkcode download}. */
export interface DownloadOptions extends TaskOptions {
  /** What to download. */
  readonly url: string;
  /** Where to put it; until it is whole, it is called `<file>.part`. */
  readonly file: string;
  /** Checksum of the whole file, hexadecimal. */
  readonly sha256?: string;
  /** Checksum of the whole file, hexadecimal. */
  readonly md5?: string;
  /** Attempts after the first one fails; 3 if left out. */
  readonly retries?: number;
  /** Milliseconds before the first retry, doubling; 1000 if left out. */
  readonly retryDelay?: number;
  /** Replaces the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch;
}

/** A failure that trying again does not mend. */
class Permanent extends Error {}

/**
 * Downloads a file. An earlier attempt's `<file>.part` is continued where the
 * server allows it, else begun again. The file appears under its name only
 * when it is whole and its checksum is right; one that is there already, with
 * the right checksum, is kept.
 *
 * @returns The path of the file
 * @throws {Error} If the server has no such file, or keeps failing, or the
 *   checksum is wrong
 */
export async function download(options: DownloadOptions): Promise<string> {
  const { url, file, retries = 3, retryDelay = 1000, signal } = options;
  if (await isFile(file)) {
    const wrong = await wrongChecksum(file, options);
    if (!wrong) return file;
    throw new Error(
      `Cannot download to "${file}" as it exists and its ${wrong}; remove it`,
    );
  }
  const part = `${file}.part`;
  for (let attempt = 0;; attempt++) {
    signal?.throwIfAborted();
    try {
      await continueTo(part, options);
      break;
    } catch (error) {
      signal?.throwIfAborted();
      const reason = error instanceof Error ? error.message : String(error);
      if (error instanceof Permanent || attempt >= retries) {
        throw new Error(`Cannot download ${url}: ${reason}`, { cause: error });
      }
      await delay(retryDelay * 2 ** attempt, signal);
    }
  }
  const wrong = await wrongChecksum(part, options);
  if (wrong) {
    // Continuing from wrong bytes would never succeed.
    await Deno.remove(part);
    throw new Error(`Cannot keep the download of ${url} as its ${wrong}`);
  }
  await Deno.rename(part, file);
  return file;
}

/** Appends what is missing to the partial file. */
async function continueTo(part: string, options: DownloadOptions) {
  const { url, onProgress, signal, fetch = globalThis.fetch } = options;
  let have = await isFile(part) ? (await Deno.stat(part)).size : 0;
  const headers: HeadersInit = have > 0 ? { range: `bytes=${have}-` } : {};
  const response = await fetch(url, { headers, signal });
  if (response.status === 416) {
    // Nothing after what we have: it is whole, or longer than the file.
    await response.body?.cancel();
    const [, size] = response.headers.get("content-range")?.split("/") ?? [];
    if (Number(size) === have) return;
    await Deno.remove(part);
    throw new Error("the partial file did not fit the one on the server");
  }
  if (!response.ok || !response.body) {
    await response.body?.cancel();
    const reason = `the server answered ${response.status} ` +
      response.statusText;
    const mends = response.status >= 500 ||
      [408, 425, 429].includes(response.status);
    throw mends ? new Error(reason) : new Permanent(reason);
  }
  const range = response.headers.get("content-range") ?? "";
  const resumes = response.status === 206 && range.startsWith(`bytes ${have}-`);
  if (response.status === 206 && !resumes) {
    await response.body.cancel();
    await Deno.remove(part);
    throw new Error("the server sent another part than was asked for");
  }
  if (!resumes) have = 0;
  const length = Number(response.headers.get("content-length") ?? NaN);
  // fetch() decodes compressed bodies, whose length is then another.
  const encoded = response.headers.has("content-encoding");
  const total = encoded || !Number.isFinite(length) ? 0 : have + length;
  using handle = await Deno.open(part, {
    write: true,
    create: true,
    append: resumes,
    truncate: !resumes,
  });
  let done = have, reported = 0;
  for await (const bytes of response.body) {
    for (let at = 0; at < bytes.length;) {
      at += await handle.write(bytes.subarray(at));
    }
    done += bytes.length;
    if (performance.now() - reported > 200 || done === total) {
      reported = performance.now();
      onProgress?.({ stage: "download", done, total });
    }
  }
  if (total > 0 && done < total) {
    throw new Error(`the connection ended after ${done} of ${total} bytes`);
  }
}

/** What is wrong with a file's checksum; undefined if nothing. */
async function wrongChecksum(
  path: string,
  { sha256, md5, signal }: DownloadOptions,
): Promise<string | undefined> {
  for (const [name, expected] of Object.entries({ sha256, md5 })) {
    if (!expected) continue;
    const hash = createHash(name);
    const file = await Deno.open(path);
    for await (const bytes of file.readable) {
      signal?.throwIfAborted();
      hash.update(bytes);
    }
    const actual = hash.digest("hex");
    if (actual !== expected.toLowerCase()) {
      return `${name} is ${actual}, not ${expected}`;
    }
  }
  return undefined;
}

function delay(milliseconds: number, signal?: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const abort = () => {
    clearTimeout(timer);
    reject(signal?.reason);
  };
  const timer = setTimeout(() => {
    signal?.removeEventListener("abort", abort);
    resolve();
  }, milliseconds);
  signal?.addEventListener("abort", abort, { once: true });
  return promise;
}
