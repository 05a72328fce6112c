/**
 * The CPU provider's own kernels give what the plain ONNX operators give.
 */
import { assert, assertEquals } from "@std/assert";
import {
  add,
  batchNormTrain,
  conv2d,
  globalAveragePool,
  grad,
  hoistParameters,
  input,
  maxPool,
  mean,
  mul,
  type Node,
  parameter,
  Random,
  relu,
  sub,
  sum,
  type Tensor,
  tensor,
  viewParameters,
} from "../../core/mod.ts";
import {
  compile,
  compileStages,
  PackedWeights,
  type Program,
} from "../../onnx/mod.ts";
import { blockedWeights } from "../../onnx/blocked.ts";
import { lower } from "../../onnx/export.ts";
import { crossEntropyObjective } from "../../robust/objectives.ts";
import { pgdStep, scalar } from "../../robust/pgd.ts";
import { trainingStep } from "../../robust/training_graphs.ts";
import { assertAllClose } from "../_assert.ts";
import {
  assertPlain,
  assertSameAsPlain,
  draw,
  operatorsOf,
  type Outputs,
  runPlain,
  SPEC,
} from "../_plain.ts";

/** Counts nodes in blocks, as the graph has them with 8 channels in one. */
function blockedOps(outputs: Outputs): Record<string, number> {
  const nodes = lower(Object.values(outputs), 8);
  const seen = new Set<Node>();
  const counts: Record<string, number> = {};
  const visit = (node: Node) => {
    if (seen.has(node)) return;
    seen.add(node);
    const { op } = node;
    if (op?.domain) counts[op.type] = (counts[op.type] ?? 0) + 1;
    node.inputs.forEach(visit);
  };
  nodes.forEach(visit);
  return counts;
}

for (const batch of [16, 5]) {
  Deno.test(`a step of training on ${batch} images is that of plain ONNX`, async () => {
    const { shape, images, labels, parameters } = draw(batch, 16);
    const settings = { spec: SPEC, momentum: 0.9, weightDecay: 5e-4, ema: 0 };
    const outputs = trainingStep(settings, shape);
    const velocity = Object.fromEntries(
      Object.entries(parameters).map(([name, { data, shape }]) => [
        `velocity:${name}`,
        tensor((data as Float32Array).map((x) => x / 2), shape),
      ]),
    );
    await assertSameAsPlain(outputs, {
      ...parameters,
      ...velocity,
      images,
      labels,
      learningRate: scalar(0.1),
    }, { tolerance: 2e-5 });
  });
}

Deno.test("compileStages() prepares parameters for many steps", async () => {
  const { shape, images, labels, parameters } = draw(8, 16);
  const { next, losses } = pgdStep(SPEC, shape, {
    norm: "l2",
    loss: crossEntropyObjective([], 10).loss,
    feeds: { labels: labels.shape },
    fakeRelu: false,
  });
  const { prepare, step } = await compileStages({ next, losses });
  try {
    const names = step.inputs.map(({ name }) => name);
    const fromImages = ["images", "center", "epsilon", "stepSize", "labels"];
    const { outputs } = prepare;
    assert(outputs.length > 0);
    for (const { name } of prepare.inputs) {
      assert(Object.hasOwn(parameters, name), `${name} is no parameter`);
    }
    const prepared = prepare.allocateOutputs();
    // Written anew for other weights.
    for (const factor of [1, 0.5]) {
      const weights = Object.fromEntries(
        Object.entries(parameters).map(([name, { data, shape }]) => [
          name,
          tensor((data as Float32Array).map((x) => x * factor), shape),
        ]),
      );
      await prepare.run(weights, prepared);
      const feeds = {
        ...weights,
        images,
        center: images,
        labels,
        epsilon: scalar(0.5),
        stepSize: scalar(0.1),
      };
      const found = await step.run({ ...feeds, ...prepared });
      await assertPlain(found, { next, losses }, feeds, 1e-5);
    }
    const known = [...fromImages, ...outputs.map(({ name }) => name)];
    const others = names.filter((name) => !known.includes(name));
    // The head is too small to be prepared.
    assertEquals(others, ["fc.weight", "fc.bias"]);
  } finally {
    await prepare.release();
    await step.release();
  }
});

/** Feeds of the small graphs below. */
function small() {
  const random = new Random(5);
  return {
    x: random.normal([16, 16, 6, 6]),
    rgb: random.normal([16, 3, 6, 6]),
    w: random.normal([16, 16, 3, 3]),
    v: random.normal([32, 16, 1, 1]),
    stem: random.normal([16, 3, 3, 3]),
    gamma: random.normal([16]),
    beta: random.normal([16]),
    bias: random.normal([16]),
  };
}

const x = input("x", [16, 16, 6, 6]);
const w = parameter("w", [16, 16, 3, 3]);
const h = conv2d(x, w, { padding: 1 });
const norm = batchNormTrain(
  h,
  parameter("gamma", [16]),
  parameter("beta", [16]),
  1e-5,
);

/** Graphs, and how many convolutions each takes in blocks. */
const GRAPHS: Readonly<Record<string, readonly [Outputs, number]>> = {
  "a sum and a ReLU within a convolution": [{ y: relu(add(h, x)) }, 1],
  "two convolutions that are added": [
    { y: relu(add(h, conv2d(h, w, { padding: 1 }))) },
    2,
  ],
  "a sum that is used twice": (() => {
    const y = add(h, x);
    return [{ y, z: relu(y) }, 1];
  })(),
  "a convolution that is also an output": [{ y: relu(h), z: h }, 1],
  "a bias": [
    { y: relu(conv2d(x, w, { padding: 1, bias: parameter("bias", [16]) })) },
    1,
  ],
  "few channels in": [
    {
      y: relu(conv2d(
        input("rgb", [16, 3, 6, 6]),
        parameter("stem", [16, 3, 3, 3]),
        { padding: 1 },
      )),
    },
    1,
  ],
  "1 x 1 by 2": [
    { y: conv2d(h, parameter("v", [32, 16, 1, 1]), { stride: 2 }) },
    2,
  ],
  // Centred; scaled, shifted, summed and rectified.
  "normalisation, a sum and a ReLU": [
    { y: relu(add(norm.output, h)), mean: norm.mean, variance: norm.variance },
    3,
  ],
  "reductions over all but channels": [
    { mean: mean(h, [0, 2, 3]), sum: sum(h, [0, 2, 3], { keepDims: true }) },
    1,
  ],
  "other reductions": [{ mean: mean(h, [2, 3]), sum: sum(h, [0]) }, 1],
  "a global average": [{ y: globalAveragePool(h) }, 1],
  "a vector minus channels": [
    { y: sub(mean(h, [0, 2, 3], { keepDims: true }), h) },
    1,
  ],
  "one value per image": [
    { y: mul(h, mean(x, [1, 2, 3], { keepDims: true })) },
    1,
  ],
  "gradients": [
    Object.fromEntries(
      grad(sum(mul(norm.output, x)), [x, w]).map((node, i) => [
        `gradient ${i}`,
        node,
      ]),
    ),
    // h; centred; scaled; the gradient of h; those of x and w.
    6,
  ],
};

for (const [name, [outputs, convolutions]] of Object.entries(GRAPHS)) {
  Deno.test(`${name}: the same in blocks`, async () => {
    assertEquals(blockedOps(outputs).Conv, convolutions);
    await assertSameAsPlain(outputs, small(), { tolerance: 1e-5 });
  });
}

for (
  const [size, options] of [
    [[64, 64], { padding: 1 }],
    [[33, 96], { padding: 1 }],
    [[64, 64], { stride: 2, padding: 1 }],
    [[65, 130], { stride: 2 }],
  ] as const
) {
  const { stride = 1 } = options;
  Deno.test(`images of ${size.join(" x ")} by ${stride}: weight gradients in parts of the rows`, async () => {
    const images = input("images", [16, 3, ...size]);
    const weights = parameter("weights", [32, 3, 3, 3]);
    const y = conv2d(images, weights, options);
    const [gradient] = grad(sum(mul(y, input("g", y.shape))), [weights]);
    assertEquals(operatorsOf({ gradient }, 16).Gather, 1);
    const random = new Random(5);
    await assertSameAsPlain({ gradient }, {
      images: random.normal(images.shape),
      weights: random.normal(weights.shape),
      g: random.normal(y.shape),
    }, { tolerance: 1e-5 });
  });
}

for (
  const [n, channels, size, kernel, options] of [
    [8, [16, 16], [9, 9], 3, { padding: 1 }],
    [32, [32, 64], [16, 16], 3, { padding: 1 }],
    // More images than one kernel takes, and fewer than a block.
    [64, [64, 128], [28, 20], 3, { padding: 1 }],
    [6, [16, 32], [12, 10], 3, { stride: 2, padding: 1 }],
    [16, [16, 16], [13, 11], 3, { stride: 2, padding: 1 }],
    // Taps that do not reach the last rows.
    [16, [32, 32], [12, 14], 1, { stride: 2 }],
    [16, [16, 32], [11, 12], 2, { stride: 3 }],
    [16, [16, 16], [12, 12], 5, { stride: 2, padding: 2 }],
  ] as const
) {
  const [inputs, outputs] = channels;
  const { stride = 1 } = options as { stride?: number };
  Deno.test(`${n} images, ${inputs} to ${outputs} channels of ${size.join(" x ")}, ${kernel} x ${kernel} by ${stride}: weight gradients by lanes`, async () => {
    const images = input("images", [n, inputs, ...size]);
    const before = parameter("before", [inputs, inputs, 1, 1]);
    const weights = parameter("weights", [outputs, inputs, kernel, kernel]);
    const y = conv2d(conv2d(images, before), weights, options);
    const [gradient] = grad(sum(mul(y, input("g", y.shape))), [weights]);
    // The result alone leaves blocks.
    const { Conv, ReorderOutput } = operatorsOf({ gradient }, 16);
    assertEquals([Conv, ReorderOutput], [2, 1]);
    const random = new Random(5);
    await assertSameAsPlain({ gradient }, {
      images: random.normal(images.shape),
      before: random.normal(before.shape),
      weights: random.normal(weights.shape),
      g: random.normal(y.shape),
    }, { tolerance: 1e-5 });
  });
}

for (
  const [name, shape, options] of [
    ["3 by 2", [2, 3, 9, 12], { kernel: 3, stride: 2, padding: 1 }],
    ["2 by 2 of an odd size", [3, 2, 7, 7], { kernel: 2 }],
    ["3 by 1", [1, 2, 5, 6], { kernel: 3, stride: 1 }],
    ["2 by 3", [2, 2, 8, 8], { kernel: 2, stride: 3 }],
  ] as const
) {
  Deno.test(`maxPool() ${name}: the gradient is that of plain ONNX`, async () => {
    const map = input("map", shape);
    const pooled = maxPool(map, options);
    const weight = input("weight", pooled.shape);
    const [gradient] = grad(sum(mul(pooled, weight)), [map]);
    const random = new Random(3);
    // Few values, so that many windows have several maxima.
    const values = random.uniformTensor(shape, 0, 4).data.map(Math.floor);
    await assertSameAsPlain({ gradient }, {
      map: tensor(values, shape),
      weight: random.normal(pooled.shape),
    }, { tolerance: 1e-6 });
    assertEquals(operatorsOf({ gradient }, 8).ScatterElements, 1);
    assertEquals(operatorsOf({ gradient }).ScatterElements, undefined);
  });
}

Deno.test("compile() shares packed weights between programs", async () => {
  const { x, w } = small();
  const y = relu(add(h, h.inputs[0]));
  // The same weights in a graph of its own.
  const again = conv2d(input("x", x.shape), parameter("w", w.shape), {
    padding: 1,
  });
  const packed = new PackedWeights();
  const options = { constants: { w }, packed };
  const first = await compile({ y }, options);
  const second = await compile({ y: again }, options);
  const expected = await runPlain({ y, again }, { x, w });
  const same = async (program: Program, name: string) => {
    const found = await program.run({ x });
    assertAllClose(found.y as Tensor, expected[name], {
      tolerance: 1e-6,
      name,
    });
  };
  await same(first, "y");
  await same(second, "again");
  await first.release();
  await same(second, "again");
  await second.release();
  packed.release();
});

Deno.test("compile() packs constant weights once", async () => {
  const { x, w } = small();
  const program = await compile({ y: relu(add(h, h.inputs[0])) }, {
    constants: { w },
  });
  try {
    assertEquals(program.inputs.map(({ name }) => name), ["x"]);
    const { y } = await program.run({ x });
    const expected = await runPlain({ y: relu(add(h, h.inputs[0])) }, {
      x,
      w,
    });
    assertAllClose(y as Tensor, expected.y, { tolerance: 1e-6, name: "y" });
  } finally {
    await program.release();
  }
});

Deno.test("what is prepared is no view, and blocked kernels read it", () => {
  const images = input("images", [2, 128, 8, 8]);
  const weights = parameter("weights", [128, 128, 3, 3]);
  // Packed, for one convolution, and in Winograd's form for another.
  const y = conv2d(conv2d(images, weights, { padding: 1 }), weights, {
    stride: 2,
  });
  for (const block of [8, 16]) {
    const { prepared, outputs } = hoistParameters(
      lower([y], block, () => true),
    );
    const types = Object.values(prepared).map(({ op }) => op?.type);
    assertEquals(types.length, 2);
    assert(!types.includes("Reshape"));
    const names = new Set(Object.keys(prepared));
    assertEquals(blockedWeights(outputs), names);
    // Nor do steps reshape what they are fed.
    const viewed = viewParameters(outputs, (name) => names.has(name));
    assertEquals(new Set(Object.keys(viewed.shapes)), names);
    assertEquals(blockedWeights(viewed.outputs), names);
  }
});
