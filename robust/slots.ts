/**
 * Attacks on many images whose lengths differ: a batch of slots, each of which
 * takes the next image as soon as its own is done.
 *
 * @module
 */
import { sizeOf, type Tensor, tensor } from "../core/mod.ts";

/** Images to attack, read one at a time. */
export interface AttackSource {
  /** Number of images. */
  readonly count: number;
  /** Shape of one, `[3, h, w]`. */
  readonly imageShape: readonly number[];
  /** Label of image `i`, a class of the network. */
  label(i: number): number;
  /** Names the random stream of image `i`, whatever else is attacked. */
  index(i: number): number;
  /** Pixels of image `i` in [0, 1]. */
  load(i: number): Promise<Float32Array>;
}

/** How an attack on one image ended. */
export interface AttackedImage {
  /** Place in the source. */
  readonly i: number;
  /** Whether an image of another class was found. */
  readonly broken: boolean;
  /** That image, or else the best of the attack; valid during the call. */
  readonly pixels: Float32Array;
  /** Images that the network was shown. */
  readonly queries: number;
}

/** What every attack takes besides its settings. */
export interface AttackOptions {
  /** Images per run of the program (default 64). */
  readonly batchSize?: number;
  /** Seed of all that is random (default 0). */
  readonly seed?: number;
  /** Receives the number of images done. */
  readonly onProgress?: (done: number) => void;
  /** Stops the attack: the promise rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** Result of an attack on images in memory. */
export interface AttackResult {
  /** Adversarial images where found, else the attack's best, `[n, 3, h, w]`. */
  readonly images: Tensor;
  /** Whether each is misclassified. */
  readonly broken: readonly boolean[];
  /** Times the network was shown each image. */
  readonly queries: readonly number[];
}

/**
 * Moves images through slots.
 *
 * @param size Number of slots
 * @param source Images to attack
 * @param work.start Begins an image in a slot
 * @param work.run Runs all slots once
 * @param work.advance Looks at a slot's outcome; a result frees the slot
 */
export async function runSlots<State>(
  size: number,
  source: AttackSource,
  work: {
    readonly start: (slot: number, i: number) => Promise<State>;
    readonly run: () => Promise<void>;
    readonly advance: (
      slot: number,
      state: State,
    ) => Promise<Omit<AttackedImage, "i"> | null>;
    readonly onDone: (image: AttackedImage) => void;
    readonly onProgress?: (done: number) => void;
    readonly signal?: AbortSignal;
  },
): Promise<void> {
  const busy = new Map<number, { i: number; state: State }>();
  let next = 0, done = 0;
  const fill = async (slot: number) => {
    if (next >= source.count) return;
    const i = next++;
    busy.set(slot, { i, state: await work.start(slot, i) });
  };
  for (let slot = 0; slot < size; slot++) await fill(slot);
  while (busy.size > 0) {
    work.signal?.throwIfAborted();
    await work.run();
    for (const [slot, { i, state }] of [...busy]) {
      const result = await work.advance(slot, state);
      if (!result) continue;
      work.onDone({ i, ...result });
      done++;
      busy.delete(slot);
      await fill(slot);
    }
    work.onProgress?.(done);
  }
}

/** Images in memory as a source. */
export function sourceOf(
  images: Tensor,
  labels: ArrayLike<number>,
): AttackSource {
  const [count, ...imageShape] = images.shape;
  if (labels.length !== count) {
    throw new TypeError(
      `Cannot attack ${count} images with ${labels.length} labels: need one ` +
        `label per image`,
    );
  }
  const length = sizeOf(imageShape);
  return {
    count,
    imageShape,
    label: (i) => labels[i],
    index: (i) => i,
    load: (i) =>
      Promise.resolve(images.data.subarray(i * length, (i + 1) * length)),
  };
}

/** Collects the outcomes of an attack on images in memory. */
export function collector(images: Tensor): {
  readonly onDone: (image: AttackedImage) => void;
  readonly result: AttackResult;
} {
  const [count, ...rest] = images.shape;
  const data = new Float32Array(images.data.length);
  const broken = new Array<boolean>(count).fill(false);
  const queries = new Array<number>(count).fill(0);
  return {
    onDone: (image) => {
      data.set(image.pixels, image.i * sizeOf(rest));
      broken[image.i] = image.broken;
      queries[image.i] = image.queries;
    },
    result: { images: tensor(data, images.shape), broken, queries },
  };
}

/** Whether a row of logits names another class than `label`; NaN does. */
export function isMisclassified(
  logits: Float32Array,
  label: number,
): boolean {
  const own = logits[label];
  for (let j = 0; j < logits.length; j++) {
    // As `predictions()`: the first of equal logits counts.
    if (j < label ? !(logits[j] < own) : j > label && !(logits[j] <= own)) {
      return true;
    }
  }
  return !(own === own);
}
