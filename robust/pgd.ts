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
  type Random,
  rows,
  show,
  type Tensor,
  tensor,
} from "../core/mod.ts";
import { buildModel, type ModelSpec } from "../models/mod.ts";
import type { Program } from "../onnx/mod.ts";
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
  /** Images per run of the program (default 64). */
  readonly batchSize?: number;
  /**
   * Receives every iterate before its step, and the last one: the step's
   * number, the first image's index, the images and their losses.
   */
  readonly onStep?: (step: PgdStep) => void;
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
const RESERVED = ["images", "center", "epsilon", "stepSize", "noise"];

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
  },
): { next: Node; losses: Node } {
  const { norm, loss, fakeRelu } = options;
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
  const losses = loss(buildModel(spec, x, { fakeRelu }), feeds);
  if (show(losses.shape) !== show([shape[0]])) {
    throw new TypeError(
      `Cannot optimise an objective of shape ${show(losses.shape)}: need one ` +
        `value per image, ${show([shape[0]])}`,
    );
  }
  // The sum's gradient is each image's own: no image depends on its batch.
  const [g] = grad(losses, [x]);
  const ball = BALLS[norm];
  const next = ball.project(ball.step(x, g, stepSize), center, epsilon);
  return { next, losses };
}

/** A random start as nodes; inputs `center`, `noise`, `epsilon`. */
export function randomStart(shape: readonly number[], norm: Norm): Node {
  return BALLS[norm].randomStart(
    input("center", shape),
    input("noise", shape),
    input("epsilon", []),
  );
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
 * @param program Made from `pgdStep()`
 * @param feeds Its inputs; `images` is the start
 * @param steps Number of steps
 * @param onIterate Receives each iterate and its losses, the start included
 * but not the last; return true to stop
 * @returns The last iterate
 */
export async function iterate(
  program: Program,
  feeds: Parameters<Program["run"]>[0],
  steps: number,
  onIterate?: (step: number, images: Tensor, losses: Tensor) => boolean | void,
): Promise<Tensor> {
  // Two sets of outputs take turns: one is read while the other is written.
  const outputs = [program.allocateOutputs(), program.allocateOutputs()];
  let images = feeds.images as Tensor;
  for (let step = 0; step < steps; step++) {
    const into = outputs[step % 2];
    await program.run({ ...feeds, images }, into);
    if (onIterate?.(step, images, into.losses as Tensor)) break;
    images = into.next as Tensor;
  }
  return images;
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
  readonly start?: Program;
  readonly inside?: Program;
}

async function makePrograms(
  network: Network,
  shape: readonly number[],
  options: OptimizeOptions,
): Promise<Programs> {
  const { objective, norm = "l2", fakeRelu, randomStart: random } = options;
  const fake = fakeRelu ?? objective.ofRepresentation;
  const feeds = Object.fromEntries(
    Object.entries(objective.feeds).map(([name, { shape: full }]) => [
      name,
      [shape[0], ...full.slice(1)],
    ]),
  );
  const settings = { norm, loss: objective.loss, feeds, fakeRelu: fake };
  const key = `${lossId(objective.loss)} ${norm} ${fake} ${shape} ` +
    JSON.stringify(feeds);
  return {
    step: await network.program(
      `step ${key}`,
      () => pgdStep(network.spec, shape, settings),
    ),
    ...(random
      ? {
        start: await network.program(
          `start ${norm} ${shape}`,
          () => ({ images: randomStart(shape, norm) }),
        ),
      }
      : {}),
    // With a centre of its own a start may lie outside the ball, where it
    // must not count as the best iterate.
    ...(options.center && !random
      ? {
        inside: await network.program(
          `inside ${norm} ${shape}`,
          () => ({ images: projected(shape, norm) }),
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

/** Best images so far and their losses. */
interface Best {
  readonly images: Tensor;
  readonly losses: Tensor;
}

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
  const sense = direction === "minimize" ? -1 : 1;
  let best = sofar;
  const consider = (images: Tensor, losses: Tensor) => {
    if (!best) {
      best = { images: copy(images), losses: copy(losses) };
    } else {
      keepBetter(best, images, losses, sense);
    }
  };
  const report = (step: number, images: Tensor, losses: Tensor) => {
    options.onStep?.({
      step,
      restart,
      start: batch.start,
      images: rows(images, 0, batch.count),
      losses: rows(losses, 0, batch.count),
    });
    const isLast = step === steps;
    if (keep === "best" || isLast) consider(images, losses);
    signal?.throwIfAborted();
  };
  const last = await iterate(
    programs.step,
    {
      ...feeds,
      epsilon: scalar(options.epsilon),
      stepSize: scalar(sense * options.stepSize),
    },
    steps,
    (step, images, losses) => report(step, images, losses),
  );
  const { objective } = options;
  report(
    steps,
    last,
    await lossesOf(network, objective, { ...feeds, images: last }),
  );
  return best!;
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
