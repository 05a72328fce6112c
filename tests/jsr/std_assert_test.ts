import {
  assert,
  assertAlmostEquals,
  assertArrayIncludes,
  assertEquals,
  assertExists,
  assertFalse,
  assertGreater,
  assertGreaterOrEqual,
  assertInstanceOf,
  AssertionError,
  assertLess,
  assertLessOrEqual,
  assertMatch,
  assertNotEquals,
  assertObjectMatch,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  fail,
  unreachable,
} from "@std/assert";

/** Runs `fn` and returns the message of the AssertionError it must throw. */
function failure(fn: () => unknown): string {
  let thrown: unknown;
  try {
    fn();
  } catch (error) {
    thrown = error;
  }
  if (!(thrown instanceof AssertionError)) {
    throw new Error(`Expected an AssertionError: got ${Deno.inspect(thrown)}`);
  }
  return thrown.message;
}

function requireIncludes(text: string, part: string) {
  if (!text.includes(part)) {
    throw new Error(`Expected ${JSON.stringify(text)} to include ${part}`);
  }
}

Deno.test("assert() passes truthy values and fails falsy ones", () => {
  assert(1);
  assert("a");
  for (const value of [0, "", null, undefined, false, NaN, 0n]) {
    failure(() => assert(value));
    assertFalse(value);
  }
  failure(() => assertFalse([]));
  requireIncludes(failure(() => assert(0, "my message")), "my message");
});

Deno.test("assertEquals() accepts deeply equal values", () => {
  const equal: [unknown, unknown][] = [
    [0, -0],
    [[0], [-0]],
    [new Float32Array([0]), new Float32Array([-0])],
    [NaN, NaN],
    [new Float64Array([NaN]), new Float64Array([NaN])],
    [Object.create(null), {}],
    [{ a: { b: [1, { c: 2 }] } }, { a: { b: [1, { c: 2 }] } }],
    [{ a: 1, b: 2 }, { b: 2, a: 1 }],
    [new Date(5), new Date(5)],
    [new Date(NaN), new Date(NaN)],
    [/a/g, /a/g],
    [new URL("https://a.test"), new URL("https://a.test")],
    [new Set([1, 2, new Set([3])]), new Set([new Set([3]), 2, 1])],
    [new Map([[{ x: 1 }, [1]]]), new Map([[{ x: 1 }, [1]]])],
    [new Map([["a", 1], ["b", 2]]), new Map([["b", 2], ["a", 1]])],
    [{ [Symbol.for("a")]: 1 }, { [Symbol.for("a")]: 1 }],
    [new Uint8Array([1, 2]).buffer, new Uint8Array([1, 2]).buffer],
    [new WeakRef({ a: 1 }), new WeakRef({ a: 1 })],
    [[, 1], [, 1]],
  ];
  for (const [a, b] of equal) {
    assertEquals(a, b);
    assertEquals(b, a);
    failure(() => assertNotEquals(a, b));
  }
});

Deno.test("assertEquals() refuses values that differ", () => {
  const error = new Error("one message");
  const different: [unknown, unknown][] = [
    [1, 2],
    [1, "1"],
    [null, undefined],
    [null, {}],
    [[], {}],
    [{ a: undefined }, {}],
    [{ a: undefined }, { b: undefined }],
    [[, 1], [undefined, 1]],
    [[1, 2], [1, 2, 3]],
    [[1], new Uint8Array([1])],
    [new Float32Array([1]), new Float64Array([1])],
    [new Float32Array([1, 2]), new Float32Array([1, 3])],
    [new Float32Array(2), new Float32Array(3)],
    [new BigInt64Array([1n]), new BigInt64Array([2n])],
    [error, new Error("one message")],
    [{ error }, { error: new Error("one message") }],
    [new Date(5), new Date(6)],
    [/a/g, /a/i],
    [new URL("https://a.test"), new URL("https://b.test")],
    [new Set([1]), new Set([2])],
    [new Set([[1], [1]]), new Set([[1], [2]])],
    [new Map([["a", 1]]), new Map([["a", 2]])],
    [new Map([[{ x: 1 }, 1]]), new Map([[{ x: 1 }, 2]])],
    [new Map<string, unknown>([["a", undefined]]), new Map([["b", undefined]])],
    [{ [Symbol("a")]: 1 }, { [Symbol("a")]: 1 }],
    [new Number(1), new Number(2)],
    [() => 1, () => 1],
  ];
  for (const [a, b] of different) {
    assertNotEquals(a, b);
    assertNotEquals(b, a);
    failure(() => assertEquals(a, b));
  }
  assertEquals(error, error);
});

Deno.test("assertEquals() ends on cycles", () => {
  interface Loop {
    next?: Loop;
    value: number;
  }
  const a: Loop = { value: 1 };
  a.next = a;
  const b: Loop = { value: 1 };
  b.next = b;
  assertEquals(a, b);
  b.value = 2;
  assertNotEquals(a, b);
});

Deno.test("assertEquals() refuses to compare weak collections", () => {
  assertThrows(
    () => assertEquals(new WeakMap(), new WeakMap()),
    TypeError,
    "Cannot compare",
  );
});

Deno.test("assertEquals() names where values first differ", () => {
  const text = failure(() =>
    assertEquals({ a: [1, { "b c": 2 }] }, { a: [1, { "b c": 3 }] }, "note")
  );
  requireIncludes(text, "note");
  requireIncludes(text, `.a[1]["b c"]`);
  requireIncludes(text, "actual:   2");
  requireIncludes(text, "expected: 3");
});

Deno.test("assertEquals() shows only the first difference of typed arrays", () => {
  const a = new Float32Array(100_000);
  const b = a.slice();
  b[5000] = 0.5;
  b[6000] = 0.25;
  const text = failure(() => assertEquals({ a }, { a: b }));
  requireIncludes(text, ".a[5000]");
  requireIncludes(text, "2 of 100000 elements differ");
  assertLess(text.length, 200);
});

Deno.test("assertEquals() shows long strings around the difference", () => {
  const text = failure(() =>
    assertEquals("x".repeat(5000) + "a", "x".repeat(5000) + "b")
  );
  requireIncludes(text, "character 5000");
  assertLess(text.length, 400);
});

Deno.test("assertStrictEquals() compares with Object.is", () => {
  assertStrictEquals(NaN, NaN);
  failure(() => assertStrictEquals(0, -0));
  requireIncludes(failure(() => assertStrictEquals({}, {})), "not identical");
  const value: unknown = "a";
  assertStrictEquals(value, "a" as const);
  value satisfies "a";
});

Deno.test("assertAlmostEquals() defaults to a relative tolerance of 1e-7", () => {
  assertAlmostEquals(1e9, 1e9 + 50);
  failure(() => assertAlmostEquals(1e9, 1e9 + 150));
  assertAlmostEquals(1, 1.5, 0.5);
  assertAlmostEquals(Infinity, Infinity);
  assertAlmostEquals(NaN, NaN);
  failure(() => assertAlmostEquals(0, 1e-12));
  failure(() => assertAlmostEquals(NaN, 1, 5));
  failure(() => assertAlmostEquals(1, Infinity));
  requireIncludes(
    failure(() => assertAlmostEquals(1, 3, 0.5, "why")),
    "the distance is 2: why",
  );
});

Deno.test("assertExists() refuses null and undefined only", () => {
  assertExists(0);
  assertExists("");
  failure(() => assertExists(null));
  failure(() => assertExists(undefined));
});

Deno.test("assertGreater() and its siblings compare in order", () => {
  assertGreater(2, 1);
  assertGreaterOrEqual(2, 2);
  assertLess(1, 2);
  assertLessOrEqual(2, 2);
  requireIncludes(failure(() => assertGreater(1, 1)), "Expected 1 > 1");
  failure(() => assertGreaterOrEqual(1, 2));
  failure(() => assertLess(1, 1));
  failure(() => assertLessOrEqual(2, 1));
  failure(() => assertLessOrEqual(NaN, 1));
});

Deno.test("assertInstanceOf() names the class wanted", () => {
  const value: unknown = new TypeError("a");
  assertInstanceOf(value, Error);
  value.message satisfies string;
  requireIncludes(failure(() => assertInstanceOf([], Map)), "instance of Map");
});

Deno.test("assertMatch() and assertStringIncludes() show the string", () => {
  assertMatch("abc", /b/);
  assertStringIncludes("abc", "b");
  requireIncludes(failure(() => assertMatch("abc", /x/)), `"abc"`);
  requireIncludes(failure(() => assertStringIncludes("abc", "x")), `"abc"`);
});

Deno.test("assertArrayIncludes() compares items deeply", () => {
  assertArrayIncludes([{ a: 1 }, { a: 2 }], [{ a: 2 }]);
  assertArrayIncludes(new Uint8Array([1, 2]), new Uint8Array([2]));
  requireIncludes(
    failure(() => assertArrayIncludes([1, 2], [2, 3])),
    "include [ 3 ]",
  );
});

Deno.test("assertObjectMatch() compares the expected keys only", () => {
  assertObjectMatch({ a: 1, b: { c: 2, d: 3 } }, { b: { c: 2 } });
  assertObjectMatch({ a: [{ b: 1, c: 2 }] }, { a: [{ b: 1 }] });
  requireIncludes(
    failure(() => assertObjectMatch({ b: { c: 2 } }, { b: { c: 3 } })),
    ".b.c",
  );
  requireIncludes(
    failure(() => assertObjectMatch({ a: 1 }, { b: undefined })),
    "(missing)",
  );
  failure(() => assertObjectMatch({ a: [1, 2] }, { a: [1] }));
});

Deno.test("assertThrows() returns what was thrown", () => {
  const error = assertThrows(
    () => {
      throw new RangeError("too large: 3");
    },
    RangeError,
    "large",
  );
  error satisfies RangeError;
  assertEquals(error.message, "too large: 3");
  assertStrictEquals(
    assertThrows(() => {
      throw 5;
    }),
    5,
  );
});

Deno.test("assertThrows() refuses no throw, another class and another message", () => {
  requireIncludes(failure(() => assertThrows(() => 1, "why")), "why");
  requireIncludes(
    failure(() =>
      assertThrows(() => {
        throw new TypeError("a");
      }, RangeError)
    ),
    "class RangeError, got TypeError: a",
  );
  failure(() =>
    assertThrows(
      () => {
        throw new TypeError("a");
      },
      TypeError,
      "b",
    )
  );
  failure(() =>
    assertThrows(() => {
      throw "text";
    }, Error)
  );
});

Deno.test("assertRejects() resolves to the reason", async () => {
  const error = await assertRejects(
    () => Promise.reject(new RangeError("too large")),
    RangeError,
    "large",
  );
  error satisfies RangeError;
  assertEquals(error.message, "too large");
  assertEquals(await assertRejects(() => Promise.reject(5)), 5);
});

Deno.test("assertRejects() refuses resolution and a synchronous throw", async () => {
  const resolved = await assertRejects(
    () => assertRejects(() => Promise.resolve(1), "why"),
    AssertionError,
  );
  requireIncludes(resolved.message, "why");
  const threw = await assertRejects(
    () =>
      assertRejects(() => {
        throw new Error("early");
      }),
    AssertionError,
  );
  requireIncludes(threw.message, "before returning a promise");
  await assertRejects(
    () => assertRejects(() => Promise.reject(new Error("a")), TypeError),
    AssertionError,
    "class TypeError",
  );
});

Deno.test("fail() and unreachable() always throw", () => {
  requireIncludes(failure(() => fail("here")), "here");
  requireIncludes(failure(() => unreachable("there")), "there");
});
