/**
 * Finds routes and islands, bundles islands for the browser, serves.
 *
 * @module
 */
import * as esbuild from "esbuild";
import type { ComponentType } from "preact";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { App, type ListenOptions, setSnapshot } from "./app.ts";
import type { IslandInfo, RouteFile, Snapshot } from "./snapshot.ts";

/** Where the parts of a site are. */
export interface BuilderOptions {
  root?: string;
  staticDir?: string;
  islandDir?: string;
  routeDir?: string;
  outDir?: string;
  target?: string | string[];
}

/** Builds a site from its folder. */
export class Builder<S = unknown> {
  readonly #options: Required<BuilderOptions>;

  constructor(options: BuilderOptions = {}) {
    const given = options.root ?? ".";
    const root = resolve(
      given.startsWith("file:") ? fileURLToPath(given) : given,
    );
    this.#options = {
      root,
      target: options.target ?? ["chrome99", "firefox99", "safari15"],
      staticDir: resolve(root, options.staticDir ?? "static"),
      islandDir: resolve(root, options.islandDir ?? "islands"),
      routeDir: resolve(root, options.routeDir ?? "routes"),
      outDir: resolve(root, options.outDir ?? "_fresh"),
    };
  }

  /**
   * Builds into memory.
   *
   * @returns Hands the result to an app
   */
  async build(
    options: { mode?: string; snapshot?: "disk" | "memory" } = {},
  ): Promise<(app: App<S>) => void> {
    if (options.snapshot !== "memory") {
      throw new Error(
        `Unsupported: build() without { snapshot: "memory" }`,
      );
    }
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
    const { root, staticDir, islandDir, routeDir } = this.#options;
    const islands: string[] = [], routes: string[] = [];
    for await (const path of sources(islandDir)) islands.push(path);
    for await (const path of sources(routeDir)) {
      const isIsland = path.includes("/(_islands)/");
      if (isIsland) islands.push(path);
      else if (!/\/\(_[^/]*\)\//.test(path)) routes.push(path);
    }
    const load = (path: string) => import(pathToFileURL(path).href);
    const { assets, urls } = await this.#bundle(islands);
    const components = new Map<ComponentType, IslandInfo>();
    for (const path of islands) {
      const { default: component } = await load(path);
      components.set(component, { name: nameOf(path), url: urls.get(path)! });
    }
    const files: RouteFile[] = [];
    for (const path of routes.toSorted()) {
      const id = path.slice(routeDir.length + 1).replace(/\.\w+$/, "");
      files.push({ id, module: await load(path) });
    }
    const client = urls.get(CLIENT)!;
    return {
      root,
      staticDir,
      routes: files,
      islands: components,
      client,
      assets,
    };
  }

  /** Bundles the client and islands; what they share is in chunks. */
  async #bundle(
    islands: readonly string[],
  ): Promise<{ assets: Snapshot["assets"]; urls: Map<string, string> }> {
    const folder = "/_fresh/js";
    const entries = [CLIENT, ...islands];
    const { outputFiles, metafile } = await esbuild.build({
      entryPoints: entries,
      entryNames: "[name]-[hash]",
      chunkNames: "chunk-[hash]",
      outdir: folder,
      absWorkingDir: "/",
      target: this.#options.target,
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
    const assets = new Map(outputFiles.map(({ path, contents }) => [
      folder + path.slice(path.lastIndexOf("/")),
      new Uint8Array(contents),
    ]));
    const urls = new Map<string, string>();
    for (const [path, { entryPoint }] of Object.entries(metafile.outputs)) {
      const source = entryPoint && `/${entryPoint.replace(/^\/+/, "")}`;
      if (source && entries.includes(source)) {
        urls.set(source, folder + path.slice(path.lastIndexOf("/")));
      }
    }
    return { assets, urls };
  }
}

const CLIENT = fileURLToPath(new URL("./client.ts", import.meta.url));

function nameOf(path: string): string {
  return path.replace(/^.*\/|\.\w+$/g, "");
}

async function* sources(folder: string): AsyncGenerator<string> {
  const entries = await Array.fromAsync(Deno.readDir(folder)).catch(() => []);
  for (const { name, isDirectory } of entries) {
    const path = join(folder, name);
    if (isDirectory) yield* sources(path);
    else if (/\.[jt]sx?$/.test(name) && !/[._]test\.\w+$/.test(name)) {
      yield path;
    }
  }
}

/** Resolves packages by the import map, and takes their browser build. */
const npmResolver: esbuild.Plugin = {
  name: "npm",
  setup({ onResolve }) {
    onResolve({ filter: /^[@\w]/ }, async ({ path, kind }) => {
      if (kind === "entry-point") return null;
      const url = import.meta.resolve(path);
      const file = fileURLToPath(url);
      return { path: await browserBuild(path, file) };
    });
  },
};

type Exports = string | null | { readonly [condition: string]: Exports };

/** The file that a package's `exports` name for browsers. */
async function browserBuild(specifier: string, file: string): Promise<string> {
  const [, name, rest] = /^((?:@[^/]+\/)?[^/]+)(.*)$/.exec(specifier)!;
  for (let at = dirname(file); at !== dirname(at); at = dirname(at)) {
    let manifest: { name?: string; exports?: Record<string, Exports> };
    try {
      manifest = JSON.parse(await Deno.readTextFile(join(at, "package.json")));
    } catch {
      continue;
    }
    if (manifest.name !== name) continue;
    let found: Exports | undefined = manifest.exports?.[`.${rest}`];
    while (found && typeof found === "object") {
      const key: string | undefined = Object.keys(found).find((condition) =>
        ["browser", "module", "import", "default"].includes(condition)
      );
      found = key ? found[key] : undefined;
    }
    return found ? join(at, found) : file;
  }
  return file;
}
