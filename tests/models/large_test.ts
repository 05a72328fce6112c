/**
 * Networks at their published size, 224 x 224, against PyTorch in double
 * precision. Weights and images follow from a formula (tests/fixtures,
 * `large_<architecture>`), so that only results are stored.
 *
 * @module
 */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import {
  grad,
  input,
  mean,
  type NamedTensors,
  type Shape,
  sizeOf,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import {
  type Architecture,
  buildModel,
  modelParameters,
  type ModelSpec,
} from "../../models/mod.ts";
import { compile } from "../../onnx/mod.ts";
import { matchRepresentation } from "../../robust/mod.ts";
import { assertAllClose } from "../_assert.ts";
import { readDescription, readTensors } from "../_fixtures.ts";
import { floats, integers } from "./_fixture_network.ts";

/** How a parameter follows from its name, and what it must come out as. */
interface Formula {
  readonly name: string;
  readonly shape: Shape;
  /** Middle of its values. */
  readonly c: number;
  /** Half the width of their range. */
  readonly a: number;
  readonly first: readonly number[];
  readonly sum_abs: number;
}

interface Description {
  readonly batch: number;
  readonly hash_seed: number;
  readonly num_classes: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly input_first: readonly number[];
  readonly input_sum: number;
  readonly target_input_first: readonly number[];
  readonly inversion_loss: readonly number[];
  readonly parameters: readonly Formula[];
}

/** Scrambles 32 bits. */
function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return h ^ (h >>> 16);
}

/** Makes 24 random bits of each index, by name. */
function bitsOf(name: string, seed: number): (index: number) => number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) {
    hash = Math.imul(hash ^ byte, 0x01000193);
  }
  const start = hash ^ Math.imul(seed, 0x9e3779b1);
  return (index) => mix((mix(index) + start) | 0) >>> 8;
}

function parameterOf({ name, shape, c, a }: Formula, seed: number): Tensor {
  const bits = bitsOf(name, seed);
  const data = new Float32Array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) {
    data[i] = c + a * (bits(i) / 2 ** 23 - 1);
  }
  return tensor(data, shape);
}

/** Blocks of 32 x 32 pixels of one colour under noise. */
function imagesOf(
  name: "input" | "target",
  { batch, hash_seed: seed }: Description,
): Tensor {
  const coarse = bitsOf(`${name}.coarse`, seed);
  const fine = bitsOf(`${name}.fine`, seed);
  const data = new Float32Array(batch * 3 * 224 * 224);
  for (let i = 0; i < data.length; i++) {
    const [plane, y, x] = [
      Math.floor(i / 224 ** 2),
      Math.floor(i / 224) % 224,
      i % 224,
    ];
    const block = (plane * 7 + (y >> 5)) * 7 + (x >> 5);
    data[i] = 0.6 * (coarse(block) / 2 ** 24) + 0.4 * (fine(i) / 2 ** 24);
  }
  return tensor(data, [batch, 3, 224, 224]);
}

function sumOf({ data }: Tensor, value = (x: number) => x): number {
  return data.reduce((total, x) => total + value(x), 0);
}

/** Sums over blocks of 32 x 32 pixels, `[n, 3, 7, 7]`. */
function blockSums({ data, shape: [n] }: Tensor): Tensor {
  const sums = new Float64Array(n * 3 * 7 * 7);
  data.forEach((value, i) => {
    const row = Math.floor(i / 224);
    const block = Math.floor(row / 224) * 7 + (row % 224 >> 5);
    sums[block * 7 + (i % 224 >> 5)] += value;
  });
  return tensor(Float32Array.from(sums), [n, 3, 7, 7]);
}

function parametersOf(
  spec: ModelSpec,
  { parameters, hash_seed: seed }: Description,
): NamedTensors {
  const formulas = new Map(parameters.map((one) => [one.name, one]));
  const names = [...modelParameters(spec).keys()];
  // All but counters of batches, which this project does not keep.
  assertEquals(
    names.toSorted(),
    [...formulas.keys()].filter((name) => !name.endsWith("_tracked")).sort(),
  );
  return Object.fromEntries(names.map((name) => {
    const formula = formulas.get(name)!;
    const value = parameterOf(formula, seed);
    assertEquals([...value.data.subarray(0, 3)], formula.first, name);
    const ratio = sumOf(value, Math.abs) / formula.sum_abs;
    assertAlmostEquals(ratio, 1, 1e-6, name);
    return [name, value];
  }));
}

/** Largest error of gradients: kinks lie nearer in networks without shortcuts. */
const GRADIENT_TOLERANCE = {
  resnet18: 1e-3,
  resnet50: 1e-3,
  vgg16: 5e-2,
  vgg16_bn: 5e-2,
} as const satisfies Partial<Record<Architecture, number>>;

for (const [architecture, tolerance] of Object.entries(GRADIENT_TOLERANCE)) {
  Deno.test(`${architecture} at 224 x 224 gives PyTorch's values and input gradient`, async () => {
    const file = `large_${architecture}`;
    const description = await readDescription<Description>(file);
    const expected = await readTensors(file);
    const spec: ModelSpec = {
      architecture: architecture as Architecture,
      form: "imagenet",
      width: 64,
      classes: description.num_classes,
      mean: description.mean,
      std: description.std,
    };
    const x = imagesOf("input", description);
    const targets = imagesOf("target", description);
    assertEquals([...x.data.subarray(0, 4)], description.input_first);
    assertEquals(
      [...targets.data.subarray(0, 4)],
      description.target_input_first,
    );
    assertAlmostEquals(sumOf(x) / description.input_sum, 1, 1e-6);

    const target = floats(expected, "target_representation");
    const images = input("images", x.shape);
    const model = buildModel(spec, images, { fakeRelu: true });
    const { loss } = matchRepresentation(target);
    const losses = loss(model, { target: input("target", target.shape) });
    const [gradient] = grad(mean(losses), [images]);
    const { representation, logits } = model;
    const program = await compile(
      { representation, logits, losses, gradient },
      { constants: parametersOf(spec, description) },
    );
    const found = await program.run({ images: x, target });
    const onTargets = await program.run({ images: targets, target });
    await program.release();

    const value = { tolerance: 1e-5, relative: "l2" } as const;
    for (const name of ["representation", "logits"]) {
      assertAllClose(found[name], expected[name], { ...value, name });
    }
    assertAllClose(found.losses, tensor(description.inversion_loss), {
      ...value,
      name: "inversion loss",
    });
    assertAllClose(onTargets.representation, target, {
      ...value,
      name: "representation of the targets",
    });
    const g = found.gradient as Tensor;
    const indices = integers(expected, "grad_sample_index");
    const samples = tensor(indices.map((i) => g.data[i]));
    assertAllClose(samples, expected.grad_samples, {
      tolerance,
      relative: "l2",
      name: "gradient",
    });
    assertAllClose(blockSums(g), expected.grad_block_sums, {
      tolerance,
      relative: "l2",
      name: "sums of the gradient",
    });
  });
}
