/**
 * What runs off the main thread: decoding, augmenting and drawing. Jobs name
 * everything they need, so any worker can do any job with the same result.
 *
 * @module
 */
/// <reference lib="deno.worker" />
import { Random } from "../core/mod.ts";
import { type Augmentation, augmentLarge, augmentSmall } from "./augment.ts";
import { type SplitName, unpack } from "./dataset.ts";
import { fillShapes } from "./shapes.ts";

/** Which images of a batch to make, and how. */
interface Making {
  /** Indices in the split: they name each image's random stream. */
  readonly indices: Uint32Array;
  /** Height and width in pixels. */
  readonly size: number;
  readonly augmentation: Augmentation;
  /** Seed of this epoch's augmentation. */
  readonly seed: number;
}

/** Images from bytes in memory, `[n, 3, size, size]`. */
export interface PackedJob extends Making {
  readonly kind: "packed";
  readonly pixels: Uint8Array<SharedArrayBuffer>;
}

/** Images from files, `[n, 3, size, size]`. */
export interface FilesJob extends Making {
  readonly kind: "files";
  /** One path per index. */
  readonly paths: readonly string[];
}

/** Decodes files into shared bytes, one image after the other. */
export interface DecodeJob {
  readonly kind: "decode";
  readonly paths: readonly string[];
  readonly size: number;
  readonly out: Uint8Array<SharedArrayBuffer>;
}

/** Draws part of the `shapes` data set into shared bytes. */
export interface ShapesJob {
  readonly kind: "shapes";
  readonly split: SplitName;
  readonly start: number;
  readonly size: number;
  readonly out: Uint8Array<SharedArrayBuffer>;
}

export type Job = PackedJob | FilesJob | DecodeJob | ShapesJob;

/** An image that could not be decoded: its place in the job, and why. */
export interface Failure {
  readonly position: number;
  readonly message: string;
}

/** Images made from files; the rows of those that failed are 0. */
export interface MadeFromFiles {
  readonly data: Float32Array<ArrayBuffer>;
  readonly failures: readonly Failure[];
}

/** What each job results in. */
export type ResultOf<J extends Job> = J extends PackedJob
  ? Float32Array<ArrayBuffer>
  : J extends FilesJob ? MadeFromFiles
  : J extends DecodeJob ? readonly Failure[]
  : null;

export type Reply =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly message: string };

const messageOf = (error: unknown) =>
  error instanceof Error ? error.message : String(error);

function makePacked(job: PackedJob): Float32Array<ArrayBuffer> {
  const { indices, size, augmentation, seed } = job;
  const length = 3 * size * size;
  const out = new Float32Array(indices.length * length);
  const scratch = new Float32Array(length);
  indices.forEach((index, i) => {
    const data = out.subarray(i * length, (i + 1) * length);
    unpack(job.pixels, index * length, data);
    const random = new Random(seed, ["image", index]);
    augmentSmall({ data, size }, augmentation, random, scratch);
  });
  return out;
}

async function makeFromFiles(job: FilesJob): Promise<MadeFromFiles> {
  const { fitImage, readImage } = await import("./image.ts");
  const { paths, indices, size, augmentation, seed } = job;
  const length = 3 * size * size;
  const data = new Float32Array(paths.length * length);
  const failures: Failure[] = [];
  for (const [position, path] of paths.entries()) {
    try {
      const image = await readImage(path);
      const random = new Random(seed, ["image", indices[position]]);
      const made = augmentation === "none"
        ? fitImage(image, size)
        : augmentLarge(image, size, random);
      data.set(made.data, position * length);
    } catch (error) {
      failures.push({ position, message: messageOf(error) });
    }
  }
  return { data, failures };
}

async function decode(job: DecodeJob): Promise<readonly Failure[]> {
  const { fitImage, readImage } = await import("./image.ts");
  const failures: Failure[] = [];
  const length = 3 * job.size * job.size;
  for (const [position, path] of job.paths.entries()) {
    try {
      const { data } = fitImage(await readImage(path), job.size);
      const row = job.out.subarray(position * length, (position + 1) * length);
      for (let i = 0; i < length; i++) row[i] = Math.round(data[i] * 255);
    } catch (error) {
      failures.push({ position, message: messageOf(error) });
    }
  }
  return failures;
}

function run(job: Job): unknown {
  switch (job.kind) {
    case "packed":
      return makePacked(job);
    case "files":
      return makeFromFiles(job);
    case "decode":
      return decode(job);
    case "shapes":
      fillShapes(job.out, job);
      return null;
  }
}

const scope = globalThis as unknown as DedicatedWorkerGlobalScope;

scope.onmessage = async ({ data: job }: MessageEvent<Job>) => {
  try {
    const result = await run(job);
    const data = result instanceof Float32Array
      ? result
      : (result as Partial<MadeFromFiles> | null)?.data;
    const transfer = data ? [data.buffer as ArrayBuffer] : [];
    scope.postMessage({ ok: true, result } satisfies Reply, transfer);
  } catch (error) {
    const message = messageOf(error);
    scope.postMessage({ ok: false, message } satisfies Reply);
  }
};
