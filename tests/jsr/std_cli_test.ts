import { parseArgs } from "@std/cli/parse-args";
import { assertEquals } from "@std/assert";

Deno.test("parseArgs() reads flags that no option names", () => {
  assertEquals(
    parseArgs(["--a", "1", "--b=x", "--c", "-d", "0x10", "-ef", "-n5", "y"]),
    { _: ["y"], a: 1, b: "x", c: true, d: 16, e: true, f: true, n: 5 },
  );
  assertEquals(parseArgs(["1", "1e-3", "-", "a"]), { _: [1, 1e-3, "-", "a"] });
});

Deno.test("parseArgs() keeps string flags strings and types them", () => {
  const args = parseArgs(["--a", "1", "--b=2", "3"], {
    string: ["_", "a", "b", "c"],
    default: { b: "x" },
  });
  args.a satisfies string | undefined;
  args.b satisfies string;
  assertEquals(args, { _: ["3"], a: "1", b: "2" } as typeof args);
  assertEquals(parseArgs(["--a"], { string: "a" }).a, "");
  assertEquals(parseArgs(["--a", "--b"], { string: "a" }).a, "");
});

Deno.test("parseArgs() defaults boolean flags to false and lets them take no value", () => {
  const args = parseArgs(["--a", "x", "--c=false", "--d", "true"], {
    boolean: ["a", "b", "c", "d"],
  });
  args.a satisfies boolean;
  assertEquals(args, { _: ["x"], a: true, b: false, c: false, d: true });
});

Deno.test("parseArgs() negates only negatable flags", () => {
  const args = parseArgs(["--no-a", "--no-b"], {
    boolean: ["a", "b"],
    negatable: ["a"],
    default: { a: true, b: true },
  });
  const plain: Record<string, unknown> = { ...args };
  assertEquals(plain, { _: [], a: false, b: true, "no-b": true });
});

Deno.test("parseArgs() keeps the last value unless collected", () => {
  const args = parseArgs(["--a", "1", "--a", "2", "--b", "1", "--b", "2"], {
    string: ["a", "b", "c"],
    collect: ["b", "c"],
  });
  args.b satisfies string[];
  assertEquals(args, { _: [], a: "2", b: ["1", "2"], c: [] });
});

Deno.test("parseArgs() gives aliases the same value", () => {
  const plain: Record<string, unknown> = parseArgs(["--eps", "1", "-v"], {
    string: ["epsilon"],
    boolean: ["verbose"],
    alias: { epsilon: "eps", verbose: ["v", "loud"] },
  });
  assertEquals(plain, {
    _: [],
    epsilon: "1",
    eps: "1",
    verbose: true,
    v: true,
    loud: true,
  });
});

Deno.test("parseArgs() stops at the first positional with stopEarly", () => {
  assertEquals(
    parseArgs(["--a", "1", "run", "--b", "2"], { stopEarly: true }),
    { _: ["run", "--b", 2], a: 1 },
  );
});

Deno.test('parseArgs() puts what follows "--" where asked', () => {
  assertEquals(parseArgs(["a", "--", "--b"]), { _: ["a", "--b"] });
  const args = parseArgs(["a", "--", "--b", "1"], { "--": true });
  args["--"] satisfies string[];
  assertEquals(args["--"], ["--b", "1"]);
  assertEquals(args._, ["a"]);
});

Deno.test("parseArgs() asks about unknown arguments", () => {
  const asked: unknown[][] = [];
  const args = parseArgs(["--a", "1", "--b=2", "c"], {
    string: ["a"],
    unknown: (...call) => {
      asked.push(call);
      return false;
    },
  });
  assertEquals(args, { _: [], a: "1" });
  assertEquals(asked, [["--b=2", "b", "2"], ["c"]]);
});

Deno.test("parseArgs() nests dotted flags without touching prototypes", () => {
  assertEquals(parseArgs(["--a.b", "1", "--a.c", "x"]), {
    _: [],
    a: { b: 1, c: "x" },
  });
  parseArgs(["--__proto__.polluted", "1", "--constructor.prototype.p", "1"]);
  const probe: Record<string, unknown> = {};
  assertEquals([probe.polluted, probe.p], [undefined, undefined]);
});
