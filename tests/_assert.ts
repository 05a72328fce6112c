/**
 * Assertions about tensors and gradients, shared by all tests.
 *
 * @module
 */
import { AssertionError } from "@std/assert";
import {
  type AnyTensor,
  constant,
  grad,
  input,
  type Node,
  Random,
  sameShape,
  type Shape,
  show,
  sizeOf,
  type Tensor,
  tensor,
} from "../core/mod.ts";
import { compile, type CompileOptions } from "../onnx/mod.ts";

/** How close is close. */
export interface CloseOptions {
  /** Largest error allowed, relative to the expected tensor; see `relative`. */
  readonly tolerance: number;
  /**
   * "max" (default): every element within `tolerance` times the largest
   * expected magnitude. "l2": length of the difference within `tolerance`
   * times the expected length. Both are absolute where all is expected zero.
   */
  readonly relative?: "max" | "l2";
  /** What the tensor is, for the message. */
  readonly name?: string;
}

/** Error of a tensor relative to another, and where it is worst. */
export interface TensorError {
  readonly relative: number;
  readonly index: number;
}

/**
 * Measures how far a tensor is from another of its shape; equal infinities are
 * no error, a NaN is an infinite one.
 */
export function errorOf(
  actual: AnyTensor,
  expected: AnyTensor,
  relative: "max" | "l2" = "max",
): TensorError {
  let index = 0, worst = 0, largest = 0, squares = 0, expectedSquares = 0;
  for (let i = 0; i < expected.data.length; i++) {
    const [a, e] = [Number(actual.data[i]), Number(expected.data[i])];
    const gap = a === e ? 0 : Math.abs(a - e);
    const difference = Number.isNaN(gap) ? Infinity : gap;
    if (difference > worst) [worst, index] = [difference, i];
    if (Number.isFinite(e)) {
      largest = Math.max(largest, Math.abs(e));
      expectedSquares += e * e;
    }
    squares += difference ** 2;
  }
  const [error, scale] = relative === "max"
    ? [worst, largest]
    : [Math.sqrt(squares), Math.sqrt(expectedSquares)];
  return { relative: scale > 0 ? error / scale : error, index };
}

/** Fails unless dtype and shape are equal and the values close. */
export function assertAllClose(
  actual: AnyTensor,
  expected: AnyTensor,
  { tolerance, relative = "max", name = "tensor" }: CloseOptions,
): void {
  const kind = ({ dtype, shape }: AnyTensor) => `${dtype} ${show(shape)}`;
  if (
    kind(actual) !== kind(expected) ||
    actual.data.length !== sizeOf(actual.shape)
  ) {
    throw new AssertionError(
      `Expected ${name} to be ${kind(expected)}, found ${kind(actual)} with ` +
        `${actual.data.length} elements`,
    );
  }
  const { relative: error, index } = errorOf(actual, expected, relative);
  if (!(error <= tolerance)) {
    throw new AssertionError(
      `Expected ${name} ${show(actual.shape)} to be within ${tolerance} ` +
        `(${relative}), found ${error.toPrecision(3)}; worst at index ` +
        `${show(position(index, actual.shape))}: ` +
        `${actual.data[index]} instead of ${expected.data[index]}`,
    );
  }
}

/** Index along each axis of a flat index. */
function position(index: number, shape: Shape): number[] {
  const indices: number[] = [];
  for (const size of shape.toReversed()) {
    indices.unshift(index % size);
    index = Math.floor(index / size);
  }
  return indices;
}

/** Compiles nodes, runs them once and frees the program. */
export async function evaluate(
  outputs: Readonly<Record<string, Node>>,
  feeds: Readonly<Record<string, AnyTensor>> = {},
  options: CompileOptions = {},
): Promise<Record<string, AnyTensor>> {
  const program = await compile(outputs, { threads: 1, ...options });
  try {
    return await program.run(feeds);
  } finally {
    await program.release();
  }
}

/**
 * Where random inputs lie. "distinct": all values of all inputs at least 0.05
 * apart and 0.025 from zero, away from the kinks of maxima and of abs().
 */
export type Domain = "normal" | "positive" | "distinct";

/** Random tensors of some shapes, in a domain. */
export function drawInputs(
  shapes: readonly Shape[],
  seed: number,
  domain: Domain = "normal",
): Tensor[] {
  const random = new Random(seed);
  if (domain === "normal") return shapes.map((shape) => random.normal(shape));
  if (domain === "positive") {
    return shapes.map((shape) => random.uniformTensor(shape, 0.5, 2));
  }
  const count = shapes.reduce((total, shape) => total + sizeOf(shape), 0);
  const order = random.permutation(count);
  let used = 0;
  return shapes.map((shape) => {
    const part = order.subarray(used, used += sizeOf(shape));
    const middle = Math.floor(count / 2) - 0.5;
    return tensor(Float32Array.from(part, (i) => (i - middle) * 0.05), shape);
  });
}

/** Options of `assertGradient()`. */
export interface GradientOptions {
  /** Seed of inputs and weights. */
  readonly seed: number;
  /** Largest error allowed, relative to the largest element of a gradient. */
  readonly tolerance: number;
  /** Where inputs lie (default "normal"). */
  readonly domain?: Domain;
  /** Half the distance of a central difference (default 1e-2). */
  readonly step?: number;
}

/**
 * Checks `grad()` of a function's output, weighted at random and summed,
 * against central differences that ONNX Runtime computes.
 *
 * @param fn From one node per shape to one node
 * @param shapes Shapes of the inputs
 */
export async function assertGradient(
  fn: (...inputs: Node[]) => Node,
  shapes: readonly Shape[],
  { seed, tolerance, domain, step = 1e-2 }: GradientOptions,
): Promise<void> {
  const nodes = shapes.map((shape, i) => input(`x${i}`, shape));
  const y = fn(...nodes);
  const weights = new Random(seed, ["weights"]).normal(y.shape);
  const gradients = grad(y, nodes, constant(weights));
  const misshapen = gradients.findIndex((g, i) =>
    !sameShape(g.shape, shapes[i])
  );
  if (misshapen >= 0) {
    throw new AssertionError(
      `Expected the gradient of input ${misshapen} to have its shape ` +
        `${show(shapes[misshapen])}, found ${gradients[misshapen]}`,
    );
  }
  const feeds = Object.fromEntries(
    drawInputs(shapes, seed, domain).map((value, i) => [`x${i}`, value]),
  );
  const found = await evaluate(
    Object.fromEntries(gradients.map((g, i) => [`g${i}`, g])),
    feeds,
  );
  const program = await compile({ y }, { threads: 1 });
  const weightedSum = async () => {
    const result = (await program.run(feeds)).y.data as Float32Array;
    // In doubles: a float32 sum would lose the difference.
    return result.reduce(
      (total, value, k) => total + value * weights.data[k],
      0,
    );
  };
  try {
    for (let i = 0; i < shapes.length; i++) {
      const { data } = feeds[`x${i}`];
      const expected = new Float32Array(data.length);
      for (let j = 0; j < data.length; j++) {
        const center = data[j];
        const high = data[j] = Math.fround(center + step);
        const above = await weightedSum();
        const low = data[j] = Math.fround(center - step);
        const below = await weightedSum();
        data[j] = center;
        expected[j] = (above - below) / (high - low);
      }
      assertAllClose(found[`g${i}`], tensor(expected, shapes[i]), {
        tolerance,
        name: `gradient of input ${i}`,
      });
    }
  } finally {
    await program.release();
  }
}
