/**
 * Says what is wrong with a folder of data, and what to do about it: missing
 * splits, classes that differ between splits, empty classes, images that
 * cannot be read, folders too deep, files of CIFAR-10 that are short.
 *
 *   deno task doctor --data data/my-images
 *
 * Each finding is one sentence. The exit code is 1 if there is a problem, 0 if
 * there is none; notes are no problems.
 *
 * @module
 */
import { examineData, writeFileAtomic } from "../mod.ts";
import {
  type FlagTable,
  type ParsedFlags,
  runScript,
  SCRIPT_FLAGS,
  type ScriptContext,
} from "./_cli.ts";
import { checkFile, datasetProgress } from "./_run.ts";

/** Flags of this script. */
export const FLAGS = {
  data: { type: "path", required: true, help: "folder of data" },
  split: {
    type: "choice",
    choices: ["train", "test"],
    multiple: true,
    help: "split that must be there; both if not given",
  },
  limit: {
    type: "integer",
    min: 1,
    help: "decode this many images of each class folder; all if not given",
  },
  json: { type: "path", help: "also write what was found as JSON here" },
  ...SCRIPT_FLAGS,
} as const satisfies FlagTable;

/** Prints findings; the work of this script. */
export async function main(
  flags: ParsedFlags<typeof FLAGS>,
  { signal, progress, note, print }: ScriptContext,
): Promise<void> {
  if (flags.json !== undefined) await checkFile(flags.json);
  const examination = await examineData(flags.data, {
    limit: flags.limit,
    ...(flags.split.length > 0
      ? { splits: flags.split as ("train" | "test")[] }
      : {}),
    signal,
    ...datasetProgress(progress),
  });
  const { form, dataset, splits, findings } = examination;
  note(`Form: ${form}`);
  for (const { name, classes, images } of splits) {
    note(`${name}: ${classes} classes, ${images} images`);
  }
  if (dataset) note(`Open it with --dataset ${dataset}`);
  for (const { kind, message } of findings) print(`${kind}: ${message}`);
  const problems = findings.filter(({ kind }) => kind === "problem").length;
  if (problems === 0) print("No problem found");
  if (flags.json !== undefined) {
    const text = JSON.stringify({ problems, ...examination }, null, 2);
    await writeFileAtomic(flags.json, `${text}\n`);
  }
  if (problems > 0) Deno.exitCode = 1;
}

if (import.meta.main) await runScript(import.meta, FLAGS, {}, main);
