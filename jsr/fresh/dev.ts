/**
 * Finds routes and islands, bundles islands for the browser, serves.
 *
 * @module
 */
import * as esbuild from "esbuild";
import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { App, type ListenOptions } from "./app.ts";
import { type Module, type Routes, sortRoutes } from "./routes.ts";
import { unsupported } from "./unsupported.ts";

export interface BuilderOptions {
  /** Folder of the site. */
  root?: string;
}

/** What a build hands to an app. */
export interface Snapshot<S> extends Routes<S> {
  readonly staticDir: string;
  /** Components that are revived in the browser, and their scripts. */
  readonly islands: ReadonlyMap<unknown, string>;
  /** The script that revives them. */
  readonly client: string;
  /** Scripts by path, whose names hold their hash. */
  readonly assets: ReadonlyMap<string, Uint8Array<ArrayBuffer>>;
}

const CLIENT = fileURLToPath(new URL("./client.ts", import.meta.url));

/** Builds a site from its folder. */
export class Builder<S = unknown> {
  readonly #root: string;

  constructor({ root = ".", ...others }: BuilderOptions = {}) {
    for (const name of Object.keys(others)) unsupported(`Builder's ${name}`);
    this.#root = resolve(root);
  }

  /**
   * Builds into memory.
   *
   * @returns Hands the result to an app
   */
  async build(
    options: { snapshot?: "disk" | "memory" } = {},
  ): Promise<(app: App<S>) => void> {
    if (options.snapshot !== "memory") unsupported("Builder.build() to disk");
    const islands = await modulesOf(join(this.#root, "islands"));
    const routes = await modulesOf(join(this.#root, "routes"));
    const { assets, urls } = await bundle(islands.map(({ path }) => path));
    const snapshot: Snapshot<S> = {
      ...sortRoutes<S>(routes),
      staticDir: join(this.#root, "static"),
      islands: new Map(
        islands.map(({ path, module }) => [module.default, urls[path]]),
      ),
      client: urls[CLIENT],
      assets,
    };
    return (app) => void (app.snapshot = snapshot);
  }

  /** Builds, then serves the app of a module. */
  async listen(
    importApp: () => Promise<{ app: App<S> } | App<S>>,
    options: ListenOptions = {},
  ): Promise<void> {
    const arm = await this.build({ snapshot: "memory" });
    const imported = await importApp();
    const app = imported instanceof App ? imported : imported.app;
    arm(app);
    await app.listen(options);
  }
}

/** Modules below a folder, tests left out. */
async function modulesOf(folder: string) {
  const names = await readdir(folder, { recursive: true });
  const sources = names.filter((name) => /(?<![._]test)\.[jt]sx?$/.test(name));
  return await Promise.all(sources.map(async (name) => {
    const path = join(folder, name);
    const module: Module = await import(pathToFileURL(path).href);
    return { id: name.replace(/\.\w+$/, ""), path, module };
  }));
}

/** Bundles the client and islands; what they share is in chunks. */
async function bundle(islands: readonly string[]) {
  const { outputFiles, metafile } = await esbuild.build({
    entryPoints: [CLIENT, ...islands],
    entryNames: "[name]-[hash]",
    chunkNames: "chunk-[hash]",
    outdir: "/",
    absWorkingDir: "/",
    target: ["chrome99", "firefox99", "safari15"],
    bundle: true,
    format: "esm",
    jsx: "automatic",
    jsxImportSource: "preact",
    metafile: true,
    minify: true,
    platform: "browser",
    plugins: [npmResolver],
    splitting: true,
    write: false,
  });
  await esbuild.stop();
  const urlOf = (path: string) => path.replace(/^.*\//, "/_fresh/js/");
  const assets = outputFiles.map(({ path, contents }) =>
    [urlOf(path), new Uint8Array(contents)] as const
  );
  const urls: Record<string, string> = {};
  for (const [path, { entryPoint }] of Object.entries(metafile.outputs)) {
    if (entryPoint) urls[`/${entryPoint}`] = urlOf(`/${path}`);
  }
  return { assets: new Map(assets), urls };
}

/** Resolves packages by the import map. */
const npmResolver: esbuild.Plugin = {
  name: "npm",
  setup({ onResolve }) {
    onResolve(
      { filter: /^[@\w]/ },
      ({ path, kind }) =>
        kind === "entry-point"
          ? null
          : { path: fileURLToPath(import.meta.resolve(path)) },
    );
  },
};
