/**
 * What a data set is to the rest of the project, and the two kinds of split
 * behind one interface: bytes in memory, and files decoded when needed.
 *
 * @module
 */
import { Random, sizeOf, type Tensor, tensor } from "../core/mod.ts";

/** Part of a data set. */
export type SplitName = "train" | "test";

/** Sizes of one image: colour channels, height and width in pixels. */
export type ImageShape = readonly [3, number, number];

/** One value per colour channel: red, green, blue, in [0, 1] pixel units. */
export type Rgb = readonly [number, number, number];

/** How far a long task has come. */
export interface Progress {
  /** What is being done, such as `decode train`. */
  readonly stage: string;
  /** Units done so far: images, or bytes of a download. */
  readonly done: number;
  /** Units in all; 0 if not known. */
  readonly total: number;
}

/** Options of everything here that takes a while. */
export interface TaskOptions {
  /** Receives progress, a few times a second at most. */
  readonly onProgress?: (progress: Progress) => void;
  /** Stops the task, which then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Options of {@linkcode openDataset}. */
export interface OpenOptions<S extends SplitName = SplitName>
  extends TaskOptions {
  /** Folder or archive of the data set; `shapes` needs none. */
  readonly data?: string;
  /** Splits to open; others may be missing from the folder. */
  readonly splits: readonly S[];
  /**
   * Keeps this many images of each split, taken from the classes in turn, so
   * that even a small limit sees all classes. Which images are kept never
   * changes; a smaller limit keeps a prefix of a larger one.
   */
  readonly limit?: number;
  /** Height and width of the images in pixels; each data set has a default. */
  readonly size?: number;
  /** Receives one sentence about each image left out, and a count. */
  readonly onWarning?: (message: string) => void;
}

/** Labelled images, opened. */
export interface Dataset<S extends SplitName = SplitName> {
  /** Name in the registry. */
  readonly name: string;
  /** Name of each label. */
  readonly classes: readonly string[];
  /** Shape of one image. */
  readonly imageShape: ImageShape;
  /** Mean of each channel, for the normalization inside the model. */
  readonly mean: Rgb;
  /** Standard deviation of each channel. */
  readonly std: Rgb;
  /** The splits asked for. */
  readonly splits: Readonly<Record<S, Split>>;
  /** Lets go of all splits. */
  close(): void;
}

/**
 * Where the pixels of a split are, in a form workers can be sent: bytes
 * `[size, 3, h, w]` shared between threads, or one file per image.
 */
export type Source =
  | { readonly kind: "packed"; readonly pixels: Uint8Array<SharedArrayBuffer> }
  | { readonly kind: "files"; readonly paths: readonly string[] };

/** Labelled images of one split. */
export interface Split {
  /** Which part of the data set this is. */
  readonly name: SplitName;
  /** Number of images. */
  readonly size: number;
  /** Shape of one image. */
  readonly imageShape: ImageShape;
  /** Label of each image, `[size]`. */
  readonly labels: Uint32Array;
  /** Where the pixels are; `batches()` hands it to workers. */
  readonly source: Source;
  /**
   * Images as they are, without augmentation. Decodes files on this thread:
   * meant for a handful of images; `batches()` is for many.
   *
   * @param indices Which images, each 0 <= index < size
   * @returns Images `[indices.length, 3, h, w]` in [0, 1]
   * @throws {RangeError} If an index is out of range or the split is closed
   */
  load(indices: ArrayLike<number>): Promise<Tensor>;
  /** Lets go of the pixels; further use throws. */
  close(): void;
}

/** Images and labels read by a data set, before a split is made of them. */
export interface SplitContents {
  readonly name: SplitName;
  readonly imageShape: ImageShape;
  readonly labels: Uint32Array;
  readonly source: Source;
}

/** Means and standard deviations per channel, from the data sets' papers. */
export const NORMALIZATION = {
  cifar10: {
    mean: [0.4914, 0.4822, 0.4465],
    std: [0.2023, 0.1994, 0.2010],
  },
  imagenet: { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
  restrictedImagenet: {
    mean: [0.4717, 0.4499, 0.3837],
    std: [0.2600, 0.2516, 0.2575],
  },
} as const satisfies Record<string, { mean: Rgb; std: Rgb }>;

/** Images up to this height and width are kept decoded in memory. */
export const LARGEST_PACKED = 64;

/** A split over bytes in memory or over files. */
export function makeSplit(contents: SplitContents): Split {
  return new OpenSplit(contents);
}

class OpenSplit implements Split {
  readonly name: SplitName;
  readonly size: number;
  readonly imageShape: ImageShape;
  readonly labels: Uint32Array;
  #source: Source | undefined;

  constructor({ name, imageShape, labels, source }: SplitContents) {
    const images = source.kind === "files"
      ? source.paths.length
      : source.pixels.length / sizeOf(imageShape);
    if (images !== labels.length) {
      throw new TypeError(
        `Cannot make split "${name}" of ${images} images and ` +
          `${labels.length} labels: give one label for each image`,
      );
    }
    this.name = name;
    this.size = labels.length;
    this.imageShape = imageShape;
    this.labels = labels;
    this.#source = source;
  }

  get source(): Source {
    if (!this.#source) {
      throw new RangeError(
        `Cannot read split "${this.name}" as it is closed: open it again`,
      );
    }
    return this.#source;
  }

  async load(indices: ArrayLike<number>): Promise<Tensor> {
    const { source, imageShape } = this;
    checkIndices(indices, this.size);
    const length = sizeOf(imageShape);
    const data = new Float32Array(indices.length * length);
    for (let i = 0; i < indices.length; i++) {
      const row = data.subarray(i * length, (i + 1) * length);
      if (source.kind === "packed") {
        unpack(source.pixels, indices[i] * length, row);
      } else {
        const { readImage, fitImage } = await import("./image.ts");
        const image = await readImage(source.paths[indices[i]]);
        row.set(fitImage(image, imageShape[1]).data);
      }
    }
    return tensor(data, [indices.length, ...imageShape]);
  }

  close(): void {
    this.#source = undefined;
  }
}

/** A data set of opened splits. */
export function makeDataset<S extends SplitName>(
  { name, classes, size, normalization, splits }: {
    readonly name: string;
    readonly classes: readonly string[];
    readonly size: number;
    readonly normalization: { readonly mean: Rgb; readonly std: Rgb };
    readonly splits: Readonly<Record<S, Split>>;
  },
): Dataset<S> {
  return {
    name,
    classes,
    imageShape: [3, size, size],
    mean: normalization.mean,
    std: normalization.std,
    splits,
    close() {
      for (const split of Object.values<Split>(splits)) split.close();
    },
  };
}

/** Bytes from `start` on as numbers in [0, 1]. */
export function unpack(
  pixels: Uint8Array,
  start: number,
  out: Float32Array,
): void {
  for (let i = 0; i < out.length; i++) out[i] = pixels[start + i] / 255;
}

/** Allocates bytes all threads share. */
export function sharedBytes(length: number): Uint8Array<SharedArrayBuffer> {
  return new Uint8Array(new SharedArrayBuffer(length));
}

/** @throws {RangeError} If an index is not one of `size` images */
export function checkIndices(indices: ArrayLike<number>, size: number): void {
  for (let i = 0; i < indices.length; i++) {
    const index = indices[i];
    if (!(Number.isInteger(index) && index >= 0 && index < size)) {
      throw new RangeError(
        `Cannot load image ${index} of a split of ${size}: ` +
          `indices run from 0 to ${size - 1}`,
      );
    }
  }
}

/**
 * All images in the order in which a limit keeps them: the classes in turn,
 * each in a fixed random order of its images.
 *
 * @param labels Label of each image
 * @returns Their indices; what larger classes have more comes last
 */
export function classesInTurn(labels: Uint32Array): Uint32Array {
  const members = new Map<number, number[]>();
  labels.forEach((label, i) => {
    const list = members.get(label);
    list ? list.push(i) : members.set(label, [i]);
  });
  const queues = [...members].sort(([a], [b]) => a - b).map(([label, list]) => {
    const order = new Random(0, ["limit", label]).permutation(list.length);
    return Array.from(order, (i) => list[i]);
  });
  const order = new Uint32Array(labels.length);
  for (let rank = 0, i = 0; i < order.length; rank++) {
    for (const queue of queues) {
      if (rank < queue.length) order[i++] = queue[rank];
    }
  }
  return order;
}

/**
 * Which images a limit keeps: the first of `classesInTurn()`. All images in
 * their own order if the limit is left out or not smaller than their number.
 *
 * @param labels Label of each image
 * @param limit Number of images to keep
 * @returns Indices of the images kept
 * @throws {RangeError} If the limit is not an integer > 0
 */
export function balancedSubset(
  labels: Uint32Array,
  limit?: number,
): Uint32Array {
  checkLimit(limit);
  return limit === undefined || limit >= labels.length
    ? Uint32Array.from(labels, (_, i) => i)
    : classesInTurn(labels).slice(0, limit);
}

/**
 * Some images of a split as a split of its own.
 *
 * @param split An open split; it may be closed afterwards
 * @param indices Which images, each 0 <= index < size
 * @throws {RangeError} If an index is out of range or the split is closed
 */
export function selectImages(
  split: Split,
  indices: ArrayLike<number>,
): Split {
  const { name, imageShape, source } = split;
  checkIndices(indices, split.size);
  const kept = Array.from(indices);
  const labels = Uint32Array.from(kept, (i) => split.labels[i]);
  if (source.kind === "files") {
    const paths = kept.map((i) => source.paths[i]);
    return makeSplit({
      name,
      imageShape,
      labels,
      source: { kind: "files", paths },
    });
  }
  const length = sizeOf(imageShape);
  const pixels = sharedBytes(kept.length * length);
  kept.forEach((from, to) =>
    pixels.set(
      source.pixels.subarray(from * length, (from + 1) * length),
      to * length,
    )
  );
  return makeSplit({
    name,
    imageShape,
    labels,
    source: { kind: "packed", pixels },
  });
}

/**
 * Images of a split taken from the classes in turn, as a split of its own:
 * those that opening with this limit keeps.
 *
 * @param split An open split; it may be closed afterwards
 * @param limit Number of images to keep
 * @throws {RangeError} If the limit is not an integer > 0 or the split is closed
 */
export function balancedSplit(split: Split, limit: number): Split {
  return selectImages(split, balancedSubset(split.labels, limit));
}

/** @throws {RangeError} If the limit is given but not an integer > 0 */
export function checkLimit(limit?: number): void {
  if (limit !== undefined && !(Number.isInteger(limit) && limit > 0)) {
    throw new RangeError(
      `Cannot limit a split to ${limit} images: give an integer > 0`,
    );
  }
}
