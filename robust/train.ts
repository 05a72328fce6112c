/**
 * Adversarial training (paper, eq. 3); epsilon 0 is standard training (eq. 2).
 *
 * One run of ONNX Runtime is one step of the attack or one whole step of SGD:
 * gradient, momentum, weight decay and BatchNorm statistics are one graph.
 *
 * @module
 */
import {
  add,
  type AnyTensor,
  crossEntropy,
  equal,
  full,
  grad,
  input,
  max,
  mean,
  mul,
  type NamedTensors,
  type Node,
  Random,
  sum,
  type Tensor,
  toFloat,
} from "../core/mod.ts";
import { batches, type Split } from "../datasets/mod.ts";
import {
  buildModel,
  initializeModel,
  modelParameters,
  type ModelSpec,
} from "../models/mod.ts";
import {
  allocateOverlaid,
  compile,
  compileStages,
  type Program,
  type Stages,
} from "../onnx/mod.ts";
import type { Norm } from "./ball.ts";
import { Network, type RunOptions } from "./network.ts";
import { crossEntropyObjective, oneHot } from "./objectives.ts";
import {
  checkPgd,
  iterate,
  type PgdSettings,
  pgdStep,
  randomStart,
  scalar,
  startNoise,
} from "./pgd.ts";
import { learningRateAt, type Schedule, warmupAt } from "./schedule.ts";
import { sgd } from "./sgd.ts";

/** The attack that training defends against. */
export interface TrainingAttack extends PgdSettings {
  /** How perturbations are measured. */
  readonly norm: Exclude<Norm, "unconstrained">;
  /** Start at a random point of the ball (paper: yes; reference code: no). */
  readonly randomStart: boolean;
}

/** Settings of training: everything that its result depends on. */
export interface TrainSettings {
  /** Which network. */
  readonly spec: ModelSpec;
  /** Null trains on clean images. */
  readonly attack: TrainingAttack | null;
  /** Passes over the data. */
  readonly epochs: number;
  /** Images per step; what does not fill a batch is left out. */
  readonly batchSize: number;
  /** Largest learning rate. */
  readonly learningRate: number;
  /** How the learning rate changes. */
  readonly schedule: Schedule;
  /** Fraction of the previous velocity that is kept. */
  readonly momentum: number;
  /** L2 penalty on all parameters. */
  readonly weightDecay: number;
  /** Epochs over which epsilon grows to its value (0: none). */
  readonly epsilonWarmup: number;
  /** Decay of the moving average of the parameters per step (0: none). */
  readonly ema: number;
  /** Of images: see `batches()`. */
  readonly augmentation: "none" | "standard" | "reference" | "crop";
  /** Of initial weights, order, augmentation and random starts. */
  readonly seed: number;
}

/** What one epoch of training came to. */
export interface EpochRecord {
  /** Epochs done, from 1. */
  readonly epoch: number;
  /** Mean loss over the epoch's (attacked) training images. */
  readonly loss: number;
  /** Fraction of them classified correctly, 0 to 1. */
  readonly accuracy: number;
  /** Learning rate of the last step. */
  readonly learningRate: number;
  /** Measured after the epoch by `onEpoch`. */
  readonly metrics?: Readonly<Record<string, number>>;
  /** Time spent training, in seconds. */
  readonly seconds: number;
}

/** Everything that resuming needs: with it, training ends in the same bits. */
export interface TrainState {
  /** Weights and running statistics by torchvision's names. */
  readonly parameters: NamedTensors;
  /** Velocity of each trainable parameter. */
  readonly velocity: NamedTensors;
  /** Moving average of the parameters; empty without it. */
  readonly average: NamedTensors;
  /** Epochs done. */
  readonly epoch: number;
  /** Steps done of the epoch under way. */
  readonly step: number;
  /** Sums over those steps. */
  readonly sums: {
    /** Of the batches' mean losses times their sizes. */
    readonly loss: number;
    /** Images classified correctly. */
    readonly correct: number;
    /** Images seen. */
    readonly images: number;
    /** Time spent training. */
    readonly seconds: number;
  };
  /** Epochs done, oldest first. */
  readonly history: readonly EpochRecord[];
}

/** What `onStep` receives. */
export interface TrainStep {
  /** Epochs done before this one. */
  readonly epoch: number;
  /** Steps done of the epoch. */
  readonly step: number;
  /** Steps that an epoch has. */
  readonly stepsPerEpoch: number;
  /** Mean loss of the batch. */
  readonly loss: number;
  /** Fraction of the batch classified correctly. */
  readonly accuracy: number;
}

/** Options of `train()`. */
export interface TrainOptions extends RunOptions {
  /** Continue from here. */
  readonly state?: TrainState;
  /** Receives progress after every step. */
  readonly onStep?: (step: TrainStep) => void;
  /**
   * Called after each epoch with the network as it is; what it resolves to is
   * stored as the epoch's metrics.
   */
  readonly onEpoch?: (
    network: Network,
    record: EpochRecord,
  ) => Promise<Readonly<Record<string, number>>>;
  /**
   * Called after each epoch, at most every `checkpointSeconds`, and when
   * stopped: saves the state. Its tensors are those that training goes on
   * with: copy what is to outlive the promise.
   */
  readonly onCheckpoint?: (state: TrainState) => Promise<void>;
  /** As that of `batches()`, in each epoch. */
  readonly onWarning?: (message: string) => void;
  /** Least seconds between two saves (default 60). */
  readonly checkpointSeconds?: number;
  /** Stops after the step under way, saves, and rejects with its reason. */
  readonly signal?: AbortSignal;
}

/**
 * Checks settings before anything is built from them.
 *
 * @throws {RangeError} If a setting is out of range
 */
export function checkTrainSettings(settings: TrainSettings): void {
  const { attack, epochs, batchSize } = settings;
  if (attack) checkPgd(attack);
  for (const [name, value] of Object.entries({ epochs, batchSize })) {
    if (!(Number.isInteger(value) && value >= 1)) {
      throw new RangeError(
        `Cannot train as ${name} must be an integer >= 1: current value is ` +
          value,
      );
    }
  }
  const { learningRate, momentum, weightDecay, ema, epsilonWarmup } = settings;
  const limits = { learningRate, momentum, weightDecay, ema, epsilonWarmup };
  for (const [name, value] of Object.entries(limits)) {
    const most = name === "momentum" || name === "ema" ? 1 : Infinity;
    if (!(value >= 0 && value < most)) {
      throw new RangeError(
        `Cannot train as ${name} must be >= 0 and < ${most}: current value ` +
          `is ${value}`,
      );
    }
  }
}

const NO_SUMS = { loss: 0, correct: 0, images: 0, seconds: 0 } as const;

/**
 * State before the first step.
 *
 * @throws {RangeError} If the architecture is unknown or a size is not >= 1
 */
export function initialState(settings: TrainSettings): TrainState {
  const { spec, seed, ema } = settings;
  const parameters = initializeModel(spec, new Random(seed));
  const trainable = [...modelParameters(spec)].filter(([, p]) => p.trainable);
  return {
    parameters,
    velocity: Object.fromEntries(
      trainable.map(([name, { node }]) => [name, full(node.shape, 0)]),
    ),
    average: ema > 0 ? parameters : {},
    epoch: 0,
    step: 0,
    sums: NO_SUMS,
    history: [],
  };
}

/** The network that a state stands for: the average where there is one. */
export function stateParameters(
  state: Pick<TrainState, "parameters" | "average">,
): NamedTensors {
  return Object.keys(state.average).length > 0
    ? state.average
    : state.parameters;
}

/**
 * Trains a network.
 *
 * The same settings, data, provider and number of threads give the same bits,
 * however often training is stopped and resumed.
 *
 * @param settings What is trained, and how
 * @param split Training images
 * @param options Where it runs, what it reports and where it continues
 * @returns The last state
 * @throws {RangeError} If a setting is out of range, the images do not fill a
 * batch, or the loss is no longer a number
 */
export async function train(
  settings: TrainSettings,
  split: Split,
  options: TrainOptions = {},
): Promise<TrainState> {
  checkTrainSettings(settings);
  const { batchSize, epochs } = settings;
  const stepsPerEpoch = Math.floor(split.size / batchSize);
  if (stepsPerEpoch < 1) {
    throw new RangeError(
      `Cannot train on ${split.size} images in batches of ${batchSize}: ` +
        `lower the batch size`,
    );
  }
  const { signal, checkpointSeconds = 60 } = options;
  const random = new Random(settings.seed);
  const shape = [batchSize, ...split.imageShape];
  const { trainer, history, ...position } = await begin(
    settings,
    shape,
    options,
  );
  let { epoch, step, sums } = position;
  const snapshot = (): TrainState => ({
    ...trainer.state(),
    epoch,
    step,
    sums,
    history: [...history],
  });
  let saved = performance.now();
  const save = async () => {
    const state = snapshot();
    // The loss shows a diverged step only one step later: look before saving.
    if (!isFinite(state.parameters)) throw diverged("weights", epoch, step);
    await options.onCheckpoint?.(state);
    saved = performance.now();
  };
  try {
    while (epoch < epochs) {
      const learningRateOf = (step: number) =>
        learningRateAt(
          settings.schedule,
          settings.learningRate,
          // The middle of the step: at 0 a cyclic schedule would not move.
          epoch + step / stepsPerEpoch + 0.5 / stepsPerEpoch,
          epochs,
        );
      const stream = batches(split, {
        batchSize,
        order: "shuffled",
        augmentation: settings.augmentation,
        random: random.stream("batches"),
        epoch,
        start: step,
        dropLast: true,
        onWarning: options.onWarning,
      });
      for await (const { images, labels } of stream) {
        const started = performance.now();
        const position = epoch + step / stepsPerEpoch;
        const result = await trainer.step(images, labels, {
          learningRate: learningRateOf(step),
          warmup: warmupAt(position, settings.epsilonWarmup),
          random: random.stream("attack", epoch, step),
        });
        if (!Number.isFinite(result.loss)) {
          throw diverged(`loss (${result.loss})`, epoch, step + 1);
        }
        step++;
        sums = {
          loss: sums.loss + result.loss * batchSize,
          correct: sums.correct + result.correct,
          images: sums.images + batchSize,
          seconds: sums.seconds + (performance.now() - started) / 1000,
        };
        options.onStep?.({
          epoch,
          step,
          stepsPerEpoch,
          loss: result.loss,
          accuracy: result.correct / batchSize,
        });
        const isDue = performance.now() - saved > checkpointSeconds * 1000;
        if (signal?.aborted || (isDue && step < stepsPerEpoch)) await save();
        signal?.throwIfAborted();
      }
      const record: EpochRecord = {
        epoch: epoch + 1,
        loss: sums.loss / sums.images,
        accuracy: sums.correct / sums.images,
        learningRate: learningRateOf(stepsPerEpoch - 1),
        seconds: sums.seconds,
      };
      history.push(await measured(record, trainer, settings, options));
      epoch++;
      step = 0;
      sums = NO_SUMS;
      await save();
      signal?.throwIfAborted();
    }
    return snapshot();
  } finally {
    await trainer.release();
  }
}

/**
 * Moves a state into a trainer. In a function of its own, so that a state made
 * here does not take up memory during training.
 */
async function begin(
  settings: TrainSettings,
  shape: readonly number[],
  options: TrainOptions,
) {
  const state = options.state ?? initialState(settings);
  const trainer = await Trainer.create(settings, shape, state, options);
  const { epoch, step, sums } = state;
  return { trainer, epoch, step, sums, history: [...state.history] };
}

function isFinite(tensors: NamedTensors): boolean {
  return Object.values(tensors).every(({ data }) =>
    (data as Float32Array).every(Number.isFinite)
  );
}

function diverged(what: string, epoch: number, step: number): RangeError {
  return new RangeError(
    `Cannot go on training as the ${what} at step ${step} of epoch ` +
      `${epoch + 1} is not a finite number: lower the learning rate`,
  );
}

/** Adds what the caller measures after an epoch. */
async function measured(
  record: EpochRecord,
  trainer: Trainer,
  { spec }: TrainSettings,
  { onEpoch, provider, threads }: TrainOptions,
): Promise<EpochRecord> {
  if (!onEpoch) return record;
  const weights = stateParameters(trainer.state());
  const network = new Network(spec, weights, { provider, threads });
  try {
    return { ...record, metrics: await onEpoch(network, record) };
  } finally {
    await network.release();
  }
}

/** Prefixes of names in the graph: velocities, averages, and what comes out. */
const VELOCITY = "velocity:";
const AVERAGE = "average:";
const NEXT = "next:";

/**
 * One step of SGD on a batch as nodes. Inputs: `images`, one-hot `labels`,
 * `learningRate`, parameters by name, and with a prefix velocities and
 * averages. Outputs: `loss` (mean), `correct` (count), and the next value of
 * each of those, prefixed by `next:`.
 *
 * @param shape Shape of the images, `[n, 3, h, w]`
 */
export function trainingStep(
  settings: Pick<TrainSettings, "spec" | "momentum" | "weightDecay" | "ema">,
  shape: readonly number[],
): Record<string, Node> {
  const { spec, ema } = settings;
  const images = input("images", shape);
  const labels = input("labels", [shape[0], spec.classes]);
  const learningRate = input("learningRate", []);
  const model = buildModel(spec, images, { training: true });
  const loss = mean(crossEntropy(model.logits, labels));
  // From comparisons of floats: the WebGPU provider cannot cast ArgMax's.
  const labelled = sum(mul(model.logits, labels), [1]);
  const hits = equal(labelled, max(model.logits, [1]));
  const trainable = [...model.parameters].filter(([, p]) => p.trainable);
  const gradients = grad(loss, trainable.map(([, { node }]) => node));
  const outputs: Record<string, Node> = { loss, correct: sum(toFloat(hits)) };
  trainable.forEach(([name, { node }], i) => {
    const velocity = input(VELOCITY + name, node.shape);
    const next = sgd(node, gradients[i], velocity, learningRate, settings);
    outputs[NEXT + name] = next.parameter;
    outputs[NEXT + VELOCITY + name] = next.velocity;
  });
  for (const [name, node] of model.updates) outputs[NEXT + name] = node;
  if (ema > 0) {
    for (const [name, { node }] of model.parameters) {
      const average = input(AVERAGE + name, node.shape);
      outputs[NEXT + AVERAGE + name] = add(
        mul(average, ema),
        mul(outputs[NEXT + name], 1 - ema),
      );
    }
  }
  return outputs;
}

interface StepOptions {
  readonly learningRate: number;
  /** Fraction of epsilon and step size. */
  readonly warmup: number;
  /** For the random start. */
  readonly random: Random;
}

/** Memory for one set of parameters. */
interface Slot {
  /** Parameters, velocities and averages by the graph's names. */
  readonly values: Record<string, AnyTensor>;
  /**
   * What an attack needs of the parameters: in the same memory, as a slot
   * holds this only while it waits for the values of the next step.
   */
  readonly prepared: Record<string, AnyTensor>;
}

/** Programs and parameters of a training run. */
class Trainer {
  readonly #settings: TrainSettings;
  readonly #update: Program;
  readonly #attack: Stages | null;
  readonly #start: Program | null;
  /** Parameters as they are, and where the next step writes them. */
  #slots: readonly [current: Slot, next: Slot];

  private constructor(
    settings: TrainSettings,
    programs: readonly [Program, Stages | null, Program | null],
    state: TrainState,
  ) {
    this.#settings = settings;
    [this.#update, this.#attack, this.#start] = programs;
    const makeSlot = (): Slot => {
      const next = this.#update.outputs.filter(({ name }) =>
        name.startsWith(NEXT)
      );
      const prepared = this.#attack?.prepare.outputs ?? [];
      const groups = allocateOverlaid(next, prepared);
      const withoutNext = (name: string) => name.slice(NEXT.length);
      return { values: renamed(groups[0], withoutNext), prepared: groups[1] };
    };
    this.#slots = [makeSlot(), makeSlot()];
    const values = {
      ...state.parameters,
      ...renamed(state.velocity, (name) => VELOCITY + name),
      ...renamed(state.average, (name) => AVERAGE + name),
    };
    for (const [name, tensor] of Object.entries(this.#slots[0].values)) {
      (tensor as Tensor).data.set((values[name] as Tensor).data);
    }
  }

  static async create(
    settings: TrainSettings,
    shape: readonly number[],
    state: TrainState,
    { provider, threads }: RunOptions,
  ): Promise<Trainer> {
    const options = { provider, threads };
    const { attack, spec } = settings;
    const update = await compile(trainingStep(settings, shape), options);
    if (!attack) return new Trainer(settings, [update, null, null], state);
    const objective = crossEntropyObjective([], spec.classes);
    const { next, losses } = pgdStep(spec, shape, {
      norm: attack.norm,
      loss: objective.loss,
      feeds: { labels: [shape[0], spec.classes] },
      fakeRelu: false,
    });
    // The same parameters serve all steps of an attack.
    const stages = await compileStages({ next, losses }, options);
    const start = attack.randomStart
      ? await compile({ images: randomStart(shape, attack.norm) }, options)
      : null;
    return new Trainer(settings, [update, stages, start], state);
  }

  /** Attacks a batch and takes one step of SGD on it. */
  async step(
    images: Tensor,
    labelIndices: ArrayLike<number>,
    options: StepOptions,
  ): Promise<{ loss: number; correct: number }> {
    const labels = oneHot(labelIndices, this.#settings.spec.classes);
    const attacked = await this.#perturb(images, labels, options);
    const [current, next] = this.#slots;
    const { loss, correct } = await this.#update.run({
      ...current.values,
      images: attacked,
      labels,
      learningRate: scalar(options.learningRate),
    }, renamed(next.values, (name) => NEXT + name));
    this.#slots = [next, current];
    return {
      loss: (loss as Tensor).data[0],
      correct: (correct as Tensor).data[0],
    };
  }

  async #perturb(
    images: Tensor,
    labels: Tensor,
    { warmup, random }: StepOptions,
  ): Promise<Tensor> {
    const { attack } = this.#settings;
    if (!attack) return images;
    const epsilon = scalar(attack.epsilon * warmup);
    let start = images;
    if (this.#start) {
      const noise = startNoise(images.shape, attack.norm, random);
      const feeds = { center: images, noise, epsilon };
      start = (await this.#start.run(feeds)).images as Tensor;
    }
    const { prepare, step } = this.#attack!;
    const [{ values }, { prepared }] = this.#slots;
    const feeds = {
      ...values,
      ...await prepare.run(values, prepared),
      images: start,
      center: images,
      labels,
      epsilon,
      stepSize: scalar(attack.stepSize * warmup),
    };
    return await iterate(step, feeds, attack.steps);
  }

  /** Parameters, velocities and averages: valid until the next step. */
  state(): Pick<TrainState, "parameters" | "velocity" | "average"> {
    const [{ values }] = this.#slots;
    const part = (prefix: string): NamedTensors =>
      Object.fromEntries(
        Object.entries(values)
          .filter(([name]) =>
            prefix ? name.startsWith(prefix) : !name.includes(":")
          )
          .map(([name, value]) => [name.slice(prefix.length), value]),
      );
    return {
      parameters: part(""),
      velocity: part(VELOCITY),
      average: part(AVERAGE),
    };
  }

  async release(): Promise<void> {
    await this.#update.release();
    await this.#attack?.prepare.release();
    await this.#attack?.step.release();
    await this.#start?.release();
  }
}

function renamed(
  tensors: NamedTensors,
  rename: (name: string) => string,
): Record<string, AnyTensor> {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, value]) => [rename(name), value]),
  );
}
