import { assertEquals, assertThrows } from "@std/assert";
import {
  adaptiveAveragePool,
  add,
  batchNormTrain,
  constant,
  crossEntropy,
  equal,
  exp,
  floor,
  gather,
  grad,
  input,
  isPositive,
  l2Norm,
  logSoftmax,
  matmul,
  maximum,
  mul,
  type Node,
  relu,
  resizeBilinear,
  softmax,
  sum,
  tensor,
  tensorOf,
  toFloat,
} from "../../core/mod.ts";
import { assertAllClose, assertGradient, evaluate } from "../_assert.ts";

/** Value of a gradient at x. */
async function gradientAt(
  y: (x: Node) => Node,
  values: readonly number[],
): Promise<number[]> {
  const x = input("x", [values.length]);
  const [g] = grad(y(x), [x]);
  return [...(await evaluate({ g }, { x: tensor(values) })).g.data].map(Number);
}

Deno.test("grad() of an unused node is zeros of its shape", async () => {
  const x = input("x", [2]);
  const unused = input("unused", [3, 1]);
  const [g] = grad(sum(x), [unused]);
  assertEquals((await evaluate({ g })).g, tensor([0, 0, 0], [3, 1]));
});

Deno.test("grad() with respect to the output itself is the upstream", async () => {
  const x = input("x", [2]);
  const [ones] = grad(x, [x]);
  const weights = constant(tensor([3, 4]));
  const [weighted] = grad(x, [x], weights);
  const found = await evaluate({ ones, weighted });
  assertEquals(found.ones.data, Float32Array.of(1, 1));
  assertEquals(found.weighted.data, Float32Array.of(3, 4));
});

Deno.test("grad() with respect to a node in between", async () => {
  const x = input("x", [2]);
  const square = mul(x, x);
  const [g, gx] = grad(mul(square, 3), [square, x]);
  const found = await evaluate({ g, gx }, { x: tensor([5, 7]) });
  assertEquals(found.g.data, Float32Array.of(3, 3));
  assertEquals(found.gx.data, Float32Array.of(30, 42));
});

Deno.test("grad() adds up over every use of a node", async () => {
  const cube = (x: Node) => add(mul(mul(x, x), x), x);
  assertEquals(await gradientAt(cube, [0, 2]), [1, 13]);
});

Deno.test("grad() of a gradient is the second derivative", async () => {
  const x = input("x", [2]);
  const [first] = grad(mul(mul(x, x), x), [x]);
  const [second] = grad(first, [x]);
  const found = await evaluate({ second }, { x: tensor([1, -2]) });
  assertEquals(found.second.data, Float32Array.of(6, -12));
});

Deno.test("grad() sums over broadcast axes", async () => {
  const row = input("row", [3]);
  const column = input("column", [2, 1]);
  const y = mul(row, column);
  const [g, h] = grad(y, [row, column]);
  const found = await evaluate({ g, h }, {
    row: tensor([1, 2, 3]),
    column: tensor([10, 20], [2, 1]),
  });
  assertEquals(found.g, tensor([30, 30, 30]));
  assertEquals(found.h, tensor([6, 6], [2, 1]));
});

Deno.test("grad() stops at comparisons and casts", async () => {
  const chosen = (x: Node) => mul(x, toFloat(equal(x, 2)));
  assertEquals(await gradientAt(chosen, [1, 2]), [0, 1]);
});

Deno.test("grad() ignores ops without a rule that nothing asked for", async () => {
  const x = input("x", [2]);
  const y = input("y", [2]);
  const [g] = grad(mul(floor(x), y), [y]);
  const feeds = { x: tensor([1.5, -0.5]) };
  assertEquals((await evaluate({ g }, feeds)).g.data, Float32Array.of(1, -1));
});

Deno.test("grad() refuses an upstream of another shape", () => {
  const x = input("x", [2]);
  assertEquals(
    assertThrows(() => grad(x, [x], constant(1)), TypeError).message,
    "Cannot weigh [2] by []: shapes must be equal",
  );
});

Deno.test("grad() refuses ops without a gradient rule", () => {
  const x = input("x", [2]);
  const first = constant(tensorOf("int64", BigInt64Array.of(0n), [1]));
  const cases: readonly [Node, string][] = [
    [floor(x), "Floor [2]"],
    [isPositive(x), "HardSigmoid [2]"],
    [gather(x, first, 0), "Gather [1]"],
  ];
  for (const [y, name] of cases) {
    assertEquals(
      assertThrows(() => grad(y, [x]), TypeError).message,
      `Cannot differentiate ${name}: no gradient rule`,
    );
  }
});

const COMPOSITIONS: readonly [
  string,
  (...inputs: Node[]) => Node,
  number[][],
][] = [
  ["logSoftmax", logSoftmax, [[2, 4]]],
  ["softmax", softmax, [[2, 4]]],
  ["crossEntropy", crossEntropy, [[3, 4], [3, 4]]],
  ["l2Norm", l2Norm, [[2, 3, 2]]],
  [
    "batchNormTrain",
    (x, gamma, beta) => batchNormTrain(x, gamma, beta, 1e-5).output,
    [[3, 2, 3, 2], [2], [2]],
  ],
  ["resizeBilinear", (x) => resizeBilinear(x, [5, 2]), [[1, 2, 3, 4]]],
  [
    "adaptiveAveragePool",
    (x) => adaptiveAveragePool(x, [2, 3]),
    [[1, 2, 5, 4]],
  ],
];

for (const [name, call, shapes] of COMPOSITIONS) {
  Deno.test(`${name}() gradient matches central differences`, async () => {
    await assertGradient(call, shapes, { seed: 0, tolerance: 2e-3 });
  });
}

Deno.test("a small network's gradient matches central differences", async () => {
  const network = (x: Node, w: Node, v: Node) =>
    l2Norm(softmax(matmul(maximum(matmul(x, w), -10), exp(v))));
  await assertGradient(network, [[2, 3], [3, 4], [4, 2]], {
    seed: 1,
    tolerance: 2e-3,
    step: 5e-3,
  });
});

Deno.test("l2Norm() has gradient 0 at length 0", async () => {
  const x = input("x", [2, 2]);
  const [g] = grad(l2Norm(x), [x]);
  const found = await evaluate({ g }, { x: tensor([0, 0, 3, 4], [2, 2]) });
  assertAllClose(found.g, tensor([0, 0, 0.6, 0.8], [2, 2]), {
    tolerance: 1e-6,
  });
});

Deno.test("relu() of a large input keeps its gradient", async () => {
  assertEquals(await gradientAt(relu, [1e-30, 1e30, -1e30]), [1, 1, 0]);
});
