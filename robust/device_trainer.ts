/**
 * Training on a provider with memory of its own: parameters, their velocities
 * and averages stay there from step to step, and so do a batch's iterates and
 * what the attack needs of the parameters. A step uploads images and labels, and
 * reads loss and hits.
 *
 * @module
 */
import type { NamedTensors, Tensor } from "../core/mod.ts";
import {
  compile,
  DeviceReader,
  type Program,
  releaseDevice,
} from "../onnx/mod.ts";
import { BatchAttack } from "./batch_attack.ts";
import type { RunOptions } from "./network.ts";
import { oneHot } from "./objectives.ts";
import { scalar } from "./pgd.ts";
import type { TrainSettings, TrainState } from "./train.ts";
import {
  initialValues,
  resultOf,
  stateOf,
  type StepOptions,
  type StepResult,
  type StepTaker,
} from "./trainer.ts";
import { NEXT, trainingStep } from "./training_graphs.ts";

/** Takes each step in one run of one program, on the device. */
export class DeviceTrainer implements StepTaker {
  readonly #settings: TrainSettings;
  readonly #update: Program;
  readonly #attack: BatchAttack | null;
  readonly #reader: DeviceReader;
  /** Parameters, velocities and averages by the graph's names. */
  #values: NamedTensors;

  private constructor(
    settings: TrainSettings,
    programs: {
      readonly update: Program;
      readonly attack: BatchAttack | null;
      readonly reader: DeviceReader;
    },
    values: NamedTensors,
  ) {
    this.#settings = settings;
    this.#update = programs.update;
    this.#attack = programs.attack;
    this.#reader = programs.reader;
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
    const step = trainingStep(settings, shape);
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
    const programs = { update, attack: batchAttack, reader };
    return new DeviceTrainer(settings, programs, values);
  }

  /** Attacks a batch and takes one step of SGD on it. */
  async step(
    images: Tensor,
    labelIndices: ArrayLike<number>,
    options: StepOptions,
  ): Promise<StepResult> {
    const labels = oneHot(labelIndices, this.#settings.spec.classes);
    const batch = { ...options, images, labels };
    const attacked = this.#attack
      ? await this.#attack.attack(this.#values, {}, batch)
      : images;
    const found = await this.#update.run({
      ...this.#values,
      images: attacked,
      labels,
      learningRate: scalar(options.learningRate),
    });
    releaseDevice({ attacked, ...this.#values });
    this.#values = Object.fromEntries(
      Object.keys(this.#values).map((name) => [name, found[NEXT + name]]),
    );
    return resultOf(found, options);
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
    await this.#update.release();
    await this.#attack?.release();
    await this.#reader.release();
  }
}
