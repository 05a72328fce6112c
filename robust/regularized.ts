/**
 * The regularised baseline of feature visualisation (paper, Fig. 9 and 10;
 * Olah et al. 2017): images made of decorrelated frequencies and colours, seen
 * under random shifts, rotations and scales.
 *
 * @module
 */
import {
  concat,
  constant,
  matmul,
  mul,
  type Node,
  type Random,
  reshape,
  sigmoid,
  type Tensor,
  tensor,
} from "../core/mod.ts";
import { affineSample } from "../core/mod.ts";

/** What images are made of instead of pixels. */
export interface Parameterization {
  /** Tells parameterizations apart. */
  readonly name: string;
  /**
   * Images of their parameters.
   *
   * @param z Parameters, `[n, 3, ...]`
   * @returns Images in [0, 1], `[n, 3, h, w]`
   */
  decode(z: Node): Node;
  /** Shape of the parameters of `n` images. */
  shape(n: number): number[];
}

/** Random changes to images, drawn anew for each step. */
export interface RandomTransform {
  /** Tells transforms apart. */
  readonly name: string;
  /** Draws the changes of `n` images, `[n, 2, 3]`. */
  draw(n: number, random: Random): Tensor;
  /** Changes images, `[n, 3, h, w]`. */
  apply(images: Node, changes: Node): Node;
}

/**
 * Directions of the colours of natural images, a column each, so that they
 * vary independently: from the covariance of ImageNet's pixels (Olah et al.
 * 2017, appendix), of the length of the longest.
 */
const COLOURS = [
  [0.26, 0.09, 0.02],
  [0.27, 0.00, -0.05],
  [0.27, -0.09, 0.03],
];

/**
 * Images as spectra of decorrelated colours, each frequency scaled by its
 * inverse as in natural images: a step of one length then changes all
 * frequencies alike. Sigmoid keeps them in [0, 1].
 *
 * @param height Of the images
 * @param width Of the images, an even number
 * @throws {RangeError} If the width is odd
 */
export function fourierBasis(height: number, width: number): Parameterization {
  if (width % 2 !== 0) {
    throw new RangeError(
      `Cannot make images of width ${width} of frequencies: need an even width`,
    );
  }
  const half = width / 2 + 1;
  const [rowsOfReal, rowsOfImaginary] = rowMatrices(width, half);
  return {
    name: `fourier ${height} x ${width}`,
    shape: (n) => [n, 3, height, 2 * half],
    decode(z) {
      const [n] = z.shape;
      const scaled = mul(z, constant(frequencyScale(height, width, half)));
      // Along rows, then along columns: x = Re(sum of S e^(i(uy + vx))).
      const real = matmul(scaled, constant(rowsOfReal));
      const imaginary = matmul(scaled, constant(rowsOfImaginary));
      const stacked = concat([real, imaginary], 2);
      const plane = matmul(constant(columnMatrix(height)), stacked);
      const flat = reshape(plane, [n, 3, height * width]);
      const coloured = matmul(constant(colourMatrix()), flat);
      return sigmoid(reshape(coloured, [n, 3, height, width]));
    },
  };
}

/** `[1, 1, height, 2 * half]`: one over the frequency of each coefficient. */
function frequencyScale(height: number, width: number, half: number): Tensor {
  const data = new Float32Array(height * 2 * half);
  const lowest = 1 / Math.max(height, width);
  for (let u = 0; u < height; u++) {
    for (let v = 0; v < half; v++) {
      const fy = Math.min(u, height - u) / height;
      const frequency = Math.max(lowest, Math.hypot(fy, v / width));
      // Olah et al. divide the inverse transform by 4 before the colours.
      const scale = Math.sqrt(height * width) / frequency / 4;
      data[u * 2 * half + v] = data[u * 2 * half + half + v] = scale;
    }
  }
  return tensor(data, [1, 1, height, 2 * half]);
}

/**
 * From `[real | imaginary]` coefficients along a row to the real and the
 * imaginary part of its values, each `[2 * half, width]`.
 */
function rowMatrices(width: number, half: number): [Tensor, Tensor] {
  const real = new Float32Array(2 * half * width);
  const imaginary = new Float32Array(2 * half * width);
  for (let v = 0; v < half; v++) {
    // The other half of a real signal's spectrum mirrors this one.
    const weight = (v === 0 || 2 * v === width ? 1 : 2) / width;
    for (let x = 0; x < width; x++) {
      const angle = 2 * Math.PI * v * x / width;
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      real[v * width + x] = weight * cos;
      real[(half + v) * width + x] = -weight * sin;
      imaginary[v * width + x] = weight * sin;
      imaginary[(half + v) * width + x] = weight * cos;
    }
  }
  return [
    tensor(real, [2 * half, width]),
    tensor(imaginary, [2 * half, width]),
  ];
}

/** Real part of the inverse transform along columns, `[1, 1, h, 2 h]`. */
function columnMatrix(height: number): Tensor {
  const data = new Float32Array(height * 2 * height);
  for (let y = 0; y < height; y++) {
    for (let u = 0; u < height; u++) {
      const angle = 2 * Math.PI * u * y / height;
      data[y * 2 * height + u] = Math.cos(angle) / height;
      data[y * 2 * height + height + u] = -Math.sin(angle) / height;
    }
  }
  return tensor(data, [1, 1, height, 2 * height]);
}

function colourMatrix(): Tensor {
  const lengths = [0, 1, 2].map((j) =>
    Math.hypot(...COLOURS.map((row) => row[j]))
  );
  const longest = Math.max(...lengths);
  return tensor(COLOURS.flat().map((x) => x / longest), [1, 3, 3]);
}

/** How far `randomAffine()` goes. */
export interface AffineRange {
  /** Largest shift, as a fraction of the image's side. */
  readonly shift: number;
  /** Largest rotation, in degrees. */
  readonly degrees: number;
  /** Largest change of scale, as a fraction. */
  readonly scale: number;
}

/**
 * Random shift (jitter), rotation and scale. What comes in from outside is the
 * image mirrored at its edge.
 */
export function randomAffine(range: AffineRange): RandomTransform {
  const { shift, degrees, scale } = range;
  return {
    name: `affine ${shift} ${degrees} ${scale}`,
    draw(n, random) {
      const data = new Float32Array(6 * n);
      for (let i = 0; i < n; i++) {
        const angle = random.uniform(-degrees, degrees) * Math.PI / 180;
        const zoom = 1 + random.uniform(-scale, scale);
        const [cos, sin] = [Math.cos(angle) / zoom, Math.sin(angle) / zoom];
        // Positions run from -1 to 1: a shift of the side is 2.
        const [dx, dy] = [0, 0].map(() => 2 * random.uniform(-shift, shift));
        data.set([cos, -sin, dx, sin, cos, dy], 6 * i);
      }
      return tensor(data, [n, 2, 3]);
    },
    apply: (images, changes) =>
      affineSample(images, changes, { padding: "reflection" }),
  };
}
