/**
 * Training on a provider with memory of its own: parameters, their velocities
 * and averages stay there from step to step, and so do a batch's iterates and
 * what the attack needs of the parameters. A step uploads images and labels, and
 * reads loss and hits.
 *
 * @module
 */
import {
  concat,
  type NamedTensors,
  reshape,
  type Tensor,
} from "../core/mod.ts";
import { compile, DeviceReader, releaseDevice } from "../onnx/mod.ts";
import { BatchAttack } from "./batch_attack.ts";
import type { RunOptions } from "./network.ts";
import type { TrainSettings, TrainState } from "./train.ts";
import {
  initialValues,
  stateOf,
  type StepOptions,
  type StepPrograms,
  type StepResult,
  type StepTaker,
  takeStep,
} from "./trainer.ts";
import { NEXT, trainingStep } from "./training_graphs.ts";

/** Takes each step in one run of one program, on the device. */
export class DeviceTrainer implements StepTaker {
  readonly #settings: TrainSettings;
  readonly #programs: StepPrograms;
  readonly #reader: DeviceReader;
  /** Parameters, velocities and averages by the graph's names. */
  #values: NamedTensors;

  private constructor(
    settings: TrainSettings,
    programs: StepPrograms,
    reader: DeviceReader,
    values: NamedTensors,
  ) {
    this.#settings = settings;
    this.#programs = programs;
    this.#reader = reader;
    this.#values = values;
  }

  /** @param shape Shape of a batch, `[n, 3, h, w]` */
  static async create(
    settings: TrainSettings,
    shape: readonly number[],
    state: TrainState,
    run: RunOptions,
  ): Promise<DeviceTrainer> {
    const { attack, spec } = settings;
    const { loss, correct, ...rest } = trainingStep(settings, shape);
    // Each output that is read costs a wait of its own.
    const totals = concat([loss, correct].map((x) => reshape(x, [1])), 0);
    const step = { ...rest, totals };
    const kept = Object.keys(step).filter((name) => name.startsWith(NEXT));
    const update = await compile(step, { ...run, onDevice: kept });
    const infos = update.outputs
      .filter(({ name }) => name.startsWith(NEXT))
      .map((info) => ({ ...info, name: info.name.slice(NEXT.length) }));
    const reader = await DeviceReader.create(infos, update.provider);
    const batchAttack = attack &&
      await BatchAttack.create(spec, attack, shape, run);
    // Copies: the state may be freed before the first step.
    const start = initialValues(state);
    const values = Object.fromEntries(infos.map(({ name }) => {
      const { dtype, data, shape } = start[name] as Tensor;
      return [name, { dtype, data: data.slice(), shape }];
    }));
    const programs = { update, attack: batchAttack };
    return new DeviceTrainer(settings, programs, reader, values);
  }

  /** Attacks a batch and takes one step of SGD on it. */
  async step(
    images: Tensor,
    labelIndices: ArrayLike<number>,
    options: StepOptions,
  ): Promise<StepResult> {
    const { found, result } = await takeStep(
      this.#settings,
      this.#programs,
      { values: this.#values },
      { ...options, images, labelIndices },
    );
    releaseDevice(this.#values);
    this.#values = Object.fromEntries(
      Object.keys(this.#values).map((name) => [name, found[NEXT + name]]),
    );
    return result;
  }

  /** Parameters, velocities and averages, copied to the host. */
  async state(): Promise<
    Pick<TrainState, "parameters" | "velocity" | "average">
  > {
    return stateOf(await this.#reader.read(this.#values));
  }

  /** Frees the programs and the state. */
  async release(): Promise<void> {
    releaseDevice(this.#values);
    await this.#programs.update.release();
    await this.#programs.attack?.release();
    await this.#reader.release();
  }
}
