/**
 * Resizing and cropping of images `[3, h, w]`, pure. Bilinear filtering with
 * the filter widened when shrinking, as Pillow's `resize(..., BILINEAR)`.
 *
 * @module
 */
import { type Tensor, tensor } from "../core/mod.ts";

/** Height and width in pixels. */
export interface Size {
  /** Rows. */
  readonly height: number;
  /** Columns. */
  readonly width: number;
}

/** For each output position: where its inputs start, and their weights. */
interface Filter {
  readonly starts: Int32Array;
  /** Inputs of each output; weights beyond a filter's end are 0. */
  readonly taps: number;
  /** `[outputs, taps]` */
  readonly weights: Float32Array;
}

/** Filter from `input` to `output` positions, for outputs `from` to `to`. */
function triangleFilter(
  input: number,
  output: number,
  [from, to]: readonly [number, number],
): Filter {
  const scale = input / output;
  const support = Math.max(scale, 1);
  const taps = Math.min(input, Math.ceil(support) * 2 + 1);
  const starts = new Int32Array(to - from);
  const weights = new Float32Array((to - from) * taps);
  for (let i = from; i < to; i++) {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(input, Math.trunc(centre + support + 0.5));
    // Near the far edge, begin early enough for all taps to be inside.
    const start = Math.min(first, input - taps);
    const row = weights.subarray((i - from) * taps, (i - from + 1) * taps);
    let sum = 0;
    for (let k = first; k < end; k++) {
      const distance = Math.abs((k - centre + 0.5) / support);
      sum += row[k - start] = Math.max(0, 1 - distance);
    }
    for (let k = 0; k < taps; k++) row[k] /= sum;
    starts[i - from] = start;
  }
  return { starts, taps, weights };
}

/** Shape `[3, h, w]` of an image. @throws {TypeError} If it is another */
export function imageSize({ shape }: Tensor): Size {
  const [channels, height, width] = shape;
  if (shape.length !== 3 || channels !== 3 || !height || !width) {
    throw new TypeError(
      `Cannot use a tensor of shape [${shape}] as an image: ` +
        `give [3, height, width]`,
    );
  }
  return { height, width };
}

function checkSize({ height, width }: Size): void {
  if (![height, width].every((n) => Number.isInteger(n) && n > 0)) {
    throw new RangeError(
      `Cannot resize to height ${height} and width ${width}: ` +
        `give integers > 0`,
    );
  }
}

/** Part of an image, in pixels. */
export interface Region extends Size {
  readonly top: number;
  readonly left: number;
}

function checkInside(region: Region, image: Size): void {
  const { top, left, height, width } = region;
  if (
    !(top >= 0 && left >= 0 && height > 0 && width > 0 &&
      top + height <= image.height && left + width <= image.width)
  ) {
    throw new RangeError(
      `Cannot take ${height} x ${width} pixels at row ${top}, column ${left} ` +
        `of an image of ${image.height} x ${image.width}`,
    );
  }
}

/**
 * Resizes part of an image as if it had been cut out first.
 *
 * @param image Image `[3, h, w]`
 * @param region Part to take, inside the image
 * @param size Height and width to make
 * @param window Part of the result to make; all of it if left out
 * @returns Image `[3, window.height, window.width]`
 * @throws {RangeError} If a part is not inside the image it is taken of
 */
export function resizeRegion(
  image: Tensor,
  region: Region,
  size: Size,
  window: Region = { top: 0, left: 0, ...size },
): Tensor {
  const full = imageSize(image);
  checkSize(size);
  checkInside(region, full);
  checkInside(window, size);
  const { top, left, height, width } = region;
  const bottom = window.top + window.height, right = window.left + window.width;
  const down = triangleFilter(height, size.height, [window.top, bottom]);
  const across = triangleFilter(width, size.width, [window.left, right]);
  const out = new Float32Array(3 * window.height * window.width);
  const row = new Float32Array(width);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < window.height; y++) {
      row.fill(0);
      for (let k = 0; k < down.taps; k++) {
        const weight = down.weights[y * down.taps + k];
        if (weight === 0) continue;
        const from = (c * full.height + top + down.starts[y] + k) * full.width +
          left;
        for (let x = 0; x < width; x++) {
          row[x] += weight * image.data[from + x];
        }
      }
      const to = (c * window.height + y) * window.width;
      for (let x = 0; x < window.width; x++) {
        const from = across.starts[x], at = x * across.taps;
        let sum = 0;
        for (let k = 0; k < across.taps; k++) {
          sum += across.weights[at + k] * row[from + k];
        }
        out[to + x] = sum;
      }
    }
  }
  return tensor(out, [3, window.height, window.width]);
}

/**
 * Resizes an image: bilinear, averaging over all covered pixels when it
 * shrinks. Equals Pillow's result to within its rounding to bytes.
 *
 * @param image Image `[3, h, w]`
 * @param size Height and width to make, in pixels
 * @returns Image `[3, size.height, size.width]`
 * @throws {RangeError} If the size is not made of integers > 0
 */
export function resize(image: Tensor, size: Size): Tensor {
  const { height, width } = imageSize(image);
  if (height === size.height && width === size.width) return image;
  return resizeRegion(image, { top: 0, left: 0, height, width }, size);
}

/** Rounds half to even, as Python: torchvision's crops depend on it. */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** The middle part of an image. */
function centreOf(image: Size, { height, width }: Size): Region {
  const top = roundHalfEven((image.height - height) / 2);
  const left = roundHalfEven((image.width - width) / 2);
  return { top, left, height, width };
}

/**
 * The middle of an image (torchvision `CenterCrop`).
 *
 * @param image Image `[3, h, w]`, at least as large as `size`
 * @param size Height and width to keep; a number stands for both
 * @returns Image `[3, size.height, size.width]`
 * @throws {RangeError} If the image is smaller than the crop
 */
export function centreCrop(image: Tensor, size: Size | number): Tensor {
  const full = imageSize(image);
  const { height, width } = typeof size === "number"
    ? { height: size, width: size }
    : size;
  checkSize({ height, width });
  if (height > full.height || width > full.width) {
    throw new RangeError(
      `Cannot crop ${height} x ${width} pixels from an image of ` +
        `${full.height} x ${full.width}: resize it first`,
    );
  }
  if (height === full.height && width === full.width) return image;
  const { top, left } = centreOf(full, { height, width });
  const out = new Float32Array(3 * height * width);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      const from = (c * full.height + top + y) * full.width + left;
      out.set(
        image.data.subarray(from, from + width),
        (c * height + y) * width,
      );
    }
  }
  return tensor(out, [3, height, width]);
}

/**
 * Test form of an image: the shorter side resized, then the middle square.
 * For 224 the shorter side becomes 256, as for ImageNet in the reference
 * code; for any other size it becomes `size`.
 *
 * @param image Image `[3, h, w]`
 * @param size Height and width of the result, in pixels
 * @returns Image `[3, size, size]`
 */
export function fitImage(image: Tensor, size: number): Tensor {
  const { height, width } = imageSize(image);
  if (height === size && width === size) return image;
  const shorter = size === 224 ? 256 : size;
  const longer = Math.trunc(
    shorter * Math.max(height, width) / Math.min(height, width),
  );
  const target = height <= width
    ? { height: shorter, width: longer }
    : { height: longer, width: shorter };
  return resizeRegion(
    image,
    { top: 0, left: 0, height, width },
    target,
    centreOf(target, { height: size, width: size }),
  );
}
