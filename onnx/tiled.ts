/**
 * Convolutions as the WebGPU provider computes them best.
 *
 * Its kernels make tiles of 32 x 32 results, each by one workgroup that passes
 * over the inner dimension 32 at a time. A convolution has tiles for each image
 * of its own: on a map of 4 x 4 half of a tile is empty. Products of matrices
 * have no such limit, so that convolutions of small maps become products, and
 * gradients of weights, whose inner dimension is all positions of all images,
 * are split where there would be too few tiles for a large device.
 *
 * @module
 */
import {
  add,
  CONV_WEIGHT_GRADIENT,
  type ConvGeometry,
  convGeometry,
  expandOps,
  gather,
  gemm,
  int64s,
  matmul,
  type Node,
  pad,
  reshape,
  simplify,
  sizeOf,
  sum,
  topologicalOrder,
  transpose,
} from "../core/mod.ts";
import { largestDivisor } from "./weight_gradient.ts";
import {
  GATHER_ROWS,
  KERNEL_ROWS,
  matrix,
  POINTS,
  spreadRows,
  TILE as PATCH,
} from "./winograd.ts";

/** Side of a tile, and what a workgroup takes of the inner dimension at once. */
const TILE = 32;

/**
 * What things cost, in passes of a workgroup over 32 of the inner dimension, of
 * which an H100 does one in 4.4 ns when it has enough of them (15 TFLOP/s):
 * products of 17,152 x 576 x 64 to 512 x 4,608 x 512 took 142 to 185 us.
 */
const COST = {
  /** Workgroups that a large device runs at once at full speed, at least. */
  together: 256,
  /** A pass of a convolution, which computes addresses of pixels: 171 us. */
  convolution: 1.2,
  /** One more program: 13 us on the host. */
  dispatch: 3000,
  /** Writing 10^6 bytes by Gather: 189 us for 75. */
  gathered: 570,
  /** Writing and adding up 10^6 bytes of partial sums. */
  summed: 115,
  /**
   * 10^6 bytes of an array that devices can bind, all but the smallest: a
   * formulation with larger ones than the convolution has is not taken.
   */
  most: 2 ** 28 / 1e6,
} as const;

/** Cost of products of `[rows, inner]` and `[inner, columns]`. */
function productCost(
  rows: number,
  inner: number,
  columns: number,
  count = 1,
): number {
  const tiles = count * Math.ceil(rows / TILE) * Math.ceil(columns / TILE);
  return Math.ceil(inner / TILE) * Math.max(tiles, COST.together);
}

/** 10^6 bytes of float32 elements. */
function megabytes(elements: number): number {
  return elements * Float32Array.BYTES_PER_ELEMENT / 1e6;
}

/**
 * Replaces what ONNX lacks, and what the WebGPU provider is slow at.
 *
 * @param outputs Nodes to compute
 * @param isPrepared Whether a parameter is known before the graph runs, by its
 * name: what depends on such alone is not computed in every run (default: all)
 * @returns Equal nodes, in the same order
 */
export function useTiledKernels(
  outputs: readonly Node[],
  isPrepared: (name: string) => boolean = () => true,
): Node[] {
  const isKnown = (node: Node) =>
    topologicalOrder([node]).every(({ kind, name }) =>
      kind === "parameter" ? isPrepared(name) : kind !== "input"
    );
  return simplify(expandOps(simplify(outputs), (node, inputs) => {
    switch (node.op?.type) {
      case "Conv":
        return node.op.domain
          ? null
          : convolution(node, inputs, isKnown(inputs[1]));
      case CONV_WEIGHT_GRADIENT:
        return weightGradient(inputs, convGeometry(node.attributes));
      default:
        return null;
    }
  }));
}

/**
 * A convolution by products of matrices; null where it is better left.
 *
 * @param isKnown Whether what is made of the weights costs nothing at each run
 */
function convolution(
  node: Node,
  inputs: readonly Node[],
  isKnown: boolean,
): Node | null {
  const [x, w, bias] = inputs;
  const geometry = convGeometry(node.attributes);
  const { kernel, stride, padding } = geometry;
  const [n, c] = x.shape;
  const [, outputs, h, v] = node.shape;
  // The provider's kernel for 1 x 1 is a product already, or small.
  if (kernel === 1) return null;
  const inner = c * kernel ** 2;
  const costs: [typeof byColumns | null, number][] = [
    [null, COST.convolution * productCost(h * v, inner, outputs, n)],
    [byColumns, columnsCost(n, h * v, inner, outputs)],
  ];
  if (kernel === 3 && stride === 1 && padding === 1) {
    for (const { make, cost } of WINOGRAD) {
      const ofWeights = isKnown ? 0 : weightsCost(c, outputs);
      costs.push([make, cost(x.shape, outputs) + ofWeights]);
    }
  }
  const [way] = costs.reduce((a, b) => b[1] < a[1] ? b : a);
  return way && way(x, w, bias, geometry);
}

function columnsCost(
  n: number,
  positions: number,
  inner: number,
  outputs: number,
): number {
  const gathered = megabytes(n * positions * inner);
  // Nothing is won but tiles that a convolution leaves half empty.
  const isFuller = Math.ceil(n * positions / TILE) <
    n * Math.ceil(positions / TILE);
  if (!isFuller || gathered > COST.most) return Infinity;
  return productCost(n * positions, inner, outputs) + 2 * COST.dispatch +
    gathered * COST.gathered;
}

/** Reads what each position's kernel covers, then one product. */
function byColumns(
  x: Node,
  w: Node,
  bias: Node | undefined,
  geometry: ConvGeometry,
): Node {
  const [n] = x.shape;
  const [outputs, c, kernel] = w.shape;
  const [h, v] = positionsOf(x, geometry);
  const columns = columnsOf(transpose(x, [0, 2, 3, 1]), geometry, [h, v]);
  const weights = reshape(transpose(w, [2, 3, 1, 0]), [
    kernel ** 2 * c,
    outputs,
  ]);
  const found = matmul(reshape(columns, [n * h * v, kernel ** 2 * c]), weights);
  const whole = reshape(found, [n, h, v, outputs]);
  return transpose(bias ? add(whole, bias) : whole, [0, 3, 1, 2]);
}

/** Whether each position reads one pixel, and each pixel is read once. */
function readsEach({ kernel, stride, padding }: ConvGeometry): boolean {
  return kernel === 1 && stride === 1 && padding === 0;
}

/** Height and width of what a convolution gives. */
function positionsOf(
  { shape: [, , ...size] }: Node,
  { kernel, stride, padding }: ConvGeometry,
): [number, number] {
  return size.map((length) =>
    Math.floor((length + 2 * padding - kernel) / stride) + 1
  ) as [number, number];
}

/** Indices of what the taps of a kernel read, by position, then by tap. */
function tapIndices(
  [h, v]: readonly [number, number],
  width: number,
  { kernel, stride }: ConvGeometry,
): number[][] {
  return Array.from({ length: h * v }, (_, position) => {
    const [row, column] = [Math.floor(position / v), position % v];
    return Array.from(
      { length: kernel ** 2 },
      (_, tap) =>
        (row * stride + Math.floor(tap / kernel)) * width +
        column * stride + tap % kernel,
    );
  });
}

/**
 * What the kernel covers at each position.
 *
 * @param x `[n, height, width, c]`
 * @returns `[n, positions, taps, c]` in memory, `[n, positions * taps, c]`
 */
function columnsOf(
  x: Node,
  geometry: ConvGeometry,
  positions: readonly [number, number],
): Node {
  const { padding } = geometry;
  const border = [0, padding, padding, 0];
  const padded = pad(x, border, border);
  const [n, height, width, c] = padded.shape;
  const indices = tapIndices(positions, width, geometry).flat();
  return gather(
    reshape(padded, [n, height * width, c]),
    int64s(indices),
    1,
  );
}

/** Points of a patch, Winograd's tile: of its rows times of its columns. */
const ALL_POINTS = POINTS ** 2;

/** Patches that cover so many rows, or columns. */
function patchesOf(length: number): number {
  return Math.ceil(length / PATCH);
}

/** Ways to go over to the points of patches, and back. */
interface Transform {
  /**
   * Points of all patches of pixels `[h * w, n * c]`: the last axis is `c`, those
   * before it are points, patches and images.
   */
  readonly spread: (pixels: Node, shape: readonly number[]) => Node;
  /** Weights of the points, `[36, c, outputs]`, beside those. */
  readonly weights: (weights: Node) => Node;
  /** Pixels `[h * w, n * outputs]` of products. */
  readonly collect: (products: Node, shape: readonly number[]) => Node;
  /** What it takes, without the products between. */
  readonly cost: (shape: readonly number[], outputs: number) => number;
}

/** Rows and columns at once, by one matrix: for small maps. */
const WHOLE: Transform = {
  spread: (pixels, [n, c, height, width]) => {
    const [spread] = imageMatrices(height, width);
    return reshape(matmul(spread, pixels), [
      ALL_POINTS,
      patchesOf(height) * patchesOf(width) * n,
      c,
    ]);
  },
  weights: (weights) => weights,
  collect: (products, [n, outputs, height, width]) => {
    const [, collected] = imageMatrices(height, width);
    const points = ALL_POINTS * patchesOf(height) * patchesOf(width);
    return matmul(collected, reshape(products, [points, n * outputs]));
  },
  cost: ([n, c, height, width], outputs) => {
    const [pixels, points] = [
      height * width,
      ALL_POINTS * patchesOf(height) * patchesOf(width),
    ];
    return productCost(points, pixels, n * c) +
      productCost(pixels, points, n * outputs) + 4 * COST.dispatch;
  },
};

/** Rows, then columns: points are `[6, rows of patches, 6, columns * n, c]`. */
const SEPARATE: Transform = {
  spread: (pixels, [n, c, height, width]) => {
    const [down, across] = [patchesOf(height), patchesOf(width)];
    const rows = matmul(
      rowMatrices(height)[0],
      reshape(pixels, [height, width * n * c]),
    );
    const both = matmul(
      rowMatrices(width)[0],
      reshape(rows, [POINTS * down, width, n * c]),
    );
    return reshape(both, [POINTS, down, POINTS, across * n, c]);
  },
  weights: (weights) => {
    const [, c, outputs] = weights.shape;
    return reshape(weights, [POINTS, 1, POINTS, c, outputs]);
  },
  collect: (products, [n, outputs, height, width]) => {
    const [down, across] = [patchesOf(height), patchesOf(width)];
    const columns = matmul(
      rowMatrices(width)[1],
      reshape(products, [POINTS * down, POINTS * across, n * outputs]),
    );
    const both = matmul(
      rowMatrices(height)[1],
      reshape(columns, [POINTS * down, width * n * outputs]),
    );
    return reshape(both, [height * width, n * outputs]);
  },
  cost: ([n, c, height, width], outputs) => {
    const [down, across] = [height, width].map((x) => POINTS * patchesOf(x));
    return productCost(down, height, width * n * c) +
      productCost(across, width, n * c, down) +
      productCost(width, across, n * outputs, down) +
      productCost(height, down, width * n * outputs) + 6 * COST.dispatch;
  },
};

/**
 * Winograd's F(4 x 4, 3 x 3) (Lavin and Gray 2015): 36 products for each patch of
 * 4 x 4 pixels instead of 144. Pixels come first, `[h * w, n * c]`: to go over
 * to the points of all patches, and back, is then to multiply by constants, which
 * know the zeros around the image.
 */
function winograd(
  { spread, weights, collect, cost }: Transform,
): { make: typeof byColumns; cost: typeof cost } {
  return {
    make: (x, w, bias) => {
      const [n, c, height, width] = x.shape;
      const [outputs] = w.shape;
      const pixels = transpose(x, [2, 3, 0, 1]);
      const points = spread(
        reshape(pixels, [height * width, n * c]),
        x.shape,
      );
      const taps = reshape(transpose(w, [2, 3, 1, 0]), [9, c * outputs]);
      const atPoints = reshape(matmul(KERNEL, taps), [ALL_POINTS, c, outputs]);
      const products = matmul(points, weights(atPoints));
      const whole = reshape(
        collect(products, [n, outputs, height, width]),
        [height, width, n, outputs],
      );
      return transpose(bias ? add(whole, bias) : whole, [2, 3, 0, 1]);
    },
    cost: (shape, outputs) => {
      const [n, c, height, width] = shape;
      const patches = n * patchesOf(height) * patchesOf(width);
      // With few images the weights of all points, four times as large, cost
      // more to read than is saved, on devices slower than the one measured.
      if (patches < TILE / 2) return Infinity;
      const largest = Math.max(
        c * outputs,
        patches * Math.max(c, outputs),
      );
      if (megabytes(ALL_POINTS * largest) > COST.most) return Infinity;
      return cost(shape, outputs) +
        productCost(patches, c, outputs, ALL_POINTS);
    },
  };
}

/** From weights to the points, in each run. */
function weightsCost(c: number, outputs: number): number {
  return productCost(ALL_POINTS, 9, c * outputs) + 2 * COST.dispatch +
    megabytes(ALL_POINTS * c * outputs) * COST.summed;
}

const WINOGRAD = [winograd(WHOLE), winograd(SEPARATE)];

/** `a` along rows and `b` along columns, as one matrix. */
function kronecker(
  a: readonly (readonly number[])[],
  b: readonly (readonly number[])[],
): number[][] {
  return a.flatMap((row) =>
    b.map((other) => row.flatMap((x) => other.map((y) => x * y)))
  );
}

/** From the taps of a kernel to the points, `[36, 9]`. */
const KERNEL = matrix(kronecker(KERNEL_ROWS, KERNEL_ROWS));

/** `imageMatrices()` by size: one node each, so that it is stored once. */
const knownImages = new Map<string, readonly [Node, Node]>();

/**
 * From pixels to the points of all patches, `[36 * patches, h * w]` by point,
 * then by patch, and from there to pixels, `[h * w, 36 * patches]`.
 */
function imageMatrices(
  height: number,
  width: number,
): readonly [Node, Node] {
  const key = `${height} x ${width}`;
  const made = knownImages.get(key) ?? [
    matrix(byPoint(spreadRows(height), spreadRows(width))),
    matrix(transposed(
      byPoint(transposed(gatherOf(height)), transposed(gatherOf(width))),
    )),
  ];
  knownImages.set(key, made);
  return made;
}

/** `rowMatrices()` by length. */
const knownRows = new Map<number, readonly [Node, Node]>();

/**
 * From a row of pixels to the points of its patches, `[6 * patches, length]` by
 * point, then by patch, and back, `[length, 6 * patches]`.
 */
function rowMatrices(length: number): readonly [Node, Node] {
  const order = (rows: number[][]) => {
    const patches = rows.length / POINTS;
    return rows.map((_, i) =>
      rows[i % patches * POINTS + Math.floor(i / patches)]
    );
  };
  const made = knownRows.get(length) ?? [
    matrix(order(spreadRows(length))),
    matrix(transposed(order(transposed(gatherOf(length))))),
  ];
  knownRows.set(length, made);
  return made;
}

/** Rows of points of patches, of rows and of columns, as those of both. */
function byPoint(
  rows: readonly (readonly number[])[],
  columns: readonly (readonly number[])[],
): number[][] {
  const [down, across] = [rows, columns].map((x) => x.length / POINTS);
  const both = kronecker(rows, columns);
  const points = Array.from({ length: ALL_POINTS }, (_, i) => i);
  return points.flatMap((point) =>
    Array.from({ length: down * across }, (_, patch) => {
      const [row, column] = [Math.floor(point / POINTS), point % POINTS];
      const i = Math.floor(patch / across) * POINTS + row;
      const j = patch % across * POINTS + column;
      return both[i * columns.length + j];
    })
  );
}

function transposed(rows: readonly (readonly number[])[]): number[][] {
  return rows[0].map((_, j) => rows.map((row) => row[j]));
}

/** From the points of patches to a row of pixels, `[length, 6 * patches]`. */
function gatherOf(length: number): number[][] {
  return Array.from(
    { length },
    (_, i) =>
      Array.from(
        { length: patchesOf(length) },
        (_, patch) => GATHER_ROWS[i - PATCH * patch] ?? Array(POINTS).fill(0),
      ).flat(),
  );
}

/**
 * Gradient of a convolution's weights.
 *
 * @param x Input of the convolution, `[n, c, height, width]`
 * @param g Gradient of its output, `[n, outputs, h, v]`
 * @returns `[outputs, c, k, k]`
 */
function weightGradient(
  [x, g]: readonly Node[],
  geometry: ConvGeometry,
): Node {
  const { kernel } = geometry;
  const [n, c] = x.shape;
  const [, outputs, h, v] = g.shape;
  const positions = h * v;
  const width = c * kernel ** 2;
  const summed = megabytes(n * width * outputs);
  const costPerImage = summed > COST.most
    ? Infinity
    : productCost(width, positions, outputs, n) + summed * COST.summed;
  const costAtOnce = productCost(width, n * positions, outputs);
  return costPerImage < costAtOnce
    ? gradientPerImage(x, g, geometry)
    : gradientAtOnce(x, g, geometry);
}

/** One product for each image, and their sum. */
function gradientPerImage(x: Node, g: Node, geometry: ConvGeometry): Node {
  const { kernel, padding } = geometry;
  const [n, c] = x.shape;
  const [, outputs, h, v] = g.shape;
  const taps = kernel ** 2;
  const border = [0, 0, padding, padding];
  const padded = pad(x, border, border);
  const [, , height, width] = padded.shape;
  // By tap, then by position.
  const indices = transposed(tapIndices([h, v], width, geometry)).flat();
  const flat = reshape(padded, [n, c, height * width]);
  const columns = readsEach(geometry) ? flat : gather(flat, int64s(indices), 2);
  const products = matmul(
    reshape(columns, [n, c * taps, h * v]),
    reshape(transpose(g, [0, 2, 3, 1]), [n, h * v, outputs]),
  );
  const total = reshape(sumOfFirst(products), [c, kernel, kernel, outputs]);
  return transpose(total, [3, 0, 1, 2]);
}

/**
 * The sum over the first axis, in parts: more than 32 would be added up by few
 * workgroups, after a transpose of all.
 */
function sumOfFirst(x: Node): Node {
  const [n, ...rest] = x.shape;
  const size = largestDivisor(n, MOST_SUMMED);
  if (n <= MOST_SUMMED || size === 1) return sum(x, [0]);
  const parts = reshape(x, [n / size, size, sizeOf(rest)]);
  return reshape(sumOfFirst(sum(parts, [1])), rest);
}

/** Terms of a sum that one thread adds up. */
const MOST_SUMMED = 32;

/** One product over all positions of all images. */
function gradientAtOnce(x: Node, g: Node, geometry: ConvGeometry): Node {
  const { kernel } = geometry;
  const [n, c] = x.shape;
  const [, outputs, h, v] = g.shape;
  const taps = kernel ** 2;
  const pixels = transpose(x, [0, 2, 3, 1]);
  const columns = readsEach(geometry)
    ? pixels
    : columnsOf(pixels, geometry, [h, v]);
  const product = gemm(
    reshape(columns, [n * h * v, taps * c]),
    reshape(transpose(g, [0, 2, 3, 1]), [n * h * v, outputs]),
    { transA: true },
  );
  const total = reshape(product, [kernel, kernel, c, outputs]);
  return transpose(total, [3, 2, 0, 1]);
}
