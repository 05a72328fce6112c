/**
 * Host values: what goes into a graph and comes out of it.
 *
 * @module
 */

/** Array that holds the elements of a tensor of each dtype. */
export interface DataOf {
  /** IEEE single precision, the only dtype gradients flow through. */
  readonly float32: Float32Array;
  /** Indices and counters. */
  readonly int64: BigInt64Array;
  /** Raw image bytes. */
  readonly uint8: Uint8Array;
  /** One byte per element, 0 or 1. */
  readonly bool: Uint8Array;
}

/** Element type of a tensor. */
export type DType = keyof DataOf;

/** Sizes of the axes, outermost first; `[]` is a scalar. */
export type Shape = readonly number[];

/** Dense array in row-major order. */
export interface Tensor<D extends DType = "float32"> {
  /** Type of the elements. */
  readonly dtype: D;
  /** Sizes of the axes. */
  readonly shape: Shape;
  /** The elements, last axis fastest. */
  readonly data: DataOf[D];
}

/** A tensor of whichever dtype. */
export type AnyTensor = { [D in DType]: Tensor<D> }[DType];

/** Tensors by name, such as the parameters of a model. */
export type NamedTensors = Readonly<Record<string, AnyTensor>>;

/** Number of elements of a shape; 1 for a scalar. */
export function sizeOf(shape: Shape): number {
  return shape.reduce((product, size) => product * size, 1);
}

/**
 * Makes a float32 tensor.
 *
 * @param data Elements in row-major order
 * @param shape Sizes of the axes; one axis as long as `data` if left out
 * @throws {TypeError} If the number of elements does not fit the shape
 *
 * @example
 * ```ts
 * import { tensor } from "./tensor.ts";
 * const identity = tensor([1, 0, 0, 1], [2, 2]);
 * ```
 */
export function tensor(
  data: Float32Array | readonly number[],
  shape: Shape = [data.length],
): Tensor {
  const array = data instanceof Float32Array ? data : Float32Array.from(data);
  return tensorOf("float32", array, shape);
}

/**
 * Makes a tensor of a given dtype around an array, without copying it.
 *
 * @param dtype Type of the elements
 * @param data Elements in row-major order
 * @param shape Sizes of the axes
 * @throws {TypeError} If the number of elements does not fit the shape
 */
export function tensorOf<D extends DType>(
  dtype: D,
  data: DataOf[D],
  shape: Shape,
): Tensor<D> {
  if (shape.some((size) => !Number.isInteger(size) || size < 0)) {
    throw new TypeError(
      `Cannot make a tensor of shape [${shape}]: sizes must be integers >= 0`,
    );
  }
  if (data.length !== sizeOf(shape)) {
    throw new TypeError(
      `Cannot make a tensor of shape [${shape}] from ${data.length} elements: ` +
        `it holds ${sizeOf(shape)}`,
    );
  }
  return { dtype, shape: [...shape], data };
}

/**
 * A float32 tensor of one repeated value.
 *
 * @throws {TypeError} If a size is not an integer >= 0
 */
export function full(shape: Shape, value: number): Tensor {
  const data = new Float32Array(sizeOf(shape));
  // Zeros that are never written take no memory.
  return tensor(Object.is(value, 0) ? data : data.fill(value), shape);
}

/** Allocates the array for `length` elements of a dtype, filled with zeros. */
export function allocate<D extends DType>(dtype: D, length: number): DataOf[D] {
  switch (dtype) {
    case "float32":
      return new Float32Array(length) as DataOf[D];
    case "int64":
      return new BigInt64Array(length) as DataOf[D];
    default:
      return new Uint8Array(length) as DataOf[D];
  }
}

/**
 * Rows `start` to `end` along the first axis, sharing memory with the tensor.
 *
 * @param value Tensor of shape `[n, ...]`
 * @param start First row taken
 * @param end Row behind the last one taken
 * @returns Tensor of shape `[end - start, ...]`
 * @throws {RangeError} If the rows are not inside the tensor
 */
export function rows<D extends DType>(
  value: Tensor<D>,
  start: number,
  end: number,
): Tensor<D> {
  const [n, ...rest] = value.shape;
  if (!(start >= 0 && start <= end && end <= n)) {
    throw new RangeError(
      `Cannot take rows ${start} to ${end} of a tensor of shape [${value.shape}]`,
    );
  }
  const stride = sizeOf(rest);
  const data = value.data.subarray(start * stride, end * stride) as DataOf[D];
  return { dtype: value.dtype, shape: [end - start, ...rest], data };
}

/**
 * Joins tensors of one shape along a new first axis.
 *
 * @param values Tensors of shape `[...]`
 * @returns Tensor of shape `[values.length, ...]`
 * @throws {TypeError} If there are none or their shapes differ
 */
export function stack(values: readonly Tensor[]): Tensor {
  const shape = values[0]?.shape;
  if (!shape || values.some((v) => String(v.shape) !== String(shape))) {
    throw new TypeError(
      `Cannot stack tensors of shapes ${
        values.map((v) => `[${v.shape}]`).join(", ") || "(none)"
      }: give at least one, all of one shape`,
    );
  }
  const size = sizeOf(shape);
  const data = new Float32Array(size * values.length);
  values.forEach((value, i) => data.set(value.data, i * size));
  return tensor(data, [values.length, ...shape]);
}
