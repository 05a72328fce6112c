/**
 * Steps of PGD, of Auto-PGD and of training on the WebGPU provider against the CPU
 * provider, with no node left to the CPU.
 *
 * Needs an adapter. Debian's chromium brings a software one, slow but correct:
 * `VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json deno test -A
 * tests/robust/webgpu_test.ts`. Set before the process starts: the Vulkan
 * loader does not see what Deno sets later.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  add,
  type AnyTensor,
  full,
  input,
  mul,
  type Node,
  Random,
  type Tensor,
  tensor,
  topologicalOrder,
} from "../../core/mod.ts";
import {
  buildModel,
  initializeModel,
  modelParameters,
  type ModelSpec,
} from "../../models/mod.ts";
import {
  compile,
  DeviceReader,
  DeviceTensor,
  releaseDevice,
} from "../../onnx/mod.ts";
import { useTiledKernels } from "../../onnx/tiled.ts";
import { BatchAttack } from "../../robust/batch_attack.ts";
import { apgdStep } from "../../robust/apgd.ts";
import { targetedDlrObjective } from "../../robust/margin.ts";
import {
  addFeature,
  coordinateObjective,
  crossEntropyObjective,
  matchRepresentation,
  type Objective,
  oneHot,
} from "../../robust/objectives.ts";
import {
  optimizeInput,
  type OptimizeOptions,
  pgdStep,
  randomStart,
} from "../../robust/pgd.ts";
import { Network } from "../../robust/network.ts";
import { fourierBasis, randomAffine } from "../../robust/regularized.ts";
import { trainingStep } from "../../robust/training_graphs.ts";
import { DeviceTrainer } from "../../robust/device_trainer.ts";
import {
  initialState,
  train,
  type TrainSettings,
  type TrainState,
} from "../../robust/train.ts";
import { Trainer } from "../../robust/trainer.ts";
import { assertAllClose, evaluate } from "../_assert.ts";
import { noisySplit } from "./_split.ts";

const ignore = !hasAdapter();

/** Whether the Vulkan loader was pointed to a driver that is there. */
function hasAdapter(): boolean {
  const driver = Deno.env.get("VK_ICD_FILENAMES");
  try {
    if (driver && Deno.statSync(driver).isFile) return true;
  } catch {
    // Named, yet missing: as if it were not named.
  }
  console.log(
    "WebGPU tests are ignored: set VK_ICD_FILENAMES to a Vulkan driver's " +
      "file, such as /usr/lib/chromium/vk_swiftshader_icd.json",
  );
  return false;
}

const SPEC: ModelSpec = {
  architecture: "resnet18",
  form: "cifar",
  width: 2,
  classes: 3,
  mean: [0.5, 0.5, 0.5],
  std: [0.25, 0.25, 0.25],
};

const random = new Random(0);
const constants = initializeModel(SPEC, random);

/** Images of `side` pixels with their labels. */
function drawFeeds(side: number): Record<string, AnyTensor> {
  const shape = [2, 3, side, side];
  return {
    images: random.stream("images").uniformTensor(shape),
    ...crossEntropyObjective([0, 2], SPEC.classes).feeds,
  };
}

/** Runs a graph on both providers and compares all that it computes. */
async function assertSameOnWebgpu(
  outputs: Readonly<Record<string, Node>>,
  feeds: Readonly<Record<string, AnyTensor>>,
  fixed?: typeof constants,
): Promise<void> {
  const options = { constants: fixed };
  const expected = await evaluate(outputs, feeds, options);
  const found = await evaluate(outputs, feeds, {
    ...options,
    provider: "webgpu",
    noFallback: true,
  });
  for (const [name, value] of Object.entries(expected)) {
    assertAllClose(found[name], value, { tolerance: 1e-4, name });
  }
}

for (const norm of ["l2", "linf"] as const) {
  Deno.test({
    name: `a step of PGD in ${norm} is the same on webgpu`,
    ignore,
    async fn() {
      const feeds = drawFeeds(8);
      const { images, labels } = feeds;
      const { next, losses } = pgdStep(SPEC, images.shape, {
        norm,
        loss: crossEntropyObjective([], SPEC.classes).loss,
        feeds: { labels: labels.shape },
        fakeRelu: false,
      });
      await assertSameOnWebgpu({ next, losses }, {
        ...feeds,
        center: images,
        epsilon: tensor([norm === "l2" ? 0.2 : 0.03], []),
        stepSize: tensor([norm === "l2" ? 0.3 : 0.05], []),
      }, constants);
    },
  });
}

/** What `optimizeInput()` does on a provider, and what it shows. */
async function optimized(
  provider: "cpu" | "webgpu",
  options: Partial<OptimizeOptions>,
) {
  const network = new Network(SPEC, constants, { provider });
  const random = new Random(3);
  const shape = options.parameterization?.shape(3) ?? [3, 3, 8, 8];
  const start = random.uniformTensor(shape);
  const shown: [string, Tensor, Tensor][] = [];
  const result = await optimizeInput(network, start, {
    objective: crossEntropyObjective([0, 2, 1], SPEC.classes),
    direction: "maximize",
    epsilon: 0.4,
    stepSize: 0.1,
    steps: 4,
    batchSize: 2,
    ...options,
    onStep: (state) => {
      const { step, restart, start } = state;
      const [images, losses] = [state.images, state.losses].map(
        ({ data, shape }) => tensor(data.slice(), shape),
      );
      shown.push([`${step} ${restart} ${start}`, images, losses]);
      return options.onStep?.(state);
    },
  });
  await network.release();
  return { ...result, shown };
}

/** What `optimizeInput()` is asked for, and which steps it is to show. */
const OPTIMIZATIONS: Readonly<
  Record<string, [Partial<OptimizeOptions>, shown: string]>
> = {
  "shown at each step": [{}, "0 1 2 3 4"],
  "that keeps the best of restarts, observed at times": [{
    keep: "best",
    restarts: 2,
    randomStart: new Random(5),
    observe: (step) => step === 2,
  }, "2 4 2 4"],
  "that is stopped": [{
    observe: (step) => step > 1,
    onStep: ({ step }) => step === 2,
  }, "2"],
  "around centres, in linf": [{
    norm: "linf",
    center: random.uniformTensor([3, 3, 8, 8]),
    observe: (step) => step === 0,
  }, "0 4"],
  "of frequencies that keeps the best": [{
    keep: "best",
    parameterization: fourierBasis(8, 8),
    observe: () => false,
  }, "4"],
  "under random changes, waited for": [{
    transform: randomAffine({ degrees: 20, shift: 0.1, scale: 0.1 }),
    transformRandom: new Random(8),
    steps: 20,
    stepSize: 0.02,
    observe: () => false,
  }, "20"],
  "of no steps": [{ steps: 0, observe: () => false }, "0"],
};

for (const [name, [options, shown]] of Object.entries(OPTIMIZATIONS)) {
  Deno.test({
    name: `optimizeInput() ${name} gives the same on webgpu`,
    ignore,
    async fn() {
      const expected = await optimized("cpu", options);
      const found = await optimized("webgpu", options);
      const steps = found.shown.map(([step]) => step);
      assertEquals(steps, expected.shown.map(([step]) => step));
      // Those of the first of two batches, in which all images are.
      const first = steps.filter((step) => step.endsWith(" 0"));
      assertEquals(first.map((step) => step.split(" ")[0]).join(" "), shown);
      for (const [i, [step, images, losses]] of expected.shown.entries()) {
        const tolerance = 1e-4;
        const name = `step ${step}`;
        assertAllClose(found.shown[i][1], images, { tolerance, name });
        assertAllClose(found.shown[i][2], losses, { tolerance, name });
      }
      assertAllClose(found.images, expected.images, { tolerance: 1e-4 });
      assertAllClose(found.losses, expected.losses, { tolerance: 1e-4 });
    },
  });
}

for (const norm of ["l2", "linf"] as const) {
  Deno.test({
    name: `a step of APGD-T in ${norm} is the same on webgpu`,
    ignore,
    async fn() {
      const spec = { ...SPEC, classes: 4 };
      const { images } = drawFeeds(8);
      const target = targetedDlrObjective([0, 2], [3, 1], spec.classes);
      const { next, losses } = apgdStep(spec, images.shape, {
        norm,
        loss: target.loss,
        feeds: { labels: [2, 4], target: [2, 4] },
      });
      await assertSameOnWebgpu({ next, losses }, {
        ...target.feeds,
        images,
        previous: images,
        center: images,
        epsilon: tensor([norm === "l2" ? 0.2 : 0.03], []),
        stepSize: norm === "l2" ? tensor([0.3, 0.1], [2]) : tensor(
          [0.05, 0.02],
          [2],
        ),
        momentum: tensor([1, 0.75], [2]),
      }, initializeModel(spec, random));
    },
  });
}

/** Steps of the experiments, each with its networks' kinds of layers. */
const EXPERIMENTS: Readonly<
  Record<string, {
    readonly spec?: Partial<ModelSpec>;
    /** Height and width of the images (default 16). */
    readonly side?: number;
    readonly objective: (representation: number) => Objective;
    readonly regularized?: boolean;
  }>
> = {
  "inversion": {
    objective: (size) =>
      matchRepresentation(random.stream("target").normal([2, size])),
  },
  "inversion of a VGG with max pooling": {
    spec: { architecture: "vgg11_bn" },
    side: 32,
    objective: (size) =>
      matchRepresentation(random.stream("target").normal([2, size])),
  },
  "inversion of an ImageNet ResNet-50": {
    spec: { architecture: "resnet50", form: "imagenet" },
    objective: (size) =>
      matchRepresentation(random.stream("target").normal([2, size])),
  },
  "feature visualisation": {
    objective: (size) => coordinateObjective([1, 3], size),
  },
  "regularised feature visualisation": {
    objective: (size) => coordinateObjective([1, 3], size),
    regularized: true,
  },
  "adding a feature until it exceeds all others": {
    objective: (size) => addFeature([1, 3], size, "exceed"),
  },
  "adding a feature until it is 1": {
    objective: (size) => addFeature([1, 3], size, "clamp"),
  },
};

for (const [name, experiment] of Object.entries(EXPERIMENTS)) {
  Deno.test({
    name: `a step of ${name} is the same on webgpu`,
    ignore,
    async fn() {
      const { side = 16, regularized = false } = experiment;
      const spec = { ...SPEC, ...experiment.spec };
      const basis = fourierBasis(side, side);
      const pixels = [2, 3, side, side];
      const shape = regularized ? basis.shape(2) : pixels;
      const images = random.stream("images").uniformTensor(shape);
      const { representation } = buildModel(spec, input("x", pixels));
      const objective = experiment.objective(representation.shape[1]);
      const transform = randomAffine({ shift: 0.1, degrees: 5, scale: 0.1 });
      const { next, losses } = pgdStep(spec, shape, {
        norm: regularized ? "unconstrained" : "l2",
        loss: objective.loss,
        feeds: Object.fromEntries(
          Object.entries(objective.feeds).map(([key, { shape }]) => [
            key,
            shape,
          ]),
        ),
        fakeRelu: objective.ofRepresentation,
        ...(regularized ? { parameterization: basis, transform } : {}),
      });
      await assertSameOnWebgpu({ next, losses }, {
        ...objective.feeds,
        images,
        center: images,
        epsilon: tensor([10], []),
        stepSize: tensor([-0.1], []),
        ...(regularized
          ? { changes: transform.draw(2, random.stream("changes")) }
          : {}),
      }, initializeModel(spec, random));
    },
  });
}

Deno.test({
  name: "predictions and random starts are the same on webgpu",
  ignore,
  async fn() {
    const shape = [2, 3, 16, 16];
    const center = random.stream("images").uniformTensor(shape);
    const noise = random.stream("noise").normal(shape);
    const { representation, logits } = buildModel(SPEC, input("center", shape));
    await assertSameOnWebgpu(
      { representation, logits, images: randomStart(shape, "l2") },
      { center, noise, epsilon: tensor([0.5], []) },
      constants,
    );
  },
});

Deno.test({
  name: "a step of training is the same on webgpu",
  ignore,
  async fn() {
    // With 8 x 8 images the last BatchNorms would see two values per channel,
    // whose gradients cancel but for rounding.
    const feeds = drawFeeds(16);
    const settings = { spec: SPEC, momentum: 0.9, weightDecay: 5e-4, ema: 0.9 };
    const outputs = trainingStep(settings, feeds.images.shape);
    const state: Record<string, AnyTensor> = { ...constants };
    for (const [name, { node, trainable }] of modelParameters(SPEC)) {
      state[`average:${name}`] = constants[name];
      if (trainable) state[`velocity:${name}`] = full(node.shape, 0);
    }
    await assertSameOnWebgpu(outputs, {
      ...feeds,
      ...state,
      learningRate: tensor([0.1], []),
    });
  },
});

Deno.test({
  name: "an attack whose convolutions become products is the same on webgpu",
  ignore,
  async fn() {
    const spec = { ...SPEC, architecture: "resnet10", width: 32 } as const;
    const shape = [16, 3, 8, 8];
    const attackOf = {
      ...{ norm: "l2" as const, epsilon: 0.5, stepSize: 0.2, steps: 2 },
      randomStart: true,
    };
    const stream = random.stream("products");
    const images = stream.uniformTensor(shape);
    const labels = oneHot(Array.from({ length: 16 }, (_, i) => i % 3), 3);
    const parameters = initializeModel(spec, stream);
    const images32 = input("images", shape);
    const [logits] = useTiledKernels([buildModel(spec, images32).logits]);
    assert(topologicalOrder([logits]).some(({ op }) => op?.type === "MatMul"));
    const found: Tensor[] = [];
    for (const provider of ["cpu", "webgpu"] as const) {
      const run = { provider, noFallback: true };
      const attack = await BatchAttack.create(spec, attackOf, shape, run);
      const batch = { images, labels, warmup: 1, random: new Random(4) };
      const attacked = await attack.attack(parameters, {}, batch);
      const info = { name: "attacked", dtype: "float32", shape } as const;
      const reader = await DeviceReader.create([info], provider);
      found.push((await reader.read({ attacked })).attacked as Tensor);
      releaseDevice({ attacked });
      await reader.release();
      await attack.release();
    }
    assertAllClose(found[1], found[0], { tolerance: 1e-4 });
  },
});

const SETTINGS: TrainSettings = {
  spec: { ...SPEC, architecture: "resnet10" },
  attack: {
    norm: "l2",
    epsilon: 0.5,
    stepSize: 0.3,
    steps: 2,
    randomStart: true,
  },
  epochs: 2,
  batchSize: 16,
  learningRate: 0.05,
  schedule: { kind: "step", at: [] },
  momentum: 0.9,
  weightDecay: 5e-4,
  epsilonWarmup: 0,
  ema: 0.9,
  augmentation: "none",
  seed: 0,
};

Deno.test({
  name: "training whose state stays on the device takes the same steps",
  ignore,
  async fn() {
    const shape = [16, 3, 16, 16];
    const labels = Array.from({ length: 16 }, (_, i) => i % 3);
    const run = { provider: "webgpu" } as const;
    const states = [];
    for (const Kind of [Trainer, DeviceTrainer]) {
      const state = initialState(SETTINGS);
      const trainer = await Kind.create(SETTINGS, shape, state, run);
      for (let step = 0; step < 3; step++) {
        const stream = random.stream("step", step);
        await trainer.step(stream.uniformTensor(shape), labels, {
          learningRate: 0.05,
          warmup: 1,
          random: stream.stream("noise"),
          next: stream,
        });
      }
      // Read twice: reading leaves it there.
      await trainer.state();
      const { parameters, velocity, average } = await trainer.state();
      states.push(structuredClone({ parameters, velocity, average }));
      await trainer.release();
    }
    assertEquals(states[1], states[0]);
  },
});

Deno.test({
  name: "training on webgpu resumes with the same bits",
  ignore,
  async fn() {
    const split = noisySplit({ size: 32, side: 16, classes: 3, seed: 1 });
    const saved: TrainState[] = [];
    const whole = await train(SETTINGS, split, {
      provider: "webgpu",
      onCheckpoint: (state) => {
        saved.push(state);
        return Promise.resolve();
      },
    });
    const resumed = await train(SETTINGS, split, {
      provider: "webgpu",
      state: saved[0],
    });
    assertEquals(saved[0].epoch, 1);
    assertEquals(resumed.parameters, whole.parameters);
    assertEquals(resumed.velocity, whole.velocity);
    assertEquals(resumed.average, whole.average);
  },
});

Deno.test({
  name: "outputs stay on the device if asked for, until they are freed",
  ignore,
  async fn() {
    const double = add(input("x", [3]), input("x", [3]));
    const outputs = { kept: double, sent: mul(double, 2) };
    const program = await compile(outputs, {
      provider: "webgpu",
      onDevice: ["kept"],
    });
    const reader = await DeviceReader.create(
      [{ name: "kept", dtype: "float32", shape: [3] }],
      "webgpu",
    );
    const x = tensor([1, 2, 3]);
    // Memory that is given does not hide what was computed.
    const { kept, sent } = await program.run({ x }, {
      sent: tensor([0, 0, 0]),
    });
    assertEquals(sent.data, new Float32Array([4, 8, 12]));
    assert(kept instanceof DeviceTensor);
    assertThrows(() => kept.data, TypeError, "in the memory of a device");
    const again = await program.run({ x: kept });
    assertEquals(again.sent.data, new Float32Array([8, 16, 24]));
    const read = await reader.read({ kept });
    assertEquals(read.kept.data, new Float32Array([2, 4, 6]));
    releaseDevice({ kept, again: again.kept, x });
    await assertRejects(() => program.run({ x: kept }));
    // Other providers have no such memory.
    const plain = await compile(outputs, { onDevice: ["kept"] });
    const found = await plain.run({ x });
    assertEquals(found.kept.data, new Float32Array([2, 4, 6]));
    for (const each of [program, reader, plain]) await each.release();
  },
});
