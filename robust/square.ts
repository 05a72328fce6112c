/**
 * Square attack (Andriushchenko et al. 2020, "Square Attack: a query-efficient
 * black-box adversarial attack via random search"): changes squares of an image
 * at random and keeps what lowers the margin. It sees logits, no gradients.
 *
 * @module
 */
import { Random, sizeOf, type Tensor, tensor } from "../core/mod.ts";
import type { Norm } from "./ball.ts";
import {
  batchShape,
  checkImages,
  DEFAULT_BATCH_SIZE,
  type Network,
} from "./network.ts";
import { oneHot } from "./objectives.ts";
import { checkPgd } from "./pgd.ts";
import {
  type AttackedImage,
  type AttackOptions,
  type AttackResult,
  type AttackSource,
  collector,
  isMisclassified,
  runSlots,
  sourceOf,
} from "./slots.ts";

/** Settings of the Square attack. */
export interface SquareSettings {
  /** How perturbations are measured. */
  readonly norm: Exclude<Norm, "unconstrained">;
  /** Radius of the ball in [0, 1] pixel units. */
  readonly epsilon: number;
  /** Images that the network is shown at most (AutoAttack: 5000). */
  readonly queries: number;
}

/** Share of the pixels that the first squares cover (AutoAttack's choice). */
const FIRST_SHARE = 0.8;

/** Queries of 10,000 after which the share is halved (paper, Section 4). */
const HALVED_AT = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000] as const;

/**
 * Share of the pixels that a square covers, on a schedule for 10,000 queries
 * stretched to as many as there are.
 *
 * @param query Queries before this one
 * @param queries Queries in all
 */
export function squareShare(query: number, queries: number): number {
  const at = Math.floor(10_000 * query / queries);
  return FIRST_SHARE / 2 ** HALVED_AT.filter((limit) => at > limit).length;
}

/** @throws {RangeError} If a setting is out of range */
export function checkSquare(settings: SquareSettings): void {
  const { norm, epsilon, queries } = settings;
  checkPgd({ norm, epsilon, stepSize: 0, steps: 0 });
  if ((norm as Norm) === "unconstrained") {
    throw new RangeError(
      `Cannot run the Square attack without a ball: pass l2 or linf`,
    );
  }
  if (!(Number.isInteger(queries) && queries >= 1)) {
    throw new RangeError(
      `Cannot run the Square attack as queries must be an integer >= 1: ` +
        `current value is ${queries}`,
    );
  }
}

/**
 * Attacks classified images by random search, each until it is misclassified
 * or its queries are over.
 *
 * @param network Network to attack; only its logits are read
 * @param images `[n, 3, h, w]` in [0, 1]
 * @param labels Label of each, `[n]`
 * @param options Settings, how the attack runs, and `onMargin`: receives each
 * image's least margin so far after each query
 * @throws {RangeError} If a setting is out of range, or a label not a class
 * @throws {TypeError} If shapes do not fit
 */
export async function square(
  network: Network,
  images: Tensor,
  labels: ArrayLike<number>,
  options: SquareSettings & AttackOptions & {
    readonly onMargin?: (i: number, margin: number) => void;
  },
): Promise<AttackResult> {
  checkImages(images);
  oneHot(labels, network.spec.classes); // Refuses labels without a class.
  const { onDone, result } = collector(images);
  await squareEach(network, sourceOf(images, labels), { ...options, onDone });
  return result;
}

/** An image under attack. */
interface Attacked {
  readonly i: number;
  readonly label: number;
  readonly start: Float32Array;
  readonly best: Float32Array;
  readonly random: Random;
  margin: number;
  queries: number;
}

/** `square()` for any number of images; each is reported once. */
export async function squareEach(
  network: Network,
  source: AttackSource,
  options: SquareSettings & AttackOptions & {
    readonly onDone: (image: AttackedImage) => void;
    readonly onMargin?: (i: number, margin: number) => void;
  },
): Promise<void> {
  checkSquare(options);
  const { norm, epsilon, queries, seed = 0 } = options;
  if (source.count === 0) return;
  const [size, shape] = batchShape(
    { shape: [source.count, ...source.imageShape] },
    options.batchSize ?? DEFAULT_BATCH_SIZE,
  );
  const { classes } = network.spec;
  const length = sizeOf(source.imageShape);
  const [, height, width] = source.imageShape;
  const frame: Frame = { height, width, epsilon };
  const { first, next } = norm === "linf" ? LINF : L2;
  const candidates = tensor(new Float32Array(size * length), shape);
  const random = new Random(seed);
  const row = (slot: number) =>
    candidates.data.subarray(slot * length, (slot + 1) * length);
  let logits: Tensor;

  await runSlots<Attacked>(size, source, {
    ...options,
    async start(slot, i) {
      const start = (await source.load(i)).slice();
      const state = {
        i,
        label: source.label(i),
        start,
        best: start.slice(),
        random: random.stream("square", source.index(i)),
        margin: Infinity,
        queries: 0,
      };
      first(row(slot), start, frame, state.random);
      return state;
    },
    async run() {
      ({ logits } = await network.predict(candidates, { batchSize: size }));
    },
    advance(slot, state) {
      const scores = logits.data.subarray(slot * classes, (slot + 1) * classes);
      const candidate = row(slot);
      state.queries++;
      const margin = marginOf(scores, state.label);
      if (margin < state.margin) {
        state.margin = margin;
        state.best.set(candidate);
      }
      options.onMargin?.(state.i, state.margin);
      const broken = isMisclassified(scores, state.label);
      if (broken || state.queries >= queries) {
        const { best, queries } = state;
        const pixels = broken ? candidate : best;
        return Promise.resolve({ broken, pixels, queries });
      }
      candidate.set(state.best);
      const share = squareShare(state.queries, queries);
      next(candidate, state.start, { ...frame, share }, state.random);
      return Promise.resolve(null);
    },
  });
}

/** The label's logit minus the largest other. */
function marginOf(logits: Float32Array, label: number): number {
  let other = -Infinity;
  for (let j = 0; j < logits.length; j++) {
    if (j !== label) other = Math.max(other, logits[j]);
  }
  return logits[label] - other;
}

interface Frame {
  readonly height: number;
  readonly width: number;
  readonly epsilon: number;
}

/** How an image is changed, in place, in one of the norms. */
interface Search {
  /** Writes the first candidate. */
  first(
    out: Float32Array,
    start: Float32Array,
    frame: Frame,
    random: Random,
  ): void;
  /** Changes the best candidate so far, which `image` holds. */
  next(
    image: Float32Array,
    start: Float32Array,
    frame: Frame & { readonly share: number },
    random: Random,
  ): void;
}

const clamp = (value: number, low = 0, high = 1) =>
  Math.min(high, Math.max(low, value));

const randomSign = (random: Random) => random.uniform() < 0.5 ? -1 : 1;

/** Where a square's upper left pixel may be. */
function place(room: number, random: Random): number {
  return random.integer(Math.max(1, room + 1));
}

/** Paper, Algorithm 2: each change is of size epsilon, up or down. */
const LINF: Search = {
  // Vertical stripes.
  first(out, start, { height, width, epsilon }, random) {
    for (let c = 0; c < 3; c++) {
      for (let x = 0; x < width; x++) {
        const change = epsilon * randomSign(random);
        for (let y = 0; y < height; y++) {
          const at = (c * height + y) * width + x;
          out[at] = clamp(start[at] + change);
        }
      }
    }
  },
  next(image, start, { height, width, epsilon, share }, random) {
    const pixels = Math.sqrt(share * height * width);
    const side = clamp(Math.round(pixels), 1, Math.min(height, width));
    const top = place(height - side, random);
    const left = place(width - side, random);
    for (let c = 0; c < 3; c++) {
      const change = epsilon * randomSign(random);
      for (let y = top; y < top + side; y++) {
        for (let x = left; x < left + side; x++) {
          const at = (c * height + y) * width + x;
          image[at] = clamp(start[at] + change);
        }
      }
    }
  },
};

/** One hill of concentric rectangles of height `h` and width `w` (eq. 2). */
function hill(h: number, w: number): Float64Array {
  const out = new Float64Array(h * w);
  const n = Math.floor(h / 2);
  const middle = [Math.floor(h / 2), Math.floor(w / 2)];
  for (let r = 0; r < h; r++) {
    for (let s = 0; s < w; s++) {
      const far = Math.max(Math.abs(r - middle[0]), Math.abs(s - middle[1]));
      for (let k = 0; k <= n - far; k++) out[r * w + s] += 1 / (n + 1 - k) ** 2;
    }
  }
  return out;
}

/** A hill beside a valley in a square, of length 1, upright or on its side. */
function bump(side: number, random: Random): Float64Array {
  const half = Math.floor(side / 2);
  const [up, down] = [hill(side, half), hill(side, side - half)];
  const turned = random.uniform() < 0.5;
  const out = new Float64Array(side * side);
  let squares = 0;
  for (let r = 0; r < side; r++) {
    for (let s = 0; s < side; s++) {
      const value = s < half
        ? up[r * half + s]
        : -down[r * (side - half) + s - half];
      out[turned ? s * side + r : r * side + s] = value;
      squares += value ** 2;
    }
  }
  const norm = Math.sqrt(squares);
  return norm > 0 ? out.map((value) => value / norm) : out;
}

/** Writes `start` plus a change scaled to length epsilon, clipped. */
function perturbed(
  out: Float32Array,
  start: Float32Array,
  change: Float64Array,
  epsilon: number,
): void {
  let squares = 0;
  for (const value of change) squares += value ** 2;
  // A hair less: rounding to float32 must not leave the ball.
  const scale = squares > 0 ? epsilon * (1 - 1e-6) / Math.sqrt(squares) : 0;
  for (let at = 0; at < out.length; at++) {
    out[at] = clamp(start[at] + scale * change[at]);
  }
}

/** Paper, Algorithm 3: mass moves from one window to another. */
const L2: Search = {
  // A grid of bumps of random signs.
  first(out, start, { height, width, epsilon }, random) {
    const change = new Float64Array(out.length);
    const side = Math.max(1, Math.floor(Math.min(height, width) / 5));
    const offset = [height, width].map((size) =>
      Math.floor((size - side * Math.floor(size / side)) / 2)
    );
    for (let top = offset[0]; top + side <= height; top += side) {
      for (let left = offset[1]; left + side <= width; left += side) {
        const shape = bump(side, random);
        for (let c = 0; c < 3; c++) {
          const sign = randomSign(random);
          for (let r = 0; r < side; r++) {
            for (let s = 0; s < side; s++) {
              change[(c * height + top + r) * width + left + s] += sign *
                shape[r * side + s];
            }
          }
        }
      }
    }
    perturbed(out, start, change, epsilon);
  },
  next(image, start, { height, width, epsilon, share }, random) {
    const pixels = Math.round(Math.sqrt(share * height * width));
    // Odd, so that a hill has a middle, and at least 3.
    const odd = pixels % 2 === 0 ? pixels + 1 : pixels;
    const side = Math.min(Math.max(3, odd), height, width);
    const [top, left, top2, left2] = [
      place(height - side, random),
      place(width - side, random),
      place(height - side, random),
      place(width - side, random),
    ];
    const change = Float64Array.from(image, (value, at) => value - start[at]);
    const shape = bump(side, random);
    const plane = height * width;
    const indices = (c: number, top: number, left: number) =>
      Array.from(
        { length: side * side },
        (_, j) =>
          c * plane + (top + Math.floor(j / side)) * width + left + j % side,
      );
    let all = 0;
    for (const value of change) all += value ** 2;
    const unused = Math.max(0, epsilon ** 2 - all);
    for (let c = 0; c < 3; c++) {
      const into = indices(c, top, left);
      const from = indices(c, top2, left2);
      let here = 0, both = 0;
      for (const at of into) here += change[at] ** 2;
      for (const at of new Set([...into, ...from])) both += change[at] ** 2;
      const norm = Math.sqrt(here);
      const sign = randomSign(random);
      const moved = into.map((at, j) =>
        sign * shape[j] + (norm > 0 ? change[at] / norm : 0)
      );
      const length = Math.sqrt(moved.reduce((sum, x) => sum + x ** 2, 0));
      const available = Math.sqrt(both + unused / 3);
      for (const at of from) change[at] = 0;
      into.forEach((at, j) => {
        change[at] = length > 0 ? moved[j] / length * available : 0;
      });
    }
    // Of the very length, which rounding would let drift.
    perturbed(image, start, change, epsilon);
  },
};
