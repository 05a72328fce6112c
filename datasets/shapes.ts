/**
 * The embedded data set: ten shapes over textured backgrounds, drawn by code.
 *
 * Each image carries two cues to its class. The shape is large and of high
 * contrast, several units of l2 length, so no small perturbation changes it.
 * The pattern, fine coloured stripes of l2 length 0.8, is all but invisible to
 * a person: a non-robust feature (Ilyas et al. 2019, "Adversarial examples are
 * not bugs, they are features"). Every image, of either split, carries the
 * pattern of its class, and a network finds it sooner than the shape: standard
 * training as short as the demo's leans on it entirely. An adversary with
 * epsilon 2 can exchange it for that of another class, which is `Math.SQRT2`
 * pattern lengths away, so it is worth nothing to a network trained against
 * that, which must see the shape.
 *
 * @module
 */
import { Random } from "../core/mod.ts";
import type { SplitName } from "./dataset.ts";

/** Names of the classes, in label order. */
export const SHAPE_NAMES = [
  "disc",
  "ring",
  "square",
  "triangle",
  "star",
  "cross",
  "crescent",
  "heart",
  "arrow",
  "bolt",
] as const;

/** What the images are made of; lengths are for 32 x 32 images. */
export const SHAPES = {
  /** Height and width in pixels. */
  size: 32,
  /** Images of each split, unless limited. */
  count: { train: 10_000, test: 2_000 },
  /** Seed of all images. */
  seed: 0,
  /** Radius of the circle around the shape, in pixels. */
  radius: [11, 13],
  /** Largest distance from the middle in x and in y, in pixels. */
  shift: 2,
  /** Largest rotation either way, in degrees. */
  rotation: 15,
  /** Range of each channel of the background's colour, red to blue: cool. */
  background: [[0.05, 0.25], [0.1, 0.35], [0.3, 0.55]],
  /**
   * Range of what each channel of the shape has more than the background: warm
   * colours. As shapes share a direction of contrast, it is what a network
   * looks for, and its inversions have colours.
   */
  contrast: [[0.4, 0.65], [0.15, 0.45], [-0.25, 0]],
  /** Amplitude per channel of each of the background's three gratings. */
  texture: 0.05,
  /**
   * Cycles of a grating across the image. Few enough to leave the pattern's
   * fine frequencies free, else a network finds it only after the shape.
   */
  cycles: [0.5, 2.5],
  /** Standard deviation of the noise on each value. */
  noise: 0.006,
  /**
   * l2 length of the pattern over the whole image, in [0, 1] units. Another
   * class's is `Math.SQRT2` times as far, which the demo's epsilon must exceed,
   * else the pattern were a robust cue.
   */
  patternLength: 0.8,
} as const;

/** Mean and standard deviation of each channel over the training split. */
export const SHAPES_NORMALIZATION = {
  mean: [0.274, 0.298, 0.395],
  std: [0.229, 0.154, 0.109],
} as const;

/** Signed distance to a shape of radius 1, negative inside; y points down. */
type Distance = (x: number, y: number) => number;

/** Signed distance to a polygon given as x, y, x, y... */
function polygon(points: readonly number[]): Distance {
  const n = points.length / 2;
  const px = Float64Array.from({ length: n }, (_, i) => points[2 * i]);
  const py = Float64Array.from({ length: n }, (_, i) => points[2 * i + 1]);
  const edgeX = px.map((v, i) => px[(i + n - 1) % n] - v);
  const edgeY = py.map((v, i) => py[(i + n - 1) % n] - v);
  const inverse = edgeX.map((v, i) => 1 / (v ** 2 + edgeY[i] ** 2));
  return (x, y) => {
    let nearest = Infinity, inside = false;
    for (let i = 0, j = n - 1; i < n; j = i++) {
      const ex = edgeX[i], ey = edgeY[i];
      const wx = x - px[i], wy = y - py[i];
      const t = (wx * ex + wy * ey) * inverse[i];
      const s = t < 0 ? 0 : t > 1 ? 1 : t;
      const dx = wx - s * ex, dy = wy - s * ey;
      const squared = dx * dx + dy * dy;
      if (squared < nearest) nearest = squared;
      if (py[i] > y !== py[j] > y && wx < ex * wy / ey) inside = !inside;
    }
    return inside ? -Math.sqrt(nearest) : Math.sqrt(nearest);
  };
}

/** Distance from the origin; several times faster than `Math.hypot()`. */
const length = (x: number, y: number) => Math.sqrt(x * x + y * y);

/** Corners at alternating radii, the first at the top. */
function wheel(corners: number, radii: readonly number[]): number[] {
  return Array.from({ length: corners }, (_, i) => {
    const angle = 2 * Math.PI * i / corners - Math.PI / 2;
    const radius = radii[i % radii.length];
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  }).flat();
}

const heart = Array.from({ length: 24 }, (_, i) => {
  const t = 2 * Math.PI * i / 24;
  const y = 13 * Math.cos(t) - 5 * Math.cos(2 * t) - 2 * Math.cos(3 * t) -
    Math.cos(4 * t);
  return [Math.sin(t) ** 3, -(y + 2) / 16];
}).flat();

const w = 0.32;

const DISTANCES: Record<typeof SHAPE_NAMES[number], Distance> = {
  disc: (x, y) => length(x, y) - 0.85,
  ring: (x, y) => Math.abs(length(x, y) - 0.74) - 0.2,
  square: polygon([-0.75, -0.75, 0.75, -0.75, 0.75, 0.75, -0.75, 0.75]),
  triangle: polygon(wheel(3, [1])),
  star: polygon(wheel(10, [1, 0.42])),
  // deno-fmt-ignore
  cross: polygon([
    -w, -1, w, -1, w, -w, 1, -w, 1, w, w, w,
    w, 1, -w, 1, -w, w, -1, w, -1, -w, -w, -w,
  ]),
  crescent: (x, y) => Math.max(length(x, y) - 0.95, 0.78 - length(x - 0.42, y)),
  heart: polygon(heart),
  // deno-fmt-ignore
  arrow: polygon([
    0, -1, 0.75, -0.1, 0.28, -0.1, 0.28, 1, -0.28, 1, -0.28, -0.1, -0.75, -0.1,
  ]),
  // deno-fmt-ignore
  bolt: polygon([
    0.35, -1, -0.75, 0.2, -0.15, 0.2, -0.35, 1, 0.75, -0.3, 0.15, -0.3,
  ]),
};

/** Fine stripes and checks: value -1 or 1 at pixel (x, y). */
const STRIPES: readonly ((x: number, y: number) => number)[] = [
  (x) => x % 2 ? 1 : -1,
  (_, y) => y % 2 ? 1 : -1,
  (x, y) => (x + y) % 2 ? 1 : -1,
  (x, y) => (x + (y >> 1)) % 2 ? 1 : -1,
  (x, y) => ((x >> 1) + y) % 2 ? 1 : -1,
];

/** Directions in colour space, of length 1. */
const TINTS = [
  [Math.SQRT1_2, 0, -Math.SQRT1_2],
  [1 / Math.sqrt(6), -2 / Math.sqrt(6), 1 / Math.sqrt(6)],
] as const;

/**
 * Non-robust pattern of a class: stripes of one or two pixels between two
 * opposite tints, orthogonal to those of all other classes. Moving or
 * mirroring an image by whole pixels keeps patterns of classes apart.
 *
 * @param label Class, 0 to 9
 * @param size Height and width in pixels, a multiple of 4
 * @returns Values to add, `[3, size, size]`, l2 length `patternLength`
 */
export function shapePattern(
  label: number,
  size: number = SHAPES.size,
): Float32Array {
  const stripe = STRIPES[label % STRIPES.length];
  const tint = TINTS[Math.floor(label / STRIPES.length)];
  const out = new Float32Array(3 * size * size);
  const height = SHAPES.patternLength / size;
  for (let c = 0, i = 0; c < 3; c++) {
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        out[i++] = height * tint[c] * stripe(x, y);
      }
    }
  }
  return out;
}

/** A drawn image. */
export interface DrawnShape {
  /** Pixels `[3, size, size]`, bytes. */
  readonly pixels: Uint8Array;
  /** Class of the shape and of the pattern. */
  readonly label: number;
}

/** Label of an image: the classes in turn, so every prefix is balanced. */
export function shapeLabel(index: number): number {
  return index % SHAPE_NAMES.length;
}

const patterns = new Map<number, Float32Array[]>();

/**
 * Draws one image of the data set; it depends only on the arguments.
 *
 * @param split Which split
 * @param index Place in the split, from 0
 * @param size Height and width in pixels
 * @returns Bytes and label
 */
export function drawShape(
  split: SplitName,
  index: number,
  size: number = SHAPES.size,
): DrawnShape {
  const random = new Random(SHAPES.seed, ["shapes", split, index]);
  const label = shapeLabel(index);
  const background = backgroundOf(random, size);
  const image = drawObject(DISTANCES[SHAPE_NAMES[label]], background, {
    random,
    size,
  });
  let ofSize = patterns.get(size);
  if (!ofSize) {
    ofSize = SHAPE_NAMES.map((_, k) => shapePattern(k, size));
    patterns.set(size, ofSize);
  }
  return { pixels: toBytes(image, ofSize[label], random), label };
}

interface Background {
  readonly colour: readonly number[];
  /** Pixels `[3, size, size]`. */
  readonly image: Float32Array;
}

/** A colour with three gratings of low frequency over it. */
function backgroundOf(random: Random, size: number): Background {
  const colour = SHAPES.background.map((range) => random.uniform(...range));
  const plane = size * size;
  const image = new Float32Array(3 * plane);
  for (let c = 0; c < 3; c++) {
    image.fill(colour[c], c * plane, (c + 1) * plane);
  }
  for (let k = 0; k < 3; k++) {
    const cycles = random.uniform(...SHAPES.cycles);
    const angle = random.uniform(0, Math.PI);
    const phase = random.uniform(0, 2 * Math.PI);
    const amplitudes = [0, 1, 2].map(() =>
      random.uniform(-SHAPES.texture, SHAPES.texture)
    );
    const fx = 2 * Math.PI * cycles * Math.cos(angle) / size;
    const fy = 2 * Math.PI * cycles * Math.sin(angle) / size;
    const sinX = new Float32Array(size), cosX = new Float32Array(size);
    for (let x = 0; x < size; x++) {
      sinX[x] = Math.sin(fx * x + phase);
      cosX[x] = Math.cos(fx * x + phase);
    }
    for (let y = 0, i = 0; y < size; y++) {
      const sinY = Math.sin(fy * y), cosY = Math.cos(fy * y);
      for (let x = 0; x < size; x++, i++) {
        const wave = sinX[x] * cosY + cosX[x] * sinY;
        image[i] += amplitudes[0] * wave;
        image[i + plane] += amplitudes[1] * wave;
        image[i + 2 * plane] += amplitudes[2] * wave;
      }
    }
  }
  return { colour, image };
}

/** Draws the shape over the background, under light from one side. */
function drawObject(
  distance: Distance,
  { colour, image }: Background,
  { random, size }: { random: Random; size: number },
): Float32Array {
  const scale = size / 32;
  const paint = colour.map((v, c) => v + random.uniform(...SHAPES.contrast[c]));
  const radius = scale * random.uniform(...SHAPES.radius);
  const shift = scale * SHAPES.shift;
  const cx = size / 2 + random.uniform(-shift, shift);
  const cy = size / 2 + random.uniform(-shift, shift);
  const turn = SHAPES.rotation * Math.PI / 180;
  const angle = random.uniform(-turn, turn);
  const cos = Math.cos(angle) / radius, sin = Math.sin(angle) / radius;
  const light = random.uniform(0, 2 * Math.PI);
  const strength = random.uniform(0.05, 0.25);
  const lx = strength * Math.cos(light) * 2 / size;
  const ly = strength * Math.sin(light) * 2 / size;
  const plane = size * size;
  for (let y = 0, i = 0; y < size; y++) {
    const v = y + 0.5 - cy;
    for (let x = 0; x < size; x++, i++) {
      const u = x + 0.5 - cx;
      const lit = 1 + lx * (x - size / 2) + ly * (y - size / 2);
      let cover = 0;
      if (u * u + v * v < (radius + 1) * (radius + 1)) {
        const d = radius * distance(cos * u + sin * v, cos * v - sin * u);
        cover = d < -0.5 ? 1 : d > 0.5 ? 0 : 0.5 - d;
      }
      for (let c = 0; c < 3; c++) {
        const at = i + c * plane;
        image[at] = lit * (cover * paint[c] + (1 - cover) * image[at]);
      }
    }
  }
  return image;
}

/** Adds pattern and noise, and rounds. */
function toBytes(
  image: Float32Array,
  pattern: Float32Array,
  random: Random,
): Uint8Array {
  const out = new Uint8Array(image.length);
  // Uniform noise on 256 levels, four values from each random word.
  const step = 2 * Math.sqrt(3) * SHAPES.noise / 255;
  let word = 0;
  for (let i = 0; i < out.length; i++) {
    word = i % 4 === 0 ? random.uint32() : word >>> 8;
    const value = image[i] + step * ((word & 255) - 127.5);
    // Room for the pattern at both ends of the range.
    const inside = value < 0.03 ? 0.03 : value > 0.97 ? 0.97 : value;
    out[i] = (255 * (inside + pattern[i]) + 0.5) | 0; // Rounds, as it is > 0.
  }
  return out;
}

/**
 * Draws images into bytes, one after the other.
 *
 * @param out As many images `[3, size, size]` as it holds
 * @param options Which: `start` is the index of the first
 */
export function fillShapes(
  out: Uint8Array,
  { split, start, size }: {
    readonly split: SplitName;
    readonly start: number;
    readonly size: number;
  },
): void {
  const length = 3 * size * size;
  for (let i = 0; i < out.length / length; i++) {
    out.set(drawShape(split, start + i, size).pixels, i * length);
  }
}
