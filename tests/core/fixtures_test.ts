/**
 * Every operation of tests/fixtures/ops.json against PyTorch: values and
 * gradients.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  adaptiveAveragePool,
  add,
  affineSample,
  type AnyTensor,
  batchNormTrain,
  clip,
  constant,
  conv2d,
  crossEntropy,
  div,
  fakeRelu,
  full,
  gemm,
  globalAveragePool,
  grad,
  input,
  l2Norm,
  logSoftmax,
  maxPool,
  mean,
  mul,
  type Node,
  relu,
  reshape,
  resizeBilinear,
  type SamplePadding,
  sizeOf,
  slice,
  sqrt,
  sub,
} from "../../core/mod.ts";
import { assertAllClose, evaluate } from "../_assert.ts";
import { readDescription, readTensors, underPrefix } from "../_fixtures.ts";

interface FixtureCase {
  readonly op: string;
  readonly attributes: Readonly<Record<string, unknown>>;
}

/** Cases of the steps and projections, which tests/robust maps. */
export const TESTED_IN_ROBUST: readonly string[] = [
  "project_l2",
  "project_linf",
  "step_l2",
  "step_linf",
  "random_start_l2",
  "random_start_linf",
  "sgd_3_steps",
];

type Inputs = Readonly<Record<string, Node>>;

/** From a case's inputs to its outputs, the first one being differentiated. */
type Mapping = (
  inputs: Inputs,
  attributes: FixtureCase["attributes"],
) => Readonly<Record<string, Node>>;

/** Gives a vector `[c]` the axes that broadcast it over channels. */
function channels(vector: Node): Node {
  return reshape(vector, [1, vector.shape[0], 1, 1]);
}

function crossEntropyOf({ logits, oneHot }: Inputs): Node {
  return crossEntropy(logits, oneHot);
}

/** A running statistic after one batch, with momentum 0.1. */
function moved(running: Node, batch: Node): Node {
  return add(mul(running, 0.9), mul(batch, 0.1));
}

const MAPPINGS: Readonly<Record<string, Mapping>> = {
  Conv2d({ x, weight, bias }, { stride, padding, dilation, groups }) {
    assertEquals([dilation, groups], [1, 1]);
    const geometry = { stride: Number(stride), padding: Number(padding) };
    return { y: conv2d(x, weight, { ...geometry, bias }) };
  },
  MaxPool2d: ({ x }, { kernel, stride, padding }) => ({
    y: maxPool(x, {
      kernel: Number(kernel),
      stride: Number(stride),
      padding: Number(padding),
    }),
  }),
  AdaptiveAvgPool2d({ x }, { output }) {
    const [h, w] = output as [number, number];
    const isGlobal = h === 1 && w === 1;
    return {
      y: isGlobal
        ? reshape(globalAveragePool(x), [x.shape[0], x.shape[1], 1, 1])
        : adaptiveAveragePool(x, [h, w]),
    };
  },
  AvgPool2d({ x }, { kernel, stride }) {
    const size = Number(kernel);
    assertEquals([stride, ...x.shape.slice(2)], [size, size, size]);
    return { y: adaptiveAveragePool(x, [1, 1]) };
  },
  BatchNorm2d(inputs, { training, eps }): Record<string, Node> {
    const { x, weight, bias, running_mean, running_var } = inputs;
    if (!training) {
      const centered = sub(x, channels(running_mean));
      const deviation = sqrt(add(running_var, Number(eps)));
      const scale = div(weight, deviation);
      return { y: add(mul(centered, channels(scale)), channels(bias)) };
    }
    const batch = batchNormTrain(x, weight, bias, Number(eps));
    const count = sizeOf(x.shape) / x.shape[1];
    const unbiased = mul(batch.variance, count / (count - 1));
    return {
      y: batch.output,
      new_running_mean: moved(running_mean, batch.mean),
      new_running_var: moved(running_var, unbiased),
    };
  },
  Linear: ({ x, weight, bias }) => ({
    y: gemm(x, weight, { transB: true, bias }),
  }),
  ReLU: ({ x }) => ({ y: relu(x) }),
  FakeReLU: ({ x }) => ({ y: fakeRelu(x) }),
  Clamp: ({ x }, { min, max }) => ({ y: clip(x, Number(min), Number(max)) }),
  Normalize: (inputs) => ({
    y: div(
      sub(clip(inputs.x, 0, 1), channels(inputs.mean)),
      channels(inputs.std),
    ),
  }),
  CrossEntropy: (inputs, { reduction }) => ({
    y: reduction === "mean"
      ? mean(crossEntropyOf(inputs))
      : crossEntropyOf(inputs),
  }),
  LogSoftmax({ x }, { axis }) {
    assertEquals(axis, x.shape.length - 1);
    return { y: logSoftmax(x) };
  },
  L2Norm: ({ x }) => ({ y: l2Norm(x) }),
  InversionLoss: ({ r, t }) => ({ y: div(l2Norm(sub(r, t)), l2Norm(t)) }),
  BilinearResize: ({ x }, { size }) => ({
    y: resizeBilinear(x, size as [number, number]),
  }),
  AffineGridSample: ({ x, theta }, { padding_mode }) => ({
    y: affineSample(x, theta, { padding: padding_mode as SamplePadding }),
  }),
  Crop({ x }, attributes) {
    const [top, left, height, width] = ["top", "left", "height", "width"]
      .map((name) => Number(attributes[name]));
    return {
      y: slice(x, [
        { axis: 2, start: top, end: top + height },
        { axis: 3, start: left, end: left + width },
      ]),
    };
  },
};

/** Outputs of the reference that the graphs have no node of their own for. */
const NOT_COMPARED: readonly string[] = ["grid"];

const { cases } = await readDescription<
  { readonly cases: Readonly<Record<string, FixtureCase>> }
>("ops");
const tensors = await readTensors("ops");

/** Integer labels as one-hot rows, `[n, classes]`. */
function oneHot(labels: AnyTensor, classes: number): AnyTensor {
  const rows = full([labels.shape[0], classes], 0);
  labels.data.forEach((label: number | bigint, i: number) => {
    rows.data[i * classes + Number(label)] = 1;
  });
  return rows;
}

/** A case's input tensors, with labels as `oneHot`. */
function feedsOf(name: string): Record<string, AnyTensor> {
  const { labels, ...feeds } = underPrefix(tensors, `${name}/in`);
  const classes = feeds.logits?.shape[1];
  return labels ? { ...feeds, oneHot: oneHot(labels, classes) } : feeds;
}

for (const [name, { op, attributes }] of Object.entries(cases)) {
  if (TESTED_IN_ROBUST.includes(name)) continue;
  Deno.test(`${name} has PyTorch's values and gradients`, async () => {
    const mapping = MAPPINGS[op];
    assert(mapping, `Add ${op} to MAPPINGS: no test covers this case`);
    const feeds = feedsOf(name);
    const inputs = Object.fromEntries(
      Object.entries(feeds).map(([key, value]) => [
        key,
        input(key, value.shape, value.dtype),
      ]),
    );
    const outputs = mapping(inputs, attributes);
    const upstream = tensors[`${name}/upstream`];
    const expected = {
      ...underPrefix(tensors, `${name}/out`),
      ...Object.fromEntries(
        Object.entries(underPrefix(tensors, `${name}/grad`))
          .map(([key, value]) => [`grad ${key}`, value]),
      ),
    };
    const wrt = Object.keys(underPrefix(tensors, `${name}/grad`));
    assert(wrt.length > 0, `Expected a gradient among the tensors of ${name}`);
    const gradients = grad(
      outputs.y,
      wrt.map((key) => inputs[key]),
      constant(upstream),
    );
    const found = await evaluate({
      ...outputs,
      ...Object.fromEntries(wrt.map((key, i) => [`grad ${key}`, gradients[i]])),
    }, feeds);
    const tolerance = name === "batchnorm_train_small_variance" ? 1e-4 : 1e-5;
    for (const [key, value] of Object.entries(expected)) {
      if (NOT_COMPARED.includes(key)) continue;
      assert(found[key], `Expected an output ${key} of ${op}`);
      assertAllClose(found[key], value, { tolerance, name: `${name} ${key}` });
    }
  });
}

Deno.test("fixtures left to tests/robust exist", () => {
  for (const name of TESTED_IN_ROBUST) {
    assert(cases[name], `Expected a case ${name} in ops.json`);
  }
});
