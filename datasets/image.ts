/**
 * Image files to tensors and back.
 *
 * @module
 */
import { type Tensor, tensor } from "../core/mod.ts";
import { decodeJpeg, isJpeg, jpegInfo } from "./jpeg.ts";
import { decodePng, encodeRgb, isPng, pngSize, type Raster } from "./png.ts";
import { imageSize } from "./resize.ts";

export { centreCrop, fitImage, resize, type Size } from "./resize.ts";

/** Most pixels an image may have: 2^26, about 67 million. */
export const MOST_PIXELS = 2 ** 26;

/** Options of {@linkcode decodeImage}. */
export interface DecodeOptions {
  /** What errors call the image: its path, or where it came from. */
  readonly name?: string;
}

/**
 * Decodes a PNG or JPEG file, told apart by their first bytes. Grey becomes
 * RGB, transparency is composited on white, and EXIF orientation is applied.
 *
 * @param bytes Contents of the file
 * @returns Image `[3, h, w]` in [0, 1]
 * @throws {SyntaxError} If it is not such a file, damaged, or too large
 *
 * @example
 * ```ts
 * import { full } from "../core/mod.ts";
 * import { decodeImage, encodePng } from "./image.ts";
 * const bytes = await encodePng(full([3, 8, 8], 1));
 * const image = await decodeImage(bytes); // [3, 8, 8]
 * ```
 */
export async function decodeImage(
  bytes: Uint8Array,
  { name = "image" }: DecodeOptions = {},
): Promise<Tensor> {
  try {
    return await decode(bytes);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new SyntaxError(`Cannot decode ${name} as ${error.message}`);
  }
}

async function decode(bytes: Uint8Array): Promise<Tensor> {
  if (isPng(bytes)) {
    checkPixels(pngSize(bytes));
    return rasterToTensor(decodePng(bytes));
  }
  if (isJpeg(bytes)) {
    const info = jpegInfo(bytes);
    checkPixels(info);
    return orient(rasterToTensor(await decodeJpeg(bytes)), info.orientation);
  }
  throw new SyntaxError(
    bytes.length === 0
      ? "it is empty: give a PNG or JPEG file"
      : "it is neither PNG nor JPEG: convert it first",
  );
}

function checkPixels({ width, height }: { width: number; height: number }) {
  if (width === 0 || height === 0) {
    throw new SyntaxError(`its size is ${width} x ${height} pixels`);
  }
  if (width * height > MOST_PIXELS) {
    throw new SyntaxError(
      `its size is ${width} x ${height} pixels, more than ${MOST_PIXELS} ` +
        `in all: make it smaller first`,
    );
  }
}

/** Bytes as numbers in [0, 1]: looking them up is faster than dividing. */
const UNIT = Float32Array.from({ length: 256 }, (_, byte) => byte / 255);

function rasterToTensor({ width, height, channels, data }: Raster): Tensor {
  const plane = width * height;
  const out = new Float32Array(3 * plane);
  for (let i = 0, at = 0; i < plane; i++, at += channels) {
    out[i] = UNIT[data[at]];
    out[i + plane] = UNIT[data[at + 1]];
    out[i + 2 * plane] = UNIT[data[at + 2]];
    const alpha = channels === 4 ? data[at + 3] : 255;
    if (alpha === 255) continue;
    for (let c = i; c < out.length; c += plane) {
      out[c] = 1 + UNIT[alpha] * (out[c] - 1);
    }
  }
  return tensor(out, [3, height, width]);
}

/** Turns an image upright, given its EXIF orientation, 1 to 8. */
function orient(image: Tensor, orientation: number): Tensor {
  if (orientation === 1) return image;
  const { height, width } = imageSize(image);
  const swapped = orientation >= 5;
  const h = swapped ? width : height, w = swapped ? height : width;
  const mirrorX = [2, 3, 7, 8].includes(orientation);
  const mirrorY = [3, 4, 6, 7].includes(orientation);
  const out = new Float32Array(image.data.length);
  for (let c = 0, i = 0; c < 3; c++) {
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        const u = swapped ? y : x, v = swapped ? x : y;
        const column = mirrorX ? width - 1 - u : u;
        const row = mirrorY ? height - 1 - v : v;
        out[i++] = image.data[(c * height + row) * width + column];
      }
    }
  }
  return tensor(out, [3, h, w]);
}

/**
 * Reads an image file.
 *
 * @param path Path of a PNG or JPEG file
 * @returns Image `[3, h, w]` in [0, 1]
 * @throws {SyntaxError} If it is not such a file, damaged, or too large
 * @throws {Deno.errors.NotFound} If there is no such file
 */
export async function readImage(path: string): Promise<Tensor> {
  let bytes: Uint8Array;
  try {
    // Decoding takes longer than reading, and for a small file this is ten
    // times as fast as `Deno.readFile()`.
    bytes = Deno.readFileSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Deno.errors.NotFound(
      `Cannot read image "${path}": there is no such file`,
    );
  }
  return await decodeImage(bytes, { name: `"${path}"` });
}

/**
 * Encodes an image as a PNG file of 8 bits a channel. Values are clamped to
 * [0, 1] and rounded; images decoded from 8 bits come back exactly.
 *
 * @param image Image `[3, h, w]`
 * @returns Contents of the file
 * @throws {TypeError} If the shape is another
 */
// deno-lint-ignore require-await
export async function encodePng(
  image: Tensor,
): Promise<Uint8Array<ArrayBuffer>> {
  const { height, width } = imageSize(image);
  const plane = height * width;
  const rgb = new Uint8Array(3 * plane);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < plane; i++) {
      const value = image.data[c * plane + i];
      rgb[3 * i + c] = value >= 1
        ? 255
        : value > 0
        ? Math.round(value * 255)
        : 0;
    }
  }
  return encodeRgb(rgb, { width, height });
}
