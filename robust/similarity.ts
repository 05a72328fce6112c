/**
 * How alike images and representations are: the numbers behind the paper's
 * qualitative claims.
 *
 * @module
 */
import { rows, sameShape, show, type Tensor } from "../core/mod.ts";

/** @throws {TypeError} If two tensors differ in shape */
function checkSame(what: string, a: Tensor, b: Tensor): void {
  if (!sameShape(a.shape, b.shape)) {
    throw new TypeError(
      `Cannot compare ${what} of shapes ${show(a.shape)} and ${show(b.shape)}`,
    );
  }
}

/**
 * l2 distance of images, `||a - b||` over a whole image in [0, 1] units.
 *
 * @param a `[n, ...]`
 * @param b Of the same shape
 * @returns One distance per image
 * @throws {TypeError} If the shapes differ
 */
export function pixelDistances(a: Tensor, b: Tensor): number[] {
  checkSame("images", a, b);
  return rowDistances(a, b);
}

/** l2 distance of each row of `a` to the same row of `b`, both `[n, ...]`. */
export function rowDistances(a: Tensor, b: Tensor): number[] {
  const [n] = a.shape;
  const length = a.data.length / n;
  return Array.from({ length: n }, (_, i) => {
    let sum = 0;
    for (let j = i * length; j < (i + 1) * length; j++) {
      sum += (a.data[j] - b.data[j]) ** 2;
    }
    return Math.sqrt(sum);
  });
}

/** Radius and standard deviation of SSIM's window, in pixels. */
const RADIUS = 5, SIGMA = 1.5;
/** SSIM's constants for values in [0, 1], squared. */
const C1 = 0.01 ** 2, C2 = 0.03 ** 2;

/**
 * Structural similarity, 1 for equal images (Wang et al. 2004): Gaussian
 * window of 11 x 11 pixels and standard deviation 1.5, population moments,
 * windows wholly inside the image, mean over the colour channels.
 *
 * @param a Images in [0, 1], `[n, c, h, w]`, h and w at least 11
 * @param b Of the same shape
 * @returns One value per image, -1 to 1
 * @throws {TypeError} If the shapes differ or are not those of such images
 */
export function ssim(a: Tensor, b: Tensor): number[] {
  checkSame("images", a, b);
  const { shape } = a;
  const [n, c, h, w] = shape;
  if (shape.length !== 4 || h < 2 * RADIUS + 1 || w < 2 * RADIUS + 1) {
    throw new TypeError(
      `Cannot compare the structure of images of shape ${show(shape)}: need ` +
        `[n, c, h, w] of at least ${2 * RADIUS + 1} pixels each way`,
    );
  }
  const size = h * w;
  return Array.from({ length: n }, (_, i) => {
    let total = 0;
    for (let k = i * c; k < (i + 1) * c; k++) {
      const x = a.data.subarray(k * size, (k + 1) * size) as Float32Array;
      const y = b.data.subarray(k * size, (k + 1) * size) as Float32Array;
      total += ssimOfPlanes(x, y, h, w);
    }
    return total / c;
  });
}

const WINDOW = (() => {
  const values = Array.from(
    { length: 2 * RADIUS + 1 },
    (_, i) => Math.exp(-((i - RADIUS) ** 2) / (2 * SIGMA ** 2)),
  );
  const sum = values.reduce((total, value) => total + value);
  return values.map((value) => value / sum);
})();

function ssimOfPlanes(
  x: ArrayLike<number>,
  y: ArrayLike<number>,
  h: number,
  w: number,
): number {
  const product = (p: ArrayLike<number>, q: ArrayLike<number>) =>
    Float64Array.from({ length: h * w }, (_, i) => p[i] * q[i]);
  const mx = blurred(x, h, w), my = blurred(y, h, w);
  const xx = blurred(product(x, x), h, w);
  const yy = blurred(product(y, y), h, w);
  const xy = blurred(product(x, y), h, w);
  let sum = 0;
  for (let i = 0; i < mx.length; i++) {
    const means = mx[i] * my[i], squares = mx[i] ** 2 + my[i] ** 2;
    const covariance = xy[i] - means;
    const variances = xx[i] + yy[i] - squares;
    sum += ((2 * means + C1) * (2 * covariance + C2)) /
      ((squares + C1) * (variances + C2));
  }
  return sum / mx.length;
}

/** Means under the window, where it lies wholly inside. */
function blurred(
  plane: ArrayLike<number>,
  h: number,
  w: number,
): Float64Array {
  const width = w - 2 * RADIUS, height = h - 2 * RADIUS;
  const across = new Float64Array(h * width);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      WINDOW.forEach((weight, k) => sum += weight * plane[y * w + x + k]);
      across[y * width + x] = sum;
    }
  }
  const result = new Float64Array(height * width);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      WINDOW.forEach((weight, k) =>
        sum += weight * across[(y + k) * width + x]
      );
      result[y * width + x] = sum;
    }
  }
  return result;
}

/**
 * How many of a gallery's representations are nearer to each query than the
 * one it should be nearest to, plus one: 1 is best.
 *
 * @param queries Representations, `[n, d]`
 * @param gallery Representations to search, `[m, d]`
 * @param targets Row of the gallery that each query should find, `[n]`
 * @returns Ranks, 1 .. m
 * @throws {TypeError} If the representations differ in length
 */
export function retrievalRanks(
  queries: Tensor,
  gallery: Tensor,
  targets: ArrayLike<number>,
): number[] {
  const [n, d] = queries.shape;
  const [m] = gallery.shape;
  if (gallery.shape[1] !== d) {
    throw new TypeError(
      `Cannot search representations of length ${gallery.shape[1]} by one of ` +
        `length ${d}`,
    );
  }
  const distance = (query: Tensor, i: number) =>
    rowDistances(query, rows(gallery, i, i + 1))[0];
  return Array.from({ length: n }, (_, i) => {
    const query = rows(queries, i, i + 1);
    const own = distance(query, targets[i]);
    let nearer = 0;
    for (let j = 0; j < m; j++) {
      if (j !== targets[i] && distance(query, j) < own) nearer++;
    }
    return nearer + 1;
  });
}

/**
 * How steadily values rise: pairs in order minus pairs out of order, over all
 * pairs (Kendall's tau against the position).
 *
 * @param values At least two
 * @returns 1 if each is larger than the one before, -1 if each is smaller
 */
export function kendallTau(values: ArrayLike<number>): number {
  const n = values.length;
  let sum = 0;
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) sum += Math.sign(values[j] - values[i]);
  }
  return sum / (n * (n - 1) / 2);
}

/**
 * Probabilities of the classes.
 *
 * @param logits `[n, classes]`
 * @returns One list per image, of sum 1
 */
export function softmaxRows(logits: Tensor): number[][] {
  const [n, d] = logits.shape;
  return Array.from({ length: n }, (_, i) => {
    const row = Array.from(logits.data.slice(i * d, (i + 1) * d), Number);
    const largest = Math.max(...row);
    const powers = row.map((x) => Math.exp(x - largest));
    const sum = powers.reduce((total, x) => total + x, 0);
    return powers.map((x) => x / sum);
  });
}
