/**
 * 3 x 3 convolutions with half of the multiplications, on the CPU provider:
 * Winograd's F(4, 3) along rows of images (Lavin and Gray 2015).
 *
 * Four neighbours in a row come from six products instead of twelve. What is
 * done before and after are small matrices on the row, and the products are
 * convolutions of 3 x 1 in six groups. All of it runs on memory as it lies if
 * images and columns have changed places, `[w, c, h, n]`: a transform is then
 * one product of matrices, channels stay in blocks, and so do activations from
 * one convolution to the next.
 *
 * In both dimensions, F(4 x 4, 3 x 3) would multiply half as often again, but
 * with four times the weights instead of twice, and three times the rounding
 * error. One thread takes 6.7 instead of 7.0 ms at 512 channels of 4 x 4, and
 * 10.6 instead of 7.8 ms at 256 of 8 x 8.
 *
 * @module
 */
import {
  apply,
  type Attributes,
  constant,
  defineOp,
  matmul,
  type Node,
  rebuilt,
  reshape,
  sameShape,
  tensor,
  topologicalOrder,
  transpose,
} from "../core/mod.ts";

/**
 * Whether a convolution takes less time this way. Measured with bias and ReLU,
 * ms of one thread for 32 images, direct and this:
 *
 * - 512 channels of 4 x 4: 25.7, 7.0; 128: 0.91, 0.48
 * - 256 channels of 8 x 8: 13.8, 7.8; 64: 0.84, 0.61
 * - 128 channels of 16 x 16: 12.8, 9.5; 32: 1.09, 0.95
 * - 64 channels of 32 x 32: 13.4, 14.2; 16: 1.37, 1.78
 *
 * 512 channels of 4 x 4 by the number of images: 8: 6.9, 2.5; 2: 2.2, 1.8;
 * 1: 1.2, 1.8. 256 of 8 x 8: 8: 3.5, 2.2; 2: 1.0, 0.8; 1: 0.52, 0.68.
 * With fewer channels, moves between layouts take what is won: a step of the
 * attack at a width of 16 takes 40 ms from 64 or from 128 channels on, as
 * without, and 42 from 32 on.
 */
function pays(images: number, channels: number, width: number): boolean {
  return images >= 2 && channels >= 128 && width <= 16;
}

/** Neighbours in a row that are computed together. */
export const TILE = 4;

/** Products for each tile and each row of a kernel. */
export const POINTS = 6;

/** From the pixels that a tile reads to the points 0, 1, -1, 2, -2, infinity. */
const SPREAD = [
  [4, 0, -5, 0, 1, 0],
  [0, -4, -4, 1, 1, 0],
  [0, 4, -4, -1, 1, 0],
  [0, -2, -1, 2, 1, 0],
  [0, 2, -1, -2, 1, 0],
  [0, 4, 0, -5, 0, 1],
];

/** From a row of a kernel to the points, `[POINTS, 3]`. */
export const KERNEL_ROWS: readonly (readonly number[])[] = [
  [1 / 4, 0, 0],
  [-1 / 6, -1 / 6, -1 / 6],
  [-1 / 6, 1 / 6, -1 / 6],
  [1 / 24, 1 / 12, 1 / 6],
  [1 / 24, -1 / 12, 1 / 6],
  [0, 0, 1],
];
const KERNEL = matrix(KERNEL_ROWS);

/** From the points to a tile, `[TILE, POINTS]`. */
export const GATHER_ROWS: readonly (readonly number[])[] = [
  [1, 1, 1, 1, 1, 0],
  [0, 1, -1, 2, -2, 0],
  [0, 1, 1, 4, 4, 0],
  [0, 1, -1, 8, -8, 1],
];
const GATHER = matrix(GATHER_ROWS);

/** From a constant to the points: what is added at 1 reaches the whole tile. */
const BIAS = matrix([[0], [1], [0], [0], [0], [0]]);

/** A constant of two axes. */
export function matrix(rows: readonly (readonly number[])[]): Node {
  return constant(tensor(rows.flat(), [rows.length, rows[0].length]));
}

/** `spreadOf()` by width: one node, so that it is stored once. */
const spreads = new Map<number, Node>();

function spreadOf(width: number): Node {
  const made = spreads.get(width) ?? matrix(spreadRows(width));
  spreads.set(width, made);
  return made;
}

/**
 * `SPREAD` of each tile that covers a row of pixels, zeros outside:
 * `[tiles * POINTS, width]`.
 */
export function spreadRows(width: number): number[][] {
  return Array.from(
    { length: Math.ceil(width / TILE) },
    (_, tile) =>
      SPREAD.map((taps) =>
        Array.from({ length: width }, (_, i) => taps[i - tile * TILE + 1] ?? 0)
      ),
  ).flat();
}

/** Images and columns change places: `[w, c, h, n]` of `[n, c, h, w]`. */
export const SWAP = "robust-reps.SwapImagesAndColumns";

const Swap = defineOp({
  type: SWAP,
  shape: ([{ shape: [n, c, h, w] }]) => [w, c, h, n],
  expand: ([x]) => transpose(x, [3, 1, 2, 0]),
});

/** What `SWAP` does to a value in blocks of channels. */
export function swapBlocks(x: Node, block: number): Node {
  const [n, c, h, w] = x.shape;
  const pixels = reshape(x, [n, c / block * h, w, block]);
  return reshape(transpose(pixels, [2, 1, 0, 3]), [w, c, h, n]);
}

/**
 * A convolution between values whose images and columns have changed places;
 * weights are `[outputs, c, 3, 3]`, and a bias may follow.
 */
export const COLUMN_CONV = "robust-reps.ColumnConv";

const ColumnConv = defineOp({
  type: COLUMN_CONV,
  shape: ([{ shape: [w, , h, n] }, { shape: [outputs] }]) => [w, outputs, h, n],
});

/** A convolution in blocks; `padding` is that of rows and of columns. */
type GroupedConv = (x: Node, w: Node, options: {
  readonly groups: number;
  readonly padding: readonly [number, number];
  readonly bias: Node | null;
}) => Node;

/**
 * Computes a `ColumnConv` in blocks.
 *
 * @param x `[w, c, h, n]`, in blocks
 * @param weights `[outputs, c, 3, 3]`; they are
 * `[outputs / b, c / b, 3, 3, b, b]` in memory
 * @param bias `[outputs]`
 * @param conv Computes 3 x 1 convolutions
 * @returns `[w, outputs, h, n]`, in blocks
 */
export function columnConv(
  x: Node,
  weights: Node,
  bias: Node | null,
  { block, conv }: { readonly block: number; readonly conv: GroupedConv },
): Node {
  const [width, c, height, n] = x.shape;
  const [outputs] = weights.shape;
  const tiles = width / TILE;
  const points = matmul(spreadOf(width), reshape(x, [width, c * height * n]));
  const products = conv(
    reshape(points, [tiles, POINTS * c, height, n]),
    atPoints(weights, block),
    {
      groups: POINTS,
      padding: [1, 0],
      bias: bias && reshape(
        matmul(BIAS, reshape(bias, [1, outputs])),
        [POINTS * outputs],
      ),
    },
  );
  const row = matmul(
    GATHER,
    reshape(products, [tiles, POINTS, outputs * height * n]),
  );
  return reshape(row, [width, outputs, height, n]);
}

/** Weights of the groups in blocks, `[POINTS * outputs, c, 3, 1]`. */
function atPoints(weights: Node, block: number): Node {
  const [outputs, c] = weights.shape;
  const pairs = outputs * c / block ** 2;
  const taps = transpose(
    reshape(weights, [pairs * 3, 3, block ** 2]),
    [1, 0, 2],
  );
  return reshape(
    matmul(KERNEL, reshape(taps, [3, outputs * c * 3])),
    [POINTS * outputs, c, 3, 1],
  );
}

/** What decides where `useWinograd()` does anything. */
export interface WinogradOptions {
  /** Channels in a block. */
  readonly block: number;
  /** Ops that compute each element from those at its place. */
  readonly elementwise: ReadonlySet<string>;
  /** Whether a parameter is known before the graph runs, by its name. */
  readonly isPrepared: (name: string) => boolean;
}

/**
 * Takes `ColumnConv` for the convolutions that it pays for, if their weights
 * can be transformed before the graph runs.
 *
 * @param outputs Nodes to compute
 * @returns Equal nodes, in the same order
 */
export function useWinograd(
  outputs: readonly Node[],
  options: WinogradOptions,
): Node[] {
  const order = topologicalOrder(outputs);
  const swapped = chooseSwapped(order, options);
  if (swapped.size === 0) return [...outputs];
  const plain = new Map<Node, Node>();
  const columns = new Map<Node, Node>();
  const asPlain = (node: Node) => held(plain, node, columns);
  const asColumns = (node: Node) => held(columns, node, plain);
  for (const node of order) {
    const { op, inputs, attributes } = node;
    if (!swapped.has(node)) {
      plain.set(node, rebuilt(node, inputs.map(asPlain)));
    } else if (op!.type === "Conv") {
      const [x, ...weights] = inputs;
      const from = [asColumns(x), ...weights.map(asPlain)];
      columns.set(node, apply(ColumnConv, from));
    } else {
      columns.set(node, apply(op!, inputs.map(asColumns), attributes));
    }
  }
  return outputs.map(asPlain);
}

/** A node's value from one map, if need be from the other's by a swap. */
function held(
  values: Map<Node, Node>,
  node: Node,
  others: ReadonlyMap<Node, Node>,
): Node {
  const value = values.get(node) ?? apply(Swap, [others.get(node)!]);
  values.set(node, value);
  return value;
}

/** Nodes whose images and columns change places: convolutions and between. */
function chooseSwapped(
  order: readonly Node[],
  options: WinogradOptions,
): Set<Node> {
  const varying = new Set<Node>();
  const swapped = new Set<Node>();
  for (const node of order) {
    const { kind, name, inputs } = node;
    const isFed = kind === "input" ||
      (kind === "parameter" && !options.isPrepared(name));
    if (isFed || inputs.some((x) => varying.has(x))) varying.add(node);
    const [, weights] = inputs;
    if (isTaken(node, options.block) && !varying.has(weights)) {
      swapped.add(node);
    }
  }
  const isElementwise = ({ op, inputs, shape }: Node) =>
    op !== null && options.elementwise.has(op.type) && shape.length === 4 &&
    inputs.every((x) => sameShape(x.shape, shape));
  // What a convolution reads, through elementwise ops.
  const wanted = new Set<Node>();
  for (const node of order.toReversed()) {
    if (swapped.has(node)) wanted.add(node.inputs[0]);
    else if (wanted.has(node) && isElementwise(node)) {
      for (const x of node.inputs) wanted.add(x);
    }
  }
  for (const node of order) {
    if (!isElementwise(node)) continue;
    const isHere = (x: Node) => swapped.has(x);
    const { inputs } = node;
    if (inputs.every(isHere) || (wanted.has(node) && inputs.some(isHere))) {
      swapped.add(node);
    }
  }
  return swapped;
}

/** Whether a node is a convolution that this is meant for. */
function isTaken(node: Node, block: number): boolean {
  const { op, inputs: [x, w], attributes, shape } = node;
  if (op?.type !== "Conv" || op.domain) return false;
  const [images, c, , width] = x.shape;
  const [outputs, , ...kernel] = w.shape;
  return kernel.join() === "3,3" && isOnes(attributes, "strides") &&
    isOnes(attributes, "pads") && width % TILE === 0 &&
    pays(images, Math.min(c, outputs), width) &&
    c % block === 0 && outputs % block === 0 && shape.length === 4;
}

function isOnes(attributes: Attributes, name: string): boolean {
  const { ints } = attributes[name] as { ints: readonly number[] };
  return ints.every((value) => value === 1);
}
