/**
 * The safetensors format (https://github.com/huggingface/safetensors): eight
 * bytes of header length, a JSON header, then raw little-endian elements.
 * Nothing in such a file is executed, and nothing outside it is trusted.
 *
 * @module
 */
import {
  type AnyTensor,
  type DType,
  type NamedTensors,
  sizeOf,
} from "../core/mod.ts";
import {
  decodeElements,
  type Fail,
  ITEM_SIZES,
  quote,
  type StoredType,
} from "./elements.ts";

/** How tensors are written. */
export interface SafetensorsOptions {
  /** Store float32 tensors as F16: half the size, 11 significant bits. */
  readonly float16?: boolean;
}

/** What a safetensors file holds. */
export interface Safetensors {
  /** Has no prototype: only names that are in the file are keys. */
  readonly tensors: NamedTensors;
  /** Texts by key; `{}` if the file has none. Has no prototype either. */
  readonly metadata: Readonly<Record<string, string>>;
}

const STORED_AS: Readonly<Record<DType, StoredType>> = {
  float32: "F32",
  int64: "I64",
  uint8: "U8",
  bool: "BOOL",
};

/** The reference implementation refuses longer headers, so this does too. */
const MAX_HEADER_BYTES = 100_000_000;

/** The header's key for texts, so no tensor can have this name. */
const METADATA_KEY = "__metadata__";

/** A header entry that passed every check. */
interface Entry {
  readonly name: string;
  readonly type: StoredType;
  readonly shape: readonly number[];
  /** Offsets into the data that follows the header, in bytes. */
  readonly begin: number;
  readonly end: number;
}

/**
 * Writes tensors as a safetensors file. Equal content gives equal bytes: the
 * order of the names does not matter.
 *
 * @param tensors Tensors by name, of any shapes
 * @param metadata Texts to keep beside them
 * @param options `float16` rounds float32 tensors, half to even
 * @returns The bytes of the file
 * @throws {TypeError} If an array does not fit its shape, a name is reserved,
 *   or a metadata value is not text
 * @throws {RangeError} If a value is too large for float16
 *
 * @example
 * ```ts
 * import { tensor } from "../core/mod.ts";
 * import { decodeSafetensors, encodeSafetensors } from "./safetensors.ts";
 * const bytes = encodeSafetensors({ weight: tensor([1, 2, 3, 4], [2, 2]) });
 * const { weight } = decodeSafetensors(bytes, "memory").tensors; // [2, 2]
 * ```
 */
export function encodeSafetensors(
  tensors: NamedTensors,
  metadata: Readonly<Record<string, string>> = {},
  options: SafetensorsOptions = {},
): Uint8Array<ArrayBuffer> {
  return concatenated(safetensorsParts(tensors, metadata, options));
}

/** Joins the parts of a file. */
export function concatenated(
  parts: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/**
 * The parts of what `encodeSafetensors()` returns, in their order: the header,
 * then the elements of each tensor, which share its memory. Written one after
 * the other, a file takes no second copy of the tensors.
 */
export function safetensorsParts(
  tensors: NamedTensors,
  metadata: Readonly<Record<string, string>> = {},
  options: SafetensorsOptions = {},
): Uint8Array[] {
  const items = Object.entries(tensors).map(([name, value]) => {
    checkTensor(name, value);
    const half = options.float16 && value.dtype === "float32";
    const type = half ? "F16" : STORED_AS[value.dtype];
    return { name, value, type, size: ITEM_SIZES[type] };
  });
  // Widest elements first keeps every tensor aligned, so readers need no copy.
  items.sort((a, b) => b.size - a.size || compareNames(a.name, b.name));

  // Without a prototype, "__proto__" is a key like any other.
  const header: Record<string, unknown> = Object.create(null);
  const texts = Object.entries(metadata).sort(([a], [b]) => compareNames(a, b));
  if (texts.length > 0) {
    const kept: Record<string, string> = Object.create(null);
    for (const [key, text] of texts) {
      if (typeof text !== "string") {
        throw new TypeError(
          `Cannot write metadata ${quote(key)}: ` +
            `it must be text and is of type ${typeof text}`,
        );
      }
      kept[key] = text;
    }
    header[METADATA_KEY] = kept;
  }
  let end = 0;
  for (const { name, value, type, size } of items) {
    const begin = end;
    end += value.data.length * size;
    header[name] = {
      dtype: type,
      shape: value.shape,
      data_offsets: [begin, end],
    };
  }

  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = Math.ceil(json.length / 8) * 8;
  if (padded > MAX_HEADER_BYTES) {
    throw new RangeError(
      `Cannot write a safetensors header of ${padded} bytes: ` +
        `readers accept at most ${MAX_HEADER_BYTES}; shorten the metadata`,
    );
  }
  const start = new Uint8Array(8 + padded).fill(0x20);
  new DataView(start.buffer).setBigUint64(0, BigInt(padded), true);
  start.set(json, 8);
  const elements = items.map(({ name, value, type }) =>
    type === "F16" && value.dtype === "float32"
      ? bytesOf(roundToHalf(value.data, name))
      : bytesOf(value.data)
  );
  return [start, ...elements];
}

/**
 * Reads a safetensors file, checking all of it. F16, BF16 and F64 become
 * float32, I32 becomes int64. Where the file's alignment allows, tensors share
 * memory with `bytes`.
 *
 * @param bytes The whole file
 * @param source Its name, for errors
 * @returns Tensors and texts by name
 * @throws {SyntaxError} If the bytes are not such a file, whole and consistent
 */
export function decodeSafetensors(
  bytes: Uint8Array,
  source: string,
): Safetensors {
  const fail: Fail = failOf(source);
  const { text, header, dataStart } = readHeader(bytes, fail);
  checkNoDuplicates(text, fail);
  const dataLength = bytes.length - dataStart;
  const metadata = readMetadata(header, fail);
  const entries = Object.keys(header)
    .filter((name) => name !== METADATA_KEY)
    .map((name) => readEntry(name, header[name], dataLength, fail));
  checkLayout(entries, dataLength, fail);

  const tensors: Record<string, AnyTensor> = Object.create(null);
  for (const { name, type, shape, begin, end } of entries) {
    const raw = bytes.subarray(dataStart + begin, dataStart + end);
    tensors[name] = decodeElements(type, raw, { shape, name, fail });
  }
  return { tensors, metadata };
}

/**
 * Reads the texts of a safetensors file alone, from its header.
 *
 * @param bytes The whole file, or its beginning
 * @param source Its name, for errors
 * @returns As `metadata` of `decodeSafetensors()`
 * @throws {SyntaxError} If the header is damaged
 */
export function decodeMetadata(
  bytes: Uint8Array,
  source: string,
): Safetensors["metadata"] {
  const fail = failOf(source);
  return readMetadata(readHeader(bytes, fail).header, fail);
}

function failOf(source: string): Fail {
  return (what) => {
    throw new SyntaxError(`Cannot read checkpoint "${source}": ${what}`);
  };
}

/** Order of names by UTF-16 code units, the same in every locale. */
function compareNames(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Prints any JSON value for an error. */
function show(value: unknown): string {
  if (value === undefined) return "nothing";
  try {
    const text = JSON.stringify(value);
    return text.length > 80 ? text.slice(0, 80) + "..." : text;
  } catch { // JSON.parse nests without limit, JSON.stringify does not
    return "deeply nested";
  }
}

function checkTensor(name: string, value: AnyTensor): void {
  if (name === METADATA_KEY) {
    throw new TypeError(
      `Cannot write tensor ${quote(name)}: the format reserves that name`,
    );
  }
  if (!value.shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
    throw new TypeError(
      `Cannot write tensor ${quote(name)} of shape [${value.shape}]: ` +
        `sizes must be integers >= 0`,
    );
  }
  if (value.data.length !== sizeOf(value.shape)) {
    throw new TypeError(
      `Cannot write tensor ${quote(name)} of shape [${value.shape}]: ` +
        `it has ${value.data.length} elements and needs ${sizeOf(value.shape)}`,
    );
  }
}

function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function readHeader(bytes: Uint8Array, fail: Fail): {
  text: string;
  header: Readonly<Record<string, unknown>>;
  dataStart: number;
} {
  if (bytes.length === 0) fail("the file is empty");
  if (bytes.length < 8) {
    fail(
      `the file has ${bytes.length} bytes, too few for the header length, ` +
        `which takes 8`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES) {
    fail(
      `it claims a header of ${length} bytes, more than the ` +
        `${MAX_HEADER_BYTES} allowed; it is not a safetensors file`,
    );
  }
  const dataStart = 8 + Number(length);
  if (dataStart > bytes.length) {
    fail(
      `it claims a header of ${length} bytes but only ${bytes.length - 8} ` +
        `follow; the file is truncated or not a safetensors file`,
    );
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
      .decode(bytes.subarray(8, dataStart));
  } catch {
    return fail("the header is not valid UTF-8");
  }
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return fail(`the header is not valid JSON (${quote(reason).slice(1, -1)})`);
  }
  if (!isRecord(header)) {
    return fail(`the header must be a JSON object and is ${show(header)}`);
  }
  return { text, header, dataStart };
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Refuses a name or key given twice, of which `JSON.parse` silently keeps the
 * last: readers that keep the first would see another file.
 *
 * @param json The header, known to be valid JSON
 */
function checkNoDuplicates(json: string, fail: Fail): void {
  let depth = 0;
  // Keys of the header itself and of the object in it being read.
  const keys = [new Set<string>(), new Set<string>()];
  for (let i = 0; i < json.length; i++) {
    const c = json[i];
    if (c === "{" || c === "[") {
      if (++depth === 2) keys[1].clear();
    } else if (c === "}" || c === "]") depth--;
    if (c !== '"') continue;
    const start = i;
    while (json[++i] !== '"') if (json[i] === "\\") i++;
    let after = i + 1;
    while (" \t\r\n".includes(json[after])) after++;
    if (json[after] !== ":" || depth > 2) continue;
    const key: string = JSON.parse(json.slice(start, i + 1));
    const seen = keys[depth - 1];
    if (seen.has(key)) fail(`the header has ${quote(key)} twice`);
    seen.add(key);
  }
}

function readMetadata(
  header: Readonly<Record<string, unknown>>,
  fail: Fail,
): Record<string, string> {
  const metadata: Record<string, string> = Object.create(null);
  if (!Object.hasOwn(header, METADATA_KEY)) return metadata;
  const found = header[METADATA_KEY];
  if (!isRecord(found)) {
    return fail(`the metadata must be a JSON object and is ${show(found)}`);
  }
  for (const [key, text] of Object.entries(found)) {
    if (typeof text !== "string") {
      fail(`metadata ${quote(key)} must be text and is ${show(text)}`);
    }
    metadata[key] = String(text);
  }
  return metadata;
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

function readEntry(
  name: string,
  entry: unknown,
  dataLength: number,
  fail: Fail,
): Entry {
  const what = `tensor ${quote(name)}`;
  if (!isRecord(entry)) {
    return fail(`the entry of ${what} must be an object and is ${show(entry)}`);
  }
  // Object.hasOwn, as "constructor" or "__proto__" would be found anyway.
  const get = (key: string) => Object.hasOwn(entry, key) ? entry[key] : void 0;
  const dtype = get("dtype"),
    shape = get("shape"),
    offsets = get(
      "data_offsets",
    );
  if (typeof dtype !== "string" || !Object.hasOwn(ITEM_SIZES, dtype)) {
    return fail(
      `${what} has dtype ${show(dtype)}, which must be one of ` +
        Object.keys(ITEM_SIZES).join(", "),
    );
  }
  const type = dtype as StoredType;
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    return fail(
      `${what} has shape ${show(shape)}, which must list integers >= 0`,
    );
  }
  if (
    !Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize) ||
    offsets[0] > offsets[1]
  ) {
    return fail(
      `${what} has offsets ${show(offsets)}, which must be two integers, ` +
        `0 <= begin <= end`,
    );
  }
  // Adding 0 turns -0, which JSON can spell, into 0.
  const [begin, end] = offsets.map((offset) => offset + 0);
  if (end > dataLength) {
    fail(
      `${what} ends at byte ${end} of the data but the file has only ` +
        `${dataLength}; it is truncated or damaged`,
    );
  }
  const elements = shape.includes(0) ? 0 : sizeOf(shape);
  if (elements * ITEM_SIZES[type] !== end - begin) {
    fail(
      `${what} of shape [${quote(String(shape)).slice(1, -1)}] and dtype ` +
        `${type} needs ${elements * ITEM_SIZES[type]} bytes but its offsets ` +
        `span ${end - begin}`,
    );
  }
  return { name, type, shape: shape.map((size) => size + 0), begin, end };
}

/** Tensors must tile the data: no overlap, no holes, nothing at the end. */
function checkLayout(
  entries: readonly Entry[],
  dataLength: number,
  fail: Fail,
): void {
  const ordered = entries.toSorted((a, b) =>
    a.begin - b.begin || a.end - b.end
  );
  let previous: Entry | undefined;
  for (const entry of ordered) {
    const expected = previous?.end ?? 0;
    if (entry.begin < expected) {
      fail(
        `tensors ${quote(previous?.name ?? "")} and ${quote(entry.name)} ` +
          `overlap at byte ${entry.begin} of the data`,
      );
    }
    if (entry.begin > expected) {
      fail(
        `bytes ${expected} to ${entry.begin} of the data, before tensor ` +
          `${quote(entry.name)}, belong to no tensor`,
      );
    }
    previous = entry;
  }
  const end = previous?.end ?? 0;
  if (end < dataLength) {
    fail(
      `${dataLength - end} bytes after the last tensor belong to no tensor`,
    );
  }
}

/**
 * float32 values to float16 bit patterns, half to even. Infinities and NaN
 * stay what they are; a finite value that would become infinite is refused.
 */
function roundToHalf(values: Float32Array, name: string): Uint16Array {
  // A copy, as the values may be at an address where words cannot be.
  const words = new Uint32Array(values.slice().buffer);
  const halves = new Uint16Array(words.length);
  for (let i = 0; i < words.length; i++) {
    const sign = words[i] >>> 16 & 0x8000, word = words[i] & 0x7fffffff;
    const exponent = word >>> 23;
    let half: number;
    if (word > 0x7f800000) half = 0x7e00 | word >>> 13 & 0x1ff; // quiet NaN
    else if (word === 0x7f800000) half = 0x7c00;
    else if (word >= 0x477ff000) { // 65520: halfway to the next power of two
      throw new RangeError(
        `Cannot store tensor ${quote(name)} as float16: ` +
          `${values[i]} at index ${i} is beyond 65504; store float32`,
      );
    } else if (exponent >= 113) half = shiftHalfEven(word - (112 << 23), 13);
    else if (exponent >= 102) { // subnormal: a multiple of 2^-24
      half = shiftHalfEven(word & 0x7fffff | 0x800000, 126 - exponent);
    } else half = 0; // below 2^-25, half of the least float16
    halves[i] = sign | half;
  }
  return halves;
}

/** `value / 2^shift` rounded to an integer, half to even. */
function shiftHalfEven(value: number, shift: number): number {
  return value + (1 << (shift - 1)) - 1 + (value >>> shift & 1) >>> shift;
}
