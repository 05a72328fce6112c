/**
 * Imports point up the map of the README: core <- models, onnx, datasets,
 * distributed <- robust <- scripts, web.
 */
import { assertEquals } from "@std/assert";

/** Folders that each folder may import from, beside its own. */
const ALLOWED: Record<string, readonly string[]> = {
  core: [],
  models: ["core"],
  onnx: ["core"],
  datasets: ["core"],
  distributed: ["core"],
  robust: ["core", "models", "onnx", "datasets", "distributed"],
  scripts: ["."],
  web: [".", "core", "models", "onnx", "datasets", "robust", "scripts"],
  bench: [
    ...[".", "core", "models", "onnx", "datasets", "distributed", "robust"],
    "scripts",
  ],
};

/** Folders that hold no part of the program. */
const OTHER = [
  ...["tests", "jsr", "docs"],
  // Not under version control.
  ...["data", "results", "runs", "node_modules"],
];

/** Public entries of a folder: its mod.ts, and those that need a disk. */
const ENTRIES = [
  /\/mod\.ts$/,
  /^models\/files\.ts$/,
  /^robust\/(results|load)\.ts$/,
  /^scripts\/_cli\.ts$/,
];

async function* sources(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* sources(path);
    else if (/\.tsx?$/.test(entry.name)) yield path;
  }
}

/** Paths that a file imports, relative to the repository. */
async function importsOf(path: string): Promise<string[]> {
  const text = await Deno.readTextFile(path);
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "");
  const specifiers = code.matchAll(/(?:from|import\(?)\s*"(\.[^"]+)"/g);
  return Array.from(specifiers, ([, specifier]) => {
    const url = new URL(specifier, `file:///${path}`);
    return url.pathname.slice(1);
  });
}

for (const [folder, allowed] of Object.entries(ALLOWED)) {
  Deno.test(`${folder}/ imports only what is above it on the map`, async () => {
    const wrong: string[] = [];
    for await (const path of sources(folder)) {
      for (const target of await importsOf(path)) {
        const [top, ...rest] = target.split("/");
        if (top === folder || target.endsWith(".json")) continue;
        const home = rest.length === 0 ? "." : top;
        const isEntry = home === "." || ENTRIES.some((re) => re.test(target));
        if (!allowed.includes(home) || !isEntry) {
          wrong.push(`${path} imports ${target}`);
        }
      }
    }
    assertEquals(wrong, []);
  });
}

Deno.test("every folder has its row", async () => {
  const folders = await Array.fromAsync(Deno.readDir("."));
  const unknown = folders
    .filter(({ isDirectory, name }) => isDirectory && /^\w/.test(name))
    .map(({ name }) => name)
    .filter((name) => !(name in ALLOWED) && !OTHER.includes(name));
  assertEquals(unknown, []);
});

Deno.test("core/ and models/mod.ts touch no disk, so browsers can load them", async () => {
  const wrong: string[] = [];
  for (const folder of ["core", "models", "robust"]) {
    for await (const path of sources(folder)) {
      if (ENTRIES.slice(1).some((re) => re.test(path))) continue;
      const text = await Deno.readTextFile(path);
      const code = text.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
      if (/\bDeno\.|"node:/.test(code)) wrong.push(path);
    }
  }
  assertEquals(wrong, []);
});
