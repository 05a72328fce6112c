/**
 * Training on several ranks and in ghost batches: the same network up to the
 * order of sums, one stop for all, and ranks that come apart are noticed. The
 * ranks are in this process; `tests/scripts/distributed_test.ts` has those of
 * MPI.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Random, type Tensor, tensor } from "../../core/mod.ts";
import type { Communicator } from "../../distributed/mod.ts";
import { startNoiseRows } from "../../robust/batch_attack.ts";
import { startNoise } from "../../robust/pgd.ts";
import { learningRateWarmupAt } from "../../robust/schedule.ts";
import { SplitTrainer } from "../../robust/split_trainer.ts";
import {
  checkTrainSettings,
  initialState,
  train,
  type TrainOptions,
  type TrainSettings,
  type TrainState,
} from "../../robust/train.ts";
import { onRanks, ranks } from "../_ranks.ts";
import { noisySplit } from "./_split.ts";

/** Three steps an epoch; one image is left over. */
const SPLIT = noisySplit({ size: 49, side: 8, classes: 3, seed: 1 });

const SETTINGS: TrainSettings = {
  spec: {
    architecture: "resnet10",
    form: "cifar",
    width: 4,
    classes: 3,
    mean: [0.5, 0.5, 0.5],
    std: [0.25, 0.25, 0.25],
  },
  attack: {
    norm: "l2",
    epsilon: 0.5,
    stepSize: 0.2,
    steps: 2,
    randomStart: true,
  },
  epochs: 2,
  batchSize: 16,
  learningRate: 0.02,
  schedule: { kind: "cyclic" },
  momentum: 0.9,
  weightDecay: 5e-4,
  epsilonWarmup: 1,
  ema: 0.9,
  augmentation: "standard",
  seed: 4,
};

interface Result {
  readonly state: TrainState;
  readonly losses: readonly number[];
}

async function run(
  changes: Partial<TrainSettings>,
  options: TrainOptions = {},
): Promise<Result> {
  const losses: number[] = [];
  const state = await train({ ...SETTINGS, ...changes }, SPLIT, {
    threads: 1,
    ...options,
    onStep: (step) => {
      losses.push(step.loss);
      options.onStep?.(step);
    },
  });
  return { state: structuredClone(state), losses };
}

/** One run's results on each of `size` ranks. */
function runOn(
  size: number,
  changes: Partial<TrainSettings>,
  options: TrainOptions = {},
): Promise<Result[]> {
  return onRanks(
    size,
    (communicator) => run(changes, { ...options, communicator }),
  );
}

/** Largest difference of the losses, and of the values of the states. */
function distance(a: Result, b: Result): { losses: number; values: number } {
  let values = 0;
  for (const group of ["parameters", "velocity", "average"] as const) {
    const names = (result: Result) => Object.keys(result.state[group]).sort();
    assertEquals(names(a), names(b));
    for (const [name, { data }] of Object.entries(a.state[group])) {
      const other = b.state[group][name].data;
      data.forEach((value, i) => {
        values = Math.max(values, Math.abs(Number(value) - Number(other[i])));
      });
    }
  }
  assertEquals(a.losses.length, b.losses.length);
  const losses = Math.max(
    ...a.losses.map((loss, i) => Math.abs(loss - b.losses[i])),
  );
  return { losses, values };
}

/** Without what differs from run to run. */
function bits({ state, losses }: Result) {
  const { parameters, velocity, average } = state;
  return { parameters, velocity, average, losses };
}

Deno.test("1, 2 and 4 ranks train the same network", async () => {
  const ghost = await run({ ghostBatch: 4 });
  const [one] = await runOn(1, { ghostBatch: 4 });
  assertEquals(bits(one), bits(ghost));
  for (const size of [2, 4]) {
    const all = await runOn(size, size === 2 ? { ghostBatch: 4 } : {});
    for (const result of all) assertEquals(bits(result), bits(all[0]));
    // The first step's loss depends on nothing that was summed before.
    console.log(
      size,
      distance(all[0], ghost),
      all[0].losses[0] - ghost.losses[0],
    );
  }
});

Deno.test("one rank trains as without ranks", async () => {
  const plain = await run({});
  const [one] = await runOn(1, {});
  console.log(distance(one, plain));
  assertEquals(bits(one), bits(plain));
  const whole = await run({ ghostBatch: 16 });
  assertEquals(bits(whole), bits(plain));
  const ghost = await run({ ghostBatch: 4 });
  console.log(distance(ghost, plain));
});
