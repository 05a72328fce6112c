/**
 * Makes `static/vendor/`, which is not under version control: the playground's
 * engine, and the files of packages that a page loads by themselves.
 *
 * @module
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const FOLDER = fileURLToPath(new URL("./static/vendor/", import.meta.url));

/** The engine by what it runs on: its script, and ONNX Runtime's. */
const ENGINES = {
  "engine-wasm.js": "ort.wasm.min.mjs",
  "engine-webgpu.js": "ort.webgpu.min.mjs",
} as const;

/** What those scripts load. */
const RUNTIME_FILES = [
  ...Object.values(ENGINES),
  "ort-wasm-simd-threaded.mjs",
  "ort-wasm-simd-threaded.wasm",
  "ort-wasm-simd-threaded.asyncify.mjs",
  "ort-wasm-simd-threaded.asyncify.wasm",
];

/** All that the playground's worker needs. */
export const VENDOR_FILES: readonly string[] = [
  ...Object.keys(ENGINES),
  ...RUNTIME_FILES,
];

/** Makes the folder; files that are there already are kept. */
export async function makeVendor(): Promise<void> {
  await Deno.mkdir(FOLDER, { recursive: true });
  const runtime = packageFolder("onnxruntime-web/wasm");
  for (const name of RUNTIME_FILES) {
    await copy(join(runtime, name), join(FOLDER, name));
  }
  const uplot = packageFolder("uplot");
  await copy(join(uplot, "uPlot.min.css"), join(FOLDER, "uplot.css"));
  for (const [name, ort] of Object.entries(ENGINES)) {
    const bytes = await bundleEngine(ort);
    await write(join(FOLDER, name), bytes);
  }
  await esbuild.stop();
}

/** Named in an import, a package's place on disk can be asked for. */
export const named = [
  () => import("onnxruntime-web/wasm"),
  () => import("uplot"),
];

/** Folder of the file that a package's name stands for. */
function packageFolder(specifier: string): string {
  return dirname(fileURLToPath(import.meta.resolve(specifier)));
}

async function copy(from: string, to: string): Promise<void> {
  const [source, target] = await Promise.all([
    Deno.stat(from),
    Deno.stat(to).catch(() => null),
  ]);
  if (target?.size !== source.size) await Deno.copyFile(from, to);
}

async function write(path: string, bytes: Uint8Array): Promise<void> {
  const old = await Deno.readFile(path).catch(() => null);
  const isSame = old?.length === bytes.length &&
    old.every((byte, i) => byte === bytes[i]);
  // Unchanged files keep their validators.
  if (!isSame) await Deno.writeFile(path, bytes);
}

async function bundleEngine(ort: string): Promise<Uint8Array> {
  const resolver: esbuild.Plugin = {
    name: "engine",
    setup({ onResolve }) {
      onResolve({ filter: /^@bufbuild\// }, ({ path }) => ({
        path: fileURLToPath(import.meta.resolve(path)),
        sideEffects: false,
      }));
      onResolve({ filter: /^onnxruntime-web/ }, () => ({
        path: `./${ort}`,
        external: true,
      }));
      // What trains and reads disks is dropped, as nothing here uses it.
      onResolve({ filter: /^\.{1,2}\// }, ({ path, resolveDir }) => ({
        path: join(resolveDir, path),
        sideEffects: false,
      }));
      onResolve({ filter: /^\w/ }, ({ path }) => ({
        path,
        external: true,
        sideEffects: false,
      }));
    },
  };
  const { outputFiles: [{ contents }] } = await esbuild.build({
    entryPoints: [
      fileURLToPath(new URL("./engine/worker.ts", import.meta.url)),
    ],
    bundle: true,
    format: "esm",
    minify: true,
    platform: "browser",
    plugins: [resolver],
    target: ["chrome99", "firefox99", "safari15"],
    write: false,
  });
  return contents;
}
