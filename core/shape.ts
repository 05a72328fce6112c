/**
 * Shape rules shared by the ops, and how shapes print in errors.
 *
 * @module
 */
import type { Shape } from "./tensor.ts";

/** Prints a shape for an error message, such as `[2, 3]`. */
export function show(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/** Whether two shapes are the same. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}

/**
 * The shape that two shapes broadcast to (numpy's rule: align the last axes,
 * stretch axes of size 1).
 *
 * @throws {TypeError} If they cannot be broadcast
 */
export function broadcast(a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const sizeA = a[i - rank + a.length] ?? 1;
    const sizeB = b[i - rank + b.length] ?? 1;
    if (sizeA !== sizeB && sizeA !== 1 && sizeB !== 1) {
      throw new TypeError(
        `Cannot broadcast ${show(a)} with ${show(b)}: ` +
          `sizes of an axis must be equal or 1`,
      );
    }
    return sizeA === 1 ? sizeB : sizeA;
  });
}

/** Axes of `to` along which `from` was stretched when it was broadcast. */
export function broadcastAxes(from: Shape, to: Shape): number[] {
  const offset = to.length - from.length;
  return to.flatMap((size, axis) =>
    axis < offset || (from[axis - offset] === 1 && size !== 1) ? [axis] : []
  );
}

/**
 * Checks axes and counts negative ones from the end.
 *
 * @throws {RangeError} If an axis is out of range or named twice
 */
export function checkAxes(axes: readonly number[], rank: number): number[] {
  const positive = axes.map((axis) => (axis < 0 ? axis + rank : axis));
  const outside = axes.find((_, i) =>
    !(Number.isInteger(positive[i]) && positive[i] >= 0 && positive[i] < rank)
  );
  if (outside !== undefined) {
    throw new RangeError(
      `Cannot use axis ${outside}: the tensor has ${rank} axes`,
    );
  }
  if (new Set(positive).size !== positive.length) {
    throw new RangeError(`Cannot use axes ${show(axes)}: one is named twice`);
  }
  return positive;
}

/** Shape left after reducing over `axes`. */
export function reducedShape(
  shape: Shape,
  axes: readonly number[],
  keepDims: boolean,
): Shape {
  return shape.flatMap((size, axis) =>
    axes.includes(axis) ? (keepDims ? [1] : []) : [size]
  );
}
