import { assert, assertEquals } from "@std/assert";
import {
  abs,
  add,
  constant,
  div,
  exp,
  expressionKey,
  fakeRelu,
  grad,
  input,
  maximum,
  minimum,
  mul,
  neg,
  type Node,
  parameter,
  Random,
  relu,
  reshape,
  simplify,
  stopGradient,
  sub,
  sum,
  type Tensor,
  tensor,
  topologicalOrder,
  transpose,
  viewParameters,
  withGradient,
} from "../../core/mod.ts";
import { assertAllClose, evaluate } from "../_assert.ts";

/** Number of ops that some nodes need. */
function opsOf(outputs: readonly Node[]): number {
  return topologicalOrder(outputs).filter(({ kind }) => kind === "op").length;
}

Deno.test("simplify() merges nodes that compute the same", () => {
  const x = input("x", [3]);
  const [y] = simplify([add(exp(x), exp(x))]);
  assertEquals(opsOf([y]), 2);
  const [a, b] = simplify([mul(x, 2), mul(x, 2)]);
  assert(a === b);
});

Deno.test("simplify() merges relu() and fakeRelu(), which compute the same", () => {
  const x = input("x", [3]);
  assertEquals(opsOf(simplify([add(relu(x), fakeRelu(x))])), 2);
});

Deno.test("simplify() keeps nodes of other attributes or constants apart", () => {
  const x = input("x", [2, 2]);
  const pairs = [
    [sum(x, [0]), sum(x, [1])],
    [sum(x, [0, 1]), sum(x, [0, 1], { keepDims: true })],
    [transpose(x, [1, 0]), transpose(x, [0, 1])],
    [mul(x, 2), mul(x, 3)],
    [sub(x, 2), sub(2, x)],
    [reshape(x, [4]), reshape(x, [1, 4])],
    [div(x, 0), div(x, -0)],
    [input("y", [2]), parameter("y", [2])],
    [input("y", [2]), input("y", [3])],
    [input("y", [2]), input("z", [2])],
  ];
  for (const pair of pairs) {
    const [a, b] = simplify(pair);
    assert(a !== b, `Expected ${pair[0]} and ${pair[1]} to stay apart`);
    assertEquals([a.shape, b.shape], pair.map(({ shape }) => shape));
  }
});

Deno.test("simplify() reshapes once what was reshaped before", () => {
  const x = input("x", [2, 6]);
  const [there, back, between, moved] = simplify([
    reshape(reshape(exp(x), [12]), [3, 4]),
    reshape(reshape(x, [12]), [2, 6]),
    exp(reshape(x, [12])),
    // Axes of size 1 change places with others.
    reshape(transpose(reshape(x, [2, 1, 6]), [1, 0, 2]), [6, 2]),
  ]);
  assertEquals(moved.op?.type, "Reshape");
  assertEquals(opsOf([moved]), 1);
  assertEquals(opsOf(simplify([transpose(reshape(x, [2, 1, 6]))])), 2);
  assertEquals(opsOf([there]), 2);
  assertEquals(there.shape, [3, 4]);
  assert(back === x);
  assertEquals(opsOf([between]), 2);
});

Deno.test("viewParameters() takes over the shape that all readers want", async () => {
  const x = input("x", [4]);
  const [one, both, some, kept, given] = [
    "one",
    "both",
    "some",
    "kept",
    "given",
  ]
    .map((name) => parameter(name, [2, 2]));
  const all = [
    mul(x, reshape(one, [4])),
    mul(x, reshape(both, [4])),
    exp(reshape(both, [4])),
    // Read as it is, in two shapes, and given back.
    add(sum(some), reshape(some, [4])),
    reshape(given, [4]),
    given,
    add(sum(reshape(kept, [4])), sum(reshape(kept, [1, 4]))),
  ];
  const { outputs, shapes } = viewParameters(all, (name) => name !== "one");
  assertEquals(shapes, { both: [4] });
  assertEquals(
    outputs.map(({ shape }) => shape),
    all.map(({ shape }) => shape),
  );
  assertEquals(opsOf(all) - opsOf(outputs), 2);
  const feeds = {
    x: tensor([1, 2, 3, 4]),
    ...Object.fromEntries(
      ["one", "both", "some", "kept", "given"].map((name, i) => [
        name,
        tensor([i, 1, 2, 3], [2, 2]),
      ]),
    ),
  };
  const viewed = { ...feeds, both: tensor([1, 1, 2, 3]) };
  const named = (nodes: readonly Node[]) =>
    Object.fromEntries(nodes.map((node, i) => [`y${i}`, node]));
  assertEquals(
    await evaluate(named(outputs), viewed),
    await evaluate(named(all), feeds),
  );
});

Deno.test("simplify() takes out products with one and sums with zero", () => {
  const x = input("x", [2]);
  for (const y of [mul(x, 1), mul(1, x), add(x, 0), add(0, x)]) {
    assert(simplify([y])[0] === x);
  }
  const ones = constant(tensor([1, 1]));
  assert(simplify([mul(x, ones)])[0] === x);
  const small = input("s", [1]);
  const zeros = constant(tensor([0, 0]));
  for (const y of [mul(small, ones), mul(ones, small), add(small, zeros)]) {
    assertEquals(simplify([y])[0].shape, [2]);
  }
});

Deno.test("simplify() drops overrides and what only gradients need", () => {
  const x = input("x", [2]);
  const other = exp(input("other", [2]));
  const y = stopGradient(withGradient(neg(x), [other], (g) => [g]));
  const [simple] = simplify([y]);
  assertEquals(topologicalOrder([simple]), [x, simple]);
});

Deno.test("simplify() leaves the nodes it was given alone", () => {
  const x = input("x", [2]);
  const y = add(exp(x), exp(x));
  const before = topologicalOrder([y]).map(({ id }) => id);
  simplify([y]);
  assertEquals(topologicalOrder([y]).map(({ id }) => id), before);
});

/** Host values of elementwise ops on [3] and scalars, to check passes by. */
const HOST: Readonly<Record<string, (a: number, b: number) => number>> = {
  Add: (a, b) => a + b,
  Sub: (a, b) => a - b,
  Mul: (a, b) => a * b,
  Max: (a, b) => Math.max(a, b),
  Min: (a, b) => Math.min(a, b),
  Neg: (a) => -a,
  Abs: (a) => Math.abs(a),
  Relu: (a) => Math.max(a, 0),
  "robust-reps.GradientOverride": (a) => a,
};

function interpret(
  outputs: readonly Node[],
  feeds: Readonly<Record<string, Tensor>>,
): number[][] {
  const values = new Map<Node, readonly number[]>();
  for (const node of topologicalOrder(outputs)) {
    const known = node.kind === "input" ? feeds[node.name] : node.value;
    const [a, b] = node.inputs.map((x) => values.get(x)!);
    const at = (list: readonly number[] | undefined, i: number) =>
      list ? list[list.length === 1 ? 0 : i] : NaN;
    values.set(
      node,
      known
        ? Array.from(known.data, Number)
        : Array.from({ length: node.shape[0] ?? 1 }, (_, i) =>
          Math.fround(HOST[node.op!.type](at(a, i), at(b, i)))),
    );
  }
  return outputs.map((node) => [...values.get(node)!]);
}

/** A random graph of elementwise ops, with many equal parts. */
function randomGraph(random: Random): Node[] {
  const nodes: Node[] = [
    input("x", [3]),
    input("s", []),
    constant(1),
    constant(0),
    constant(tensor([1, 1, 1])),
    constant(tensor([-0.5, 0, 2])),
  ];
  const pick = () => nodes[random.integer(nodes.length)];
  const makers: readonly (() => Node)[] = [
    () => add(pick(), pick()),
    () => sub(pick(), pick()),
    () => mul(pick(), pick()),
    () => maximum(pick(), pick()),
    () => minimum(pick(), pick()),
    () => neg(pick()),
    () => abs(pick()),
    () => relu(pick()),
    () => fakeRelu(pick()),
    () => stopGradient(pick()),
    () => withGradient(pick(), [pick()], (g) => [g]),
    () => mul(pick(), 1),
    () => add(0, pick()),
    () => neg(nodes[0]),
  ];
  for (let i = 0; i < 40; i++) {
    nodes.push(makers[random.integer(makers.length)]());
  }
  return nodes.slice(-6);
}

Deno.test("simplify() never changes values of random graphs", () => {
  let [before, after] = [0, 0];
  for (let seed = 0; seed < 300; seed++) {
    const random = new Random(seed);
    const outputs = randomGraph(random);
    const feeds = { x: random.normal([3]), s: random.normal([]) };
    const simple = simplify(outputs);
    assertEquals(interpret(simple, feeds), interpret(outputs, feeds));
    assertEquals(simple.map((y) => y.shape), outputs.map((y) => y.shape));
    before += opsOf(outputs);
    after += opsOf(simple);
  }
  assert(after < 0.9 * before, `Expected fewer ops: ${before} to ${after}`);
});

Deno.test("random graphs run as they are interpreted", async () => {
  for (let seed = 0; seed < 10; seed++) {
    const random = new Random(seed);
    const outputs = randomGraph(random);
    const feeds = { x: random.normal([3]), s: random.normal([]) };
    const expected = interpret(outputs, feeds);
    const found = await evaluate(
      Object.fromEntries(outputs.map((y, i) => [`y${i}`, y])),
      feeds,
    );
    outputs.forEach((y, i) => {
      assertAllClose(found[`y${i}`], tensor(expected[i], y.shape), {
        tolerance: 1e-5,
        name: `seed ${seed}, output ${i}`,
      });
    });
  }
});

Deno.test("simplify() shares what a value and its gradient both need", () => {
  const x = input("x", [3]);
  const y = exp(mul(x, x));
  const [g] = grad(y, [x]);
  const exps = topologicalOrder(simplify([y, g]))
    .filter(({ op }) => op?.type === "Exp");
  assertEquals(exps.length, 1);
});

Deno.test("expressionKey() tells what is computed, across graphs", () => {
  const key = (node: Node) => expressionKey(node, new Map());
  const product = (name: string, factor: number) =>
    mul(parameter(name, [2]), factor);
  assertEquals(key(product("a", 2)), key(product("a", 2)));
  const others = [
    product("a", 2),
    product("b", 2),
    product("a", 3),
    add(parameter("a", [2]), 2),
    mul(input("a", [2]), 2),
    mul(parameter("a", [1]), 2),
    reshape(product("a", 2), [2, 1]),
  ].map(key);
  assertEquals(new Set(others).size, others.length);
});
