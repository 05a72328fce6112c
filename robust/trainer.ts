/**
 * What takes the steps of training: a whole step as one program.
 *
 * @module
 */
import {
  type AnyTensor,
  type NamedTensors,
  type Random,
  sizeOf,
  type Tensor,
} from "../core/mod.ts";
import {
  allocateOverlaid,
  compile,
  type Program,
  releaseDevice,
} from "../onnx/mod.ts";
import { BatchAttack } from "./batch_attack.ts";
import type { RunOptions } from "./network.ts";
import { oneHot } from "./objectives.ts";
import { scalar } from "./pgd.ts";
import { AVERAGE, NEXT, trainingStep, VELOCITY } from "./training_graphs.ts";
import type { TrainSettings, TrainState } from "./train.ts";

/** What a step depends on besides the batch. */
export interface StepOptions {
  readonly learningRate: number;
  /** Fraction of epsilon and step size. */
  readonly warmup: number;
  /** Steps of the attack, see `AttackFeeds` (left out: all). */
  readonly attackSteps?: number;
  /** For the random starts of the whole batch. */
  readonly random: Random;
  /** That of the next step, to be drawn from when there is time. */
  readonly next?: Random;
  /** Whether this rank is to stop after the step. */
  readonly stop?: boolean;
}

/** What a step came to. */
export interface StepResult {
  /** Mean loss of the batch, before the step. */
  readonly loss: number;
  /** Images of the batch classified correctly. */
  readonly correct: number;
  /** Whether any rank is to stop. */
  readonly stop: boolean;
  /** Time until the sums over ranks were there, in seconds; 0 on one rank. */
  readonly reduceSeconds: number;
}

/** Programs and parameters of a training run. */
export interface StepTaker {
  /** Attacks a batch and takes one step of SGD on it. */
  step(
    images: Tensor,
    labels: ArrayLike<number>,
    options: StepOptions,
  ): Promise<StepResult>;
  /** Parameters, velocities and averages: valid until the next step. */
  state(): Promise<Pick<TrainState, "parameters" | "velocity" | "average">>;
  /** Frees the programs. */
  release(): Promise<void>;
}

/** Memory for one set of parameters. */
export interface Slot {
  /** Parameters, velocities and averages by the graph's names. */
  readonly values: Record<string, AnyTensor>;
  /**
   * What an attack needs of the parameters: in the same memory, as a slot
   * holds this only while it waits for the values of the next step. What does
   * not fit lies in memory of both slots.
   */
  readonly prepared: Record<string, AnyTensor>;
}

/**
 * Memory for parameters as they are, which a state fills, and for what the next
 * step makes of them.
 *
 * @param values Names and shapes of parameters, velocities and averages
 */
export function makeSlots(
  values: Program["outputs"],
  attack: BatchAttack | null,
  state: TrainState,
): [current: Slot, next: Slot] {
  const sizes = (infos: Program["outputs"]) =>
    infos.reduce((total, { shape }) => total + sizeOf(shape), 0);
  const within = [...attack?.prepared ?? []];
  const beyond: typeof within = [];
  while (sizes(within) > sizes(values)) beyond.push(within.pop()!);
  const [shared] = allocateOverlaid(beyond);
  const makeSlot = (): Slot => {
    const groups = allocateOverlaid(values, within);
    return { values: groups[0], prepared: { ...groups[1], ...shared } };
  };
  const slots: [Slot, Slot] = [makeSlot(), makeSlot()];
  const start = initialValues(state);
  for (const [name, tensor] of Object.entries(slots[0].values)) {
    (tensor as Tensor).data.set((start[name] as Tensor).data);
  }
  return slots;
}

/** Parameters, velocities and averages of a state by the graph's names. */
export function initialValues(state: TrainState): NamedTensors {
  return {
    ...state.parameters,
    ...renamed(state.velocity, (name) => VELOCITY + name),
    ...renamed(state.average, (name) => AVERAGE + name),
  };
}

/** The parts of a state among values by the graph's names. */
export function stateOf(
  values: NamedTensors,
): Pick<TrainState, "parameters" | "velocity" | "average"> {
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

/** Takes each step in one run of one program, on values in host memory. */
export class Trainer implements StepTaker {
  readonly #settings: TrainSettings;
  readonly #programs: StepPrograms;
  /** Parameters as they are, and where the next step writes them. */
  #slots: readonly [current: Slot, next: Slot];

  private constructor(
    settings: TrainSettings,
    update: Program,
    attack: BatchAttack | null,
    state: TrainState,
  ) {
    this.#settings = settings;
    this.#programs = { update, attack };
    const values = update.outputs
      .filter(({ name }) => name.startsWith(NEXT))
      .map((info) => ({ ...info, name: info.name.slice(NEXT.length) }));
    this.#slots = makeSlots(values, attack, state);
  }

  /** @param shape Shape of a batch, `[n, 3, h, w]` */
  static async create(
    settings: TrainSettings,
    shape: readonly number[],
    state: TrainState,
    run: RunOptions,
  ): Promise<Trainer> {
    // Attack and update run in turn.
    const options = { ...run, memory: "shared" } as const;
    const { attack, spec } = settings;
    const update = await compile(trainingStep(settings, shape), options);
    const batchAttack = attack &&
      await BatchAttack.create(spec, attack, shape, options);
    return new Trainer(settings, update, batchAttack, state);
  }

  async step(
    images: Tensor,
    labelIndices: ArrayLike<number>,
    options: StepOptions,
  ): Promise<StepResult> {
    const [current, next] = this.#slots;
    const { result } = await takeStep(this.#settings, this.#programs, {
      values: current.values,
      prepared: next.prepared,
      into: renamed(next.values, (name) => NEXT + name),
    }, { ...options, images, labelIndices });
    this.#slots = [next, current];
    return result;
  }

  state(): Promise<Pick<TrainState, "parameters" | "velocity" | "average">> {
    return Promise.resolve(stateOf(this.#slots[0].values));
  }

  async release(): Promise<void> {
    await this.#programs.update.release();
    await this.#programs.attack?.release();
  }
}

/** What computes the steps of a trainer. */
export interface StepPrograms {
  /** Made from `trainingStep()`; may give loss and hits together, as `totals`. */
  readonly update: Program;
  /** Null for standard training. */
  readonly attack: BatchAttack | null;
}

/**
 * Attacks a batch `[n, 3, h, w]` and runs the update on it.
 *
 * @param memory Parameters, velocities and averages by the graph's names; where
 * to write what the attack needs of them, and what the update makes of them
 * @returns All that the update computes, and what the step came to
 */
export async function takeStep(
  { spec }: TrainSettings,
  { update, attack }: StepPrograms,
  { values, prepared = {}, into = {} }: {
    readonly values: NamedTensors;
    readonly prepared?: NamedTensors;
    readonly into?: NamedTensors;
  },
  { labelIndices, learningRate, stop = false, ...batch }: StepOptions & {
    readonly images: Tensor;
    readonly labelIndices: ArrayLike<number>;
  },
): Promise<{ found: NamedTensors; result: StepResult }> {
  const labels = oneHot(labelIndices, spec.classes);
  const images = attack
    ? await attack.attack(values, prepared, { ...batch, labels })
    : batch.images;
  const feeds = { images, labels, learningRate: scalar(learningRate) };
  const found = await update.run({ ...values, ...feeds }, into);
  releaseDevice({ images });
  const read = found.totals ? [found.totals] : [found.loss, found.correct];
  const [loss, correct] = read.flatMap(({ data }) => Array.from(data, Number));
  return { found, result: { loss, correct, stop, reduceSeconds: 0 } };
}

function renamed(
  tensors: NamedTensors,
  rename: (name: string) => string,
): Record<string, AnyTensor> {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, value]) => [rename(name), value]),
  );
}
