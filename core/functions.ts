/**
 * Functions of primitives that ONNX lacks, or that need a gradient of their
 * own to be safe.
 *
 * @module
 */
import { constant, type Node, withGradient } from "./graph.ts";
import {
  add,
  div,
  equal,
  exp,
  log,
  matmul,
  max,
  mean,
  mul,
  neg,
  reshape,
  sqrt,
  sub,
  sum,
  toFloat,
  transpose,
} from "./ops/mod.ts";
import { show } from "./shape.ts";
import { sizeOf, type Tensor, tensor } from "./tensor.ts";

/**
 * Logarithm of the softmax along the last axis.
 *
 * @param logits `[n, classes]`
 * @returns `[n, classes]`
 */
export function logSoftmax(logits: Node): Node {
  // Shifting by the maximum keeps exp() finite; the shift itself cancels.
  const shifted = sub(logits, max(logits, [-1], { keepDims: true }));
  const value = sub(shifted, log(sum(exp(shifted), [-1], { keepDims: true })));
  return withGradient(value, [logits], (g) => [
    sub(g, mul(exp(value), sum(g, [-1], { keepDims: true }))),
  ]);
}

/**
 * Softmax along the last axis.
 *
 * @param logits `[n, classes]`
 * @returns `[n, classes]`; each row sums to 1
 */
export function softmax(logits: Node): Node {
  return exp(logSoftmax(logits));
}

/**
 * Cross-entropy of each image.
 *
 * @param logits `[n, classes]`
 * @param oneHot Labels as one-hot rows (or probabilities), `[n, classes]`
 * @returns `[n]`
 * @throws {TypeError} If the shapes do not fit
 */
export function crossEntropy(logits: Node, oneHot: Node): Node {
  return neg(sum(mul(logSoftmax(logits), oneHot), [-1]));
}

/** All axes but the first: those of one image. */
function imageAxes(x: Node): number[] {
  return x.shape.slice(1).map((_, i) => i + 1);
}

/**
 * Euclidean length of each image. The gradient at length 0 is 0, where the
 * plain formula would give NaN.
 *
 * @param x `[n, ...]`
 * @returns `[n]`
 */
export function l2Norm(x: Node): Node {
  const norm = sqrt(sum(mul(x, x), imageAxes(x)));
  return withGradient(norm, [x], (g) => {
    const isZero = toFloat(equal(norm, 0));
    const scale = div(g, add(norm, isZero));
    return [mul(x, perImage(scale, x))];
  });
}

/**
 * Gives a vector the axes that broadcast it over images.
 *
 * @param vector One value per image, `[n]`
 * @param x Images, `[n, ...]`
 * @returns `[n, 1, ...]`, with as many axes as `x`
 */
export function perImage(vector: Node, x: Node): Node {
  return reshape(vector, [vector.shape[0], ...imageAxes(x).map(() => 1)]);
}

/** Result of `batchNormTrain()`. */
export interface BatchNormResult {
  /** Normalised activations, shape of the input. */
  readonly output: Node;
  /** Mean of the batch, `[c]`. */
  readonly mean: Node;
  /** Biased variance of the batch, `[c]`. */
  readonly variance: Node;
}

/**
 * Normalises by the statistics of the batch (Ioffe and Szegedy 2015); the
 * gradient flows through them.
 *
 * Elementwise operators, as the WebGPU provider cannot run ONNX's
 * BatchNormalization in training mode; on a CPU both are equally fast.
 *
 * @param x `[n, c, h, w]`
 * @param gamma Scale, `[c]`
 * @param beta Shift, `[c]`
 * @param epsilon Added to the variance
 */
export function batchNormTrain(
  x: Node,
  gamma: Node,
  beta: Node,
  epsilon: number,
): BatchNormResult {
  const axes = [0, 2, 3];
  const c = x.shape[1];
  // Statistics are vectors, which broadcast over images and pixels.
  const channels = (vector: Node) => reshape(vector, [1, c, 1, 1]);
  const center = mean(x, axes);
  const centered = sub(x, channels(center));
  const variance = mean(mul(centered, centered), axes);
  const inverse = div(1, sqrt(add(variance, epsilon)));
  const scale = mul(gamma, inverse);
  const value = add(mul(centered, channels(scale)), channels(beta));
  const output = withGradient(value, [x, gamma, beta], (g) => {
    const count = sizeOf(x.shape) / c;
    const sumG = sum(g, axes);
    const dotG = mul(sum(mul(g, centered), axes), inverse);
    const slope = mul(mul(scale, inverse), mul(dotG, -1 / count));
    const shift = mul(mul(scale, sumG), -1 / count);
    const through = add(
      mul(centered, channels(slope)),
      channels(shift),
    );
    return [add(mul(g, channels(scale)), through), dotG, sumG];
  });
  return { output, mean: center, variance };
}

/**
 * Applies a matrix along the rows of images and another along the columns.
 *
 * @param x `[n, c, h, w]`
 * @param rows `[h', h]`
 * @param columns `[w', w]`
 * @returns `[n, c, h', w']`
 * @throws {TypeError} If the shapes do not fit
 */
export function separable(x: Node, rows: Tensor, columns: Tensor): Node {
  const across = matmul(x, transpose(constant(columns)));
  return matmul(constant(rows), across);
}

/** Weights of bilinear interpolation from `from` to `to` pixel centres. */
function bilinearWeights(from: number, to: number): Tensor {
  const weights = new Float32Array(to * from);
  for (let i = 0; i < to; i++) {
    const source = Math.max(0, (i + 0.5) * from / to - 0.5);
    const low = Math.min(Math.floor(source), from - 1);
    const high = Math.min(low + 1, from - 1);
    weights[i * from + low] += 1 - (source - low);
    weights[i * from + high] += source - low;
  }
  return tensor(weights, [to, from]);
}

/**
 * Bilinear resize without antialiasing, corners not aligned, as PyTorch's
 * `interpolate`. Two constant matrices: exact, differentiable and the same on
 * every provider.
 *
 * @param x `[n, c, h, w]`
 * @param size Height and width of the result
 * @throws {RangeError} If a size is not an integer >= 1
 */
export function resizeBilinear(
  x: Node,
  size: readonly [number, number],
): Node {
  checkSize(size, x);
  const [, , h, w] = x.shape;
  return separable(
    x,
    bilinearWeights(h, size[0]),
    bilinearWeights(w, size[1]),
  );
}

/** Weights of the mean over windows floor(i h / h') .. ceil((i + 1) h / h'). */
function averageWeights(from: number, to: number): Tensor {
  const weights = new Float32Array(to * from);
  for (let i = 0; i < to; i++) {
    const start = Math.floor(i * from / to);
    const end = Math.ceil((i + 1) * from / to);
    weights.fill(1 / (end - start), i * from + start, i * from + end);
  }
  return tensor(weights, [to, from]);
}

/**
 * Mean over windows that cover the image, as many as the result has pixels
 * (PyTorch's AdaptiveAvgPool2d).
 *
 * @param x `[n, c, h, w]`
 * @param size Height and width of the result
 * @throws {RangeError} If a size is not an integer >= 1
 */
export function adaptiveAveragePool(
  x: Node,
  size: readonly [number, number],
): Node {
  checkSize(size, x);
  const [, , h, w] = x.shape;
  if (h === size[0] && w === size[1]) return x;
  return separable(x, averageWeights(h, size[0]), averageWeights(w, size[1]));
}

function checkSize(size: readonly number[], x: Node): void {
  if (size.some((n) => !Number.isInteger(n) || n < 1) || x.shape.length !== 4) {
    throw new RangeError(
      `Cannot resize ${show(x.shape)} to ${
        show(size)
      }: need [n, c, h, w] and ` +
        `sizes >= 1`,
    );
  }
}
