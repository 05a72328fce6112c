/**
 * Batches of images: seeded order, augmentation in workers, prefetching.
 *
 * @module
 */
import { type Random, sizeOf, type Tensor, tensor } from "../core/mod.ts";
import { Pool } from "./_pool.ts";
import type { Failure, MadeFromFiles } from "./_worker.ts";
import { type Augmentation, AUGMENTATIONS } from "./augment.ts";
import type { Split } from "./dataset.ts";

/** Options of {@linkcode batches}. */
export interface BatchOptions {
  /** Images in a batch; the last one of an epoch may be smaller. */
  readonly batchSize: number;
  /** `shuffled` by (random, epoch), or as they lie in the split. */
  readonly order?: "sequential" | "shuffled";
  /** Random changes to the images; none if left out. */
  readonly augmentation?: Augmentation;
  /** Decides order and augmentation; only its seed and path matter. */
  readonly random: Random;
  /** Pass over the data, from 0; each has its own order and augmentation. */
  readonly epoch?: number;
  /** First batch to make, from 0: where an interrupted epoch resumes. */
  readonly start?: number;
  /** Distance from one batch to the next (default 1): others are left out. */
  readonly stride?: number;
  /**
   * Makes one of `count` equal parts of every batch: the part of rank `index`
   * where several processes share each batch.
   */
  readonly part?: { readonly index: number; readonly count: number };
  /** Leaves out a last batch smaller than the others. */
  readonly dropLast?: boolean;
  /** Batches made ahead of the one in use; 3 if left out, 2 for files. */
  readonly prefetch?: number;
  /** Worker threads; 1 if left out, all processors for files. */
  readonly workers?: number;
  /**
   * Receives one sentence about each image that cannot be decoded, and a count
   * at the end. Such images are left out; with `dropLast`, where batches are of
   * one size, another image of the batch takes the place. Without this they
   * are an error.
   */
  readonly onWarning?: (message: string) => void;
  /** Stops the generator, which then throws the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Some images with their labels. */
export interface Batch {
  /** Images `[n, 3, h, w]` in [0, 1]. */
  readonly images: Tensor;
  /** Label of each image, `[n]`. */
  readonly labels: Uint32Array;
  /** Place of each image in the split, `[n]`. */
  readonly indices: Uint32Array;
}

/** Number of batches one epoch has. */
export function batchCount(
  split: Pick<Split, "size">,
  { batchSize, dropLast = false }: Pick<BatchOptions, "batchSize" | "dropLast">,
): number {
  const count = split.size / batchSize;
  return dropLast ? Math.floor(count) : Math.ceil(count);
}

/**
 * One epoch of a split, batch by batch. Order and augmentation depend only on
 * the generator's seed and path, the epoch, and each image's index: not on
 * batch size, prefetching, the number of workers or the part that is made, so
 * that resuming with `start` gives the very same batches.
 *
 * Workers start with the first batch asked for and end with the generator:
 * run it to its end, leave its loop, or call its `return()`.
 *
 * @throws {RangeError} If a number is out of range
 * @throws {Error} If a file cannot be decoded, naming it, and there is no
 * `onWarning`
 *
 * @example
 * ```ts
 * import { Random } from "../core/mod.ts";
 * import { batches, openDataset } from "./mod.ts";
 *
 * const { splits } = await openDataset("shapes", {
 *   splits: ["train"],
 *   limit: 100,
 * });
 * const options = { batchSize: 50, random: new Random(0), epoch: 0 };
 * for await (const { images, labels } of batches(splits.train, options)) {
 *   console.log(images.shape, labels[0]); // [50, 3, 32, 32]
 * }
 * ```
 */
export async function* batches(
  split: Split,
  options: BatchOptions,
): AsyncGenerator<Batch, void, void> {
  const { batchSize, random, epoch = 0, start = 0, signal } = options;
  const { stride = 1, part = { index: 0, count: 1 } } = options;
  const { order = "sequential", augmentation = "none" } = options;
  const files = split.source.kind === "files";
  const { prefetch = files ? 2 : 3 } = options;
  const { workers = files ? navigator.hardwareConcurrency : 1 } = options;
  checkInteger("batch size", batchSize, 1);
  checkInteger("epoch", epoch, 0);
  checkInteger("first batch", start, 0);
  checkInteger("distance between batches", stride, 1);
  checkInteger("number of parts", part.count, 1);
  checkInteger("index of a part", part.index, 0);
  if (part.index >= part.count) {
    throw new RangeError(
      `Cannot make part ${part.index} of batches of ${part.count} parts: ` +
        `parts begin with 0`,
    );
  }
  checkInteger("number of batches to prefetch", prefetch, 0);
  checkInteger("number of workers", workers, 1);
  if (!AUGMENTATIONS.includes(augmentation)) {
    throw new RangeError(
      `Cannot augment with "${augmentation}": give one of ` +
        AUGMENTATIONS.join(", "),
    );
  }
  signal?.throwIfAborted();

  const sequence = order === "shuffled"
    ? random.stream("order", epoch).permutation(split.size)
    : Uint32Array.from({ length: split.size }, (_, i) => i);
  const seed = random.stream("augmentation", epoch).uint32();
  const count = batchCount(split, options);

  let failed = 0;
  using pool = new Pool(workers);
  const abort = () => pool.close(signal?.reason);
  signal?.addEventListener("abort", abort);
  try {
    const queue: Promise<MadeBatch>[] = [];
    for (let next = start, made = start; made < count; made += stride) {
      while (next < count && next <= made + prefetch * stride) {
        const whole = sequence.subarray(
          next * batchSize,
          Math.min((next + 1) * batchSize, split.size),
        );
        const edge = (index: number) =>
          Math.floor(index * whole.length / part.count);
        const indices = whole.slice(edge(part.index), edge(part.index + 1));
        const batch = makeBatch(split, indices, { augmentation, seed, pool });
        batch.catch(() => {}); // Rejections count when their batch is due.
        queue.push(batch);
        next += stride;
      }
      const { batch, failures } = await queue.shift()!;
      if (failures.length > 0 && !options.onWarning) {
        throw new Error(failures[0].message);
      }
      for (const { message } of failures) options.onWarning!(message);
      failed += failures.length;
      const kept = withoutFailures(batch, failures, options);
      if (kept) yield kept;
    }
  } finally {
    signal?.removeEventListener("abort", abort);
    if (failed > 0) {
      options.onWarning?.(
        `Left out ${failed} of ${split.size} images of the ${split.name} split`,
      );
    }
  }
}

interface MadeBatch {
  readonly batch: Batch;
  /** Images that could not be decoded, by position in the batch. */
  readonly failures: readonly Failure[];
}

/** A batch without some images, or with others in their place; null if empty. */
function withoutFailures(
  batch: Batch,
  failures: readonly Failure[],
  { dropLast = false }: Pick<BatchOptions, "dropLast">,
): Batch | null {
  if (failures.length === 0) return batch;
  const { images, labels, indices } = batch;
  const bad = new Set(failures.map(({ position }) => position));
  const positions = [...labels.keys()];
  const good = positions.filter((position) => !bad.has(position));
  if (good.length === 0) {
    if (!dropLast) return null;
    throw new Error(
      `Cannot make a batch as none of its ${labels.length} images can be ` +
        `decoded: ${failures[0].message}`,
    );
  }
  const rows = dropLast
    ? positions.map((position) =>
      good.findLast((other) => other <= position) ?? good[0]
    )
    : good;
  const shape = images.shape.slice(1);
  const length = sizeOf(shape);
  const data = new Float32Array(rows.length * length);
  rows.forEach((from, to) =>
    data.set(
      images.data.subarray(from * length, (from + 1) * length),
      to * length,
    )
  );
  return {
    images: tensor(data, [rows.length, ...shape]),
    labels: Uint32Array.from(rows, (i) => labels[i]),
    indices: Uint32Array.from(rows, (i) => indices[i]),
  };
}

interface MakeOptions {
  readonly augmentation: Augmentation;
  readonly seed: number;
  readonly pool: Pool;
}

async function makeBatch(
  split: Split,
  indices: Uint32Array,
  { augmentation, seed, pool }: MakeOptions,
): Promise<MadeBatch> {
  const { source, imageShape } = split;
  const size = imageShape[1];
  // One image is quick to make from bytes, so workers share an epoch by
  // batches; decoding is slow, so they share each batch.
  const parts = source.kind === "files"
    ? Math.min(pool.size, indices.length)
    : 1;
  const step = Math.ceil(indices.length / parts);
  const jobs: Promise<MadeFromFiles>[] = [];
  for (let from = 0; from < indices.length; from += step) {
    const some = indices.slice(from, from + step);
    const making = { indices: some, size, augmentation, seed };
    jobs.push(
      source.kind === "files"
        ? pool.run({
          kind: "files",
          paths: Array.from(some, (i) => source.paths[i]),
          ...making,
        })
        : pool.run({ kind: "packed", pixels: source.pixels, ...making })
          .then((data) => ({ data, failures: [] })),
    );
  }
  const made = await Promise.all(jobs);
  const data = made.length === 1
    ? made[0].data
    : new Float32Array(indices.length * 3 * size * size);
  if (made.length > 1) {
    made.forEach((part, i) => data.set(part.data, i * step * 3 * size * size));
  }
  return {
    batch: {
      images: tensor(data, [indices.length, ...imageShape]),
      labels: Uint32Array.from(indices, (i) => split.labels[i]),
      indices,
    },
    failures: made.flatMap(({ failures }, i) =>
      failures.map(({ position, message }) => ({
        position: i * step + position,
        message,
      }))
    ),
  };
}

function checkInteger(name: string, value: number, least: number): void {
  if (!Number.isInteger(value) || value < least) {
    throw new RangeError(
      `Cannot make batches as the ${name} must be an integer >= ${least}: ` +
        `current value is ${value}`,
    );
  }
}
