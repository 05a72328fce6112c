/**
 * Random numbers by the thousand, in WebAssembly: Philox on four counters at a
 * time, and Box and Muller's transform on two pairs. JavaScript, which has no
 * whole products of 32-bit integers, takes more than three times as long, and
 * there is one normal value for each value of an image that training attacks,
 * and one for each initial weight.
 *
 * @module
 */
import {
  type Code,
  f64x2,
  i32,
  i32x4,
  i64x2,
  type Local,
  loopWhile,
  v128,
  WasmFunction,
  wasmModule,
} from "./wasm.ts";

/** Philox4x32's multipliers of the first and the third word. */
export const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57] as const;

/** What its keys grow by from round to round. */
export const WEYL = [0x9e3779b9, 0xbb67ae85] as const;

/** How often its cipher is applied. */
export const ROUNDS = 10;

/** Words that the kernels' memory holds: they stay in a core's L1 cache. */
export const CHUNK = 4096;

/** Vectors at the beginning of the memory. */
class Constants {
  readonly #words: number[] = [];

  /** @returns What loads them */
  words(...words: readonly [number, number, number, number]): Code {
    const offset = 4 * this.#words.length;
    this.#words.push(...words);
    return v128.load(i32.constant(0), offset);
  }

  /** A 32-bit integer in all lanes. */
  i32(value: number): Code {
    return this.words(value, value, value, value);
  }

  /** A 64-bit integer, by its words, in both lanes. */
  i64(high: number, low: number): Code {
    return this.words(low, high, low, high);
  }

  /** A number in both lanes. */
  f64(value: number): Code {
    const [low, high] = new Uint32Array(Float64Array.of(value).buffer);
    return this.i64(high, low);
  }

  get bytes(): Uint8Array {
    return new Uint8Array(Uint32Array.from(this.#words).buffer);
  }
}

/** Pieces of four-lane vectors `a` and `b`: lanes of `b` are 4 to 7. */
function lanes(a: Local, b: Local, ...chosen: readonly number[]): Code {
  return i32x4.shuffle(a.get(), b.get(), chosen);
}

/**
 * `philox(address, times, counter 0 .. 3, key 0 .. 1)`: writes `times` times
 * four blocks of four words; the counter's first word grows by 1 a block.
 */
function philoxKernel(constants: Constants): WasmFunction {
  const kernel = new WasmFunction("philox", 8);
  const [address, times, ...counterAndKey] = kernel.parameters;
  const vectors = (count: number) =>
    Array.from({ length: count }, () => kernel.local("v128"));
  const [first] = vectors(1);
  const start = vectors(3);
  const keys = vectors(2);
  const counter = vectors(4);
  const [low0, high0, low1, high1] = vectors(4);
  const multipliers = MULTIPLIERS.map((value) => constants.i32(value));
  const weyl = WEYL.map((value) => constants.i32(value));

  const round = (): Code[] => {
    const [c0, c1, c2, c3] = counter;
    return [
      low0.set(i64x2.multiplyLow(c0.get(), multipliers[0])),
      high0.set(i64x2.multiplyHigh(c0.get(), multipliers[0])),
      low1.set(i64x2.multiplyLow(c2.get(), multipliers[1])),
      high1.set(i64x2.multiplyHigh(c2.get(), multipliers[1])),
      c0.set(v128.xor(
        v128.xor(lanes(low1, high1, 1, 3, 5, 7), c1.get()),
        keys[0].get(),
      )),
      c1.set(lanes(low1, high1, 0, 2, 4, 6)),
      c2.set(v128.xor(
        v128.xor(lanes(low0, high0, 1, 3, 5, 7), c3.get()),
        keys[1].get(),
      )),
      c3.set(lanes(low0, high0, 0, 2, 4, 6)),
      ...keys.map((key, i) => key.set(i32x4.add(key.get(), weyl[i]))),
    ];
  };

  // From a vector for each word to four words for each block.
  const store = (): Code[] => {
    const [c0, c1, c2, c3] = counter;
    const half = (chosen: readonly number[], offset: number): Code[] => [
      low0.set(lanes(c0, c1, ...chosen)),
      high0.set(lanes(c2, c3, ...chosen)),
      v128.store(address.get(), lanes(low0, high0, 0, 1, 4, 5), offset),
      v128.store(address.get(), lanes(low0, high0, 2, 3, 6, 7), offset + 16),
    ];
    return [...half([0, 4, 1, 5], 0), ...half([2, 6, 3, 7], 32)];
  };

  const [c0, c1, c2, c3, k0, k1] = counterAndKey.map((word) =>
    i32x4.splat(word.get())
  );
  kernel.push(
    first.set(i32x4.add(c0, constants.words(0, 1, 2, 3))),
    ...[c1, c2, c3].map((word, i) => start[i].set(word)),
    loopWhile(times.get(), [
      counter[0].set(first.get()),
      ...start.map((word, i) => counter[i + 1].set(word.get())),
      keys[0].set(k0),
      keys[1].set(k1),
      ...Array.from({ length: ROUNDS }, round).flat(),
      ...store(),
      first.set(i32x4.add(first.get(), constants.i32(4))),
      address.set(i32.add(address.get(), i32.constant(64))),
      times.set(i32.sub(times.get(), i32.constant(1))),
    ]),
  );
  return kernel;
}

/** Coefficients of `artanh(x) / x` in `x ** 2`: |x| < 0.172, 1e-18 is left. */
const ARTANH = Array.from({ length: 11 }, (_, i) => 1 / (2 * i + 1));

/** Those of `sin(x) / x` and `cos(x)`, |x| <= pi / 4: 6e-17 is left. */
const SIN = [1, -6, 120, -5040, 362880, -39916800, 6227020800, -1307674368000]
  .map((divisor) => 1 / divisor);
const COS = [
  ...[1, -2, 24, -720, 40320, -3628800, 479001600, -87178291200],
  20922789888000,
].map((divisor) => 1 / divisor);

/** `sum(coefficients[i] * x ** i)` by Horner's rule. */
function polynomial(x: Local, coefficients: readonly Code[]): Code {
  return coefficients.reduceRight((sum, coefficient) =>
    f64x2.add(coefficient, f64x2.mul(x.get(), sum))
  );
}

/**
 * `normal(address, times)`: turns `times` times four random words into four
 * standard normal values, `f32`, in their place.
 */
function normalKernel(constants: Constants): WasmFunction {
  const kernel = new WasmFunction("normal", 2);
  const [address, times] = kernel.parameters;
  const local = () => kernel.local("v128");
  const number = (value: number) => constants.f64(value);
  const numbers = (values: readonly number[]) => values.map(number);
  const words = local();

  // sqrt(-2 * log(u)), u in (0, 1]. With u = 2 ** k * m, m between the roots of
  // 1/2 and 2, and s = (m - 1) / (m + 1): log(u) = k * log(2) + 2 * artanh(s).
  const [bits, scale, m, s, square, radius] = Array.from({ length: 6 }, local);
  const shift = 1024;
  const logarithm = {
    // shift * 2 ** 52 less the bits of a root of 1/2.
    offset: constants.i64(0x00195f62, 0),
    exponent: constants.i64(0xfff00000, 0),
    bias: constants.i64(shift << 20, 0),
    // Bits of 2 ** 52: those of k are the last ones of the sum.
    integer: constants.i64(0x43300000, 0),
    zero: number(2 ** 52 + shift),
    one: number(1),
    log2: number(-2 * Math.LN2),
    artanh: numbers(ARTANH.map((coefficient) => -4 * coefficient)),
    range: number(2 ** 32),
    grid: number(2 ** -32),
  };
  const makeRadius = (): Code[] => {
    const { offset, exponent, bias, integer, zero, one } = logarithm;
    const drawn = f64x2.fromLow(lanes(words, words, 0, 2, 0, 2));
    const biased = v128.or(i64x2.shiftRight(scale.get(), 52), integer);
    const k = f64x2.sub(biased, zero);
    return [
      // 1 - u lies in (0, 1], so the logarithm is finite.
      bits.set(f64x2.mul(f64x2.sub(logarithm.range, drawn), logarithm.grid)),
      scale.set(v128.and(i64x2.add(bits.get(), offset), exponent)),
      m.set(i64x2.add(i64x2.sub(bits.get(), scale.get()), bias)),
      s.set(f64x2.div(f64x2.sub(m.get(), one), f64x2.add(m.get(), one))),
      square.set(f64x2.mul(s.get(), s.get())),
      radius.set(f64x2.sqrt(f64x2.add(
        f64x2.mul(k, logarithm.log2),
        f64x2.mul(s.get(), polynomial(square, logarithm.artanh)),
      ))),
    ];
  };

  // Sine and cosine within an eighth of a turn of the nearest quarter.
  const [turn, quarter, x, sin, cos, isOdd] = Array.from({ length: 6 }, local);
  const angle = {
    grid: number(2 ** -30),
    quarter: number(Math.PI / 2),
    integer: number(2 ** 52),
    one: constants.i64(0, 1),
    two: constants.i64(0, 2),
    sin: numbers(SIN),
    cos: numbers(COS),
  };
  const makeDirection = (): Code[] => {
    const { grid, integer, one, two } = angle;
    const drawn = f64x2.fromLow(lanes(words, words, 1, 3, 1, 3));
    // The second bit of an integer as the sign of a number.
    const sign = (value: Code) => i64x2.shiftLeft(v128.and(value, two), 62);
    return [
      turn.set(f64x2.mul(drawn, grid)),
      quarter.set(f64x2.nearest(turn.get())),
      x.set(f64x2.mul(f64x2.sub(turn.get(), quarter.get()), angle.quarter)),
      quarter.set(f64x2.add(quarter.get(), integer)),
      square.set(f64x2.mul(x.get(), x.get())),
      sin.set(f64x2.mul(x.get(), polynomial(square, angle.sin))),
      cos.set(polynomial(square, angle.cos)),
      isOdd.set(i64x2.neg(v128.and(quarter.get(), one))),
      x.set(v128.select(cos.get(), sin.get(), isOdd.get())),
      cos.set(v128.select(sin.get(), cos.get(), isOdd.get())),
      sin.set(v128.xor(x.get(), sign(quarter.get()))),
      cos.set(v128.xor(cos.get(), sign(i64x2.add(quarter.get(), one)))),
    ];
  };

  const single = (value: Local) =>
    value.set(f64x2.toSingle(f64x2.mul(radius.get(), value.get())));
  kernel.push(loopWhile(times.get(), [
    words.set(v128.load(address.get())),
    ...makeRadius(),
    ...makeDirection(),
    single(cos),
    single(sin),
    v128.store(address.get(), lanes(cos, sin, 0, 4, 1, 5)),
    address.set(i32.add(address.get(), i32.constant(16))),
    times.set(i32.sub(times.get(), i32.constant(1))),
  ]));
  return kernel;
}

/** Both kernels and their memory. */
export interface Kernels {
  /** Room for `CHUNK` words, and for some more of whole blocks. */
  readonly words: Uint32Array;
  /**
   * Writes blocks of four words each.
   *
   * @param first Index of the first word
   * @param counter Of the first block; its first word must not overflow
   */
  philox(
    first: number,
    blocks: number,
    counter: Iterable<number>,
    key: Iterable<number>,
  ): void;
  /**
   * Turns the first words, pairs of them, into normal values.
   *
   * @returns A view of the values, which the next call overwrites
   */
  normal(count: number): Float32Array;
}

let kernels: Kernels | undefined;

/** The kernels, made when first needed. */
export function randomKernels(): Kernels {
  return kernels ??= makeKernels();
}

function makeKernels(): Kernels {
  const constants = new Constants();
  const functions = [philoxKernel(constants), normalKernel(constants)];
  const { bytes } = constants;
  const module = new WebAssembly.Module(wasmModule(functions, bytes));
  const { exports } = new WebAssembly.Instance(module);
  const { memory, philox, normal } = exports as {
    readonly memory: WebAssembly.Memory;
    readonly philox: (...values: number[]) => void;
    readonly normal: (...values: number[]) => void;
  };
  const start = bytes.length;
  return {
    words: new Uint32Array(memory.buffer, start),
    philox(first, blocks, [c0, c1, c2, c3], [k0, k1]) {
      // Loops go round once at least.
      if (blocks === 0) return;
      const address = start + 4 * first;
      philox(address, Math.ceil(blocks / 4), c0, c1, c2, c3, k0, k1);
    },
    normal(count) {
      if (count === 0) return new Float32Array();
      normal(start, Math.ceil(count / 4));
      return new Float32Array(memory.buffer, start, count);
    },
  };
}
