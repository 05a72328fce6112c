/**
 * Time from the start of a process to the end of its first step of inversion
 * of a checkpoint, part by part: what a user waits for.
 *
 *   deno run -A bench/load_bench.ts                    # ResNet-50, 224 x 224
 *   deno run -A bench/load_bench.ts --model runs/cifar-l2 --images 16
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import {
  CARD_SCHEMA_VERSION,
  findModel,
  initializeModel,
  NORMALIZATION,
  Random,
  writeCheckpoint,
} from "../mod.ts";
import { runScript } from "../scripts/_cli.ts";
import { startStarter } from "./_contestant.ts";
import { formatTable, median, showNumber } from "./_statistics.ts";
import { findWorkloads } from "./_workloads.ts";

/** Flags of this script. */
export const FLAGS = {
  model: {
    type: "string",
    help: "checkpoint; a random ResNet-50 for ImageNet if not given",
  },
  images: { type: "integer", default: 1, min: 1, help: "images to invert" },
  rounds: { type: "integer", default: 5, min: 1, help: "processes to time" },
  threads: { type: "integer", min: 1, help: "CPU threads; all if not given" },
} as const;

/** Writes a ResNet-50 of random weights. */
async function writeRandom(path: string): Promise<void> {
  const [{ spec, imageSize }] = findWorkloads("W2");
  const { architecture, form, width, classes } = spec;
  await writeCheckpoint(path, {
    card: {
      ...{ architecture, form, width },
      ...NORMALIZATION.imagenet,
      schemaVersion: CARD_SCHEMA_VERSION,
      classes: Array.from({ length: classes }, (_, i) => `${i}`),
      dataset: "imagenet",
      imageSize,
      attack: null,
      epoch: 0,
      seed: 0,
      accuracies: {},
    },
    tensors: initializeModel(spec, new Random(0)),
  });
}

/** What was measured. */
export interface LoadTimes {
  /** Median milliseconds from the process's start to the end of each part. */
  readonly ended: Readonly<Record<string, number>>;
  /** Peak memory in MB. */
  readonly memory: number;
  /** What other processes used in each round; 1 is one core. */
  readonly othersShare: readonly number[];
}

/** Times processes one after the other; another one warms the disk's cache. */
export async function loadBench(
  model: string,
  { images, rounds, threads }: {
    readonly images: number;
    readonly rounds: number;
    readonly threads?: number;
  },
): Promise<LoadTimes> {
  const script = fileURLToPath(new URL("_load.ts", import.meta.url));
  const parts = ["-A", "--no-check", script, model, `${images}`];
  const starter = await startStarter("load", {
    program: Deno.execPath(),
    args: ["run", ...parts, ...(threads ? [`${threads}`] : [])],
  });
  const times: Record<string, number[]> = {};
  const othersShare: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const started = performance.timeOrigin + performance.now();
    const turn = await starter.measure();
    othersShare.push(turn.othersShare);
    for (const [part, time] of Object.entries(starter.facts)) {
      (times[part] ??= []).push(Number(time) - started);
    }
  }
  const ended = Object.fromEntries(
    Object.entries(times).map(([part, values]) => [part, median(values)]),
  );
  return { ended, memory: starter.memory, othersShare };
}

if (import.meta.main) {
  await runScript(import.meta, FLAGS, {}, async (flags) => {
    const folder = flags.model ? null : await Deno.makeTempDir();
    try {
      const model = flags.model ?? `${folder}/resnet50.safetensors`;
      if (folder) await writeRandom(model);
      const source = await findModel(model);
      const { ended, memory, othersShare } = await loadBench(source, flags);
      console.log(formatTable(
        ["part", "ends after ms"],
        Object.entries(ended).map(([part, ms]) => [part, showNumber(ms)]),
      ));
      console.log(`Peak memory: ${showNumber(memory)} MB`);
      const others = showNumber(median(othersShare));
      console.log(`Other processes used ${others} of a core`);
    } finally {
      if (folder) await Deno.remove(folder, { recursive: true });
    }
  });
}
