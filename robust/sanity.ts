/**
 * Whether a measured robustness can be believed: the checklist of "On
 * Evaluating Adversarial Robustness" (Carlini et al. 2019, Section 5) as
 * numbers, for PGD on the cross-entropy.
 *
 * @module
 */
import {
  constant,
  grad,
  input,
  l2Norm,
  mul,
  type NamedTensors,
  type Node,
  Random,
  rows,
  sub,
  type Tensor,
  tensor,
} from "../core/mod.ts";
import type { Split } from "../datasets/mod.ts";
import { buildModel, modelParameters, type ModelSpec } from "../models/mod.ts";
import { BALLS, type Norm } from "./ball.ts";
import {
  type EnsembleAttack,
  type EnsembleEvaluation,
  evaluateEnsemble,
} from "./ensemble.ts";
import { predictions } from "./evaluate.ts";
import { batchesOf, DEFAULT_BATCH_SIZE, Network } from "./network.ts";
import { crossEntropyObjective } from "./objectives.ts";
import { checkPgd, optimizeInput, scalar, startNoise } from "./pgd.ts";

/** One line of the checklist. */
export interface SanityCheck {
  /** What is checked, such as "larger-epsilon". */
  readonly name: string;
  /** Whether it holds. */
  readonly passed: boolean;
  /** Its numbers, in words. */
  readonly detail: string;
}

/** The checklist of one network. */
export interface SanityReport {
  /** Images that it was made with. */
  readonly images: number;
  /** How perturbations were measured. */
  readonly norm: "l2" | "linf";
  /** Radius of the ball in [0, 1] pixel units. */
  readonly epsilon: number;
  /** Steps of PGD. */
  readonly steps: number;
  /** In the order they were made. */
  readonly checks: readonly SanityCheck[];
}

/** Options of `checkSanity()`. */
export interface SanityOptions {
  /** How perturbations are measured. */
  readonly norm: Exclude<Norm, "unconstrained">;
  /** Radius of the ball in [0, 1] pixel units, above 0. */
  readonly epsilon: number;
  /** Steps of PGD, whose result is checked (default 20). */
  readonly steps?: number;
  /** Queries of Square per image (default 500). */
  readonly queries?: number;
  /** Use this many images, the split's first (default 200). */
  readonly limit?: number;
  /** Images per run (default 64). */
  readonly batchSize?: number;
  /** Of all that is random (default 0). */
  readonly seed?: number;
  /** Receives what is done: a check, and how much of it. */
  readonly onProgress?: (stage: string, done: number, total: number) => void;
  /** Receives each check as soon as it is made. */
  readonly onCheck?: (check: SanityCheck) => void;
  /** As that of `batches()`. */
  readonly onWarning?: (message: string) => void;
  /** Stops the checks: the promise rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** Names of the checks, in order. */
export const SANITY_CHECKS = [
  "larger-epsilon",
  "unbounded",
  "beats-noise",
  "black-box",
  "more-steps",
  "restarts",
  "gradients",
  "planted",
] as const;

/** Share of images by which results that should agree may differ. */
const TOLERANCE = 0.03;

/** Multiples of epsilon of the check "larger-epsilon". */
const LADDER = [0.5, 1, 2, 4] as const;

/** Random points that the check "beats-noise" tries on each image. */
const NOISE_DRAWS = 10;

/** Networks that the check "planted" makes. */
const PLANTS = 3;

/** Length of the gradients that must still give a step of full length. */
const SMALL_GRADIENT = 1e-6;

const percent = (share: number) => `${(100 * share).toFixed(1)}%`;

/**
 * Runs the checklist. Each check passes or fails with its numbers:
 *
 * - `larger-epsilon`: accuracy falls from 0 over 0.5, 1 and 2 to 4 epsilon,
 *   but for 1% of the images;
 * - `unbounded`: in a ball that holds every image, accuracy is 0;
 * - `beats-noise`: PGD breaks images that the worst of 10 random perturbations
 *   of the same size does not;
 * - `black-box`: Square, which sees no gradients, breaks at most 3% of the
 *   images beyond PGD;
 * - `more-steps`: five times as many steps, and APGD-CE beyond these, break at
 *   most 3% each;
 * - `restarts`: five runs from random points break at most 3% beyond one;
 * - `gradients`: at most 1% of the images have a gradient of exactly zero or
 *   one that shortens PGD's step, and one of length 1e-6 gives a whole step;
 * - `planted`: in copies of the network whose last layer takes a random image
 *   of the ball for another class, PGD finds an adversarial image, too.
 *
 * @param network Network to check
 * @param split Images and labels
 * @param options The attack, and how the checks run
 * @throws {RangeError} If a setting is out of range, or no image is classified
 * correctly
 */
export async function checkSanity(
  network: Network,
  split: Split,
  options: SanityOptions,
): Promise<SanityReport> {
  const { norm, epsilon, steps = 20, queries = 500, seed = 0 } = options;
  checkPgd({ norm, epsilon, stepSize: 0, steps });
  if (epsilon === 0 || steps === 0) {
    throw new RangeError(
      `Cannot check an attack of epsilon ${epsilon} and ${steps} steps: both ` +
        `must be > 0`,
    );
  }
  const limit = Math.min(options.limit ?? 200, split.size);
  const [, height, width] = split.imageShape;
  const run = (
    stage: string,
    settings: {
      readonly attacks?: readonly EnsembleAttack[];
      readonly epsilon?: number;
      readonly steps?: number;
      readonly restarts?: number;
    },
  ): Promise<EnsembleEvaluation> =>
    evaluateEnsemble(network, split, {
      attacks: ["pgd"],
      norm,
      epsilon,
      steps,
      targets: 1,
      queries,
      ...settings,
      limit,
      seed,
      batchSize: options.batchSize,
      onProgress: (_, done, total) => options.onProgress?.(stage, done, total),
      onWarning: options.onWarning,
      signal: options.signal,
    });
  const checks: SanityCheck[] = [];
  const add = (name: string, passed: boolean, detail: string) => {
    const check = { name, passed, detail };
    checks.push(check);
    options.onCheck?.(check);
  };

  const ladder: EnsembleEvaluation[] = [];
  for (const factor of LADDER) {
    ladder.push(await run("larger-epsilon", { epsilon: factor * epsilon }));
  }
  const { clean, images } = ladder[0];
  if (clean === 0) {
    throw new RangeError(
      `Cannot check the network: none of ${images} images is classified ` +
        `correctly`,
    );
  }
  const base = ladder[LADDER.indexOf(1)];
  const heights = [clean, ...ladder.map(({ adversarial }) => adversarial)];
  add(
    "larger-epsilon",
    heights.every((x, i) => i === 0 || x <= heights[i - 1] + 0.01),
    `${percent(clean)} clean, ` +
      LADDER.map((factor, i) =>
        `${percent(heights[i + 1])} at ${number(factor * epsilon)}`
      ).join(", "),
  );

  const whole = norm === "linf" ? 1 : Math.sqrt(3 * height * width);
  const unbounded = await run("unbounded", {
    epsilon: whole,
    steps: 5 * steps,
  });
  add(
    "unbounded",
    unbounded.adversarial === 0,
    `${percent(unbounded.adversarial)} at epsilon ${number(whole)}, ` +
      `PGD-${5 * steps}`,
  );

  const noise = await run("beats-noise", { steps: 0, restarts: NOISE_DRAWS });
  add(
    "beats-noise",
    base.adversarial < noise.adversarial || noise.adversarial === 0,
    `${percent(base.adversarial)} under PGD-${steps}, ` +
      `${
        percent(noise.adversarial)
      } under the worst of ${NOISE_DRAWS} random ` +
      `perturbations`,
  );

  const black = await run("black-box", { attacks: ["pgd", "square"] });
  const beyond = shareOf(black, "square");
  add(
    "black-box",
    beyond <= TOLERANCE,
    `Square (${queries} queries) breaks ${percent(beyond)} beyond PGD-${steps}`,
  );

  const more = await run("more-steps", {
    attacks: ["pgd", "apgd-ce"],
    steps: 5 * steps,
  });
  const [longer] = more.attacks;
  const byApgd = shareOf(more, "apgd-ce");
  add(
    "more-steps",
    Math.abs(base.adversarial - longer.accuracy) <= TOLERANCE &&
      byApgd <= TOLERANCE,
    `${percent(base.adversarial)} after ${steps} steps, ` +
      `${percent(longer.accuracy)} after ${5 * steps}; APGD-CE breaks ` +
      `${percent(byApgd)} beyond`,
  );

  const restarted = await run("restarts", { restarts: 5 });
  add(
    "restarts",
    Math.abs(base.adversarial - restarted.adversarial) <= TOLERANCE,
    `${percent(base.adversarial)} with one run, ` +
      `${percent(restarted.adversarial)} with 5 from random points`,
  );

  const sample = await firstImages(split, limit);
  const steepness = await gradients(network, sample, options);
  const bad = Math.max(steepness.zero, steepness.short);
  add(
    "gradients",
    bad <= 0.01 && steepness.small >= wholeStep(norm),
    `zero for ${percent(steepness.zero)}, too small for a whole step for ` +
      `${percent(steepness.short)} of the images (median length ` +
      `${steepness.median.toExponential(1)}); at length ` +
      `${SMALL_GRADIENT.toExponential(0)} a step has ` +
      `${percent(steepness.small)} of its length`,
  );

  options.onProgress?.("planted", 0, PLANTS);
  const { planted, found } = await plant(network, sample, {
    ...options,
    steps,
    isCorrect: base.perImage.clean,
  });
  add(
    "planted",
    planted > 0 && found === planted,
    `${found} of ${planted} planted adversarial images found`,
  );
  return { images, norm, epsilon, steps, checks };
}

/** A number for people. */
function number(value: number): string {
  return String(Number(value.toPrecision(3)));
}

/** Images broken by one attack of several, of all. */
function shareOf({ attacks, images }: EnsembleEvaluation, name: string) {
  return attacks.find((attack) => attack.name === name)!.broken / images;
}

interface Sample {
  readonly images: Tensor;
  readonly labels: Uint32Array;
}

/** The first images of a split. Damaged ones were reported before. */
async function firstImages(split: Split, count: number): Promise<Sample> {
  const good: Tensor[] = [];
  const labels: number[] = [];
  for (let i = 0; i < count; i++) {
    const image = await split.load([i]).catch(() => null);
    if (!image) continue;
    good.push(image);
    labels.push(split.labels[i]);
  }
  const size = good[0].data.length;
  const data = new Float32Array(good.length * size);
  good.forEach((image, i) => data.set(image.data, i * size));
  return {
    images: tensor(data, [good.length, ...split.imageShape]),
    labels: Uint32Array.from(labels),
  };
}

/**
 * Gradients of the cross-entropy as nodes: each image's `length`, and the
 * length of a step along it and along one of `SMALL_GRADIENT`, over the step
 * size; inputs are `images`, `labels` and `stepSize`.
 */
function gradientNodes(
  spec: ModelSpec,
  shape: readonly number[],
  norm: Norm,
): Record<string, Node> {
  const x = input("images", shape);
  const labels = input("labels", [shape[0], spec.classes]);
  const stepSize = input("stepSize", []);
  const { loss } = crossEntropyObjective([0], spec.classes);
  const [g] = grad(loss(buildModel(spec, x), { labels }), [x]);
  const direction = (y: Node) => BALLS.l2.step(mul(x, 0), y, constant(1));
  const moved = (y: Node) => l2Norm(sub(BALLS[norm].step(x, y, stepSize), x));
  // Scaled up first where its square would vanish.
  const small = mul(direction(mul(g, 1e6)), SMALL_GRADIENT);
  return { length: l2Norm(g), step: moved(g), small: moved(small) };
}

async function gradients(
  network: Network,
  { images, labels }: Sample,
  { norm, epsilon, batchSize = DEFAULT_BATCH_SIZE, signal }: SanityOptions,
): Promise<{ zero: number; short: number; small: number; median: number }> {
  const { classes } = network.spec;
  const n = images.shape[0];
  const size = Math.min(batchSize, n);
  const shape = [size, ...images.shape.slice(1)];
  const program = await network.program(
    `gradients ${norm} ${shape}`,
    () => gradientNodes(network.spec, shape, norm),
  );
  const { feeds } = crossEntropyObjective(labels, classes);
  const lengths: number[] = [], steps: number[] = [], small: number[] = [];
  // Rounding of pixels must not count: a step has a certain size.
  const stepSize = norm === "linf" ? epsilon : Math.max(epsilon, 0.1);
  const whole = norm === "linf"
    ? stepSize * Math.sqrt(images.data.length / n)
    : stepSize;
  for (const batch of batchesOf({ images, ...feeds }, size)) {
    signal?.throwIfAborted();
    const out = await program.run({
      ...batch.values,
      stepSize: scalar(stepSize),
    });
    const of = (name: string) =>
      Array.from(out[name].data as Float32Array).slice(0, batch.count);
    lengths.push(...of("length"));
    steps.push(...of("step").map((x) => x / whole));
    small.push(...of("small").map((x) => x / whole));
  }
  const alive = small.filter((_, i) => lengths[i] > 0);
  return {
    zero: lengths.filter((x) => !(x > 0)).length / n,
    short: steps.filter((x) => !(x >= wholeStep(norm))).length / n,
    small: alive.length > 0 ? mean(alive) : 0,
    median: [...lengths].sort((a, b) => a - b)[Math.floor(n / 2)],
  };
}

/** Share of the step size that a step has at least; linf skips dead pixels. */
function wholeStep(norm: Norm): number {
  return norm === "linf" ? 0.5 : 0.99;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}

/** Name of the last layer's weight, and of its bias. */
function lastLayer(spec: ModelSpec): { weight: string; bias: string } {
  const [bias, weight] = [...modelParameters(spec).keys()].reverse();
  return weight.endsWith("bias")
    ? { weight: bias, bias: weight }
    : { weight, bias };
}

/**
 * Copies of the network in which a random image of the ball is adversarial: a
 * wrong class's logit gains along the line between the representations of the
 * clean image and of that one, which leaves the clean one's logits as they are.
 */
async function plant(
  network: Network,
  { images, labels }: Sample,
  { norm, epsilon, steps, seed = 0, isCorrect, onProgress, signal }:
    & SanityOptions
    & { readonly steps: number; readonly isCorrect: readonly boolean[] },
): Promise<{ planted: number; found: number }> {
  const { spec, parameters, options } = network;
  const random = new Random(seed);
  let planted = 0, found = 0;
  if (spec.classes < 2) return { planted, found };
  const order = [...random.stream("plant").permutation(labels.length)]
    .filter((i) => isCorrect[i]);
  for (const i of order.slice(0, 2 * PLANTS)) {
    if (planted === PLANTS) break;
    signal?.throwIfAborted();
    const image = rows(images, i, i + 1);
    const noise = startNoise(image.shape, norm, random.stream("plant", i));
    const hidden = shifted(image, noise, norm, epsilon);
    const pair = tensor(
      Float32Array.of(...image.data, ...hidden.data),
      [2, ...image.shape.slice(1)],
    );
    const { representation, logits } = await network.predict(pair);
    const changed = withPlant(spec, parameters, {
      clean: rows(representation, 0, 1).data,
      hidden: rows(representation, 1, 2).data,
      logits: logits.data,
      label: labels[i],
    });
    if (!changed) continue;
    const copy = new Network(spec, changed, options);
    try {
      const seen = predictions((await copy.predict(pair)).logits);
      // Rounding can undo a plant where the two representations are close.
      if (seen[0] !== labels[i] || seen[1] === labels[i]) continue;
      planted++;
      const result = await optimizeInput(copy, image, {
        norm,
        epsilon,
        steps,
        stepSize: 2.5 * epsilon / steps,
        objective: crossEntropyObjective([labels[i]], spec.classes),
        direction: "maximize",
        keep: "best",
      });
      const [label] = predictions((await copy.predict(result.images)).logits);
      if (label !== labels[i]) found++;
      onProgress?.("planted", planted, PLANTS);
    } finally {
      await copy.release();
    }
  }
  return { planted, found };
}

/** A random point of the ball's surface, inside [0, 1]. */
function shifted(
  image: Tensor,
  noise: Tensor,
  norm: Norm,
  epsilon: number,
): Tensor {
  const { data } = noise;
  const length = Math.sqrt(data.reduce((sum, x) => sum + x * x, 0));
  return tensor(
    image.data.map((x, k) => {
      const change = norm === "linf" ? Math.sign(data[k]) : data[k] / length;
      return Math.min(1, Math.max(0, x + epsilon * change));
    }),
    image.shape,
  );
}

/** Parameters with a plant; null if the representations are the same. */
function withPlant(
  spec: ModelSpec,
  parameters: NamedTensors,
  { clean, hidden, logits, label }: {
    readonly clean: Float32Array;
    readonly hidden: Float32Array;
    /** Of the clean image, then of the hidden one. */
    readonly logits: Float32Array;
    readonly label: number;
  },
): NamedTensors | null {
  const { classes } = spec;
  const difference = hidden.map((x, k) => x - clean[k]);
  const squares = difference.reduce((sum, x) => sum + x * x, 0);
  if (!(squares > 0)) return null;
  const before = logits.subarray(0, classes);
  const after = logits.subarray(classes);
  const target = [...before.keys()].filter((j) => j !== label)
    .reduce((a, b) => before[b] < before[a] ? b : a);
  const spread = Math.max(...before) - Math.min(...before);
  const gain = Math.max(...after) - after[target] + spread;
  const { weight, bias } = lastLayer(spec);
  const [rowsOfWeight, shift] = [weight, bias].map((name) => {
    const { data, shape } = parameters[name];
    return tensor((data as Float32Array).slice(), [...shape]);
  });
  let offset = 0;
  difference.forEach((x, k) => {
    const slope = gain * x / squares;
    rowsOfWeight.data[target * difference.length + k] += slope;
    offset += slope * clean[k];
  });
  shift.data[target] -= offset;
  return { ...parameters, [weight]: rowsOfWeight, [bias]: shift };
}
