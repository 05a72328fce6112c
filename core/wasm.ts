/**
 * WebAssembly modules from expressions: as much of its binary format
 * (webassembly.github.io/spec/core/binary) as a loop over vectors needs.
 *
 * @module
 */

/** Instructions; as an operand, they leave one value. */
export type Code = readonly number[];

/** Types of values. */
export type ValueType = keyof typeof TYPES;

const TYPES = { i32: 0x7f, v128: 0x7b } as const;

/** An integer in as few bytes as it needs, signed (LEB128). */
function signed(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value;; rest >>= 7) {
    const low = rest & 0x7f;
    // The second highest bit of the last byte is the sign.
    if (rest >> 6 === 0 || rest >> 6 === -1) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

/** The same of an integer that is not negative. */
function unsigned(value: number): number[] {
  return value < 0x80
    ? [value]
    : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
}

/** An instruction on operands. */
function instruction(...bytes: number[]): (...operands: Code[]) => Code {
  return (...operands) => [...operands.flat(), ...bytes];
}

/** An instruction on vectors. */
function vector(code: number): (...operands: Code[]) => Code {
  return instruction(0xfd, ...unsigned(code));
}

/** Instructions on `i32`. */
export const i32 = {
  add: instruction(0x6a),
  sub: instruction(0x6b),
  constant: (value: number): Code => [0x41, ...signed(value | 0)],
} as const;

/** Instructions on vectors of `i32`. */
export const i32x4 = {
  splat: vector(0x11),
  add: vector(0xae),
  /** Four of the eight lanes of both operands, by index. */
  shuffle: (a: Code, b: Code, lanes: readonly number[]): Code => [
    ...a,
    ...b,
    ...[0xfd, 0x0d],
    ...lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte)),
  ],
} as const;

/** Instructions on vectors of `i64`. */
export const i64x2 = {
  add: vector(0xce),
  sub: vector(0xd1),
  neg: vector(0xc1),
  shiftLeft: (x: Code, bits: number): Code =>
    vector(0xcb)(x, i32.constant(bits)),
  /** Filled with zeros. */
  shiftRight: (x: Code, bits: number): Code =>
    vector(0xcd)(x, i32.constant(bits)),
  /** Whole products of the lower two lanes of unsigned `i32`. */
  multiplyLow: vector(0xde),
  /** The same of the upper two. */
  multiplyHigh: vector(0xdf),
} as const;

/** Instructions on vectors of `f64`. */
export const f64x2 = {
  add: vector(0xf0),
  sub: vector(0xf1),
  mul: vector(0xf2),
  div: vector(0xf3),
  sqrt: vector(0xef),
  nearest: vector(0x94),
  /** The lower two lanes of unsigned `i32` as numbers. */
  fromLow: vector(0xff),
  /** As `f32` in the lower two of four lanes. */
  toSingle: vector(0x5e),
} as const;

/** Instructions on the bits of vectors. */
export const v128 = {
  and: vector(0x4e),
  or: vector(0x50),
  xor: vector(0x51),
  /** Bits of the first where the third has ones, else of the second. */
  select: vector(0x52),
  /** From an address, 16 bytes aligned or not. */
  load: (address: Code, offset = 0): Code => [
    ...address,
    ...[0xfd, 0x00, 0],
    ...unsigned(offset),
  ],
  store: (address: Code, value: Code, offset = 0): Code => [
    ...address,
    ...value,
    ...[0xfd, 0x0b, 0],
    ...unsigned(offset),
  ],
} as const;

/** A variable of a function. */
export class Local {
  readonly #index: number;

  /** @ignore Use `WasmFunction`. */
  constructor(index: number) {
    this.#index = index;
  }

  get(): Code {
    return [0x20, ...unsigned(this.#index)];
  }

  set(value: Code): Code {
    return [...value, 0x21, ...unsigned(this.#index)];
  }
}

/** Repeats instructions until a condition, an `i32`, is 0 after them. */
export function loopWhile(condition: Code, body: readonly Code[]): Code {
  return [0x03, 0x40, ...body.flat(), ...condition, 0x0d, 0, 0x0b];
}

/** A function on parameters of type `i32`, without a result. */
export class WasmFunction {
  readonly name: string;
  readonly parameters: readonly Local[];
  readonly #types: ValueType[] = [];
  #body: Code = [];

  constructor(name: string, parameters: number) {
    this.name = name;
    this.parameters = Array.from(
      { length: parameters },
      (_, i) => new Local(i),
    );
  }

  /** A new variable. */
  local(type: ValueType): Local {
    this.#types.push(type);
    return new Local(this.parameters.length + this.#types.length - 1);
  }

  /** Appends instructions. */
  push(...code: readonly Code[]): void {
    this.#body = [...this.#body, ...code.flat()];
  }

  /** @ignore For wasmModule(). */
  get code(): number[] {
    const locals = this.#types.map((type) => [1, TYPES[type]]);
    return sized([...list(locals), ...this.#body, 0x0b]);
  }
}

/** Bytes after their number. */
function sized(bytes: Code): number[] {
  return [...unsigned(bytes.length), ...bytes];
}

/** Items after their number. */
function list(items: readonly Code[]): number[] {
  return [...unsigned(items.length), ...items.flat()];
}

/**
 * A module that exports functions, and a page (64 KiB) of memory as `memory`.
 *
 * @param data What is in the memory, from its beginning
 */
export function wasmModule(
  functions: readonly WasmFunction[],
  data: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const text = (name: string) => sized([...new TextEncoder().encode(name)]);
  const sections: [number, Code][] = [
    // Types.
    [
      1,
      list(functions.map(({ parameters }) => [
        0x60,
        ...list(parameters.map(() => [TYPES.i32])),
        ...list([]),
      ])),
    ],
    // Functions, each of its own type.
    [3, list(functions.map((_, i) => unsigned(i)))],
    // Memory.
    [5, list([[0, 1]])],
    // Exports.
    [
      7,
      list([
        [...text("memory"), 2, 0],
        ...functions.map(({ name }, i) => [...text(name), 0, ...unsigned(i)]),
      ]),
    ],
    // Code.
    [10, list(functions.map(({ code }) => code))],
    // Data.
    [11, list([[0, ...i32.constant(0), 0x0b, ...sized([...data])]])],
  ];
  const header = [0, ...new TextEncoder().encode("asm"), 1, 0, 0, 0];
  return Uint8Array.from([
    ...header,
    ...sections.flatMap(([id, bytes]) => [id, ...sized(bytes)]),
  ]);
}
