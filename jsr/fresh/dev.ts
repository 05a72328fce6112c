/**
 * Finds routes and islands, bundles islands for the browser, serves.
 *
 * @module
 */
import * as esbuild from "esbuild";
import type { ComponentType } from "preact";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { App, type ListenOptions, setSnapshot } from "./app.ts";
import type { IslandInfo, Snapshot } from "./snapshot.ts";

/** Where the parts of a site are; folders are below `root`. */
export interface BuilderOptions {
  root?: string;
  staticDir?: string;
  islandDir?: string;
  routeDir?: string;
  outDir?: string;
  target?: string | string[];
}

const CLIENT = fileURLToPath(new URL("./client.ts", import.meta.url));

/** Builds a site from its folder. */
export class Builder<S = unknown> {
  readonly #options: BuilderOptions;

  constructor(options: BuilderOptions = {}) {
    this.#options = options;
  }

  /**
   * Builds into memory.
   *
   * @returns Hands the result to an app
   */
  async build(
    { snapshot: where }: { mode?: string; snapshot?: "disk" | "memory" } = {},
  ): Promise<(app: App<S>) => void> {
    if (where !== "memory") throw new Error("Unsupported: build() to disk");
    const snapshot = await this.#snapshot();
    return (app) => setSnapshot(app, snapshot);
  }

  /** Builds, then serves the app of a module. */
  async listen(
    importApp: () => Promise<{ app: App<S> } | App<S>>,
    options: ListenOptions = {},
  ): Promise<void> {
    const arm = await this.build({ snapshot: "memory" });
    const imported = await importApp();
    const app = imported instanceof App ? imported : imported.app;
    app.config.mode = "development";
    arm(app);
    await app.listen(options);
  }

  async #snapshot(): Promise<Snapshot> {
    const { root: given = ".", target } = this.#options;
    const root = resolve(
      given.startsWith("file:") ? fileURLToPath(given) : given,
    );
    const folder = (name: "static" | "island" | "route") =>
      resolve(
        root,
        this.#options[`${name}Dir`] ?? (name === "static" ? name : `${name}s`),
      );
    const below = await Array.fromAsync(sources(folder("route")));
    const islands = [
      ...await Array.fromAsync(sources(folder("island"))),
      ...below.filter((path) => path.includes("/(_islands)/")),
    ];
    const { assets, urls } = await bundle(islands, target);
    const load = (path: string) => import(pathToFileURL(path).href);
    const components = new Map<ComponentType, IslandInfo>();
    for (const path of islands) {
      const name = path.replace(/^.*\/|\.\w+$/g, "");
      const { default: component } = await load(path);
      components.set(component, { name, url: urls.get(path)! });
    }
    const routes = below.filter((path) => !/\/\(_[^/]*\)\//.test(path)).sort();
    return {
      root,
      staticDir: folder("static"),
      routes: await Promise.all(routes.map(async (path) => ({
        id: path.slice(folder("route").length + 1).replace(/\.\w+$/, ""),
        module: await load(path),
      }))),
      islands: components,
      client: urls.get(CLIENT)!,
      assets,
    };
  }
}

/** Bundles the client and islands; what they share is in chunks. */
async function bundle(
  islands: readonly string[],
  target: string | string[] = ["chrome99", "firefox99", "safari15"],
): Promise<{ assets: Snapshot["assets"]; urls: Map<string, string> }> {
  const { outputFiles, metafile } = await esbuild.build({
    entryPoints: [CLIENT, ...islands],
    entryNames: "[name]-[hash]",
    chunkNames: "chunk-[hash]",
    outdir: "/",
    absWorkingDir: "/",
    target,
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
  return {
    assets: new Map(outputFiles.map(({ path, contents }) => [
      urlOf(path),
      new Uint8Array(contents),
    ])),
    urls: new Map(
      Object.entries(metafile.outputs).map(([path, { entryPoint = "" }]) => [
        `/${entryPoint}`,
        urlOf(`/${path}`),
      ]),
    ),
  };
}

async function* sources(folder: string): AsyncGenerator<string> {
  const entries = await Array.fromAsync(Deno.readDir(folder)).catch(() => []);
  for (const { name, isDirectory } of entries) {
    const path = join(folder, name);
    if (isDirectory) yield* sources(path);
    else if (/(?<![._]test)\.[jt]sx?$/.test(name)) yield path;
  }
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
