/**
 * Adversarial training (paper, eq. 3); epsilon 0 is standard training (eq. 2).
 *
 * One run of ONNX Runtime is one step of the attack or one whole step of SGD:
 * gradient, momentum, weight decay and BatchNorm statistics are one graph. On
 * several ranks the gradients leave it to be averaged before the update.
 *
 * @module
 */
import { full, type NamedTensors, Random } from "../core/mod.ts";
import { batches, type Split } from "../datasets/mod.ts";
import {
  broadcastJson,
  type Communicator,
  gatherJson,
} from "../distributed/mod.ts";
import {
  initializeModel,
  modelParameters,
  type ModelSpec,
  sha256,
} from "../models/mod.ts";
import { freeTensor, hasOwnMemory } from "../onnx/mod.ts";
import type { Norm } from "./ball.ts";
import { Network, type RunOptions } from "./network.ts";
import { checkPgd, type PgdSettings } from "./pgd.ts";
import {
  attackStepsAt,
  learningRateAt,
  type LearningRateWarmup,
  learningRateWarmupAt,
  type Schedule,
  warmupAt,
} from "./schedule.ts";
import { DeviceTrainer } from "./device_trainer.ts";
import { SplitTrainer } from "./split_trainer.ts";
import { type StepOptions, type StepTaker, Trainer } from "./trainer.ts";

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
  /**
   * Images per step, of all ranks together; what does not fill a batch is left
   * out.
   */
  readonly batchSize: number;
  /**
   * Images that BatchNorm sees at a time (left out: all that a rank has of a
   * batch). The gradient is the mean over such ghost batches, and the running
   * statistics move by the first one: what as many ranks as there are ghost
   * batches compute (Hoffer et al. 2017; PyTorch's DistributedDataParallel).
   */
  readonly ghostBatch?: number;
  /** Largest learning rate. */
  readonly learningRate: number;
  /** A start at a lower learning rate (left out: none). */
  readonly learningRateWarmup?: LearningRateWarmup;
  /** How the learning rate changes. */
  readonly schedule: Schedule;
  /** Fraction of the previous velocity that is kept. */
  readonly momentum: number;
  /** L2 penalty on all parameters. */
  readonly weightDecay: number;
  /** Epochs over which epsilon grows to its value (0: none). */
  readonly epsilonWarmup: number;
  /** Epochs over which the attack's steps grow from 1 (left out: none). */
  readonly attackStepsWarmup?: number;
  /**
   * Steps of the attack, more than it has, after an epoch whose metrics have
   * `overfitting` 1 (left out: no change); together they reach as far as before.
   * Several steps are known to undo catastrophic overfitting to a single one (Li
   * et al. 2020, "Towards understanding fast adversarial training").
   */
  readonly guardSteps?: number;
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
  /** Seconds until the gradients of all ranks were there; 0 on one rank. */
  readonly reduceSeconds: number;
}

/** Options of `train()`. */
export interface TrainOptions extends RunOptions {
  /**
   * Ranks that train together, each of which calls `train()` with the same
   * settings, data and state. Each batch is shared evenly among them; rank 0
   * alone calls `onCheckpoint`. If a rank's `signal` stops it, all stop after
   * the same step.
   */
  readonly communicator?: Communicator | null;
  /**
   * Steps between two comparisons of the ranks' parameters (default 200); they
   * are compared before the first step and after the last one, too.
   */
  readonly compareEvery?: number;
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
 * @param ranks How many share each batch (default 1)
 * @throws {RangeError} If a setting is out of range, or the ranks cannot share
 * a batch evenly
 */
export function checkTrainSettings(settings: TrainSettings, ranks = 1): void {
  const { attack, epochs, batchSize, ghostBatch = batchSize } = settings;
  if (attack) checkPgd(attack);
  const { guardSteps = 1 } = settings;
  const counts = { epochs, batchSize, ghostBatch, guardSteps };
  for (const [name, value] of Object.entries(counts)) {
    if (!(Number.isInteger(value) && value >= 1)) {
      throw new RangeError(
        `Cannot train as ${name} must be an integer >= 1: current value is ` +
          value,
      );
    }
  }
  if (
    settings.guardSteps !== undefined &&
    !(guardSteps > (attack?.steps ?? Infinity))
  ) {
    throw new RangeError(
      `Cannot train as guardSteps must be more than the attack's steps: ` +
        `current value is ${guardSteps}, of an attack of ${
          attack?.steps ?? "no"
        } steps`,
    );
  }
  ghostSize(settings, ranks);
  const { learningRate, momentum, weightDecay, ema, epsilonWarmup } = settings;
  const { epochs: warmupEpochs, from: warmupFrom } =
    settings.learningRateWarmup ?? { epochs: 0, from: 0 };
  const { attackStepsWarmup = 0 } = settings;
  const limits = {
    ...{ learningRate, momentum, weightDecay, ema, epsilonWarmup },
    ...{ attackStepsWarmup, warmupEpochs, warmupFrom },
  };
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

/** Images that BatchNorm sees at a time. */
function ghostSize(settings: TrainSettings, ranks: number): number {
  const { batchSize, ghostBatch } = settings;
  const share = batchSize / ranks;
  const on = ranks > 1 ? ` on ${ranks} ranks` : "";
  if (!Number.isInteger(share)) {
    throw new RangeError(
      `Cannot train${on} in batches of ${batchSize} images: choose a batch ` +
        `size that ${ranks} divides`,
    );
  }
  if (ghostBatch !== undefined && share % ghostBatch !== 0) {
    throw new RangeError(
      `Cannot train${on} in batches of ${batchSize} images: the ${share} of ` +
        `a rank must be whole ghost batches, which ghostBatch ${ghostBatch} ` +
        `does not divide`,
    );
  }
  return ghostBatch ?? share;
}

/**
 * What there is of the attack at a moment of training.
 *
 * @param epoch Epochs done, fractional within an epoch
 * @param history Those epochs
 */
function strengthAt(
  settings: TrainSettings,
  epoch: number,
  history: readonly EpochRecord[],
): Pick<StepOptions, "warmup" | "attackSteps"> {
  const { attack, epsilonWarmup, attackStepsWarmup = 0, guardSteps } = settings;
  const warmup = warmupAt(epoch, epsilonWarmup);
  if (!attack) return { warmup };
  const isGuarded = guardSteps !== undefined &&
    history.some(({ metrics }) => metrics?.overfitting === 1);
  const attackSteps = isGuarded
    ? guardSteps
    : attackStepsAt(attack.steps, epoch, attackStepsWarmup);
  return { warmup, attackSteps };
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
  checkTrainSettings(settings, options.communicator?.size);
  const { batchSize, epochs } = settings;
  const { communicator = null, compareEvery = 200 } = options;
  const rank = communicator?.rank ?? 0;
  const ranks = communicator?.size ?? 1;
  const ghost = ghostSize(settings, ranks);
  const stepsPerEpoch = Math.floor(split.size / batchSize);
  if (stepsPerEpoch < 1) {
    throw new RangeError(
      `Cannot train on ${split.size} images in batches of ${batchSize}: ` +
        `lower the batch size`,
    );
  }
  const { signal, checkpointSeconds = 60 } = options;
  const random = new Random(settings.seed);
  const shape = [ghost, ...split.imageShape];
  if (communicator) await checkAlike(communicator, settings, split);
  const { trainer, history, ...position } = await begin(
    settings,
    shape,
    options,
  );
  let { epoch, step, sums } = position;
  const snapshot = async (): Promise<TrainState> => ({
    ...await trainer.state(),
    epoch,
    step,
    sums,
    history: [...history],
  });
  let saved = performance.now();
  const compare = async () => {
    if (!communicator || !(trainer instanceof SplitTrainer)) return;
    await checkEqual(communicator, await trainer.hash(), epoch, step);
  };
  const save = async () => {
    if (rank > 0) return;
    const state = await snapshot();
    // The loss shows a diverged step only one step later: look before saving.
    if (!isFinite(state.parameters)) throw diverged("weights", epoch, step);
    await options.onCheckpoint?.(state);
    saved = performance.now();
  };
  // Saves, and ends training once all ranks are there: the launcher may end
  // the others as soon as one has ended.
  const stop = async () => {
    await save();
    await communicator?.barrier();
    signal?.throwIfAborted();
    throw new DOMException("Stopped by another rank", "AbortError");
  };
  // The same object when a step's random starts were drawn ahead.
  let starts = { epoch, step, random: random.stream("attack", epoch, step) };
  const startsOf = (epoch: number, step: number) =>
    starts.epoch === epoch && starts.step === step
      ? starts
      : { epoch, step, random: random.stream("attack", epoch, step) };
  try {
    await compare();
    while (epoch < epochs) {
      const learningRateOf = (step: number) => {
        // The middle of the step: at 0 a cyclic schedule would not move.
        const position = epoch + step / stepsPerEpoch + 0.5 / stepsPerEpoch;
        const { schedule, learningRate, learningRateWarmup } = settings;
        return learningRateAt(schedule, learningRate, position, epochs) *
          learningRateWarmupAt(position, learningRateWarmup);
      };
      const stream = batches(split, {
        batchSize,
        order: "shuffled",
        augmentation: settings.augmentation,
        random: random.stream("batches"),
        epoch,
        start: step,
        dropLast: true,
        part: { index: rank, count: ranks },
        onWarning: options.onWarning,
        // Ranks of one machine share its processors.
        ...(communicator && options.threads
          ? { workers: options.threads }
          : {}),
      });
      for await (const { images, labels } of stream) {
        const started = performance.now();
        const position = epoch + step / stepsPerEpoch;
        const now = startsOf(epoch, step);
        starts = step + 1 < stepsPerEpoch
          ? startsOf(epoch, step + 1)
          : startsOf(epoch + 1, 0);
        const result = await trainer.step(images, labels, {
          learningRate: learningRateOf(step),
          ...strengthAt(settings, position, history),
          random: now.random,
          next: starts.random,
          stop: signal?.aborted,
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
          reduceSeconds: result.reduceSeconds,
        });
        if ((epoch * stepsPerEpoch + step) % compareEvery === 0) {
          await compare();
        }
        if (communicator ? result.stop : signal?.aborted) await stop();
        const isDue = performance.now() - saved > checkpointSeconds * 1000;
        if (isDue && step < stepsPerEpoch) await save();
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
      // Ranks learn of each other's signals in a step.
      if (!communicator) signal?.throwIfAborted();
    }
    await compare();
    return await snapshot();
  } finally {
    await trainer.release();
  }
}

/**
 * Moves a state into a trainer. A state made here does not take up memory during
 * training.
 *
 * @param shape Shape of a ghost batch
 */
async function begin(
  settings: TrainSettings,
  shape: readonly number[],
  options: TrainOptions,
): Promise<
  & Pick<TrainState, "epoch" | "step" | "sums">
  & { readonly trainer: StepTaker; readonly history: EpochRecord[] }
> {
  const { communicator = null, provider, threads, deviceId, profile } = options;
  const state = options.state ?? initialState(settings);
  // One program for a whole step is faster: parts are for those who need them.
  const isWhole = !communicator && shape[0] === settings.batchSize;
  const run = { provider, threads, deviceId, profile };
  const kind = hasOwnMemory(provider ?? "cpu") ? DeviceTrainer : Trainer;
  const trainer = isWhole
    ? await kind.create(settings, shape, state, run)
    : await SplitTrainer.create(settings, shape, state, {
      ...run,
      communicator,
    });
  const { epoch, step, sums, parameters, velocity } = state;
  if (!options.state) {
    // The trainer has copies.
    [parameters, velocity].flatMap(Object.values).forEach(freeTensor);
  }
  return { trainer, epoch, step, sums, history: [...state.history] };
}

/** Ranks whose value is not that of rank 0, known to all ranks. */
async function oddRanks(
  communicator: Communicator,
  value: string,
): Promise<number[]> {
  const values = await gatherJson(communicator, value);
  const odd = values?.flatMap((other, rank) =>
    other === values[0] ? [] : [rank]
  );
  return await broadcastJson(communicator, odd ?? null);
}

/** "rank 2", "ranks 1, 2" */
function rankList(ranks: readonly number[]): string {
  return `rank${ranks.length > 1 ? "s" : ""} ${ranks.join(", ")}`;
}

/** @throws {Error} If ranks were given other settings or images */
async function checkAlike(
  communicator: Communicator,
  settings: TrainSettings,
  { labels, imageShape }: Split,
): Promise<void> {
  const bytes = new Uint8Array(labels.slice().buffer);
  const alike = JSON.stringify([settings, imageShape, await sha256(bytes)]);
  const odd = await oddRanks(communicator, alike);
  if (odd.length > 0) {
    throw new Error(
      `Cannot train on ${communicator.size} ranks as ${rankList(odd)} found ` +
        `other settings or images than rank 0: give all the same data`,
    );
  }
}

/** @throws {Error} If ranks have come to different parameters */
async function checkEqual(
  communicator: Communicator,
  hash: string,
  epoch: number,
  step: number,
): Promise<void> {
  const odd = await oddRanks(communicator, hash);
  if (odd.length > 0) {
    throw new Error(
      `Cannot go on training as the parameters of ${rankList(odd)} differ ` +
        `from those of rank 0 at step ${step} of epoch ${epoch + 1}: suspect ` +
        `the machine or its MPI library, and continue from the last checkpoint`,
    );
  }
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
  trainer: StepTaker,
  { spec }: TrainSettings,
  { onEpoch, provider, threads, deviceId }: TrainOptions,
): Promise<EpochRecord> {
  if (!onEpoch) return record;
  const weights = stateParameters(await trainer.state());
  const network = new Network(spec, weights, {
    provider,
    threads,
    deviceId,
  });
  try {
    return { ...record, metrics: await onEpoch(network, record) };
  } finally {
    await network.release();
  }
}
