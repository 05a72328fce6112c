/**
 * One row or more for every op of core/ops: what ops_test.ts checks on the CPU
 * and tests/onnx/webgpu_test.ts on WebGPU.
 *
 * @module
 */
import {
  type AnyTensor,
  constant,
  grad,
  input,
  type Node,
  Random,
  type Shape,
  tensor,
  tensorOf,
} from "../../core/mod.ts";
import * as ops from "../../core/ops/mod.ts";
import { type Domain, drawInputs } from "../_assert.ts";

/** Name of a function of core/ops. */
export type OpName = keyof typeof ops;

/** A call of an op and what is known about it. */
export interface OpCase {
  readonly op: OpName;
  /** What is special about the call. */
  readonly about: string;
  readonly call: (...inputs: Node[]) => Node;
  readonly inputs: readonly AnyTensor[];
  /** Computed by hand; left out where only shape and gradient are checked. */
  readonly expected?: AnyTensor;
  /** Where gradients are checked, or why they are not. */
  readonly gradient: Domain | { readonly none: string };
}

const t = tensor;
const int64 = (values: readonly number[], shape: Shape = [values.length]) =>
  tensorOf("int64", BigInt64Array.from(values, BigInt), shape);
const bool = (values: readonly number[], shape: Shape = [values.length]) =>
  tensorOf("bool", Uint8Array.from(values), shape);
const count = (...shape: number[]) => {
  const size = shape.reduce((product, n) => product * n, 1);
  return t(Array.from({ length: size }, (_, i) => i + 1), shape);
};
const random = (...shape: number[]) => new Random(5).normal(shape);

const m23 = t([1, -2, 3, -4, 5, -6], [2, 3]);
const STEPS = { none: "piecewise constant" } as const;
const INDICES = { none: "its result is an index or a truth value" } as const;

/** Theta of affineSample() for one image. */
const theta = (...values: number[]) => constant(t(values, [1, 2, 3]));
const turned = () => {
  const [cos, sin] = [Math.cos(0.5), Math.sin(0.5)];
  const values = [cos, -sin, 0.1, sin, cos, -0.2, 1.3, 0, 0.4, 0.3, -1.2, 0];
  return constant(t(values, [2, 2, 3]));
};

function row(
  op: OpName,
  about: string,
  call: (...inputs: Node[]) => Node,
  inputs: readonly AnyTensor[],
  expected: AnyTensor | undefined,
  gradient: OpCase["gradient"] = "normal",
): OpCase {
  return { op, about, call, inputs, expected, gradient };
}

const MOVEMENT: readonly OpCase[] = [
  row("reshape", "to a column", (x) => ops.reshape(x, [6, 1]), [
    m23,
  ], t([1, -2, 3, -4, 5, -6], [6, 1])),
  row(
    "reshape",
    "to a scalar",
    (x) => ops.reshape(x, []),
    [t([7])],
    t([7], []),
  ),
  row("transpose", "reversed", (x) => ops.transpose(x), [
    m23,
  ], t([1, -4, -2, 5, 3, -6], [3, 2])),
  row("transpose", "of three axes", (x) => ops.transpose(x, [1, 2, 0]), [
    count(2, 1, 3),
  ], t([1, 4, 2, 5, 3, 6], [1, 3, 2])),
  row("transpose", "by negative axes", (x) => ops.transpose(x, [-1, 0, 1]), [
    count(2, 1, 3),
  ], t([1, 4, 2, 5, 3, 6], [3, 2, 1])),
  row(
    "slice",
    "by steps that do not divide",
    (x) => ops.slice(x, [{ axis: 0, start: 1, end: 6, step: 2 }]),
    [count(6)],
    t([2, 4, 6]),
  ),
  row(
    "slice",
    "of two axes",
    (x) =>
      ops.slice(x, [
        { axis: 1, start: 0, end: 3, step: 2 },
        { axis: 0, start: 1, end: 2 },
      ]),
    [m23],
    t([-4, -6], [1, 2]),
  ),
  row(
    "slice",
    "by steps that leave a rest",
    (x) => ops.slice(x, [{ axis: 1, start: 1, end: 7, step: 3 }]),
    [count(2, 8)],
    t([2, 5, 10, 13], [2, 2]),
  ),
  row("flip", "of the last axis", (x) => ops.flip(x, [-1]), [
    m23,
  ], t([3, -2, 1, -6, 5, -4], [2, 3])),
  row("flip", "of both axes", (x) => ops.flip(x, [0, 1]), [
    m23,
  ], t([-6, 5, -4, 3, -2, 1], [2, 3])),
  row("pad", "on one side of each axis", (x) => ops.pad(x, [1, 0], [0, 2]), [
    t([1, 2], [1, 2]),
  ], t([0, 0, 0, 0, 1, 2, 0, 0], [2, 4])),
  row("pad", "by a value", (x) => ops.pad(x, [1], [1], -3), [
    t([1]),
  ], t([-3, 1, -3])),
  row("concat", "along the last axis", (a, b) => ops.concat([a, b], -1), [
    t([1, 2], [2, 1]),
    t([3, 4, 5, 6], [2, 2]),
  ], t([1, 3, 4, 2, 5, 6], [2, 3])),
  row("concat", "of one node twice", (a, b) => ops.concat([a, b, a], 0), [
    t([1], [1, 1]),
    t([2, 3], [2, 1]),
  ], t([1, 2, 3, 1], [4, 1])),
  row("expand", "of an axis of size 1", (x) => ops.expand(x, [2, 3]), [
    t([1, 2], [2, 1]),
  ], t([1, 1, 1, 2, 2, 2], [2, 3])),
  row("expand", "by new axes", (x) => ops.expand(x, [2, 1, 2]), [
    t([1, 2]),
  ], t([1, 2, 1, 2], [2, 1, 2])),
  row("expand", "of a scalar", (x) => ops.expand(x, [2, 2]), [
    t([3], []),
  ], t([3, 3, 3, 3], [2, 2])),
  row("depthToSpace", "of one pixel", (x) => ops.depthToSpace(x, 2), [
    count(1, 4, 1, 1),
  ], count(1, 1, 2, 2)),
  row("depthToSpace", "of two channels", (x) => ops.depthToSpace(x, 2), [
    count(1, 8, 1, 2),
  ], t([1, 5, 2, 6, 9, 13, 10, 14, 3, 7, 4, 8, 11, 15, 12, 16], [1, 2, 2, 4])),
  row("depthToSpace", "by three", (x) => ops.depthToSpace(x, 3), [
    random(2, 9, 2, 3),
  ], undefined),
  row(
    "gather",
    "of columns",
    (x, i) => ops.gather(x, i, 1),
    [
      m23,
      int64([2, 0]),
    ],
    t([3, 1, -6, -4], [2, 2]),
    INDICES,
  ),
  row(
    "gather",
    "by a scalar",
    (x, i) => ops.gather(x, i, -2),
    [
      m23,
      int64([1], []),
    ],
    t([-4, 5, -6]),
    INDICES,
  ),
];

const ELEMENTWISE: readonly OpCase[] = [
  row("add", "of a row", (a, b) => ops.add(a, b), [
    m23,
    t([10, 20, 30]),
  ], t([11, 18, 33, 6, 25, 24], [2, 3])),
  row("add", "of a column and a row", (a, b) => ops.add(a, b), [
    t([1, 2], [2, 1]),
    t([10, 20], [1, 2]),
  ], t([11, 21, 12, 22], [2, 2])),
  row("add", "to itself", (a) => ops.add(a, a), [t([1, 2])], t([2, 4])),
  row("sub", "from a number", (a) => ops.sub(1, a), [t([3, -4])], t([-2, 5])),
  row("sub", "of more axes", (a, b) => ops.sub(a, b), [
    t([1, 2]),
    t([1, 1, 5, 5], [2, 1, 2]),
  ], t([0, 1, -4, -3], [2, 1, 2])),
  row("mul", "of a scalar", (a, b) => ops.mul(a, b), [
    m23,
    t([2], []),
  ], t([2, -4, 6, -8, 10, -12], [2, 3])),
  row("mul", "of inner axes", (a, b) => ops.mul(a, b), [
    t([1, 2, 3, 4], [2, 1, 2]),
    t([1, 10, 100], [1, 3, 1]),
  ], t([1, 2, 10, 20, 100, 200, 3, 4, 30, 40, 300, 400], [2, 3, 2])),
  row(
    "div",
    "by a row",
    (a, b) => ops.div(a, b),
    [t([1, 4, 9, 16], [2, 2]), t([2, 4])],
    t([0.5, 1, 4.5, 4], [2, 2]),
    "positive",
  ),
  row(
    "div",
    "of a number",
    (a) => ops.div(1, a),
    [t([2, -4])],
    t([0.5, -0.25]),
    "positive",
  ),
  row("neg", "of each sign", (x) => ops.neg(x), [t([1, -2, 0])], t([-1, 2, 0])),
  row("exp", "at 0 and 1", (x) => ops.exp(x), [t([0, 1])], t([1, Math.E])),
  row(
    "log",
    "at 1 and e",
    (x) => ops.log(x),
    [t([1, Math.E])],
    t([0, 1]),
    "positive",
  ),
  row(
    "sqrt",
    "of squares",
    (x) => ops.sqrt(x),
    [t([0, 4, 9])],
    t([0, 2, 3]),
    "positive",
  ),
  row(
    "abs",
    "of each sign",
    (x) => ops.abs(x),
    [t([1, -2, 0])],
    t([1, 2, 0]),
    "distinct",
  ),
  row("tanh", "at 0 and ends", (x) => ops.tanh(x), [
    t([0, 30, -30, 0.5]),
  ], t([0, 1, -1, Math.tanh(0.5)])),
  row("sigmoid", "at 0 and ends", (x) => ops.sigmoid(x), [
    t([0, 40, -100, Math.log(3)]),
  ], t([0.5, 1, 0, 0.75])),
  row(
    "floor",
    "of each sign",
    (x) => ops.floor(x),
    [t([1.5, -1.5, 2, -0.25])],
    t([1, -2, 2, -1]),
    STEPS,
  ),
  row(
    "relu",
    "of each sign",
    (x) => ops.relu(x),
    [t([1, -2, 0])],
    t([1, 0, 0]),
    "distinct",
  ),
  row(
    "fakeRelu",
    "of each sign",
    (x) => ops.fakeRelu(x),
    [t([1, -2, 0])],
    t([1, 0, 0]),
    { none: "not that of its value: see grad_test.ts" },
  ),
  row(
    "isPositive",
    "down to the smallest normal number",
    (x) => ops.isPositive(x),
    [t([0, 1.2e-38, 1e-20, 1, 3e38])],
    t([0, 1, 1, 1, 1]),
    STEPS,
  ),
  row(
    "maximum",
    "of a matrix and a row",
    (a, b) => ops.maximum(a, b),
    [m23, t([0, 0, 4])],
    t([1, 0, 4, 0, 5, 4], [2, 3]),
    "distinct",
  ),
  row(
    "minimum",
    "with a number",
    (a) => ops.minimum(a, 1.03),
    [t([0.5, 1.03, 2])],
    t([0.5, 1.03, 1.03]),
    "distinct",
  ),
  row(
    "clip",
    "at both ends",
    (x) => ops.clip(x, -0.1, 0.1),
    [t([-1, -0.1, 0, 0.1, 2])],
    t([-0.1, -0.1, 0, 0.1, 0.1]),
    "distinct",
  ),
  row(
    "greater",
    "of a row and a column",
    (a, b) => ops.greater(a, b),
    [t([1, 2]), t([1, 0], [2, 1])],
    bool([0, 1, 1, 1], [2, 2]),
    INDICES,
  ),
  row(
    "equal",
    "to a number",
    (a) => ops.equal(a, 2),
    [t([1, 2, 3])],
    bool([0, 1, 0]),
    INDICES,
  ),
  row(
    "toFloat",
    "of truth values",
    (x) => ops.toFloat(x),
    [bool([0, 1])],
    t([0, 1]),
    INDICES,
  ),
  row(
    "toFloat",
    "of integers",
    (x) => ops.toFloat(x),
    [int64([-3, 70000])],
    t([-3, 70000]),
    INDICES,
  ),
  row("where", "between broadcast values", (c, a, b) => ops.where(c, a, b), [
    bool([1, 0, 0, 1], [2, 2]),
    t([1, 2]),
    t([9], []),
  ], t([1, 9, 9, 2], [2, 2])),
  row(
    "sign",
    "of each sign",
    (x) => ops.sign(x),
    [t([0, -2, 1e-30])],
    t([0, -1, 1]),
    STEPS,
  ),
];

const REDUCTION: readonly OpCase[] = [
  row("sum", "of all", (x) => ops.sum(x), [m23], t([-3], [])),
  row("sum", "of the last axis", (x) => ops.sum(x, [-1]), [m23], t([2, -5])),
  row("sum", "kept", (x) => ops.sum(x, [0], { keepDims: true }), [
    m23,
  ], t([-3, 3, -3], [1, 3])),
  row("sum", "of outer axes", (x) => ops.sum(x, [0, 2]), [
    count(2, 3, 2),
  ], t([1 + 2 + 7 + 8, 3 + 4 + 9 + 10, 5 + 6 + 11 + 12])),
  row("mean", "of all", (x) => ops.mean(x), [m23], t([-0.5], [])),
  row("mean", "kept", (x) => ops.mean(x, [-1], { keepDims: true }), [
    t([1, 2, 3, 4], [2, 2]),
  ], t([1.5, 3.5], [2, 1])),
  row("max", "of all", (x) => ops.max(x), [m23], t([5], []), "distinct"),
  row(
    "max",
    "of the last axis, kept",
    (x) => ops.max(x, [-1], { keepDims: true }),
    [m23],
    t([3, 5], [2, 1]),
    "distinct",
  ),
  row(
    "max",
    "of two axes of three",
    (x) => ops.max(x, [0, 2]),
    [count(2, 3, 2)],
    t([8, 10, 12]),
    "distinct",
  ),
  row(
    "argMax",
    "with a tie",
    (x) => ops.argMax(x, -1),
    [t([1, 3, 3, 5, 2, 1], [2, 3])],
    int64([1, 0]),
    INDICES,
  ),
  row(
    "argMax",
    "of the first axis",
    (x) => ops.argMax(x, 0),
    [m23],
    int64([0, 1, 0]),
    INDICES,
  ),
];

const LINEAR: readonly OpCase[] = [
  row("matmul", "of matrices", (a, b) => ops.matmul(a, b), [
    m23,
    t([1, 0, 0, 1, 1, 1], [3, 2]),
  ], t([4, 1, -10, -1], [2, 2])),
  row("matmul", "of one matrix and many", (a, b) => ops.matmul(a, b), [
    t([1, 2, 3, 4], [2, 2]),
    t([1, 0, 0, 1, 0, 1, 1, 0], [2, 2, 2]),
  ], t([1, 2, 3, 4, 2, 1, 4, 3], [2, 2, 2])),
  row("matmul", "of broadcast stacks", (a, b) => ops.matmul(a, b), [
    random(2, 1, 3, 4),
    random(1, 3, 4, 2),
  ], undefined),
  row("gemm", "plus a row", (a, b, c) => ops.gemm(a, b, { bias: c }), [
    t([1, 2, 3, 4], [2, 2]),
    t([0, 1, 1, 0], [2, 2]),
    t([10, 20]),
  ], t([12, 21, 14, 23], [2, 2])),
  row(
    "gemm",
    "with a transposed first matrix",
    (a, b) => ops.gemm(a, b, { transA: true }),
    [m23, t([1, 1], [2, 1])],
    t([-3, 3, -3], [3, 1]),
  ),
  row(
    "gemm",
    "with a transposed second matrix plus a row",
    (a, b, c) => ops.gemm(a, b, { transB: true, bias: c }),
    [m23, t([1, 0, 1], [1, 3]), t([0.5])],
    t([4.5, -9.5], [2, 1]),
  ),
  row(
    "gemm",
    "with both transposed",
    (a, b) => ops.gemm(a, b, { transA: true, transB: true }),
    [random(3, 2), random(4, 3)],
    undefined,
  ),
];

/** A convolution of random images: only its shape and gradient are checked. */
function convolution(
  about: string,
  x: Shape,
  w: Shape,
  options: ops.ConvOptions = {},
): OpCase {
  return row(
    "conv2d",
    about,
    (a, b) => ops.conv2d(a, b, options),
    [random(...x), random(...w)],
    undefined,
  );
}

const CONVOLUTION: readonly OpCase[] = [
  row("conv2d", "plus bias", (x, w, bias) => ops.conv2d(x, w, { bias }), [
    count(1, 1, 3, 3),
    t([1, 0, 0, 1], [1, 1, 2, 2]),
    t([1]),
  ], t([7, 9, 13, 15], [1, 1, 2, 2])),
  row(
    "conv2d",
    "with stride and padding",
    (x, w) => ops.conv2d(x, w, { stride: 2, padding: 1 }),
    [count(1, 1, 3, 3), t([1, 0, 0, 1], [1, 1, 2, 2])],
    t([1, 3, 7, 14], [1, 1, 2, 2]),
  ),
  row("conv2d", "that sums channels", (x, w) => ops.conv2d(x, w), [
    count(1, 2, 1, 2),
    t([1, 1, 0, -1], [2, 2, 1, 1]),
  ], t([4, 6, -3, -4], [1, 2, 1, 2])),
  convolution("3 x 3 padded", [2, 2, 4, 5], [3, 2, 3, 3], { padding: 1 }),
  convolution("3 x 3 of many channels", [1, 6, 4, 3], [2, 6, 3, 3], {
    padding: 1,
  }),
  convolution("3 x 3 by 2 of an odd size", [1, 2, 5, 7], [2, 2, 3, 3], {
    stride: 2,
    padding: 1,
  }),
  convolution("3 x 3 by 2 of an even size", [1, 2, 6, 4], [2, 2, 3, 3], {
    stride: 2,
    padding: 1,
  }),
  convolution("1 x 1 by 2 of an odd size", [2, 3, 5, 3], [2, 3, 1, 1], {
    stride: 2,
  }),
  convolution("1 x 1 by 2 of an even size", [1, 3, 4, 6], [2, 3, 1, 1], {
    stride: 2,
  }),
  convolution("1 x 1 by 3", [1, 1, 6, 5], [2, 1, 1, 1], { stride: 3 }),
  convolution("7 x 7 by 2", [1, 1, 9, 8], [2, 1, 7, 7], {
    stride: 2,
    padding: 3,
  }),
  convolution("padded beyond its kernel", [1, 1, 2, 3], [1, 1, 2, 2], {
    padding: 3,
  }),
  convolution("3 x 3 of a wide map", [1, 1, 32, 33], [1, 1, 3, 3], {
    padding: 1,
  }),
  row(
    "convTranspose2d",
    "by blocks",
    (g, w) => ops.convTranspose2d(g, w, { stride: 2, size: [4, 4] }),
    [count(1, 1, 2, 2), count(1, 1, 2, 2)],
    t([1, 2, 2, 4, 3, 4, 6, 8, 3, 6, 4, 8, 9, 12, 12, 16], [1, 1, 4, 4]),
  ),
  row(
    "convTranspose2d",
    "to a size that strides do not reach",
    (g, w) =>
      ops.convTranspose2d(g, w, { stride: 2, padding: 1, size: [6, 5] }),
    [random(1, 2, 3, 3), random(2, 3, 3, 3)],
    undefined,
  ),
];

/** A maximum over random images: only its shape and gradient are checked. */
function pooling(about: string, x: Shape, options: ops.PoolOptions): OpCase {
  return row(
    "maxPool",
    about,
    (a) => ops.maxPool(a, options),
    [random(...x)],
    undefined,
    "distinct",
  );
}

const POOLING: readonly OpCase[] = [
  row("globalAveragePool", "of two channels", (x) => ops.globalAveragePool(x), [
    count(1, 2, 2, 3),
  ], t([3.5, 9.5], [1, 2])),
  row(
    "maxPool",
    "of blocks",
    (x) => ops.maxPool(x, { kernel: 2 }),
    [count(1, 1, 4, 4)],
    t([6, 8, 14, 16], [1, 1, 2, 2]),
    "distinct",
  ),
  row(
    "maxPool",
    "of negative values beside the padding",
    (x) => ops.maxPool(x, { kernel: 3, stride: 2, padding: 1 }),
    [t([-1, -2, -3, -4, -5, -6, -7, -8, -9], [1, 1, 3, 3])],
    t([-1, -2, -4, -5], [1, 1, 2, 2]),
    "distinct",
  ),
  pooling("3 by 2 of an odd size", [1, 2, 5, 7], {
    kernel: 3,
    stride: 2,
    padding: 1,
  }),
  pooling("3 by 2 of an even size", [1, 1, 6, 4], {
    kernel: 3,
    stride: 2,
    padding: 1,
  }),
  pooling("3 by 2 without padding", [1, 1, 6, 9], { kernel: 3, stride: 2 }),
  pooling("3 by 1", [1, 1, 5, 4], { kernel: 3, stride: 1, padding: 1 }),
  pooling("2 by 2 of an odd size", [2, 1, 5, 7], { kernel: 2 }),
  pooling("2 by 3", [1, 1, 8, 7], { kernel: 2, stride: 3 }),
  pooling("1 by 2", [1, 1, 5, 4], { kernel: 1, stride: 2 }),
  pooling("2 by 3 padded", [1, 1, 7, 5], { kernel: 2, stride: 3, padding: 1 }),
  pooling("5 by 2", [1, 1, 8, 9], { kernel: 5, stride: 2, padding: 2 }),
];

/** The same images turned, stretched and shifted, beyond every edge. */
function turning(padding: ops.SamplePadding): OpCase {
  return row(
    "affineSample",
    `of turned images, padding ${padding}`,
    (x) => ops.affineSample(x, turned(), { padding, size: [3, 4] }),
    [random(2, 2, 4, 3)],
    undefined,
  );
}

const SAMPLING: readonly OpCase[] = [
  row(
    "affineSample",
    "under the identity",
    (x) => ops.affineSample(x, theta(1, 0, 0, 0, 1, 0)),
    [count(1, 1, 2, 3)],
    count(1, 1, 2, 3),
  ),
  row(
    "affineSample",
    "mirrored",
    (x) => ops.affineSample(x, theta(-1, 0, 0, 0, 1, 0)),
    [count(1, 1, 2, 3)],
    t([3, 2, 1, 6, 5, 4], [1, 1, 2, 3]),
  ),
  row(
    "affineSample",
    "shifted by a pixel and a half",
    (x) => ops.affineSample(x, theta(1, 0, 0.75, 0, 1, 0)),
    [count(1, 1, 1, 4)],
    t([2.5, 3.5, 2, 0], [1, 1, 1, 4]),
  ),
  row(
    "affineSample",
    "to another size",
    (x) =>
      ops.affineSample(x, theta(1, 0, 0, 0, 1, 0), {
        padding: "border",
        size: [1, 4],
      }),
    [t([0, 4], [1, 1, 1, 2])],
    t([0, 1, 3, 4], [1, 1, 1, 4]),
  ),
  turning("zeros"),
  turning("border"),
  turning("reflection"),
];

/** All rows. */
export const OP_CASES: readonly OpCase[] = [
  ...MOVEMENT,
  ...ELEMENTWISE,
  ...REDUCTION,
  ...LINEAR,
  ...CONVOLUTION,
  ...POOLING,
  ...SAMPLING,
];

/** Nodes for a case's inputs, by the names of its feeds. */
export function inputsOf({ inputs }: OpCase): Node[] {
  return inputs.map(({ shape, dtype }, i) => input(`x${i}`, shape, dtype));
}

/** A case's own inputs by name. */
export function feedsOf({ inputs }: OpCase): Record<string, AnyTensor> {
  return Object.fromEntries(inputs.map((value, i) => [`x${i}`, value]));
}

/** The op's value and gradients at random inputs, with the feeds. */
export function valueAndGradient(opCase: OpCase, seed: number): {
  readonly outputs: Record<string, Node>;
  readonly feeds: Record<string, AnyTensor>;
} {
  const nodes = inputsOf(opCase);
  const y = opCase.call(...nodes);
  const outputs: Record<string, Node> = { y };
  if (typeof opCase.gradient !== "string") {
    return { outputs, feeds: feedsOf(opCase) };
  }
  const floats = nodes.filter(({ dtype }) => dtype === "float32");
  const weights = constant(new Random(seed, ["weights"]).normal(y.shape));
  grad(y, floats, weights).forEach((g, i) => {
    outputs[`gradient ${floats[i].name}`] = g;
  });
  const drawn = drawInputs(floats.map((x) => x.shape), seed, opCase.gradient);
  const feeds = feedsOf(opCase);
  floats.forEach((x, i) => feeds[x.name] = drawn[i]);
  return { outputs, feeds };
}
