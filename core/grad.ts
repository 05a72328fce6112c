/**
 * Reverse-mode differentiation: gradients are plain nodes of the same graph.
 *
 * @module
 */
import { constant, type Node, topologicalOrder } from "./graph.ts";
import { add, reshape, sum } from "./ops/mod.ts";
import { broadcastAxes, sameShape, show } from "./shape.ts";
import { full } from "./tensor.ts";

/**
 * Gradients of the sum of a node's elements.
 *
 * @param output What is differentiated; its elements are summed
 * @param wrt Nodes to differentiate with respect to
 * @param upstream Weight of each element of `output` (default: all 1)
 * @returns One node per node of `wrt`, of its shape; zeros where `output`
 * does not depend on it
 * @throws {TypeError} If `upstream` has another shape, or a node in between
 * has no gradient rule
 *
 * @example
 * ```ts
 * import { grad, input, mul, sum } from "./mod.ts";
 * const x = input("x", [3]);
 * const [g] = grad(sum(mul(x, x)), [x]); // 2 x
 * ```
 */
export function grad(
  output: Node,
  wrt: readonly Node[],
  upstream?: Node,
): Node[] {
  if (upstream && !sameShape(upstream.shape, output.shape)) {
    throw new TypeError(
      `Cannot weigh ${show(output.shape)} by ${show(upstream.shape)}: ` +
        `shapes must be equal`,
    );
  }
  const order = topologicalOrder([output]);
  const depends = new Set<Node>(wrt);
  for (const node of order) {
    if (node.inputs.some((x) => depends.has(x))) depends.add(node);
  }
  const gradients = new Map<Node, Node>();
  gradients.set(output, upstream ?? constant(full(output.shape, 1)));
  for (const node of order.reverse()) {
    const g = gradients.get(node);
    if (!g || !node.op || !depends.has(node)) continue;
    if (!node.inputs.some((x) => depends.has(x))) continue;
    if (!node.op.vjp) {
      // Integers and comparisons are constant almost everywhere.
      if (node.dtype !== "float32" || node.op.type === "Cast") continue;
      throw new TypeError(`Cannot differentiate ${node}: no gradient rule`);
    }
    const { inputs, attributes } = node;
    const parts = node.op.vjp({
      inputs,
      attributes,
      output: node,
      upstream: g,
    });
    inputs.forEach((x, i) => {
      const part = parts[i];
      if (!part || !depends.has(x)) return;
      const summed = sumTo(part, x);
      const sofar = gradients.get(x);
      gradients.set(x, sofar ? add(sofar, summed) : summed);
    });
  }
  return wrt.map((x) => gradients.get(x) ?? constant(full(x.shape, 0)));
}

/** Sums a gradient over the axes along which `x` was broadcast. */
function sumTo(g: Node, x: Node): Node {
  if (sameShape(g.shape, x.shape)) return g;
  return reshape(sum(g, broadcastAxes(x.shape, g.shape)), x.shape);
}
