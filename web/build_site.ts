/**
 * Writes the site as files: results and playground, for any file host.
 *
 *   deno task build-site --out site
 *
 * Addresses in it are relative, so that it works in a folder of a host, too.
 * What needs a server is left out: training is not followed live, and without
 * its headers the playground computes on one thread of WebAssembly, or on
 * WebGPU. Links to what is left out become text.
 *
 * @module
 */
import { dirname, join } from "node:path";
import {
  type FlagTable,
  type ParsedFlags,
  runScript,
  type ScriptContext,
  UsageError,
} from "../scripts/_cli.ts";
import { createBuilder, FOLDER_FLAGS, foldersOf } from "./dev.ts";
import { bytes } from "./format.ts";
import { Library } from "./library.ts";
import { createApp } from "./main.ts";
import { POLICY } from "./security.ts";
import { makeVendor, VENDOR_FILES } from "./vendor.ts";

const FLAGS = {
  out: {
    type: "path",
    required: true,
    help: "folder to write; must be empty or not there yet",
  },
  graphs: {
    type: "boolean",
    help: "write networks as ONNX graphs, too: several times their weights",
  },
  ...FOLDER_FLAGS,
} as const satisfies FlagTable;

/** Where the crawl begins: pages, and what scripts ask for by themselves. */
const SEEDS = [
  "/",
  "/experiments",
  "/runs",
  "/models",
  "/playground",
  "/api/runs/index.json",
  "/api/results/index.json",
  "/api/models/index.json",
  // The playground's worker, and what that loads.
  ...VENDOR_FILES.map((name) => `/vendor/${name}`),
];

/** What only training reads. */
const STATE = /\/training\.safetensors$/;

/** Options of `writeSite()`. */
export interface WriteOptions {
  /** Whether networks are written as ONNX graphs, too. */
  readonly graphs?: boolean;
  readonly signal?: AbortSignal;
}

/** What was written. */
export interface WrittenSite {
  readonly pages: number;
  readonly files: number;
  readonly size: number;
}

type Handler = (request: Request) => Promise<Response>;

/**
 * Writes all that can be reached from the pages.
 *
 * @param handler Answers as the site does
 * @param out Folder, which is made
 */
export async function writeSite(
  handler: Handler,
  out: string,
  { graphs = false, signal }: WriteOptions = {},
): Promise<WrittenSite> {
  const pages = new Map<string, string>();
  const written = new Set<string>();
  const seen = new Set(SEEDS);
  const queue = [...SEEDS];
  let size = 0;
  const find = (addresses: Iterable<string>) => {
    for (const address of addresses) {
      const path = address.replace(/[?#].*$/s, "");
      if (!seen.has(path)) queue.push(path);
      seen.add(path);
    }
  };
  for (let path = queue.shift(); path; path = queue.shift()) {
    signal?.throwIfAborted();
    if (STATE.test(path) || !graphs && path.endsWith(".onnx")) continue;
    const response = await handler(new Request(`http://localhost${path}`));
    if (!response.ok || !response.body) {
      await response.body?.cancel();
      continue;
    }
    const type = response.headers.get("content-type") ?? "";
    if (type.startsWith("text/html")) {
      const html = await response.text();
      pages.set(path, html);
      find(addressesIn(html));
      continue;
    }
    const content = new Uint8Array(await response.arrayBuffer());
    if (type.startsWith("text/javascript")) {
      const folder = path.slice(0, path.lastIndexOf("/") + 1);
      find(scriptsIn(new TextDecoder().decode(content), folder));
    }
    await write(join(out, fileOf(path)), content);
    written.add(path);
    size += content.length;
  }
  const kindOf = (path: string) =>
    pages.has(path) ? "page" : written.has(path) ? "file" : null;
  for (const [path, html] of pages) {
    const content = new TextEncoder().encode(relative(html, path, kindOf));
    await write(join(out, fileOf(path), "index.html"), content);
    size += content.length;
  }
  return { pages: pages.size, files: written.size, size };
}

const ADDRESS = /(\s(?:href|src)=")(\/[^"]*)"/g;

/** Addresses of this site in a page. */
function* addressesIn(html: string): Generator<string> {
  for (const [, , address] of html.matchAll(ADDRESS)) yield decoded(address);
  // Those that islands use alone.
  const [, state] = /id="fresh-state">(.*?)<\/script>/s.exec(html) ?? [];
  for (
    const [, path] of state?.matchAll(/"(\/(?:api|samples)\/[^"]*)"/g) ?? []
  ) {
    yield path;
  }
}

/** Scripts that a script loads from its own folder. */
function* scriptsIn(code: string, folder: string): Generator<string> {
  for (const [, name] of code.matchAll(/"\.\/([\w.-]+\.m?js)"/g)) {
    yield folder + name;
  }
}

/** Attributes' text as it was before escaping. */
function decoded(text: string): string {
  return text.replaceAll("&quot;", '"').replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}

/** A page with addresses relative to it, and its policy inside. */
function relative(
  html: string,
  path: string,
  kindOf: (path: string) => "page" | "file" | null,
): string {
  const depth = path.split("/").filter(Boolean).length;
  const root = depth === 0 ? "./" : "../".repeat(depth);
  const { "frame-ancestors": _, ...directives } = POLICY;
  const policy = Object.entries(directives).map((pair) => pair.join(" "));
  return html.replace(ADDRESS, (_, before: string, address: string) => {
    const [, target, rest] = /^([^?#]*)(.*)$/s.exec(address)!;
    const kind = kindOf(decoded(target));
    if (!kind) return "";
    const slash = kind === "page" && target !== "/" ? "/" : "";
    return `${before}${root}${target.slice(1)}${slash}${rest}"`;
  }).replace("<html", `<html data-root="${root}"`).replace(
    "<head>",
    `<head><meta http-equiv="content-security-policy" content="${
      policy.join("; ")
    }"/>`,
  );
}

/** Hosts decode addresses: files have decoded names. */
function fileOf(path: string): string {
  return path.split("/").map((part) => decodeURIComponent(part)).join("/");
}

async function write(path: string, content: Uint8Array): Promise<void> {
  await Deno.mkdir(dirname(path), { recursive: true });
  await Deno.writeFile(path, content);
}

async function main(
  flags: ParsedFlags<typeof FLAGS>,
  { note, print, signal }: ScriptContext,
): Promise<void> {
  const { out } = flags;
  const entries = await Array.fromAsync(Deno.readDir(out)).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  });
  if (entries.length > 0) {
    throw new UsageError(
      `Cannot write the site to "${out}": the folder is not empty; pass ` +
        `another --out`,
    );
  }
  note("Building the site");
  await makeVendor();
  const app = createApp(new Library(foldersOf(flags)));
  const arm = await createBuilder().build({ snapshot: "memory" });
  arm(app);
  const { pages, files, size } = await writeSite(app.handler(), out, {
    ...flags,
    signal,
  });
  note(`${pages} pages and ${files} files, ${bytes(size)}`);
  print(join(out, "index.html"));
}

if (import.meta.main) await runScript(import.meta, FLAGS, {}, main);
