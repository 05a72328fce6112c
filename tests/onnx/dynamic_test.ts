/**
 * Models for any number of images: numbers as those of the static graph, for
 * other runtimes than the one that the project uses.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import * as native from "onnxruntime-node";
import * as wasm from "onnxruntime-web/wasm";
import {
  adaptiveAveragePool,
  add,
  type AnyTensor,
  constant,
  full,
  grad,
  input,
  mean,
  mul,
  type NamedTensors,
  type Node,
  parameter,
  Random,
  sub,
  sum,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import {
  type Architecture,
  buildModel,
  initializeModel,
  type ModelSpec,
} from "../../models/mod.ts";
import {
  type DynamicModel,
  exportDynamicModel,
  exportModel,
  OPSET,
} from "../../onnx/mod.ts";
import { decodeModel } from "../../onnx/proto.ts";
import { matchRepresentation, oneHot } from "../../robust/mod.ts";
import { pgdStep } from "../../robust/pgd.ts";
import { assertAllClose, evaluate } from "../_assert.ts";

/** What native and WebAssembly builds of ONNX Runtime share. */
type Runtime = Pick<typeof wasm, "InferenceSession" | "Tensor">;

async function runWith(
  { InferenceSession, Tensor }: Runtime,
  model: DynamicModel,
  feeds: NamedTensors,
): Promise<Record<string, AnyTensor>> {
  const session = await InferenceSession.create(model.bytes, {
    intraOpNumThreads: 1,
    logSeverityLevel: 3,
  });
  const values = Object.fromEntries(
    model.inputs.map(({ name }) => {
      const { dtype, data, shape } = feeds[name];
      return [name, new Tensor(dtype, data as never, shape)];
    }),
  );
  const results = await session.run(values);
  await session.release();
  return Object.fromEntries(
    model.outputs.map(({ name, dtype }) => {
      const { dims, data } = results[name];
      return [name, { dtype, shape: dims, data } as AnyTensor];
    }),
  );
}

wasm.env.wasm.numThreads = 1;
const RUNTIMES: Readonly<Record<string, Runtime>> = {
  native: native as unknown as Runtime,
  wasm,
};

/** Sizes at which numbers are compared. */
const BATCHES = [1, 3, 8];

interface Case {
  readonly build: (n: number) => Readonly<Record<string, Node>>;
  readonly feeds: (n: number) => NamedTensors;
  readonly constants?: NamedTensors;
  readonly tolerance?: number;
}

/** Checks both runtimes against the static graph. */
async function assertDynamic(
  { build, feeds, constants = {}, tolerance = 2e-5 }: Case,
): Promise<DynamicModel> {
  const model = exportDynamicModel(build, { constants });
  for (const n of BATCHES) {
    const values = feeds(n);
    const expected = await evaluate(build(n), values, { constants });
    for (const [runtime, ort] of Object.entries(RUNTIMES)) {
      const found = await runWith(ort, model, values);
      for (const [name, value] of Object.entries(expected)) {
        const label = `${name} of ${n} images on ${runtime}`;
        assertAllClose(found[name], value, { tolerance, name: label });
      }
    }
  }
  return model;
}

const CLASSES = 5;

function specOf(architecture: Architecture, form: ModelSpec["form"]) {
  const normal = { mean: [0.5, 0.4, 0.3], std: [0.25, 0.2, 0.3] };
  return { architecture, form, width: 4, classes: CLASSES, ...normal };
}

const NETWORKS: readonly (readonly [ModelSpec, number])[] = [
  [specOf("resnet10", "cifar"), 32],
  [specOf("resnet50", "imagenet"), 64],
  [specOf("vgg11_bn", "cifar"), 32],
  [specOf("vgg11", "imagenet"), 64],
];

const imagesOf = (n: number, size: number, seed = 1) =>
  new Random(seed).uniformTensor([n, 3, size, size], 0.1, 0.9);

for (const [spec, size] of NETWORKS) {
  const name = `${spec.architecture} in ${spec.form} form`;
  const constants = initializeModel(spec, new Random(0));
  const labels = (n: number): Tensor =>
    oneHot(Array.from({ length: n }, (_, i) => i % CLASSES), CLASSES);
  const shapeOf = (n: number) => [n, 3, size, size];

  Deno.test(`exportDynamicModel() takes any number of images: ${name}`, async () => {
    const model = await assertDynamic({
      constants,
      build: (n) => {
        const x = input("images", shapeOf(n));
        const { representation, logits } = buildModel(spec, x);
        return { representation, logits };
      },
      feeds: (n) => ({ images: imagesOf(n, size) }),
    });
    assertEquals(model.inputs, [
      { name: "images", dtype: "float32", shape: ["n", 3, size, size] },
    ]);
    assertEquals(model.outputs[1].shape, ["n", CLASSES]);
    const { graph, opsetImport } = decodeModel(model.bytes);
    assertEquals(opsetImport.map((one) => one.version), [BigInt(OPSET)]);
    for (const { type } of [...graph.input, ...graph.output]) {
      assertEquals(type.tensorType.shape.dim[0].dimParam, "n");
    }
  });

  Deno.test(`exportDynamicModel() takes steps of PGD: ${name}`, async () => {
    const { loss } = matchRepresentation(tensor([1], [1, 1]));
    const probe = buildModel(spec, input("images", shapeOf(1)));
    const d = probe.representation.shape[1];
    await assertDynamic({
      constants,
      tolerance: 1e-4,
      build: (n) =>
        pgdStep(spec, shapeOf(n), {
          norm: "l2",
          loss,
          feeds: { target: [n, d] },
          fakeRelu: true,
        }) as unknown as Record<string, Node>,
      feeds: (n) => ({
        images: imagesOf(n, size),
        center: imagesOf(n, size, 2),
        target: new Random(3).uniformTensor([n, d]),
        epsilon: tensor([4], []),
        stepSize: tensor([-0.5], []),
      }),
    });
    await assertDynamic({
      constants,
      // Signs of gradients near zero may differ between kernels.
      tolerance: 2e-2,
      build: (n) =>
        pgdStep(spec, shapeOf(n), {
          norm: "linf",
          loss: ({ logits }, feeds) => sum(mul(logits, feeds.labels), [1]),
          feeds: { labels: [n, CLASSES] },
          fakeRelu: false,
        }) as unknown as Record<string, Node>,
      feeds: (n) => ({
        images: imagesOf(n, size),
        center: imagesOf(n, size),
        labels: labels(n),
        epsilon: tensor([0.05], []),
        stepSize: tensor([0.01], []),
      }),
    });
  });
}

Deno.test("exportDynamicModel() repeats constants and sums over images", async () => {
  await assertDynamic({
    build: (n) => {
      const x = input("x", [n, 3, 9, 9]);
      const ones = constant(full([n, 3, 1, 1], 2));
      const y = adaptiveAveragePool(mul(x, ones), [4, 4]);
      const total = sum(mul(y, y));
      return {
        total,
        ones: constant(full([n], 7)),
        slope: grad(total, [x])[0],
        same: x,
      };
    },
    feeds: (n) => ({ x: new Random(n).normal([n, 3, 9, 9]) }),
  });
});

Deno.test("exportDynamicModel() refuses what treats images unalike", () => {
  const x = (n: number) => input("x", [n, 2]);
  const cases: [(n: number) => Node, string][] = [
    // The gradient of a mean holds 1 / n.
    [
      (n) => {
        const images = x(n);
        return grad(mean(mul(images, images)), [images])[0];
      },
      "its constants are others",
    ],
    [
      (n) => add(x(n), constant(new Random(0).normal([n, 1]))),
      "its constants are others",
    ],
    [(n) => n === 4091 ? add(x(n), 2) : sub(x(n), 2), "its operators are"],
    [(n) => input("x", [2 * n]), "axis 0 is not the number of images"],
  ];
  for (const [build, message] of cases) {
    assertThrows(
      () => exportDynamicModel((n) => ({ y: build(n) })),
      TypeError,
      message,
    );
  }
});

Deno.test("exportModel() refuses weights that protobuf cannot hold", () => {
  // Never written to, so that no memory is taken.
  const shape = [2 ** 14, 2 ** 15 + 1];
  const w = parameter("w", shape);
  const data = new Float32Array(shape[0] * shape[1]);
  const constants = { w: { dtype: "float32", shape, data } as const };
  const y = add(w, input("x", [1]));
  assertThrows(
    () => exportModel({ y }, { constants }),
    RangeError,
    "2147549184 bytes of weights inside: a file may have 2147483647",
  );
  const beside = exportModel({ y: input("x", [1]) }, { constants });
  assert(beside.bytes.length < 1000);
});
