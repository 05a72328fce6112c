/**
 * Elements of tensors as files store them, and what they become here.
 *
 * @module
 */
import { type AnyTensor, type Shape, tensorOf } from "../core/mod.ts";

/** Bytes per element of each stored type, little-endian all. */
export const ITEM_SIZES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  I16: 2,
  F16: 2,
  BF16: 2,
  F32: 4,
  I32: 4,
  F64: 8,
  I64: 8,
} as const;

/** How a file stores elements. */
export type StoredType = keyof typeof ITEM_SIZES;

/** Throws the one sentence that says what is wrong. */
export type Fail = (what: string) => never;

/** Quotes text from a file for an error: on one line and not too long. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? text.slice(0, 80) + "..." : text);
}

/**
 * Makes a tensor of stored elements: F16, BF16 and F64 become float32; I8, I16
 * and I32 become int64. Where type and alignment allow, it shares memory.
 *
 * @param type How the elements are stored
 * @param raw The elements, row-major and as many as the shape holds
 * @param what Shape, name for errors, and what throws them
 */
export function decodeElements(
  type: StoredType,
  raw: Uint8Array,
  { shape, name, fail }: {
    readonly shape: Shape;
    readonly name: string;
    readonly fail: Fail;
  },
): AnyTensor {
  switch (type) {
    case "F32":
      return tensorOf("float32", arrayOf(Float32Array, raw), shape);
    case "F16":
      return tensorOf("float32", widenHalf(arrayOf(Uint16Array, raw)), shape);
    case "BF16": {
      const words = new Uint32Array(arrayOf(Uint16Array, raw));
      for (let i = 0; i < words.length; i++) words[i] <<= 16;
      return tensorOf("float32", new Float32Array(words.buffer), shape);
    }
    case "F64": {
      const wide = arrayOf(Float64Array, raw);
      const data = new Float32Array(wide);
      const lost = data.findIndex((value, i) =>
        Math.abs(value) === Infinity && Math.abs(wide[i]) !== Infinity
      );
      if (lost >= 0) {
        fail(
          `tensor ${quote(name)} holds ${wide[lost]} at index ${lost}, ` +
            `too large for float32`,
        );
      }
      return tensorOf("float32", data, shape);
    }
    case "I64":
      return tensorOf("int64", arrayOf(BigInt64Array, raw), shape);
    case "I32":
      return tensorOf("int64", widenInteger(arrayOf(Int32Array, raw)), shape);
    case "I16":
      return tensorOf("int64", widenInteger(arrayOf(Int16Array, raw)), shape);
    case "I8":
      return tensorOf("int64", widenInteger(arrayOf(Int8Array, raw)), shape);
    case "U8":
      return tensorOf("uint8", raw, shape);
    case "BOOL": {
      const wrong = raw.findIndex((byte) => byte > 1);
      if (wrong >= 0) {
        fail(
          `tensor ${quote(name)} of dtype BOOL holds ${raw[wrong]} at index ` +
            `${wrong}, which must be 0 or 1`,
        );
      }
      return tensorOf("bool", raw, shape);
    }
  }
}

/** An array over `raw` itself if aligned, over a copy if not. */
function arrayOf<T>(
  Type: {
    new (buffer: ArrayBufferLike, offset: number, length: number): T;
    readonly BYTES_PER_ELEMENT: number;
  },
  raw: Uint8Array,
): T {
  const item = Type.BYTES_PER_ELEMENT;
  const aligned = raw.byteOffset % item === 0 ? raw : raw.slice();
  return new Type(aligned.buffer, aligned.byteOffset, raw.length / item);
}

function widenInteger(
  narrow: Int8Array | Int16Array | Int32Array,
): BigInt64Array {
  const data = new BigInt64Array(narrow.length);
  narrow.forEach((value, i) => data[i] = BigInt(value));
  return data;
}

/** float16 bit patterns to float32 values, exactly. */
function widenHalf(halves: Uint16Array): Float32Array {
  const values = new Float32Array(halves.length);
  const words = new Uint32Array(values.buffer);
  for (let i = 0; i < halves.length; i++) {
    const sign = (halves[i] & 0x8000) << 16, magnitude = halves[i] & 0x7fff;
    if (magnitude >= 0x7c00) words[i] = sign | 0x7f800000 | magnitude << 13;
    else if (magnitude >= 0x400) {
      words[i] = sign | (magnitude << 13) + (112 << 23);
    } else values[i] = (sign ? -1 : 1) * magnitude * 2 ** -24; // also -0
  }
  return values;
}
