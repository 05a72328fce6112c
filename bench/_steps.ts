/**
 * Our side of the workloads: each prepares its programs and gives a function
 * that makes one step.
 *
 * @module
 */
import {
  input,
  type NamedTensors,
  Random,
  type Tensor,
  tensor,
} from "../core/mod.ts";
import { openDataset } from "../datasets/mod.ts";
import { buildModel, initializeModel, type ModelSpec } from "../models/mod.ts";
import { compile } from "../onnx/mod.ts";
import {
  matchRepresentation,
  Network,
  pgdStep,
  predictions,
  type RunOptions,
  train as runTraining,
  type TrainSettings,
} from "../robust/mod.ts";
import type { Workload } from "./_workloads.ts";

/** Makes one step; its value shows that work was done. */
export type Step = () => Promise<number>;

/** Weight that BatchNorm's running statistics give to a new batch. */
const MOMENTUM = 0.1;

const PREFIX = "measured:";

/** Random weights whose BatchNorm statistics are those of one batch. */
async function weights(
  spec: ModelSpec,
  shape: readonly number[],
  random: Random,
  options: RunOptions,
): Promise<NamedTensors> {
  const initial = initializeModel(spec, random);
  const images = random.stream("statistics").uniformTensor(shape, 0, 1);
  const x = input("statistics", shape);
  const { updates } = buildModel(spec, x, { training: true });
  const none = Object.fromEntries(
    Array.from(updates.keys(), (name) => {
      const { data, shape } = initial[name] as Tensor;
      return [name, tensor(new Float32Array(data.length), shape)];
    }),
  );
  // An output may not have the name of an input.
  const outputs = Array.from(updates, ([name, node]) => [PREFIX + name, node]);
  const program = await compile(Object.fromEntries(outputs), {
    ...options,
    constants: { ...initial, ...none },
  });
  const moved = await program.run({ statistics: images });
  await program.release();
  const statistics = Object.entries(moved).map(([name, value]) => {
    const { data, shape } = value as Tensor;
    const values = data.map((x) => x / MOMENTUM);
    return [name.slice(PREFIX.length), tensor(values, shape)];
  });
  return { ...initial, ...Object.fromEntries(statistics) };
}

/** Images of a workload, uniform in [0, 1]. */
function imagesOf(workload: Workload, random: Random): Tensor {
  const { batchSize, imageSize } = workload;
  const shape = [batchSize, 3, imageSize, imageSize];
  return random.uniformTensor(shape, 0, 1);
}

/** W1, W2 and W5: one step of representation inversion. */
export async function invert(
  workload: Workload,
  options: RunOptions,
): Promise<Step> {
  const { spec, batchSize, kind } = workload;
  const random = new Random(0);
  const images = imagesOf(workload, random.stream("images"));
  const { shape } = images;
  const parameters = kind === "start"
    ? initializeModel(spec, random)
    : await weights(spec, [8, ...shape.slice(1)], random, options);
  const network = new Network(spec, parameters, options);
  const targets = imagesOf(workload, random.stream("targets"));
  const { representation } = await network.predict(targets, { batchSize });
  const { loss, feeds } = matchRepresentation(representation);
  const program = await network.program("step", () =>
    pgdStep(spec, shape, {
      norm: "l2",
      loss,
      feeds: { target: representation.shape },
      // PyTorch's side passes gradients through the last ReLU as usual.
      fakeRelu: false,
    }));
  const settings = {
    ...feeds,
    center: images,
    epsilon: tensor([1000], []),
    stepSize: tensor([-1], []),
  };
  // As iterate() does: one set is read while the other is written.
  const outputs = [program.allocateOutputs(), program.allocateOutputs()];
  let current = images;
  return async () => {
    const [into] = outputs;
    outputs.reverse();
    await program.run({ ...settings, images: current }, into);
    current = into.next as Tensor;
    return mean(into.losses as Tensor);
  };
}

function mean({ data }: Tensor): number {
  return data.reduce((sum, value) => sum + value, 0) / data.length;
}

/** W4: predictions of a batch and how many are right. */
export async function predict(
  workload: Workload,
  options: RunOptions,
): Promise<Step> {
  const { spec, batchSize } = workload;
  const random = new Random(0);
  const images = imagesOf(workload, random.stream("images"));
  const shape = [8, ...images.shape.slice(1)];
  const parameters = await weights(spec, shape, random, options);
  const network = new Network(spec, parameters, options);
  const labels = Uint32Array.from(
    { length: batchSize },
    () => random.integer(spec.classes),
  );
  return async () => {
    const { logits } = await network.predict(images, { batchSize });
    return predictions(logits).filter((label, i) => label === labels[i]).length;
  };
}

/** Time and loss of a step. */
export interface TimedValue {
  readonly ms: number;
  readonly value: number;
}

/**
 * W3: steps of `train()` itself, held between steps by its `onCheckpoint`,
 * which it awaits after each.
 *
 * @returns A function that lets it make one more step and gives the time from
 * its release to the step's end, in ms
 */
export async function train(
  workload: Workload,
  options: RunOptions,
): Promise<() => Promise<TimedValue>> {
  const { splits } = await openDataset("shapes", {
    splits: ["train"],
    limit: 200 * workload.batchSize,
  });
  let step = Promise.withResolvers<TimedValue>();
  let held = Promise.withResolvers<void>();
  let started = 0;
  let release = () => {};
  const go = () => {
    step = Promise.withResolvers();
    held = Promise.withResolvers();
    started = performance.now();
    release();
    return step.promise;
  };
  const first = go();
  runTraining(trainSettings(workload), splits.train, {
    ...options,
    checkpointSeconds: 0,
    onStep: ({ loss }) =>
      step.resolve({ ms: performance.now() - started, value: loss }),
    onCheckpoint: () =>
      new Promise((resolve) => {
        release = resolve;
        held.resolve();
      }),
  }).catch((reason) => step.reject(reason));
  await first;
  return async () => {
    await held.promise;
    return await go();
  };
}

/** Settings of W3, without an end. */
export function trainSettings({ spec, batchSize }: Workload): TrainSettings {
  return {
    spec,
    attack: {
      norm: "l2",
      epsilon: 0.5,
      stepSize: 0.1,
      steps: 7,
      randomStart: true,
    },
    epochs: Number.MAX_SAFE_INTEGER,
    batchSize,
    learningRate: 0.01,
    schedule: { kind: "step", at: [] },
    momentum: 0.9,
    weightDecay: 5e-4,
    epsilonWarmup: 0,
    ema: 0,
    augmentation: "standard",
    seed: 0,
  };
}
