/**
 * core/, models/, onnx/ and the loop of robust/ in Chromium, bundled and under
 * a content security policy without `unsafe-eval`.
 *
 * Needs Debian's chromium, whose software adapter stands in for a GPU.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import * as esbuild from "esbuild";
// Importing makes `import.meta.resolve()` give the package's place on disk.
import "onnxruntime-web/wasm";
import { type Browser, chromium, type Page } from "playwright-core";
import { type Tensor, tensor } from "../../core/mod.ts";
import { assertAllClose } from "../_assert.ts";
import { readTensors } from "../_fixtures.ts";
import { floats, rowOf } from "../models/_fixture_network.ts";
import * as entry from "./entry.ts";

const CHROMIUM = "/usr/bin/chromium";

const ARGUMENTS = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  "--disable-quic",
];

const ignore = !hasChromium();

function hasChromium(): boolean {
  try {
    if (Deno.statSync(CHROMIUM).isFile) return true;
  } catch {
    // Not there.
  }
  console.log(`Browser tests are ignored: there is no ${CHROMIUM}`);
  return false;
}

/** Files of onnxruntime-web that a page loads instead of bundling them. */
const RUNTIME_FILES: Readonly<Record<string, string>> = {
  "onnxruntime-web": "ort.min.mjs",
  "onnxruntime-web/webgpu": "ort.webgpu.min.mjs",
};

/** Resolves imports as Deno does. */
const resolver: esbuild.Plugin = {
  name: "deno",
  setup({ onResolve }) {
    onResolve({ filter: /^@bufbuild\// }, ({ path }) => ({
      path: new URL(import.meta.resolve(path)).pathname,
    }));
    onResolve({ filter: /^onnxruntime-/ }, ({ path }) => ({
      path: path in RUNTIME_FILES ? `/runtime/${RUNTIME_FILES[path]}` : path,
      external: true,
    }));
  },
};

async function bundleEntry(): Promise<Uint8Array<ArrayBuffer>> {
  const { outputFiles: [{ contents }] } = await esbuild.build({
    entryPoints: [new URL(import.meta.resolve("./entry.ts")).pathname],
    bundle: true,
    format: "esm",
    minify: true,
    platform: "browser",
    plugins: [resolver],
    write: false,
  });
  await esbuild.stop();
  return new Uint8Array(contents);
}

async function gzippedSize(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
  const packed = new Blob([bytes]).stream()
    .pipeThrough(new CompressionStream("gzip"));
  return (await new Response(packed).arrayBuffer()).byteLength;
}

const HEADERS = {
  "content-security-policy": "default-src 'none'; connect-src 'self'; " +
    "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'",
  // Both are needed for threads.
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-opener-policy": "same-origin",
};

const FOLDERS: Readonly<Record<string, string>> = {
  runtime: import.meta.resolve("onnxruntime-web/wasm"),
  fixtures: import.meta.resolve("../fixtures/README.md"),
};

const TYPES: Readonly<Record<string, string>> = {
  mjs: "text/javascript",
  wasm: "application/wasm",
};

/** Serves an empty page, the bundle, and the files of `FOLDERS`. */
function serve(bundle: Uint8Array<ArrayBuffer>): Deno.HttpServer<Deno.NetAddr> {
  const respond = (body: BodyInit | null, type: string, status = 200) =>
    new Response(body, {
      status,
      headers: { ...HEADERS, "content-type": type },
    });
  return Deno.serve({
    hostname: "127.0.0.1",
    port: 0,
    onListen: () => {},
  }, async ({ url }) => {
    const path = new URL(url).pathname;
    if (path === "/") return respond("<!doctype html>", "text/html");
    if (path === "/entry.js") return respond(bundle, "text/javascript");
    const [, folder, file, extension] =
      path.match(/^\/(\w+)\/([\w.-]+\.(\w+))$/) ?? [];
    if (!Object.hasOwn(FOLDERS, folder)) return respond(null, "", 404);
    const { readable } = await Deno.open(new URL(file, FOLDERS[folder]));
    return respond(readable, TYPES[extension] ?? "application/octet-stream");
  });
}

type Entry = typeof entry;

/** Calls a function of `entry.ts` in the page. */
function call<K extends keyof Entry>(
  page: Page,
  name: K,
  ...args: Parameters<Entry[K]>
): Promise<Awaited<ReturnType<Entry[K]>>> {
  return page.evaluate(
    `import("/entry.js").then((m) => m.${name}(...${JSON.stringify(args)}))`,
  );
}

function toTensor({ data, shape }: entry.PlainTensor): Tensor {
  return tensor(data, shape);
}

function assertSame(
  found: Readonly<Record<string, entry.PlainTensor>>,
  expected: Readonly<Record<string, entry.PlainTensor>>,
  tolerance: number,
): void {
  assertEquals(Object.keys(found), Object.keys(expected));
  for (const [name, value] of Object.entries(expected)) {
    assertAllClose(toTensor(found[name]), toTensor(value), { tolerance, name });
  }
}

/** Opens a page with the bundle, and collects what its console says. */
async function openPage(
  browser: Browser,
  port: number,
): Promise<{ page: Page; problems: string[] }> {
  const problems: string[] = [];
  const page = await browser.newPage();
  page.on("console", (message) => problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(error.message));
  await page.goto(`http://127.0.0.1:${port}/`);
  return { page, problems };
}

Deno.test({
  name: "core, models, onnx and robust work in a browser",
  ignore,
  async fn(t) {
    const bundle = await bundleEntry();
    const [size, gzipped] = [bundle.length, await gzippedSize(bundle)]
      .map((bytes) => `${(bytes / 1024).toFixed(1)} KiB`);
    console.log(`Bundle without onnxruntime-web: ${size}, gzipped ${gzipped}`);
    await using server = serve(bundle);
    const browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ARGUMENTS,
    });
    try {
      const { page, problems } = await openPage(browser, server.addr.port);
      // Fixed for the page by the first session; two need a worker.
      const options = { threads: 2 };

      await t.step(
        'chooseProvider("auto") passes over software adapters',
        async () => {
          const host = await call(page, "describeHost");
          assert(host.isolated, "threads need a cross-origin isolated page");
          assertMatch(host.version, /^1\./);
          assertEquals(host.auto.provider, "cpu");
        },
      );

      await t.step(
        "logits and the inversion gradient are PyTorch's",
        async () => {
          const tensors = await readTensors("cifar_eval");
          const found = await call(page, "evaluateFixture", options);
          assertAllClose(toTensor(found.logits), tensors.logits, {
            tolerance: 2e-6,
            relative: "l2",
            name: "logits",
          });
          assertAllClose(toTensor(found.gradient), tensors.grad_inv_fake, {
            tolerance: 1e-5,
            relative: "l2",
            name: "gradient",
          });
          assert(page.workers().length > 0, "no thread was started");
        },
      );

      await t.step(
        "three steps of inversion lower the distance as PyTorch's do",
        async () => {
          const tensors = await readTensors("cifar_pgd");
          const name = "inversion_small_steps_20_best/trajectory_losses";
          const expected = floats(tensors, name);
          const losses = await call(page, "invertFixture", 3, options);
          assertEquals(losses.length, 4);
          for (const [step, { shape, data }] of losses.entries()) {
            assertAllClose(tensor(data, shape), rowOf(expected, step), {
              tolerance: 1e-5,
              name: `losses after ${step} steps`,
            });
            const before = losses[step - 1]?.data;
            assert(data.every((loss, i) => !before || loss < before[i]));
          }
        },
      );

      await t.step(
        "gradients of weights that are fed are those under Deno",
        async () => {
          const found = await call(page, "weightGradients");
          assertSame(found, await entry.weightGradients(), 1e-4);
        },
      );

      await t.step(
        "a step of PGD on WebGPU is that on WebAssembly",
        async () => {
          const found = await call(page, "stepTiny", "webgpu");
          assertSame(found, await call(page, "stepTiny", "cpu"), 1e-4);
        },
      );

      await t.step("the page breaks no rule and logs nothing", () => {
        assertEquals(problems, []);
      });
    } finally {
      await browser.close();
    }
  },
});
