/**
 * Steps of training in parts, for several ranks or ghost batches: gradients of
 * each ghost batch, their sum over ghost batches and ranks, then the update.
 *
 * As in PyTorch's DistributedDataParallel, BatchNorm sees the ghost batch
 * alone, gradients are averaged, and the running statistics that count are
 * those of rank 0: of its first ghost batch, so that any number of ranks keeps
 * the same.
 *
 * @module
 */
import { rows, type Tensor, tensor } from "../core/mod.ts";
import type { Communicator } from "../distributed/mod.ts";
import { modelParameters, weightsHash } from "../models/mod.ts";
import {
  allocateOverlaid,
  compile,
  type Program,
  releaseDevice,
} from "../onnx/mod.ts";
import { BatchAttack, startNoiseRows } from "./batch_attack.ts";
import { joined, type RunOptions } from "./network.ts";
import { oneHot } from "./objectives.ts";
import { scalar } from "./pgd.ts";
import {
  makeSlots,
  type Slot,
  stateOf,
  type StepOptions,
  type StepResult,
  type StepTaker,
} from "./trainer.ts";
import {
  AVERAGE,
  flatAverage,
  flatUpdate,
  GRADIENT,
  gradientStep,
  NEXT,
  VELOCITY,
} from "./training_graphs.ts";
import type { TrainSettings, TrainState } from "./train.ts";

/** Values in a bucket: 4 MiB, so that updates begin while sums go on. */
const BUCKET = 2 ** 20;

/** Where and with whom steps are taken. */
export interface SplitOptions extends RunOptions {
  /** Null: this process alone. */
  readonly communicator: Communicator | null;
  /** Values in a bucket (default 2^20). */
  readonly bucket?: number;
}

/** Part of values in a row. */
interface Range {
  readonly start: number;
  readonly end: number;
}

/** Names and shapes of values that lie in a row. */
type Infos = Program["outputs"];

/** Tensors in one memory, and that memory. */
interface Flat {
  readonly tensors: Readonly<Record<string, Tensor>>;
  readonly data: Float32Array<ArrayBuffer>;
}

function allocateFlat(infos: Infos): Flat {
  const [tensors] = allocateOverlaid(infos);
  return { tensors, data: spanOf(tensors, infos) };
}

/** The memory from the first of some tensors to the end of the last. */
function spanOf(
  tensors: Readonly<Record<string, unknown>>,
  infos: Infos,
): Float32Array<ArrayBuffer> {
  // Networks without BatchNorm have no statistics.
  if (infos.length === 0) return new Float32Array(0);
  const data = (i: number) =>
    (tensors[infos.at(i)!.name] as Tensor).data as Float32Array<ArrayBuffer>;
  const [first, last] = [data(0), data(-1)];
  const bytes = last.byteOffset + last.byteLength - first.byteOffset;
  return new Float32Array(first.buffer, first.byteOffset, bytes / 4);
}

/** The names of a step's values, in the order in which they lie in memory. */
interface Layout {
  /** Parameters that gradients move. */
  readonly trainable: Infos;
  /** Running statistics. */
  readonly statistics: Infos;
}

function layoutOf({ spec }: TrainSettings): Layout {
  const infos = (isTrainable: boolean): Infos =>
    [...modelParameters(spec)]
      .filter(([, { trainable }]) => trainable === isTrainable)
      .map(([name, { node: { dtype, shape } }]) => ({ name, dtype, shape }));
  return { trainable: infos(true), statistics: infos(false) };
}

const prefixed = (prefix: string, infos: Infos): Infos =>
  infos.map((info) => ({ ...info, name: prefix + info.name }));

/** Cuts `length` values into buckets of equal size, but for the last. */
function bucketsOf(length: number, size: number): Range[] {
  const count = Math.max(1, Math.ceil(length / size));
  return Array.from({ length: count }, (_, i) => ({
    start: i * size,
    end: Math.min(length, (i + 1) * size),
  }));
}

/** Takes steps in parts. */
export class SplitTrainer implements StepTaker {
  readonly #settings: TrainSettings;
  readonly #communicator: Communicator | null;
  readonly #layout: Layout;
  readonly #gradient: Program;
  readonly #attack: BatchAttack | null;
  /** Programs of `flatUpdate()` by length. */
  readonly #updates: ReadonlyMap<number, Program>;
  readonly #average: Program | null;
  readonly #buckets: readonly Range[];
  /** Images of a ghost batch. */
  readonly #ghostShape: readonly number[];
  /** Gradients, statistics, loss, hits and the wish to stop: what is summed. */
  readonly #total: Flat;
  /** Memory for those of ghost batches but the first. */
  readonly #spare: Flat[] = [];
  #slots: readonly [current: Slot, next: Slot];
  /** Noise of the step to come, drawn ahead. */
  #ahead: { readonly random: StepOptions["random"]; noise: Tensor } | null =
    null;

  private constructor(
    settings: TrainSettings,
    { communicator }: SplitOptions,
    programs: {
      readonly gradient: Program;
      readonly attack: BatchAttack | null;
      readonly updates: ReadonlyMap<number, Program>;
      readonly average: Program | null;
    },
    plan: {
      readonly layout: Layout;
      readonly buckets: readonly Range[];
      readonly ghostShape: readonly number[];
      readonly total: Flat;
    },
    state: TrainState,
  ) {
    this.#settings = settings;
    this.#communicator = communicator;
    this.#gradient = programs.gradient;
    this.#attack = programs.attack;
    this.#updates = programs.updates;
    this.#average = programs.average;
    this.#layout = plan.layout;
    this.#buckets = plan.buckets;
    this.#ghostShape = plan.ghostShape;
    this.#total = plan.total;
    const { trainable, statistics } = plan.layout;
    const values = [
      ...trainable,
      ...statistics,
      ...prefixed(VELOCITY, trainable),
      ...(settings.ema > 0
        ? prefixed(AVERAGE, [...trainable, ...statistics])
        : []),
    ];
    this.#slots = makeSlots(values, this.#attack, state);
  }

  /** @param ghostShape Shape of a ghost batch, `[n, 3, h, w]` */
  static async create(
    settings: TrainSettings,
    ghostShape: readonly number[],
    state: TrainState,
    options: SplitOptions,
  ): Promise<SplitTrainer> {
    const { provider, threads, deviceId, profile, bucket = BUCKET } = options;
    const { spec, attack, ema } = settings;
    // Its programs run in turn.
    const memory = "shared";
    const run = { provider, threads, deviceId, profile, memory } as const;
    const gradient = await compile(gradientStep(spec, ghostShape), run);
    const layout = layoutOf(settings);
    const { trainable, statistics } = layout;
    const single = (name: string) =>
      ({ name, dtype: "float32", shape: [] }) as const;
    const total = allocateFlat([
      ...prefixed(GRADIENT, trainable),
      ...prefixed(NEXT, statistics),
      ...["loss", "correct", "stop"].map(single),
    ]);
    const moved = spanOf(total.tensors, prefixed(GRADIENT, trainable)).length;
    const buckets = bucketsOf(moved, bucket);
    const updates = new Map<number, Program>();
    for (const { start, end } of buckets) {
      const length = end - start;
      if (updates.has(length)) continue;
      updates.set(length, await compile(flatUpdate(length, settings), run));
    }
    const all = spanOf(total.tensors, [
      ...prefixed(GRADIENT, trainable),
      ...prefixed(NEXT, statistics),
    ]);
    const average = ema > 0
      ? await compile(flatAverage(all.length, ema), run)
      : null;
    const batchAttack = attack &&
      await BatchAttack.create(spec, attack, ghostShape, run);
    return new SplitTrainer(
      settings,
      options,
      { gradient, attack: batchAttack, updates, average },
      { layout, buckets, ghostShape, total },
      state,
    );
  }

  async step(
    images: Tensor,
    labels: ArrayLike<number>,
    options: StepOptions,
  ): Promise<StepResult> {
    const rank = this.#communicator?.rank ?? 0;
    const ranks = this.#communicator?.size ?? 1;
    const [count] = images.shape;
    const [ghost] = this.#ghostShape;
    const { tensors } = this.#total;
    await this.#sumGhosts(images, labels, options);
    // A sum in which the others have nothing is rank 0's value.
    if (rank > 0) {
      spanOf(tensors, prefixed(NEXT, this.#layout.statistics)).fill(0);
    }
    tensors.stop.data[0] = options.stop ? 1 : 0;
    const scale = ghost / (count * ranks);
    const reduceSeconds = await this.#reduceAndUpdate(scale, options);
    return {
      loss: tensors.loss.data[0] * scale,
      correct: tensors.correct.data[0],
      stop: tensors.stop.data[0] > 0,
      reduceSeconds,
    };
  }

  /**
   * Writes the sum over this rank's ghost batches to `#total`: of two, of two
   * such pairs, and so on. Collective sums over 2, 4, 8... ranks add in this
   * order as well, so that as a rule the number of ranks changes no bit.
   */
  async #sumGhosts(
    images: Tensor,
    labelIndices: ArrayLike<number>,
    options: StepOptions,
  ): Promise<void> {
    const { spec } = this.#settings;
    const [count] = images.shape;
    const [ghost] = this.#ghostShape;
    const [current, next] = this.#slots;
    const allLabels = oneHot(labelIndices, spec.classes);
    const noise = await this.#noise(options.random, count);
    const prepared = this.#attack &&
      await this.#attack.prepare(current.values, next.prepared);
    /** Sums whose turn has not come, of ever fewer ghost batches. */
    const sums: { readonly flat: Flat; ghosts: number }[] = [];
    const addLast = () => {
      const { flat, ghosts } = sums.pop()!;
      this.#add(sums.at(-1)!.flat, flat);
      sums.at(-1)!.ghosts += ghosts;
      this.#spare.push(flat);
    };
    for (let start = 0; start < count; start += ghost) {
      const some = (value: Tensor) => rows(value, start, start + ghost);
      const labels = some(allLabels);
      const attacked = this.#attack
        ? await this.#attack.run(prepared!, {
          images: some(images),
          labels,
          noise: noise && some(noise),
          warmup: options.warmup,
          attackSteps: options.attackSteps,
        })
        : some(images);
      const flat = start === 0
        ? this.#total
        : this.#spare.pop() ?? allocateFlat(this.#gradient.outputs);
      const feeds = { ...current.values, images: attacked, labels };
      await this.#gradient.run(feeds, flat.tensors);
      releaseDevice({ attacked });
      sums.push({ flat, ghosts: 1 });
      while (sums.at(-1)!.ghosts === sums.at(-2)?.ghosts) addLast();
    }
    while (sums.length > 1) addLast();
    if (prepared) this.#attack!.releasePrepared(prepared);
  }

  /** Adds gradients, losses and hits, but not statistics. */
  #add(to: Flat, from: Flat): void {
    const names = prefixed(GRADIENT, this.#layout.trainable);
    const total = spanOf(to.tensors, names);
    const part = spanOf(from.tensors, names);
    for (let i = 0; i < total.length; i++) total[i] += part[i];
    for (const name of ["loss", "correct"]) {
      to.tensors[name].data[0] += from.tensors[name].data[0];
    }
  }

  /**
   * Sums over ranks, bucket by bucket; each is used for the update as soon as
   * it is there, and the noise of the next step is drawn meanwhile.
   *
   * @returns Seconds until the last sum was there
   */
  async #reduceAndUpdate(scale: number, options: StepOptions): Promise<number> {
    const started = performance.now();
    let reduced = started;
    const { data } = this.#total;
    const sums = this.#buckets.map(({ start, end }, i) => {
      if (!this.#communicator) return Promise.resolve();
      // The last one takes along what is not a gradient.
      const isLast = i === this.#buckets.length - 1;
      const part = data.subarray(start, isLast ? data.length : end);
      return this.#communicator.sum(part).then(() => {
        reduced = performance.now();
      });
    });
    // Each is awaited below, but the first failure ends the step.
    for (const sum of sums) sum.catch(() => {});
    if (this.#communicator && options.next) this.#drawAhead(options.next);
    const [current, next] = this.#slots;
    const { trainable, statistics } = this.#layout;
    const velocities = prefixed(VELOCITY, trainable);
    const from = [trainable, velocities].map((infos) =>
      spanOf(current.values, infos)
    );
    const to = [trainable, velocities].map((infos) =>
      spanOf(next.values, infos)
    );
    for (const [i, { start, end }] of this.#buckets.entries()) {
      await sums[i];
      const part = (values: Float32Array) =>
        tensor(values.subarray(start, end), [end - start]);
      await this.#updates.get(end - start)!.run({
        parameter: part(from[0]),
        velocity: part(from[1]),
        gradient: part(data),
        scale: scalar(scale),
        learningRate: scalar(options.learningRate),
      }, { "next:parameter": part(to[0]), "next:velocity": part(to[1]) });
    }
    spanOf(next.values, statistics).set(
      spanOf(this.#total.tensors, prefixed(NEXT, statistics)),
    );
    if (this.#average) {
      const all = [...trainable, ...statistics];
      const whole = ({ values }: Slot, infos: Infos) => {
        const span = spanOf(values, infos);
        return tensor(span, [span.length]);
      };
      await this.#average.run({
        average: whole(current, prefixed(AVERAGE, all)),
        parameter: whole(next, all),
      }, { "next:average": whole(next, prefixed(AVERAGE, all)) });
    }
    this.#slots = [next, current];
    return (reduced - started) / 1000;
  }

  /** Noise of this rank's images, as one rank would draw it for the batch. */
  async #noise(
    random: StepOptions["random"],
    count: number,
  ): Promise<Tensor | null> {
    const { attack } = this.#settings;
    if (!attack?.randomStart) return await Promise.resolve(null);
    if (this.#ahead?.random !== random) this.#drawAhead(random, count);
    return this.#ahead!.noise;
  }

  #drawAhead(random: StepOptions["random"], count?: number): void {
    const { attack } = this.#settings;
    const known = count ?? this.#ahead?.noise.shape[0];
    if (!attack?.randomStart || known === undefined) return;
    const first = known * (this.#communicator?.rank ?? 0);
    const shape = [1, ...this.#ghostShape.slice(1)];
    const parts = Array.from({ length: known }, (_, i) => {
      this.#communicator?.progress();
      return { noise: startNoiseRows(random, attack.norm, first + i, shape) };
    });
    this.#ahead = { random, noise: joined(parts).noise };
  }

  state(): Promise<Pick<TrainState, "parameters" | "velocity" | "average">> {
    return Promise.resolve(stateOf(this.#slots[0].values));
  }

  /** Tells whether ranks have the same state: SHA-256 of all of it. */
  async hash(): Promise<string> {
    return await weightsHash(this.#slots[0].values);
  }

  async release(): Promise<void> {
    await this.#gradient.release();
    await this.#attack?.release();
    for (const update of this.#updates.values()) await update.release();
    await this.#average?.release();
  }
}
