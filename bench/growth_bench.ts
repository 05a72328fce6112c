/**
 * How time and memory grow: a step's time with the batch, and a process's
 * memory over many steps of inversion and epochs of training.
 *
 *   deno run -A bench/growth_bench.ts --steps 10000 --epochs 8
 *
 * @module
 */
import { openDataset } from "../datasets/mod.ts";
import { train } from "../robust/mod.ts";
import { runScript } from "../scripts/_cli.ts";
import { formatTable, median, showNumber } from "./_statistics.ts";
import { invert, trainSettings } from "./_steps.ts";
import { findWorkloads, type Workload } from "./_workloads.ts";

/** Flags of this script. */
export const FLAGS = {
  batches: {
    type: "string",
    default: "8,16,32,64,128",
    help: "batch sizes whose steps are timed, separated by commas",
  },
  steps: {
    type: "integer",
    default: 10_000,
    min: 10,
    help: "steps of inversion over which memory is watched",
  },
  epochs: {
    type: "integer",
    default: 8,
    min: 2,
    help: "epochs of training over which memory is watched",
  },
  threads: { type: "integer", default: 2, min: 1, help: "CPU threads" },
} as const;

/** Memory of this process in RAM, in MB. */
function memory(): number {
  return Deno.memoryUsage().rss / 2 ** 20;
}

/** Milliseconds per step and per image of growing batches. */
async function timePerBatch(
  workload: Workload,
  batches: readonly number[],
  threads: number,
): Promise<string[][]> {
  const rows: string[][] = [];
  for (const batchSize of batches) {
    const { step, release } = await invert({ ...workload, batchSize }, {
      threads,
    });
    const times: number[] = [];
    for (let i = 0; i < 12; i++) times.push(await step());
    await release();
    const ms = median(times.slice(2));
    rows.push([`${batchSize}`, showNumber(ms), showNumber(ms / batchSize)]);
  }
  return rows;
}

/** Memory after each tenth of many steps. */
async function memoryOverSteps(
  workload: Workload,
  { steps, threads }: { readonly steps: number; readonly threads: number },
  note: (text: string) => void,
): Promise<string[][]> {
  const { step, release } = await invert(workload, { threads });
  const rows: string[][] = [];
  const every = Math.floor(steps / 10);
  for (let i = 1; i <= steps; i++) {
    await step();
    if (i !== 1 && i % every !== 0) continue;
    rows.push([`${i}`, showNumber(memory())]);
    note(`step ${i} of ${steps}`);
  }
  await release();
  return rows;
}

/** Memory after each epoch of training. */
async function memoryOverEpochs(
  workload: Workload,
  { epochs, threads }: { readonly epochs: number; readonly threads: number },
): Promise<string[][]> {
  const { splits } = await openDataset("shapes", {
    splits: ["train"],
    limit: 10 * workload.batchSize,
  });
  const rows: string[][] = [];
  await train({ ...trainSettings(workload), epochs }, splits.train, {
    threads,
    onEpoch: (_network, { epoch }) => {
      rows.push([`${epoch}`, showNumber(memory())]);
      return Promise.resolve({});
    },
  });
  return rows;
}

if (import.meta.main) {
  await runScript(import.meta, FLAGS, {}, async (flags, { note }) => {
    const { threads } = flags;
    const batches = flags.batches.split(",").map(Number);
    const [small, training] = findWorkloads("W1-w16-b8,W3-w16");
    note("timing batches");
    const times = await timePerBatch(small, batches, threads);
    console.log(formatTable(["images", "ms a step", "ms an image"], times));
    const overSteps = await memoryOverSteps(small, flags, note);
    console.log(`\n${formatTable(["steps", "MB"], overSteps)}`);
    note("training");
    const overEpochs = await memoryOverEpochs(training, flags);
    console.log(`\n${formatTable(["epochs", "MB"], overEpochs)}`);
  });
}
