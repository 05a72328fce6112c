/**
 * Reads Python pickles (PEP 307, PEP 3154) without executing them: makes
 * numbers, texts and containers, and records whatever would call something as
 * an {@linkcode Opaque} object. Time and memory are bounded by the bytes read.
 *
 * @module
 */
import { type Fail, quote } from "./elements.ts";

/** Operations of one pickle at most; a checkpoint of 60 layers has 40,000. */
const MAX_OPERATIONS = 2_000_000;
/** Containers, objects and marks of one pickle at most. */
const MAX_OBJECTS = 500_000;
/** Bytes of all its texts together, and of one line of a global's name. */
const MAX_TEXT = 1 << 24, MAX_LINE = 1024;
/** Bytes of an integer. */
const MAX_INTEGER = 1024;

/** A function or class that a pickle names; it is never looked up. */
export class Global {
  /** @param name Module and name, such as "collections.OrderedDict" */
  constructor(readonly name: string) {}
}

/** What a pickle would have made by a call that is not made. */
export class Opaque {
  /** What would restore its attributes: a `Map` as a rule. */
  state: unknown = undefined;
  /** What would be put in it by key, if anything. */
  items: Map<unknown, unknown> | undefined = undefined;

  /**
   * @param name What would be called, such as "numpy.dtype"
   * @param args With which arguments
   */
  constructor(readonly name: string, readonly args: readonly unknown[]) {}
}

/** How `unpickle()` reads. */
export interface UnpickleOptions {
  /** Where the pickle begins, in bytes (default 0). */
  readonly start?: number;
  /** Throws what is wrong. */
  readonly fail: Fail;
  /** The object behind a persistent id; without it there may be none. */
  readonly persistent?: (id: unknown) => unknown;
  /**
   * The value of a call, for those that make plain data; `undefined` leaves
   * the object opaque.
   */
  readonly construct?: (name: string, args: readonly unknown[]) => unknown;
}

/** A value and where its pickle ended. */
export interface Unpickled {
  /**
   * `None` is `null`; integers are numbers, or bigints where those cannot hold
   * them; dictionaries are `Map`s; lists and tuples are arrays, which may
   * contain themselves; else sets, texts, `Uint8Array`s, {@linkcode Global}s
   * and {@linkcode Opaque} objects.
   */
  readonly value: unknown;
  /** Offset behind the pickle, in bytes. */
  readonly end: number;
}

/**
 * Reads one pickle of protocol 2 or later.
 *
 * @param bytes Holds the pickle; byte strings share its memory
 * @param options Where it begins, and what its references mean
 * @throws What `options.fail` throws, if the pickle is damaged or too large
 */
export function unpickle(
  bytes: Uint8Array,
  options: UnpickleOptions,
): Unpickled {
  return new Machine(bytes, options).run();
}

/** The stack machine that a pickle is a program for. */
class Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #options: UnpickleOptions;
  readonly #text = new TextDecoder();
  readonly #memo = new Map<number, unknown>();
  /** Stacks outside the marks that are open, outermost first. */
  readonly #outer: unknown[][] = [];
  #stack: unknown[] = [];
  #at: number;
  #objects = 0;
  #textBytes = 0;

  constructor(bytes: Uint8Array, options: UnpickleOptions) {
    this.#bytes = bytes;
    this.#view = new DataView(
      bytes.buffer,
      bytes.byteOffset,
      bytes.byteLength,
    );
    this.#options = options;
    this.#at = options.start ?? 0;
  }

  run(): Unpickled {
    for (let i = 0; i < MAX_OPERATIONS; i++) {
      const code = this.#bytes[this.#take(1)];
      if (code === STOP) return { value: this.#pop(), end: this.#at };
      this.#execute(code);
    }
    return this.#fail(`it has more than ${MAX_OPERATIONS} operations`);
  }

  #fail(what: string): never {
    return this.#options.fail(`its pickle is damaged: ${what}`);
  }

  #execute(code: number): void {
    switch (code) {
      case 0x80: // PROTO
        if (this.#uint(1) > 5) this.#fail("it is of a later protocol than 5");
        return;
      case 0x95: // FRAME
        this.#take(8);
        return;

      // Constants.
      case 0x4e: // NONE
        return this.#push(null);
      case 0x88: // NEWTRUE
        return this.#push(true);
      case 0x89: // NEWFALSE
        return this.#push(false);
      case 0x4b: // BININT1
        return this.#push(this.#uint(1));
      case 0x4d: // BININT2
        return this.#push(this.#uint(2));
      case 0x4a: // BININT
        return this.#push(this.#view.getInt32(this.#take(4), true));
      case 0x8a: // LONG1
        return this.#push(this.#integer(this.#uint(1)));
      case 0x8b: // LONG4
        return this.#push(this.#integer(this.#uint(4)));
      case 0x49: // INT, which Python 2 writes for more than 32 bits
      case 0x4c: // LONG
        return this.#push(this.#decimal());
      case 0x47: // BINFLOAT
        return this.#push(this.#view.getFloat64(this.#take(8)));
      case 0x46: // FLOAT
        return this.#push(Number(this.#line()));
      case 0x8c: // SHORT_BINUNICODE
      case 0x55: // SHORT_BINSTRING
        return this.#push(this.#string(this.#uint(1)));
      case 0x58: // BINUNICODE
      case 0x54: // BINSTRING
        return this.#push(this.#string(this.#uint(4)));
      case 0x8d: // BINUNICODE8
        return this.#push(this.#string(this.#uint(8)));
      case 0x43: // SHORT_BINBYTES
        return this.#push(this.#raw(this.#uint(1)));
      case 0x42: // BINBYTES
        return this.#push(this.#raw(this.#uint(4)));
      case 0x8e: // BINBYTES8
      case 0x96: // BYTEARRAY8
        return this.#push(this.#raw(this.#uint(8)));

      // The stack and the memo.
      case 0x28: // MARK
        this.#count();
        this.#outer.push(this.#stack);
        this.#stack = [];
        return;
      case 0x30: // POP
        if (this.#stack.length > 0) this.#stack.pop();
        else this.#marked();
        return;
      case 0x31: // POP_MARK
        this.#marked();
        return;
      case 0x32: // DUP
        return this.#push(this.#top());
      case 0x71: // BINPUT
        this.#memo.set(this.#uint(1), this.#top());
        return;
      case 0x72: // LONG_BINPUT
        this.#memo.set(this.#uint(4), this.#top());
        return;
      case 0x94: // MEMOIZE
        this.#memo.set(this.#memo.size, this.#top());
        return;
      case 0x68: // BINGET
        return this.#recall(this.#uint(1));
      case 0x6a: // LONG_BINGET
        return this.#recall(this.#uint(4));

      // Containers.
      case 0x5d: // EMPTY_LIST
        return this.#make([]);
      case 0x29: // EMPTY_TUPLE
        return this.#make([]);
      case 0x7d: // EMPTY_DICT
        return this.#make(new Map());
      case 0x8f: // EMPTY_SET
        return this.#make(new Set());
      case 0x74: // TUPLE
      case 0x6c: // LIST
        return this.#make(this.#marked());
      case 0x85: // TUPLE1
        return this.#make([this.#pop()]);
      case 0x86: { // TUPLE2
        const [b, a] = [this.#pop(), this.#pop()];
        return this.#make([a, b]);
      }
      case 0x87: { // TUPLE3
        const [c, b, a] = [this.#pop(), this.#pop(), this.#pop()];
        return this.#make([a, b, c]);
      }
      case 0x64: { // DICT
        const map = new Map<unknown, unknown>();
        this.#setItems(map, this.#marked());
        return this.#make(map);
      }
      case 0x91: // FROZENSET
        return this.#make(new Set(this.#marked()));
      case 0x61: { // APPEND
        const item = this.#pop();
        return this.#append(this.#top(), [item]);
      }
      case 0x65: // APPENDS
      case 0x90: { // ADDITEMS
        const items = this.#marked();
        return this.#append(this.#top(), items);
      }
      case 0x73: { // SETITEM
        const [value, key] = [this.#pop(), this.#pop()];
        return this.#setItems(this.#top(), [key, value]);
      }
      case 0x75: { // SETITEMS
        const items = this.#marked();
        return this.#setItems(this.#top(), items);
      }

      // Calls, of which none is made.
      case 0x63: { // GLOBAL
        const [module, name] = [this.#line(), this.#line()];
        return this.#make(new Global(`${module}.${name}`));
      }
      case 0x93: { // STACK_GLOBAL
        const [name, module] = [this.#pop(), this.#pop()];
        if (typeof name !== "string" || typeof module !== "string") {
          return this.#fail("the name of a global is no text");
        }
        // Joined again and again, one long text could fill the memory.
        if (module.length + name.length > MAX_LINE) {
          this.#fail(`the name of a global has more than ${MAX_LINE} letters`);
        }
        return this.#make(new Global(`${module}.${name}`));
      }
      case 0x52: // REDUCE
      case 0x81: { // NEWOBJ
        const [args, callee] = [this.#pop(), this.#pop()];
        return this.#call(callee, args);
      }
      case 0x92: { // NEWOBJ_EX
        const [_named, args] = [this.#pop(), this.#pop()];
        return this.#call(this.#pop(), args);
      }
      case 0x6f: { // OBJ
        const [callee, ...args] = this.#marked();
        return this.#call(callee, args);
      }
      case 0x69: { // INST
        const [module, name] = [this.#line(), this.#line()];
        return this.#call(new Global(`${module}.${name}`), this.#marked());
      }
      case 0x62: { // BUILD
        const state = this.#pop();
        const object = this.#top();
        if (object instanceof Opaque) object.state = state;
        return;
      }
      case 0x51: { // BINPERSID
        const { persistent } = this.#options;
        if (!persistent) this.#fail("it refers to objects outside itself");
        this.#count();
        return this.#push(persistent!(this.#pop()));
      }
      default: {
        const hex = code.toString(16).padStart(2, "0");
        this.#fail(`byte ${this.#at - 1} is 0x${hex}, which is no operation`);
      }
    }
  }

  /** Moves on by some bytes; returns where they begin. */
  #take(length: number): number {
    const start = this.#at;
    if (length > this.#bytes.length - start) {
      this.#options.fail("it ends within its pickle: the file is truncated");
    }
    this.#at += length;
    return start;
  }

  #uint(length: 1 | 2 | 4 | 8): number {
    const at = this.#take(length);
    if (length === 1) return this.#view.getUint8(at);
    if (length === 2) return this.#view.getUint16(at, true);
    if (length === 4) return this.#view.getUint32(at, true);
    return Number(this.#view.getBigUint64(at, true));
  }

  #raw(length: number): Uint8Array {
    this.#count();
    const start = this.#take(length);
    return this.#bytes.subarray(start, start + length);
  }

  #string(length: number): string {
    this.#textBytes += length;
    if (this.#textBytes > MAX_TEXT) {
      this.#fail(`its texts have more than ${MAX_TEXT} bytes`);
    }
    const start = this.#take(length);
    return this.#text.decode(this.#bytes.subarray(start, start + length));
  }

  #line(): string {
    const rest = this.#bytes.subarray(this.#at, this.#at + MAX_LINE);
    const length = rest.indexOf(0x0a);
    if (length < 0) {
      if (rest.length < MAX_LINE) this.#take(MAX_LINE);
      this.#fail(`a line has more than ${MAX_LINE} bytes`);
    }
    const line = this.#string(length);
    this.#take(1);
    return line;
  }

  #decimal(): number | bigint | boolean {
    const line = this.#line().replace(/L$/, "");
    if (line === "00" || line === "01") return line === "01";
    if (!/^-?\d+$/.test(line)) this.#fail(`${quote(line)} is no integer`);
    return narrowed(BigInt(line));
  }

  /** Little-endian two's complement of any length. */
  #integer(length: number): number | bigint {
    if (length > MAX_INTEGER) this.#fail(`an integer has ${length} bytes`);
    const raw = this.#raw(length);
    if (length === 0) return 0;
    const digits = raw.toReversed().reduce(
      (text, byte) => text + byte.toString(16).padStart(2, "0"),
      "0x",
    );
    return narrowed(BigInt.asIntN(8 * length, BigInt(digits)));
  }

  #count(): void {
    if (++this.#objects > MAX_OBJECTS) {
      this.#fail(`it makes more than ${MAX_OBJECTS} objects`);
    }
  }

  #push(value: unknown): void {
    this.#stack.push(value);
  }

  #make(value: object): void {
    this.#count();
    this.#stack.push(value);
  }

  #top(): unknown {
    if (this.#stack.length === 0) this.#fail("its stack runs empty");
    return this.#stack.at(-1);
  }

  #pop(): unknown {
    const value = this.#top();
    this.#stack.length--;
    return value;
  }

  /** Closes the last mark: what was pushed since. */
  #marked(): unknown[] {
    const items = this.#stack;
    const outer = this.#outer.pop();
    if (!outer) return this.#fail("its marks do not match");
    this.#stack = outer;
    return items;
  }

  #recall(index: number): void {
    if (!this.#memo.has(index)) {
      this.#fail(`it recalls value ${index} before there is one`);
    }
    this.#stack.push(this.#memo.get(index));
  }

  #append(target: unknown, items: readonly unknown[]): void {
    if (Array.isArray(target)) { for (const item of items) target.push(item); }
    else if (target instanceof Set) {
      for (const item of items) target.add(item);
    } else if (!(target instanceof Opaque)) {
      this.#fail("it appends to what is no list");
    }
  }

  #setItems(target: unknown, items: readonly unknown[]): void {
    if (items.length % 2 !== 0) this.#fail("a key lacks its value");
    const map = target instanceof Opaque
      ? target.items ??= new Map<unknown, unknown>()
      : target;
    if (!(map instanceof Map)) {
      return this.#fail("it sets items of what is no dictionary");
    }
    for (let i = 0; i < items.length; i += 2) map.set(items[i], items[i + 1]);
  }

  #call(callee: unknown, args: unknown): void {
    if (!Array.isArray(args)) {
      this.#fail("the arguments of a call are no tuple");
    }
    // What a call would return may be called as well.
    const known = callee instanceof Global || callee instanceof Opaque;
    if (!known) return this.#fail("it calls what is no function");
    const list = args as readonly unknown[];
    const value = callee instanceof Global
      ? this.#options.construct?.(callee.name, list)
      : undefined;
    this.#count();
    this.#stack.push(
      value === undefined ? new Opaque(callee.name, list) : value,
    );
  }
}

const STOP = 0x2e;

/** A number where one can hold the integer. */
function narrowed(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
