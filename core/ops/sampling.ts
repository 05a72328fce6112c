/**
 * Sampling images at positions between pixels.
 *
 * @module
 */
import { apply, constant, defineOp, type Node } from "../graph.ts";
import { show } from "../shape.ts";
import { type Tensor, tensor } from "../tensor.ts";
import {
  abs,
  add,
  clip,
  equal,
  floor,
  minimum,
  mul,
  sub,
  toFloat,
} from "./elementwise.ts";
import { matmul } from "./linear.ts";
import { concat, expand, reshape, slice, transpose } from "./movement.ts";

/** What lies beyond the edge of an image. */
export type SamplePadding = "zeros" | "border" | "reflection";

/** Options of `affineSample()`. */
export interface AffineSampleOptions {
  /** What lies beyond the edge (default "zeros"). */
  readonly padding?: SamplePadding;
  /** Height and width of the result (default: those of the images). */
  readonly size?: readonly [number, number];
}

const GridSample = defineOp({
  type: "GridSample",
  shape([x, grid]) {
    const fits = x.shape.length === 4 && grid.shape.length === 4 &&
      grid.shape[0] === x.shape[0] && grid.shape[3] === 2;
    if (!fits) {
      throw new TypeError(
        `Cannot sample ${show(x.shape)} at ${show(grid.shape)}: need ` +
          `[n, c, h, w] and [n, h', w', 2]`,
      );
    }
    return [x.shape[0], x.shape[1], grid.shape[1], grid.shape[2]];
  },
  vjp: ({ inputs: [x, grid], attributes: { padding_mode }, upstream: g }) => {
    const padding = (padding_mode as { string: SamplePadding }).string;
    return [scatterBack(g, grid, padding, x.shape), null];
  },
});

/**
 * Samples images under an affine map, bilinearly, corners not aligned: rotates,
 * scales and shifts them (Jaderberg et al. 2015; PyTorch's `affine_grid` and
 * `grid_sample`). The gradient flows to the images, not to `theta`.
 *
 * @param x Images, `[n, c, h, w]`
 * @param theta From (x, y, 1) of the result to (x, y) of the image, both from
 * -1 to 1 between the outer edges of the pixels, `[n, 2, 3]`
 * @returns `[n, c, h', w']`
 * @throws {TypeError} If the shapes do not fit
 * @throws {RangeError} If a size is not an integer >= 1
 */
export function affineSample(
  x: Node,
  theta: Node,
  options: AffineSampleOptions = {},
): Node {
  const { padding = "zeros", size = x.shape.slice(2) } = options;
  const [n, ...rest] = theta.shape;
  if (x.shape.length !== 4 || n !== x.shape[0] || `${rest}` !== "2,3") {
    throw new TypeError(
      `Cannot sample ${show(x.shape)} under ${show(theta.shape)}: need ` +
        `[n, c, h, w] and [n, 2, 3]`,
    );
  }
  if (size.length !== 2 || size.some((s) => !Number.isInteger(s) || s < 1)) {
    throw new RangeError(
      `Cannot sample images of size ${show(size)}: need height and width >= 1`,
    );
  }
  const [h, w] = size;
  const centers = constant(pixelCenters(h, w));
  const grid = matmul(centers, transpose(theta, [0, 2, 1]));
  return apply(GridSample, [x, reshape(grid, [n, h, w, 2])], {
    mode: { string: "bilinear" },
    padding_mode: { string: padding },
    align_corners: { int: 0 },
  });
}

/** Homogeneous coordinates (x, y, 1) of pixel centres, `[1, h * w, 3]`. */
function pixelCenters(h: number, w: number): Tensor {
  const data = new Float32Array(h * w * 3);
  for (let i = 0; i < h * w; i++) {
    data[3 * i] = (2 * (i % w) + 1) / w - 1;
    data[3 * i + 1] = (2 * Math.floor(i / w) + 1) / h - 1;
    data[3 * i + 2] = 1;
  }
  return tensor(data, [1, h * w, 3]);
}

/**
 * Sends each result's gradient to the four pixels it was interpolated from.
 *
 * ScatterElements, not ScatterND: on a CPU with several threads the latter
 * loses additions to the same element (ONNX Runtime 1.30).
 */
function scatterBack(
  g: Node,
  grid: Node,
  padding: SamplePadding,
  shape: readonly number[],
): Node {
  const [n, c, height, width] = shape;
  const positions = g.shape[2] * g.shape[3];
  const coordinate = (i: number, size: number) => {
    const unit = slice(grid, [{ axis: 3, start: i, end: i + 1 }]);
    const pixel = sub(mul(add(unit, 1), size / 2), 0.5);
    return reshape(pixel, [n, 1, positions]);
  };
  const indices: Node[] = [];
  const updates: Node[] = [];
  const flat = reshape(g, [n, c, positions]);
  for (const row of neighbours(coordinate(1, height), height, padding)) {
    for (const column of neighbours(coordinate(0, width), width, padding)) {
      indices.push(add(mul(row.index, width), column.index));
      updates.push(mul(flat, mul(row.weight, column.weight)));
    }
  }
  // float32 holds every index exactly up to 4096 x 4096 pixels.
  const index = expand(concat(indices, 2), [n, c, 4 * positions]);
  const zeros = expand(constant(0), [n, c, height * width]);
  const scattered = apply(ScatterAdd, [
    zeros,
    apply(CastToInt64, [index], { to: { int: 7 } }),
    concat(updates, 2),
  ], { axis: { int: 2 }, reduction: { string: "add" } });
  return reshape(scattered, shape);
}

const ScatterAdd = defineOp({
  type: "ScatterElements",
  shape: ([data]) => data.shape,
});

const CastToInt64 = defineOp({
  type: "Cast",
  shape: ([x]) => x.shape,
  dtype: () => "int64",
});

/** A pixel along one axis and its share in the interpolated value. */
interface Neighbour {
  readonly index: Node;
  readonly weight: Node;
}

/** The two pixels beside a position, in pixels from the first's centre. */
function neighbours(
  position: Node,
  size: number,
  padding: SamplePadding,
): Neighbour[] {
  const inside = padding === "zeros" ? position : clip(
    padding === "border" ? position : reflect(position, size),
    0,
    size - 1,
  );
  const low = floor(inside);
  const share = sub(inside, low);
  return [[low, sub(1, share)], [add(low, 1), share]].map(([at, weight]) => {
    const index = clip(at, 0, size - 1);
    // Beyond the edge there are zeros, which take no gradient.
    return { index, weight: mul(weight, toFloat(equal(at, index))) };
  });
}

/** Mirrors positions at the outer edges of the first and last pixel. */
function reflect(position: Node, size: number): Node {
  const fromEdge = abs(add(position, 0.5));
  const periods = floor(mul(fromEdge, 1 / (2 * size)));
  const folded = sub(fromEdge, mul(periods, 2 * size));
  return sub(minimum(folded, sub(2 * size, folded)), 0.5);
}
