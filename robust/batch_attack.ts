/**
 * The attack of training on a batch of one shape.
 *
 * @module
 */
import {
  type AnyTensor,
  input,
  type NamedTensors,
  type Node,
  type Random,
  sizeOf,
  type Tensor,
  tensor,
} from "../core/mod.ts";
import type { ModelSpec } from "../models/mod.ts";
import {
  compile,
  type CompileOptions,
  compileStages,
  copied,
  hasOwnMemory,
  type Program,
  releaseDevice,
  type Stages,
} from "../onnx/mod.ts";
import type { Norm } from "./ball.ts";
import { crossEntropyObjective } from "./objectives.ts";
import { iterate, pgdStep, randomStart, scalar, startNoise } from "./pgd.ts";
import type { TrainingAttack } from "./train.ts";

/** What one batch is attacked with. */
export interface AttackFeeds {
  /** Clean images, of the shape that the attack was made for. */
  readonly images: Tensor;
  /** One-hot, `[n, classes]` */
  readonly labels: Tensor;
  /** Of `startNoise()`; needed by attacks with a random start. */
  readonly noise: Tensor | null;
  /** Fraction of epsilon and step size. */
  readonly warmup: number;
  /**
   * Steps to take instead of all, each as much longer as there are fewer
   * (left out: all).
   */
  readonly attackSteps?: number;
}

/** Names of what an attack begins with: random starts, and copies. */
const START = "start";
const HELD = "held:";

/**
 * What an attack begins with, as nodes: random starts, and if the device has
 * memory of its own copies there of what all of its steps read.
 */
function beginning(
  { randomStart: isRandom, norm }: TrainingAttack,
  shape: readonly number[],
  { labels, isHeld }: {
    readonly labels: readonly number[];
    readonly isHeld: boolean;
  },
): Record<string, Node> {
  const shapes = { center: shape, labels, epsilon: [], stepSize: [] };
  const inputs = Object.entries(shapes).map(([name, shape]) =>
    [name, input(name, shape)] as const
  );
  const copies = inputs.map(([name, node]) => [HELD + name, copied(node)]);
  return {
    ...(isRandom
      ? { [START]: randomStart(shape, norm, Object.fromEntries(inputs)) }
      : {}),
    ...(isHeld ? Object.fromEntries(copies) : {}),
  };
}

/** Programs that perturb batches against parameters that change. */
export class BatchAttack {
  readonly #settings: TrainingAttack;
  readonly #stages: Stages;
  /** Made from `beginning()`; null if there is nothing to begin with. */
  readonly #begin: Program | null;

  private constructor(
    settings: TrainingAttack,
    stages: Stages,
    begin: Program | null,
  ) {
    this.#settings = settings;
    this.#stages = stages;
    this.#begin = begin;
  }

  /** @param shape Shape of the images, `[n, 3, h, w]` */
  static async create(
    spec: ModelSpec,
    attack: TrainingAttack,
    shape: readonly number[],
    options: CompileOptions,
  ): Promise<BatchAttack> {
    const objective = crossEntropyObjective([], spec.classes);
    const { next } = pgdStep(spec, shape, {
      norm: attack.norm,
      loss: objective.loss,
      feeds: { labels: [shape[0], spec.classes] },
      fakeRelu: false,
    });
    // The same parameters serve all steps of an attack.
    const stages = await compileStages({ next }, {
      ...options,
      onDevice: ["next"],
    });
    const { provider = "cpu" } = options;
    const nodes = beginning(attack, shape, {
      labels: [shape[0], spec.classes],
      isHeld: hasOwnMemory(provider),
    });
    const outputs = Object.keys(nodes);
    const begin = outputs.length > 0
      ? await compile(nodes, { ...options, onDevice: outputs })
      : null;
    return new BatchAttack(attack, stages, begin);
  }

  /** What `prepare()` writes. */
  get prepared(): Program["outputs"] {
    return this.#stages.prepare.outputs;
  }

  /** Computes what all attacks with these parameters share. */
  async prepare(
    parameters: NamedTensors,
    into: NamedTensors,
  ): Promise<Record<string, AnyTensor>> {
    return {
      ...parameters,
      ...await this.#stages.prepare.run(parameters, into),
    };
  }

  /**
   * Attacks a batch.
   *
   * @param prepared Of `prepare()`
   * @returns The perturbed images, in the memory of the device if it has some
   */
  async run(
    prepared: Readonly<Record<string, AnyTensor>>,
    { images, labels, noise, warmup, ...fewer }: AttackFeeds,
  ): Promise<Tensor> {
    const { stepSize, steps } = this.#settings;
    const { attackSteps = steps } = fewer;
    const feeds = {
      center: images,
      labels,
      epsilon: scalar(this.#settings.epsilon * warmup),
      stepSize: scalar(stepSize * warmup * (steps / attackSteps)),
    };
    const begun = await this.#begin?.run({ ...feeds, noise: noise! }) ?? {};
    const held = Object.fromEntries(
      Object.keys(feeds)
        .filter((name) => HELD + name in begun)
        .map((name) => [name, begun[HELD + name]]),
    );
    const start = begun[START] ?? held.center ?? images;
    let found: Tensor | undefined;
    try {
      found = await iterate(
        this.#stages.step,
        { ...prepared, ...feeds, ...held, images: start },
        attackSteps,
      );
      return found;
    } finally {
      for (const [name, value] of Object.entries(begun)) {
        if (value !== found) releaseDevice({ [name]: value });
      }
    }
  }

  /**
   * Attacks a whole batch: prepares, draws noise if need be, runs.
   *
   * @param into Memory for what `prepare()` writes
   * @param random Where the batch's noise begins
   * @returns The perturbed images, in the memory of the device if it has some
   */
  async attack(
    parameters: NamedTensors,
    into: NamedTensors,
    { random, ...batch }: Omit<AttackFeeds, "noise"> & {
      readonly random: Random;
    },
  ): Promise<Tensor> {
    const { norm, randomStart: isRandom } = this.#settings;
    const noise = isRandom
      ? startNoise(batch.images.shape, norm, random)
      : null;
    const prepared = await this.prepare(parameters, into);
    try {
      return await this.run(prepared, { ...batch, noise });
    } finally {
      this.releasePrepared(prepared);
    }
  }

  /** Frees what `prepare()` left in the memory of a device. */
  releasePrepared(prepared: Readonly<Record<string, AnyTensor>>): void {
    for (const { name } of this.prepared) {
      releaseDevice({ [name]: prepared[name] });
    }
  }

  /** Frees the programs. */
  async release(): Promise<void> {
    await this.#stages.prepare.release();
    await this.#stages.step.release();
    await this.#begin?.release();
  }
}

/**
 * Rows of the noise that `startNoise()` draws for a whole batch: what an image
 * gets depends on its place in the batch, not on who asks.
 *
 * @param random Where the batch's noise begins; it is left as it is
 * @param first Index of the first row
 * @param shape Shape of the rows, `[n, 3, h, w]`
 */
export function startNoiseRows(
  random: Random,
  norm: Norm,
  first: number,
  shape: readonly number[],
): Tensor {
  const stream = random.stream();
  const start = first * sizeOf(shape.slice(1));
  // One integer makes one value, but normal values are made in pairs.
  const extra = start % 2;
  stream.skip(start - extra);
  const { data } = startNoise([extra + sizeOf(shape)], norm, stream);
  return tensor(data.subarray(extra), shape);
}
