/**
 * One rank of `scale_bench.ts`: steps of `train()`, and sums of as many values
 * on their own. Rank 0 prints one line of JSON.
 *
 * @module
 */
import {
  type Communicator,
  launchOf,
  openDataset,
  openMpi,
  sizeOf,
  train,
} from "../mod.ts";
import { median } from "./_statistics.ts";
import { trainSettings } from "./_steps.ts";
import { findWorkloads } from "./_workloads.ts";

/** What rank 0 prints. */
export interface RankReport {
  readonly ranks: number;
  /** Images per step, of all ranks. */
  readonly images: number;
  /** Time of each step, in ms. */
  readonly stepMs: readonly number[];
  /** Time of each step until the sums over ranks were there, in ms. */
  readonly reduceMs: readonly number[];
  /** Median time of such a sum on its own, in ms; 0 without ranks. */
  readonly sumMs: number;
  /** Bytes that are summed. */
  readonly bytes: number;
}

/** Steps that are not counted: memory is new, and noise is not drawn ahead. */
const WARM_UP = 2;
/** As many values as a bucket of training has. */
const BUCKET = 2 ** 20;

/** Median time of sums that all ranks begin at once, in ms. */
async function sumsAlone(
  communicator: Communicator,
  values: number,
): Promise<number> {
  const data = new Float32Array(values);
  const times: number[] = [];
  for (let i = 0; i < 10; i++) {
    await communicator.barrier();
    const start = performance.now();
    const sums: Promise<void>[] = [];
    for (let from = 0; from < values; from += BUCKET) {
      sums.push(communicator.sum(data.subarray(from, from + BUCKET)));
    }
    await Promise.all(sums);
    times.push(performance.now() - start);
  }
  return median(times);
}

if (import.meta.main) {
  const [id, perRank, count] = Deno.args;
  const isRank = launchOf((name) => Deno.env.get(name)) !== null;
  const communicator = isRank ? await openMpi() : null;
  const ranks = communicator?.size ?? 1;
  const [workload] = findWorkloads(id);
  const batchSize = Number(perRank) * ranks;
  const steps = Number(count) + WARM_UP;
  const { splits } = await openDataset("shapes", {
    splits: ["train"],
    limit: batchSize * (steps + 4),
  });
  const controller = new AbortController();
  const stepMs: number[] = [];
  const reduceMs: number[] = [];
  let last = performance.now();
  let parameters = 0;
  await train(trainSettings({ ...workload, batchSize }), splits.train, {
    threads: 1,
    communicator,
    signal: controller.signal,
    onStep: ({ reduceSeconds }) => {
      const now = performance.now();
      stepMs.push(now - last);
      reduceMs.push(1000 * reduceSeconds);
      last = now;
      if (stepMs.length === steps) controller.abort(new Error("measured"));
    },
    onCheckpoint: (state) => {
      parameters = Object.values(state.velocity)
        .reduce((sum, { shape }) => sum + sizeOf(shape), 0);
      return Promise.resolve();
    },
  }).catch((error) => {
    if (!controller.signal.aborted) throw error;
  });
  if (communicator) {
    const known = new Float32Array([parameters]);
    await communicator.sum(known);
    parameters = known[0];
  }
  const sumMs = communicator ? await sumsAlone(communicator, parameters) : 0;
  if ((communicator?.rank ?? 0) === 0) {
    const report: RankReport = {
      ranks,
      images: batchSize,
      stepMs: stepMs.slice(WARM_UP, steps),
      reduceMs: reduceMs.slice(WARM_UP, steps),
      sumMs,
      bytes: 4 * parameters,
    };
    console.log(JSON.stringify(report));
  }
  await communicator?.barrier();
  // Ranks do not outlive the measurement.
  Deno.exit(0);
}
