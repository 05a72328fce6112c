/**
 * The network of tests/fixtures against PyTorch in double precision.
 *
 * @module
 */
import { type AnyTensor, grad, input, mean } from "../../core/mod.ts";
import { buildModel } from "../../models/mod.ts";
import {
  coordinateObjective,
  crossEntropyObjective,
  matchRepresentation,
  type Objective,
} from "../../robust/objectives.ts";
import { assertAllClose, evaluate } from "../_assert.ts";
import { readDescription, readTensors } from "../_fixtures.ts";
import {
  FIXTURE_SPEC,
  fixtureParameters,
  floats,
  integers,
} from "./_fixture_network.ts";

/** Of values and of gradients; no kink lies near these images. */
const VALUE = { tolerance: 2e-6, relative: "l2" } as const;
const GRADIENT = { tolerance: 1e-5, relative: "l2" } as const;

const tensors = await readTensors("cifar_eval");
const constants = await fixtureParameters();
const { feature_index: feature } = await readDescription<
  { readonly feature_index: number }
>("cifar_eval");

const x = floats(tensors, "x");
const crossEntropies = crossEntropyObjective(integers(tensors, "labels"), 10);
const inversion = matchRepresentation(floats(tensors, "target_representation"));
const features = coordinateObjective(
  new Array(x.shape[0]).fill(feature),
  inversion.feeds.target.shape[1],
);

/** An objective on the fixture's images: its losses, and their sum's or mean's gradient. */
async function differentiated(
  { loss, feeds }: Objective,
  fakeRelu: boolean,
  reduced: "mean" | "sum" = "mean",
): Promise<Record<string, AnyTensor>> {
  const images = input("x", x.shape);
  const model = buildModel(FIXTURE_SPEC, images, { fakeRelu });
  const nodes = Object.fromEntries(
    Object.entries(feeds).map(([name, { shape }]) => [
      name,
      input(name, shape),
    ]),
  );
  const losses = loss(model, nodes);
  const [gradient] = grad(reduced === "mean" ? mean(losses) : losses, [images]);
  return await evaluate({ losses, gradient }, { ...feeds, x }, { constants });
}

Deno.test("buildModel() gives PyTorch's representation and logits", async () => {
  const images = input("x", x.shape);
  const { representation, logits } = buildModel(FIXTURE_SPEC, images);
  const found = await evaluate({ representation, logits }, { x }, {
    constants,
  });
  for (const name of ["representation", "logits"]) {
    assertAllClose(found[name], tensors[name], { ...VALUE, name });
  }
});

Deno.test("fakeRelu leaves the representation and logits as they are", async () => {
  const images = input("x", x.shape);
  const model = buildModel(FIXTURE_SPEC, images, { fakeRelu: true });
  const { representation, logits } = model;
  const found = await evaluate({ representation, logits }, { x }, {
    constants,
  });
  for (const name of ["representation", "logits"]) {
    assertAllClose(found[name], tensors[name], { ...VALUE, name });
  }
});

Deno.test("cross-entropy and its gradient are PyTorch's", async () => {
  const { losses, gradient } = await differentiated(crossEntropies, false);
  assertAllClose(losses, tensors.ce_per_sample, VALUE);
  assertAllClose(gradient, tensors.grad_ce, GRADIENT);
});

for (const kind of ["fake", "true"] as const) {
  Deno.test(`inversion loss and its gradient with the ${kind} ReLU are PyTorch's`, async () => {
    const { losses, gradient } = await differentiated(
      inversion,
      kind === "fake",
    );
    assertAllClose(losses, tensors.inv_per_sample, VALUE);
    assertAllClose(gradient, tensors[`grad_inv_${kind}`], GRADIENT);
  });
}

Deno.test("gradient of a feature with the fake ReLU is PyTorch's", async () => {
  const { gradient } = await differentiated(features, true, "sum");
  assertAllClose(gradient, tensors.grad_feature_fake, GRADIENT);
});
