/**
 * Objectives of attacks that do not fade where the network is sure of itself:
 * margins between logits, plain and relative to their spread.
 *
 * @module
 */
import {
  div,
  equal,
  max,
  mul,
  type Node,
  reshape,
  sub,
  sum,
  where,
} from "../core/mod.ts";
import type { ModelOutputs } from "../models/mod.ts";
import { type Objective, oneHot } from "./objectives.ts";

/** Below every logit; finite, so that its products with 0 are 0. */
const LOWEST = -1e30;

/** Least classes whose logits the targeted DLR loss can rank. */
export const TARGETED_DLR_CLASSES = 4;

type Feeds = Readonly<Record<string, Node>>;

/** Logits without some of each row; `mask` is where they are. */
function without(logits: Node, mask: Node): Node {
  return where(mask, LOWEST, logits);
}

/** Largest logit of each row and where it is. */
function top(logits: Node): { value: Node; at: Node } {
  const value = max(logits, [1]);
  return { value, at: equal(logits, reshape(value, [value.shape[0], 1])) };
}

/** The `count` largest logits of each row, in order; equal ones count once. */
function largest(logits: Node, count: number): Node[] {
  const values: Node[] = [];
  for (let rest = logits; values.length < count;) {
    const { value, at } = top(rest);
    values.push(value);
    rest = without(rest, at);
  }
  return values;
}

/** The logit that a one-hot row picks. */
function picked(logits: Node, rows: Node): Node {
  return sum(mul(logits, rows), [1]);
}

function marginLoss({ logits }: ModelOutputs, { labels }: Feeds): Node {
  const { value } = top(without(logits, equal(labels, 1)));
  return sub(value, picked(logits, labels));
}

/**
 * Largest wrong logit minus the label's: above 0 where misclassified (Carlini
 * and Wagner 2017).
 *
 * @param labels Label of each image, `[n]`
 * @param classes Number of classes, at least 2
 * @returns Objective with one loss per image, `[n]`; maximise it to attack
 * @throws {RangeError} If a label is not below `classes`, or there is one class
 */
export function marginObjective(
  labels: ArrayLike<number>,
  classes: number,
): Objective {
  requireClasses("the margin", classes, 2);
  return {
    name: "margin",
    ofRepresentation: false,
    feeds: { labels: oneHot(labels, classes) },
    loss: marginLoss,
  };
}

function dlrLoss(outputs: ModelOutputs, feeds: Feeds): Node {
  const [first, , third] = largest(outputs.logits, 3);
  return div(marginLoss(outputs, feeds), sub(first, third));
}

/**
 * Difference of logits ratio: the margin over the distance from the largest to
 * the third largest logit, which scaling all logits leaves as it is (Croce and
 * Hein 2020, eq. 6).
 *
 * @param labels Label of each image, `[n]`
 * @param classes Number of classes, at least 3
 * @returns Objective with one loss per image, `[n]`; maximise it to attack
 * @throws {RangeError} If a label is not below `classes`, or there are too few
 */
export function dlrObjective(
  labels: ArrayLike<number>,
  classes: number,
): Objective {
  requireClasses("the DLR loss", classes, 3);
  return {
    name: "DLR",
    ofRepresentation: false,
    feeds: { labels: oneHot(labels, classes) },
    loss: dlrLoss,
  };
}

function targetedMarginLoss(
  { logits }: ModelOutputs,
  { labels, target }: Feeds,
): Node {
  return sub(picked(logits, target), picked(logits, labels));
}

function targetedDlrLoss(outputs: ModelOutputs, feeds: Feeds): Node {
  const [first, , third, fourth] = largest(outputs.logits, 4);
  // Halves, each a difference: their sum would lose digits.
  const spread = sub(
    mul(sub(first, third), 0.5),
    mul(sub(fourth, first), 0.5),
  );
  return div(targetedMarginLoss(outputs, feeds), spread);
}

/**
 * Targeted difference of logits ratio: the target's logit minus the label's,
 * over the distance from the largest logit to the mean of the third and fourth
 * (Croce and Hein 2020, eq. 7).
 *
 * @param labels Label of each image, `[n]`
 * @param targets Class that each image is to be taken for, `[n]`
 * @param classes Number of classes, at least 4
 * @returns Objective with one loss per image, `[n]`; maximise it to attack
 * @throws {RangeError} If a label or target is not below `classes`, or there
 * are too few
 */
export function targetedDlrObjective(
  labels: ArrayLike<number>,
  targets: ArrayLike<number>,
  classes: number,
): Objective {
  requireClasses("the targeted DLR loss", classes, TARGETED_DLR_CLASSES);
  return {
    name: "targeted DLR",
    ofRepresentation: false,
    feeds: {
      labels: oneHot(labels, classes),
      target: oneHot(targets, classes),
    },
    loss: targetedDlrLoss,
  };
}

/**
 * Loss that a targeted attack maximises: the targeted DLR loss or, for fewer
 * classes than that can rank, its numerator alone.
 */
export function targetedLoss(classes: number): Objective["loss"] {
  return classes >= TARGETED_DLR_CLASSES ? targetedDlrLoss : targetedMarginLoss;
}

function requireClasses(name: string, classes: number, least: number): void {
  if (!(classes >= least)) {
    throw new RangeError(
      `Cannot use ${name} for ${classes} classes: it compares ${least} logits`,
    );
  }
}
