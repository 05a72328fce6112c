/**
 * Random changes to training images, as pure functions of pixels and a
 * generator. The defaults are those of MadryLab's `robustness` library, which
 * are torchvision's transforms; values are kept as real numbers between steps
 * where torchvision rounds to bytes.
 *
 * @module
 */
import { type Random, type Tensor, tensor } from "../core/mod.ts";
import { type Region, resizeRegion } from "./resize.ts";

/**
 * Which random changes training images get:
 *
 * - `none`: no change; large images are resized and centre cropped.
 * - `standard`: up to 64 x 64: a random crop after padding with size / 8 zeros
 *   (4 for 32 x 32) and a horizontal flip. Larger: a random crop resized,
 *   flip, colour jitter of 0.1 and PCA lighting noise.
 * - `reference`: up to 64 x 64: `standard`, then colour jitter of 0.25 and a
 *   rotation by up to 2 degrees. Larger: the same as `standard`.
 * - `crop`: up to 64 x 64: a random crop of 35% to 100% of the area resized,
 *   flip, and colour jitter of 0.1: for few images that show objects at many
 *   sizes, such as Restricted Tiny ImageNet's. Larger: the same as `standard`.
 */
export type Augmentation = "none" | "standard" | "reference" | "crop";

/** Names of the augmentations. */
export const AUGMENTATIONS: readonly Augmentation[] = [
  "none",
  "standard",
  "reference",
  "crop",
];

/**
 * Least share of a small image's area that a crop keeps: the 8% of ImageNet's
 * 224 pixels would leave an object of 64 x 64 too few.
 */
const LEAST_CROP = 0.35;

/** Planar pixels of one image: `data` is `[3, size, size]`, in [0, 1]. */
export interface Square {
  readonly data: Float32Array;
  readonly size: number;
}

/**
 * Augments a small image, in place.
 *
 * @param image Pixels `[3, size, size]`
 * @param augmentation What to do
 * @param random Stream of this image alone
 * @param scratch As long as `image.data`; overwritten
 */
export function augmentSmall(
  image: Square,
  augmentation: Augmentation,
  random: Random,
  scratch: Float32Array,
): void {
  if (augmentation === "none") return;
  if (augmentation === "crop") {
    cropAndFlip(image, random);
    colourJitter(image.data, 0.1, random);
    return;
  }
  const pad = Math.round(image.size / 8);
  const dx = random.integer(2 * pad + 1) - pad;
  const dy = random.integer(2 * pad + 1) - pad;
  const flipped = random.uniform() < 0.5;
  shiftAndFlip(image, { dx, dy, flipped }, scratch);
  if (augmentation === "reference") {
    colourJitter(image.data, 0.25, random);
    rotate(image, random.uniform(-2, 2), scratch);
  }
}

/**
 * Moves the picture by whole pixels, zeros coming in at the edges, then
 * mirrors it left to right: a crop of the padded image.
 *
 * @param move Pixel `(x, y)` of the crop is `(x + dx, y + dy)` of the image
 */
export function shiftAndFlip(
  { data, size }: Square,
  move: { dx: number; dy: number; flipped: boolean },
  scratch: Float32Array,
): void {
  const { dx, dy, flipped } = move;
  scratch.set(data);
  for (let row = 0; row < 3 * size; row++) {
    const y = row % size + dy;
    const inside = y >= 0 && y < size;
    const from = (row + dy) * size + dx, to = row * size;
    for (let x = 0; x < size; x++) {
      const column = x + dx;
      const value = inside && column >= 0 && column < size
        ? scratch[from + x]
        : 0;
      data[to + (flipped ? size - 1 - x : x)] = value;
    }
  }
}

/** A random part of a small image resized to all of it, mirrored or not. */
function cropAndFlip({ data, size }: Square, random: Random): void {
  const region = randomRegion(size, size, random, LEAST_CROP);
  const whole = { height: size, width: size };
  const crop = resizeRegion(tensor(data, [3, size, size]), region, whole);
  if (random.uniform() < 0.5) flipRows(crop.data, size);
  data.set(crop.data);
}

/** Mirrors rows of pixels left to right, in place. */
function flipRows(data: Float32Array, width: number): void {
  for (let at = 0; at < data.length; at += width) {
    data.subarray(at, at + width).reverse();
  }
}

/** Weights of red, green and blue in grey (ITU-R 601-2, as Pillow). */
const GREY = [0.299, 0.587, 0.114] as const;

const clamp = (value: number) => value < 0 ? 0 : value > 1 ? 1 : value;

/**
 * Brightness, contrast and saturation, each by a random factor, in random
 * order, in place (torchvision `ColorJitter(strength, strength, strength)`).
 *
 * @param data Pixels `[3, h, w]`
 * @param strength Factors are uniform in [1 - strength, 1 + strength]
 */
export function colourJitter(
  data: Float32Array,
  strength: number,
  random: Random,
): void {
  const factors = [0, 0, 0].map(() =>
    random.uniform(1 - strength, 1 + strength)
  );
  const steps = [adjustBrightness, adjustContrast, adjustSaturation];
  for (const i of random.permutation(3)) steps[i](data, factors[i]);
}

/** Multiplies all pixels, in place. */
export function adjustBrightness(data: Float32Array, factor: number): void {
  for (let i = 0; i < data.length; i++) data[i] = clamp(data[i] * factor);
}

/** Moves pixels `[3, h, w]` away from their mean grey, in place. */
export function adjustContrast(data: Float32Array, factor: number): void {
  const plane = data.length / 3;
  let sum = 0;
  for (let i = 0; i < plane; i++) {
    sum += GREY[0] * data[i] + GREY[1] * data[plane + i] +
      GREY[2] * data[2 * plane + i];
  }
  const offset = (1 - factor) * sum / plane;
  for (let i = 0; i < data.length; i++) {
    data[i] = clamp(data[i] * factor + offset);
  }
}

/** Moves each pixel of `[3, h, w]` away from its own grey, in place. */
export function adjustSaturation(data: Float32Array, factor: number): void {
  const plane = data.length / 3;
  for (let i = 0; i < plane; i++) {
    const r = data[i], g = data[plane + i], b = data[2 * plane + i];
    const grey = (1 - factor) * (GREY[0] * r + GREY[1] * g + GREY[2] * b);
    data[i] = clamp(r * factor + grey);
    data[plane + i] = clamp(g * factor + grey);
    data[2 * plane + i] = clamp(b * factor + grey);
  }
}

/**
 * Rotates about the centre, in place: nearest neighbour, zeros outside
 * (torchvision `RandomRotation` and Pillow `rotate`).
 *
 * @param degrees Counter-clockwise angle
 */
export function rotate(
  { data, size }: Square,
  degrees: number,
  scratch: Float32Array,
): void {
  scratch.set(data);
  const radians = degrees * Math.PI / 180;
  const cos = Math.cos(radians), sin = Math.sin(radians);
  const centre = size / 2, plane = size * size;
  for (let y = 0; y < size; y++) {
    const v = y + 0.5 - centre;
    for (let x = 0; x < size; x++) {
      const u = x + 0.5 - centre;
      const column = Math.floor(cos * u - sin * v + centre);
      const row = Math.floor(sin * u + cos * v + centre);
      const to = y * size + x;
      const inside = column >= 0 && column < size && row >= 0 && row < size;
      const from = row * size + column;
      data[to] = inside ? scratch[from] : 0;
      data[to + plane] = inside ? scratch[from + plane] : 0;
      data[to + 2 * plane] = inside ? scratch[from + 2 * plane] : 0;
    }
  }
}

/**
 * Region that a random resized crop takes: width to height 3/4 to 4/3
 * (torchvision `RandomResizedCrop.get_params`).
 *
 * @param least Least share of the area that it keeps
 */
export function randomRegion(
  height: number,
  width: number,
  random: Random,
  least = 0.08,
): Region {
  const low = Math.log(3 / 4), high = Math.log(4 / 3);
  for (let attempt = 0; attempt < 10; attempt++) {
    const area = height * width * random.uniform(least, 1);
    const ratio = Math.exp(random.uniform(low, high));
    const w = Math.round(Math.sqrt(area * ratio));
    const h = Math.round(Math.sqrt(area / ratio));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    const top = random.integer(height - h + 1);
    const left = random.integer(width - w + 1);
    return { top, left, height: h, width: w };
  }
  const ratio = width / height;
  const w = ratio > 4 / 3 ? Math.round(height * 4 / 3) : width;
  const h = ratio < 3 / 4 ? Math.round(width * 4 / 3) : height;
  return {
    top: Math.floor((height - h) / 2),
    left: Math.floor((width - w) / 2),
    height: h,
    width: w,
  };
}

/** Principal components of ImageNet colours, columns are vectors. */
const EIGENVALUES = [0.2175, 0.0188, 0.0045] as const;
const EIGENVECTORS = [
  [-0.5675, 0.7192, 0.4009],
  [-0.5808, -0.0045, -0.8140],
  [-0.5836, -0.6948, 0.4203],
] as const;

/**
 * Adds one colour along ImageNet's principal components to all pixels
 * `[3, h, w]`, in place (Krizhevsky et al. 2012), and clamps to [0, 1], which
 * the reference library does not.
 *
 * @param strength Standard deviation of the weight of each component
 */
export function lighting(
  data: Float32Array,
  strength: number,
  random: Random,
): void {
  const weights = random.normal([3]).data;
  const plane = data.length / 3;
  for (let c = 0; c < 3; c++) {
    let shift = 0;
    for (let k = 0; k < 3; k++) {
      shift += EIGENVECTORS[c][k] * weights[k] * strength * EIGENVALUES[k];
    }
    for (let i = c * plane; i < (c + 1) * plane; i++) {
      data[i] = clamp(data[i] + shift);
    }
  }
}

/**
 * Training form of a large image: random resized crop, flip, colour jitter
 * and lighting noise.
 *
 * @param image Image `[3, h, w]` in [0, 1]
 * @param size Height and width of the result
 * @param random Stream of this image alone
 * @returns Image `[3, size, size]`
 */
export function augmentLarge(
  image: Tensor,
  size: number,
  random: Random,
): Tensor {
  const [, height, width] = image.shape;
  const region = randomRegion(height, width, random);
  const crop = resizeRegion(image, region, { height: size, width: size });
  const flipped = random.uniform() < 0.5;
  if (flipped) flipRows(crop.data, size);
  colourJitter(crop.data, 0.1, random);
  lighting(crop.data, 0.05, random);
  return crop;
}
