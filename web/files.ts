/**
 * Answers with files: only what a record lists, only inside its folder, with
 * validators and ranges.
 *
 * @module
 */
import { join } from "node:path";
import { HttpError } from "fresh";
import type { SiteRun } from "./library.ts";

/** Types of files that browsers may show; all others are downloads. */
const TYPES: Readonly<Record<string, string>> = {
  json: "application/json",
  jpg: "image/jpeg",
  png: "image/png",
  svg: "image/svg+xml",
};

/** Files of a run's folder that no record lists. */
const UNLISTED = ["run.json", "preview.png"];

/**
 * Path on disk of a run's file.
 *
 * @param path As the record lists it
 * @throws {HttpError} If the record does not list it, or it lies elsewhere
 */
export async function runFile(run: SiteRun, path: string): Promise<string> {
  const isListed = UNLISTED.includes(path) ||
    run.run?.files.some((file) => file.path === path);
  if (!isListed) throw new HttpError(404, "No such file");
  return await insideOf(run.path, path);
}

/** A file's real path, which must lie inside a folder. */
export async function insideOf(folder: string, path: string): Promise<string> {
  try {
    const root = await Deno.realPath(folder);
    const real = await Deno.realPath(join(root, path));
    const { isFile } = await Deno.stat(real);
    if (isFile && real.startsWith(root.replace(/\/?$/, "/"))) return real;
  } catch {
    // Not there.
  }
  throw new HttpError(404, "No such file");
}

/** How to answer with a file. */
export interface SendOptions {
  /** Name of the download; files of safe types are shown without one. */
  readonly name?: string;
}

/** Answers a request with a file. */
export async function sendFile(
  req: Request,
  path: string,
  options: SendOptions = {},
): Promise<Response> {
  const file = await Deno.open(path);
  try {
    const { size, mtime } = await file.stat();
    const time = mtime?.getTime() ?? 0;
    const etag = `"${size.toString(36)}-${time.toString(36)}"`;
    const headers = headersOf(path, options);
    headers.set("etag", etag);
    headers.set("last-modified", new Date(time).toUTCString());
    const range = answer(req, headers, size, etag, time);
    if (typeof range === "number") {
      file.close();
      return new Response(null, { status: range, headers });
    }
    const [start, end] = range ?? [0, size];
    headers.set("content-length", `${end - start}`);
    if (req.method === "HEAD") {
      file.close();
      return new Response(null, { status: range ? 206 : 200, headers });
    }
    if (start > 0) await file.seek(start, Deno.SeekMode.Start);
    const body = end === size
      ? file.readable
      : file.readable.pipeThrough(firstBytes(end - start));
    return new Response(body, { status: range ? 206 : 200, headers });
  } catch (error) {
    try {
      file.close();
    } catch {
      // The stream has closed it.
    }
    throw error;
  }
}

/** Answers a request with bytes that were made for it. */
export function sendBytes(
  req: Request,
  bytes: Uint8Array<ArrayBuffer>,
  options: SendOptions & { readonly etag: string },
): Response {
  return sendMade(req, bytes, options.etag, headersOf("", options));
}

/** Answers a request with a value as JSON, which a validator names. */
export async function sendJson(
  req: Request,
  value: unknown,
): Promise<Response> {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  const etag = new Uint8Array(digest).toHex().slice(0, 32);
  return sendMade(req, bytes, etag, headersOf("index.json", {}));
}

/** Answers with bytes under a validator. */
function sendMade(
  req: Request,
  bytes: Uint8Array<ArrayBuffer>,
  validator: string,
  headers: Headers,
): Response {
  const etag = `"${validator}"`;
  headers.set("etag", etag);
  const range = answer(req, headers, bytes.length, etag, 0);
  if (typeof range === "number") {
    return new Response(null, { status: range, headers });
  }
  const [start, end] = range ?? [0, bytes.length];
  headers.set("content-length", `${end - start}`);
  const body = req.method === "HEAD" ? null : bytes.subarray(start, end);
  return new Response(body, { status: range ? 206 : 200, headers });
}

function headersOf(path: string, { name }: SendOptions): Headers {
  const type = TYPES[path.slice(path.lastIndexOf(".") + 1).toLowerCase()];
  const headers = new Headers({
    "accept-ranges": "bytes",
    // Runs are overwritten in place: keep, but ask each time.
    "cache-control": "no-cache",
    "content-type": type ?? "application/octet-stream",
  });
  // Pictures may be opened by themselves; their scripts must not run.
  if (type === TYPES.svg) {
    headers.set(
      "content-security-policy",
      "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    );
  }
  if (!type || name) {
    const safe = (name ?? path.replace(/^.*\//, "")).replace(/[^\w.-]/g, "_");
    headers.set("content-disposition", `attachment; filename="${safe}"`);
  }
  return headers;
}

/** Status without a body, or the range to send; null: all of it. */
function answer(
  req: Request,
  headers: Headers,
  size: number,
  etag: string,
  time: number,
): 304 | 416 | [number, number] | null {
  const known = req.headers.get("if-none-match");
  if (known) {
    const tags = known.split(",").map((tag) => tag.trim().replace(/^W\//, ""));
    if (tags.includes(etag) || known.trim() === "*") return 304;
  }
  const wanted = req.headers.get("range");
  const condition = req.headers.get("if-range");
  const isSame = !condition || condition === etag ||
    (time > 0 && condition === new Date(time).toUTCString());
  if (!wanted || !isSame) return null;
  const range = parseRange(wanted, size);
  if (range === "unsatisfiable") {
    headers.set("content-range", `bytes */${size}`);
    return 416;
  }
  if (range) {
    headers.set("content-range", `bytes ${range[0]}-${range[1] - 1}/${size}`);
  }
  return range;
}

/**
 * Reads a `Range` header of one range.
 *
 * @returns Start and end, the end not included; null if the header is to be
 * ignored: malformed, another unit, or several ranges
 */
export function parseRange(
  header: string,
  size: number,
): [number, number] | "unsatisfiable" | null {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header.trim());
  if (!match || (match[1] === "" && match[2] === "")) return null;
  const [first, last] = [match[1], match[2]].map((digits) =>
    digits === "" ? null : Math.min(Number(digits), Number.MAX_SAFE_INTEGER)
  );
  if (first === null) {
    const start = Math.max(0, size - last!);
    return last === 0 || size === 0 ? "unsatisfiable" : [start, size];
  }
  if (last !== null && last < first) return null;
  if (first >= size) return "unsatisfiable";
  return [first, Math.min(size, (last ?? size) + 1)];
}

/** Passes so many bytes on, then ends. */
function firstBytes(
  count: number,
): TransformStream<Uint8Array, Uint8Array<ArrayBuffer>> {
  let left = count;
  return new TransformStream({
    transform(chunk, controller) {
      const part = new Uint8Array(chunk.subarray(0, left));
      left -= part.length;
      if (part.length > 0) controller.enqueue(part);
      if (left <= 0) controller.terminate();
    },
  });
}
