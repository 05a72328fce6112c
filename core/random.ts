/**
 * The only source of randomness: a counter-based generator, so that any part
 * of a run can be repeated or resumed without replaying what came before.
 *
 * Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1,
 * 2, 3"): a block cipher applied to a counter under a key.
 *
 * @module
 */
import {
  CHUNK,
  MULTIPLIERS,
  randomKernels,
  ROUNDS,
  WEYL,
} from "./random_kernels.ts";
import { type Shape, sizeOf, type Tensor, tensor } from "./tensor.ts";

/**
 * High 32 bits of the product of two unsigned 32-bit integers, read as signed:
 * all steps are on 32-bit integers, which engines keep in registers.
 */
function mulHigh(a: number, b: number): number {
  const aLow = a & 0xffff, aHigh = a >>> 16;
  const bLow = b & 0xffff, bHigh = b >>> 16;
  const left = Math.imul(aHigh, bLow), right = Math.imul(aLow, bHigh);
  const carry = (left & 0xffff) + (right & 0xffff) +
    (Math.imul(aLow, bLow) >>> 16);
  return (Math.imul(aHigh, bHigh) + (left >>> 16) + (right >>> 16) +
    (carry >>> 16)) | 0;
}

/**
 * One block of Philox4x32-10.
 *
 * @param counter Four unsigned 32-bit words, least significant first
 * @param key Two unsigned 32-bit words
 * @param out Receives four random unsigned 32-bit words
 */
export function philox(
  counter: ArrayLike<number>,
  key: ArrayLike<number>,
  out: Uint32Array,
): void {
  let c0 = counter[0] | 0, c1 = counter[1] | 0;
  let c2 = counter[2] | 0, c3 = counter[3] | 0;
  let k0 = key[0] | 0, k1 = key[1] | 0;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = mulHigh(MULTIPLIERS[0], c0);
    const low0 = Math.imul(MULTIPLIERS[0], c0);
    const high1 = mulHigh(MULTIPLIERS[1], c2);
    const low1 = Math.imul(MULTIPLIERS[1], c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + WEYL[0]) | 0;
    k1 = (k1 + WEYL[1]) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** FNV-1a hash of a stream's path, spread over two words. */
function hashPath(path: readonly (string | number)[]): [number, number] {
  let low = 0x811c9dc5, high = 0x050c5d1f;
  for (const byte of new TextEncoder().encode(JSON.stringify(path))) {
    low = Math.imul(low ^ byte, 0x01000193) >>> 0;
    high = Math.imul(high ^ byte ^ (low >>> 24), 0x01000193) >>> 0;
  }
  return [low, high];
}

/**
 * A stream of random numbers.
 *
 * @example
 * ```ts
 * import { Random } from "./random.ts";
 * const random = new Random(0);
 * // The same numbers whenever epoch 3, step 7 is reached:
 * const noise = random.stream("attack", 3, 7).normal([2, 3, 32, 32]);
 * ```
 */
export class Random {
  readonly #seed: number;
  readonly #path: readonly (string | number)[];
  readonly #key: [number, number];
  readonly #counter: Uint32Array = new Uint32Array(4);
  readonly #block: Uint32Array = new Uint32Array(4);
  #used = 4;

  /**
   * Starts a stream at its beginning.
   *
   * @param seed Integer, 0 <= seed < 2^32
   * @param path Names the stream; streams of different paths are independent
   * @throws {RangeError} If the seed is out of range
   */
  constructor(seed: number, path: readonly (string | number)[] = []) {
    if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) {
      throw new RangeError(
        `Cannot seed the generator with ${seed}: ` +
          `give an integer from 0 to 4294967295`,
      );
    }
    this.#seed = seed;
    this.#path = path;
    const [low, high] = hashPath(path);
    this.#key = [seed, low];
    this.#counter[2] = high;
    this.#counter[3] = path.length;
  }

  /** An independent stream named by this stream's path and `path`. */
  stream(...path: readonly (string | number)[]): Random {
    return new Random(this.#seed, [...this.#path, ...path]);
  }

  /** Next unsigned 32-bit integer. */
  uint32(): number {
    if (this.#used === 4) {
      philox(this.#counter, this.#key, this.#block);
      if (++this.#counter[0] === 2 ** 32) this.#counter[1]++;
      this.#used = 0;
    }
    return this.#block[this.#used++];
  }

  /**
   * Leaves out the next integers of the stream, at no cost.
   *
   * @param count How many calls of `uint32()` this stands for
   */
  skip(count: number): void {
    const [low, high] = this.#counter;
    const drawn = (low + high * 2 ** 32) * 4 - (4 - this.#used);
    const block = Math.floor((drawn + count) / 4);
    this.#counter[0] = block % 2 ** 32;
    this.#counter[1] = Math.floor(block / 2 ** 32);
    this.#used = 4;
    for (let i = 4 * block; i < drawn + count; i++) this.uint32();
  }

  /** Next number, uniform in [low, high), on a grid of 2^-32 of the width. */
  uniform(low = 0, high = 1): number {
    return low + (high - low) * (this.uint32() / 2 ** 32);
  }

  /**
   * Next integer, uniform in 0 .. limit - 1.
   *
   * @throws {RangeError} If the limit is not an integer from 1 to 2^32
   */
  integer(limit: number): number {
    if (!Number.isInteger(limit) || limit < 1 || limit > 2 ** 32) {
      throw new RangeError(
        `Cannot draw an integer below ${limit}: give 1 to 4294967296`,
      );
    }
    // Reject the incomplete last interval: the remainder would be biased.
    const end = 2 ** 32 - (2 ** 32 % limit);
    for (;;) {
      const word = this.uint32();
      if (word < end) return word % limit;
    }
  }

  /**
   * Draws words in bulk: into the memory of the kernels, at its beginning.
   *
   * @param count At most `CHUNK`
   */
  #fill(count: number): void {
    const { words, philox: fillBlocks } = randomKernels();
    let drawn = 0;
    while (this.#used < 4 && drawn < count) words[drawn++] = this.uint32();
    const blocks = Math.floor((count - drawn) / 4);
    // Kernels do not carry into the counter's second word.
    if (this.#counter[0] + blocks < 2 ** 32) {
      fillBlocks(drawn, blocks, this.#counter, this.#key);
      this.#counter[0] += blocks;
      drawn += 4 * blocks;
    }
    while (drawn < count) words[drawn++] = this.uint32();
  }

  /** Tensor of independent standard normal values (Box and Muller 1958). */
  normal(shape: Shape): Tensor {
    const data = new Float32Array(sizeOf(shape));
    for (let start = 0; start < data.length; start += CHUNK) {
      const count = Math.min(CHUNK, data.length - start);
      // Values are made in pairs.
      this.#fill(count + count % 2);
      data.set(randomKernels().normal(count), start);
    }
    return tensor(data, shape);
  }

  /** Tensor of independent values, uniform in [low, high). */
  uniformTensor(shape: Shape, low = 0, high = 1): Tensor {
    const data = new Float32Array(sizeOf(shape));
    const step = (high - low) / 2 ** 32;
    for (let start = 0; start < data.length; start += CHUNK) {
      const count = Math.min(CHUNK, data.length - start);
      this.#fill(count);
      const { words } = randomKernels();
      for (let i = 0; i < count; i++) data[start + i] = low + step * words[i];
    }
    return tensor(data, shape);
  }

  /** A random order of 0 .. length - 1 (Fisher and Yates). */
  permutation(length: number): Uint32Array {
    const order = Uint32Array.from({ length }, (_, i) => i);
    for (let i = length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }
}
