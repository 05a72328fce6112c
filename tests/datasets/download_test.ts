import { assert, assertEquals, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { Random } from "../../core/mod.ts";
import {
  CIFAR10_ARCHIVE,
  download,
  type Progress,
} from "../../datasets/mod.ts";

const random = new Random(0);
const content = Uint8Array.from({ length: 400_000 }, () => random.integer(256));
const sha256 = createHash("sha256").update(content).digest("hex");
const md5 = createHash("md5").update(content).digest("hex");

/** What the server does with a request, given where its range starts. */
type Answer = (from: number, request: number) => Response;

const whole: Answer = (from) =>
  from === 0 ? new Response(content) : new Response(content.slice(from), {
    status: 206,
    headers: {
      "content-range": `bytes ${from}-${content.length - 1}/${content.length}`,
    },
  });

/** Runs a server and a folder; collects the starts of the ranges asked for. */
async function withServer(
  answer: Answer,
  use: (options: {
    readonly url: string;
    readonly file: string;
    readonly starts: number[];
    readonly retryDelay: number;
  }) => Promise<void>,
): Promise<void> {
  const starts: number[] = [];
  const folder = await Deno.makeTempDir();
  const server = Deno.serve(
    {
      port: 0,
      hostname: "127.0.0.1",
      onListen() {},
      onError: () => new Response(),
    },
    ({ headers }) => {
      const range = headers.get("range") ?? "bytes=0-";
      const from = Number(range.slice("bytes=".length, -1));
      starts.push(from);
      return answer(from, starts.length);
    },
  );
  try {
    const url = `http://127.0.0.1:${server.addr.port}/data.bin`;
    await use({ url, file: `${folder}/data.bin`, starts, retryDelay: 5 });
  } finally {
    await server.shutdown();
    await Deno.remove(folder, { recursive: true });
  }
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

Deno.test("download() fetches a file, checks it and reports progress", async () => {
  await withServer(whole, async ({ file, starts, ...options }) => {
    const progress: Progress[] = [];
    const onProgress = (p: Progress) => void progress.push(p);
    await download({ ...options, file, sha256, md5, onProgress });
    assertEquals(await Deno.readFile(file), content);
    assertEquals(await exists(`${file}.part`), false);
    const { done, total } = progress.at(-1)!;
    assertEquals([done, total], [content.length, content.length]);
    // A file that is there is not fetched again.
    assertEquals(await download({ ...options, file, sha256 }), file);
    assertEquals(starts, [0]);
  });
});

Deno.test("download() continues a partial file", async () => {
  await withServer(whole, async ({ file, starts, ...options }) => {
    await Deno.writeFile(`${file}.part`, content.subarray(0, 123_456));
    await download({ ...options, file, sha256 });
    assertEquals(await Deno.readFile(file), content);
    assertEquals(starts, [123_456]);
  });
});

Deno.test("download() continues after the connection breaks", async () => {
  const breaking: Answer = (from, request) => {
    if (request > 2) return whole(from, request);
    // Promises all of it, sends 50,000 bytes, then fails.
    const part = content.slice(from, from + 50_000);
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(part);
      },
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        controller.error(new Error("broken on purpose"));
      },
    });
    const { status, headers } = whole(from, request);
    headers.set("content-length", `${content.length - from}`);
    return new Response(body, { status, headers });
  };
  await withServer(breaking, async ({ file, starts, ...options }) => {
    await download({ ...options, file, sha256 });
    assertEquals(await Deno.readFile(file), content);
    assertEquals(starts, [0, 50_000, 100_000]);
  });
});

Deno.test("download() begins again if the server ignores ranges", async () => {
  const plain: Answer = () => new Response(content);
  await withServer(plain, async ({ file, starts, ...options }) => {
    await Deno.writeFile(`${file}.part`, new Uint8Array(999));
    await download({ ...options, file, md5 });
    assertEquals(await Deno.readFile(file), content);
    assertEquals(starts, [999]);
  });
});

Deno.test("download() accepts a partial file that is whole", async () => {
  const nothingLeft: Answer = () =>
    new Response(null, {
      status: 416,
      headers: { "content-range": `bytes */${content.length}` },
    });
  await withServer(nothingLeft, async ({ file, ...options }) => {
    await Deno.writeFile(`${file}.part`, content);
    await download({ ...options, file, sha256 });
    assertEquals(await Deno.readFile(file), content);
  });
});

Deno.test("download() refuses a wrong checksum and keeps nothing", async () => {
  await withServer(whole, async ({ file, ...options }) => {
    await assertRejects(
      () => download({ ...options, file, sha256: "0".repeat(64) }),
      Error,
      `Cannot keep the download of ${options.url} as its sha256 is ${sha256}`,
    );
    assertEquals(await exists(file), false);
    assertEquals(await exists(`${file}.part`), false);
    await Deno.writeFile(file, content.subarray(1));
    await assertRejects(
      () => download({ ...options, file, md5 }),
      Error,
      "as it exists and its md5 is",
    );
  });
});

Deno.test("download() does not retry what is not there", async () => {
  const missing: Answer = () => new Response("no", { status: 404 });
  await withServer(missing, async ({ file, starts, ...options }) => {
    await assertRejects(
      () => download({ ...options, file }),
      Error,
      `Cannot download ${options.url}: the server answered 404 Not Found`,
    );
    assertEquals(starts.length, 1);
  });
});

Deno.test("download() gives up after its retries", async () => {
  const failing: Answer = () => new Response("later", { status: 503 });
  await withServer(failing, async ({ file, starts, ...options }) => {
    await assertRejects(
      () => download({ ...options, file, retries: 2 }),
      Error,
      "the server answered 503",
    );
    assertEquals(starts.length, 3);
  });
});

Deno.test("download() stops at its signal and keeps the partial file", async () => {
  const endless: Answer = () =>
    new Response(
      new ReadableStream({
        async pull(controller) {
          await new Promise((resolve) => setTimeout(resolve, 5));
          controller.enqueue(content.slice(0, 1000));
        },
      }),
    );
  await withServer(endless, async ({ file, ...options }) => {
    const controller = new AbortController();
    await assertRejects(
      () =>
        download({
          ...options,
          file,
          signal: controller.signal,
          onProgress: () => controller.abort(new Error("stopped here")),
        }),
      Error,
      "stopped here",
    );
    assert(await exists(`${file}.part`));
  });
});

Deno.test("download() uses the fetch it is given", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const fetch = () => Promise.resolve(new Response(content));
    const { url } = CIFAR10_ARCHIVE;
    await download({ url, file: `${folder}/a`, sha256, fetch });
    assertEquals(await Deno.readFile(`${folder}/a`), content);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
