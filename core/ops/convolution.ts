/**
 * Convolution, its transpose, and the gradients of both.
 *
 * What is as good as any formulation everywhere is chosen in `FORMULATIONS`;
 * `onnx/` has what a provider computes better, by measured cost.
 *
 * @module
 */
import { type ConvGeometry, convGeometry } from "../conv_geometry.ts";
import { apply, defineOp, type Node } from "../graph.ts";
import { show } from "../shape.ts";
import { sum } from "./reduction.ts";
import { gemm, matmul } from "./linear.ts";
import { concat, flip, pad, reshape, slice, transpose } from "./movement.ts";

/** Geometry of a square convolution. */
export interface ConvOptions {
  /** Distance between taken positions (default 1). */
  readonly stride?: number;
  /** Zeros added on every side (default 0). */
  readonly padding?: number;
  /** Added to every output channel, `[outputs]`. */
  readonly bias?: Node;
}

/** Which formulation is fastest, as measured on the CPU provider. */
const FORMULATIONS = {
  /**
   * Gradient of a convolution's input. Stride 1: a convolution with flipped
   * weights, 17 ms against 25 ms of ConvTranspose at 128 channels of 16 x 16;
   * but not into an image of 3 channels (5.4 against 2.4 ms). Strided:
   * ConvTranspose, 17 ms against 59 ms of convolving an upsampled gradient.
   */
  inputGradientByConv: ({ stride }: ConvGeometry, inputChannels: number) =>
    stride === 1 && inputChannels > 4,
  /**
   * Gradient of a convolution's weights. Wide maps: one product per image,
   * summed; 36 against 50 ms at 64 channels of 32 x 32. Narrow maps: one
   * product over all images, 26 against 143 ms at 512 channels of 4 x 4,
   * where the first way would store a weight gradient for each image.
   */
  weightGradientPerImage: (positions: number) => positions >= 32 * 32,
} as const;

function attributesOf({ kernel, stride, padding }: ConvGeometry) {
  return {
    kernel_shape: { ints: [kernel, kernel] },
    strides: { ints: [stride, stride] },
    // Explicit: the WebGPU provider has computed auto_pad wrongly.
    pads: { ints: [padding, padding, padding, padding] },
  };
}

const Conv = defineOp({
  type: "Conv",
  shape([x, w, bias], attributes) {
    const { kernel, stride, padding } = convGeometry(attributes);
    const [n, c, height, width] = x.shape;
    const fits = x.shape.length === 4 && w.shape.length === 4 &&
      w.shape[1] === c && w.shape[3] === kernel &&
      (!bias || (bias.shape.length === 1 && bias.shape[0] === w.shape[0]));
    const [h, v] = [height, width].map((size) =>
      Math.floor((size + 2 * padding - kernel) / stride) + 1
    );
    if (!fits || h < 1 || v < 1) {
      throw new TypeError(
        `Cannot convolve ${show(x.shape)} with weights ${show(w.shape)}` +
          `${bias ? ` and bias ${show(bias.shape)}` : ""}: need [n, c, h, w] ` +
          `and [outputs, c, k, k] with k <= h, w plus padding`,
      );
    }
    return [n, w.shape[0], h, v];
  },
  vjp({ inputs: [x, w, bias], attributes, upstream: g }) {
    const geometry = convGeometry(attributes);
    return [
      inputGradient(g, w, geometry, x.shape),
      apply(ConvWeightGradient, [x, g], attributesOf(geometry)),
      ...(bias ? [sum(g, [0, 2, 3])] : []),
    ];
  },
});

/**
 * Two-dimensional convolution (cross-correlation) with square kernels.
 *
 * @param x Images, `[n, c, h, w]`
 * @param w Weights, `[outputs, c, k, k]`
 * @returns `[n, outputs, h', w']` with `h' = floor((h + 2 * padding - k) /
 * stride) + 1`
 * @throws {TypeError} If the shapes do not fit
 */
export function conv2d(x: Node, w: Node, options: ConvOptions = {}): Node {
  const { stride = 1, padding = 0, bias } = options;
  const kernel = w.shape[2];
  return apply(
    Conv,
    bias ? [x, w, bias] : [x, w],
    attributesOf({ kernel, stride, padding }),
  );
}

const ConvTranspose = defineOp({
  type: "ConvTranspose",
  shape([g, w], attributes) {
    const { kernel, stride, padding } = convGeometry(attributes);
    const extra = (attributes.output_padding as { ints: number[] }).ints;
    const [n, outputs, height, width] = g.shape;
    if (g.shape.length !== 4 || w.shape[0] !== outputs) {
      throw new TypeError(
        `Cannot convolve back ${show(g.shape)} with weights ${show(w.shape)}`,
      );
    }
    const [h, v] = [height, width].map((size, i) =>
      (size - 1) * stride - 2 * padding + kernel + extra[i]
    );
    return [n, w.shape[1], h, v];
  },
  vjp({ inputs: [g, w], attributes, upstream }) {
    const geometry = convGeometry(attributes);
    const { stride, padding } = geometry;
    return [
      conv2d(upstream, w, { stride, padding }),
      apply(ConvWeightGradient, [upstream, g], attributesOf(geometry)),
    ];
  },
});

/**
 * Transpose of the linear map `x -> conv2d(x, w)`: from an output's gradient
 * to the input's.
 *
 * @param g `[n, outputs, h', w']`
 * @param w `[outputs, c, k, k]`
 * @param options ConvGeometry of the convolution, and the height and width of `x`
 * @returns `[n, c, h, w]`
 * @throws {TypeError} If the shapes do not fit
 */
export function convTranspose2d(
  g: Node,
  w: Node,
  options: Omit<ConvOptions, "bias"> & {
    readonly size: readonly [number, number];
  },
): Node {
  const { stride = 1, padding = 0, size } = options;
  const kernel = w.shape[2];
  // Rows of the input that the last kernel position does not reach.
  const extra = size.map((full, i) =>
    full - ((g.shape[i + 2] - 1) * stride - 2 * padding + kernel)
  );
  return apply(ConvTranspose, [g, w], {
    ...attributesOf({ kernel, stride, padding }),
    output_padding: { ints: extra },
  });
}

function inputGradient(
  g: Node,
  w: Node,
  geometry: ConvGeometry,
  shape: readonly number[],
): Node {
  const { kernel, stride, padding } = geometry;
  const fits = padding < kernel;
  if (fits && FORMULATIONS.inputGradientByConv(geometry, shape[1])) {
    const transposed = apply(TransposedKernel, [w]);
    return conv2d(g, transposed, { padding: kernel - 1 - padding });
  }
  return convTranspose2d(g, w, { stride, padding, size: [shape[2], shape[3]] });
}

/** Type of the op that turns `[outputs, c, k, k]` into `[c, outputs, k, k]`,
 * each kernel rotated by 180 degrees: weights of the input's gradient. */
export const TRANSPOSED_KERNEL = "robust-reps.TransposedKernel";

const TransposedKernel = defineOp({
  type: TRANSPOSED_KERNEL,
  shape: ([{ shape: [outputs, c, ...kernel] }]) => [c, outputs, ...kernel],
  vjp: ({ upstream: g }) => [apply(TransposedKernel, [g])],
  expand: ([w]) => flip(transpose(w, [1, 0, 2, 3]), [2, 3]),
});

/** Type of the op that computes the gradient of a convolution's weights. */
export const CONV_WEIGHT_GRADIENT = "robust-reps.ConvWeightGradient";

const ConvWeightGradient = defineOp({
  type: CONV_WEIGHT_GRADIENT,
  shape([x, g], attributes) {
    const { kernel } = convGeometry(attributes);
    return [g.shape[1], x.shape[1], kernel, kernel];
  },
  // Bilinear: each gradient is a convolution with the other factor.
  vjp({ inputs: [x, g], attributes, upstream }) {
    const geometry = convGeometry(attributes);
    const { stride, padding } = geometry;
    return [
      inputGradient(g, upstream, geometry, x.shape),
      conv2d(x, upstream, { stride, padding }),
    ];
  },
  expand: ([x, g], attributes) =>
    weightGradient(x, g, convGeometry(attributes)),
});

/**
 * Gradient of a convolution's weights.
 *
 * @param x Input of the convolution, `[n, c, h, w]`
 * @param g Gradient of its output, `[n, outputs, h', w']`
 * @returns `[outputs, c, k, k]`
 */
function weightGradient(x: Node, g: Node, geometry: ConvGeometry): Node {
  const { kernel, stride, padding } = geometry;
  const [n, c] = x.shape;
  const [, outputs, h, v] = g.shape;
  const positions = h * v;
  const perImage = FORMULATIONS.weightGradientPerImage(positions);
  // Axes of height and width; channels come last where all images are one
  // matrix, so that a row of it is a position.
  const [row, column] = perImage ? [2, 3] : [1, 2];
  const layout = perImage ? x : transpose(x, [0, 2, 3, 1]);
  const border = layout.shape.map((_, axis) =>
    axis === row || axis === column ? padding : 0
  );
  const padded = pad(layout, border, border);
  const taps: Node[] = [];
  for (let i = 0; i < kernel; i++) {
    for (let j = 0; j < kernel; j++) {
      taps.push(slice(padded, [
        { axis: row, start: i, end: i + (h - 1) * stride + 1, step: stride },
        { axis: column, start: j, end: j + (v - 1) * stride + 1, step: stride },
      ]));
    }
  }
  const width = kernel * kernel * c;
  const product = perImage
    ? sum(
      matmul(
        reshape(concat(taps, 1), [n, width, positions]),
        transpose(reshape(g, [n, outputs, positions]), [0, 2, 1]),
      ),
      [0],
    )
    : gemm(
      reshape(concat(taps, 3), [n * positions, width]),
      reshape(transpose(g, [0, 2, 3, 1]), [n * positions, outputs]),
      { transA: true },
    );
  const taken = reshape(product, [kernel, kernel, c, outputs]);
  return transpose(taken, [3, 2, 0, 1]);
}
