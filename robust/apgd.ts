/**
 * Auto-PGD (Croce and Hein 2020, "Reliable evaluation of adversarial
 * robustness with an ensemble of diverse parameter-free attacks"): projected
 * gradient ascent with momentum, whose step size is halved for each image when
 * its loss stops growing.
 *
 * @module
 */
import {
  abs,
  add,
  div,
  equal,
  grad,
  input,
  max,
  mul,
  type Node,
  perImage,
  Random,
  sizeOf,
  sub,
  type Tensor,
  tensor,
  toFloat,
} from "../core/mod.ts";
import { buildModel, type ModelSpec } from "../models/mod.ts";
import { BALLS, type Norm } from "./ball.ts";
import { targetedLoss } from "./margin.ts";
import {
  batchShape,
  checkImages,
  DEFAULT_BATCH_SIZE,
  type Network,
} from "./network.ts";
import { crossEntropyObjective, type Objective, oneHot } from "./objectives.ts";
import {
  checkPgd,
  checkRestarts,
  lossId,
  type PgdSettings,
  randomStart,
  scalar,
  startNoise,
} from "./pgd.ts";
import {
  type AttackedImage,
  type AttackOptions,
  type AttackResult,
  type AttackSource,
  collector,
  isMisclassified,
  runSlots,
  sourceOf,
} from "./slots.ts";

/** Settings of Auto-PGD. */
export interface ApgdSettings {
  /** How perturbations are measured. */
  readonly norm: Exclude<Norm, "unconstrained">;
  /** Radius of the ball in [0, 1] pixel units. */
  readonly epsilon: number;
  /** Steps of each run (paper: 100). */
  readonly steps: number;
  /**
   * What each run maximises. "targeted": one run for each of the likeliest
   * wrong classes on the targeted DLR loss or, below 4 classes, which that
   * cannot rank, on its numerator, the margin.
   */
  readonly loss: "cross-entropy" | "targeted";
  /** Runs of "targeted" at most (paper: 9); never more than wrong classes. */
  readonly targets?: number;
}

/** Share of improving steps below which the step size is halved. */
const RHO = 0.75;

/** Weight of the gradient step beside that of the last move. */
const MOMENTUM = 0.75;

/**
 * Steps after which the step size is reviewed: 22% of all, then ever sooner,
 * at least 6% apart (paper, Section 3.1).
 *
 * @param steps Number of steps
 * @returns Increasing step numbers, each from 1 to `steps`
 */
export function checkpointsOf(steps: number): number[] {
  const at = new Set<number>();
  // In hundredths: sums of fractions would be rounded up beyond their step.
  for (let before = 0, now = 22; now <= 100;) {
    at.add(Math.ceil(now * steps / 100));
    const ahead = now + Math.max(now - before - 3, 6);
    [before, now] = [now, ahead];
  }
  return [...at].filter((step) => step >= 1);
}

/** Decides on the step size of one image from its losses (paper, Section 3). */
export class StepSizeSchedule {
  /** Length of the next step. */
  stepSize: number;
  /** Largest loss so far. */
  best = -Infinity;
  readonly #checkpoints: ReadonlySet<number>;
  #last = -Infinity;
  #improved = 0;
  #since = 0;
  #bestBefore = -Infinity;
  #halvedBefore = true;

  /**
   * @param steps Number of steps of the run
   * @param stepSize Length of the first step (paper: 2 epsilon)
   */
  constructor(steps: number, stepSize: number) {
    this.#checkpoints = new Set(checkpointsOf(steps));
    this.stepSize = stepSize;
  }

  /**
   * Takes in the loss of an iterate.
   *
   * @param step Steps taken to it, from 0
   * @param loss Its loss
   * @returns Whether it is the best so far, and whether to go on from the best
   * with a step size that was just halved
   */
  observe(step: number, loss: number): { isBest: boolean; restart: boolean } {
    const isBest = loss > this.best || step === 0;
    if (isBest) this.best = loss;
    if (step === 0) {
      this.#bestBefore = loss;
    } else if (loss > this.#last) {
      this.#improved++;
    }
    this.#last = loss;
    if (!this.#checkpoints.has(step)) return { isBest, restart: false };
    const isSlow = this.#improved < RHO * (step - this.#since);
    const isStuck = !this.#halvedBefore && this.best === this.#bestBefore;
    const restart = isSlow || isStuck;
    if (restart) {
      this.stepSize /= 2;
      this.#last = this.best;
    }
    this.#halvedBefore = restart;
    this.#bestBefore = this.best;
    this.#improved = 0;
    this.#since = step;
    return { isBest, restart };
  }
}

/** A gradient whose largest element is 1: its square must not vanish. */
function unitScaled(g: Node): Node {
  const largest = max(abs(g), g.shape.slice(1).map((_, i) => i + 1));
  const divisor = add(largest, toFloat(equal(largest, 0)));
  return div(g, perImage(divisor, g));
}

/**
 * One step of Auto-PGD as nodes (paper, Algorithm 1, lines 7 and 8).
 *
 * @param spec Network
 * @param shape Shape of the images, `[n, 3, h, w]`
 * @param options Norm, loss and shapes of its feeds
 * @returns `next` images, and `losses` `[n]` and `logits` of the images before
 * the step; inputs are `images`, `previous` images, `center`, scalar `epsilon`,
 * `stepSize` and `momentum` of each image `[n]`, and the feeds
 */
export function apgdStep(
  spec: ModelSpec,
  shape: readonly number[],
  { norm, loss, feeds, isPlain = false }: {
    readonly norm: Norm;
    readonly loss: Objective["loss"];
    readonly feeds: Readonly<Record<string, readonly number[]>>;
    /** Takes the gradient as it is, as PGD does. */
    readonly isPlain?: boolean;
  },
): { next: Node; losses: Node; logits: Node } {
  const x = input("images", shape);
  const previous = input("previous", shape);
  const center = input("center", shape);
  const epsilon = input("epsilon", []);
  const stepSize = input("stepSize", [shape[0]]);
  const momentum = perImage(input("momentum", [shape[0]]), x);
  const model = buildModel(spec, x);
  const losses = loss(
    model,
    Object.fromEntries(
      Object.entries(feeds).map(([name, size]) => [name, input(name, size)]),
    ),
  );
  const [g] = grad(losses, [x]);
  const ball = BALLS[norm];
  const stepped = ball.project(
    ball.step(x, isPlain ? g : unitScaled(g), stepSize),
    center,
    epsilon,
  );
  const moved = add(
    x,
    add(
      mul(sub(stepped, x), momentum),
      mul(sub(x, previous), sub(1, momentum)),
    ),
  );
  const next = ball.project(moved, center, epsilon);
  return { next, losses, logits: model.logits };
}

/** @throws {RangeError} If a setting is out of range */
export function checkApgd(settings: ApgdSettings): void {
  const { steps, targets = 1 } = settings;
  checkPgd({ ...settings, stepSize: 0 });
  if ((settings.norm as Norm) === "unconstrained") {
    throw new RangeError(`Cannot run Auto-PGD without a ball: pass l2 or linf`);
  }
  for (const [name, value] of Object.entries({ steps, targets })) {
    if (!(Number.isInteger(value) && value >= 1)) {
      throw new RangeError(
        `Cannot run Auto-PGD as ${name} must be an integer >= 1: current ` +
          `value is ${value}`,
      );
    }
  }
}

/**
 * Attacks classified images by Auto-PGD, each until it is misclassified or its
 * runs are over.
 *
 * @param network Network to attack
 * @param images `[n, 3, h, w]` in [0, 1]
 * @param labels Label of each, `[n]`
 * @param options Settings, and how the attack runs
 * @throws {RangeError} If a setting is out of range
 * @throws {TypeError} If shapes do not fit
 */
export async function apgd(
  network: Network,
  images: Tensor,
  labels: ArrayLike<number>,
  options: ApgdSettings & AttackOptions,
): Promise<AttackResult> {
  checkImages(images);
  const { onDone, result } = collector(images);
  await apgdEach(network, sourceOf(images, labels), { ...options, onDone });
  return result;
}

/** An image under attack. */
interface Attacked {
  readonly label: number;
  readonly index: number;
  readonly start: Float32Array;
  readonly best: Float32Array;
  /** Classes to run against, likeliest first; set by the first outcome. */
  targets: readonly number[] | null;
  /** Runs begun before this one. */
  run: number;
  /** Steps taken in this run. */
  step: number;
  queries: number;
  schedule: StepSizeSchedule;
  /** Goes on from the best: its outcome is known. */
  isRepeat: boolean;
}

/** What `apgdEach()` and `pgdEach()` take besides their settings. */
type EachOptions = AttackOptions & {
  readonly onDone: (image: AttackedImage) => void;
};

/** `apgd()` for any number of images; each is reported once. */
export async function apgdEach(
  network: Network,
  source: AttackSource,
  options: ApgdSettings & EachOptions,
): Promise<void> {
  checkApgd(options);
  await ascendEach(network, source, options);
}

/** Settings of `pgdEach()`. */
export interface PlainPgdSettings extends PgdSettings {
  /** How perturbations are measured. */
  readonly norm: Exclude<Norm, "unconstrained">;
  /** Start at a random point of the ball. */
  readonly randomStart: boolean;
  /** Runs per image. */
  readonly restarts: number;
}

/**
 * PGD on the cross-entropy for any number of images, each until an iterate is
 * misclassified: no run is spent on images that are broken. With 0 steps and a
 * random start it is noise.
 */
export async function pgdEach(
  network: Network,
  source: AttackSource,
  options: PlainPgdSettings & EachOptions,
): Promise<void> {
  checkPgd(options);
  checkRestarts(options.restarts, options.randomStart);
  const { stepSize, randomStart, restarts } = options;
  await ascendEach(network, source, {
    ...options,
    loss: "cross-entropy",
    plain: { stepSize, randomStart, restarts },
  });
}

async function ascendEach(
  network: Network,
  source: AttackSource,
  options: ApgdSettings & EachOptions & {
    /** Steps of one size and no momentum: PGD. */
    readonly plain?: Omit<PlainPgdSettings, keyof ApgdSettings>;
  },
): Promise<void> {
  const { norm, epsilon, steps, seed = 0, plain } = options;
  const { targets: most = 9 } = options;
  const { classes } = network.spec;
  const isTargeted = options.loss === "targeted";
  if (source.count === 0) return;
  const [size, shape] = batchShape(
    { shape: [source.count, ...source.imageShape] },
    options.batchSize ?? DEFAULT_BATCH_SIZE,
  );
  const length = sizeOf(source.imageShape);
  const loss = isTargeted
    ? targetedLoss(classes)
    : crossEntropyObjective([0], classes).loss;
  const rowShape = [size, classes];
  const feedShapes: Record<string, readonly number[]> = {
    labels: rowShape,
    ...(isTargeted ? { target: rowShape } : {}),
  };
  const step = await network.program(
    `apgd ${lossId(loss)} ${norm} ${!plain} ${shape}`,
    () =>
      apgdStep(network.spec, shape, {
        norm,
        loss,
        feeds: feedShapes,
        isPlain: plain !== undefined,
      }),
  );
  const one = [1, ...source.imageShape];
  const starter = await network.program(
    `start ${norm} ${one}`,
    () => ({ images: randomStart(one, norm) }),
  );
  const values = {
    images: tensor(new Float32Array(size * length), shape),
    previous: tensor(new Float32Array(size * length), shape),
    center: tensor(new Float32Array(size * length), shape),
    epsilon: scalar(epsilon),
    stepSize: tensor(new Float32Array(size), [size]),
    momentum: tensor(new Float32Array(size), [size]),
    labels: oneHot(new Array(size).fill(0), classes),
    ...(isTargeted ? { target: oneHot(new Array(size).fill(0), classes) } : {}),
  };
  const out = step.allocateOutputs();
  const row = ({ data }: Tensor, slot: number, width: number) =>
    data.subarray(slot * width, (slot + 1) * width);
  const pick = (feed: Tensor, slot: number, label: number) => {
    row(feed, slot, classes).fill(0)[label] = 1;
  };
  const random = new Random(seed);

  const startOf = async ({ start, run, index }: Attacked) => {
    if (plain && !plain.randomStart) return start;
    const name = plain ? "pgd" : options.loss;
    const { images } = await starter.run({
      center: tensor(start, one),
      noise: startNoise(one, norm, random.stream("start", name, run, index)),
      epsilon: scalar(epsilon),
    });
    return images.data as Float32Array;
  };
  const begin = async (slot: number, state: Attacked) => {
    const images = await startOf(state);
    row(values.images, slot, length).set(images);
    row(values.previous, slot, length).set(images);
    const stepSize = plain?.stepSize ?? 2 * epsilon;
    values.stepSize.data[slot] = stepSize;
    // The first step has no move behind it.
    values.momentum.data[slot] = 1;
    state.step = 0;
    state.isRepeat = false;
    state.schedule = new StepSizeSchedule(plain ? 0 : steps, stepSize);
    if (values.target) pick(values.target, slot, state.targets![state.run]);
  };

  await runSlots<Attacked>(size, source, {
    ...options,
    async start(slot, i) {
      const start = (await source.load(i)).slice();
      const label = source.label(i);
      row(values.center, slot, length).set(start);
      pick(values.labels, slot, label);
      const state: Attacked = {
        label,
        index: source.index(i),
        start,
        best: start.slice(),
        targets: null,
        run: 0,
        step: 0,
        queries: 0,
        schedule: new StepSizeSchedule(steps, 0),
        isRepeat: false,
      };
      if (isTargeted) {
        // The clean image's logits tell the targets; its step goes nowhere.
        row(values.images, slot, length).set(start);
        row(values.previous, slot, length).set(start);
        values.stepSize.data[slot] = 0;
        values.momentum.data[slot] = 1;
        pick(values.target!, slot, label);
      } else {
        await begin(slot, state);
      }
      return state;
    },
    async run() {
      await step.run(values, out);
    },
    async advance(slot, state) {
      const images = row(values.images, slot, length);
      const logits = row(out.logits as Tensor, slot, classes);
      const ended = (broken: boolean) => ({
        broken,
        pixels: broken ? images : state.best,
        queries: state.queries,
      });
      state.queries++;
      if (isMisclassified(logits, state.label)) return ended(true);
      if (isTargeted && !state.targets) {
        state.targets = likeliest(logits, state.label).slice(0, most);
        if (state.targets.length === 0) return ended(false);
        await begin(slot, state);
        return null;
      }
      if (!state.isRepeat) {
        const value = (out.losses as Tensor).data[slot];
        const { isBest, restart } = state.schedule.observe(state.step, value);
        if (isBest) state.best.set(images);
        if (state.step === steps) {
          state.run++;
          const runs = state.targets?.length ?? plain?.restarts ?? 1;
          if (state.run >= runs) return ended(false);
          await begin(slot, state);
          return null;
        }
        if (restart) {
          // From the best iterate its gradient is needed again.
          images.set(state.best);
          values.stepSize.data[slot] = state.schedule.stepSize;
          state.isRepeat = true;
          return null;
        }
      }
      state.isRepeat = false;
      row(values.previous, slot, length).set(images);
      images.set(row(out.next as Tensor, slot, length));
      values.momentum.data[slot] = plain ? 1 : MOMENTUM;
      state.step++;
      return null;
    },
  });
}

/** Wrong classes of an image, the one of largest logit first. */
function likeliest(logits: Float32Array, label: number): number[] {
  return Array.from(logits, (_, j) => j)
    .filter((j) => j !== label)
    .sort((a, b) => logits[b] - logits[a]);
}
