/**
 * Stand-in for `@std/cli/parse-args` 1.0, which is published on JSR only:
 * upstream names and semantics for the options this project uses.
 *
 * Project code imports `"@std/cli/parse-args"`; `deno.json` resolves that name
 * here and `deno.jsr.json` to the package itself.
 *
 * @module
 */

/** How {@linkcode parseArgs} reads its arguments. */
export interface ParseOptions<
  S extends string = string,
  B extends string = string,
  C extends string = string,
  D extends Record<string, unknown> = Record<string, unknown>,
  DD extends boolean = boolean,
> {
  /** Flags whose value stays a string; `"_"` means the positionals. */
  readonly string?: S | readonly S[];
  /** Flags that take no value; `true` means every `--flag` without `=`. */
  readonly boolean?: boolean | B | readonly B[];
  /** Flags that gather every value given into an array, `[]` if none. */
  readonly collect?: C | readonly C[];
  /** Flags `x` that `--no-x` sets to false. */
  readonly negatable?: string | readonly string[];
  /** Other names of a flag; the result holds the value under every name. */
  readonly alias?: Readonly<Record<string, string | readonly string[]>>;
  /** Values of flags that are not given. */
  readonly default?: D;
  /** Whether everything after the first positional is positional. */
  readonly stopEarly?: boolean;
  /** Whether what follows `--` goes to `result["--"]` instead of `result._`. */
  readonly "--"?: DD;
  /** Called with what no option names; `false` leaves the argument out. */
  readonly unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** What {@linkcode parseArgs} returns. */
export type Args<
  S extends string,
  B extends string,
  C extends string,
  D extends Record<string, unknown>,
  DD extends boolean,
> =
  & { _: (string | number)[] }
  & {
    [K in Exclude<S, "_">]: K extends C ? string[]
      : K extends keyof D ? string | Exclude<D[K], string>
      : string | undefined;
  }
  & {
    [K in B]: K extends C ? boolean[]
      : K extends keyof D ? boolean | Exclude<D[K], boolean>
      : boolean;
  }
  & { [K in Exclude<C, S | B>]: unknown[] }
  & { [K in Exclude<keyof D, S | B | C>]: unknown }
  & (DD extends true ? { "--": string[] } : unknown)
  & ([S | B | C] extends [never] ? Record<string, unknown> : unknown);

type Values = Record<string, unknown>;

/**
 * Reads command line arguments into an object: `--name value`, `--name=value`,
 * `-n value`, groups of short flags, and positionals in `_`. A flag named by no
 * option becomes a number if its value looks like one, true if it has none.
 *
 * A repeated flag keeps its last value unless it is collected, and `--no-x`
 * negates only a negatable `x`.
 *
 * @param args Arguments, for example `Deno.args`
 * @param options What the flags are
 * @returns The flags by name, and the positionals
 */
export function parseArgs<
  const S extends string = never,
  const B extends string = never,
  const C extends string = never,
  const D extends Record<string, unknown> = Record<never, unknown>,
  const DD extends boolean = false,
>(
  args: readonly string[],
  options: ParseOptions<S, B, C, D, DD> = {},
): Args<S, B, C, D, DD> {
  const reader = new Reader(options);
  const end = args.indexOf("--");
  const head = end < 0 ? args : args.slice(0, end);
  const tail = end < 0 ? [] : args.slice(end + 1);
  reader.read(head);
  reader.fill();
  const values: Values = reader.values;
  if (options["--"]) values["--"] = [...tail];
  else for (const arg of tail) reader.addPositional(arg);
  return values as Args<S, B, C, D, DD>;
}

const NUMBER = /^[-+]?(?:0x[0-9a-f]+|(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)$/i;

class Reader {
  readonly values: Values & { _: (string | number)[] } = { _: [] };
  readonly #options: ParseOptions;
  readonly #strings: ReadonlySet<string>;
  readonly #booleans: ReadonlySet<string>;
  readonly #collected: ReadonlySet<string>;
  readonly #negatable: ReadonlySet<string>;
  /** Every name of a flag that has several -> all of them. */
  readonly #names = new Map<string, readonly string[]>();

  constructor(options: ParseOptions) {
    this.#options = options;
    for (const [key, value] of Object.entries(options.alias ?? {})) {
      const names = [key, ...list(value)];
      for (const name of names) this.#names.set(name, names);
    }
    const withAliases = (keys: Iterable<string>) =>
      new Set([...keys].flatMap((key) => this.#namesOf(key)));
    this.#strings = withAliases(list(options.string));
    this.#booleans = withAliases(
      typeof options.boolean === "boolean" ? [] : list(options.boolean),
    );
    this.#collected = withAliases(list(options.collect));
    this.#negatable = withAliases(list(options.negatable));
  }

  read(args: readonly string[]): void {
    for (let i = 0; i < args.length; i++) {
      const arg = args[i];
      const next = args[i + 1];
      if (arg.startsWith("--")) {
        if (this.#readLong(arg, next)) i++;
      } else if (arg.startsWith("-") && arg !== "-") {
        if (this.#readShort(arg, next)) i++;
      } else {
        this.addPositional(arg, { ask: true });
        if (this.#options.stopEarly) {
          for (const rest of args.slice(i + 1)) this.addPositional(rest);
          return;
        }
      }
    }
  }

  /** Sets what was not given: defaults, false, empty collections. */
  fill(): void {
    const defaults = this.#options.default ?? {};
    const set = (keys: Iterable<string>, value: (key: string) => unknown) => {
      for (const key of keys) {
        for (const name of this.#namesOf(key)) {
          const [holder, last] = this.#locate(name);
          if (!Object.hasOwn(holder, last)) define(holder, last, value(key));
        }
      }
    };
    set(Object.keys(defaults), (key) => defaults[key]);
    set(this.#collected, () => []);
    set(this.#booleans, () => false);
  }

  addPositional(arg: string, { ask = false } = {}): void {
    if (ask && this.#options.unknown?.(arg) === false) return;
    const keep = this.#strings.has("_") || !NUMBER.test(arg);
    this.values._.push(keep ? arg : Number(arg));
  }

  /** @returns Whether `next` was read as the value */
  #readLong(arg: string, next: string | undefined): boolean {
    const equals = arg.indexOf("=");
    const key = arg.slice(2, equals < 0 ? undefined : equals);
    if (equals >= 0) {
      const text = arg.slice(equals + 1);
      this.#set(key, this.#takesNoValue(key) ? text !== "false" : text, arg);
      return false;
    }
    if (key.startsWith("no-") && this.#negatable.has(key.slice(3))) {
      this.#set(key.slice(3), false, arg);
      return false;
    }
    return this.#readValue(key, next, arg, this.#options.boolean === true);
  }

  /** @returns Whether `next` was read as the value */
  #readShort(arg: string, next: string | undefined): boolean {
    const letters = arg.slice(1);
    for (let j = 0; j < letters.length - 1; j++) {
      const letter = letters[j];
      const rest = letters.slice(j + 1);
      if (rest.startsWith("=")) {
        this.#set(letter, rest.slice(1), arg);
        return false;
      }
      if (/[A-Za-z]/.test(letter) && NUMBER.test(rest)) {
        this.#set(letter, rest, arg);
        return false;
      }
      if (/^\W/.test(rest)) {
        this.#set(letter, rest, arg);
        return false;
      }
      this.#set(letter, this.#strings.has(letter) ? "" : true, arg);
    }
    return this.#readValue(letters.at(-1)!, next, arg, false);
  }

  #readValue(
    key: string,
    next: string | undefined,
    arg: string,
    noValue: boolean,
  ): boolean {
    if (next !== undefined) {
      if (this.#takesNoValue(key) || noValue) {
        if (next === "true" || next === "false") {
          this.#set(key, next === "true", arg);
          return true;
        }
      } else if (!next.startsWith("-")) {
        this.#set(key, next, arg);
        return true;
      }
    }
    this.#set(key, this.#strings.has(key) ? "" : true, arg);
    return false;
  }

  #set(key: string, raw: string | boolean, arg: string): void {
    const { unknown } = this.#options;
    if (
      unknown && !this.#isNamed(key, arg) && unknown(arg, key, raw) === false
    ) {
      return;
    }
    const isNumber = typeof raw === "string" && !this.#strings.has(key) &&
      NUMBER.test(raw);
    const value = isNumber ? Number(raw) : raw;
    for (const name of this.#namesOf(key)) {
      const [holder, last] = this.#locate(name);
      if (!this.#collected.has(key)) define(holder, last, value);
      else if (Object.hasOwn(holder, last)) {
        (holder[last] as unknown[]).push(value);
      } else define(holder, last, [value]);
    }
  }

  /** The object that holds `key`, dots in which mean objects inside. */
  #locate(key: string): [holder: Values, last: string] {
    const path = key.split(".");
    const last = path.pop()!;
    let holder: Values = this.values;
    for (const part of path) {
      const inner = Object.hasOwn(holder, part) ? holder[part] : undefined;
      if (typeof inner === "object" && inner !== null) {
        holder = inner as Values;
      } else {
        const created: Values = {};
        define(holder, part, created);
        holder = created;
      }
    }
    return [holder, last];
  }

  #namesOf(key: string): readonly string[] {
    return this.#names.get(key) ?? [key];
  }

  #takesNoValue(key: string): boolean {
    return this.#booleans.has(key);
  }

  #isNamed(key: string, arg: string): boolean {
    return this.#strings.has(key) || this.#booleans.has(key) ||
      this.#names.has(key) ||
      (this.#options.boolean === true && /^--[^=]+$/.test(arg));
  }
}

/** Sets an own property, `__proto__` included. */
function define(holder: Values, key: string, value: unknown): void {
  Object.defineProperty(holder, key, {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  });
}

function list(value: string | readonly string[] | undefined) {
  return value === undefined ? [] : typeof value === "string" ? [value] : value;
}
