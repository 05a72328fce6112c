/**
 * Downloads a data set: checks its checksum, continues where it was stopped.
 *
 *   deno task download cifar10 --out data
 *
 * @module
 */
import { CIFAR10_ARCHIVE, download } from "../mod.ts";
import {
  type FlagTable,
  type ParsedFlags,
  runScript,
  SCRIPT_FLAGS,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import { datasetProgress } from "./_run.ts";

const ARCHIVES = { cifar10: CIFAR10_ARCHIVE } as const;

const FLAGS = {
  out: { type: "path", default: "data", help: "folder for the archive" },
  url: { type: "string", help: "another place to download from" },
  ...SCRIPT_FLAGS,
} as const satisfies FlagTable;

async function main(
  flags: ParsedFlags<typeof FLAGS>,
  { signal, progress, print }: ScriptContext,
): Promise<void> {
  const [name] = flags._;
  if (!Object.hasOwn(ARCHIVES, name)) {
    throw new UsageError(
      `Cannot download "${name}": known are ${
        Object.keys(ARCHIVES).join(", ")
      }`,
    );
  }
  const archive = ARCHIVES[name as keyof typeof ARCHIVES];
  const url = flags.url ?? archive.url;
  try {
    await Deno.mkdir(flags.out, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    throw new Error(
      `Cannot download into "${flags.out}": it is a file; pass another --out`,
    );
  }
  const file = `${flags.out}/${archive.url.split("/").at(-1)}`;
  print(
    await download({
      ...archive,
      url,
      file,
      signal,
      ...datasetProgress(progress),
    }),
  );
}

if (import.meta.main) {
  const positional = {
    name: "dataset",
    help: "cifar10 (163 MB)",
    min: 1,
    max: 1,
  };
  await runScript(import.meta, FLAGS, { positional }, main);
}
