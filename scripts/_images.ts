/**
 * Pictures of experiments: reading a user's, labelling predictions, seeds.
 *
 * @module
 */
import {
  type Card,
  fitImage,
  type LoadedNetwork,
  predictions,
  type Random,
  readImage,
  rows,
  sizeOf,
  stack,
  type Tensor,
  tensor,
} from "../mod.ts";

/**
 * Reads pictures of any size at the size of a model's images.
 *
 * @returns `[paths.length, 3, size, size]`
 */
export async function readImages(
  paths: readonly string[],
  { imageSize }: Pick<Card, "imageSize">,
): Promise<Tensor> {
  const images: Tensor[] = [];
  for (const path of paths) {
    images.push(fitImage(await readPicture(path), imageSize));
  }
  return stack(images);
}

/** Images `[n, 3, h, w]` one by one, each `[3, h, w]`. */
export function unstack(images: Tensor): Tensor[] {
  const [n, ...shape] = images.shape;
  return Array.from(
    { length: n },
    (_, i) => tensor(rows(images, i, i + 1).data, shape),
  );
}

/**
 * Noise that inversions start from, 0.5 + N(0, 1) / 20 (paper, appendix).
 *
 * @param shape `[n, 3, h, w]`
 */
export function noiseSeeds(shape: readonly number[], random: Random): Tensor {
  const { data } = random.stream("seed").normal(shape);
  return tensor(data.map((x) => clip01(0.5 + x / 20)), shape);
}

function clip01(x: number): number {
  return Math.min(1, Math.max(0, x));
}

/**
 * Straight line between two images or representations.
 *
 * @param a First end, `[1, ...]`
 * @param b Last end, of the same shape
 * @returns `[frames, ...]`, from `a` to `b`, both included
 */
export function lerp(a: Tensor, b: Tensor, frames: number): Tensor {
  const [, ...shape] = a.shape;
  const length = sizeOf(shape);
  const data = new Float32Array(frames * length);
  for (let i = 0; i < frames; i++) {
    const lambda = frames > 1 ? i / (frames - 1) : 0;
    for (let j = 0; j < length; j++) {
      data[i * length + j] = (1 - lambda) * a.data[j] + lambda * b.data[j];
    }
  }
  return tensor(data, [frames, ...shape]);
}

/** Name of the class that a network sees in each image. */
export async function classNames(
  { network, card }: LoadedNetwork,
  images: Tensor,
  options: { readonly batchSize?: number },
): Promise<string[]> {
  const { logits } = await network.predict(images, options);
  return Array.from(predictions(logits), (label) => card.classes[label]);
}

/** Reads an image file; an error says what to do. */
async function readPicture(path: string): Promise<Tensor> {
  try {
    return await readImage(path);
  } catch (error) {
    const { message } = error as Error;
    if (error instanceof Deno.errors.NotFound) {
      throw new Deno.errors.NotFound(`${message}; check the path`);
    }
    if (!(error instanceof SyntaxError)) throw error;
    throw new SyntaxError(`${message}; pass another file, or save it anew`, {
      cause: error,
    });
  }
}
