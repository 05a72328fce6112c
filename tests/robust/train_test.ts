/**
 * Training: steps against PyTorch, the same bits however often it is stopped,
 * and its schedules and errors.
 *
 * @module
 */
import {
  assert,
  assertEquals,
  assertNotEquals,
  assertRejects,
  assertThrows,
} from "@std/assert";
import {
  type AnyTensor,
  input,
  type NamedTensors,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import { buildModel, type ModelSpec } from "../../models/mod.ts";
import { compile } from "../../onnx/mod.ts";
import { oneHot } from "../../robust/objectives.ts";
import {
  attackStepsAt,
  learningRateAt,
  warmupAt,
} from "../../robust/schedule.ts";
import {
  checkTrainSettings,
  initialState,
  stateParameters,
  train,
  type TrainOptions,
  type TrainSettings,
  type TrainState,
} from "../../robust/train.ts";
import { trainingStep } from "../../robust/training_graphs.ts";
import { assertAllClose, evaluate } from "../_assert.ts";
import { readDescription, readTensors, underPrefix } from "../_fixtures.ts";
import {
  FIXTURE_SPEC,
  fixtureParameters,
  integers,
  renamed,
  rowOf,
} from "../models/_fixture_network.ts";
import { noisySplit } from "./_split.ts";

const tensors = await readTensors("cifar_train");
const start = await fixtureParameters();
const { runs } = await readDescription<{
  readonly runs: Readonly<Record<string, { readonly losses: number[] }>>;
}>("cifar_train");

const SGD = { momentum: 0.9, weightDecay: 5e-4 } as const;
const BATCH = 16;
const STEPS = 5;

/** Feeds of the fixture's step `i`, from 0. */
function batchOf(i: number): { images: Tensor; labels: Tensor } {
  const bytes = rowOf(tensors.images_u8, i);
  const all = integers(tensors, "labels");
  return {
    images: tensor(bytes.data.map((value) => value / 255), bytes.shape),
    labels: oneHot(all.slice(i * BATCH, (i + 1) * BATCH), 10),
  };
}

/** What the fixture's batches make of the network: after each step. */
async function fixtureRun(
  learningRate: number,
): Promise<{ losses: number[]; states: Record<string, Tensor>[] }> {
  const step = trainingStep(
    { spec: FIXTURE_SPEC, ...SGD, ema: 0 },
    [BATCH, 3, 32, 32],
  );
  const program = await compile(step, { threads: 1 });
  let values: Record<string, AnyTensor> = { ...start };
  for (const [name, { data, shape }] of Object.entries(start)) {
    if (name.includes("running_")) continue;
    values[`velocity:${name}`] = tensor(data.map(() => 0), shape);
  }
  const losses: number[] = [];
  const states: Record<string, Tensor>[] = [];
  for (let i = 0; i < STEPS; i++) {
    const { loss, correct: _, ...next } = await program.run({
      ...values,
      ...batchOf(i),
      learningRate: tensor([learningRate], []),
    });
    losses.push(Number(loss.data[0]));
    values = Object.fromEntries(
      Object.entries(next).map(([name, value]) => [
        name.slice("next:".length),
        value,
      ]),
    );
    states.push(
      Object.fromEntries(
        Object.entries(values).filter(([name]) => !name.includes(":")),
      ) as Record<string, Tensor>,
    );
  }
  await program.release();
  return { losses, states };
}

/** Error of the parameters over their update; largest of the statistics. */
function errorsOf(
  found: Readonly<Record<string, Tensor>>,
  expected: Readonly<Record<string, Tensor>>,
): { update: number; statistics: number } {
  let errors = 0, updates = 0, statistics = 0;
  assertEquals(Object.keys(found).sort(), Object.keys(expected).sort());
  for (const [name, { data }] of Object.entries(expected)) {
    data.forEach((value, i) => {
      const error = Math.abs(found[name].data[i] - value);
      if (name.includes("running_")) {
        statistics = Math.max(statistics, error);
      } else {
        errors += error ** 2;
        updates += (value - start[name].data[i]) ** 2;
      }
    });
  }
  return { update: Math.sqrt(errors / updates), statistics };
}

/** The network that the fixture holds. */
function reference(prefix: string): Record<string, Tensor> {
  return renamed(underPrefix(tensors, prefix));
}

function assertLosses(found: number[], run: string, tolerance: number): void {
  found.forEach((loss, i) => {
    const error = Math.abs(loss - runs[run].losses[i]);
    assert(error <= tolerance, `loss of step ${i + 1} is ${error} off`);
  });
}

Deno.test("trainingStep() at rate 0.1 takes PyTorch's steps", async () => {
  const { losses, states } = await fixtureRun(0.1);
  const first = errorsOf(states[0], reference("lr0.1/after1"));
  const last = errorsOf(states[4], reference("lr0.1/after5"));
  assert(first.update <= 1e-4 && first.statistics <= 2e-6);
  // Chaotic: PyTorch's own float32 runs are 0.08 apart, 0.012 in statistics.
  assert(last.update <= 0.3 && last.statistics <= 0.1);
  assertLosses(losses.slice(0, 2), "lr0.1", 1e-5);
  assertLosses(losses, "lr0.1", 0.05);
});

Deno.test("trainingStep() at rate 0.01 takes PyTorch's steps", async () => {
  const { losses, states } = await fixtureRun(0.01);
  const last = errorsOf(states[4], reference("lr0.01/after5"));
  assert(last.update <= 1e-2 && last.statistics <= 1e-5);
  assertLosses(losses, "lr0.01", 1e-4);
});

Deno.test("buildModel() gives PyTorch's logits when training", async () => {
  const { images, labels } = batchOf(0);
  const x = input("images", images.shape);
  const { logits } = buildModel(FIXTURE_SPEC, x, { training: true });
  const found = await evaluate({ logits }, { images }, { constants: start });
  assertAllClose(found.logits, tensors.train_logits_step1, {
    tolerance: 1e-5,
    relative: "l2",
  });
  const step = trainingStep({ spec: FIXTURE_SPEC, ...SGD, ema: 0 }, x.shape);
  const { correct } = await evaluate({ correct: step.correct }, {
    images,
    labels,
  }, { constants: start });
  const expected = tensors.train_logits_step1;
  let hits = 0;
  for (let i = 0; i < BATCH; i++) {
    const row = rowOf(expected, i).data;
    if (labels.data[i * 10 + row.indexOf(Math.max(...row))] === 1) hits++;
  }
  assertEquals(correct.data[0], hits);
});

const SPEC: ModelSpec = {
  architecture: "resnet18",
  form: "cifar",
  width: 2,
  classes: 3,
  mean: [0.5, 0.5, 0.5],
  std: [0.25, 0.25, 0.25],
};

/** Three steps an epoch; one image is left over. */
const SPLIT = noisySplit({ size: 25, side: 8, classes: 3, seed: 1 });

const SETTINGS: TrainSettings = {
  spec: SPEC,
  attack: {
    norm: "l2",
    epsilon: 0.5,
    stepSize: 0.2,
    steps: 2,
    randomStart: true,
  },
  epochs: 2,
  batchSize: 8,
  learningRate: 0.05,
  schedule: { kind: "cyclic" },
  ...SGD,
  epsilonWarmup: 1,
  ema: 0,
  augmentation: "standard",
  seed: 4,
};

function run(
  changes: Partial<TrainSettings> = {},
  options: TrainOptions = {},
): Promise<TrainState> {
  return train({ ...SETTINGS, ...changes }, SPLIT, { threads: 1, ...options });
}

/** A state without the time it took. */
function timeless(state: TrainState): TrainState {
  return {
    ...state,
    sums: { ...state.sums, seconds: 0 },
    history: state.history.map((record) => ({ ...record, seconds: 0 })),
  };
}

/** Stops training after `count` steps in all; the state it saved. */
async function stoppedAfter(
  count: number,
  changes: Partial<TrainSettings>,
): Promise<TrainState> {
  const controller = new AbortController();
  let steps = 0;
  let saved: TrainState | undefined;
  await assertRejects(
    () =>
      run(changes, {
        signal: controller.signal,
        onStep: () => {
          if (++steps === count) controller.abort(new Error("stopped here"));
        },
        onCheckpoint: (state) => {
          saved = structuredClone(state);
          return Promise.resolve();
        },
      }),
    Error,
    "stopped here",
  );
  assertEquals(steps, count);
  return saved!;
}

const VARIANTS: Readonly<Record<string, Partial<TrainSettings>>> = {
  "with an l2 attack": {},
  "with an linf attack and a moving average": {
    attack: {
      ...SETTINGS.attack!,
      norm: "linf",
      epsilon: 0.03,
      stepSize: 0.01,
    },
    ema: 0.9,
    attackStepsWarmup: 1.5,
    schedule: { kind: "step", at: [1] },
    augmentation: "reference",
  },
  "without attack": { attack: null, augmentation: "none" },
};

for (const [about, changes] of Object.entries(VARIANTS)) {
  Deno.test(`train() ${about} ends in the same bits when repeated or resumed`, async () => {
    const once = timeless(await run(changes));
    assertEquals(timeless(await run(changes)), once);
    assertEquals([once.epoch, once.step, once.history.length], [2, 0, 2]);
    // In the middle of an epoch, after its last step, and in the next one.
    for (const steps of [1, 3, 5]) {
      const state = await stoppedAfter(steps, changes);
      assertEquals(state.epoch * 3 + state.step, steps);
      const before = structuredClone(state);
      const resumed = await run(changes, { state });
      assertEquals(timeless(resumed), once, `stopped after ${steps} steps`);
      assertEquals(state, before);
    }
  });
}

Deno.test("train() begins with few long steps of the attack", async () => {
  const { attack } = SETTINGS;
  const early = await run({ attackStepsWarmup: 1000 });
  const single = await run({
    attack: { ...attack!, steps: 1, stepSize: 2 * attack!.stepSize },
  });
  assertEquals(timeless(early), timeless(single));
});

Deno.test("train() takes more steps of the attack after overfitting", async () => {
  const attack = { ...SETTINGS.attack!, steps: 1, stepSize: 0.6 };
  const after: TrainState[] = [];
  const guarded = await run({ attack, guardSteps: 3 }, {
    onEpoch: (_network, { epoch }) =>
      Promise.resolve({ overfitting: epoch === 1 ? 1 : 0 }),
    onCheckpoint: (state) => {
      if (state.epoch === 1) after.push(structuredClone(state));
      return Promise.resolve();
    },
  });
  const alike = { ...attack, steps: 3, stepSize: 0.2 };
  const expected = await run({ attack: alike }, { state: after[0] });
  assertEquals(guarded.parameters, expected.parameters);
  const unguarded = await run({ attack }, { state: after[0] });
  assertNotEquals(guarded.parameters, unguarded.parameters);
});

Deno.test("train() depends on the seed", async () => {
  const changes = { attack: null, epochs: 1 };
  const a = await run(changes);
  const b = await run({ ...changes, seed: 5 });
  assert(
    a.parameters["conv1.weight"].data[0] !==
      b.parameters["conv1.weight"].data[0],
  );
});

Deno.test("train() moves an average of the parameters", async () => {
  const settings = { ...SETTINGS, attack: null, ema: 0.75, epochs: 1 };
  const states: TrainState[] = [initialState(settings)];
  const last = await run(settings, {
    checkpointSeconds: 0,
    onCheckpoint: (state) => {
      states.push(structuredClone(state));
      return Promise.resolve();
    },
  });
  assertEquals(states.map(({ epoch, step }) => [epoch, step]), [
    [0, 0],
    [0, 1],
    [0, 2],
    [1, 0],
  ]);
  for (const name of Object.keys(last.parameters)) {
    const average = states.slice(1).reduce(
      (sofar, { parameters }) =>
        sofar.map((value, i) =>
          0.75 * value + 0.25 * Number(parameters[name].data[i])
        ),
      Array.from(states[0].average[name].data, Number),
    );
    const expected = tensor(average, last.average[name].shape);
    assertAllClose(last.average[name], expected, { tolerance: 1e-6, name });
  }
  assertEquals(stateParameters(last), last.average);
  const without: NamedTensors = {};
  assertEquals(
    stateParameters({ ...last, average: without }),
    last.parameters,
  );
});

Deno.test("attacked training lowers the attacked loss over ten steps", async () => {
  for (const norm of ["l2", "linf"] as const) {
    const losses: number[] = [];
    await run({
      attack: {
        ...SETTINGS.attack!,
        norm,
        epsilon: norm === "l2" ? 0.5 : 0.03,
        stepSize: norm === "l2" ? 0.2 : 0.015,
      },
      // One batch, the same in each of ten epochs but for its order.
      batchSize: 25,
      epochs: 10,
      learningRate: 0.05,
      schedule: { kind: "step", at: [] },
      epsilonWarmup: 0,
      augmentation: "none",
    }, { onStep: ({ loss }) => losses.push(loss) });
    assertEquals(losses.length, 10);
    assert(losses[9] < 0.8 * losses[0], `${norm}: ${losses}`);
  }
});

Deno.test("train() reports steps and epochs and stores what is measured", async () => {
  const steps: number[][] = [];
  const means: number[] = [];
  const state = await run({ epochs: 2 }, {
    onStep: ({ epoch, step, stepsPerEpoch, loss }) => {
      steps.push([epoch, step, stepsPerEpoch]);
      means.push(loss);
    },
    onEpoch: async (network, { epoch }) => {
      const { logits } = await network.predict(await SPLIT.load([0]));
      return { epoch, first: logits.data[0] };
    },
  });
  assertEquals(steps, [
    [0, 1, 3],
    [0, 2, 3],
    [0, 3, 3],
    [1, 1, 3],
    [1, 2, 3],
    [1, 3, 3],
  ]);
  state.history.forEach(
    ({ epoch, loss, accuracy, learningRate, metrics }, i) => {
      assertEquals([epoch, metrics!.epoch], [i + 1, i + 1]);
      assert(Number.isFinite(metrics!.first));
      const mean = (means[3 * i] + means[3 * i + 1] + means[3 * i + 2]) / 3;
      assert(Math.abs(loss - mean) < 1e-6);
      assert(accuracy >= 0 && accuracy <= 1);
      const position = i + 2.5 / 3;
      const expected = learningRateAt({ kind: "cyclic" }, 0.05, position, 2);
      assert(Math.abs(learningRate - expected) < 1e-9);
    },
  );
});

Deno.test("train() with epsilon 0 trains on the clean images", async () => {
  const attack = { ...SETTINGS.attack!, epsilon: 0 };
  const changes = { epochs: 1, augmentation: "none" } as const;
  const clean = await run({ ...changes, attack: null });
  const attacked = await run({ ...changes, attack });
  for (const [name, value] of Object.entries(clean.parameters)) {
    assertAllClose(attacked.parameters[name], value, { tolerance: 1e-6, name });
  }
});

Deno.test("train() says when the loss is no longer a number", async () => {
  const error = await assertRejects(
    () =>
      run({
        attack: null,
        learningRate: 1e30,
        schedule: { kind: "step", at: [] },
      }),
    RangeError,
    "Cannot go on training as the loss (NaN) at step 2 of epoch 1 is not a " +
      "finite number: lower the learning rate",
  );
  assert(!(error as Error).message.includes("\n"));
});

Deno.test("train() refuses splits smaller than a batch", async () => {
  await assertRejects(
    () => run({ batchSize: 26 }),
    RangeError,
    "Cannot train on 25 images in batches of 26: lower the batch size",
  );
});

Deno.test("train() refuses labels that the network has no class for", async () => {
  await assertRejects(
    () => run({ spec: { ...SPEC, classes: 2 }, attack: null }),
    RangeError,
    "Cannot use label 2: the model has 2 classes, 0 to 1",
  );
});

Deno.test("checkTrainSettings() refuses settings out of range", () => {
  checkTrainSettings(SETTINGS);
  const refused: [Partial<TrainSettings>, string][] = [
    [{ epochs: 0 }, "epochs must be an integer >= 1: current value is 0"],
    [{ epochs: 1.5 }, "epochs must be an integer >= 1"],
    [{ batchSize: 0 }, "batchSize must be an integer >= 1"],
    [{ learningRate: -1 }, "learningRate must be >= 0"],
    [{ learningRate: NaN }, "learningRate must be >= 0"],
    [{ learningRate: Infinity }, "learningRate must be >= 0"],
    [{ momentum: 1 }, "momentum must be >= 0 and < 1: current value is 1"],
    [{ weightDecay: -1e-4 }, "weightDecay must be >= 0"],
    [{ ema: 1 }, "ema must be >= 0 and < 1"],
    [{ attack: { ...SETTINGS.attack!, epsilon: -1 } }, "epsilon must be >= 0"],
    [
      { attack: { ...SETTINGS.attack!, steps: 0.5 } },
      "steps must be an integer",
    ],
    [{ attack: { ...SETTINGS.attack!, stepSize: NaN } }, "stepSize must be"],
  ];
  for (const [changes, message] of refused) {
    assertThrows(
      () => checkTrainSettings({ ...SETTINGS, ...changes }),
      RangeError,
      message,
    );
  }
});

Deno.test("learningRateAt() drops by ten at the epochs of a step schedule", () => {
  const schedule = { kind: "step", at: [30, 60] } as const;
  const at = (epoch: number) => learningRateAt(schedule, 0.1, epoch, 110);
  for (
    const [epoch, expected] of [
      [0, 0.1],
      [29.999, 0.1],
      [30, 0.01],
      [59.9, 0.01],
      [60, 0.001],
      [109.9, 0.001],
    ]
  ) {
    assert(Math.abs(at(epoch) / expected - 1) < 1e-12, `epoch ${epoch}`);
  }
});

Deno.test("learningRateAt() rises to its peak at 40% and falls to 0", () => {
  const at = (epoch: number) =>
    learningRateAt({ kind: "cyclic" }, 0.2, epoch, 10);
  for (
    const [epoch, expected] of [
      [0, 0],
      [2, 0.1],
      [4, 0.2],
      [7, 0.1],
      [10, 0],
      [11, 0],
    ]
  ) {
    assert(Math.abs(at(epoch) - expected) < 1e-12, `epoch ${epoch}`);
  }
});

Deno.test("attackStepsAt() grows evenly to all steps", () => {
  const at = (epoch: number) => attackStepsAt(4, epoch, 8);
  assertEquals([0, 1.9, 2, 3.9, 4, 6, 7.9, 8, 99].map(at), [
    ...[1, 1, 2, 2, 3, 4, 4, 4, 4],
  ]);
  assertEquals([0, 3].map((epoch) => attackStepsAt(7, epoch, 0)), [7, 7]);
  assertEquals([0, 3].map((epoch) => attackStepsAt(1, epoch, 5)), [1, 1]);
});

Deno.test("warmupAt() grows linearly to 1", () => {
  assertEquals([0, 1, 2, 4, 9].map((epoch) => warmupAt(epoch, 4)), [
    0,
    0.25,
    0.5,
    1,
    1,
  ]);
  assertEquals([0, 3].map((epoch) => warmupAt(epoch, 0)), [1, 1]);
});
