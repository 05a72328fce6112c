/**
 * The unpickler makes plain values, calls nothing, and stays within bounds.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Global, Opaque, unpickle } from "../../models/pickle.ts";
import { ops, type Part } from "./_torch_file.ts";

const fail = (what: string): never => {
  throw new SyntaxError(what);
};

/** The value of operations. */
function read(...parts: readonly Part[]): unknown {
  return unpickle(ops(0x80, 2, ...parts, "."), { fail }).value;
}

Deno.test("unpickle() reads constants as Python does", () => {
  const rows: [readonly Part[], unknown][] = [
    [["N"], null],
    [[0x88], true],
    [[0x89], false],
    [["K", 255], 255],
    [["M", 1, 2], 513],
    [["J", 254, 255, 255, 255], -2],
    [["I-12\n"], -12],
    [["I01\n"], true],
    [["L98765432109876543210L\n"], 98765432109876543210n],
    [["F1.5\n"], 1.5],
    [["G", 0x3f, 0xf8, 0, 0, 0, 0, 0, 0], 1.5],
    [[0x8a, 0], 0],
    [[0x8a, 1, 255], -1],
    [[0x8a, 2, 0, 128], -32768],
    [[0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 128], -(2n ** 63n)],
    [["X", 3, 0, 0, 0, "a", 0xc3, 0xa9], "aé"],
    [["U", 2, "ab"], "ab"],
    [[0x8c, 2, "ab"], "ab"],
    [["C", 2, 0, 255], Uint8Array.of(0, 255)],
  ];
  for (const [parts, value] of rows) assertEquals(read(...parts), value);
});

Deno.test("unpickle() builds containers, which may contain themselves", () => {
  assertEquals(read("](K", 1, "K", 2, "eK", 3, "a"), [1, 2, 3]);
  assertEquals(read("(K", 1, "Nt"), [1, null]);
  assertEquals(read("K", 1, "K", 2, "K", 3, 0x87), [1, 2, 3]);
  assertEquals(
    read("}K", 1, "Ns(K", 2, 0x88, "u"),
    new Map().set(1, null).set(2, true),
  );
  assertEquals(read("(K", 1, "Nd"), new Map([[1, null]]));
  assertEquals(read(0x8f, "(K", 1, "K", 1, 0x90), new Set([1]));
  assertEquals(read("K", 7, "q", 0, "0h", 0), 7);
  assertEquals(read("K", 7, "2", 0x86), [7, 7]);
  const self = read("]q", 0, "h", 0, "a") as unknown[];
  assert(self[0] === self);
});

Deno.test("unpickle() calls nothing and records what would be called", () => {
  const command = read("cos\nsystem\n", "(U", 4, "reboot".slice(0, 4), "tR");
  assert(command instanceof Opaque);
  assertEquals([command.name, command.args], ["os.system", ["rebo"]]);
  // Protocol 4 names a global by two texts; what a call returns is called.
  const chained = read(0x8c, 1, "a", 0x8c, 1, "b", 0x93, ")R)R");
  assertEquals((chained as Opaque).name, "a.b");
  const object = read(
    "ca\nB\n)",
    0x81,
    "}K",
    1,
    "K",
    2,
    "sb(K",
    3,
    "K",
    4,
    "u",
  );
  assertEquals((object as Opaque).state, new Map([[1, 2]]));
  assertEquals((object as Opaque).items, new Map([[3, 4]]));
  const names: string[] = [];
  unpickle(ops("cx\ny\n)R."), {
    fail,
    construct: (name) => void names.push(name),
  });
  assertEquals(names, ["x.y"]);
  assert(read("cx\ny\n") instanceof Global);
});

Deno.test("unpickle() says what is wrong in one sentence", () => {
  const rows: [readonly Part[], string][] = [
    [["0"], "its marks do not match"],
    [["R"], "its stack runs empty"],
    [["NNR"], "the arguments of a call are no tuple"],
    [["N)R"], "it calls what is no function"],
    [["h", 3], "it recalls value 3 before there is one"],
    [["NNa"], "it appends to what is no list"],
    [["NNNs"], "it sets items of what is no dictionary"],
    [["}(Nu"], "a key lacks its value"],
    [["NQ"], "it refers to objects outside itself"],
    [["NN", 0x93], "the name of a global is no text"],
    [["Iabc\n"], `"abc" is no integer`],
    [[0xff], "byte 2 is 0xff, which is no operation"],
    [[0x80, 6], "it is of a later protocol than 5"],
  ];
  for (const [parts, what] of rows) {
    assertThrows(() => read(...parts), SyntaxError, what);
  }
  const whole = ops(0x80, 2, "(X", 2, 0, 0, 0, "abK", 1, "J", 1, 1, 1, 1, "t.");
  for (let end = 0; end < whole.length; end++) {
    assertThrows(
      () => unpickle(whole.subarray(0, end), { fail }),
      SyntaxError,
      "the file is truncated",
    );
  }
});

/** Many times the same operations. */
function repeated(count: number, ...parts: readonly Part[]) {
  const part = ops(...parts);
  const bytes = new Uint8Array(count * part.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = part[i % part.length];
  return bytes;
}

Deno.test("unpickle() bounds operations, objects, texts and integers", () => {
  const rows: [Uint8Array, RegExp][] = [
    [repeated(3e6, "N"), /more than 2000000 operations/],
    [repeated(3e6, "}"), /more than 500000 objects/],
    [repeated(3e6, "("), /more than 500000 objects/],
    [ops("X", 1, 0, 0, 1, new Uint8Array(100)), /texts have more than/],
    [ops("ca", repeated(2000, "b")), /a line has more than 1024 bytes/],
    [
      ops("X", 0, 8, 0, 0, repeated(2048, "b"), 0x8c, 1, "a", 0x93),
      /the name of a global has more than 1024 letters/,
    ],
    [ops(0x8b, 0, 0, 1, 0), /an integer has 65536 bytes/],
  ];
  for (const [bytes, what] of rows) {
    const error = assertThrows(() => unpickle(bytes, { fail }), SyntaxError);
    assert(what.test(error.message), error.message);
  }
});
