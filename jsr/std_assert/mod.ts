/**
 * Stand-in for `@std/assert` 1.0, which is published on JSR only: upstream
 * names, signatures and semantics for the subset this project uses.
 *
 * Project code imports `"@std/assert"`; `deno.json` resolves that name here and
 * `deno.jsr.json` to the package itself. Where upstream is lenient this module
 * may be stricter, never the other way round, so that a test passing here
 * passes there.
 *
 * @module
 */

/** The error every failed assertion throws. */
export class AssertionError extends Error {
  override name = "AssertionError";
}

/** Values that count as false. */
export type Falsy = false | 0 | 0n | "" | null | undefined;

/** A class, possibly abstract, whose instances are `T`. */
// `never[]` accepts a constructor with any parameters.
type Class<T> = abstract new (...args: never[]) => T;

/** Fails unless `expr` is truthy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) {
    throw new AssertionError(
      msg || `Expected a truthy value, got ${show(expr)}`,
    );
  }
}

/** Fails unless `expr` is falsy. */
export function assertFalse(expr: unknown, msg = ""): asserts expr is Falsy {
  if (expr) {
    throw new AssertionError(
      msg || `Expected a falsy value, got ${show(expr)}`,
    );
  }
}

/**
 * Fails unless both values are deeply equal. `NaN` equals `NaN`, `0` equals
 * `-0` and a null prototype equals that of `{}`; a missing key differs from one
 * holding `undefined`, and two Error objects always differ.
 */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  const found = firstDifference(actual, expected);
  if (found) {
    throw new AssertionError(
      `Values are not equal${suffix(msg)}\n${describe(found)}`,
    );
  }
}

/** Fails if both values are deeply equal in the sense of {@linkcode assertEquals}. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  if (!firstDifference(actual, expected)) {
    throw new AssertionError(
      `Expected values to differ, both are ${show(actual)}${suffix(msg)}`,
    );
  }
}

/** Fails unless `Object.is(actual, expected)`. */
export function assertStrictEquals<T>(
  actual: unknown,
  expected: T,
  msg?: string,
): asserts actual is T {
  if (Object.is(actual, expected)) return;
  const found = firstDifference(actual, expected);
  const detail = found
    ? describe(found)
    : `The values are equal but not identical: ${show(actual)}`;
  throw new AssertionError(
    `Values are not strictly equal${suffix(msg)}\n${detail}`,
  );
}

/**
 * Fails unless `actual` is within `tolerance` of `expected`; the default is
 * `|expected| * 1e-7`, or `1e-7` if `expected` is not finite.
 */
export function assertAlmostEquals(
  actual: number,
  expected: number,
  tolerance?: number,
  msg?: string,
): void {
  if (Object.is(actual, expected)) return;
  const limit = tolerance ??
    (Number.isFinite(expected) ? Math.abs(expected) * 1e-7 : 1e-7);
  const distance = Math.abs(expected - actual);
  // Written so that NaN fails.
  if (distance <= limit) return;
  throw new AssertionError(
    `Expected ${actual} to be within ${limit} of ${expected}, the distance is ${distance}${
      suffix(msg)
    }`,
  );
}

/** Fails if `actual` is `null` or `undefined`. */
export function assertExists<T>(
  actual: T,
  msg?: string,
): asserts actual is NonNullable<T> {
  if (actual === null || actual === undefined) {
    throw new AssertionError(
      `Expected a value other than null or undefined, got ${actual}${
        suffix(msg)
      }`,
    );
  }
}

/** Fails unless `actual > expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  requireOrder(actual > expected, actual, ">", expected, msg);
}

/** Fails unless `actual >= expected`. */
export function assertGreaterOrEqual<T>(
  actual: T,
  expected: T,
  msg?: string,
): void {
  requireOrder(actual >= expected, actual, ">=", expected, msg);
}

/** Fails unless `actual < expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  requireOrder(actual < expected, actual, "<", expected, msg);
}

/** Fails unless `actual <= expected`. */
export function assertLessOrEqual<T>(
  actual: T,
  expected: T,
  msg?: string,
): void {
  requireOrder(actual <= expected, actual, "<=", expected, msg);
}

/** Fails unless `actual` is an instance of `expectedType`. */
export function assertInstanceOf<T extends Class<unknown>>(
  actual: unknown,
  expectedType: T,
  msg = "",
): asserts actual is InstanceType<T> {
  if (actual instanceof expectedType) return;
  throw new AssertionError(
    `Expected an instance of ${expectedType.name}, got ${nameKind(actual)}${
      suffix(msg)
    }`,
  );
}

/** Fails unless `expected` matches `actual`. */
export function assertMatch(
  actual: string,
  expected: RegExp,
  msg?: string,
): void {
  if (!expected.test(actual)) {
    throw new AssertionError(
      `Expected the string to match ${expected}${suffix(msg)}\n    actual: ${
        show(actual)
      }`,
    );
  }
}

/** Fails unless `actual` contains `expected`. */
export function assertStringIncludes(
  actual: string,
  expected: string,
  msg?: string,
): void {
  if (!actual.includes(expected)) {
    throw new AssertionError(
      `Expected the string to include ${show(expected)}${
        suffix(msg)
      }\n    actual: ${show(actual)}`,
    );
  }
}

/** Fails unless every item of `expected` deeply equals some item of `actual`. */
export function assertArrayIncludes<T>(
  actual: ArrayLike<T>,
  expected: ArrayLike<T>,
  msg?: string,
): void {
  const items = Array.from(actual);
  const missing = Array.from(expected).filter((wanted) =>
    !items.some((item) => !firstDifference(item, wanted))
  );
  if (missing.length > 0) {
    throw new AssertionError(
      `Expected the array to include ${show(missing)}${
        suffix(msg)
      }\n    actual: ${show(actual)}`,
    );
  }
}

/**
 * Fails unless every property of `expected` is in `actual` with an equal value,
 * objects inside being compared in the same way.
 */
export function assertObjectMatch(
  actual: object,
  expected: Record<PropertyKey, unknown>,
  msg?: string,
): void {
  const found = firstDifference(actual, expected, { subset: true });
  if (found) {
    throw new AssertionError(
      `The object does not match${suffix(msg)}\n${describe(found)}`,
    );
  }
}

/** Fails unless `fn` throws; returns what it threw. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/** Fails unless `fn` throws an `ErrorClass` whose message has `msgIncludes`. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: Class<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows<E extends Error>(
  fn: () => unknown,
  classOrMsg?: Class<E> | string,
  msgIncludes?: string,
  msg?: string,
): unknown {
  const wanted = readWanted(classOrMsg, msgIncludes, msg);
  let thrown: unknown;
  try {
    fn();
  } catch (error) {
    thrown = error;
    checkThrown(thrown, wanted);
    return thrown;
  }
  throw new AssertionError(
    `Expected the function to throw${suffix(wanted.msg)}`,
  );
}

/** Fails unless the promise of `fn` rejects; resolves to the reason. */
export function assertRejects(
  fn: () => PromiseLike<unknown>,
  msg?: string,
): Promise<unknown>;
/**
 * Fails unless the promise of `fn` rejects with an `ErrorClass` whose message
 * has `msgIncludes`. A `fn` that throws before it returns a promise fails.
 */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: Class<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects<E extends Error>(
  fn: () => PromiseLike<unknown>,
  classOrMsg?: Class<E> | string,
  msgIncludes?: string,
  msg?: string,
): Promise<unknown> {
  const wanted = readWanted(classOrMsg, msgIncludes, msg);
  let promise: PromiseLike<unknown>;
  try {
    promise = fn();
  } catch (error) {
    throw new AssertionError(
      `Expected the function to reject, it threw before returning a promise${
        suffix(wanted.msg)
      }: ${showThrown(error)}`,
      { cause: error },
    );
  }
  if (!isPromiseLike(promise)) {
    throw new AssertionError(
      `Expected the function to return a promise, got ${show(promise)}${
        suffix(wanted.msg)
      }`,
    );
  }
  try {
    await promise;
  } catch (error) {
    checkThrown(error, wanted);
    return error;
  }
  throw new AssertionError(
    `Expected the function to reject${suffix(wanted.msg)}`,
  );
}

/** Always fails. */
export function fail(msg?: string): never {
  throw new AssertionError(`Failed assertion${suffix(msg)}`);
}

/** Fails when reached: marks a branch that cannot happen. */
export function unreachable(reason?: string): never {
  throw new AssertionError(`Unreachable${suffix(reason)}`);
}

interface Wanted<E extends Error> {
  readonly errorClass?: Class<E>;
  readonly includes?: string;
  readonly msg?: string;
}

function readWanted<E extends Error>(
  classOrMsg: Class<E> | string | undefined,
  includes: string | undefined,
  msg: string | undefined,
): Wanted<E> {
  return typeof classOrMsg === "function"
    ? { errorClass: classOrMsg, includes, msg }
    : { msg: classOrMsg };
}

function checkThrown<E extends Error>(thrown: unknown, wanted: Wanted<E>) {
  const { errorClass, includes, msg } = wanted;
  if (!errorClass) return;
  if (!(thrown instanceof Error)) {
    throw new AssertionError(
      `Expected an Error to be thrown, got ${show(thrown)}${suffix(msg)}`,
    );
  }
  if (!(thrown instanceof errorClass)) {
    throw new AssertionError(
      `Expected an error of class ${errorClass.name}${suffix(msg)}, got ${
        showThrown(thrown)
      }`,
      { cause: thrown },
    );
  }
  if (includes !== undefined && !thrown.message.includes(includes)) {
    throw new AssertionError(
      `Expected the error message to include ${show(includes)}${
        suffix(msg)
      }\n    actual: ${show(thrown.message)}`,
      { cause: thrown },
    );
  }
}

function requireOrder(
  holds: boolean,
  actual: unknown,
  relation: string,
  expected: unknown,
  msg: string | undefined,
) {
  if (!holds) {
    throw new AssertionError(
      `Expected ${show(actual)} ${relation} ${show(expected)}${suffix(msg)}`,
    );
  }
}

/** Where two values first differ. */
interface Difference {
  /** Property path from the outer values, empty if they differ themselves. */
  readonly path: string;
  readonly actual: string;
  readonly expected: string;
}

interface CompareState {
  /** Compare only the keys of `expected`. */
  readonly subset?: boolean;
  /** Pairs under comparison or known equal, so that cycles end. */
  readonly seen?: Map<object, Set<object>>;
}

function firstDifference(
  actual: unknown,
  expected: unknown,
  options: { readonly subset?: boolean } = {},
): Difference | undefined {
  return compare(actual, expected, { ...options, seen: new Map() });
}

function compare(
  a: unknown,
  b: unknown,
  state: CompareState,
): Difference | undefined {
  if (sameValueZero(a, b)) return undefined;
  if (!isObject(a) || !isObject(b)) return differ(a, b);
  if (typeof a === "function" || typeof b === "function") return differ(a, b);
  // A subset names properties only, whatever class holds them.
  if (!(state.subset && isPlain(b)) && !samePrototype(a, b)) {
    return differ(a, b, nameKind(a), nameKind(b));
  }

  if (a instanceof Error || a instanceof Promise) return differ(a, b);
  if (a instanceof WeakMap || a instanceof WeakSet) {
    throw new TypeError(
      `Cannot compare two ${nameKind(a)} objects: their entries are hidden`,
    );
  }
  if (a instanceof WeakRef && b instanceof WeakRef) {
    const found = compare(a.deref(), b.deref(), state);
    if (found) return at(".deref()", found);
  }
  if (a instanceof DataView && b instanceof DataView) {
    return compareNumbers(bytesOf(a), bytesOf(b));
  }
  if (isTypedArray(a) && isTypedArray(b)) return compareNumbers(a, b);
  if (isBuffer(a) && isBuffer(b)) {
    return compareNumbers(new Uint8Array(a), new Uint8Array(b));
  }
  if (a instanceof Date && b instanceof Date) {
    if (!Object.is(a.getTime(), b.getTime())) return differ(a, b);
  } else if (
    (a instanceof RegExp && b instanceof RegExp) ||
    (a instanceof URL && b instanceof URL)
  ) {
    if (String(a) !== String(b)) return differ(a, b);
  } else if (isBoxed(a) && isBoxed(b)) {
    if (!sameValueZero(a.valueOf(), b.valueOf())) return differ(a, b);
  }

  const seen = state.seen!;
  let partners = seen.get(a);
  if (partners?.has(b)) return undefined;
  if (!partners) seen.set(a, partners = new Set());
  partners.add(b);
  const found = compareContents(a, b, state);
  // Unequal pairs must be found unequal again, for example as set items.
  if (found) partners.delete(b);
  return found;
}

function compareContents(
  a: object,
  b: object,
  state: CompareState,
): Difference | undefined {
  if (a instanceof Set && b instanceof Set) {
    if (a.size !== b.size || !matchAll([...a], [...b], state)) {
      return differ(a, b);
    }
  }
  if (a instanceof Map && b instanceof Map) {
    const found = compareMaps(a, b, state);
    if (found) return found;
  }
  if (Array.isArray(a) && Array.isArray(b) && a.length !== b.length) {
    return differ(
      a,
      b,
      `${a.length} items: ${show(a)}`,
      `${b.length} items: ${show(b)}`,
    );
  }
  const wanted = enumerableKeys(b);
  for (const key of wanted) {
    if (state.subset ? !(key in a) : !Object.hasOwn(a, key)) {
      return at(showKey(a, key), {
        path: "",
        actual: "(missing)",
        expected: show(Reflect.get(b, key)),
      });
    }
    const found = compare(Reflect.get(a, key), Reflect.get(b, key), state);
    if (found) return at(showKey(a, key), found);
  }
  if (state.subset && !Array.isArray(b)) return undefined;
  for (const key of enumerableKeys(a)) {
    if (!Object.hasOwn(b, key)) {
      return at(showKey(a, key), {
        path: "",
        actual: show(Reflect.get(a, key)),
        expected: "(missing)",
      });
    }
  }
  return undefined;
}

function compareMaps(
  a: ReadonlyMap<unknown, unknown>,
  b: ReadonlyMap<unknown, unknown>,
  state: CompareState,
): Difference | undefined {
  if ([...b.keys()].every((key) => a.has(key)) && a.size === b.size) {
    for (const [key, value] of b) {
      const found = compare(a.get(key), value, state);
      // Two keys that are equal but not identical could still pair crosswise.
      if (found && !isObject(key)) return at(`.get(${show(key)})`, found);
    }
  }
  return a.size === b.size && matchAll([...a], [...b], state)
    ? undefined
    : differ(a, b);
}

/** Whether the items can be paired so that each pair is equal. */
function matchAll(
  a: readonly unknown[],
  b: readonly unknown[],
  state: CompareState,
): boolean {
  const left = new Set(a);
  // Deep equality is an equivalence, so taking any equal partner is safe.
  return b.every((wanted) => {
    if (left.delete(wanted)) return true;
    for (const item of left) {
      if (!compare(item, wanted, state)) return left.delete(item);
    }
    return false;
  });
}

type TypedArray = ArrayBufferView & ArrayLike<number | bigint>;

function compareNumbers(a: TypedArray, b: TypedArray): Difference | undefined {
  if (a.length !== b.length) {
    return {
      path: ".length",
      actual: String(a.length),
      expected: String(b.length),
    };
  }
  for (let i = 0; i < a.length; i++) {
    if (!sameValueZero(a[i], b[i])) {
      let count = 0;
      for (let j = i; j < a.length; j++) {
        if (!sameValueZero(a[j], b[j])) count++;
      }
      return {
        path: `[${i}]`,
        actual: show(a[i]),
        expected: `${show(b[i])} (${count} of ${a.length} elements differ)`,
      };
    }
  }
  return undefined;
}

function differ(
  a: unknown,
  b: unknown,
  actual = show(a),
  expected = show(b),
): Difference {
  if (typeof a === "string" && typeof b === "string") {
    return differText(a, b);
  }
  if (actual === expected && isObject(a) && isObject(b)) {
    actual += " (another object)";
  }
  return { path: "", actual, expected };
}

/** Long strings are shown around the first character that differs. */
function differText(a: string, b: string): Difference {
  if (Math.max(a.length, b.length) <= 120) {
    return { path: "", actual: show(a), expected: show(b) };
  }
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  const start = Math.max(0, i - 30);
  const part = (text: string) =>
    `${start > 0 ? "..." : ""}${JSON.stringify(text.slice(start, i + 60))}${
      i + 60 < text.length ? "..." : ""
    }`;
  return { path: ` from character ${i}`, actual: part(a), expected: part(b) };
}

function at(step: string, found: Difference): Difference {
  return { ...found, path: step + found.path };
}

function describe({ path, actual, expected }: Difference): string {
  return `${path ? `    at value${path}\n` : ""}    actual:   ${
    indent(actual)
  }\n    expected: ${indent(expected)}`;
}

function indent(text: string): string {
  return text.replaceAll("\n", "\n              ");
}

function suffix(msg: string | undefined): string {
  return msg ? `: ${msg}` : "";
}

function show(value: unknown): string {
  const text = typeof value === "string"
    ? JSON.stringify(value)
    : ArrayBuffer.isView(value)
    ? Deno.inspect(value, { iterableLimit: 8 })
    : Deno.inspect(value, {
      depth: 6,
      iterableLimit: 40,
      sorted: true,
      strAbbreviateSize: 400,
    });
  return text.length > 2000 ? `${text.slice(0, 2000)}...` : text;
}

function showThrown(thrown: unknown): string {
  return thrown instanceof Error
    ? `${thrown.constructor.name}: ${thrown.message}`
    : show(thrown);
}

function showKey(holder: object, key: PropertyKey): string {
  if (typeof key === "symbol") return `[${String(key)}]`;
  if (Array.isArray(holder)) return `[${String(key)}]`;
  const name = String(key);
  return /^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(name)
    ? `.${name}`
    : `[${JSON.stringify(name)}]`;
}

function nameKind(value: unknown): string {
  if (!isObject(value)) return show(value);
  const prototype = Object.getPrototypeOf(value);
  const constructor: unknown = prototype?.constructor;
  const name = typeof constructor === "function" ? constructor.name : "";
  return isTypedArray(value)
    ? `${name}(${value.length})`
    : `${name || "Object"} ${show(value)}`;
}

function sameValueZero(a: unknown, b: unknown): boolean {
  return a === b || (a !== a && b !== b);
}

function isObject(value: unknown): value is object {
  return (typeof value === "object" && value !== null) ||
    typeof value === "function";
}

function isPlain(value: object): boolean {
  return plainPrototype(value) === Object.prototype;
}

/** The prototype, null standing for that of `{}`. */
function plainPrototype(value: object): unknown {
  return Object.getPrototypeOf(value) ?? Object.prototype;
}

function samePrototype(a: object, b: object): boolean {
  return plainPrototype(a) === plainPrototype(b);
}

function isTypedArray(value: object): value is TypedArray {
  return ArrayBuffer.isView(value) && !(value instanceof DataView);
}

function isBuffer(value: object): value is ArrayBuffer | SharedArrayBuffer {
  return value instanceof ArrayBuffer || value instanceof SharedArrayBuffer;
}

function isBoxed(value: object): boolean {
  return value instanceof Number || value instanceof String ||
    value instanceof Boolean || value instanceof BigInt ||
    value instanceof Symbol;
}

function isPromiseLike(value: unknown): value is PromiseLike<unknown> {
  return isObject(value) && "then" in value && typeof value.then === "function";
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function enumerableKeys(value: object): PropertyKey[] {
  return Reflect.ownKeys(value).filter((key) =>
    Object.prototype.propertyIsEnumerable.call(value, key)
  );
}
