/**
 * Objectives: what an input is optimised for, as one value per image.
 *
 * @module
 */
import {
  add,
  crossEntropy,
  div,
  greater,
  l2Norm,
  max,
  maximum,
  minimum,
  mul,
  type Node,
  stopGradient,
  sub,
  sum,
  type Tensor,
  tensor,
  toFloat,
} from "../core/mod.ts";
import type { ModelOutputs } from "../models/mod.ts";

/**
 * What an input is optimised for.
 *
 * @example An objective of your own: the margin between two classes
 * ```ts
 * import type { Objective } from "./objectives.ts";
 * import { slice, sub, sum } from "../core/mod.ts";
 *
 * const catOverDog: Objective = {
 *   name: "cat over dog",
 *   ofRepresentation: false,
 *   feeds: {},
 *   loss: ({ logits }) =>
 *     sum(sub(
 *       slice(logits, [{ axis: 1, start: 3, end: 4 }]),
 *       slice(logits, [{ axis: 1, start: 5, end: 6 }]),
 *     ), [1]),
 * };
 * ```
 */
export interface Objective {
  /** Says in records and errors what this is. */
  readonly name: string;
  /**
   * Whether the loss is a function of the representation: then the last ReLU
   * passes the gradient unchanged unless an option says otherwise.
   */
  readonly ofRepresentation: boolean;
  /** Tensors with one row per image that the loss reads, `[n, ...]`. */
  readonly feeds: Readonly<Record<string, Tensor>>;
  /**
   * The objective as a node. Programs are kept per function: define it once,
   * outside of loops.
   *
   * @param outputs Representation `[n, d]` and logits `[n, classes]`
   * @param feeds Nodes of the shapes of `feeds`
   * @returns One value per image, `[n]`
   */
  readonly loss: (
    outputs: ModelOutputs,
    feeds: Readonly<Record<string, Node>>,
  ) => Node;
}

/** When an image has enough of a feature that is added to it. */
export type FeatureStop =
  /** As soon as its coordinate exceeds all others (paper, section 4.2.1). */
  | "exceed"
  /** When its coordinate reaches 1 (the reference code). */
  | "clamp";

function labelLoss(
  { logits }: ModelOutputs,
  { labels }: Readonly<Record<string, Node>>,
): Node {
  return crossEntropy(logits, labels);
}

/**
 * Cross-entropy against labels: maximise it to attack a classifier.
 *
 * @param labels Label of each image, `[n]`
 * @param classes Number of classes
 * @returns Objective with one loss per image, `[n]`
 * @throws {RangeError} If a label is not below `classes`
 */
export function crossEntropyObjective(
  labels: ArrayLike<number>,
  classes: number,
): Objective {
  return {
    name: "cross-entropy",
    ofRepresentation: false,
    feeds: { labels: oneHot(labels, classes) },
    loss: labelLoss,
  };
}

/**
 * Labels as rows with a single 1.
 *
 * @param labels Label of each image, `[n]`
 * @param classes Number of classes
 * @returns `[n, classes]`
 * @throws {RangeError} If a label is not below `classes`
 */
export function oneHot(labels: ArrayLike<number>, classes: number): Tensor {
  const data = new Float32Array(labels.length * classes);
  for (let i = 0; i < labels.length; i++) {
    const isClass = Number.isInteger(labels[i]) && labels[i] >= 0;
    if (!(isClass && labels[i] < classes)) {
      throw new RangeError(
        `Cannot use label ${labels[i]}: the model has ${classes} classes, ` +
          `0 to ${classes - 1}`,
      );
    }
    data[i * classes + labels[i]] = 1;
  }
  return tensor(data, [labels.length, classes]);
}

/** Shorter representations count as of this length. */
const SHORTEST = 1e-10;

function representationDistance(
  { representation }: ModelOutputs,
  { target }: Readonly<Record<string, Node>>,
): Node {
  // All features of a small network may be 0 on some image.
  const length = maximum(l2Norm(target), SHORTEST);
  return div(l2Norm(sub(representation, target)), length);
}

/**
 * Distance to target representations relative to their length,
 * `||R(x) - t|| / ||t||` (paper, "Inverting robust representations", eq. 4).
 *
 * @param target Representations to match, `[n, d]`
 * @returns Objective with one loss per image, `[n]`; 0 is a perfect match
 */
export function matchRepresentation(target: Tensor): Objective {
  return {
    name: "representation distance",
    ofRepresentation: true,
    feeds: { target },
    loss: representationDistance,
  };
}

function coordinateValue(
  { representation }: ModelOutputs,
  { coordinate }: Readonly<Record<string, Node>>,
): Node {
  return sum(mul(representation, coordinate), [1]);
}

/**
 * Coordinates of the representation, `R(x)_i` (paper, eq. 5): maximise to
 * visualise or add a feature.
 *
 * @param coordinates Coordinate of each image, `[n]`
 * @param size Length of a representation
 * @returns Objective with one value per image, `[n]`
 * @throws {RangeError} If a coordinate is not below `size`
 */
export function coordinateObjective(
  coordinates: ArrayLike<number>,
  size: number,
): Objective {
  return {
    name: "coordinate",
    ofRepresentation: true,
    feeds: { coordinate: coordinateRows(coordinates, size) },
    loss: coordinateValue,
  };
}

/** @throws {RangeError} If a coordinate is not below `size` */
function coordinateRows(coordinates: ArrayLike<number>, size: number): Tensor {
  for (let i = 0; i < coordinates.length; i++) {
    const isIndex = Number.isInteger(coordinates[i]) && coordinates[i] >= 0;
    if (!(isIndex && coordinates[i] < size)) {
      throw new RangeError(
        `Cannot maximise coordinate ${coordinates[i]}: the representation ` +
          `has ${size}, 0 to ${size - 1}`,
      );
    }
  }
  return oneHot(coordinates, size);
}

/** Below any activation; float32 keeps what is added to it apart. */
const FAR_BELOW = 1e9;

function lead(
  { representation }: ModelOutputs,
  { coordinate }: Readonly<Record<string, Node>>,
): Node {
  const own = sum(mul(representation, coordinate), [1]);
  const others = max(sub(representation, mul(coordinate, FAR_BELOW)), [1]);
  const leads = sub(own, others);
  // An image that has arrived has a zero gradient, and so takes no step.
  const climbing = mul(own, sub(1, toFloat(greater(leads, 0))));
  return add(climbing, stopGradient(sub(leads, climbing)));
}

function belowOne(
  outputs: ModelOutputs,
  feeds: Readonly<Record<string, Node>>,
): Node {
  return minimum(sub(coordinateValue(outputs, feeds), 1), 0);
}

/**
 * Adds a feature to images: maximise it, and each image stops by itself once
 * it has the feature (paper, section 4.2.1, Fig. 11 and 23).
 *
 * @param coordinates Coordinate of each image, `[n]`
 * @param size Length of a representation
 * @param stop When an image has enough
 * @returns Objective with one value per image, `[n]`: with "exceed" the lead
 *   of its coordinate over all others, positive once it has arrived; with
 *   "clamp" the smaller of `R(x)_i - 1` and 0
 * @throws {RangeError} If a coordinate is not below `size`
 */
export function addFeature(
  coordinates: ArrayLike<number>,
  size: number,
  stop: FeatureStop,
): Objective {
  return {
    name: `add feature (${stop})`,
    ofRepresentation: true,
    feeds: { coordinate: coordinateRows(coordinates, size) },
    loss: stop === "exceed" ? lead : belowOne,
  };
}
