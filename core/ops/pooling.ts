/**
 * Pooling over space.
 *
 * @module
 */
import { apply, type Attributes, defineOp, type Node } from "../graph.ts";
import { show } from "../shape.ts";
import type { Shape } from "../tensor.ts";
import { add, equal, mul, sub, toFloat } from "./elementwise.ts";
import {
  concat,
  depthToSpace,
  expand,
  pad,
  reshape,
  slice,
  transpose,
} from "./movement.ts";

const GlobalAveragePool = defineOp({
  type: "GlobalAveragePool",
  shape([x]) {
    if (x.shape.length !== 4) {
      throw new TypeError(
        `Cannot pool ${show(x.shape)}: need [n, channels, h, w]`,
      );
    }
    return [x.shape[0], x.shape[1], 1, 1];
  },
  vjp: ({ inputs: [x], upstream: g }) => [
    expand(mul(g, 1 / (x.shape[2] * x.shape[3])), x.shape),
  ],
});

/**
 * Mean over space.
 *
 * @param x `[n, c, h, w]`
 * @returns `[n, c]`
 * @throws {TypeError} If `x` does not have four axes
 */
export function globalAveragePool(x: Node): Node {
  return reshape(apply(GlobalAveragePool, [x]), x.shape.slice(0, 2));
}

/** Geometry of a pooling window. */
export interface PoolOptions {
  /** Height and width of the window. */
  readonly kernel: number;
  /** Distance between windows (default: `kernel`). */
  readonly stride?: number;
  /** Rows and columns beyond the edge that windows may cover (default 0). */
  readonly padding?: number;
}

const MaxPool = defineOp({
  type: "MaxPool",
  shape([x], attributes) {
    const [kernel, stride, padding] = geometryOf(attributes);
    const [n, c, ...space] = x.shape;
    const [h, w] = space.map((size) =>
      Math.floor((size + 2 * padding - kernel) / stride) + 1
    );
    if (x.shape.length !== 4 || h < 1 || w < 1 || 2 * padding > kernel) {
      throw new TypeError(
        `Cannot pool ${show(x.shape)} over windows of ${kernel}: need ` +
          `[n, c, h, w] at least that large and padding <= kernel / 2`,
      );
    }
    return [n, c, h, w];
  },
  vjp: ({ inputs: [x], attributes, output, upstream }) => [
    apply(MaxPoolGradient, [x, output, upstream], attributes),
  ],
});

/** Type of the op that computes the gradient of max pooling. */
export const MAX_POOL_GRADIENT = "robust-reps.MaxPoolGradient";

/**
 * Sends each window's gradient to its first maximum in row-major order, as
 * PyTorch does: from input, output and the output's gradient to the input's.
 */
const MaxPoolGradient = defineOp({
  type: MAX_POOL_GRADIENT,
  shape: ([x]) => x.shape,
  // Linear in the gradient; where maxima lie does not change with x.
  vjp: ({ inputs: [x, y], attributes, upstream }) => {
    const windows = slideWindows(x, y, geometryOf(attributes));
    return [null, null, gatherMaxima(windows, upstream)];
  },
  expand: ([x, y, g], attributes) =>
    scatterGradient(slideWindows(x, y, geometryOf(attributes)), g),
});

/** Kernel, stride and padding. */
type Geometry = readonly [number, number, number];

function geometryOf(attributes: Attributes): Geometry {
  const first = (name: string) =>
    (attributes[name] as { ints: readonly number[] }).ints[0];
  return [first("kernel_shape"), first("strides"), first("pads")];
}

/**
 * Maximum over windows; padding never wins.
 *
 * @param x `[n, c, h, w]`
 * @returns `[n, c, h', w']` with `h' = floor((h + 2 * padding - kernel) /
 * stride) + 1`
 * @throws {TypeError} If `x` is smaller than a window
 */
export function maxPool(x: Node, options: PoolOptions): Node {
  const { kernel, stride = kernel, padding = 0 } = options;
  return apply(MaxPool, [x], {
    kernel_shape: { ints: [kernel, kernel] },
    strides: { ints: [stride, stride] },
    pads: { ints: [padding, padding, padding, padding] },
  });
}

/** A position within all windows at once. */
interface Tap {
  /** Row and column of the position modulo the stride. */
  readonly row: number;
  readonly column: number;
  /** Where the first window's lies in its phase, see `Windows`. */
  readonly start: number;
  /** 1 where this position is the window's first maximum, else 0. */
  readonly first: Node;
}

/**
 * Windows over a map. The positions of one phase, a whole number of strides
 * apart, lie side by side as one long row: a position within the windows is
 * then a piece of that row, beginning a fixed distance apart for all. Between
 * two lines of windows lie values that belong to none.
 */
interface Windows {
  /** Of the map and of its windows, `[n, c, h, w]`. */
  readonly inputShape: Shape;
  readonly outputShape: Shape;
  readonly stride: number;
  readonly padding: number;
  /** Height and width of one phase. */
  readonly phase: readonly [number, number];
  /** Length of a piece. */
  readonly length: number;
  readonly taps: readonly Tap[];
}

/** Finds the first maximum of each window, from a map and its maxima. */
function slideWindows(x: Node, y: Node, geometry: Geometry): Windows {
  const [kernel, stride, padding] = geometry;
  const [h, w] = y.shape.slice(2);
  const reach = Math.ceil(kernel / stride) - 1;
  const phase = [h, w].map((windows, i) =>
    Math.max(windows + reach, Math.ceil((x.shape[i + 2] + padding) / stride))
  ) as [number, number];
  const length = (h - 1) * phase[1] + w;
  const rest = {
    ...{ inputShape: x.shape, outputShape: y.shape, stride, padding },
    ...{ phase, length },
  };
  const phases = phasesOf(x, rest, -Infinity);
  const maxima = alongRow(y, rest);
  const taps: Tap[] = [];
  let open: Node | null = null; // 1 where no maximum was found yet
  for (let i = 0; i < kernel; i++) {
    for (let j = 0; j < kernel; j++) {
      const [row, column] = [i % stride, j % stride];
      const start = Math.floor(i / stride) * phase[1] + Math.floor(j / stride);
      const tap = { row, column, start };
      const hit: Node = toFloat(equal(pieceOf(phases, tap, rest), maxima));
      const first: Node = open ? mul(hit, open) : hit;
      open = open ? sub(open, first) : sub(1, first);
      taps.push({ ...tap, first });
    }
  }
  return { ...rest, taps };
}

/** A map's phases, `[column * stride + row, n, c, positions]`. */
function phasesOf(
  x: Node,
  { stride, padding, phase: [h, w] }: Omit<Windows, "taps">,
  beyond: number,
): Node {
  const [n, c, height, width] = x.shape;
  const padded = pad(
    x,
    [0, 0, padding, padding],
    [
      0,
      0,
      ...[h * stride - height, w * stride - width].map((room) =>
        Math.max(0, room - padding)
      ),
    ],
    beyond,
  );
  // Rows first, then columns: each moves one axis, for which ONNX Runtime has
  // fast kernels, four times as fast as both at once.
  const byRow = transpose(
    reshape(padded, [n, c, h, stride, w * stride]),
    [3, 0, 1, 2, 4],
  );
  // Reshaped, or ONNX Runtime moves the transpose behind the slices.
  return reshape(
    transpose(reshape(byRow, [stride, n, c, h * w, stride]), [4, 0, 1, 2, 3]),
    [stride * stride, n, c, h * w],
  );
}

/** One position of all windows, `[n, c, length]`. */
function pieceOf(
  phases: Node,
  { row, column, start }: Omit<Tap, "first">,
  { stride, outputShape: [n, c], length }: Omit<Windows, "taps">,
): Node {
  const order = column * stride + row;
  const piece = slice(phases, [
    { axis: 0, start: order, end: order + 1 },
    { axis: 3, start, end: start + length },
  ]);
  return reshape(piece, [n, c, length]);
}

/** One value per window, laid out as `pieceOf()`; zeros between lines. */
function alongRow(
  y: Node,
  { phase: [, width], length }: Omit<Windows, "taps">,
): Node {
  const [n, c, h, w] = y.shape;
  const lines = pad(y, [0, 0, 0, 0], [0, 0, 0, width - w]);
  return slice(reshape(lines, [n, c, h * width]), [
    { axis: 2, start: 0, end: length },
  ]);
}

/** Sends each window's gradient to its first maximum. */
function scatterGradient(windows: Windows, g: Node): Node {
  const { inputShape, stride, padding, phase, length, taps } = windows;
  const [n, c, height, width] = inputShape;
  const gradients = alongRow(g, windows);
  const positions = phase[0] * phase[1];
  const phases: (Node | null)[] = Array(stride * stride).fill(null);
  for (const { row, column, start, first } of taps) {
    const part = pad(
      mul(gradients, first),
      [0, 0, start],
      [0, 0, positions - length - start],
    );
    const i = row * stride + column;
    phases[i] = phases[i] ? add(phases[i], part) : part;
  }
  // Phases that no window reaches.
  const room = pad(gradients, [0, 0, 0], [0, 0, positions - length]);
  const maps = concat(
    phases.map((map) => reshape(map ?? mul(room, 0), [n, c, ...phase])),
    1,
  );
  const whole = stride === 1 ? maps : depthToSpace(maps, stride);
  return slice(whole, [
    { axis: 2, start: padding, end: padding + height },
    { axis: 3, start: padding, end: padding + width },
  ]);
}

/** The values of `u` where each window's first maximum lies. */
function gatherMaxima(windows: Windows, u: Node): Node {
  const { outputShape, phase: [, width], length, taps } = windows;
  const [n, c, h, w] = outputShape;
  const phases = phasesOf(u, windows, 0);
  const found = taps
    .map((tap) => mul(pieceOf(phases, tap, windows), tap.first))
    .reduce((sum, part) => add(sum, part));
  const lines = pad(found, [0, 0, 0], [0, 0, h * width - length]);
  return slice(reshape(lines, [n, c, h, width]), [
    { axis: 3, start: 0, end: w },
  ]);
}
