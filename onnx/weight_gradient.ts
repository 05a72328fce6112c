/**
 * Gradients of convolutions' weights by the CPU provider's kernels for
 * activations in blocks of channels: the gradient of the output takes the place
 * of the kernel, which passes over the input.
 *
 * @module
 */
import {
  type ConvGeometry,
  gather,
  int64s,
  type Node,
  pad,
  reshape,
  type Shape,
  slice,
  sum,
  transpose,
} from "../core/mod.ts";

/** Bytes of a kernel that a core's L2 cache holds beside all else. */
const CACHED_BYTES = 2 ** 20;

/** How a convolution in blocks is computed, and moved out of them. */
export interface BlockedKernels {
  /** Channels in a block. */
  readonly block: number;
  readonly conv: (x: Node, w: Node, options: {
    readonly dilation: readonly [number, number];
    readonly groups?: number;
  }) => Node;
  readonly toBlocked: (x: Node) => Node;
  readonly toPlain: (x: Node) => Node;
}

/** Largest divisor of `n` that is at most `limit`, or 1. */
export function largestDivisor(n: number, limit: number): number {
  const most = Math.max(1, Math.min(n, Math.floor(limit)));
  return Array.from({ length: most }, (_, i) => most - i)
    .find((divisor) => n % divisor === 0)!;
}

/** Bytes of a row of a kernel that a pass over the input takes. */
function bytesOfRow([, outputs, , w]: Shape, block: number): number {
  return block * Math.min(4 * block, outputs) * w *
    Float32Array.BYTES_PER_ELEMENT;
}

/** Input rows or columns that a number of positions of the taps reach. */
function reachOf({ kernel, stride }: ConvGeometry, positions: number): number {
  return stride * (positions - 1) + kernel;
}

/**
 * Pads images, or leaves out what taps do not reach, if they are strided.
 *
 * @param x `[images, height, width * pixel]`
 * @param g Shape of the output's gradient, `[n, outputs, h, w]`
 * @param pixel Values that lie where a plain image has one
 */
function fitted(
  x: Node,
  [, , h, w]: Shape,
  geometry: ConvGeometry,
  pixel: number,
): Node {
  const { padding } = geometry;
  const [, height, width] = x.shape;
  const reach = [reachOf(geometry, h), reachOf(geometry, w)];
  const missing = (i: number, size: number) =>
    Math.max(0, reach[i] - size - padding);
  const padded = pad(
    x,
    [0, padding, padding * pixel],
    [0, missing(0, height), missing(1, width / pixel) * pixel],
  );
  return slice(padded, [
    { axis: 1, start: 0, end: reach[0] },
    { axis: 2, start: 0, end: reach[1] * pixel },
  ]);
}

/**
 * Images become the channels of the convolution: where input channels are no
 * whole blocks, or many on a small map. Rows of a large kernel become more
 * channels: it is taken from the cache once for each row of the result, which
 * takes twice the time from a farther one.
 *
 * @param x Input of the convolution, plain, `[n, c, height, width]`
 * @param g Gradient of its output, in blocks, `[n, outputs, h, w]`; `n` and
 * `outputs` are whole blocks
 * @returns `[outputs, c, k, k]`, plain
 */
export function weightGradientByImages(
  x: Node,
  g: Node,
  geometry: ConvGeometry,
  { block, conv, toBlocked, toPlain }: BlockedKernels,
): Node {
  const { stride } = geometry;
  const [n, c, height, width] = x.shape;
  const [, outputs, h, w] = g.shape;
  const images = fitted(
    reshape(toBlocked(transpose(x, [1, 0, 2, 3])), [
      c * n / block,
      height,
      width * block,
    ]),
    g.shape,
    geometry,
    block,
  );
  const rows = largestDivisor(h, CACHED_BYTES / bytesOfRow(g.shape, block));
  const parts = h / rows;
  const reach = reachOf(geometry, rows);
  const chosen = Array.from({ length: parts * reach }, (_, i) => {
    const part = Math.floor(i / reach);
    return part * rows * stride + i % reach;
  });
  const cut = parts === 1 ? images : gather(images, int64s(chosen), 1);
  const split = [n / block, block, outputs / block, h * w, block];
  const kernels = transpose(reshape(g, split), [2, 0, 3, 1, 4]);
  const found = conv(
    reshape(cut, [c, n * parts, reach, reachOf(geometry, w)]),
    reshape(kernels, [outputs, n * parts, rows, w]),
    { dilation: [stride, stride] },
  );
  return transpose(toPlain(found), [1, 0, 2, 3]);
}

/** Images whose gradients are added up by the convolution itself. */
function imagesTogether(g: Shape, block: number): number {
  const cached = CACHED_BYTES * block / (g[2] * bytesOfRow(g, block));
  // With a whole block of channels, a kernel reads blocks of those.
  return largestDivisor(g[0], Math.min(block - 1, cached));
}

/**
 * Sums over a few images that an input channel leaves to add up, for each
 * position of the output, at most: `weightGradientByLanes()` is faster at 4.5,
 * as for 256 channels of 8 x 8, and slower at 9.
 */
const MOST_ADDED = 5;

/**
 * Whether `weightGradientByLanes()` is possible, and faster.
 *
 * @param x Shape of the input, `[n, c, height, width]`
 * @param g Shape of the output's gradient, `[n, outputs, h, w]`
 */
export function canLayLanes(
  [n, c]: Shape,
  g: Shape,
  { kernel }: ConvGeometry,
  block: number,
): boolean {
  const [, outputs, h, w] = g;
  const groups = n / imagesTogether(g, block);
  // The kernel takes channels, here images, of one block or of whole ones.
  const isTaken = (n < block || n % block === 0) && c % block === 0 &&
    outputs % block === 0;
  return isTaken && groups * outputs * kernel ** 2 <= MOST_ADDED * n * h * w;
}

/**
 * Channels of a block become pixels beside each other, as they lie: taps of the
 * kernel are a block apart, a result has as many more columns, for which the
 * kernel is taken from the cache once, and neither images nor gradients change
 * places. A few images at a time are channels; those that are apart are added
 * up in the end.
 *
 * @param x Input of the convolution, in blocks, `[n, c, height, width]`; `n` is
 * less than a block or whole blocks, `c` and `outputs` are whole blocks
 * @param g Gradient of its output, in blocks, `[n, outputs, h, w]`
 * @returns `[outputs, c, k, k]`, plain
 */
export function weightGradientByLanes(
  x: Node,
  g: Node,
  geometry: ConvGeometry,
  { block, conv, toPlain }: BlockedKernels,
): Node {
  const { kernel, stride } = geometry;
  const [n, c, height, width] = x.shape;
  const [, outputs, h, w] = g.shape;
  const together = imagesTogether(g.shape, block);
  const groups = n / together;
  const lanes = fitted(
    reshape(
      transpose(
        reshape(x, [n, c / block, height * width * block]),
        [1, 0, 2],
      ),
      [c / block * n, height, width * block],
    ),
    g.shape,
    geometry,
    block,
  );
  const kernels = transpose(
    reshape(g, [groups, together, outputs / block, h * w * block]),
    [0, 2, 1, 3],
  );
  const apart = conv(
    reshape(lanes, [
      c / block,
      n,
      reachOf(geometry, h),
      reachOf(geometry, w) * block,
    ]),
    reshape(kernels, [groups * outputs, together, h, w]),
    { dilation: [stride, stride * block], groups },
  );
  const taps = kernel ** 2;
  const result = sum(
    reshape(apart, [c / block, groups, outputs * taps * block]),
    [1],
  );
  const plain = toPlain(reshape(result, [c / block, outputs, taps, block]));
  return reshape(
    transpose(plain, [1, 0, 3, 2]),
    [outputs, c, kernel, kernel],
  );
}
