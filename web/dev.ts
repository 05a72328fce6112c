/**
 * Serves the site: results to look at, and the playground.
 *
 *   deno task web --port 8000
 *
 * It listens on this machine alone unless --host says otherwise. Runs and
 * results are looked for in the folders of the flags whenever a page is asked
 * for; nothing needs to be restarted.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { Builder } from "fresh/dev";
import {
  type FlagTable,
  type ParsedFlags,
  runScript,
  type ScriptContext,
  UsageError,
} from "../scripts/_cli.ts";
import { Library, type LibraryOptions } from "./library.ts";
import { createApp } from "./main.ts";
import type { State } from "./utils.ts";
import { makeVendor } from "./vendor.ts";

/** Folders that the site reads. */
export const FOLDER_FLAGS = {
  runs: { type: "path", default: "runs", help: "folder of training runs" },
  results: { type: "path", default: "results", help: "folder of experiments" },
} as const satisfies FlagTable;

const FLAGS = {
  port: {
    type: "integer",
    default: 8000,
    min: 0,
    max: 65_535,
    help: "port; 0 takes a free one",
  },
  host: {
    type: "string",
    default: "127.0.0.1",
    help: "address to listen on; 0.0.0.0 lets other machines in",
  },
  ...FOLDER_FLAGS,
} as const satisfies FlagTable;

/** The site's builder. */
export function createBuilder(): Builder<State> {
  return new Builder<State>({
    root: fileURLToPath(new URL(".", import.meta.url)),
  });
}

/** The folders of flags, and those that come with the project. */
export function foldersOf(
  { runs, results }: { readonly runs: string; readonly results: string },
): LibraryOptions {
  const home = (path: string) =>
    fileURLToPath(new URL(`../${path}`, import.meta.url));
  return {
    runs,
    results,
    gallery: home("docs/gallery"),
    weights: home("models/weights"),
  };
}

async function main(
  flags: ParsedFlags<typeof FLAGS>,
  { note, print, signal }: ScriptContext,
): Promise<void> {
  note("Building the site");
  await makeVendor();
  const library = new Library(foldersOf(flags));
  const { host: hostname, port } = flags;
  const stopped = new Promise((resolve) =>
    signal.addEventListener("abort", resolve)
  );
  try {
    await createBuilder().listen(
      () => Promise.resolve(createApp(library)),
      {
        hostname,
        port,
        signal,
        automaticCompression: true,
        onListen: (address) => {
          const name = address.hostname === "0.0.0.0"
            ? "localhost"
            : address.hostname;
          print(`http://${name}:${address.port}/`);
          note("Ctrl-C stops it");
        },
      },
    );
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) {
      throw new UsageError(
        `Cannot listen on port ${port}: it is in use; pass another --port`,
      );
    }
    const isHost = error instanceof Deno.errors.AddrNotAvailable ||
      /address information/.test(String(error));
    if (isHost) {
      throw new UsageError(
        `Cannot listen on "${hostname}": this machine has no such address; ` +
          `pass another --host`,
      );
    }
    throw error;
  }
  // Found once now, the first page need not wait.
  await Promise.all([library.runs(), library.models()]);
  await stopped;
}

if (import.meta.main) await runScript(import.meta, FLAGS, {}, main);
