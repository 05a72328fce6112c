/**
 * Optimises pictures for the playground, in parts short enough to be steered.
 *
 * @module
 */
import { Random, rows, type Tensor, tensor } from "../../core/mod.ts";
import { type Card, decodeCheckpoint } from "../../models/mod.ts";
import {
  coordinateObjective,
  matchRepresentation,
  Network,
  type Objective,
  optimizeInput,
  type RunOptions,
} from "../../robust/mod.ts";
import { specOf } from "../../robust/load.ts";
import type { Prediction, Progress, Steering, Task } from "./protocol.ts";

/** A network that pictures are optimised for. */
interface Loaded {
  readonly network: Network;
  readonly card: Card;
}

/** An optimisation under way. */
interface Running {
  readonly model: string;
  readonly loaded: Loaded;
  readonly objective: Objective;
  readonly direction: "minimize" | "maximize";
  /** Where it started: the middle of the ball. */
  readonly center: Tensor;
  images: Tensor;
  step: number;
}

/** Networks in memory, and what is done with them. */
export class Engine {
  readonly #options: RunOptions;
  readonly #networks = new Map<string, Loaded>();
  #task: Task | null = null;
  #steering: Steering | null = null;
  #running: Running[] = [];

  constructor(options: RunOptions) {
    this.#options = options;
  }

  /**
   * Takes in a checkpoint.
   *
   * @returns Length of its representations
   */
  async load(key: string, bytes: Uint8Array): Promise<number> {
    const { card, tensors } = await decodeCheckpoint(bytes, key);
    const network = new Network(specOf(card), tensors, this.#options);
    this.#networks.set(key, { network, card });
    const fc = ["fc.weight", "classifier.6.weight"].find((name) =>
      Object.hasOwn(tensors, name)
    );
    return fc ? tensors[fc].shape[1] : 0;
  }

  /** Number of pictures that all networks together work on. */
  get count(): number {
    return this.#running.reduce((sum, { images }) => sum + images.shape[0], 0);
  }

  /** Prepares a task, which {@linkcode advance} then goes on with. */
  async start(task: Task): Promise<Progress[]> {
    this.#task = task;
    this.#steering = task;
    this.#running = [];
    for (const model of task.models) {
      this.#running.push(await this.#prepare(model, task));
    }
    return await this.#report([]);
  }

  /** Changes step size and radius from the next part on. */
  steer(steering: Steering): void {
    this.#steering = steering;
  }

  /** Does some steps with each network. */
  async advance(steps: number): Promise<Progress[]> {
    const { stepSize, radius } = this.#steering!;
    const curves: Progress["curve"][] = [];
    for (const running of this.#running) {
      const curve: { step: number; losses: number[] }[] = [];
      const { loaded, objective, direction, center, step: before } = running;
      const { images } = await optimizeInput(loaded.network, running.images, {
        objective,
        direction,
        center,
        stepSize,
        epsilon: radius,
        steps,
        batchSize: center.shape[0],
        onStep: ({ step, losses }) => {
          if (step === 0 && before > 0) return;
          curve.push({ step: before + step, losses: Array.from(losses.data) });
        },
      });
      running.images = images;
      running.step += steps;
      curves.push(curve);
    }
    return await this.#report(curves);
  }

  /** Frees all networks. */
  async release(): Promise<void> {
    for (const { network } of this.#networks.values()) await network.release();
    this.#networks.clear();
  }

  async #prepare(model: string, task: Task): Promise<Running> {
    const loaded = this.#networks.get(model);
    if (!loaded) throw new Error(`Cannot start: "${model}" is not loaded`);
    const { network } = loaded;
    const { mode, size, pictures, coordinate, frames } = task;
    const one = [1, 3, size, size];
    const base = { model, loaded, step: 0 };
    const represent = async (images: Tensor) =>
      (await network.predict(images)).representation;
    if (mode === "interpolate") {
      const ends = pictures.slice(0, 2).map((data) => tensor(data, one));
      const [a, b] = [await represent(ends[0]), await represent(ends[1])];
      const images = between(ends[0], ends[1], frames);
      const objective = matchRepresentation(between(a, b, frames));
      return {
        ...base,
        objective,
        direction: "minimize",
        center: images,
        images,
      };
    }
    const start = startOf(task, one);
    if (mode === "invert") {
      const target = await represent(tensor(pictures[0], one));
      const objective = matchRepresentation(target);
      return {
        ...base,
        objective,
        direction: "minimize",
        center: start,
        images: start,
      };
    }
    const { shape: [, length] } = await represent(start);
    const objective = coordinateObjective([coordinate], length);
    return {
      ...base,
      objective,
      direction: "maximize",
      center: start,
      images: start,
    };
  }

  async #report(curves: readonly Progress["curve"][]): Promise<Progress[]> {
    const reports: Progress[] = [];
    const { mode, coordinate } = this.#task!;
    for (const [i, running] of this.#running.entries()) {
      const { model, loaded: { network, card }, images, center } = running;
      const { logits, representation } = await network.predict(images);
      const n = images.shape[0];
      const isFeature = mode === "visualize" || mode === "add";
      reports.push({
        model,
        step: running.step,
        curve: curves[i] ?? [],
        pixels: Array.from({ length: n }, (_, i) => rgbaOf(images, i)),
        predictions: Array.from(
          { length: n },
          (_, i) => predictionOf(rows(logits, i, i + 1).data, card.classes),
        ),
        rank: isFeature ? rankOf(representation.data, coordinate) : null,
        moved: Array.from(
          { length: n },
          (_, i) =>
            distance(rows(images, i, i + 1).data, rows(center, i, i + 1).data),
        ),
      });
    }
    return reports;
  }
}

/** Where an optimisation starts (paper, appendix: 0.5 + N(0, 1) / 20). */
function startOf(
  { mode, start, seed, pictures }: Task,
  shape: readonly number[],
): Tensor {
  if (mode === "add") return tensor(pictures[0], shape);
  if (start === "picture") return tensor(pictures[1], shape);
  if (start === "grey") {
    return tensor(new Float32Array(pictures[0].length).fill(0.5), shape);
  }
  const { data } = new Random(seed).stream("seed").normal(shape);
  return tensor(
    data.map((x) => Math.min(1, Math.max(0, 0.5 + x / 20))),
    shape,
  );
}

/** Rows on the straight line between two. */
function between(a: Tensor, b: Tensor, count: number): Tensor {
  const length = a.data.length;
  const data = new Float32Array(count * length);
  for (let i = 0; i < count; i++) {
    const lambda = count > 1 ? i / (count - 1) : 0;
    for (let j = 0; j < length; j++) {
      data[i * length + j] = (1 - lambda) * a.data[j] + lambda * b.data[j];
    }
  }
  return tensor(data, [count, ...a.shape.slice(1)]);
}

/** An image of a batch as a canvas takes it. */
function rgbaOf(
  { data, shape: [, , height, width] }: Tensor,
  index: number,
): Uint8ClampedArray<ArrayBuffer> {
  const size = height * width;
  const pixels = new Uint8ClampedArray(4 * size);
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) {
      pixels[4 * i + c] = 255 * data[(3 * index + c) * size + i];
    }
    pixels[4 * i + 3] = 255;
  }
  return pixels;
}

function predictionOf(
  logits: Float32Array,
  classes: readonly string[],
): Prediction {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(logits, (x) => Math.exp(x - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x, i) => ({ name: classes[i], probability: x / sum }))
    .sort((a, b) => b.probability - a.probability).slice(0, 3);
}

function rankOf(representation: Float32Array, coordinate: number): number {
  const value = representation[coordinate];
  return 1 + representation.filter((other) => other > value).length;
}

function distance(a: Float32Array, b: Float32Array): number {
  return Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0));
}
