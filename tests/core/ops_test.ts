/**
 * Every op of core/ops: shape, values, gradient; errors with their sentences.
 *
 * @module
 */
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertThrows,
} from "@std/assert";
import * as ort from "onnxruntime-node";
import {
  type AnyTensor,
  constant,
  full,
  grad,
  input,
  type Node,
  Random,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import * as ops from "../../core/ops/mod.ts";
import { exportModel } from "../../onnx/mod.ts";
import { assertAllClose, assertGradient, evaluate } from "../_assert.ts";
import { feedsOf, inputsOf, OP_CASES } from "./_ops.ts";

/** Shape of a node's value as ONNX Runtime itself reports it. */
async function runtimeShape(
  y: Node,
  feeds: Readonly<Record<string, AnyTensor>>,
): Promise<readonly number[]> {
  const session = await ort.InferenceSession.create(exportModel({ y }).bytes, {
    intraOpNumThreads: 1,
    logSeverityLevel: 4,
  });
  try {
    const wrapped = Object.entries(feeds).map(([name, value]) => {
      const data = value.data as Float32Array;
      return [
        name,
        new ort.Tensor(value.dtype as "float32", data, value.shape),
      ];
    });
    return (await session.run(Object.fromEntries(wrapped))).y.dims;
  } finally {
    await session.release();
  }
}

Deno.test("every op has a row with values and a row about its gradient", () => {
  const functions = Object.entries(ops)
    .filter(([, value]) => typeof value === "function")
    .map(([name]) => name);
  for (const name of functions) {
    const rows = OP_CASES.filter(({ op }) => op === name);
    assert(
      rows.length > 0,
      `Add ${name}() to tests/core/_ops.ts: it has no row`,
    );
    assert(
      rows.some(({ expected }) => expected),
      `Add values computed by hand to a row of ${name}()`,
    );
  }
});

for (const opCase of OP_CASES) {
  const { op, about, call, expected, gradient } = opCase;
  Deno.test(`${op}() ${about}`, async () => {
    const y = call(...inputsOf(opCase));
    const feeds = feedsOf(opCase);
    assertEquals(y.shape, await runtimeShape(y, feeds), "shape");
    if (expected) {
      const found = (await evaluate({ y }, feeds)).y;
      assertAllClose(found, expected, { tolerance: 1e-6, name: op });
    }
    if (typeof gradient === "string") {
      const shapes = opCase.inputs
        .filter(({ dtype }) => dtype === "float32")
        .map(({ shape }) => shape);
      const withConstants = (...floats: Node[]) => {
        const rest = [...floats];
        return call(
          ...opCase.inputs.map((value) =>
            value.dtype === "float32" ? rest.shift()! : constant(value)
          ),
        );
      };
      await assertGradient(withConstants, shapes, {
        seed: 0,
        tolerance: 1e-3,
        domain: gradient,
      });
    }
  });
}

Deno.test("maxPool() sends a tie's gradient to the first maximum", async () => {
  const x = input("x", [1, 1, 4, 4]);
  const y = ops.maxPool(x, { kernel: 3, stride: 2, padding: 1 });
  const [g] = grad(y, [x], constant(tensor([1, 2, 3, 4], [1, 1, 2, 2])));
  const found = await evaluate({ g }, { x: full(x.shape, 0) });
  assertAllClose(
    found.g,
    tensor([1, 2, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 4, 4]),
    { tolerance: 0 },
  );
});

Deno.test("maxPool() is differentiable twice: its gradient's is its transpose", async () => {
  const shape = [2, 3, 7, 6];
  const x = input("x", shape);
  const y = ops.maxPool(x, { kernel: 3, stride: 2, padding: 1 });
  const g = input("g", y.shape);
  const u = input("u", shape);
  const [scattered] = grad(ops.sum(ops.mul(y, g)), [x]);
  const [gathered] = grad(ops.sum(ops.mul(scattered, u)), [g]);
  const random = new Random(1);
  const feeds = {
    x: random.normal(shape),
    g: random.normal(y.shape),
    u: random.normal(shape),
  };
  const found = await evaluate({ scattered, gathered }, feeds);
  const inner = (a: AnyTensor, b: Tensor) =>
    b.data.reduce((total, value, i) => total + value * Number(a.data[i]), 0);
  // <S g, u> = <g, S' u>
  assertAlmostEquals(
    inner(found.scattered, feeds.u),
    inner(found.gathered, feeds.g),
    1e-4,
  );
  // Where x itself is gathered, its maxima come back.
  const maxima = await evaluate({ gathered, y }, { ...feeds, u: feeds.x });
  assertEquals(maxima.gathered.data, maxima.y.data);
});

Deno.test("max() shares a tie's gradient", async () => {
  const x = input("x", [2, 3]);
  const [g] = grad(ops.max(x, [1]), [x], constant(tensor([6, 4])));
  const found = await evaluate({ g }, {
    x: tensor([1, 1, 1, 0, 5, 5], [2, 3]),
  });
  assertAllClose(found.g, tensor([2, 2, 2, 0, 2, 2], [2, 3]), {
    tolerance: 1e-6,
  });
});

Deno.test("maximum() and minimum() halve a tie's gradient", async () => {
  const x = input("x", [3]);
  const y = input("y", [3]);
  const feeds = { x: tensor([1, 2, 3]), y: tensor([2, 2, 2]) };
  const [a, b] = grad(ops.maximum(x, y), [x, y]);
  const [c, d] = grad(ops.minimum(x, y), [x, y]);
  const found = await evaluate({ a, b, c, d }, feeds);
  assertEquals(found.a.data, Float32Array.of(0, 0.5, 1));
  assertEquals(found.b.data, Float32Array.of(1, 0.5, 0));
  assertEquals(found.c.data, Float32Array.of(1, 0.5, 0));
  assertEquals(found.d.data, Float32Array.of(0, 0.5, 1));
});

Deno.test("clip() and relu() gradients at their kinks", async () => {
  const x = input("x", [5]);
  const [clipped] = grad(ops.clip(x, 0, 1), [x]);
  const [rectified] = grad(ops.relu(x), [x]);
  const [length] = grad(ops.abs(x), [x]);
  const found = await evaluate({ clipped, rectified, length }, {
    x: tensor([-1, 0, 0.5, 1, 2]),
  });
  assertEquals(found.clipped.data, Float32Array.of(0, 1, 1, 1, 0));
  assertEquals(found.rectified.data, Float32Array.of(0, 0, 1, 1, 1));
  assertEquals(found.length.data, Float32Array.of(-1, 0, 1, 1, 1));
});

Deno.test("affineSample() adds up to the same bits on two threads", async () => {
  const x = input("x", [2, 3, 64, 64]);
  // Zoomed in, so that hundreds of gradients fall on the same pixel.
  const theta = constant(
    tensor([0.05, 0, 0, 0, 0.05, 0, 0.04, 0.01, 0, 0, 0.04, 0], [2, 2, 3]),
  );
  const upstream = new Random(0).normal(x.shape);
  const [g] = grad(ops.affineSample(x, theta), [x], constant(upstream));
  const [first, second] = [
    await evaluate({ g }, {}, { threads: 1 }),
    await evaluate({ g }, {}, { threads: 2 }),
  ];
  assertEquals(first.g.data, second.g.data);
  const total = (values: AnyTensor) =>
    (values.data as Float32Array).reduce((sum, value) => sum + value, 0);
  // Nothing lies beyond the edge here, so nothing is lost.
  assertAlmostEquals(total(first.g), total(upstream), 0.05);
});

const a = (...shape: number[]) => input("a", shape);

/** A call that must fail: kind and the whole sentence. */
const ERRORS: readonly [
  string,
  () => unknown,
  typeof TypeError | typeof RangeError,
  string,
][] = [
  [
    "reshape",
    () => ops.reshape(a(2, 3), [4]),
    TypeError,
    "Cannot reshape [2, 3] to [4]: 6 elements do not fill 4",
  ],
  [
    "transpose",
    () => ops.transpose(a(2, 3), [0]),
    TypeError,
    "Cannot transpose [2, 3] by [0]: name every axis once",
  ],
  [
    "slice",
    () => ops.slice(a(2, 3), [{ axis: 1, start: 1, end: 4 }]),
    RangeError,
    "Cannot slice axis 1 of [2, 3] from 1 to 4 by 1",
  ],
  [
    "flip",
    () => ops.flip(a(2, 3), [2]),
    RangeError,
    "Cannot use axis 2: the tensor has 2 axes",
  ],
  [
    "pad",
    () => ops.pad(a(2), [-1], [0]),
    RangeError,
    "Cannot pad [2] by [-1] and [0]: give one amount >= 0 per axis",
  ],
  [
    "concat",
    () => ops.concat([a(2, 3), a(2, 4)], 0),
    TypeError,
    "Cannot join [2, 3] and [2, 4] along axis 0: the other sizes must be equal",
  ],
  [
    "expand to another size",
    () => ops.expand(a(3), [2]),
    TypeError,
    "Cannot broadcast [3] with [2]: sizes of an axis must be equal or 1",
  ],
  [
    "expand to a smaller size",
    () => ops.expand(a(3), [1]),
    TypeError,
    "Cannot expand [3] to [1]: only axes of size 1 can be repeated",
  ],
  [
    "depthToSpace",
    () => ops.depthToSpace(a(1, 3, 2, 2), 2),
    TypeError,
    "Cannot rearrange [1, 3, 2, 2] into blocks of 2: need [n, c, h, w] with " +
    "c a multiple of 4",
  ],
  [
    "add",
    () => ops.add(a(2, 3), a(2)),
    TypeError,
    "Cannot broadcast [2, 3] with [2]: sizes of an axis must be equal or 1",
  ],
  [
    "clip",
    () => ops.clip(a(2), 1, 0),
    RangeError,
    "Cannot clip to [1, 0]: need low <= high",
  ],
  [
    "sum",
    () => ops.sum(a(2, 3), [1, -1]),
    RangeError,
    "Cannot use axes [1, -1]: one is named twice",
  ],
  [
    "matmul",
    () => ops.matmul(a(2, 3), a(2, 3)),
    TypeError,
    "Cannot multiply [2, 3] by [2, 3]: inner sizes must be equal",
  ],
  [
    "gemm",
    () => ops.gemm(a(2, 3), a(2, 3)),
    TypeError,
    "Cannot multiply [2, 3] by [2, 3]: inner sizes must be equal",
  ],
  [
    "conv2d of other channels",
    () => ops.conv2d(a(1, 2, 5, 5), a(4, 3, 3, 3)),
    TypeError,
    "Cannot convolve [1, 2, 5, 5] with weights [4, 3, 3, 3]: need " +
    "[n, c, h, w] and [outputs, c, k, k] with k <= h, w plus padding",
  ],
  [
    "conv2d of too small images",
    () => ops.conv2d(a(1, 2, 2, 5), a(4, 2, 3, 3)),
    TypeError,
    "Cannot convolve [1, 2, 2, 5] with weights [4, 2, 3, 3]: need " +
    "[n, c, h, w] and [outputs, c, k, k] with k <= h, w plus padding",
  ],
  [
    "convTranspose2d",
    () => ops.convTranspose2d(a(1, 2, 2, 2), a(3, 1, 2, 2), { size: [3, 3] }),
    TypeError,
    "Cannot convolve back [1, 2, 2, 2] with weights [3, 1, 2, 2]",
  ],
  [
    "globalAveragePool",
    () => ops.globalAveragePool(a(2, 3)),
    TypeError,
    "Cannot pool [2, 3]: need [n, channels, h, w]",
  ],
  [
    "maxPool",
    () => ops.maxPool(a(1, 1, 2, 2), { kernel: 3 }),
    TypeError,
    "Cannot pool [1, 1, 2, 2] over windows of 3: need [n, c, h, w] at least " +
    "that large and padding <= kernel / 2",
  ],
  [
    "affineSample of another batch",
    () => ops.affineSample(a(2, 1, 4, 4), a(1, 2, 3)),
    TypeError,
    "Cannot sample [2, 1, 4, 4] under [1, 2, 3]: need [n, c, h, w] and " +
    "[n, 2, 3]",
  ],
  [
    "affineSample to nothing",
    () => ops.affineSample(a(2, 1, 4, 4), a(2, 2, 3), { size: [0, 4] }),
    RangeError,
    "Cannot sample images of size [0, 4]: need height and width >= 1",
  ],
];

for (const [name, call, kind, message] of ERRORS) {
  Deno.test(`${name} is refused with a sentence`, () => {
    assertEquals(assertThrows(call, kind).message, message);
  });
}
