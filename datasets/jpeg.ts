/**
 * JPEG files to bytes. Pixels come from the `jpeg-decoder` in imagescript's
 * WebAssembly, used without the package's main entry, which would need
 * `--allow-ffi`.
 *
 * @module
 */
import { readPackageFile } from "./_package.ts";
import type { Raster } from "./png.ts";

/** Pixel formats of the decoder besides grey. */
const RGB = 1, CMYK = 2;

/** What the segments before the pixels say. */
export interface JpegInfo {
  readonly width: number;
  readonly height: number;
  /** EXIF orientation, 1 to 8; 1 is upright. */
  readonly orientation: number;
}

/** Whether the bytes begin as a JPEG file does. */
export function isJpeg(bytes: Uint8Array): boolean {
  return bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
}

/**
 * Reads size and orientation without decoding.
 *
 * @throws {SyntaxError} If it is damaged; the message completes "as ..."
 */
export function jpegInfo(bytes: Uint8Array): JpegInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let orientation = 1;
  for (let at = 2; at + 4 <= bytes.length;) {
    if (bytes[at] !== 0xff) throw new SyntaxError("its segments are damaged");
    const marker = bytes[at + 1];
    // Fill bytes may precede a marker; some markers carry no length.
    if (marker === 0xff) {
      at++;
      continue;
    }
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {
      at += 2;
      continue;
    }
    const length = view.getUint16(at + 2);
    const segment = bytes.subarray(at + 4, at + 2 + length);
    const isFrame = marker >= 0xc0 && marker <= 0xcf &&
      ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame && segment.length >= 5) {
      return {
        height: view.getUint16(at + 5),
        width: view.getUint16(at + 7),
        orientation,
      };
    }
    if (marker === 0xe1) orientation = exifOrientation(segment) ?? orientation;
    at += 2 + length;
  }
  throw new SyntaxError("it ends before its pixels");
}

/** Orientation tag of the first image directory of an EXIF segment. */
function exifOrientation(segment: Uint8Array): number | undefined {
  const name = String.fromCharCode(...segment.subarray(0, 6));
  if (name !== "Exif\0\0" || segment.length < 14) return undefined;
  const tiff = new DataView(
    segment.buffer,
    segment.byteOffset + 6,
    segment.byteLength - 6,
  );
  const little = tiff.getUint16(0) === 0x4949;
  const directory = tiff.getUint32(4, little);
  if (directory + 2 > tiff.byteLength) return undefined;
  const entries = tiff.getUint16(directory, little);
  for (let i = 0; i < entries; i++) {
    const entry = directory + 2 + 12 * i;
    if (entry + 12 > tiff.byteLength) return undefined;
    if (tiff.getUint16(entry, little) === 0x0112) {
      const value = tiff.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : undefined;
    }
  }
  return undefined;
}

/** Exports of imagescript's `wasm/any/jpeg.wasm`. */
interface Decoder {
  readonly memory: WebAssembly.Memory;
  /** Allocates bytes; returns their address. */
  walloc(length: number): number;
  /** Length of the last buffer a function gave the address of. */
  wlen(): number;
  /**
   * Decodes the file at an address, and frees it. Width and height 0 keep the
   * size. Returns a handle, or 0 or 1 on failure.
   */
  decode(
    address: number,
    length: number,
    width: number,
    height: number,
  ): number;
  decode_width(handle: number): number;
  decode_height(handle: number): number;
  /** 0: grey, 1: RGB, 2: CMYK. */
  decode_format(handle: number): number;
  decode_buffer(handle: number): number;
  decode_free(handle: number): void;
}

let compiled: Promise<WebAssembly.Module> | undefined;
let decoder: Decoder | undefined;

async function startDecoder(): Promise<Decoder> {
  compiled ??= readPackageFile("imagescript", "./wasm/any/jpeg.wasm")
    .then((bytes) => WebAssembly.compile(bytes));
  const instance = await WebAssembly.instantiate(await compiled);
  return instance.exports as unknown as Decoder;
}

/**
 * Decodes a baseline or progressive JPEG file: grey, colour, or CMYK. Colours
 * are within 3/255 of libjpeg's, on average within 0.1/255.
 *
 * @throws {SyntaxError} If it is damaged; the message completes "as ..."
 */
export async function decodeJpeg(bytes: Uint8Array): Promise<Raster> {
  const wasm = decoder ??= await startDecoder();
  const source = wasm.walloc(bytes.length);
  new Uint8Array(wasm.memory.buffer, source, bytes.length).set(bytes);
  let handle: number;
  try {
    handle = wasm.decode(source, bytes.length, 0, 0);
  } catch {
    decoder = undefined; // Its memory may be in any state after a trap.
    handle = 0;
  }
  if (handle === 0 || handle === 1) {
    throw new SyntaxError("its pixels are damaged or end too early");
  }
  const width = wasm.decode_width(handle);
  const height = wasm.decode_height(handle);
  const format = wasm.decode_format(handle);
  const start = wasm.decode_buffer(handle);
  const pixels = new Uint8Array(wasm.memory.buffer, start, wasm.wlen());
  const data = format === RGB
    ? pixels.slice()
    : new Uint8Array(3 * width * height);
  for (let i = 0; format !== RGB && i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      data[3 * i + c] = format === CMYK
        ? (255 - pixels[4 * i + 3]) * (255 - pixels[4 * i + c]) / 255
        : pixels[i];
    }
  }
  wasm.decode_free(handle);
  return { width, height, channels: 3, data };
}
