/**
 * Networks: from images to `{ representation, logits }`.
 *
 * @module
 */
import {
  input,
  type NamedTensors,
  type Node,
  type Random,
} from "../core/mod.ts";
import { type Normalization, type ParameterInfo, Scope } from "./layers.ts";
import { resnet10, resnet18, resnet34, resnet50 } from "./resnet.ts";
import { vgg11, vgg11Bn, vgg16, vgg16Bn } from "./vgg.ts";

export {
  type AdversarialAccuracy,
  type Card,
  CARD_SCHEMA_VERSION,
  type CardAttack,
  type CardData,
  type CardEvaluation,
  type CardInterval,
  type CardSanity,
  type CardTraining,
  type Checkpoint,
  decodeCheckpoint,
  encodeCheckpoint,
  sha256,
  weightsHash,
} from "./checkpoint.ts";
export type { Json, JsonObject, Rule } from "./json.ts";
export * as rules from "./json.ts";
export { encodeNpy } from "./npy.ts";
export {
  checkpointFormat,
  type ImportedWeights,
  type ImportOptions,
  importWeights,
} from "./import.ts";
export {
  decodeMetadata,
  decodeSafetensors,
  encodeSafetensors,
  type Safetensors,
  type SafetensorsOptions,
} from "./safetensors.ts";
export type { Initializer, Normalization, ParameterInfo } from "./layers.ts";

/** What a builder of a network reads. */
export interface ModelOptions extends Normalization {
  /** "cifar": small images, 3 x 3 stem; "imagenet": 7 x 7 stem and pool. */
  readonly form: "cifar" | "imagenet";
  /** Channels of the first stage: 64 is the published size. */
  readonly width: number;
  /** Number of classes. */
  readonly classes: number;
  /**
   * Lets the gradient pass the last ReLU unchanged (SPEC: "fake relu"), for
   * objectives that are functions of the representation.
   */
  readonly fakeRelu?: boolean;
}

/** What every network computes. */
export interface ModelOutputs {
  /** Activations that the last linear layer reads, `[n, d]`. */
  readonly representation: Node;
  /** Class scores, `[n, classes]`. */
  readonly logits: Node;
}

/** Name of an architecture, as torchvision calls it. */
export type Architecture =
  | "resnet10"
  | "resnet18"
  | "resnet34"
  | "resnet50"
  | "vgg11"
  | "vgg11_bn"
  | "vgg16"
  | "vgg16_bn";

/** Builds a network's graph. */
type ModelBuilder = (
  scope: Scope,
  images: Node,
  options: ModelOptions,
) => ModelOutputs;

const BUILDERS: Readonly<Record<Architecture, ModelBuilder>> = {
  resnet10,
  resnet18,
  resnet34,
  resnet50,
  vgg11,
  vgg11_bn: vgg11Bn,
  vgg16,
  vgg16_bn: vgg16Bn,
};

/** Names of all architectures. */
export const ARCHITECTURES = Object.keys(BUILDERS) as readonly Architecture[];

/** A network without its weights. */
export interface ModelSpec extends Omit<ModelOptions, "fakeRelu"> {
  /** One of {@linkcode ARCHITECTURES}. */
  readonly architecture: Architecture;
}

/** How `buildModel()` builds. */
export interface BuildOptions {
  /** BatchNorm uses the batch and running statistics move (default false). */
  readonly training?: boolean;
  /** Lets the gradient pass the last ReLU unchanged (default false). */
  readonly fakeRelu?: boolean;
}

/** A network as nodes. */
export interface ModelGraph extends ModelOutputs {
  /** Parameters by torchvision's names, in order of definition. */
  readonly parameters: ReadonlyMap<string, ParameterInfo>;
  /** New running statistics by name, when training. */
  readonly updates: ReadonlyMap<string, Node>;
}

/**
 * Builds a network on images.
 *
 * @param spec Which network
 * @param images `[n, 3, h, w]` in [0, 1]; normalisation is part of the network
 * @param options What the graph is for
 * @returns Representation `[n, d]`, logits `[n, classes]` and parameters
 * @throws {RangeError} If the architecture is unknown or a size is not >= 1
 *
 * @example
 * ```ts
 * import { input } from "../core/mod.ts";
 * import { buildModel } from "./mod.ts";
 * const { representation, logits } = buildModel({
 *   architecture: "resnet18",
 *   form: "cifar",
 *   width: 64,
 *   classes: 10,
 *   mean: [0.4914, 0.4822, 0.4465],
 *   std: [0.2023, 0.1994, 0.2010],
 * }, input("images", [8, 3, 32, 32])); // [8, 512] and [8, 10]
 * ```
 */
export function buildModel(
  spec: ModelSpec,
  images: Node,
  { training = false, fakeRelu = false }: BuildOptions = {},
): ModelGraph {
  if (!Object.hasOwn(BUILDERS, spec.architecture)) {
    throw new RangeError(
      `Cannot build architecture "${spec.architecture}": choose one of ` +
        ARCHITECTURES.join(", "),
    );
  }
  for (const size of ["width", "classes"] as const) {
    if (!Number.isInteger(spec[size]) || spec[size] < 1) {
      throw new RangeError(
        `Cannot build ${spec.architecture}: ${size} must be an integer >= 1, ` +
          `current value is ${spec[size]}`,
      );
    }
  }
  const scope = new Scope(training);
  const build = BUILDERS[spec.architecture];
  const outputs = build(scope, images, { ...spec, fakeRelu });
  return { ...outputs, parameters: scope.parameters, updates: scope.updates };
}

/**
 * The parameters a network has, by name.
 *
 * @throws {RangeError} If the architecture is unknown or a size is not >= 1
 */
export function modelParameters(
  spec: ModelSpec,
): ReadonlyMap<string, ParameterInfo> {
  return buildModel(spec, input("images", [1, 3, 32, 32])).parameters;
}

/**
 * Initial values of a network's parameters. Each depends on the seed and its
 * own name alone.
 *
 * @param spec Which network
 * @param random Its stream "initialize" is drawn from
 * @returns Weights and running statistics by torchvision's names
 * @throws {RangeError} If the architecture is unknown or a size is not >= 1
 */
export function initializeModel(spec: ModelSpec, random: Random): NamedTensors {
  return Object.fromEntries(
    Array.from(modelParameters(spec), ([name, { node, initialize }]) => [
      name,
      initialize(node.shape, random.stream("initialize", name)),
    ]),
  );
}
