/**
 * Formulations for the WebGPU provider give what ONNX Runtime's own convolutions
 * give: computed on the CPU provider, which knows all of their operators.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  conv2d,
  input,
  type Node,
  parameter,
  topologicalOrder,
} from "../../core/mod.ts";
import { useTiledKernels } from "../../onnx/tiled.ts";
import { evaluate } from "../_assert.ts";
import { assertPlain } from "../_plain.ts";
import { TILED_CASES, tiledCase } from "./_tiled.ts";

/** Nodes by operator. */
function operators(node: Node): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { op } of topologicalOrder([node])) {
    if (op) counts[op.type] = (counts[op.type] ?? 0) + 1;
  }
  return counts;
}

/** Which way a convolution was taken. */
function wayOf(node: Node): string {
  const { Conv, Gather, MatMul } = operators(node);
  if (Conv || Gather) return Conv ? "Conv" : "columns";
  // Weights to points, products, and one transform or two there and back.
  return MatMul === 4 ? "whole" : "separate";
}

for (const each of TILED_CASES) {
  const { name, outputs, feeds } = tiledCase(each);
  Deno.test(`useTiledKernels() computes a convolution of ${name}`, async () => {
    const nodes = useTiledKernels(Object.values(outputs));
    const found = Object.fromEntries(
      Object.keys(outputs).map((name, i) => [name, nodes[i]]),
    );
    const { convolution, weights } = each;
    assertEquals(wayOf(found.y), convolution);
    assertEquals(
      operators(found.gw).Gemm ? "at once" : "per image",
      weights,
    );
    await assertPlain(await evaluate(found, feeds), outputs, feeds, 5e-6);
  });
}

Deno.test("useTiledKernels() counts what is made of weights in every run", () => {
  const x = input("x", [32, 128, 16, 16]);
  const w = parameter("w", [128, 128, 3, 3]);
  const y = conv2d(x, w, { padding: 1 });
  assertEquals(wayOf(useTiledKernels([y])[0]), "separate");
  assertEquals(
    wayOf(useTiledKernels([y], (name) => name === "w")[0]),
    "separate",
  );
  assertEquals(wayOf(useTiledKernels([y], () => false)[0]), "Conv");
});

Deno.test("useTiledKernels() makes no array that few devices can bind", () => {
  // 512 channels of 28 x 28, as in VGG at 224 x 224: 1.8 GB of columns.
  const x = input("x", [128, 512, 28, 28]);
  const w = parameter("w", [512, 512, 3, 3]);
  const [y] = useTiledKernels([conv2d(x, w, { padding: 1 })]);
  assertEquals(wayOf(y), "Conv");
});
