/**
 * Matrix products.
 *
 * @module
 */
import { apply, defineOp, type Node } from "../graph.ts";
import { broadcast, show } from "../shape.ts";
import { transpose } from "./movement.ts";

/** Swaps the last two axes. */
function transposeLast(x: Node): Node {
  const rank = x.shape.length;
  const order = x.shape.map((_, axis) => axis);
  [order[rank - 2], order[rank - 1]] = [rank - 1, rank - 2];
  return transpose(x, order);
}

const MatMul = defineOp({
  type: "MatMul",
  shape([{ shape: a }, { shape: b }]) {
    if (a.length < 2 || b.length < 2 || a.at(-1) !== b.at(-2)) {
      throw new TypeError(
        `Cannot multiply ${show(a)} by ${show(b)}: inner sizes must be equal`,
      );
    }
    const batch = broadcast(a.slice(0, -2), b.slice(0, -2));
    return [...batch, a.at(-2)!, b.at(-1)!];
  },
  vjp: ({ inputs: [a, b], upstream: g }) => [
    matmul(g, transposeLast(b)),
    matmul(transposeLast(a), g),
  ],
});

/**
 * Matrix product over the last two axes; axes before them broadcast.
 *
 * @param a Left matrices, `[..., n, k]`
 * @param b Right matrices, `[..., k, m]`
 * @returns The products, `[..., n, m]`
 * @throws {TypeError} If the inner sizes differ
 */
export function matmul(a: Node, b: Node): Node {
  return apply(MatMul, [a, b]);
}

const Gemm = defineOp({
  type: "Gemm",
  shape([{ shape: a }, { shape: b }], { transA, transB }) {
    const [n, k] = flag(transA) ? [a[1], a[0]] : a;
    const [k2, m] = flag(transB) ? [b[1], b[0]] : b;
    if (a.length !== 2 || b.length !== 2 || k !== k2) {
      throw new TypeError(
        `Cannot multiply ${show(a)} by ${show(b)}: inner sizes must be equal`,
      );
    }
    return [n, m];
  },
  vjp: ({ inputs: [a, b, c], attributes: { transA, transB }, upstream: g }) => {
    const [tA, tB] = [flag(transA), flag(transB)];
    const ga = tA
      ? gemm(b, g, { transA: tB, transB: true })
      : gemm(g, b, { transB: !tB });
    const gb = tB
      ? gemm(g, a, { transA: true, transB: tA })
      : gemm(a, g, { transA: !tA });
    return c ? [ga, gb, g] : [ga, gb];
  },
});

function flag(attribute: unknown): boolean {
  return (attribute as { int: number } | undefined)?.int === 1;
}

/** Options of `gemm()`. */
export interface GemmOptions {
  /** Use the transpose of `a`. */
  readonly transA?: boolean;
  /** Use the transpose of `b`. */
  readonly transB?: boolean;
  /** Added to every row, `[m]`. */
  readonly bias?: Node;
}

/**
 * Product of two matrices, either transposed, plus a row.
 *
 * @param a `[n, k]`, or `[k, n]` with `transA`
 * @param b `[k, m]`, or `[m, k]` with `transB`
 * @returns `[n, m]`
 * @throws {TypeError} If the inner sizes differ
 */
export function gemm(a: Node, b: Node, options: GemmOptions = {}): Node {
  const { transA = false, transB = false, bias } = options;
  return apply(Gemm, bias ? [a, b, bias] : [a, b], {
    transA: { int: transA ? 1 : 0 },
    transB: { int: transB ? 1 : 0 },
  });
}
