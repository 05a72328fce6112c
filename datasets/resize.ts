/**
 * Resizing and cropping of images `[3, h, w]`, pure. Bilinear filtering with
 * the filter widened when shrinking, as Pillow's `resize(..., BILINEAR)`.
 *
 * @module
 */
import { type Tensor, tensor } from "../core/mod.ts";

/** Height and width in pixels. */
export interface Size {
  readonly height: number;
  readonly width: number;
}

/** For each output position: where its inputs start, and their weights. */
interface Filter {
  readonly starts: Int32Array;
  readonly weights: Float64Array[];
}

function triangleFilter(
  input: number,
  output: number,
): Filter {
  const scale = input / output;
  const support = Math.max(scale, 1);
  const starts = new Int32Array(output);
  const weights: Float64Array[] = [];
  for (let i = 0; i < output; i++) {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(input, Math.trunc(centre + support + 0.5));
    const row = new Float64Array(end - start);
    let sum = 0;
    for (let k = 0; k < row.length; k++) {
      const distance = Math.abs((k + start - centre + 0.5) / support);
      sum += row[k] = Math.max(0, 1 - distance);
    }
    for (let k = 0; k < row.length; k++) row[k] /= sum;
    starts[i] = start;
    weights.push(row);
  }
  return { starts, weights };
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

/**
 * Resizes part of an image as if it had been cut out first.
 *
 * @param image Image `[3, h, w]`
 * @param region Part to take, inside the image
 * @param size Height and width to make
 * @returns Image `[3, size.height, size.width]`
 * @throws {RangeError} If the region is not inside the image
 */
export function resizeRegion(
  image: Tensor,
  region: Size & { readonly top: number; readonly left: number },
  size: Size,
): Tensor {
  const full = imageSize(image);
  checkSize(size);
  const { top, left, height, width } = region;
  if (
    !(top >= 0 && left >= 0 && height > 0 && width > 0 &&
      top + height <= full.height && left + width <= full.width)
  ) {
    throw new RangeError(
      `Cannot take ${height} x ${width} pixels at row ${top}, column ${left} ` +
        `of an image of ${full.height} x ${full.width}`,
    );
  }
  const across = triangleFilter(width, size.width);
  const down = triangleFilter(height, size.height);
  const out = new Float32Array(3 * size.height * size.width);
  // Horizontal pass first, as Pillow; rows no output needs do not exist, as
  // the vertical filter covers the whole region.
  const rows = new Float32Array(height * size.width);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      const base = (c * full.height + top + y) * full.width + left;
      for (let x = 0; x < size.width; x++) {
        const weights = across.weights[x];
        const from = base + across.starts[x];
        let sum = 0;
        for (let k = 0; k < weights.length; k++) {
          sum += weights[k] * image.data[from + k];
        }
        rows[y * size.width + x] = sum;
      }
    }
    for (let y = 0; y < size.height; y++) {
      const weights = down.weights[y];
      const to = (c * size.height + y) * size.width;
      for (let k = 0; k < weights.length; k++) {
        const weight = weights[k];
        const from = (down.starts[y] + k) * size.width;
        for (let x = 0; x < size.width; x++) {
          out[to + x] += weight * rows[from + x];
        }
      }
    }
  }
  return tensor(out, [3, size.height, size.width]);
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
  const top = roundHalfEven((full.height - height) / 2);
  const left = roundHalfEven((full.width - width) / 2);
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
  return centreCrop(resize(image, target), size);
}
