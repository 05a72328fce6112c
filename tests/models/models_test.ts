/**
 * Networks: names, shapes, counts and initial values of their parameters.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  add,
  type AnyTensor,
  conv2d,
  div,
  input,
  mul,
  type Node,
  Random,
  reshape,
  sizeOf,
  sqrt,
  sub,
  type Tensor,
} from "../../core/mod.ts";
import { convBatchNorm, Scope } from "../../models/layers.ts";
import {
  type Architecture,
  ARCHITECTURES,
  buildModel,
  initializeModel,
  modelParameters,
  type ModelSpec,
} from "../../models/mod.ts";
import { assertAllClose, evaluate } from "../_assert.ts";
import { readDescription } from "../_fixtures.ts";

const NORMALIZATION = {
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
};

function specOf(
  architecture: Architecture,
  options: Partial<ModelSpec> = {},
): ModelSpec {
  return {
    architecture,
    form: "imagenet",
    width: 64,
    classes: 1000,
    ...NORMALIZATION,
    ...options,
  };
}

/** Length of a representation at width `width`. */
function representationSize({ architecture, form, width }: ModelSpec): number {
  if (architecture === "resnet50") return 32 * width;
  const isVgg = architecture.startsWith("vgg");
  return isVgg && form === "imagenet" ? 64 * width : 8 * width;
}

for (const architecture of ARCHITECTURES) {
  for (const form of ["cifar", "imagenet"] as const) {
    const spec = specOf(architecture, { form, width: 2, classes: 5 });

    Deno.test(`buildModel() makes a ${architecture} in ${form} form that runs`, async () => {
      const images = input("images", [2, 3, 32, 32]);
      const { representation, logits } = buildModel(spec, images);
      const random = new Random(0);
      const found = await evaluate(
        { representation, logits },
        { images: random.stream("images").uniformTensor(images.shape) },
        { constants: initializeModel(spec, random) },
      );
      assertEquals(logits.shape, [2, 5]);
      assertEquals(representation.shape, [2, representationSize(spec)]);
      assert((found.logits.data as Float32Array).every(Number.isFinite));
      assert((found.representation as Tensor).data.every((x) => x >= 0));
    });

    Deno.test(`buildModel() moves each running statistic of a ${architecture} in ${form} form when training`, () => {
      const images = input("images", [2, 3, 32, 32]);
      const model = buildModel(spec, images, { training: true });
      const fixed = [...model.parameters].filter(([, p]) => !p.trainable);
      assertEquals(
        [...model.updates.keys()].sort(),
        [
          ...fixed.map(([name]) => name),
        ].sort(),
      );
      for (const [name, { node, trainable }] of model.parameters) {
        assertEquals(trainable, !name.includes("running_"), name);
        if (!trainable) {
          assertEquals(model.updates.get(name)!.shape, node.shape);
        }
      }
      const hasNorm = !["vgg11", "vgg16"].includes(architecture);
      assertEquals(fixed.length > 0, hasNorm);
      assertEquals(buildModel(spec, images).updates.size, 0);
    });
  }
}

interface LargeNetwork {
  readonly parameters: readonly {
    readonly name: string;
    readonly shape: readonly number[];
  }[];
}

for (
  const architecture of ["resnet18", "resnet50", "vgg16", "vgg16_bn"] as const
) {
  Deno.test(`${architecture} has torchvision's parameters`, async () => {
    const large = await readDescription<LargeNetwork>(`large_${architecture}`);
    const expected = large.parameters
      .filter(({ name }) => !name.endsWith("num_batches_tracked"))
      .map(({ name, shape }) => [name, [...shape]]);
    const found = Array.from(
      modelParameters(specOf(architecture)),
      ([name, { node }]) => [name, [...node.shape]],
    );
    assertEquals(Object.fromEntries(found), Object.fromEntries(expected));
    assertEquals(found.length, expected.length);
  });
}

/** Where torchvision's VGG-11 has its convolutions. */
const VGG11_LAYERS = {
  vgg11: [0, 3, 6, 8, 11, 13, 16, 18],
  vgg11_bn: [0, 4, 8, 11, 15, 18, 22, 25],
} as const;

for (const architecture of ["vgg11", "vgg11_bn"] as const) {
  Deno.test(`${architecture} has torchvision's parameters`, () => {
    const hasNorm = architecture === "vgg11_bn";
    const norm = ["weight", "bias", "running_mean", "running_var"];
    const expected = [
      ...VGG11_LAYERS[architecture].flatMap((i) => [
        `features.${i}.weight`,
        `features.${i}.bias`,
        ...(hasNorm ? norm.map((name) => `features.${i + 1}.${name}`) : []),
      ]),
      ...[0, 3, 6].flatMap((i) => [
        `classifier.${i}.weight`,
        `classifier.${i}.bias`,
      ]),
    ];
    const found = modelParameters(specOf(architecture));
    assertEquals([...found.keys()].sort(), expected.sort());
  });
}

Deno.test("resnet34 has torchvision's parameters", () => {
  const layer = (name: string, norm: string) => [
    `${name}.weight`,
    ...["weight", "bias", "running_mean", "running_var"]
      .map((part) => `${norm}.${part}`),
  ];
  const expected = [
    ...layer("conv1", "bn1"),
    ...[3, 4, 6, 3].flatMap((blocks, i) =>
      Array.from({ length: blocks }, (_, j) => `layer${i + 1}.${j}`)
        .flatMap((block) => [
          ...layer(`${block}.conv1`, `${block}.bn1`),
          ...layer(`${block}.conv2`, `${block}.bn2`),
        ])
    ),
    ...[2, 3, 4].map((i) => `layer${i}.0.downsample`)
      .flatMap((block) => layer(`${block}.0`, `${block}.1`)),
    "fc.weight",
    "fc.bias",
  ];
  const found = modelParameters(specOf("resnet34"));
  assertEquals([...found.keys()].sort(), expected.sort());
});

/** Trainable values, as torchvision's documentation gives them. */
const PUBLISHED_COUNTS: Readonly<Record<Architecture, number>> = {
  // Not torchvision's: its ResNet class with one block in each stage.
  resnet10: 5_418_792,
  resnet18: 11_689_512,
  resnet34: 21_797_672,
  resnet50: 25_557_032,
  vgg11: 132_863_336,
  vgg11_bn: 132_868_840,
  vgg16: 138_357_544,
  vgg16_bn: 138_365_992,
};

function countOf(spec: ModelSpec): number {
  return [...modelParameters(spec).values()]
    .filter(({ trainable }) => trainable)
    .reduce((total, { node }) => total + sizeOf(node.shape), 0);
}

for (const architecture of ARCHITECTURES) {
  Deno.test(`${architecture} has the published number of parameters`, () => {
    assertEquals(countOf(specOf(architecture)), PUBLISHED_COUNTS[architecture]);
  });
}

Deno.test("resnet18 in CIFAR form has the reference library's number of parameters", () => {
  const cifar = { form: "cifar", classes: 10 } as const;
  // pytorch-cifar's count; the fixtures' README gives the one of width 8.
  assertEquals(countOf(specOf("resnet18", cifar)), 11_173_962);
  assertEquals(countOf(specOf("resnet18", { ...cifar, width: 8 })), 176_402);
});

Deno.test("buildModel() refuses unknown architectures and sizes below 1", () => {
  const images = input("images", [1, 3, 32, 32]);
  for (const architecture of ["alexnet", "toString", ""]) {
    assertThrows(
      () => buildModel(specOf(architecture as Architecture), images),
      RangeError,
      `choose one of ${ARCHITECTURES.join(", ")}`,
    );
  }
  for (const size of [0, -1, 1.5, NaN, Infinity]) {
    for (const name of ["width", "classes"]) {
      assertThrows(
        () => buildModel(specOf("resnet18", { [name]: size }), images),
        RangeError,
        `${name} must be an integer >= 1, current value is ${size}`,
      );
    }
  }
});

/** Mean and standard deviation of some values. */
function momentsOf({ data }: AnyTensor): [number, number] {
  const values = Array.from(data, Number);
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
  const squares = values.reduce((sum, x) => sum + (x - mean) ** 2, 0);
  return [mean, Math.sqrt(squares / values.length)];
}

for (const architecture of ["resnet18", "vgg11_bn"] as const) {
  Deno.test(`initializeModel() draws a ${architecture} from the stated distributions`, () => {
    const spec = specOf(architecture, { width: 8, classes: 10 });
    const parameters = initializeModel(spec, new Random(7));
    for (const [name, value] of Object.entries(parameters)) {
      const [mean, deviation] = momentsOf(value);
      const { shape, data } = value;
      const { length } = data;
      if (shape.length === 4) {
        const expected = Math.sqrt(2 / (shape[0] * shape[2] * shape[3]));
        // Five standard errors of a mean and of a standard deviation.
        assert(Math.abs(mean) < 5 * expected / Math.sqrt(length), name);
        assert(
          Math.abs(deviation / expected - 1) < 5 / Math.sqrt(2 * length),
          name,
        );
      } else if (/^(fc|classifier)/.test(name)) {
        const weight = parameters[name.replace("bias", "weight")];
        const bound = 1 / Math.sqrt(weight.shape[1]);
        assert(
          (data as Float32Array).every((x) => Math.abs(x) <= bound),
          name,
        );
        const expected = bound / Math.sqrt(3);
        assert(Math.abs(mean) < 5 * expected / Math.sqrt(length), name);
        assert(
          Math.abs(deviation / expected - 1) < 5 / Math.sqrt(2 * length),
          name,
        );
      } else {
        const isScale = /running_var$/.test(name) ||
          (/weight$/.test(name) && shape.length === 1);
        assertEquals([mean, deviation], [isScale ? 1 : 0, 0], name);
      }
    }
  });
}

Deno.test("initializeModel() depends on the seed and a parameter's name alone", () => {
  const spec = specOf("resnet18", { width: 4, classes: 10 });
  const first = initializeModel(spec, new Random(0));
  assertEquals(initializeModel(spec, new Random(0)), first);
  const wider = initializeModel({ ...spec, classes: 3 }, new Random(0));
  assertEquals(wider["layer4.1.conv2.weight"], first["layer4.1.conv2.weight"]);
  const deeper = initializeModel(
    { ...spec, architecture: "resnet34" },
    new Random(0),
  );
  assertEquals(deeper["layer1.0.conv1.weight"], first["layer1.0.conv1.weight"]);
  const other = initializeModel(spec, new Random(1));
  assert(other["conv1.weight"].data[0] !== first["conv1.weight"].data[0]);
  const weights = Object.values(first).filter(({ shape }) => shape.length > 1);
  const starts = new Set(weights.map(({ data }) => Number(data[0])));
  assertEquals(starts.size, weights.length);
});

/** BatchNorm on its own, as PyTorch defines it in evaluation mode. */
function batchNorm(x: Node, at: (name: string) => Node): Node {
  const channels = (vector: Node) =>
    reshape(vector, [1, vector.shape[0], 1, 1]);
  const deviation = sqrt(add(at("running_var"), 1e-5));
  const centered = sub(x, channels(at("running_mean")));
  const scaled = mul(
    div(centered, channels(deviation)),
    channels(at("weight")),
  );
  return add(scaled, channels(at("bias")));
}

for (const bias of [false, true]) {
  Deno.test(`convBatchNorm() ${bias ? "with" : "without"} bias equals a convolution and then BatchNorm`, async () => {
    const scope = new Scope(false);
    const x = input("x", [2, 3, 9, 9]);
    const options = { kernel: 3, stride: 2, bias };
    const folded = convBatchNorm(
      scope.at("conv"),
      scope.at("bn"),
      x,
      5,
      options,
    );
    const nodeOf = (name: string) => scope.parameters.get(name)!.node;
    const convolved = conv2d(x, nodeOf("conv.weight"), {
      stride: 2,
      padding: 1,
      bias: bias ? nodeOf("conv.bias") : undefined,
    });
    const unfolded = batchNorm(convolved, (name) => nodeOf(`bn.${name}`));
    const random = new Random(3);
    const constants = Object.fromEntries(
      Array.from(scope.parameters, ([name, { node }]) => [
        name,
        name.endsWith("running_var")
          ? random.uniformTensor(node.shape, 0.05, 4)
          : random.normal(node.shape),
      ]),
    );
    const feeds = { x: random.normal(x.shape) };
    const found = await evaluate({ folded, unfolded }, feeds, { constants });
    assertAllClose(found.folded, found.unfolded, { tolerance: 2e-6 });
  });
}
