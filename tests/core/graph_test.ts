import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  add,
  apply,
  constant,
  defineOp,
  exp,
  fakeRelu,
  grad,
  input,
  mul,
  type Node,
  parameter,
  relu,
  simplify,
  stopGradient,
  sub,
  tensor,
  tensorOf,
  topologicalOrder,
  withGradient,
} from "../../core/mod.ts";
import { int64s, readInt64s, scalarValue } from "../../core/graph.ts";
import { exportModel } from "../../onnx/mod.ts";
import { evaluate } from "../_assert.ts";

Deno.test("nodes know their kind, dtype and shape", () => {
  const x = input("x", [2, 3]);
  const i = input("i", [4], "int64");
  const w = parameter("w", [3]);
  assertEquals([x.kind, x.dtype, x.shape], ["input", "float32", [2, 3]]);
  assertEquals([i.kind, i.dtype], ["input", "int64"]);
  assertEquals([w.kind, w.name], ["parameter", "w"]);
  assertEquals(constant(2).shape, []);
  assertEquals(`${x} ${mul(x, w)}`, "input x[2, 3] Mul [2, 3]");
});

Deno.test("constants are read back by shape rules", () => {
  assertEquals(readInt64s(int64s([3, -1])), [3, -1]);
  assertEquals(scalarValue(constant(0.5)), 0.5);
  assertEquals(scalarValue(constant(tensor([1, 2]))), null);
  assertEquals(scalarValue(input("x", [])), null);
  const one = tensorOf("int64", BigInt64Array.of(1n), []);
  assertEquals(scalarValue(constant(one)), null);
  assertEquals(
    assertThrows(() => readInt64s(input("x", [2])), TypeError).message,
    "Cannot read input x[2]: need a constant of int64",
  );
});

Deno.test("apply() takes shape and dtype from the op's rules", () => {
  const Shape = defineOp({
    type: "Shape",
    shape: ([x]) => [x.shape.length],
    dtype: () => "int64",
  });
  const y = apply(Shape, [input("x", [2, 3])]);
  assertEquals([y.shape, y.dtype], [[2], "int64"]);
});

Deno.test("topologicalOrder() puts each node once, after its inputs", () => {
  const x = input("x", [2]);
  const a = relu(x);
  const b = add(a, a);
  const c = mul(b, x);
  assertEquals(topologicalOrder([c, b]), [x, a, b, c]);
  assertEquals(topologicalOrder([b, c]), [x, a, b, c]);
  assertEquals(topologicalOrder([c], () => []), [c]);
});

Deno.test("graphs of 50,000 nodes in a row do not overflow the stack", () => {
  const x = input("x", [2]);
  let y: Node = x;
  for (let i = 0; i < 25_000; i++) y = mul(add(y, x), 0.5);
  const [g] = grad(y, [x]);
  assert(topologicalOrder([y]).length > 50_000);
  assertEquals(simplify([y, g]).map(({ shape }) => shape), [[2], [2]]);
  assertEquals(exportModel({ y }).operators.get("Add"), 25_000);
});

Deno.test("withGradient() keeps the value and replaces the gradient", async () => {
  const x = input("x", [2]);
  const z = input("z", [2]);
  const y = withGradient(exp(x), [z], (g) => [mul(g, 3)]);
  const [gx, gz] = grad(mul(y, 2), [x, z]);
  const found = await evaluate({ y, gx, gz }, { x: tensor([0, 0]) });
  assertEquals(found.y.data, Float32Array.of(1, 1));
  assertEquals(found.gx.data, Float32Array.of(0, 0));
  assertEquals(found.gz.data, Float32Array.of(6, 6));
});

Deno.test("stopGradient() lets values through and no gradient", async () => {
  const x = input("x", [2]);
  const y = mul(x, stopGradient(x));
  const [g] = grad(y, [x]);
  const feeds = { x: tensor([3, -4]) };
  const found = await evaluate({ y, g }, feeds);
  assertEquals(found.y.data, Float32Array.of(9, 16));
  assertEquals(found.g.data, feeds.x.data);
});

Deno.test("fakeRelu() has relu()'s value and the identity's gradient", async () => {
  const x = input("x", [3]);
  const y = fakeRelu(x);
  const [g] = grad(y, [x], constant(tensor([5, 6, 7])));
  const difference = sub(y, relu(x));
  const found = await evaluate({ y, g, difference }, {
    x: tensor([-1, 0, 2]),
  });
  assertEquals(found.y.data, Float32Array.of(0, 0, 2));
  assertEquals(found.g.data, Float32Array.of(5, 6, 7));
  assertEquals(found.difference.data, Float32Array.of(0, 0, 0));
});
