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
  full,
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
import type { Program } from "../onnx/mod.ts";
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
 * @throws {RangeError} If a setting is out of range, or a label not a class
 * @throws {TypeError} If shapes do not fit
 */
export async function apgd(
  network: Network,
  images: Tensor,
  labels: ArrayLike<number>,
  options: ApgdSettings & AttackOptions,
): Promise<AttackResult> {
  checkImages(images);
  oneHot(labels, network.spec.classes); // Refuses labels without a class.
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

/** Options of `ascendEach()`. */
type AscentOptions = ApgdSettings & EachOptions & {
  /** Steps of one size and no momentum: PGD. */
  readonly plain?: Omit<PlainPgdSettings, keyof ApgdSettings>;
};

async function ascendEach(
  network: Network,
  source: AttackSource,
  options: AscentOptions,
): Promise<void> {
  if (source.count === 0) return;
  const ascent = await Ascent.create(network, source, options);
  await runSlots<Attacked>(ascent.size, source, {
    ...options,
    start: (slot, i) => ascent.start(slot, i),
    run: () => ascent.run(),
    advance: (slot, state) => ascent.advance(slot, state),
  });
}

/** Programs of the attack, and what they are fed: a row for each slot. */
class Ascent {
  readonly #source: AttackSource;
  readonly #options: AscentOptions;
  readonly #classes: number;
  /** Numbers of an image. */
  readonly #length: number;
  readonly #random: Random;
  readonly #step: Program;
  readonly #starter: Program;
  readonly #feeds: Readonly<Record<string, Tensor>>;
  readonly #out: ReturnType<Program["allocateOutputs"]>;
  /** Number of slots. */
  readonly size: number;

  private constructor(
    source: AttackSource,
    options: AscentOptions,
    classes: number,
    programs: { readonly step: Program; readonly starter: Program },
    shape: readonly number[],
  ) {
    const size = shape[0];
    const zeros = (shape: readonly number[]) => full(shape, 0);
    this.#source = source;
    this.#options = options;
    this.#classes = classes;
    this.#length = sizeOf(source.imageShape);
    this.#random = new Random(options.seed ?? 0);
    this.#step = programs.step;
    this.#starter = programs.starter;
    this.#feeds = {
      images: zeros(shape),
      previous: zeros(shape),
      center: zeros(shape),
      epsilon: scalar(options.epsilon),
      stepSize: zeros([size]),
      momentum: zeros([size]),
      labels: zeros([size, classes]),
      ...(options.loss === "targeted"
        ? { target: zeros([size, classes]) }
        : {}),
    };
    this.#out = programs.step.allocateOutputs();
    this.size = size;
  }

  static async create(
    network: Network,
    source: AttackSource,
    options: AscentOptions,
  ): Promise<Ascent> {
    const { spec } = network;
    const { norm, plain } = options;
    const { classes } = spec;
    const [size, shape] = batchShape(
      { shape: [source.count, ...source.imageShape] },
      options.batchSize ?? DEFAULT_BATCH_SIZE,
    );
    const isTargeted = options.loss === "targeted";
    const loss = isTargeted
      ? targetedLoss(classes)
      : crossEntropyObjective([0], classes).loss;
    const feeds = {
      labels: [size, classes],
      ...(isTargeted ? { target: [size, classes] } : {}),
    };
    const isPlain = plain !== undefined;
    const step = await network.program(
      `apgd ${lossId(loss)} ${norm} ${isPlain} ${shape}`,
      () => apgdStep(spec, shape, { norm, loss, feeds, isPlain }),
    );
    const one = [1, ...source.imageShape];
    const starter = await network.program(
      `start ${norm} ${one}`,
      () => ({ images: randomStart(one, norm) }),
    );
    return new Ascent(source, options, classes, { step, starter }, shape);
  }

  /** An image's part of a feed or output. */
  #row({ data }: Tensor, slot: number, width = this.#length): Float32Array {
    return data.subarray(slot * width, (slot + 1) * width);
  }

  /** Makes a slot's row of labels or targets. */
  #pick(feed: Tensor, slot: number, label: number): void {
    this.#row(feed, slot, this.#classes).fill(0)[label] = 1;
  }

  async start(slot: number, i: number): Promise<Attacked> {
    const { images, previous, center, stepSize, momentum, labels, target } =
      this.#feeds;
    const start = (await this.#source.load(i)).slice();
    const label = this.#source.label(i);
    this.#row(center, slot).set(start);
    this.#pick(labels, slot, label);
    const state: Attacked = {
      label,
      index: this.#source.index(i),
      start,
      best: start.slice(),
      targets: null,
      run: 0,
      step: 0,
      queries: 0,
      schedule: new StepSizeSchedule(0, 0),
      isRepeat: false,
    };
    if (!target) {
      await this.#begin(slot, state);
      return state;
    }
    // The clean image's logits tell the targets; its step goes nowhere.
    this.#row(images, slot).set(start);
    this.#row(previous, slot).set(start);
    stepSize.data[slot] = 0;
    momentum.data[slot] = 1;
    this.#pick(target, slot, label);
    return state;
  }

  /** Begins a run. */
  async #begin(slot: number, state: Attacked): Promise<void> {
    const { epsilon, steps, plain } = this.#options;
    const { images, previous, stepSize, momentum, target } = this.#feeds;
    const start = await this.#startOf(state);
    this.#row(images, slot).set(start);
    this.#row(previous, slot).set(start);
    const first = plain?.stepSize ?? 2 * epsilon;
    stepSize.data[slot] = first;
    // The first step has no move behind it.
    momentum.data[slot] = 1;
    if (target) this.#pick(target, slot, state.targets![state.run]);
    state.step = 0;
    state.isRepeat = false;
    state.schedule = new StepSizeSchedule(plain ? 0 : steps, first);
  }

  async #startOf({ start, run, index }: Attacked): Promise<Float32Array> {
    const { epsilon, norm, loss, plain } = this.#options;
    if (plain && !plain.randomStart) return start;
    const one = [1, ...this.#source.imageShape];
    const name = plain ? "pgd" : loss;
    const stream = this.#random.stream("start", name, run, index);
    const { images } = await this.#starter.run({
      center: tensor(start, one),
      noise: startNoise(one, norm, stream),
      epsilon: scalar(epsilon),
    });
    return images.data as Float32Array;
  }

  async run(): Promise<void> {
    await this.#step.run(this.#feeds, this.#out);
  }

  async advance(
    slot: number,
    state: Attacked,
  ): Promise<Omit<AttackedImage, "i"> | null> {
    const { steps, targets: most = 9, plain } = this.#options;
    const images = this.#row(this.#feeds.images, slot);
    const logits = this.#row(this.#out.logits as Tensor, slot, this.#classes);
    const { best } = state;
    const queries = ++state.queries;
    if (isMisclassified(logits, state.label)) {
      return { broken: true, pixels: images, queries };
    }
    if (this.#feeds.target && !state.targets) {
      state.targets = likeliest(logits, state.label).slice(0, most);
      // A single class: there is nothing to be taken for.
      if (state.targets.length === 0) {
        return { broken: false, pixels: best, queries };
      }
      await this.#begin(slot, state);
      return null;
    }
    if (!state.isRepeat) {
      const loss = (this.#out.losses as Tensor).data[slot];
      const { isBest, restart } = state.schedule.observe(state.step, loss);
      if (isBest) best.set(images);
      if (state.step === steps) {
        state.run++;
        const runs = state.targets?.length ?? plain?.restarts ?? 1;
        if (state.run >= runs) return { broken: false, pixels: best, queries };
        await this.#begin(slot, state);
        return null;
      }
      if (restart) {
        // From the best iterate its gradient is needed again.
        images.set(best);
        this.#feeds.stepSize.data[slot] = state.schedule.stepSize;
        state.isRepeat = true;
        return null;
      }
    }
    this.#move(slot, state);
    return null;
  }

  /** Goes on to the next iterate. */
  #move(slot: number, state: Attacked): void {
    const { images, previous, momentum } = this.#feeds;
    this.#row(previous, slot).set(this.#row(images, slot));
    this.#row(images, slot).set(this.#row(this.#out.next as Tensor, slot));
    momentum.data[slot] = this.#options.plain ? 1 : MOMENTUM;
    state.isRepeat = false;
    state.step++;
  }
}

/** Wrong classes of an image, the one of largest logit first. */
function likeliest(logits: Float32Array, label: number): number[] {
  return Array.from(logits, (_, j) => j)
    .filter((j) => j !== label)
    .sort((a, b) => logits[b] - logits[a]);
}
