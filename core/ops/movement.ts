/**
 * Ops that move elements without computing: reshape, transpose, slice...
 *
 * @module
 */
import {
  apply,
  constant,
  defineOp,
  int64s,
  type Node,
  readInt64s,
} from "../graph.ts";
import { broadcast, checkAxes, sameShape, show } from "../shape.ts";
import { type Shape, sizeOf } from "../tensor.ts";

const Reshape = defineOp({
  type: "Reshape",
  shape([x, target]) {
    const shape = readInt64s(target);
    if (sizeOf(shape) !== sizeOf(x.shape)) {
      throw new TypeError(
        `Cannot reshape ${show(x.shape)} to ${show(shape)}: ` +
          `${sizeOf(x.shape)} elements do not fill ${sizeOf(shape)}`,
      );
    }
    return shape;
  },
  vjp: ({ inputs: [x], upstream }) => [reshape(upstream, x.shape), null],
});

/**
 * The same elements in another shape.
 *
 * @throws {TypeError} If the number of elements differs
 */
export function reshape(x: Node, shape: Shape): Node {
  return sameShape(x.shape, shape) ? x : apply(Reshape, [x, int64s(shape)]);
}

const Transpose = defineOp({
  type: "Transpose",
  shape([x], { perm }) {
    return ints(perm).map((axis) => x.shape[axis]);
  },
  vjp: ({ attributes: { perm }, upstream }) => {
    const inverse: number[] = [];
    ints(perm).forEach((axis, i) => inverse[axis] = i);
    return [transpose(upstream, inverse)];
  },
});

/**
 * Reorders the axes.
 *
 * @param x Any tensor
 * @param order Axis of `x` for each axis of the result; reversed if left out
 * @throws {TypeError} If `order` does not name every axis once
 */
export function transpose(x: Node, order?: readonly number[]): Node {
  const rank = x.shape.length;
  const perm = order ?? x.shape.map((_, axis) => rank - 1 - axis);
  if (perm.length !== rank || checkAxes(perm, rank).length !== rank) {
    throw new TypeError(
      `Cannot transpose ${show(x.shape)} by ${
        show(perm)
      }: name every axis once`,
    );
  }
  return apply(Transpose, [x], { perm: { ints: checkAxes(perm, rank) } });
}

const Slice = defineOp({
  type: "Slice",
  shape([x, starts, ends, axes, steps]) {
    const shape = [...x.shape];
    const [from, to, along, by] = [starts, ends, axes, steps].map(readInt64s);
    along.forEach((axis, i) => {
      // Clamping an end far below zero is how ONNX writes "down to the first".
      const end = Math.max(to[i], -1);
      shape[axis] = Math.ceil((end - from[i]) / by[i]);
    });
    return shape;
  },
  vjp: ({ inputs: [x, starts, _ends, axes, steps], output, upstream }) => {
    const from = readInt64s(starts);
    const by = readInt64s(steps);
    let g = upstream;
    const before = x.shape.map(() => 0);
    const after = x.shape.map(() => 0);
    readInt64s(axes).forEach((axis, i) => {
      if (by[i] < 0) g = flip(g, [axis]);
      const step = Math.abs(by[i]);
      if (step > 1) g = spread(g, axis, step);
      const taken = (output.shape[axis] - 1) * step + 1;
      before[axis] = by[i] < 0 ? from[i] - taken + 1 : from[i];
      after[axis] = x.shape[axis] - before[axis] - taken;
    });
    return [pad(g, before, after), null, null, null, null];
  },
});

/** One axis of a slice: from `start` up to but without `end`. */
export interface SliceAxis {
  /** Which axis; negative ones count from the end. */
  readonly axis: number;
  /** First element taken, >= 0. */
  readonly start: number;
  /** Element behind the last one taken, at most the axis's size. */
  readonly end: number;
  /** Distance between taken elements, at least 1 (default 1). */
  readonly step?: number;
}

/**
 * Takes a regular part of a tensor.
 *
 * @param x Any tensor
 * @param parts Axes to shorten; the others stay whole
 * @throws {RangeError} If a part is empty or not inside the tensor
 */
export function slice(x: Node, parts: readonly SliceAxis[]): Node {
  const along = checkAxes(parts.map(({ axis }) => axis), x.shape.length);
  const axes = parts.map((part, i) => ({ ...part, axis: along[i] }));
  for (const { axis, start, end, step = 1 } of axes) {
    if (!(start >= 0 && start < end && end <= x.shape[axis] && step >= 1)) {
      throw new RangeError(
        `Cannot slice axis ${axis} of ${show(x.shape)} from ${start} to ` +
          `${end} by ${step}`,
      );
    }
  }
  const whole = axes.every(({ axis, start, end, step = 1 }) =>
    start === 0 && end === x.shape[axis] && step === 1
  );
  if (whole) return x;
  return apply(Slice, [
    x,
    int64s(axes.map(({ start }) => start)),
    int64s(axes.map(({ end }) => end)),
    int64s(axes.map(({ axis }) => axis)),
    int64s(axes.map(({ step }) => step ?? 1)),
  ]);
}

/**
 * Reverses the order along axes.
 *
 * @throws {RangeError} If an axis is out of range or named twice
 */
export function flip(x: Node, axes: readonly number[]): Node {
  const flipped = checkAxes(axes, x.shape.length)
    .filter((axis) => x.shape[axis] > 1);
  if (flipped.length === 0) return x;
  return apply(Slice, [
    x,
    int64s(flipped.map((axis) => x.shape[axis] - 1)),
    int64s(flipped.map(() => -(2 ** 31))),
    int64s(flipped),
    int64s(flipped.map(() => -1)),
  ]);
}

/** Puts `step - 1` zeros between the elements of an axis. */
function spread(x: Node, axis: number, step: number): Node {
  const shape = [...x.shape];
  const split = [...shape.slice(0, axis + 1), 1, ...shape.slice(axis + 1)];
  const after = split.map((_, i) => (i === axis + 1 ? step - 1 : 0));
  const padded = pad(reshape(x, split), after.map(() => 0), after);
  shape[axis] *= step;
  const size = shape[axis] - step + 1;
  return slice(reshape(padded, shape), [{ axis, start: 0, end: size }]);
}

const Pad = defineOp({
  type: "Pad",
  shape([x, pads]) {
    const amounts = readInt64s(pads);
    const rank = x.shape.length;
    return x.shape.map((size, i) => size + amounts[i] + amounts[i + rank]);
  },
  vjp: ({ inputs: [x, pads], upstream }) => {
    const before = readInt64s(pads);
    const axes = x.shape.map((size, axis) => ({
      axis,
      start: before[axis],
      end: before[axis] + size,
    }));
    return [slice(upstream, axes), null, null];
  },
});

/**
 * Adds a border of one value.
 *
 * @param x Any tensor
 * @param before Amount before each axis, >= 0
 * @param after Amount after each axis, >= 0
 * @param value What the border holds (default 0)
 * @throws {RangeError} If an amount is negative
 */
export function pad(
  x: Node,
  before: readonly number[],
  after: readonly number[],
  value = 0,
): Node {
  const amounts = [...before, ...after];
  if (amounts.length !== 2 * x.shape.length || amounts.some((n) => n < 0)) {
    throw new RangeError(
      `Cannot pad ${show(x.shape)} by ${show(before)} and ${show(after)}: ` +
        `give one amount >= 0 per axis`,
    );
  }
  if (amounts.every((n) => n === 0)) return x;
  return apply(Pad, [x, int64s(amounts), constant(value)]);
}

const Concat = defineOp({
  type: "Concat",
  shape(inputs, { axis }) {
    const along = int(axis);
    const shape = [...inputs[0].shape];
    for (const { shape: other } of inputs.slice(1)) {
      const fits = other.length === shape.length &&
        other.every((size, i) => i === along || size === shape[i]);
      if (!fits) {
        throw new TypeError(
          `Cannot join ${show(inputs[0].shape)} and ${show(other)} along ` +
            `axis ${along}: the other sizes must be equal`,
        );
      }
      shape[along] += other[along];
    }
    return shape;
  },
  vjp: ({ inputs, attributes: { axis }, upstream }) => {
    const along = int(axis);
    let start = 0;
    return inputs.map(({ shape }) => {
      const end = start + shape[along];
      const part = slice(upstream, [{ axis: along, start, end }]);
      start = end;
      return part;
    });
  },
});

/**
 * Joins tensors along an axis.
 *
 * @param parts At least one, equal in the sizes of all other axes
 * @param axis Which axis; negative ones count from the end
 * @throws {TypeError} If the other sizes differ
 */
export function concat(parts: readonly Node[], axis: number): Node {
  if (parts.length === 1) return parts[0];
  const [along] = checkAxes([axis], parts[0].shape.length);
  return apply(Concat, parts, { axis: { int: along } });
}

const Expand = defineOp({
  type: "Expand",
  shape([x, target]) {
    const shape = readInt64s(target);
    if (!sameShape(broadcast(x.shape, shape), shape)) {
      throw new TypeError(
        `Cannot expand ${show(x.shape)} to ${show(shape)}: ` +
          `only axes of size 1 can be repeated`,
      );
    }
    return shape;
  },
  vjp: ({ upstream }) => [upstream, null],
});

/**
 * Repeats axes of size 1 (and adds axes in front) up to a shape.
 *
 * @throws {TypeError} If the shape cannot be reached
 */
export function expand(x: Node, shape: Shape): Node {
  return sameShape(x.shape, shape) ? x : apply(Expand, [x, int64s(shape)]);
}

const DepthToSpace = defineOp({
  type: "DepthToSpace",
  shape([x], { blocksize }) {
    const [n, c, h, w] = x.shape;
    const block = int(blocksize);
    if (x.shape.length !== 4 || c % block ** 2 !== 0) {
      throw new TypeError(
        `Cannot rearrange ${show(x.shape)} into blocks of ${block}: need ` +
          `[n, c, h, w] with c a multiple of ${block ** 2}`,
      );
    }
    return [n, c / block ** 2, h * block, w * block];
  },
  vjp: ({ inputs: [x], attributes: { blocksize }, upstream }) => {
    const [n, c, h, w] = x.shape;
    const block = int(blocksize);
    const split = [n, c / block ** 2, h, block, w, block];
    const parts = reshape(upstream, split);
    return [reshape(transpose(parts, [0, 3, 5, 1, 2, 4]), x.shape)];
  },
});

/**
 * Interleaves groups of channels into space.
 *
 * @param x `[n, block * block * c, h, w]`, the block's row and column outermost
 * @param block Size of a block
 * @returns `[n, c, h * block, w * block]`
 * @throws {TypeError} If the channels do not divide into blocks
 */
export function depthToSpace(x: Node, block: number): Node {
  return apply(DepthToSpace, [x], {
    blocksize: { int: block },
    mode: { string: "DCR" },
  });
}

const Gather = defineOp({
  type: "Gather",
  shape([x, indices], { axis }) {
    const along = int(axis);
    return [
      ...x.shape.slice(0, along),
      ...indices.shape,
      ...x.shape.slice(along + 1),
    ];
  },
});

/**
 * Takes elements of an axis by index. Not differentiable: multiply by a
 * one-hot matrix where a gradient is needed.
 *
 * @param x Any tensor
 * @param indices int64 node
 * @param axis Axis of `x` that is replaced by the axes of `indices`
 * @throws {RangeError} If the axis is out of range
 */
export function gather(x: Node, indices: Node, axis: number): Node {
  const [along] = checkAxes([axis], x.shape.length);
  return apply(Gather, [x, indices], { axis: { int: along } });
}

function ints(attribute: unknown): readonly number[] {
  return (attribute as { ints: readonly number[] }).ints;
}

function int(attribute: unknown): number {
  return (attribute as { int: number }).int;
}
