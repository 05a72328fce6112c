/**
 * Accuracy of rigged networks and of the fixtures' network.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  full,
  type NamedTensors,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import { modelParameters, type ModelSpec } from "../../models/mod.ts";
import {
  evaluate,
  type EvaluationAttack,
  predictions,
} from "../../robust/evaluate.ts";
import { Network } from "../../robust/network.ts";
import { readTensors } from "../_fixtures.ts";
import {
  FIXTURE_SPEC,
  fixtureParameters,
  floats,
} from "../models/_fixture_network.ts";
import { noisySplit, splitOf } from "./_split.ts";

const SPEC: ModelSpec = {
  architecture: "resnet18",
  form: "cifar",
  width: 1,
  classes: 3,
  mean: [0.5, 0.5, 0.5],
  std: [0.25, 0.25, 0.25],
};

/** A network that sees class `label` in every image. */
function obstinate(label: number): Network {
  const parameters: NamedTensors = Object.fromEntries(
    Array.from(modelParameters(SPEC), ([name, { node }]) => [
      name,
      full(node.shape, name.endsWith("running_var") ? 1 : 0),
    ]),
  );
  const bias = full([3], 0);
  bias.data[label] = 2;
  return new Network(SPEC, { ...parameters, "fc.bias": bias }, { threads: 1 });
}

const ATTACK: EvaluationAttack = {
  norm: "l2",
  epsilon: 1,
  stepSize: 0.5,
  steps: 4,
  randomStart: true,
  restarts: 1,
};

Deno.test("evaluate() finds accuracy 1 and 0 where a network is rigged so", async () => {
  const pixels = new Uint8Array(5 * 3 * 8 * 8).fill(100);
  const split = splitOf(pixels, [1, 1, 1, 1, 1], [3, 8, 8]);
  for (const [label, accuracy] of [[1, 1], [2, 0]]) {
    const network = obstinate(label);
    const found = await evaluate(network, split, { attack: ATTACK });
    const loss = Math.log(Math.exp(2) + 2) - (accuracy === 1 ? 2 : 0);
    assertEquals(found.images, 5);
    assertEquals([found.clean, found.adversarial], [accuracy, accuracy]);
    assert(Math.abs(found.cleanLoss - loss) < 1e-6);
    assert(Math.abs(found.adversarialLoss! - loss) < 1e-6);
    const perImage = new Array(5).fill(accuracy === 1);
    assertEquals(found.perImage, { clean: perImage, adversarial: perImage });
    await network.release();
  }
});

Deno.test("evaluate() counts each image, in any batches", async () => {
  const split = noisySplit({ size: 7, side: 8, classes: 3, seed: 0 });
  const network = obstinate(0);
  for (const batchSize of [1, 3, 7, 64]) {
    const done: number[] = [];
    const found = await evaluate(network, split, {
      batchSize,
      onProgress: (count) => done.push(count),
    });
    const expected = [true, false, false, true, false, false, true];
    assertEquals(found.perImage, { clean: expected });
    assertEquals([found.images, found.clean], [7, 3 / 7]);
    assertEquals([found.adversarial, found.adversarialLoss], [
      undefined,
      undefined,
    ]);
    assertEquals(done.length, Math.ceil(7 / batchSize));
    assertEquals(done.at(-1), 7);
  }
  await network.release();
});

/** The fixtures' images with the labels that their network gives them. */
async function fixtureSplit() {
  const tensors = await readTensors("cifar_eval");
  const parameters = await fixtureParameters();
  const network = new Network(FIXTURE_SPEC, parameters, { threads: 1 });
  const images = floats(tensors, "target_images");
  const bytes = images.data.map((value) => Math.round(255 * value));
  const seen = tensor(bytes.map((value) => value / 255), images.shape);
  const { logits } = await network.predict(seen);
  const labels = predictions(logits);
  return { network, split: splitOf(bytes, labels, [3, 32, 32]) };
}

const { network, split } = await fixtureSplit();

Deno.test("attacks lower accuracy and raise the loss", async () => {
  for (const norm of ["l2", "linf"] as const) {
    const [epsilon, stepSize] = norm === "l2" ? [1, 0.25] : [0.03, 0.01];
    const attack = { ...ATTACK, norm, epsilon, stepSize, steps: 8 };
    const found = await evaluate(network, split, { attack });
    assertEquals(found.clean, 1);
    assert(found.adversarial! < 1, `${found.adversarial} under ${norm}`);
    assert(found.adversarialLoss! > found.cleanLoss);
  }
});

Deno.test("an image misclassified clean does not count under attack", async () => {
  const labels = split.labels.map((label, i) =>
    i % 2 ? label : (label + 1) % 10
  );
  const pixels = await split.load(labels.map((_, i) => i));
  const half = splitOf(
    pixels.data.map((value) => Math.round(255 * value)),
    labels,
    [3, 32, 32],
  );
  const { clean, perImage } = await evaluate(network, half, { attack: ATTACK });
  assertEquals(clean, 0.5);
  perImage.adversarial!.forEach((withstood, i) =>
    assert(!withstood || perImage.clean[i])
  );
});

Deno.test("restarts never raise accuracy nor lower the loss", async () => {
  let [accuracy, loss] = [1, 0];
  for (const restarts of [1, 2, 3]) {
    const attack = { ...ATTACK, epsilon: 0.3, stepSize: 0.1, restarts };
    const found = await evaluate(network, split, { attack, seed: 2 });
    assert(found.adversarial! <= accuracy);
    assert(found.adversarialLoss! >= loss);
    [accuracy, loss] = [found.adversarial!, found.adversarialLoss!];
  }
});

Deno.test("evaluate() with epsilon 0 finds the clean accuracy", async () => {
  for (const norm of ["l2", "linf"] as const) {
    const attack = { ...ATTACK, norm, epsilon: 0 };
    const found = await evaluate(network, split, { attack });
    assertEquals(found.adversarial, found.clean);
    assertEquals(found.adversarialLoss, found.cleanLoss);
    assertEquals(found.perImage.adversarial, found.perImage.clean);
  }
});

Deno.test("evaluate() gives the same twice with one seed", async () => {
  const run = (seed: number) =>
    evaluate(network, split, { attack: ATTACK, seed, batchSize: 3 });
  assertEquals(await run(1), await run(1));
  const { adversarialLoss } = await run(2);
  assert(adversarialLoss !== (await run(1)).adversarialLoss);
});

Deno.test("evaluate() refuses labels that the network has no class for", async () => {
  const odd = splitOf(new Uint8Array(3 * 8 * 8), [3], [3, 8, 8]);
  await assertRejects(
    () => evaluate(obstinate(0), odd),
    RangeError,
    "Cannot use label 3: the model has 3 classes, 0 to 2",
  );
});

Deno.test("evaluate() refuses attacks out of range", async () => {
  const refused: [Partial<EvaluationAttack>, string][] = [
    [{ epsilon: -1 }, "epsilon must be >= 0"],
    [{ restarts: 0 }, "restarts must be an integer >= 1: current value is 0"],
    [{ restarts: NaN }, "restarts must be an integer >= 1"],
    [
      { restarts: 2, randomStart: false },
      "Cannot restart 2 times without a random start",
    ],
  ];
  for (const [changes, message] of refused) {
    await assertRejects(
      () => evaluate(network, split, { attack: { ...ATTACK, ...changes } }),
      RangeError,
      message,
    );
  }
});

Deno.test("evaluate() stops when its signal aborts", async () => {
  const controller = new AbortController();
  let done = 0;
  await assertRejects(
    () =>
      evaluate(network, split, {
        batchSize: 2,
        signal: controller.signal,
        onProgress: (count) => {
          done = count;
          controller.abort(new Error("enough"));
        },
      }),
    Error,
    "enough",
  );
  assertEquals(done, 2);
});

Deno.test("predictions() finds the largest logit of each row", () => {
  const logits: Tensor = tensor([1, 3, 2, -1, -3, -2, 5, 5, 0], [3, 3]);
  assertEquals([...predictions(logits)], [1, 0, 0]);
});
