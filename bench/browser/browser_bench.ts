/**
 * Steps of inversion in a browser, against TensorFlow.js on the same page: both
 * on WASM with SIMD and threads. Needs Chromium.
 *
 *   deno run -A bench/browser/browser_bench.ts --width 32 --batch-size 8
 *
 * @module
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";
import { chromium } from "playwright-core";
import { runScript } from "../../scripts/_cli.ts";
import { formatTable, median, showNumber } from "../_statistics.ts";
import type { PageOptions, PageResult } from "./_page.ts";

/** Flags of this script. */
export const FLAGS = {
  width: { type: "integer", default: 32, min: 1, help: "of the network" },
  batchSize: { type: "integer", default: 8, min: 1, help: "images a step" },
  threads: { type: "integer", default: 2, min: 1, help: "WASM threads" },
  rounds: { type: "integer", default: 5, min: 1, help: "steps of each side" },
  chromium: {
    type: "path",
    default: "/usr/bin/chromium",
    help: "the browser's program",
  },
} as const;

const here = (name: string) =>
  fileURLToPath(new URL(`./${name}`, import.meta.url));

const folderOf = (specifier: string) =>
  dirname(fileURLToPath(import.meta.resolve(specifier)));

const [TFJS, TFJS_WASM] = ["tfjs", "tfjs-backend-wasm"].map((name) =>
  `npm:@tensorflow/${name}@4.22.0`
);

/** The page's script, in which onnxruntime-web is a file beside. */
async function bundlePage(): Promise<Uint8Array<ArrayBuffer>> {
  const resolver: esbuild.Plugin = {
    name: "packages",
    setup({ onResolve }) {
      onResolve({ filter: /^onnxruntime-web/ }, () => ({
        path: "/files/ort.wasm.min.mjs",
        external: true,
      }));
      // As in the playground's engine: what reads disks is not used here.
      onResolve({ filter: /^\.{1,2}\// }, ({ path, resolveDir }) => ({
        path: join(resolveDir, path),
        sideEffects: false,
      }));
      onResolve({ filter: /^\w/ }, ({ path }) => ({
        path,
        external: true,
        sideEffects: false,
      }));
      onResolve({ filter: /^@bufbuild\// }, ({ path }) => ({
        path: fileURLToPath(import.meta.resolve(path)),
        sideEffects: false,
      }));
    },
  };
  const { outputFiles: [{ contents }] } = await esbuild.build({
    entryPoints: [here("_page.ts")],
    bundle: true,
    format: "esm",
    minify: true,
    platform: "browser",
    plugins: [resolver],
    write: false,
    logLevel: "error",
  });
  await esbuild.stop();
  return new Uint8Array(contents);
}

const PAGE = `<!doctype html><meta charset="utf-8"><title>Benchmark</title>
<script src="/files/tf.min.js"></script>
<script src="/files/tf-backend-wasm.min.js"></script>
<script type="module" src="/page.js"></script>`;

/** Serves the page and the packages' files, isolated so that it has threads. */
function serve(script: Uint8Array<ArrayBuffer>): Deno.HttpServer<Deno.NetAddr> {
  const folders = [
    folderOf("onnxruntime-web/wasm"),
    folderOf(TFJS),
    folderOf(TFJS_WASM),
  ];
  const found = async (name: string) => {
    for (const folder of folders) {
      const bytes = await Deno.readFile(join(folder, name)).catch(() => null);
      if (bytes) return bytes;
    }
    return null;
  };
  const types: Record<string, string> = {
    ...{ js: "text/javascript", mjs: "text/javascript" },
    wasm: "application/wasm",
  };
  const handle = async ({ url }: Request) => {
    const { pathname } = new URL(url);
    const name = pathname.split("/").at(-1)!;
    const body = pathname === "/"
      ? PAGE
      : pathname === "/page.js"
      ? script
      : await found(name);
    return new Response(body, {
      status: body ? 200 : 404,
      headers: {
        "content-type": types[name.split(".").at(-1)!] ?? "text/html",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
      },
    });
  };
  const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
  return Deno.serve(options, handle);
}

/** Measures both sides in one page. */
async function browserBench(
  program: string,
  options: PageOptions,
): Promise<PageResult> {
  const server = serve(await bundlePage());
  const browser = await chromium.launch({
    executablePath: program,
    args: ["--no-sandbox", "--disable-background-networking", "--no-first-run"],
  });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(0);
    const failed = Promise.withResolvers<never>();
    page.on("pageerror", failed.reject);
    await page.goto(`http://127.0.0.1:${server.addr.port}/`);
    await page.waitForFunction("globalThis.measure");
    return await Promise.race([
      page.evaluate(`measure(${JSON.stringify(options)})`) as Promise<
        PageResult
      >,
      failed.promise,
    ]);
  } finally {
    await browser.close();
    await server.shutdown();
  }
}

if (import.meta.main) {
  await runScript(import.meta, FLAGS, {}, async (flags) => {
    // Downloaded when needed, as it is large and nothing else needs it.
    for (const name of [TFJS, TFJS_WASM]) await import(name).catch(() => {});
    const result = await browserBench(flags.chromium, flags);
    const rows = ([["ours", result.ours], [
      "TensorFlow.js",
      result.tensorflow,
    ]] as const).map(([name, times]) => [
      name,
      showNumber(median(times)),
      showNumber(1000 * flags.batchSize / median(times)),
    ]);
    console.log(formatTable(["side", "ms a step", "images/s"], rows));
    const ratio = median(
      result.tensorflow.map((ms, i) => ms / result.ours[i]),
    );
    console.log(
      `\nTensorFlow.js/ours ${showNumber(ratio)}; losses differ by ` +
        `${result.difference.toExponential(1)} at most\n` +
        `${result.versions.join(", ")}; width ${flags.width}, batch ` +
        `${flags.batchSize}`,
    );
  });
}
