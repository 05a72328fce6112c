/**
 * What `browser_test.ts` runs in a page, and where it compares hosts also
 * under Deno: each function computes and returns plain data.
 *
 * The files of robust/ are imported one by one: its `mod.ts` also exports
 * training, whose data sets need `node:crypto` and `node:zlib`.
 *
 * @module
 */
import {
  grad,
  input,
  mean,
  type NamedTensors,
  Random,
  type Tensor,
} from "../../core/mod.ts";
import {
  buildModel,
  decodeSafetensors,
  initializeModel,
  type ModelSpec,
} from "../../models/mod.ts";
import {
  type Choice,
  chooseProvider,
  compile,
  type CompileOptions,
  type Provider,
  runtimeVersion,
} from "../../onnx/mod.ts";
import { Network, type RunOptions } from "../../robust/network.ts";
import {
  crossEntropyObjective,
  matchRepresentation,
} from "../../robust/objectives.ts";
import { optimizeInput, pgdStep } from "../../robust/pgd.ts";
import { underPrefix } from "../_fixtures.ts";
import { FIXTURE_SPEC, floats, renamed } from "../models/_fixture_network.ts";

/** A float32 tensor on its way out of a page. */
export interface PlainTensor {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

type PlainTensors = Record<string, PlainTensor>;

function plain({ shape, data }: NamedTensors[string]): PlainTensor {
  return { shape, data: Array.from(data, Number) };
}

/** Where the code runs. */
export interface Host {
  /** Version of ONNX Runtime. */
  readonly version: string;
  /** Whether WebAssembly may use threads. */
  readonly isolated: boolean;
  /** What "auto" chooses. */
  readonly auto: Choice;
}

export async function describeHost(): Promise<Host> {
  return {
    version: await runtimeVersion(),
    isolated: globalThis.crossOriginIsolated,
    auto: await chooseProvider("auto"),
  };
}

/** Tensors of a fixture file that the test's server hands out. */
async function fetchTensors(name: string): Promise<NamedTensors> {
  const response = await fetch(`/fixtures/${name}.safetensors`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  return decodeSafetensors(bytes, name).tensors;
}

async function fetchParameters(): Promise<Record<string, Tensor>> {
  const tensors = await fetchTensors("checkpoint_contents");
  return renamed(underPrefix(tensors, "state"));
}

/** Logits of the fixture's network, and the gradient of its inversion loss. */
export async function evaluateFixture(
  options: RunOptions,
): Promise<Record<"logits" | "gradient", PlainTensor>> {
  const tensors = await fetchTensors("cifar_eval");
  const x = floats(tensors, "x");
  const { feeds, loss } = matchRepresentation(
    floats(tensors, "target_representation"),
  );
  const images = input("x", x.shape);
  const target = input("target", feeds.target.shape);
  const model = buildModel(FIXTURE_SPEC, images, { fakeRelu: true });
  const [gradient] = grad(mean(loss(model, { target })), [images]);
  const program = await compile(
    { logits: model.logits, gradient },
    { ...options, constants: await fetchParameters() },
  );
  const found = await program.run({ ...feeds, x });
  await program.release();
  return { logits: plain(found.logits), gradient: plain(found.gradient) };
}

/**
 * Steps of the fixture's `inversion_small_steps_20_best`.
 *
 * @returns The loss of each image before each step and after the last
 */
export async function invertFixture(
  steps: number,
  options: RunOptions,
): Promise<PlainTensor[]> {
  const tensors = await fetchTensors("cifar_pgd");
  const network = new Network(FIXTURE_SPEC, await fetchParameters(), options);
  const losses: PlainTensor[] = [];
  await optimizeInput(network, floats(tensors, "inversion_start"), {
    objective: matchRepresentation(floats(tensors, "target_representation")),
    epsilon: 1000,
    stepSize: 0.1,
    steps,
    onStep: (step) => {
      losses.push(plain(step.losses));
    },
  });
  await network.release();
  return losses;
}

const TINY: ModelSpec = {
  architecture: "resnet10",
  form: "cifar",
  width: 2,
  classes: 3,
  mean: [0.5, 0.5, 0.5],
  std: [0.25, 0.25, 0.25],
};

function drawTiny() {
  const random = new Random(0);
  const labels = [0, 1, 2, 0, 1, 2, 0, 1];
  const images = random.stream("images")
    .uniformTensor([labels.length, 3, 8, 8]);
  const parameters = initializeModel(TINY, random);
  const objective = crossEntropyObjective(labels, TINY.classes);
  return { images, parameters, objective };
}

/** One step of PGD on a tiny network; no node runs anywhere else. */
export async function stepTiny(provider: Provider): Promise<PlainTensors> {
  const { images, parameters, objective } = drawTiny();
  const { next, losses } = pgdStep(TINY, images.shape, {
    norm: "l2",
    loss: objective.loss,
    feeds: { labels: objective.feeds.labels.shape },
    fakeRelu: false,
  });
  const scalar = (value: number): Tensor => ({
    dtype: "float32",
    shape: [],
    data: Float32Array.of(value),
  });
  return await runOnce({ next, losses }, {
    ...objective.feeds,
    images,
    center: images,
    epsilon: scalar(0.5),
    stepSize: scalar(0.25),
  }, { provider, constants: parameters, noFallback: true });
}

/** Gradients of a tiny network's weights, which are fed as in training. */
export async function weightGradients(): Promise<PlainTensors> {
  const { images, parameters, objective } = drawTiny();
  const model = buildModel(TINY, input("images", images.shape), {
    training: true,
  });
  const labels = input("labels", objective.feeds.labels.shape);
  const loss = mean(objective.loss(model, { labels }));
  const names = ["conv1.weight", "layer2.0.conv1.weight", "fc.weight"];
  const gradients = grad(
    loss,
    names.map((name) => model.parameters.get(name)!.node),
  );
  return await runOnce(
    Object.fromEntries(
      gradients.map((node, i) => [`gradient of ${names[i]}`, node]),
    ),
    { ...parameters, ...objective.feeds, images },
  );
}

async function runOnce(
  outputs: Parameters<typeof compile>[0],
  feeds: NamedTensors,
  options?: CompileOptions,
): Promise<PlainTensors> {
  const program = await compile(outputs, options);
  const found = await program.run(feeds);
  await program.release();
  return Object.fromEntries(
    Object.entries(found).map(([name, value]) => [name, plain(value)]),
  );
}
