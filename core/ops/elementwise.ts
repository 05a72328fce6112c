/**
 * Ops on each element: arithmetic, comparison, choice.
 *
 * @module
 */
import { apply, constant, defineOp, type Node, type Op } from "../graph.ts";
import { broadcast } from "../shape.ts";

/** A node, or a number that becomes a float32 scalar. */
export type Operand = Node | number;

function toNode(operand: Operand): Node {
  return typeof operand === "number" ? constant(operand) : operand;
}

const broadcasting = ([a, b]: readonly Node[]) => broadcast(a.shape, b.shape);
const unchanged = ([x]: readonly Node[]) => x.shape;

const Add = defineOp({
  type: "Add",
  shape: broadcasting,
  vjp: ({ upstream: g }) => [g, g],
});

/**
 * Sum of two broadcastable tensors.
 *
 * @throws {TypeError} If the shapes cannot be broadcast
 */
export function add(a: Operand, b: Operand): Node {
  return apply(Add, [toNode(a), toNode(b)]);
}

const Sub = defineOp({
  type: "Sub",
  shape: broadcasting,
  vjp: ({ upstream: g }) => [g, neg(g)],
});

/**
 * Difference of two broadcastable tensors.
 *
 * @throws {TypeError} If the shapes cannot be broadcast
 */
export function sub(a: Operand, b: Operand): Node {
  return apply(Sub, [toNode(a), toNode(b)]);
}

const Mul = defineOp({
  type: "Mul",
  shape: broadcasting,
  vjp: ({ inputs: [a, b], upstream: g }) => [mul(g, b), mul(g, a)],
});

/**
 * Elementwise product of two broadcastable tensors.
 *
 * @throws {TypeError} If the shapes cannot be broadcast
 */
export function mul(a: Operand, b: Operand): Node {
  return apply(Mul, [toNode(a), toNode(b)]);
}

const Div = defineOp({
  type: "Div",
  shape: broadcasting,
  vjp: ({ inputs: [, b], output, upstream: g }) => [
    div(g, b),
    neg(div(mul(g, output), b)),
  ],
});

/**
 * Quotient of two broadcastable tensors.
 *
 * @throws {TypeError} If the shapes cannot be broadcast
 */
export function div(a: Operand, b: Operand): Node {
  return apply(Div, [toNode(a), toNode(b)]);
}

const Neg = defineOp({
  type: "Neg",
  shape: unchanged,
  vjp: ({ upstream: g }) => [neg(g)],
});

/** `-x`. */
export function neg(x: Node): Node {
  return apply(Neg, [x]);
}

const Exp = defineOp({
  type: "Exp",
  shape: unchanged,
  vjp: ({ output, upstream: g }) => [mul(g, output)],
});

/** `e^x`. */
export function exp(x: Node): Node {
  return apply(Exp, [x]);
}

const Log = defineOp({
  type: "Log",
  shape: unchanged,
  vjp: ({ inputs: [x], upstream: g }) => [div(g, x)],
});

/** Natural logarithm. */
export function log(x: Node): Node {
  return apply(Log, [x]);
}

const Sqrt = defineOp({
  type: "Sqrt",
  shape: unchanged,
  vjp: ({ output, upstream: g }) => [div(mul(g, 0.5), output)],
});

/** Square root; its gradient at 0 is infinite, see `l2Norm()`. */
export function sqrt(x: Node): Node {
  return apply(Sqrt, [x]);
}

const Abs = defineOp({
  type: "Abs",
  shape: unchanged,
  vjp: ({ inputs: [x], upstream: g }) => [mul(g, sign(x))],
});

/** Absolute value; the gradient at 0 is 0. */
export function abs(x: Node): Node {
  return apply(Abs, [x]);
}

const Tanh = defineOp({
  type: "Tanh",
  shape: unchanged,
  vjp: ({ output, upstream: g }) => [mul(g, sub(1, mul(output, output)))],
});

/** Hyperbolic tangent. */
export function tanh(x: Node): Node {
  return apply(Tanh, [x]);
}

const Sigmoid = defineOp({
  type: "Sigmoid",
  shape: unchanged,
  vjp: ({ output, upstream: g }) => [mul(g, mul(output, sub(1, output)))],
});

/** Logistic function. */
export function sigmoid(x: Node): Node {
  return apply(Sigmoid, [x]);
}

const Floor = defineOp({ type: "Floor", shape: unchanged });

/** Largest integer not above x; no gradient. */
export function floor(x: Node): Node {
  return apply(Floor, [x]);
}

const Relu = defineOp({
  type: "Relu",
  shape: unchanged,
  vjp: ({ output, upstream: g }) => [mul(g, isPositive(output))],
});

/** `max(x, 0)`; the gradient at exactly 0 is 0. */
export function relu(x: Node): Node {
  return apply(Relu, [x]);
}

const FakeRelu = defineOp({
  type: "Relu",
  shape: unchanged,
  vjp: ({ upstream: g }) => [g],
});

/**
 * ReLU forwards, identity backwards ("fake relu" of the reference code): else
 * a dead coordinate of the representation has no gradient to wake it.
 */
export function fakeRelu(x: Node): Node {
  return apply(FakeRelu, [x]);
}

const HardSigmoid = defineOp({ type: "HardSigmoid", shape: unchanged });

/** Largest finite float32. */
const MAX_FLOAT32 = 3.4028234663852886e38;

/**
 * 1 where x > 0, else 0, for x >= 0 such as the result of a ReLU.
 *
 * `max(0, min(1, x * 3.4e38))` is exact down to x = 3e-39 and, unlike a
 * comparison, keeps ONNX Runtime's blocked layout between convolutions.
 */
export function isPositive(x: Node): Node {
  return apply(HardSigmoid, [x], {
    alpha: { float: MAX_FLOAT32 },
    beta: { float: 0 },
  });
}

/** Gradient rule of max and min: to the larger (smaller), halved at a tie. */
function toWinner(wins: (a: Node, b: Node) => Node): Op["vjp"] {
  return ({ inputs: [a, b], upstream: g }) => {
    const first = toFloat(wins(a, b));
    const tie = mul(toFloat(equal(a, b)), 0.5);
    const share = add(first, tie);
    return [mul(g, share), mul(g, sub(1, share))];
  };
}

const Max = defineOp({
  type: "Max",
  shape: broadcasting,
  vjp: toWinner((a, b) => greater(a, b)),
});

/**
 * Larger of two broadcastable tensors; a tie halves the gradient.
 *
 * @throws {TypeError} If the shapes cannot be broadcast
 */
export function maximum(a: Operand, b: Operand): Node {
  return apply(Max, [toNode(a), toNode(b)]);
}

const Min = defineOp({
  type: "Min",
  shape: broadcasting,
  vjp: toWinner((a, b) => greater(b, a)),
});

/**
 * Smaller of two broadcastable tensors; a tie halves the gradient.
 *
 * @throws {TypeError} If the shapes cannot be broadcast
 */
export function minimum(a: Operand, b: Operand): Node {
  return apply(Min, [toNode(a), toNode(b)]);
}

const Clip = defineOp({
  type: "Clip",
  shape: unchanged,
  vjp: ({ inputs: [x], output, upstream: g }) => [
    // Both ends included, as in the reference code.
    mul(g, toFloat(equal(x, output))),
    null,
    null,
  ],
});

/**
 * Limits values to [low, high]; the gradient passes inside and at both ends.
 *
 * @throws {RangeError} If low > high
 */
export function clip(x: Node, low: number, high: number): Node {
  if (!(low <= high)) {
    throw new RangeError(`Cannot clip to [${low}, ${high}]: need low <= high`);
  }
  return apply(Clip, [x, constant(low), constant(high)]);
}

const bool = () => "bool" as const;

const Greater = defineOp({ type: "Greater", shape: broadcasting, dtype: bool });

/**
 * Where a > b, as bool.
 *
 * @throws {TypeError} If the shapes cannot be broadcast
 */
export function greater(a: Operand, b: Operand): Node {
  return apply(Greater, [toNode(a), toNode(b)]);
}

const Equal = defineOp({ type: "Equal", shape: broadcasting, dtype: bool });

/**
 * Where a = b, as bool.
 *
 * @throws {TypeError} If the shapes cannot be broadcast
 */
export function equal(a: Operand, b: Operand): Node {
  return apply(Equal, [toNode(a), toNode(b)]);
}

const CastToFloat = defineOp({
  type: "Cast",
  shape: unchanged,
  dtype: () => "float32",
});

/** bool or int64 to float32; no gradient. */
export function toFloat(x: Node): Node {
  return apply(CastToFloat, [x], { to: { int: 1 } });
}

const Where = defineOp({
  type: "Where",
  shape: ([condition, a, b]) =>
    broadcast(condition.shape, broadcast(a.shape, b.shape)),
  dtype: ([, a]) => a.dtype,
  vjp: ({ inputs: [condition], upstream: g }) => [
    null,
    where(condition, g, 0),
    where(condition, 0, g),
  ],
});

/**
 * `a` where the condition holds, else `b`.
 *
 * @throws {TypeError} If the shapes cannot be broadcast
 */
export function where(condition: Node, a: Operand, b: Operand): Node {
  return apply(Where, [condition, toNode(a), toNode(b)]);
}

/**
 * -1, 0 or 1; no gradient. From comparisons: the WebGPU provider lacks Sign.
 */
export function sign(x: Node): Node {
  return sub(toFloat(greater(x, 0)), toFloat(greater(0, x)));
}
