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
import { initializeModel } from "../../models/mod.ts";
import { startNoiseRows } from "../../robust/batch_attack.ts";
import { evaluate } from "../../robust/evaluate.ts";
import { Network } from "../../robust/network.ts";
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

Deno.test("train() on 1, 2 and 4 ranks makes the same network as ghost batches", async () => {
  const ghosts = await run({ ghostBatch: 4 });
  for (const size of [1, 2, 4]) {
    // Four ranks of four images need not be told the size of a ghost batch.
    const changes = size === 4 ? {} : { ghostBatch: 4 };
    const all = await runOn(size, changes);
    for (const result of all) assertEquals(bits(result), bits(all[0]));
    const { losses, values } = distance(all[0], ghosts);
    assert(losses < 1e-5 && values < 1e-4, `${size}: ${losses}, ${values}`);
  }
});

Deno.test("train() on 3 ranks is the same up to the order of sums", async () => {
  const changes = { batchSize: 12, epochs: 1, ema: 0 };
  const ghosts = await run({ ...changes, ghostBatch: 4 });
  const [ranks] = await runOn(3, changes);
  const { losses, values } = distance(ranks, ghosts);
  assert(losses < 1e-4 && values < 1e-3, `${losses}, ${values}`);
});

Deno.test("train() on one rank takes the very steps of one program", async () => {
  const plain = await run({});
  const [one] = await runOn(1, {});
  assertEquals(distance(one, plain), { losses: 0, values: 0 });
  assertEquals(bits(await run({ ghostBatch: 16 })), bits(plain));
  // Else the tests above would say nothing.
  const ghosts = await run({ ghostBatch: 4 });
  assert(distance(ghosts, plain).values > 0.01);
});

Deno.test("train() keeps the running statistics of rank 0's first ghost batch", async () => {
  const changes = {
    attack: null,
    augmentation: "none",
    batchSize: 48,
    epochs: 1,
  } as const;
  const [ghosts] = await runOn(3, changes);
  // The first 16 images of the only batch, alone in a batch of their own.
  let first: TrainState | undefined;
  await assertRejects(() =>
    run({ ...changes, batchSize: 16 }, {
      checkpointSeconds: 0,
      onCheckpoint: (state) => {
        first ??= structuredClone(state);
        return Promise.reject(new Error("enough"));
      },
    })
  );
  for (const [name, { data }] of Object.entries(first!.parameters)) {
    if (!name.includes("running_")) continue;
    assertEquals(ghosts.state.parameters[name].data, data);
  }
});

Deno.test("train() resumes on another number of ranks", async () => {
  const once = await run({ ghostBatch: 4 });
  let saved: TrainState | undefined;
  const controller = new AbortController();
  let steps = 0;
  const stops = onRanks(4, async (communicator) => {
    await assertRejects(
      () =>
        run({ ghostBatch: 4 }, {
          communicator,
          // One rank's signal stops all.
          ...(communicator.rank === 2 ? { signal: controller.signal } : {}),
          onStep: () => {
            if (++steps === 4 * 3 + 1) controller.abort(new Error("stopped"));
          },
          onCheckpoint: (state) => {
            assertEquals(communicator.rank, 0);
            saved = structuredClone(state);
            return Promise.resolve();
          },
        }),
      communicator.rank === 2 ? Error : DOMException,
      communicator.rank === 2 ? "stopped" : "Stopped by another rank",
    );
  });
  await stops;
  const done = saved!.epoch * 3 + saved!.step;
  assert(done === 4 || done === 5, `${done} steps`);
  for (const size of [1, 2]) {
    const [resumed] = await runOn(size, { ghostBatch: 4 }, { state: saved });
    const { values } = distance(
      { ...resumed, losses: [] },
      { ...once, losses: [] },
    );
    assert(values < 1e-4, `${values}`);
    assertEquals(resumed.state.history.length, 2);
  }
});

/** A communicator whose sums go wrong from the `call`-th on. */
function broken(communicator: Communicator, call: number): Communicator {
  let calls = 0;
  return {
    ...communicator,
    async sum(values) {
      await communicator.sum(values);
      if (++calls >= call) values[0] += 1e-3;
    },
  };
}

Deno.test("train() stops when parameters of ranks differ", async () => {
  let steps = 0;
  await onRanks(4, async (communicator) => {
    await assertRejects(
      () =>
        run({}, {
          communicator: communicator.rank === 1
            ? broken(communicator, 2)
            : communicator,
          compareEvery: 2,
          onStep: () => steps++,
        }),
      Error,
      "Cannot go on training as the parameters of rank 1 differ from those " +
        "of rank 0 at step 2 of epoch 1",
    );
  });
  assertEquals(steps, 4 * 2);
});

Deno.test("train() stops when ranks were given different settings", async () => {
  await onRanks(2, async (communicator) => {
    await assertRejects(
      () => run({ seed: communicator.rank }, { communicator }),
      Error,
      "Cannot train on 2 ranks as rank 1 found other settings or images than " +
        "rank 0: give all the same data",
    );
  });
});

Deno.test("checkTrainSettings() refuses batches that ranks cannot share", () => {
  checkTrainSettings({ ...SETTINGS, ghostBatch: 4 }, 2);
  assertThrows(
    () => checkTrainSettings(SETTINGS, 3),
    RangeError,
    "Cannot train on 3 ranks in batches of 16 images: choose a batch size " +
      "that 3 divides",
  );
  assertThrows(
    () => checkTrainSettings({ ...SETTINGS, ghostBatch: 8 }, 4),
    RangeError,
    "Cannot train on 4 ranks in batches of 16 images: the 4 of a rank must " +
      "be whole ghost batches, which ghostBatch 8 does not divide",
  );
  assertThrows(
    () => checkTrainSettings({ ...SETTINGS, ghostBatch: 5 }),
    RangeError,
    "Cannot train in batches of 16 images",
  );
  assertThrows(
    () => checkTrainSettings({ ...SETTINGS, ghostBatch: 0 }),
    RangeError,
    "ghostBatch must be an integer >= 1",
  );
});

Deno.test("SplitTrainer takes the same step in buckets of any size", async () => {
  const images = new Random(2).uniformTensor([8, 3, 8, 8]);
  const labels = [0, 1, 2, 0, 1, 2, 0, 1];
  const steps = await Promise.all([2 ** 20, 1024, 16].map(async (bucket) => {
    const [communicator] = ranks(1);
    const trainer = await SplitTrainer.create(
      SETTINGS,
      [4, 3, 8, 8],
      initialState(SETTINGS),
      { communicator, bucket, threads: 1 },
    );
    const result = await trainer.step(images, labels, {
      learningRate: 0.1,
      warmup: 1,
      random: new Random(3),
    });
    const hash = await trainer.hash();
    await trainer.release();
    return [result.loss, result.correct, hash];
  }));
  assertEquals(steps[1], steps[0]);
  assertEquals(steps[2], steps[0]);
});

Deno.test("startNoiseRows() draws rows as startNoise() draws a batch", () => {
  // Sides of which 3 h w is even and odd: normal values come in pairs.
  for (const [norm, side] of [["l2", 4], ["l2", 3], ["linf", 3]] as const) {
    const shape = [5, 3, side, side];
    const whole = startNoise(shape, norm, new Random(1, ["attack", 2]));
    const size = 3 * side * side;
    for (const [first, count] of [[0, 5], [1, 1], [2, 3], [4, 1]]) {
      const random = new Random(1, ["attack", 2]);
      const part: Tensor = startNoiseRows(random, norm, first, [
        ...[count, 3, side, side],
      ]);
      const rows = whole.data.slice(first * size, (first + count) * size);
      assertEquals(part, tensor(rows, [count, 3, side, side]));
    }
  }
});

Deno.test("learningRateWarmupAt() grows linearly to 1 (Goyal et al. 2017)", () => {
  const at = (epoch: number) =>
    learningRateWarmupAt(epoch, { epochs: 5, from: 1 / 8 });
  assertEquals([at(0), at(5), at(90)], [1 / 8, 1, 1]);
  assertEquals(at(2.5), (1 + 1 / 8) / 2);
  assertEquals(learningRateWarmupAt(0, undefined), 1);
});

Deno.test("train() warms the learning rate up", async () => {
  const schedule = { kind: "step", at: [] } as const;
  const changes = { attack: null, schedule, learningRate: 0.04 };
  const { state } = await run({
    ...changes,
    learningRateWarmup: { epochs: 2, from: 0 },
  });
  // The middle of the last step of each epoch.
  const rates = state.history.map(({ learningRate }) => learningRate);
  assert(Math.abs(rates[0] - 0.04 * (2.5 / 3) / 2) < 1e-9);
  assert(Math.abs(rates[1] - 0.04 * (5.5 / 3) / 2) < 1e-9);
  assertThrows(
    () =>
      checkTrainSettings({
        ...SETTINGS,
        learningRateWarmup: { epochs: -1, from: 0 },
      }),
    RangeError,
    "warmupEpochs must be >= 0",
  );
});

Deno.test("evaluate() on ranks gives every rank what one rank measures", async () => {
  const { spec, attack } = SETTINGS;
  const parameters = initializeModel(spec, new Random(5));
  const measure = async (communicator: Communicator | null, limit?: number) => {
    const network = new Network(spec, parameters, { threads: 1 });
    const seen: number[] = [];
    const result = await evaluate(network, SPLIT, {
      attack: { ...attack!, restarts: 2 },
      batchSize: 8,
      communicator,
      ...(limit ? { limit } : {}),
      onProgress: (done) => seen.push(done),
    });
    await network.release();
    return { result, done: seen.at(-1) ?? 0 };
  };
  for (const limit of [undefined, 20]) {
    const alone = await measure(null, limit);
    assertEquals(alone.result.images, limit ?? 49);
    // With 9 ranks and 7 batches, some have nothing to do.
    for (const size of [1, 2, 9]) {
      const all = await onRanks(
        size,
        (communicator) => measure(communicator, limit),
      );
      for (const { result } of all) assertEquals(result, alone.result);
      const done = all.reduce((sum, rank) => sum + rank.done, 0);
      assertEquals(done, alone.done);
    }
  }
});
