/**
 * PNG files to bytes and back, without loss (W3C PNG specification, third
 * edition).
 *
 * @module
 */
import { crc32, deflateSync, inflateSync } from "node:zlib";

/** Bytes of an image, row by row. */
export interface Raster {
  readonly width: number;
  readonly height: number;
  /** 3: red, green, blue; 4: with alpha. */
  readonly channels: 3 | 4;
  /** `[height, width, channels]` */
  readonly data: Uint8Array;
}

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Samples per pixel of each colour type. */
const SAMPLES: Readonly<Record<number, number>> = {
  0: 1,
  2: 3,
  3: 1,
  4: 2,
  6: 4,
};

/** Start and step, across and down, of the passes of an interlaced image. */
const ADAM7 = [
  [0, 8, 0, 8],
  [4, 8, 0, 8],
  [0, 4, 4, 8],
  [2, 4, 0, 4],
  [0, 2, 2, 4],
  [1, 2, 0, 2],
  [0, 1, 1, 2],
] as const;

/** Whether the bytes begin as a PNG file does. */
export function isPng(bytes: Uint8Array): boolean {
  return SIGNATURE.every((byte, i) => bytes[i] === byte);
}

interface Header {
  readonly width: number;
  readonly height: number;
  readonly depth: number;
  readonly colourType: number;
  readonly interlaced: boolean;
}

function readHeader(bytes: Uint8Array): Header {
  if (bytes.length < 33) throw new SyntaxError("it ends within its header");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const colourType = bytes[25], depth = bytes[24];
  const depths = colourType === 0
    ? [1, 2, 4, 8, 16]
    : colourType === 3
    ? [1, 2, 4, 8]
    : [8, 16];
  if (!SAMPLES[colourType] || !depths.includes(depth) || bytes[28] > 1) {
    throw new SyntaxError(
      `its header names colour type ${colourType} at ${depth} bits`,
    );
  }
  return {
    width: view.getUint32(16),
    height: view.getUint32(20),
    depth,
    colourType,
    interlaced: bytes[28] === 1,
  };
}

/** Width and height a PNG file declares. */
export function pngSize(bytes: Uint8Array): { width: number; height: number } {
  return readHeader(bytes);
}

/** Payloads of the chunks needed, checked against their checksums. */
function readChunks(bytes: Uint8Array): Map<string, Uint8Array[]> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks = new Map<string, Uint8Array[]>();
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const end = at + 8 + length;
    if (end + 4 > bytes.length) break;
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (crc32(bytes.subarray(at + 4, end)) !== view.getUint32(end)) {
      throw new SyntaxError(`the checksum of its ${type} chunk is wrong`);
    }
    const list = chunks.get(type) ?? [];
    list.push(bytes.subarray(at + 8, end));
    chunks.set(type, list);
    if (type === "IEND") return chunks;
    at = end + 4;
  }
  throw new SyntaxError("it ends too early");
}

/** Reverses the filters of `rows` rows in place; returns rows without tags. */
function unfilter(
  data: Uint8Array,
  { rows, rowBytes, step }: { rows: number; rowBytes: number; step: number },
): Uint8Array {
  const out = new Uint8Array(rows * rowBytes);
  for (let y = 0; y < rows; y++) {
    const filter = data[y * (rowBytes + 1)];
    const from = y * (rowBytes + 1) + 1, to = y * rowBytes;
    for (let x = 0; x < rowBytes; x++) {
      const left = x >= step ? out[to + x - step] : 0;
      const up = y > 0 ? out[to + x - rowBytes] : 0;
      const corner = x >= step && y > 0 ? out[to + x - rowBytes - step] : 0;
      out[to + x] = data[from + x] + predict(filter, left, up, corner);
    }
  }
  return out;
}

function predict(
  filter: number,
  left: number,
  up: number,
  corner: number,
): number {
  switch (filter) {
    case 0:
      return 0;
    case 1:
      return left;
    case 2:
      return up;
    case 3:
      return (left + up) >> 1;
    case 4: {
      const base = left + up - corner;
      const a = Math.abs(base - left);
      const b = Math.abs(base - up);
      const c = Math.abs(base - corner);
      return a <= b && a <= c ? left : b <= c ? up : corner;
    }
    default:
      throw new SyntaxError(`a row names filter ${filter}`);
  }
}

/**
 * Decodes a PNG file of any colour type, depth and interlacing; 16-bit
 * samples keep their high byte, as Pillow does. Colour profiles and gamma are
 * ignored.
 *
 * @throws {SyntaxError} If it is damaged; the message completes "as ..."
 */
export function decodePng(bytes: Uint8Array): Raster {
  const header = readHeader(bytes);
  const { width, height, depth, colourType, interlaced } = header;
  const chunks = readChunks(bytes);
  const samples = SAMPLES[colourType];
  const passes = (interlaced ? ADAM7 : [[0, 1, 0, 1]] as const)
    .map(([x0, dx, y0, dy]) => {
      const columns = Math.ceil((width - x0) / dx);
      const rows = Math.ceil((height - y0) / dy);
      const rowBytes = Math.ceil(columns * samples * depth / 8);
      return { x0, dx, y0, dy, columns, rows, rowBytes };
    })
    .filter(({ columns, rows }) => columns > 0 && rows > 0);
  const length = passes.reduce((n, p) => n + p.rows * (p.rowBytes + 1), 0);
  let data: Uint8Array;
  try {
    data = inflateSync(join(chunks.get("IDAT") ?? []), {
      maxOutputLength: length + 65536,
    });
  } catch {
    throw new SyntaxError("its compressed data are damaged");
  }
  if (data.length < length) throw new SyntaxError("it has too few pixels");

  const paint = painter(header, chunks);
  const rgba = new Uint8Array(4 * width * height);
  let at = 0;
  for (const { x0, dx, y0, dy, columns, rows, rowBytes } of passes) {
    const step = Math.max(1, samples * depth / 8);
    const end = at + rows * (rowBytes + 1);
    const pixels = unfilter(data.subarray(at, end), { rows, rowBytes, step });
    at = end;
    for (let y = 0; y < rows; y++) {
      const row = pixels.subarray(y * rowBytes, (y + 1) * rowBytes);
      for (let x = 0; x < columns; x++) {
        paint(row, x, rgba, 4 * ((y0 + y * dy) * width + x0 + x * dx));
      }
    }
  }
  return { width, height, channels: 4, data: rgba };
}

type Paint = (row: Uint8Array, x: number, rgba: Uint8Array, to: number) => void;

/** How to turn the samples of pixel `x` of a row into four bytes. */
function painter(
  { depth, colourType }: Header,
  chunks: Map<string, Uint8Array[]>,
): Paint {
  const transparent = chunks.get("tRNS")?.[0];
  const bytes = depth === 16 ? 2 : 1;
  const highest = (1 << Math.min(depth, 8)) - 1;
  const packed = (row: Uint8Array, x: number) => {
    if (depth >= 8) return row[x * bytes];
    const bit = x * depth;
    return (row[bit >> 3] >> (8 - depth - (bit & 7))) & highest;
  };
  // A colour named transparent is compared in full, 16-bit samples included.
  const key = transparent && colourType !== 3
    ? Array.from(
      { length: transparent.length / 2 },
      (_, i) => transparent[2 * i] << 8 | transparent[2 * i + 1],
    )
    : undefined;
  const sample = (row: Uint8Array, i: number) =>
    depth === 16 ? row[2 * i] << 8 | row[2 * i + 1] : packed(row, i);

  if (colourType === 3) {
    const palette = chunks.get("PLTE")?.[0];
    if (!palette) throw new SyntaxError("its palette is missing");
    return (row, x, rgba, to) => {
      const entry = packed(row, x);
      for (let c = 0; c < 3; c++) rgba[to + c] = palette[3 * entry + c];
      rgba[to + 3] = transparent?.[entry] ?? 255;
    };
  }
  const grey = colourType === 0 || colourType === 4;
  const alpha = colourType === 4 || colourType === 6;
  const samples = SAMPLES[colourType];
  return (row, x, rgba, to) => {
    for (let c = 0; c < 3; c++) {
      const value = packed(row, x * samples + (grey ? 0 : c));
      rgba[to + c] = value * 255 / highest;
    }
    const last = x * samples + samples - 1;
    const hidden = key?.every((v, c) => v === sample(row, x * samples + c));
    rgba[to + 3] = alpha ? packed(row, last) : hidden ? 0 : 255;
  };
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0];
  const out = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function chunk(type: string, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(12 + data.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) out[4 + i] = type.charCodeAt(i);
  out.set(data, 8);
  view.setUint32(8 + data.length, crc32(out.subarray(4, 8 + data.length)));
  return out;
}

/**
 * Encodes bytes `[height, width, 3]` as a PNG file.
 *
 * @param rgb Red, green, blue of each pixel, row by row
 */
export function encodeRgb(
  rgb: Uint8Array,
  { width, height }: { readonly width: number; readonly height: number },
): Uint8Array<ArrayBuffer> {
  const rowBytes = 3 * width;
  const filtered = new Uint8Array(height * (rowBytes + 1));
  const candidate = new Uint8Array(rowBytes);
  for (let y = 0; y < height; y++) {
    const from = y * rowBytes, to = y * (rowBytes + 1);
    let least = Infinity;
    // The specification's rule of thumb: the filter with the smallest sum of
    // absolute values. None, left and up suffice for figures.
    for (const filter of [0, 1, 2]) {
      let sum = 0;
      for (let x = 0; x < rowBytes; x++) {
        const base = filter === 1
          ? x >= 3 ? rgb[from + x - 3] : 0
          : filter === 2 && y > 0
          ? rgb[from + x - rowBytes]
          : 0;
        const value = rgb[from + x] - base & 255;
        candidate[x] = value;
        sum += value < 128 ? value : 256 - value;
      }
      if (sum < least) {
        least = sum;
        filtered[to] = filter;
        filtered.set(candidate, to + 1);
      }
    }
  }
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 2, 0, 0, 0], 8);
  return new Uint8Array(join([
    Uint8Array.from(SIGNATURE),
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(filtered)),
    chunk("IEND", new Uint8Array()),
  ]));
}
