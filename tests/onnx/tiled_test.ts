/**
 * Formulations for the WebGPU provider give what ONNX Runtime's own convolutions
 * give: computed on the CPU provider, which knows all of their operators.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type Node, topologicalOrder } from "../../core/mod.ts";
import { useTiledKernels } from "../../onnx/tiled.ts";
import { evaluate } from "../_assert.ts";
import { assertPlain } from "../_plain.ts";
import { TILED_CASES, tiledCase } from "./_tiled.ts";

function operators(node: Node): Set<string> {
  return new Set(
    topologicalOrder([node]).flatMap(({ op }) => op ? [op.type] : []),
  );
}

for (const each of TILED_CASES) {
  const { name, outputs, feeds } = tiledCase(each);
  Deno.test(`useTiledKernels() computes a convolution of ${name}`, async () => {
    const nodes = useTiledKernels(Object.values(outputs));
    const found = Object.fromEntries(
      Object.keys(outputs).map((name, i) => [name, nodes[i]]),
    );
    const { convolution, weights } = each.expected;
    const used = operators(found.y);
    assertEquals(
      used.has("Conv") ? "Conv" : used.has("Gather") ? "columns" : "Winograd",
      convolution,
    );
    assertEquals(
      operators(found.gw).has("Gemm") ? "at once" : "per image",
      weights,
    );
    await assertPlain(await evaluate(found, feeds), outputs, feeds, 5e-6);
  });
}
