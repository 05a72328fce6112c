/**
 * Steps of training as nodes: gradient, momentum, weight decay and BatchNorm
 * statistics in one graph, or gradients and update apart, so that gradients can
 * be averaged over ranks in between.
 *
 * @module
 */
import {
  add,
  crossEntropy,
  equal,
  grad,
  input,
  max,
  mean,
  mul,
  type Node,
  sum,
  toFloat,
} from "../core/mod.ts";
import { buildModel, type ModelSpec } from "../models/mod.ts";
import { sgd, type SgdSettings } from "./sgd.ts";
import type { TrainSettings } from "./train.ts";

/** Prefixes of names in the graph: velocities, averages, and what comes out. */
export const VELOCITY = "velocity:";
export const AVERAGE = "average:";
export const NEXT = "next:";

/** Loss, hits and gradients of a batch as nodes, in training mode. */
function lossAndGradients(spec: ModelSpec, shape: readonly number[]): {
  readonly model: ReturnType<typeof buildModel>;
  /** Mean over the batch, scalar. */
  readonly loss: Node;
  /** Images classified correctly, scalar. */
  readonly correct: Node;
  /** Gradient of the loss with respect to each trainable parameter. */
  readonly gradients: readonly (readonly [string, Node, Node])[];
} {
  const images = input("images", shape);
  const labels = input("labels", [shape[0], spec.classes]);
  const model = buildModel(spec, images, { training: true });
  const loss = mean(crossEntropy(model.logits, labels));
  // From comparisons of floats: the WebGPU provider cannot cast ArgMax's.
  const labelled = sum(mul(model.logits, labels), [1]);
  const hits = equal(labelled, max(model.logits, [1]));
  const trainable = [...model.parameters].filter(([, p]) => p.trainable);
  const gradients = grad(loss, trainable.map(([, { node }]) => node));
  return {
    model,
    loss,
    correct: sum(toFloat(hits)),
    gradients: trainable.map(([name, { node }], i) =>
      [name, node, gradients[i]] as const
    ),
  };
}

/**
 * One step of SGD on a batch as nodes. Inputs: `images`, one-hot `labels`,
 * `learningRate`, parameters by name, and with a prefix velocities and
 * averages. Outputs: `loss` (mean), `correct` (count), and the next value of
 * each of those, prefixed by `next:`.
 *
 * @param shape Shape of the images, `[n, 3, h, w]`
 */
export function trainingStep(
  settings: Pick<TrainSettings, "spec" | "momentum" | "weightDecay" | "ema">,
  shape: readonly number[],
): Record<string, Node> {
  const { spec, ema } = settings;
  const { model, loss, correct, gradients } = lossAndGradients(spec, shape);
  const learningRate = input("learningRate", []);
  const outputs: Record<string, Node> = { loss, correct };
  for (const [name, node, gradient] of gradients) {
    const velocity = input(VELOCITY + name, node.shape);
    const next = sgd(node, gradient, velocity, learningRate, settings);
    outputs[NEXT + name] = next.parameter;
    outputs[NEXT + VELOCITY + name] = next.velocity;
  }
  for (const [name, node] of model.updates) outputs[NEXT + name] = node;
  if (ema > 0) {
    for (const [name, { node }] of model.parameters) {
      const average = input(AVERAGE + name, node.shape);
      outputs[NEXT + AVERAGE + name] = add(
        mul(average, ema),
        mul(outputs[NEXT + name], 1 - ema),
      );
    }
  }
  return outputs;
}

/** Prefix of gradients in the graph. */
export const GRADIENT = "gradient:";

/**
 * Gradients of a batch's mean loss as nodes. Inputs: `images`, one-hot
 * `labels`, parameters by name. Outputs, in this order: the gradient of each
 * trainable parameter, prefixed by `gradient:`; the next value of each running
 * statistic, prefixed by `next:`; `loss` (mean) and `correct` (count).
 *
 * @param shape Shape of the images, `[n, 3, h, w]`
 */
export function gradientStep(
  spec: ModelSpec,
  shape: readonly number[],
): Record<string, Node> {
  const { model, loss, correct, gradients } = lossAndGradients(spec, shape);
  return {
    ...Object.fromEntries(
      gradients.map(([name, , gradient]) => [GRADIENT + name, gradient]),
    ),
    ...Object.fromEntries(
      Array.from(model.updates, ([name, node]) => [NEXT + name, node]),
    ),
    loss,
    correct,
  };
}

/**
 * A step of SGD on values in a row, whichever parameters they belong to.
 * Inputs: `parameter`, `gradient` and `velocity` of `[length]`, and scalars
 * `scale`, times which the gradient counts, and `learningRate`. Outputs: the
 * next `parameter` and `velocity`.
 */
export function flatUpdate(
  length: number,
  settings: SgdSettings,
): Record<string, Node> {
  const shape = [length];
  const gradient = mul(input("gradient", shape), input("scale", []));
  const { parameter, velocity } = sgd(
    input("parameter", shape),
    gradient,
    input("velocity", shape),
    input("learningRate", []),
    settings,
  );
  return { "next:parameter": parameter, "next:velocity": velocity };
}

/**
 * A step of the moving average of values in a row. Inputs: `average` and the
 * new `parameter`, of `[length]`. Output: the next `average`.
 */
export function flatAverage(length: number, ema: number): Record<string, Node> {
  const shape = [length];
  const average = mul(input("average", shape), ema);
  const parameter = mul(input("parameter", shape), 1 - ema);
  return { "next:average": add(average, parameter) };
}
