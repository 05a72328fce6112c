/**
 * Networks as ONNX files that other programs run: forwards, gradients of the
 * input, steps of PGD.
 *
 * @module
 */
import {
  grad,
  input,
  type NamedTensors,
  type Node,
  tensor,
} from "../core/mod.ts";
import { buildModel, type Card, type ModelSpec } from "../models/mod.ts";
import { type DynamicModel, exportDynamicModel } from "../onnx/mod.ts";
import type { Norm } from "./ball.ts";
import {
  crossEntropyObjective,
  matchRepresentation,
  type Objective,
} from "./objectives.ts";
import { pgdStep } from "./pgd.ts";

/** What an exported file computes, see `exportNetwork()`. */
export type ExportKind =
  | "forward"
  | "representation"
  | "input-gradient"
  | "pgd-step";

/** All kinds, by name. */
export const EXPORT_KINDS: readonly ExportKind[] = [
  "forward",
  "representation",
  "input-gradient",
  "pgd-step",
];

/** What the gradient of an exported file is of. */
export type ExportObjective = "cross-entropy" | "match-representation";

/** All objectives, by name. */
export const EXPORT_OBJECTIVES: readonly ExportObjective[] = [
  "cross-entropy",
  "match-representation",
];

/** Options of `exportNetwork()`. */
export interface NetworkExportOptions {
  /** What the file computes. */
  readonly what: ExportKind;
  /** Height and width of the images. */
  readonly size: number;
  /**
   * What the gradient is of: cross-entropy against `labels`, or the normalised
   * distance to `target`, with a last ReLU that passes the gradient
   * (default "cross-entropy").
   */
  readonly objective?: ExportObjective;
  /** Ball of `pgd-step` (default "l2"). */
  readonly norm?: Norm;
  /** Kept in the file as JSON. */
  readonly card?: Card;
}

/** Names of what each kind computes. */
const OUTPUTS: Readonly<Record<ExportKind, readonly string[]>> = {
  forward: ["representation", "logits"],
  representation: ["representation"],
  "input-gradient": ["gradient", "losses"],
  "pgd-step": ["next", "losses"],
};

/** What each input and output is, for the file's metadata. */
const MEANINGS: Readonly<Record<string, string>> = {
  images: "in [0, 1]; normalisation is part of the network",
  labels: "one-hot rows",
  target: "representations to match",
  center: "centres of the balls, images in [0, 1]",
  epsilon: "radius in [0, 1] units over one whole image",
  stepSize: "in the units of epsilon; positive ascends, negative descends",
  representation: "activations that the last linear layer reads",
  logits: "class scores",
  gradient: "of each image's own loss with respect to the image",
  losses: "objective of each image, before the step",
  next: "images after one step, projection and clipping",
};

/**
 * Writes a network as a self-contained ONNX model of standard operators, for
 * any number of images.
 *
 * | what | inputs | outputs |
 * | --- | --- | --- |
 * | `forward` | images | representation, logits |
 * | `representation` | images | representation |
 * | `input-gradient` | images, labels or target | gradient, losses |
 * | `pgd-step` | the same, center, epsilon, stepSize | next, losses |
 *
 * @param spec Which network
 * @param parameters Its weights
 * @throws {RangeError} If the file would be larger than protobuf allows
 * @throws {TypeError} If the network does not take images of this size
 *
 * @example
 * ```ts
 * import { exportNetwork, initializeModel, type ModelSpec, Random } from "../mod.ts";
 *
 * const spec: ModelSpec = {
 *   architecture: "resnet10",
 *   form: "cifar",
 *   width: 4,
 *   classes: 10,
 *   mean: [0.5, 0.5, 0.5],
 *   std: [0.25, 0.25, 0.25],
 * };
 * const parameters = initializeModel(spec, new Random(0));
 * const { bytes } = exportNetwork(spec, parameters, {
 *   what: "pgd-step",
 *   size: 32,
 * });
 * ```
 */
export function exportNetwork(
  spec: ModelSpec,
  parameters: NamedTensors,
  options: NetworkExportOptions,
): DynamicModel {
  const { what, objective = "cross-entropy", norm = "l2", card } = options;
  const differentiates = what === "input-gradient" || what === "pgd-step";
  const inputOrder = inputNames(options);
  const described = new Set([...OUTPUTS[what], ...inputOrder]);
  return exportDynamicModel((n) => graphOf(spec, n, options), {
    constants: parameters,
    inputOrder,
    metadata: {
      what,
      ...(differentiates ? { objective } : {}),
      ...(what === "pgd-step" ? { norm } : {}),
      meanings: JSON.stringify(Object.fromEntries(
        Object.entries(MEANINGS).filter(([name]) => described.has(name)),
      )),
      ...(card ? { card: JSON.stringify(card) } : {}),
    },
  });
}

function inputNames(
  { what, objective = "cross-entropy" }: NetworkExportOptions,
): string[] {
  if (what === "forward" || what === "representation") return ["images"];
  const feed = objective === "cross-entropy" ? "labels" : "target";
  return what === "input-gradient"
    ? ["images", feed]
    : ["images", feed, "center", "epsilon", "stepSize"];
}

function graphOf(
  spec: ModelSpec,
  n: number,
  { what, size, objective = "cross-entropy", norm = "l2" }:
    NetworkExportOptions,
): Record<string, Node> {
  const shape = [n, 3, size, size];
  const images = input("images", shape);
  if (what === "forward" || what === "representation") {
    const { representation, logits } = buildModel(spec, images);
    return { representation, ...(what === "forward" ? { logits } : {}) };
  }
  const { loss, ofRepresentation: fakeRelu }: Objective =
    objective === "cross-entropy"
      ? crossEntropyObjective([], spec.classes)
      : matchRepresentation(tensor([]));
  const model = buildModel(spec, images, { fakeRelu });
  const feeds: Record<string, readonly number[]> = objective === "cross-entropy"
    ? { labels: model.logits.shape }
    : { target: model.representation.shape };
  if (what === "pgd-step") {
    return { ...pgdStep(spec, shape, { norm, loss, feeds, fakeRelu }) };
  }
  const nodes = Object.fromEntries(
    Object.entries(feeds).map(([name, size]) => [name, input(name, size)]),
  );
  const losses = loss(model, nodes);
  const [gradient] = grad(losses, [images]);
  return { gradient, losses };
}
