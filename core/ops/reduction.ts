/**
 * Ops that shrink axes: sum, mean, maximum, index of the maximum.
 *
 * @module
 */
import {
  apply,
  type Attributes,
  defineOp,
  int64s,
  type Node,
  readInt64s,
} from "../graph.ts";
import { checkAxes, reducedShape } from "../shape.ts";
import { sizeOf } from "../tensor.ts";
import { div, equal, mul, toFloat } from "./elementwise.ts";
import { expand, reshape } from "./movement.ts";

/** Options of a reduction. */
export interface ReduceOptions {
  /** Keep reduced axes with size 1 (default false). */
  readonly keepDims?: boolean;
}

function keeps(attributes: Attributes): boolean {
  return (attributes.keepdims as { int: number }).int === 1;
}

function axesOf(attributes: Attributes): readonly number[] {
  return (attributes.axes as { ints: readonly number[] }).ints;
}

const ReduceSum = defineOp({
  type: "ReduceSum",
  shape: ([x, axes], attributes) =>
    reducedShape(x.shape, readInt64s(axes), keeps(attributes)),
  vjp: ({ inputs: [x, axes], upstream }) => {
    const kept = reducedShape(x.shape, readInt64s(axes), true);
    return [expand(reshape(upstream, kept), x.shape), null];
  },
});

/**
 * Sum over axes (all if left out).
 *
 * @throws {RangeError} If an axis is out of range or named twice
 */
export function sum(
  x: Node,
  axes: readonly number[] = x.shape.map((_, axis) => axis),
  { keepDims = false }: ReduceOptions = {},
): Node {
  if (axes.length === 0) return x;
  const along = checkAxes(axes, x.shape.length);
  return apply(ReduceSum, [x, int64s(along)], {
    keepdims: { int: keepDims ? 1 : 0 },
  });
}

const ReduceMean = defineOp({
  type: "ReduceMean",
  shape: ([x], attributes) =>
    reducedShape(x.shape, axesOf(attributes), keeps(attributes)),
  vjp: ({ inputs: [x], attributes, output, upstream }) => {
    const kept = reducedShape(x.shape, axesOf(attributes), true);
    const count = sizeOf(x.shape) / sizeOf(output.shape);
    const share = mul(reshape(upstream, kept), 1 / count);
    return [expand(share, x.shape)];
  },
});

/**
 * Mean over axes (all if left out).
 *
 * @throws {RangeError} If an axis is out of range or named twice
 */
export function mean(
  x: Node,
  axes: readonly number[] = x.shape.map((_, axis) => axis),
  { keepDims = false }: ReduceOptions = {},
): Node {
  if (axes.length === 0) return x;
  return apply(ReduceMean, [x], {
    axes: { ints: checkAxes(axes, x.shape.length) },
    keepdims: { int: keepDims ? 1 : 0 },
  });
}

const ReduceMax = defineOp({
  type: "ReduceMax",
  shape: ([x], attributes) =>
    reducedShape(x.shape, axesOf(attributes), keeps(attributes)),
  vjp: ({ inputs: [x], attributes, output, upstream }) => {
    const kept = reducedShape(x.shape, axesOf(attributes), true);
    const winners = toFloat(equal(x, reshape(output, kept)));
    const ties = sum(winners, axesOf(attributes), { keepDims: true });
    return [mul(div(winners, ties), reshape(upstream, kept))];
  },
});

/**
 * Maximum over axes (all if left out); ties share the gradient.
 *
 * @throws {RangeError} If an axis is out of range or named twice
 */
export function max(
  x: Node,
  axes: readonly number[] = x.shape.map((_, axis) => axis),
  { keepDims = false }: ReduceOptions = {},
): Node {
  return apply(ReduceMax, [x], {
    axes: { ints: checkAxes(axes, x.shape.length) },
    keepdims: { int: keepDims ? 1 : 0 },
  });
}

const ArgMax = defineOp({
  type: "ArgMax",
  shape: ([x], attributes) =>
    reducedShape(
      x.shape,
      [(attributes.axis as { int: number }).int],
      keeps(attributes),
    ),
  dtype: () => "int64",
});

/**
 * Index of the first maximum along an axis, as int64; no gradient.
 *
 * @throws {RangeError} If the axis is out of range
 */
export function argMax(x: Node, axis: number): Node {
  const [along] = checkAxes([axis], x.shape.length);
  return apply(ArgMax, [x], { axis: { int: along }, keepdims: { int: 0 } });
}
