/**
 * Projected gradient descent on the input: the one loop behind the attack of
 * training, evaluation and every figure (paper, eq. 3 to 6).
 *
 * @module
 */
import {
  grad,
  input,
  type Node,
  Random,
  rows,
  show,
  type Tensor,
  tensor,
} from "../core/mod.ts";
import { buildModel, type ModelSpec } from "../models/mod.ts";
import { hasOwnMemory, type Program, releaseDevice } from "../onnx/mod.ts";
import { type Best, BestOnDevice } from "./best_on_device.ts";
import { BALLS, type Norm, NORMS } from "./ball.ts";
import {
  type Batch,
  batchesOf,
  batchShape,
  checkImages,
  DEFAULT_BATCH_SIZE,
  joined,
  type Network,
  type RowTensors,
  trimmed,
} from "./network.ts";
import type { Objective } from "./objectives.ts";
import type { Parameterization, RandomTransform } from "./regularized.ts";

/** Where an input may go and how it moves. */
export interface PgdSettings {
  /** How perturbations are measured (default "l2"). */
  readonly norm?: Norm;
  /** Radius of the ball in [0, 1] pixel units; 1000 leaves l2 unconstrained. */
  readonly epsilon: number;
  /** Length of a step, in the units of `epsilon`. */
  readonly stepSize: number;
  /** Number of steps. */
  readonly steps: number;
}

/** Options of `optimizeInput()`. */
export interface OptimizeOptions extends PgdSettings {
  /** What each image is optimised for. */
  readonly objective: Objective;
  /** Which way (default "minimize"). */
  readonly direction?: "minimize" | "maximize";
  /**
   * Centres of the balls (default: the start images), `[n, 3, h, w]`; a start
   * outside its ball moves to the nearest point inside.
   */
  readonly center?: Tensor;
  /** Start at a random point of the ball, drawn from this. */
  readonly randomStart?: Random;
  /**
   * Index of the first image (default 0): an image's random start depends on
   * its index alone.
   */
  readonly offset?: number;
  /** Runs, of which each image keeps its best; needs `randomStart`. */
  readonly restarts?: number;
  /** Which iterate of a run counts (default "last"). */
  readonly keep?: "last" | "best";
  /** Whether the last ReLU passes the gradient (default: by objective). */
  readonly fakeRelu?: boolean;
  /**
   * What the images are made of: the start is then that, `[n, 3, ...]`, and
   * steps are not projected.
   */
  readonly parameterization?: Parameterization;
  /** Random changes that the network sees the images under. */
  readonly transform?: RandomTransform;
  /** Draws them (default: seed 0). */
  readonly transformRandom?: Random;
  /** Images per run of the program (default 64). */
  readonly batchSize?: number;
  /**
   * Receives every iterate, or those of `observe`, before its step, and the last
   * one: the step's number, the first image's index, the images and their losses. If it
   * returns true, these images take no more steps.
   */
  readonly onStep?: (step: PgdStep) => unknown;
  /**
   * Which iterates but the last one `onStep` receives, by the number of steps
   * done (default: all). On a device with memory of its own the others need not
   * be copied, nor waited for.
   */
  readonly observe?: (step: number) => boolean;
  /** Stops the loop: the promise rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** What `onStep` receives. */
export interface PgdStep {
  /** Steps done, 0 .. `steps`. */
  readonly step: number;
  /** Run, 0 .. `restarts - 1`. */
  readonly restart: number;
  /** Index of the first of these images. */
  readonly start: number;
  /** Images after `step` steps, `[count, 3, h, w]`; valid during the call. */
  readonly images: Tensor;
  /** Value of the objective for each, `[count]`. */
  readonly losses: Tensor;
}

/** Result of `optimizeInput()`. */
export interface OptimizeResult {
  /** Optimised images, `[n, 3, h, w]` in [0, 1]. */
  readonly images: Tensor;
  /** Value of the objective for each, `[n]`. */
  readonly losses: Tensor;
}

/**
 * @throws {RangeError} If epsilon or the step size is negative or not a
 * number, or the number of steps is not an integer >= 0
 */
export function checkPgd({ norm, epsilon, stepSize, steps }: PgdSettings) {
  if (norm !== undefined && !NORMS.includes(norm)) {
    throw new RangeError(
      `Cannot measure perturbations by "${norm}": choose one of ` +
        NORMS.join(", "),
    );
  }
  for (const [name, value] of Object.entries({ epsilon, stepSize })) {
    if (!(value >= 0 && value < Infinity)) {
      throw new RangeError(
        `Cannot optimise inputs as ${name} must be >= 0: current value is ` +
          value,
      );
    }
  }
  if (!Number.isInteger(steps) || steps < 0) {
    throw new RangeError(
      `Cannot optimise inputs as steps must be an integer >= 0: current ` +
        `value is ${steps}`,
    );
  }
}

/** @throws {RangeError} If there is no run, or runs would be the same */
export function checkRestarts(restarts: number, isRandom: boolean): void {
  if (!(Number.isInteger(restarts) && restarts >= 1)) {
    throw new RangeError(
      `Cannot optimise inputs as restarts must be an integer >= 1: current ` +
        `value is ${restarts}`,
    );
  }
  if (restarts > 1 && !isRandom) {
    throw new RangeError(
      `Cannot restart ${restarts} times without a random start: every run ` +
        `would be the same`,
    );
  }
}

/** Names of the inputs that are not an objective's feeds. */
const RESERVED = [
  ...["images", "center", "epsilon", "stepSize", "noise", "changes"],
];

/**
 * One step of PGD as nodes: objective, gradient, step, projection, clip.
 *
 * @param spec Network
 * @param shape Shape of the images, `[n, 3, h, w]`
 * @param feeds Shapes of the objective's feeds
 * @returns `next` images and the `losses` of the images before the step;
 * inputs are `images`, `center`, `epsilon`, signed `stepSize` and the feeds
 * @throws {RangeError} If a feed has the name of another input
 * @throws {TypeError} If the objective does not give one value per image
 */
export function pgdStep(
  spec: ModelSpec,
  shape: readonly number[],
  options: {
    readonly norm: Norm;
    readonly loss: Objective["loss"];
    readonly feeds: Readonly<Record<string, readonly number[]>>;
    readonly fakeRelu: boolean;
    readonly parameterization?: Parameterization;
    readonly transform?: RandomTransform;
  },
): { next: Node; losses: Node } {
  const { norm, loss, fakeRelu, parameterization, transform } = options;
  const x = input("images", shape);
  const center = input("center", shape);
  const epsilon = input("epsilon", []);
  const stepSize = input("stepSize", []);
  const feeds = Object.fromEntries(
    Object.entries(options.feeds).map(([name, size]) => {
      if (RESERVED.includes(name)) {
        throw new RangeError(
          `Cannot feed an objective under the name "${name}": it is reserved`,
        );
      }
      return [name, input(name, size)];
    }),
  );
  const decoded = parameterization ? parameterization.decode(x) : x;
  const seen = transform
    ? transform.apply(decoded, changes(shape[0]))
    : decoded;
  const losses = loss(buildModel(spec, seen, { fakeRelu }), feeds);
  if (show(losses.shape) !== show([shape[0]])) {
    throw new TypeError(
      `Cannot optimise an objective of shape ${show(losses.shape)}: need one ` +
        `value per image, ${show([shape[0]])}`,
    );
  }
  // The sum's gradient is each image's own: no image depends on its batch.
  const [g] = grad(losses, [x]);
  const ball = BALLS[norm];
  const stepped = ball.step(x, g, stepSize);
  const next = parameterization
    ? stepped
    : ball.project(stepped, center, epsilon);
  return { next, losses };
}

/** The input that a random transform reads, by its name. */
function changes(n: number): Node {
  return input("changes", [n, 2, 3]);
}

/**
 * A random start as nodes; inputs `center`, `noise`, `epsilon`, of which some
 * may be given.
 */
export function randomStart(
  shape: readonly number[],
  norm: Norm,
  {
    center = input("center", shape),
    epsilon = input("epsilon", []),
  }: { readonly center?: Node; readonly epsilon?: Node } = {},
): Node {
  return BALLS[norm].randomStart(center, input("noise", shape), epsilon);
}

/** The nearest allowed images as nodes; inputs `start`, `center`, `epsilon`. */
function projected(shape: readonly number[], norm: Norm): Node {
  return BALLS[norm].project(
    input("start", shape),
    input("center", shape),
    input("epsilon", []),
  );
}

/** Noise for `randomStart()`. */
export function startNoise(
  shape: readonly number[],
  norm: Norm,
  random: Random,
): Tensor {
  return BALLS[norm].noise === "normal"
    ? random.normal(shape)
    : random.uniformTensor(shape, -1, 1);
}

/** A float32 scalar to feed. */
export function scalar(value: number): Tensor {
  return tensor([value], []);
}

/**
 * Repeats a compiled `pgdStep()` from a start, on a whole batch.
 *
 * @param program Made from `pgdStep()`; `losses` may be missing without
 * `onIterate`, and iterates may be on a device
 * @param feeds Its inputs; `images` is the start
 * @param steps Number of steps
 * @param onIterate Receives each iterate and its losses, the start included
 * but not the last, valid until its promise is fulfilled; return true to stop
 * @param feedsOf Inputs that change from step to step
 * @returns The last iterate
 */
export async function iterate(
  program: Program,
  feeds: Parameters<Program["run"]>[0],
  steps: number,
  onIterate?: (
    step: number,
    images: Tensor,
    losses: Tensor,
  ) => boolean | void | Promise<boolean | void>,
  feedsOf?: (step: number) => Parameters<Program["run"]>[0],
): Promise<Tensor> {
  // Two sets of outputs take turns: one is read while the other is written.
  const outputs = [program.allocateOutputs(), program.allocateOutputs()];
  const start = feeds.images as Tensor;
  let images = start;
  const forget = (value: Tensor) => {
    if (value !== start) releaseDevice({ value });
  };
  try {
    for (let step = 0; step < steps; step++) {
      const { next, losses } = await program.run(
        { ...feeds, ...feedsOf?.(step), images },
        outputs[step % 2],
      ) as Record<string, Tensor>;
      let isDone: boolean | void = true;
      try {
        isDone = await onIterate?.(step, images, losses);
      } finally {
        releaseDevice({ losses, ...(isDone ? { next } : {}) });
      }
      if (isDone) break;
      forget(images);
      images = next;
    }
    return images;
  } catch (error) {
    forget(images);
    throw error;
  }
}

/** Programs of custom objectives are told apart by their function. */
const lossIds = new WeakMap<Objective["loss"], number>();
let lossCount = 0;

/** Number of an objective's function, for the keys of programs. */
export function lossId(loss: Objective["loss"]): number {
  const id = lossIds.get(loss) ?? lossCount++;
  lossIds.set(loss, id);
  return id;
}

/**
 * Optimises images by projected gradient steps within a ball.
 *
 * The reference's restarts kept the last run; here each image keeps its best.
 *
 * @param network Network whose outputs the objective reads
 * @param images Where to start, `[n, 3, h, w]` in [0, 1]
 * @returns The optimised images and their objective
 * @throws {RangeError} If a setting is out of range
 * @throws {TypeError} If shapes do not fit
 *
 * @example
 * ```ts
 * import {
 *   initializeModel,
 *   matchRepresentation,
 *   type ModelSpec,
 *   Network,
 *   optimizeInput,
 *   Random,
 * } from "../mod.ts";
 *
 * const spec: ModelSpec = {
 *   architecture: "resnet10",
 *   form: "cifar",
 *   width: 4,
 *   classes: 10,
 *   mean: [0.5, 0.5, 0.5],
 *   std: [0.25, 0.25, 0.25],
 * };
 * const random = new Random(0);
 * // Untrained; `loadNetwork()` reads a trained one.
 * const network = new Network(spec, initializeModel(spec, random));
 * const target = random.uniformTensor([1, 3, 32, 32]);
 * const { representation } = await network.predict(target);
 * const noise = random.uniformTensor(target.shape);
 * const { images, losses } = await optimizeInput(network, noise, {
 *   objective: matchRepresentation(representation),
 *   epsilon: 1000,
 *   stepSize: 0.1,
 *   steps: 10,
 * });
 * await network.release();
 * ```
 */
export async function optimizeInput(
  network: Network,
  images: Tensor,
  options: OptimizeOptions,
): Promise<OptimizeResult> {
  const { objective, restarts = 1, norm = "l2", randomStart: random } = options;
  checkPgd(options);
  checkImages(images);
  checkRestarts(restarts, random !== undefined);
  const { center = images, batchSize = DEFAULT_BATCH_SIZE, offset = 0 } =
    options;
  const [size, shape] = batchShape(images, batchSize);
  const programs = await makePrograms(network, shape, options);
  const noise = (restart: number, rest: readonly number[], first: number) => {
    // One stream per image: batches do not change what an image gets.
    const parts = Array.from({ length: size }, (_, i) => {
      const stream = random!.stream("start", restart, first + i);
      return { noise: startNoise([1, ...rest], norm, stream) };
    });
    return joined(parts).noise;
  };
  const results: Record<string, Tensor>[] = [];
  for (const batch of batchesOf({ images, center, ...objective.feeds }, size)) {
    let best: Best | undefined;
    for (let restart = 0; restart < restarts; restart++) {
      const start = random
        ? await programs.start!.run({
          center: batch.values.center,
          noise: noise(restart, shape.slice(1), offset + batch.start),
          epsilon: scalar(options.epsilon),
        })
        : programs.inside
        ? await programs.inside.run({
          start: batch.values.images,
          center: batch.values.center,
          epsilon: scalar(options.epsilon),
        })
        : { images: batch.values.images };
      const feeds = { ...batch.values, images: start.images as Tensor };
      best = await optimizeBatch(
        network,
        programs,
        batch,
        feeds,
        options,
        restart,
        best,
      );
    }
    results.push(trimmed({ ...best! }, batch.count));
  }
  const { images: optimized, losses } = joined(results);
  return { images: optimized, losses };
}

interface Programs {
  readonly step: Program;
  readonly decode?: Program;
  readonly start?: Program;
  readonly inside?: Program;
  /** Whether iterates stay in a device's memory. */
  readonly isHeld: boolean;
}

async function makePrograms(
  network: Network,
  shape: readonly number[],
  options: OptimizeOptions,
): Promise<Programs> {
  const { objective, norm = "l2", fakeRelu, randomStart: random } = options;
  const { parameterization, transform } = options;
  const fake = fakeRelu ?? objective.ofRepresentation;
  // Where someone looks at each iterate, it had better come to the host at once.
  const isHeld = hasOwnMemory(network.options.provider ?? "cpu") &&
    !(options.onStep && !options.observe);
  const kept = (...names: string[]) => isHeld ? { onDevice: names } : {};
  const feeds = Object.fromEntries(
    Object.entries(objective.feeds).map(([name, { shape: full }]) => [
      name,
      [shape[0], ...full.slice(1)],
    ]),
  );
  const settings = {
    ...{ norm, loss: objective.loss, feeds, fakeRelu: fake },
    ...{ parameterization, transform },
  };
  const key = `${lossId(objective.loss)} ${norm} ${fake} ${shape} ` +
    `${parameterization?.name} ${transform?.name} ${isHeld} ` +
    JSON.stringify(feeds);
  return {
    isHeld,
    ...(parameterization
      ? {
        decode: await network.program(
          `decode ${parameterization.name} ${shape} ${isHeld}`,
          () => ({ images: parameterization.decode(input("z", shape)) }),
          kept("images"),
        ),
      }
      : {}),
    step: await network.program(
      `step ${key}`,
      () => pgdStep(network.spec, shape, settings),
      kept("next", "losses"),
    ),
    ...(random
      ? {
        start: await network.program(
          `start ${norm} ${shape} ${isHeld}`,
          () => ({ images: randomStart(shape, norm) }),
          kept("images"),
        ),
      }
      : {}),
    // With a centre of its own a start may lie outside the ball, where it
    // must not count as the best iterate.
    ...(options.center && !random
      ? {
        inside: await network.program(
          `inside ${norm} ${shape} ${isHeld}`,
          () => ({ images: projected(shape, norm) }),
          kept("images"),
        ),
      }
      : {}),
  };
}

/**
 * An objective's losses without a step. They are computed from what
 * `predict()` gives: a second program of the whole network would take the
 * memory of its weights, and a second to make.
 */
async function lossesOf(
  network: Network,
  { feeds, loss }: Objective,
  batch: RowTensors,
): Promise<Tensor> {
  const { images } = batch;
  const [batchSize] = images.shape;
  const { representation, logits } = await network.predict(images, {
    batchSize,
  });
  // Feeds are of the objective's own choice of names.
  const values = {
    ...Object.fromEntries(
      Object.keys(feeds).map((name) => [
        `feed:${name}`,
        batch[name],
      ]),
    ),
    representation,
    logits,
  };
  const shapes = Object.entries(values).map(([name, { shape }]) =>
    [name, shape] as const
  );
  const program = await network.program(
    `objective ${lossId(loss)} ${JSON.stringify(shapes)}`,
    () => {
      const nodes = Object.fromEntries(
        shapes.map(([name, shape]) => [name, input(name, shape)]),
      );
      const { representation, logits } = nodes;
      const fed = Object.fromEntries(
        Object.keys(feeds).map((name) => [name, nodes[`feed:${name}`]]),
      );
      return { losses: loss({ representation, logits }, fed) };
    },
  );
  return (await program.run(values)).losses as Tensor;
}

/**
 * Steps after which the device is waited for, at the latest: it would else have
 * ever more to do, and the process could not be stopped.
 */
const STEPS_AHEAD = 16;

/** One run of one batch; keeps what is better than `sofar`. */
async function optimizeBatch(
  network: Network,
  programs: Programs,
  batch: Batch,
  feeds: RowTensors,
  options: OptimizeOptions,
  restart: number,
  sofar: Best | undefined,
): Promise<Best> {
  const { direction = "minimize", keep = "last", steps, signal } = options;
  const { onStep, observe = () => true, objective } = options;
  const sense = direction === "minimize" ? -1 : 1;
  let best = sofar;
  const consider = (images: Tensor, losses: Tensor) => {
    if (!best) {
      best = { images: copy(images), losses: copy(losses) };
    } else {
      keepBetter(best, images, losses, sense);
    }
  };
  const { step: program, decode, isHeld } = programs;
  const decoded = async (z: Tensor) =>
    decode ? (await decode.run({ z })).images as Tensor : z;
  const { transform, transformRandom = new Random(0) } = options;
  const given = {
    ...feeds,
    epsilon: scalar(options.epsilon),
    stepSize: scalar(sense * options.stepSize),
  };
  const held: RowTensors = isHeld ? await network.hold(given) : given;
  releaseDevice({ start: feeds.images });
  const onDevice = isHeld && keep === "best"
    ? await BestOnDevice.create(network, sense, sofar)
    : null;
  let reached = steps;
  /** Calls `onStep`, with tensors on the host. */
  const report = (step: number, images: Tensor, losses: Tensor) => {
    const isDone = onStep?.({
      step,
      restart,
      start: batch.start,
      images: rows(images, 0, batch.count),
      losses: rows(losses, 0, batch.count),
    }) === true;
    signal?.throwIfAborted();
    return isDone;
  };
  const onIterate = async (step: number, z: Tensor, losses: Tensor) => {
    signal?.throwIfAborted();
    const isShown = onStep !== undefined && observe(step);
    if (isHeld && !isShown && step % STEPS_AHEAD === STEPS_AHEAD - 1) {
      await network.fetch({ losses });
    }
    if (!isShown && keep !== "best") return false;
    const images = await decoded(z);
    try {
      if (onDevice) await onDevice.consider(images, losses);
      else if (keep === "best") consider(images, losses);
      if (!isShown) return false;
      const found = await network.fetch({ images, losses });
      const isDone = report(step, found.images, found.losses);
      if (isDone) reached = step;
      return isDone;
    } finally {
      if (images !== z) releaseDevice({ images });
    }
  };
  try {
    const last = await iterate(
      program,
      held,
      steps,
      onIterate,
      transform && ((step) => ({
        changes: transform.draw(
          feeds.images.shape[0],
          transformRandom.stream("transform", restart, batch.start, step),
        ),
      })),
    );
    const { images } = await taken(network, last, decoded, held.images);
    const losses = await lossesOf(network, objective, { ...feeds, images });
    const found = await onDevice?.result();
    if (found) consider(found.images, found.losses);
    consider(images, losses);
    if (reached === steps) report(steps, images, losses);
    return best!;
  } finally {
    if (isHeld) releaseDevice(held);
    onDevice?.release();
  }
}

/** Last images on the host; what they were made of is freed, but `start`. */
async function taken(
  network: Network,
  last: Tensor,
  decoded: (z: Tensor) => Promise<Tensor>,
  start: Tensor,
): Promise<{ images: Tensor }> {
  let shown = last;
  try {
    shown = await decoded(last);
    return await network.fetch({ images: shown }) as { images: Tensor };
  } finally {
    if (shown !== last) releaseDevice({ shown });
    if (last !== start) releaseDevice({ last });
  }
}

function copy({ data, shape }: Tensor): Tensor {
  return tensor(data.slice(), shape);
}

/** Replaces the images whose loss improves strictly; NaN never does. */
function keepBetter(
  best: Best,
  images: Tensor,
  losses: Tensor,
  sense: 1 | -1,
): void {
  const [n] = losses.shape;
  const size = images.data.length / n;
  for (let i = 0; i < n; i++) {
    if (sense * losses.data[i] > sense * best.losses.data[i]) {
      best.losses.data[i] = losses.data[i];
      const row = images.data.subarray(i * size, (i + 1) * size);
      best.images.data.set(row, i * size);
    }
  }
}
