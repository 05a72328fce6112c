/**
 * JSON values, and rules that records read from JSON are checked by.
 *
 * @module
 */

/** A JSON value. */
export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | JsonObject;

/** A JSON object. */
export type JsonObject = { readonly [key: string]: Json };

/**
 * Checks a value read from JSON.
 *
 * @param value The value; `undefined` where a key is missing
 * @param path Names the value in the problem, such as "the card's epoch"
 * @returns What is wrong, as part of a sentence, or `null`
 */
export type Rule = (value: unknown, path: string) => string | null;

/** Makes a rule of a test and the words for what passes it. */
export function rule(
  passes: (value: unknown) => boolean,
  wanted: string,
): Rule {
  return (value, path) => {
    if (passes(value)) return null;
    if (value === undefined) return `${path} is missing; it must be ${wanted}`;
    return `${path} must be ${wanted} and is ${excerpt(value)}`;
  };
}

/** Accepts a missing value. */
export function optional(inner: Rule): Rule {
  return (value, path) => value === undefined ? null : inner(value, path);
}

/** Accepts `null`. */
export function nullable(inner: Rule): Rule {
  return (value, path) => value === null ? null : inner(value, path);
}

/** Accepts a list whose items follow a rule. */
export function listOf(inner: Rule, wanted: string): Rule {
  const isList = rule(Array.isArray, wanted);
  return (value, path) =>
    isList(value, path) ??
      firstProblem(
        value as unknown[],
        (item, i) => inner(item, `${path}[${i}]`),
      );
}

/** Accepts an object with any keys whose values follow a rule. */
export function mapOf(inner: Rule, wanted: string): Rule {
  return (value, path) =>
    object(wanted)(value, path) ??
      firstProblem(
        Object.entries(value as object),
        ([key, item]) => inner(item, `${path}[${JSON.stringify(key)}]`),
      );
}

/** Accepts an object whose values follow the rule of their key. */
export function checkRecord(rules: Readonly<Record<string, Rule>>): Rule {
  return (value, path) =>
    object("an object")(value, path) ??
      firstProblem(Object.entries(rules), ([key, inner]) => {
        const own = Object.hasOwn(value as object, key);
        const item = own ? (value as Record<string, unknown>)[key] : undefined;
        return inner(item, `${path}'s ${key}`);
      });
}

/** Refuses records of later versions before their keys can puzzle anyone. */
export function checkVersion(
  value: unknown,
  path: string,
  known: number,
): string | null {
  const found = checkRecord({ schemaVersion: count })(value, path);
  if (found) return found;
  const { schemaVersion } = value as { schemaVersion: number };
  return schemaVersion <= known ? null : `${path} has schema version ` +
    `${schemaVersion} and this code reads up to ${known}; update robust-reps`;
}

/**
 * Reading and writing one kind of record as indented JSON.
 *
 * @param name Names the record in errors, such as "run"
 * @param path Names it in problems, such as "the run"
 * @param known Latest schema version there is
 * @param inner Rule of its keys
 * @returns `parse()` throws {SyntaxError} and `format()` {TypeError} if the
 * record does not follow the rule
 */
export function jsonRecord<T>(
  name: string,
  path: string,
  known: number,
  inner: Rule,
): {
  parse(json: string, source: string): T;
  format(value: T): string;
} {
  const check = (value: unknown) =>
    checkVersion(value, path, known) ?? inner(value, path);
  return {
    parse(json, source) {
      const problem = (what: string) =>
        new SyntaxError(`Cannot read ${name} "${source}": ${what}`);
      if (json.trim() === "") throw problem("the file is empty");
      let value: unknown;
      try {
        value = JSON.parse(json);
      } catch {
        throw problem("it is not valid JSON; the file is damaged");
      }
      const found = check(value);
      if (found) throw problem(found);
      return value as T;
    },
    format(value) {
      const json = JSON.stringify(value, null, 2) + "\n";
      // What is checked is what a reader will get.
      const found = check(JSON.parse(json));
      if (found) throw new TypeError(`Cannot write ${name}: ${found}`);
      return json;
    },
  };
}

/** Text of at least one character. */
export const text: Rule = rule(
  (value) => typeof value === "string" && value.length > 0,
  "text that is not empty",
);

/** An integer, 0 or more. */
export const count: Rule = rule(
  (value) => Number.isSafeInteger(value) && Number(value) >= 0,
  "an integer >= 0",
);

/** A number, 0 or more. */
export const nonNegative: Rule = rule(
  (value) => Number.isFinite(value) && Number(value) >= 0,
  "a number >= 0",
);

/** A SHA-256 as `sha256()` prints it. */
export const sha256Text: Rule = rule(
  (value) => typeof value === "string" && /^[0-9a-f]{64}$/.test(value),
  "64 hexadecimal digits",
);

/** A point in time that `Date` can read. */
export const isoTime: Rule = rule(
  (value) => typeof value === "string" && !Number.isNaN(Date.parse(value)),
  "an ISO 8601 time",
);

/** An object, not a list and not `null`. */
export function object(wanted: string): Rule {
  return rule(
    (value) =>
      typeof value === "object" && value !== null && !Array.isArray(value),
    wanted,
  );
}

function firstProblem<T>(
  items: readonly T[],
  check: (item: T, index: number) => string | null,
): string | null {
  for (const [i, item] of items.entries()) {
    const problem = check(item, i);
    if (problem) return problem;
  }
  return null;
}

/** Prints a value for an error: on one line and not too long. */
function excerpt(value: unknown): string {
  if (typeof value === "number") return String(value); // NaN, not null
  try {
    const printed = JSON.stringify(value) ?? `a ${typeof value}`;
    return printed.length > 80 ? printed.slice(0, 80) + "..." : printed;
  } catch { // JSON.parse nests without limit, JSON.stringify does not
    return "deeply nested";
  }
}
