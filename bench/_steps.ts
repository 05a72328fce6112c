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
import { compile, releaseDevice } from "../onnx/mod.ts";
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

/** A workload ready to run. */
export interface Prepared {
  /** Makes one step and gives its milliseconds. */
  readonly step: () => Promise<number>;
  /** Frees its programs: those that are profiled write their files. */
  readonly release: () => Promise<void>;
  /** Steps that it makes besides, to begin with and to end (default 0). */
  readonly extraSteps?: number;
}

/** A function as a timed step. */
function timed(run: () => Promise<unknown>): Prepared["step"] {
  return async () => {
    const started = performance.now();
    await run();
    return performance.now() - started;
  };
}

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
    memory: "shared",
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
): Promise<Prepared> {
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
  // Losses are read back at every step, images stay where they are computed.
  const program = await network.program("step", () =>
    pgdStep(spec, shape, {
      norm: "l2",
      loss,
      feeds: { target: representation.shape },
      // PyTorch's side passes gradients through the last ReLU as usual.
      fakeRelu: false,
    }), { onDevice: ["next"] });
  const held = await network.hold({
    ...feeds,
    images,
    center: images,
    epsilon: tensor([1000], []),
    stepSize: tensor([-1], []),
  });
  // As iterate() does: one set is read while the other is written.
  const outputs = [program.allocateOutputs(), program.allocateOutputs()];
  let current = held.images;
  const step = async () => {
    const [into] = outputs;
    outputs.reverse();
    const { next } = await program.run({ ...held, images: current }, into);
    if (current !== held.images) releaseDevice({ current });
    current = next as Tensor;
  };
  return { step: timed(step), release: () => network.release() };
}

/** W4: predictions of a batch and how many are right. */
export async function predict(
  workload: Workload,
  options: RunOptions,
): Promise<Prepared> {
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
  const step = async () => {
    const { logits } = await network.predict(images, { batchSize });
    return predictions(logits).filter((label, i) => label === labels[i]).length;
  };
  return { step: timed(step), release: () => network.release() };
}

/**
 * W3: steps of `train()` itself, held between steps by its `onCheckpoint`,
 * which it awaits after each. A step lasts from its release to its end.
 */
export async function train(
  workload: Workload,
  options: RunOptions,
): Promise<Prepared> {
  const { splits } = await openDataset("shapes", {
    splits: ["train"],
    limit: Math.max(6400, 8 * workload.batchSize),
  });
  const controller = new AbortController();
  let step = Promise.withResolvers<number>();
  let held = Promise.withResolvers<void>();
  let started = 0;
  let go = () => {};
  const next = () => {
    step = Promise.withResolvers();
    held = Promise.withResolvers();
    started = performance.now();
    go();
    return step.promise;
  };
  const first = next();
  const ended = runTraining(trainSettings(workload), splits.train, {
    ...options,
    signal: controller.signal,
    checkpointSeconds: 0,
    onStep: () => step.resolve(performance.now() - started),
    // Stopping saves once more, which nothing is to hold.
    onCheckpoint: () =>
      controller.signal.aborted ? Promise.resolve() : new Promise((resolve) => {
        go = resolve;
        held.resolve();
      }),
  }).catch((reason) => step.reject(reason));
  await first;
  return {
    extraSteps: 2,
    step: async () => {
      await held.promise;
      return await next();
    },
    release: async () => {
      await held.promise;
      controller.abort();
      step.promise.catch(() => {});
      go();
      await ended;
    },
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
