/**
 * Flags of scripts: one table gives types, checks, aliases and `--help`.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";

interface FlagBase {
  /** One line for `--help`, lower case, no full stop. */
  readonly help: string;
  /** Whether leaving the flag out is an error. */
  readonly required?: boolean;
  /** Other long names, without the dashes: `"eps"`, `"attack-lr"`. */
  readonly aliases?: readonly string[];
  /** Whether the flag may be repeated; its value is then an array. */
  readonly multiple?: true;
}

/** A flag holding text; a `path` may not be empty. */
export interface TextFlag extends FlagBase {
  readonly type: "string" | "path";
  readonly default?: string | readonly string[];
}

/** A flag holding a finite number. */
export interface NumberFlag extends FlagBase {
  readonly type: "number" | "integer";
  readonly default?: number | readonly number[];
  /** Least value allowed. */
  readonly min?: number;
  /** Greatest value allowed. */
  readonly max?: number;
  /** Strict lower bound. */
  readonly above?: number;
  /** Strict upper bound. */
  readonly below?: number;
}

/** A flag without a value: `--name`, or `--no-name`. */
export interface BooleanFlag extends FlagBase {
  readonly type: "boolean";
  readonly default?: boolean;
  readonly multiple?: never;
}

/** A flag holding one of a few words. */
export interface ChoiceFlag extends FlagBase {
  readonly type: "choice";
  readonly choices: readonly string[];
  readonly default?: string | readonly string[];
}

/** One flag of a script. */
export type Flag = TextFlag | NumberFlag | BooleanFlag | ChoiceFlag;

/** The flags of a script: `attackSteps` is given as `--attack-steps`. */
export type FlagTable = Readonly<Record<string, Flag>>;

/** Arguments that are not flags, for example image files. */
export interface Positional {
  /** Shown in the usage line as `<name>`. */
  readonly name: string;
  readonly help: string;
  /** Least number of them, default 0. */
  readonly min?: number;
  /** Greatest number of them, default unlimited. */
  readonly max?: number;
}

/** What a script takes besides flags. */
export interface ScriptOptions {
  /** Shown by `--help` when the module comment cannot be read. */
  readonly summary?: string;
  /** Without it arguments other than flags are refused. */
  readonly positional?: Positional;
}

type FlagValue<F extends Flag> = F extends { type: "number" | "integer" }
  ? number
  : F extends { type: "boolean" } ? boolean
  : F extends ChoiceFlag ? F["choices"][number]
  : string;

/** Values of a flag table; a flag may lack one if it has no default. */
export type ParsedFlags<F extends FlagTable> =
  & {
    -readonly [K in keyof F]: F[K] extends { multiple: true }
      ? FlagValue<F[K]>[]
      : F[K] extends { type: "boolean" } ? boolean
      : F[K] extends { default: unknown } | { required: true } ? FlagValue<F[K]>
      : FlagValue<F[K]> | undefined;
  }
  & { _: string[] };

/** A mistake in the command line; scripts exit with code 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Flags {@linkcode runScript} itself understands and adds to every table. */
export const SCRIPT_FLAGS = {
  quiet: { type: "boolean", help: "print no progress and no notes" },
  debug: { type: "boolean", help: "print stack traces" },
  help: { type: "boolean", help: "print this text" },
} as const satisfies FlagTable;

/** Flags of every experiment, to spread last into its table. */
export const COMMON_FLAGS = {
  seed: { type: "integer", default: 0, min: 0, help: "random seed" },
  device: {
    type: "choice",
    choices: ["auto", "cpu", "webgpu", "cuda"],
    default: "auto",
    help: "where to compute",
  },
  threads: {
    type: "integer",
    min: 1,
    max: 1024,
    help: "CPU threads; all cores if not given",
  },
  json: { type: "path", help: "also write the Run's JSON here" },
  ...SCRIPT_FLAGS,
} as const satisfies FlagTable;

/**
 * Reads command line arguments into typed values. A repeated flag keeps its
 * last value unless it is `multiple`.
 *
 * @param args Arguments, for example `Deno.args`
 * @param flags The flags there are
 * @returns A value per flag, and the positionals in `_`
 * @throws {UsageError} If an argument is unknown, missing or out of range
 * @throws {TypeError} If two flags of the table share a name
 */
export function parseFlags<const F extends FlagTable>(
  args: readonly string[],
  flags: F,
  options: ScriptOptions = {},
): ParsedFlags<F> {
  const names = nameFlags(flags);
  const entries = Object.entries<Flag>(flags);
  const namesOf = (wanted: (flag: Flag) => boolean) =>
    entries.filter(([, flag]) => wanted(flag)).map(([key]) => kebab(key));

  const raw: Readonly<Record<string, unknown>> & { _: (string | number)[] } =
    parseArgs(joinValues(args, names), {
      string: ["_", ...namesOf((flag) => flag.type !== "boolean")],
      boolean: namesOf((flag) => flag.type === "boolean"),
      negatable: entries.filter(([, flag]) => flag.type === "boolean")
        .flatMap(([key, flag]) => [kebab(key), ...flag.aliases ?? []]),
      collect: namesOf((flag) => flag.multiple === true),
      alias: Object.fromEntries(
        entries.filter(([, flag]) => flag.aliases?.length)
          .map(([key, flag]) => [kebab(key), flag.aliases!]),
      ),
      default: Object.fromEntries(
        entries.filter(([, flag]) => flag.type === "boolean")
          .map(([key, flag]) => [kebab(key), flag.default ?? false]),
      ),
    });

  const positionals = raw._.map(String);
  checkPositionals(positionals, options.positional);
  const values: Record<string, unknown> = { _: positionals };
  for (const [key, flag] of entries) {
    values[key] = readFlag(`--${kebab(key)}`, flag, raw[kebab(key)]);
  }
  return values as ParsedFlags<F>;
}

/**
 * Keys of the flags that arguments set, as opposed to their defaults.
 *
 * @param args Arguments that `parseFlags()` accepts
 */
export function givenFlags(
  args: readonly string[],
  flags: FlagTable,
): Set<string> {
  const keys = new Map(
    Object.entries(flags).flatMap(([key, flag]) =>
      [kebab(key), ...flag.aliases ?? []].map((name) => [name, key])
    ),
  );
  return new Set(
    beforeDashes(args).flatMap((arg) => {
      const name = arg.replace(/^--/, "").replace(/=.*$/s, "");
      const key = keys.get(name) ?? keys.get(name.replace(/^no-/, ""));
      return arg.startsWith("--") && key ? [key] : [];
    }),
  );
}

/**
 * The text `--help` prints: module comment, usage line, flags.
 *
 * @param moduleUrl The script's `import.meta.url`; its first doc comment is read
 * @param flags The script's flags
 */
export function help(
  moduleUrl: string,
  flags: FlagTable,
  options: ScriptOptions = {},
): string {
  const { positional } = options;
  const script = new URL(moduleUrl).pathname.split("/").slice(-2).join("/");
  const usage = ["Usage:", "deno run", decodeURIComponent(script), "[flags]"];
  if (positional) {
    const many = (positional.max ?? Infinity) > 1 ? "..." : "";
    const name = `<${positional.name}>${many}`;
    usage.push((positional.min ?? 0) > 0 ? name : `[${name}]`);
  }
  const rows: [string, string][] = Object.entries(flags).map(
    ([key, flag]) => [showFlag(key, flag), describeFlag(key, flag)],
  );
  const summary = readModuleComment(moduleUrl) ?? options.summary;
  const parts = [usage.join(" "), `Flags:\n${formatRows(rows)}`];
  if (summary) parts.unshift(summary);
  if (positional) {
    parts.push(
      `Arguments:\n${formatRows([[`<${positional.name}>`, positional.help]])}`,
    );
  }
  return parts.join("\n\n");
}

/** Every name of every flag, without dashes -> the flag. */
function nameFlags(flags: FlagTable): ReadonlyMap<string, Flag> {
  const names = new Map<string, Flag>();
  for (const [key, flag] of Object.entries(flags)) {
    for (const name of [kebab(key), ...flag.aliases ?? []]) {
      if (names.has(name) || name === "_") {
        throw new TypeError(`Cannot name two flags --${name}: rename one`);
      }
      names.set(name, flag);
    }
  }
  return names;
}

/** `attackSteps` as the command line writes it: `attack-steps`. */
export function kebab(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** Arguments up to `--`. */
export function beforeDashes(args: readonly string[]): readonly string[] {
  const end = args.indexOf("--");
  return end < 0 ? args : args.slice(0, end);
}

/**
 * Rewrites `--name value` as `--name=value` and refuses what is no flag:
 * `parseArgs` would take `--epsilon -1` for two flags and read a missing value
 * as an empty string.
 */
function joinValues(
  args: readonly string[],
  names: ReadonlyMap<string, Flag>,
): string[] {
  const head = beforeDashes(args);
  const joined: string[] = [];
  for (let i = 0; i < head.length; i++) {
    const arg = head[i];
    if (!arg.startsWith("-") || arg === "-") {
      joined.push(arg);
      continue;
    }
    const equals = arg.indexOf("=");
    const shown = equals < 0 ? arg : arg.slice(0, equals);
    const name = shown === "-h" ? "help" : shown.slice(2);
    const positive = name.startsWith("no-") ? names.get(name.slice(3)) : null;
    const flag = shown.startsWith("--") || shown === "-h"
      ? names.get(name)
      : undefined;
    if (!flag && positive?.type !== "boolean") {
      const near = nearest(shown.replace(/^-+/, ""), [...names.keys()]);
      throw new UsageError(
        `Unknown flag ${shown}: ${
          near ? `did you mean --${near}?` : "pass --help to list the flags"
        }`,
      );
    }
    if (!flag || flag.type === "boolean") {
      if (equals >= 0) {
        throw new UsageError(
          `${shown} takes no value: pass ${shown} alone, not ${arg}`,
        );
      }
      // An explicit value keeps parseArgs from taking "true" after it.
      joined.push(flag ? `--${name}=true` : arg);
    } else if (equals >= 0) {
      joined.push(arg);
    } else {
      const next = head[i + 1];
      if (next === undefined || looksLikeFlag(next)) {
        throw new UsageError(
          `${shown} needs a value: pass ${shown} ${wantedValue(flag)}`,
        );
      }
      joined.push(`${arg}=${next}`);
      i++;
    }
  }
  return [...joined, ...args.slice(head.length)];
}

function looksLikeFlag(arg: string): boolean {
  return arg.startsWith("-") && arg !== "-" &&
    !/^-(?:\.?\d|inf|nan)/i.test(arg);
}

function checkPositionals(
  values: readonly string[],
  positional: Positional | undefined,
): void {
  if (!positional) {
    if (values.length > 0) {
      throw new UsageError(
        `Unexpected argument "${values[0]}": this script takes flags only`,
      );
    }
    return;
  }
  const { name, min = 0, max = Infinity } = positional;
  if (values.length < min) {
    throw new UsageError(
      `Missing argument <${name}>, ${positional.help}: ${values.length} given, at least ${min} needed`,
    );
  }
  if (values.length > max) {
    throw new UsageError(
      `Unexpected argument "${
        values[max]
      }": ${values.length} given, at most ${max} <${name}> allowed`,
    );
  }
}

function readFlag(name: string, flag: Flag, raw: unknown): unknown {
  if (flag.type === "boolean") return raw;
  const texts = raw === undefined ? [] : Array.isArray(raw) ? raw : [raw];
  if (texts.length === 0) {
    if (flag.default !== undefined) {
      return Array.isArray(flag.default) ? [...flag.default] : flag.default;
    }
    if (flag.required) {
      throw new UsageError(
        `Missing flag ${name}, ${flag.help}: pass ${name} ${wantedValue(flag)}`,
      );
    }
    return flag.multiple ? [] : undefined;
  }
  const values = texts.map((text) => readValue(name, flag, String(text)));
  return flag.multiple ? values : values[0];
}

function readValue(
  name: string,
  flag: TextFlag | NumberFlag | ChoiceFlag,
  text: string,
): string | number {
  switch (flag.type) {
    case "string":
      return text;
    case "path":
      if (text.trim() === "") {
        throw new UsageError(`${name} must be a path: current value is empty`);
      }
      return text;
    case "choice": {
      if (flag.choices.includes(text)) return text;
      const near = nearest(text, flag.choices);
      throw new UsageError(
        `${name} must be ${orList(flag.choices)}: current value is "${text}"${
          near ? `; did you mean ${near}?` : ""
        }`,
      );
    }
    default:
      return readNumber(name, flag, text);
  }
}

function readNumber(name: string, flag: NumberFlag, text: string): number {
  const digits = text.trim().replace(/(?<=\d)_(?=\d)/g, "");
  const kind = flag.type === "integer" ? "an integer" : "a number";
  if (!/^[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?$/i.test(digits)) {
    throw new UsageError(`${name} must be ${kind}: current value is "${text}"`);
  }
  const value = Number(digits);
  const fits = flag.type === "integer"
    ? Number.isSafeInteger(value)
    : Number.isFinite(value);
  if (!fits) {
    const problem = Number.isInteger(value) || !Number.isFinite(value)
      ? `${kind} that a double can hold`
      : kind;
    throw new UsageError(
      `${name} must be ${problem}: current value is ${text}`,
    );
  }
  const { above, below, min, max } = flag;
  const wanted = above !== undefined && !(value > above)
    ? `> ${above}`
    : min !== undefined && value < min
    ? `>= ${min}`
    : max !== undefined && value > max
    ? `<= ${max}`
    : below !== undefined && !(value < below)
    ? `< ${below}`
    : undefined;
  if (wanted) {
    throw new UsageError(`${name} must be ${wanted}: current value is ${text}`);
  }
  return value;
}

function orList(words: readonly string[]): string {
  return words.length < 2
    ? words.join("")
    : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

/**
 * The word fewest edits away, if it is near enough to be a typo, else the one
 * that begins with what was given.
 */
function nearest(word: string, words: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of words) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  if (best !== undefined || word.length < 3) return best;
  const longer = words.filter((candidate) => candidate.startsWith(word));
  return longer.length === 1 ? longer[0] : undefined;
}

/** Levenshtein distance; swapping two neighbours counts as one edit, too. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      const isSwap = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swap = i > 1 && j > 1 && isSwap ? before[j - 2] + 1 : Infinity;
      next.push(Math.min(change, swap, row[j] + 1, next[j - 1] + 1));
    }
    [before, row] = [row, next];
  }
  return row[b.length];
}

// Help.

function valueName(flag: Flag): string {
  if (flag.type !== "choice") return `<${flag.type}>`;
  const choices = flag.choices.join("|");
  return choices.length <= 20 ? `<${choices}>` : "<name>";
}

/** What to pass, for errors, where there is room for every choice. */
function wantedValue(flag: Flag): string {
  return flag.type === "choice" ? orList(flag.choices) : valueName(flag);
}

function showFlag(key: string, flag: Flag): string {
  if (flag.type !== "boolean") return `--${kebab(key)} ${valueName(flag)}`;
  return flag.default ? `--[no-]${kebab(key)}` : `--${kebab(key)}`;
}

function describeFlag(key: string, flag: Flag): string {
  const facts: string[] = [];
  if (flag.type === "choice" && valueName(flag) === "<name>") {
    facts.push(orList(flag.choices));
  }
  if (flag.required) facts.push("required");
  if (flag.default !== undefined) {
    const value = flag.type === "boolean"
      ? `--${flag.default ? "" : "no-"}${kebab(key)}`
      : [flag.default].flat().join(", ");
    facts.push(`default ${value === "" ? '""' : value}`);
  }
  if (flag.type === "number" || flag.type === "integer") {
    if (flag.above !== undefined) facts.push(`> ${flag.above}`);
    if (flag.min !== undefined) facts.push(`>= ${flag.min}`);
    if (flag.max !== undefined) facts.push(`<= ${flag.max}`);
    if (flag.below !== undefined) facts.push(`< ${flag.below}`);
  }
  if (flag.multiple) facts.push("may be repeated");
  if (flag.aliases?.length) {
    facts.push(`also ${flag.aliases.map((name) => `--${name}`).join(", ")}`);
  }
  return flag.help + (facts.length > 0 ? ` (${facts.join("; ")})` : "");
}

function formatRows(rows: readonly [string, string][]): string {
  const longest = Math.max(...rows.map(([left]) => left.length));
  const column = Math.min(longest, 31) + 4;
  return rows.map(([left, right]) => {
    const lines = wrap(right, 80 - column);
    const first = `  ${left}`;
    const fits = first.length + 2 <= column;
    if (fits) lines[0] = first.padEnd(column) + lines[0];
    else lines.unshift(first);
    return lines.map((line, i) => i === 0 ? line : " ".repeat(column) + line)
      .join("\n");
  }).join("\n");
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + 1 + word.length <= width) {
      lines[lines.length - 1] = `${line} ${word}`;
    } else lines.push(word);
  }
  return lines;
}

/** The first doc comment of a module without its stars and `@module`. */
function readModuleComment(moduleUrl: string): string | undefined {
  let source: string;
  try {
    source = Deno.readTextFileSync(new URL(moduleUrl));
  } catch {
    // Without read permission the flags alone still help.
    return undefined;
  }
  const comment = source.match(/\/\*\*([\s\S]*?)\*\//)?.[1];
  return comment?.split(/\r?\n/)
    .map((line) => line.replace(/^\s*\* ?/, ""))
    .map((line) => line.replace(/@module\b.*/, "").trimEnd())
    .join("\n").trim() || undefined;
}
