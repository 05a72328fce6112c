/**
 * NumPy's format of single arrays: what most tools for embeddings read.
 *
 * @module
 */
import { type AnyTensor, type DType, sizeOf } from "../core/mod.ts";

/** NumPy's name of each dtype. */
const DESCRIPTION: Readonly<Record<DType, string>> = {
  float32: "<f4",
  int64: "<i8",
  uint8: "|u1",
  bool: "|b1",
};

const MAGIC = [0x93, ..."NUMPY"].map((x) =>
  typeof x === "number" ? x : x.charCodeAt(0)
);

/**
 * Writes a tensor as a `.npy` file (version 1.0, little-endian, row-major).
 *
 * @param value Tensor of any shape
 * @returns The bytes of the file
 * @throws {TypeError} If the array does not fit its shape
 *
 * @example
 * ```ts
 * import { tensor } from "../core/mod.ts";
 * import { encodeNpy } from "./npy.ts";
 * const bytes = encodeNpy(tensor([1, 2, 3, 4], [2, 2])); // np.load reads it
 * ```
 */
export function encodeNpy(value: AnyTensor): Uint8Array<ArrayBuffer> {
  const { dtype, shape, data } = value;
  if (data.length !== sizeOf(shape)) {
    throw new TypeError(
      `Cannot write ${data.length} elements as shape [${shape.join(", ")}]: ` +
        `it holds ${sizeOf(shape)}`,
    );
  }
  // A tuple of one number ends in a comma.
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const fields = `{'descr': '${DESCRIPTION[dtype]}', 'fortran_order': False, ` +
    `'shape': (${sizes}), }`;
  // Elements begin at a multiple of 64 bytes, after a line feed.
  const start = Math.ceil((MAGIC.length + 4 + fields.length + 1) / 64) * 64;
  const length = start - MAGIC.length - 4;
  const header = `${fields.padEnd(length - 1)}\n`;
  const bytes = new Uint8Array(start + data.byteLength);
  bytes.set([...MAGIC, 1, 0, length & 255, length >> 8]);
  bytes.set(new TextEncoder().encode(header), MAGIC.length + 4);
  bytes.set(
    new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    start,
  );
  return bytes;
}
