/**
 * Makes every figure and table of the paper with the networks that come with
 * the project, and an index of them with the paper's numbers beside ours.
 *
 *   deno task reproduce --data data --quick
 *
 * --data is the folder with cifar10/ and restricted-tiny-imagenet/. Each
 * figure is one of the other scripts, whose command is printed; stopped, it
 * goes on where it was. `deno task web` shows the results. Ranks take figures
 * in turn, into one folder that all of them see:
 *
 *   mpirun -n 4 deno task reproduce --distributed mpi --data data
 *
 * @module
 */
import {
  findModel,
  formatResultsIndex,
  parseResultsIndex,
  readCheckpoint,
  readRun,
  type ResultEntry,
  RESULTS_INDEX_FILE,
  RESULTS_INDEX_SCHEMA_VERSION,
  type Run,
  shippedModels,
  spread,
  writeFileAtomic,
} from "../mod.ts";
import {
  COMMON_FLAGS,
  type FlagTable,
  type ParsedFlags,
  runScript,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import {
  ENTRIES,
  type Entry,
  idOf,
  resultOf,
  type Setting,
  SETTINGS,
} from "./_entries.ts";
import { onRanks, RANK_FLAGS } from "./_ranks.ts";
import { callScript, quoted, REPOSITORY, type Script } from "./_run.ts";
import * as constrained_inversion from "./constrained_inversion.ts";
import * as evaluate from "./evaluate.ts";
import * as headline from "./headline.ts";
import * as interpolate from "./interpolate.ts";
import * as invert from "./invert.ts";
import * as manipulate_features from "./manipulate_features.ts";
import * as match_representation from "./match_representation.ts";
import * as maximizing_inputs from "./maximizing_inputs.ts";
import * as visualize_features from "./visualize_features.ts";

const SCRIPTS: Readonly<Record<string, unknown>> = {
  ...{ constrained_inversion, evaluate, headline, interpolate, invert },
  ...{ manipulate_features, match_representation, maximizing_inputs },
  visualize_features,
};

/** Flags of this script. */
export const FLAGS = {
  data: { type: "path", required: true, help: "folder of the data sets" },
  quick: {
    type: "boolean",
    help: "16 images and few steps: within 10 minutes on two cores",
  },
  only: {
    type: "string",
    multiple: true,
    help: "make this figure alone, such as fig-4 or fig-4-cifar10",
  },
  models: {
    type: "path",
    help: "folder of networks to use instead of those that are shipped",
  },
  out: { type: "path", default: "results", help: "folder of the results" },
  ...RANK_FLAGS,
  ...COMMON_FLAGS,
} as const satisfies FlagTable;

type Flags = ParsedFlags<typeof FLAGS>;

/** An entry and the command that makes it. */
interface Job {
  readonly entry: Entry;
  readonly setting: Setting;
  readonly argv: readonly string[];
}

/** Makes everything; the work of this script. */
export async function main(
  flags: Flags,
  context: ScriptContext,
): Promise<void> {
  const started = Date.now();
  const jobs = await plan(flags, context);
  const path = `${flags.out}/${RESULTS_INDEX_FILE}`;
  const found = await readIndex(path);
  // Not a full run with a quick one's figures among its own.
  const before = found.quick === flags.quick ? found : NO_INDEX;
  const entries = new Map<string, ResultEntry>(
    before.entries.map((entry) => [entry.id, entry]),
  );
  const write = async () => {
    const order = jobsOf(SETTINGS).map(({ entry, setting }) =>
      idOf(entry, setting)
    );
    await Deno.mkdir(flags.out, { recursive: true });
    await writeFileAtomic(
      path,
      formatResultsIndex({
        schemaVersion: RESULTS_INDEX_SCHEMA_VERSION,
        created: new Date().toISOString(),
        quick: flags.quick,
        seconds: before.seconds + (Date.now() - started) / 1000,
        entries: order.flatMap((id) => entries.get(id) ?? []),
      }),
    );
  };
  const communicator = context.ranks?.communicator ?? null;
  const isWriter = (communicator?.rank ?? 0) === 0;
  const results = await spread(jobs, communicator, async (job, i) => {
    const result = await make(job, `${i + 1}/${jobs.length}`, flags, context);
    if (isWriter) {
      entries.set(result.id, result);
      await write();
    }
    return result;
  });
  if (!results) return;
  for (const result of results) entries.set(result.id, result);
  await write();
  for (const id of jobs.map(({ entry, setting }) => idOf(entry, setting))) {
    const { shows, title } = entries.get(id)!;
    const word = shows === null ? "look" : shows ? "shows" : "not shown";
    context.print(`${word.padEnd(10)} ${id.padEnd(24)} ${title}`);
  }
  context.print(path);
}

/** Makes one figure or table, unless it is there already. */
async function make(
  { entry, setting, argv }: Job,
  position: string,
  flags: Flags,
  context: ScriptContext,
): Promise<ResultEntry> {
  const { note, ranks, ...rest } = context;
  const folder = `${flags.out}/${idOf(entry, setting)}`;
  const task = entry.script.replaceAll("_", "-");
  const command = `deno task ${task} ${argv.map(quoted).join(" ")}`;
  note(`\n${position} ${entry.title} (${setting.images})`);
  const done = await madeBefore(folder, argv);
  if (done) {
    note(`Made before: ${folder}`);
    return resultOf(entry, setting, { command, run: done });
  }
  note(command);
  await clear(folder, context);
  const threads = flags.threads ?? ranks?.threads;
  // Each figure is one rank's alone.
  await callScript(SCRIPTS[entry.script] as Script, [
    ...[...argv, "--out", folder],
    ...(threads ? ["--threads", `${threads}`] : []),
  ], { ...rest, note });
  const run = await readRun(folder);
  return resultOf(entry, setting, { command, run });
}

function jobsOf(settings: readonly Setting[]) {
  return settings.flatMap((setting) =>
    ENTRIES.map((entry) => ({ entry, setting }))
  );
}

/** What is to be made, of the networks that are there. */
async function plan(flags: Flags, context: ScriptContext): Promise<Job[]> {
  const shipped = await shippedModels();
  const nameOf = (name: string) =>
    flags.models ? `${flags.models}/${name}` : name;
  const isThere = async (name: string) =>
    flags.models
      ? await findModel(nameOf(name)).then(() => true, () => false)
      : shipped.includes(name);
  const jobs: Job[] = [];
  for (const setting of SETTINGS) {
    const { models } = setting;
    const there = new Set<string>();
    for (const name of Object.values(models)) {
      if (await isThere(name)) there.add(name);
    }
    if (!there.has(models.robust) || !there.has(models.standard)) {
      context.note(
        `No networks for ${setting.images}: ${models.robust} and ` +
          `${models.standard} are needed`,
      );
      continue;
    }
    const data = setting.folder
      ? `${flags.data}/${setting.folder}`
      : flags.data;
    for (const entry of ENTRIES) {
      const id = idOf(entry, setting);
      const isWanted = flags.only.length === 0 ||
        flags.only.some((only) => only === id || only === entry.id);
      if (!isWanted) continue;
      const used = (entry.models ?? ["robust", "standard"]).filter((role) =>
        there.has(models[role])
      );
      if (used.length === 0) continue;
      const flagOf = {
        robust: "--model",
        standard: "--standard",
        vgg: "--vgg",
      };
      const isTable = entry.script === "evaluate";
      const named = used.flatMap((role) => [
        isTable ? "--model" : flagOf[role],
        nameOf(models[role]),
      ]);
      const extra = isTable ? [] : [
        ...(entry.script === "headline" ? [] : ["--untrained"]),
        ...(there.has(models.judge) ? ["--judge", nameOf(models.judge)] : []),
        ...(there.has(models.robustJudge)
          ? ["--robust-judge", nameOf(models.robustJudge)]
          : []),
        ...(flags.quick ? ["--gallery", "400"] : []),
      ];
      const args = entry.args({ quick: flags.quick, setting });
      const ood = `${flags.data}/${setting.ood}`;
      const outside = args.includes("--ood") && await exists(ood)
        ? ["--ood-data", ood]
        : [];
      jobs.push({
        entry,
        setting,
        argv: [
          ...[...named, ...extra, ...args, ...outside],
          ...["--dataset", setting.dataset, "--data", data],
          ...["--device", flags.device, "--seed", `${flags.seed}`],
        ],
      });
    }
  }
  if (jobs.length === 0) {
    const known = ENTRIES.map(({ id }) => id).join(", ");
    throw new UsageError(
      flags.only.length > 0
        ? `Nothing to make: --only takes ${known}, of networks that are there`
        : "Nothing to make: no networks are there; train them with " +
          "deno task train --preset cifar10-l2",
    );
  }
  return jobs;
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

async function readIndex(
  path: string,
): Promise<
  { entries: readonly ResultEntry[]; seconds: number; quick: boolean }
> {
  try {
    return parseResultsIndex(await Deno.readTextFile(path), path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return NO_INDEX;
    throw error;
  }
}

const NO_INDEX = { entries: [], seconds: 0, quick: false } as const;

/** The run in a folder, if the same command made it of the same weights. */
async function madeBefore(
  folder: string,
  argv: readonly string[],
): Promise<Run | null> {
  let run: Run;
  try {
    run = await readRun(folder);
  } catch {
    return null;
  }
  const made = (run.argv ?? []).join("\0");
  if (!made.startsWith([...argv, "--out"].join("\0"))) return null;
  for (const { path, sha256 } of run.weights) {
    try {
      const isHere = await exists(path);
      const found = isHere ? path : `${REPOSITORY}/${path}`;
      const { card } = await readCheckpoint(found);
      if (card.weightsSha256 !== sha256) return null;
    } catch {
      return null;
    }
  }
  return run;
}

/** Empties a result's folder of what an interrupted or another run left. */
async function clear(folder: string, { note }: ScriptContext): Promise<void> {
  if (!await exists(folder)) return;
  note(`Made anew: ${folder}`);
  await Deno.remove(folder, { recursive: true });
}

if (import.meta.main) {
  await runScript(import.meta, FLAGS, {}, onRanks(main));
}
