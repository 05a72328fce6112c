/**
 * Pooling over space.
 *
 * @module
 */
import { apply, defineOp, type Node } from "../graph.ts";
import { show } from "../shape.ts";
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
  vjp: ({ inputs: [x], attributes, output, upstream }) => {
    const [kernel, stride, padding] = geometryOf(attributes);
    return [maxPoolGradient(x, output, upstream, kernel, stride, padding)];
  },
});

function geometryOf(
  attributes: Readonly<Record<string, unknown>>,
): [number, number, number] {
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

/**
 * Sends each window's gradient to its first maximum in row-major order, as
 * PyTorch does. ONNX has no such operator; this one gathers over the
 * positions within a window: those a whole number of strides apart add up in
 * one map, and the stride * stride maps interleave to the input's size.
 */
function maxPoolGradient(
  x: Node,
  y: Node,
  g: Node,
  kernel: number,
  stride: number,
  padding: number,
): Node {
  const [n, c, height, width] = x.shape;
  const [h, w] = [y.shape[2], y.shape[3]];
  // Maps of this size hold every window's positions of one phase.
  const reach = Math.ceil(kernel / stride) - 1;
  const [mapH, mapW] = [
    Math.max(h + reach, Math.ceil((height + padding) / stride)),
    Math.max(w + reach, Math.ceil((width + padding) / stride)),
  ];
  const beyond = (size: number, map: number) =>
    Math.max(0, map * stride - size - padding);
  const padded = pad(
    x,
    [0, 0, padding, padding],
    [0, 0, beyond(height, mapH), beyond(width, mapW)],
    -Infinity,
  );
  // The positions of one phase side by side: windows then slide over whole
  // rows of them, not over every stride-th value.
  const phased = transpose(
    reshape(padded, [n, c, mapH, stride, mapW, stride]),
    [3, 5, 0, 1, 2, 4],
  );
  const phases: (Node | null)[] = Array(stride * stride).fill(null);
  let open: Node | null = null; // 1 where no maximum was found yet
  for (let i = 0; i < kernel; i++) {
    for (let j = 0; j < kernel; j++) {
      const [row, column] = [i % stride, j % stride];
      const [top, left] = [Math.floor(i / stride), Math.floor(j / stride)];
      const window = slice(phased, [
        { axis: 0, start: row, end: row + 1 },
        { axis: 1, start: column, end: column + 1 },
        { axis: 4, start: top, end: top + h },
        { axis: 5, start: left, end: left + w },
      ]);
      const candidate = reshape(window, [n, c, h, w]);
      const hit: Node = toFloat(equal(candidate, y));
      const first: Node = open ? mul(hit, open) : hit;
      open = open ? sub(open, first) : sub(1, first);
      const part = pad(
        mul(g, first),
        [0, 0, top, left],
        [0, 0, mapH - h - top, mapW - w - left],
      );
      const phase = row * stride + column;
      phases[phase] = phases[phase] ? add(phases[phase], part) : part;
    }
  }
  const zero = mul(pad(g, [0, 0, 0, 0], [0, 0, mapH - h, mapW - w]), 0);
  const maps = concat(phases.map((map) => map ?? zero), 1);
  const whole = stride === 1
    ? reshape(maps, [n, c, mapH, mapW])
    : depthToSpace(maps, stride);
  return slice(whole, [
    { axis: 2, start: padding, end: padding + height },
    { axis: 3, start: padding, end: padding + width },
  ]);
}
