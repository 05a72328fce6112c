/**
 * Winograd convolutions give what the plain ONNX operators give.
 */
import { assert, assertEquals } from "@std/assert";
import {
  add,
  conv2d,
  globalAveragePool,
  grad,
  input,
  mul,
  parameter,
  Random,
  relu,
  sum,
  topologicalOrder,
} from "../../core/mod.ts";
import { compileStages } from "../../onnx/mod.ts";
import { COLUMN_CONV, SWAP, useWinograd } from "../../onnx/winograd.ts";
import { crossEntropyObjective } from "../../robust/objectives.ts";
import { pgdStep, scalar } from "../../robust/pgd.ts";
import { trainingStep } from "../../robust/training_graphs.ts";
import {
  assertPlain,
  assertSameAsPlain,
  draw,
  operatorsOf,
  type Outputs,
  SPEC,
} from "../_plain.ts";

/** Counts convolutions, and moves between the two ways values lie. */
function countOf(
  outputs: Outputs,
  isPrepared: (name: string) => boolean = () => true,
): [convolutions: number, moves: number] {
  const nodes = useWinograd(Object.values(outputs), {
    block: 8,
    elementwise: new Set(["Add", "Mul", "Relu", "HardSigmoid"]),
    isPrepared,
  });
  const order = topologicalOrder(nodes);
  const count = (type: string) =>
    order.filter(({ op }) => op?.type === type).length;
  return [count(COLUMN_CONV), count(SWAP)];
}

interface Case {
  readonly images?: number;
  readonly channels?: number;
  readonly outputs?: number;
  readonly size?: readonly [height: number, width: number];
}

/** Inputs and weights of a small graph. */
function make(options: Case) {
  const { images = 5, channels = 128, outputs = 128, size = [8, 8] } = options;
  const random = new Random(7);
  const values = {
    x: random.normal([images, channels, ...size]),
    w: random.normal([outputs, channels, 3, 3]),
    v: random.normal([outputs, outputs, 3, 3]),
    bias: random.normal([outputs]),
  };
  const { x, ...constants } = values;
  return {
    feeds: { x },
    constants,
    x: input("x", x.shape),
    w: parameter("w", values.w.shape),
    v: parameter("v", values.v.shape),
    bias: parameter("bias", [outputs]),
  };
}

for (
  const [name, options, isTaken] of [
    ["5 images of 8 x 8", {}, true],
    ["2 images of 4 x 4", { images: 2, size: [4, 4] }, true],
    ["17 images of 16 x 16", { images: 17, size: [16, 16] }, true],
    ["3 by 12", { size: [3, 12] }, true],
    ["128 to 160 channels", { outputs: 160 }, true],
    ["144 to 128 channels", { channels: 144 }, true],
    ["one image", { images: 1 }, false],
    ["a width of 6", { size: [8, 6] }, false],
    ["a width of 32", { size: [4, 32] }, false],
    ["64 channels", { channels: 64, outputs: 64 }, false],
    ["132 channels", { channels: 132, outputs: 132 }, false],
    ["132 outputs", { outputs: 132 }, false],
  ] as const
) {
  Deno.test(`convolutions of ${name}: the same as plain`, async () => {
    const { x, w, v, bias, feeds, constants } = make(options);
    const h = relu(conv2d(x, w, { padding: 1, bias }));
    const y = add(conv2d(h, v, { padding: 1 }), h);
    const [gradient] = grad(sum(mul(y, y)), [x]);
    const outputs = { y: relu(y), gradient };
    assertEquals(countOf(outputs)[0] > 0, isTaken);
    await assertSameAsPlain(outputs, feeds, {
      constants: constants,
      tolerance: 1e-5,
    });
  });
}

const { x, w, v, bias, feeds, constants } = make({});
const h = relu(conv2d(x, w, { padding: 1, bias }));
const k = conv2d(h, v, { padding: 1 });

/** Graphs, how many convolutions each takes, and how many moves. */
const GRAPHS: Readonly<Record<string, readonly [Outputs, number, number]>> = {
  // In and out.
  "one convolution": [{ h }, 1, 2],
  "two, and what is between": [{ y: relu(add(k, h)) }, 2, 2],
  "what is between is also an output": [{ k, h }, 2, 3],
  "a sum with what lies otherwise": [{ y: relu(add(k, x)) }, 2, 2],
  "a strided convolution after it": [
    { y: conv2d(h, v, { stride: 2, padding: 1 }) },
    1,
    2,
  ],
  "1 x 1 is not for it": [
    { y: conv2d(h, parameter("one", [128, 128, 1, 1])) },
    1,
    2,
  ],
  "no padding is not for it": [{ y: conv2d(h, v) }, 1, 2],
  "an average": [{ y: globalAveragePool(k) }, 2, 2],
  // Both ways; the masks are where the convolutions are.
  "a gradient": [
    { gradient: grad(sum(relu(k)), [x])[0] },
    4,
    3,
  ],
};

for (const [name, [outputs, ...counts]] of Object.entries(GRAPHS)) {
  Deno.test(`${name}: the same by Winograd`, async () => {
    const one = new Random(9).normal([128, 128, 1, 1]);
    assertEquals(countOf(outputs), counts);
    await assertSameAsPlain(outputs, feeds, {
      constants: { ...constants, one },
      tolerance: 1e-5,
    });
  });
}

Deno.test("weights that are fed are not transformed in every run", async () => {
  assertEquals(countOf({ k }, () => false), [0, 0]);
  assertEquals(countOf({ k }, (name) => name === "v")[0], 1);
  await assertSameAsPlain({ k }, { ...feeds, w: constants.w }, {
    constants: { v: constants.v, bias: constants.bias },
    tolerance: 1e-5,
  });
});

Deno.test("weights that depend on the input stay as they are", async () => {
  const scaled = mul(w, sum(x, [0, 1, 2, 3]));
  const outputs = { y: conv2d(x, scaled, { padding: 1 }) };
  assertEquals(countOf(outputs)[0], 0);
  await assertSameAsPlain(outputs, feeds, {
    constants: constants,
    tolerance: 1e-5,
  });
});

/** A step of the attack on a network and what feeds it. */
function attackStep(batch: number) {
  const { shape, images, labels, parameters } = draw(batch, 32);
  const outputs: Outputs = pgdStep(SPEC, shape, {
    norm: "l2",
    loss: crossEntropyObjective([], 10).loss,
    feeds: { labels: [batch, 10] },
    fakeRelu: false,
  });
  return {
    outputs,
    parameters,
    feeds: {
      images,
      center: images,
      labels,
      epsilon: scalar(0.5),
      stepSize: scalar(0.1),
    },
  };
}

for (const batch of [6, 16]) {
  Deno.test(`a step of PGD on ${batch} images is that of plain ONNX`, async () => {
    const { outputs, parameters, feeds } = attackStep(batch);
    await assertSameAsPlain(outputs, feeds, {
      constants: parameters,
      tolerance: 1e-5,
    });
  });
}

Deno.test("compileStages() transforms weights once for many steps", async () => {
  const { outputs, parameters, feeds } = attackStep(8);
  const { prepare, step } = await compileStages(outputs);
  try {
    const prepared = await prepare.run(parameters);
    const found = await step.run({ ...parameters, ...feeds, ...prepared });
    await assertPlain(found, outputs, { ...parameters, ...feeds }, 1e-5);
  } finally {
    await prepare.release();
    await step.release();
  }
});

Deno.test("a step of training does not transform its weights", () => {
  const settings = { spec: SPEC, momentum: 0.9, weightDecay: 5e-4, ema: 0 };
  const outputs = trainingStep(settings, [8, 3, 32, 32]);
  assertEquals(operatorsOf(outputs, 8).MatMul, undefined);
  assert(operatorsOf(attackStep(8).outputs, 8, () => true).MatMul > 0);
});

Deno.test("exported files have none of it", () => {
  const { [COLUMN_CONV]: convolutions, [SWAP]: moves, MatMul } = operatorsOf(
    attackStep(8).outputs,
  );
  assertEquals([convolutions, moves, MatMul], Array(3).fill(undefined));
});
