/**
 * Small splits in memory.
 *
 * @module
 */
import { Random, sizeOf } from "../../core/mod.ts";
import { makeSplit, sharedBytes } from "../../datasets/dataset.ts";
import type { ImageShape, Split } from "../../datasets/mod.ts";

/** A split of bytes. */
export function splitOf(
  pixels: ArrayLike<number>,
  labels: ArrayLike<number>,
  imageShape: ImageShape,
): Split {
  const shared = sharedBytes(pixels.length);
  shared.set(pixels);
  return makeSplit({
    name: "train",
    imageShape,
    labels: Uint32Array.from(labels),
    source: { kind: "packed", pixels: shared },
  });
}

/** Noise whose brightness tells the class. */
export function noisySplit(
  { size, side, classes, seed }: {
    readonly size: number;
    readonly side: number;
    readonly classes: number;
    readonly seed: number;
  },
): Split {
  const imageShape = [3, side, side] as const;
  const random = new Random(seed);
  const labels = Array.from({ length: size }, (_, i) => i % classes);
  const pixels = labels.flatMap((label) =>
    Array.from({ length: sizeOf(imageShape) }, () => {
      const brightness = 40 + 160 * label / Math.max(1, classes - 1);
      return Math.floor(brightness + random.uniform(-40, 40));
    })
  );
  return splitOf(pixels, labels, imageShape);
}
