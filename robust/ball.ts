/**
 * The set of allowed inputs around a centre: how to step, stay inside and
 * start, as nodes.
 *
 * Lengths are in [0, 1] pixel units over one whole image of `[n, 3, h, w]`.
 *
 * @module
 */
import {
  add,
  clip,
  div,
  greater,
  l2Norm,
  maximum,
  minimum,
  mul,
  neg,
  type Node,
  perImage,
  sign,
  sub,
  where,
} from "../core/mod.ts";

/** How perturbations are measured. */
export type Norm = "l2" | "linf" | "unconstrained";

/** All norms, by name. */
export const NORMS: readonly Norm[] = ["l2", "linf", "unconstrained"];

/** Geometry of a ball around each image, as nodes. */
export interface Ball {
  /**
   * Moves images along a gradient, uphill.
   *
   * @param x Images, `[n, ...]`
   * @param g Gradient of each image's own objective, `[n, ...]`
   * @param stepSize Scalar, or one per image `[n]`; negative goes downhill
   */
  step(x: Node, g: Node, stepSize: Node): Node;
  /**
   * The nearest point inside the ball, then inside [0, 1].
   *
   * @param x Images, `[n, ...]`
   * @param center Centres of the balls, `[n, ...]`
   * @param epsilon Radius, scalar
   */
  project(x: Node, center: Node, epsilon: Node): Node;
  /**
   * A random point of the ball, inside [0, 1].
   *
   * @param center Centres of the balls, `[n, ...]`
   * @param noise Random numbers as `noise` says, `[n, ...]`
   * @param epsilon Radius, scalar
   */
  randomStart(center: Node, noise: Node, epsilon: Node): Node;
  /** Distribution of the noise of a random start. */
  readonly noise: "normal" | "uniform";
}

/** Keeps a division by a tiny norm finite, as in the reference code. */
const TINY_STEP = 1e-10;
const TINY_PROJECTION = 1e-7;

/** A step size that broadcasts over images: of all, or of each. */
function spread(stepSize: Node, x: Node): Node {
  return stepSize.shape.length === 1 ? perImage(stepSize, x) : stepSize;
}

const l2: Ball = {
  // A zero gradient gives a zero step.
  step: (x, g, stepSize) =>
    add(x, mul(g, perImage(div(stepSize, add(l2Norm(g), TINY_STEP)), g))),
  project(x, center, epsilon) {
    const difference = sub(x, center);
    const norm = l2Norm(difference);
    const scaled = div(epsilon, add(norm, TINY_PROJECTION));
    const scale = where(greater(norm, epsilon), scaled, 1);
    const inside = add(center, mul(difference, perImage(scale, x)));
    return clip(inside, 0, 1);
  },
  // On the sphere, not uniform in the ball, as in the reference code.
  randomStart(center, noise, epsilon) {
    const scale = div(epsilon, add(l2Norm(noise), TINY_STEP));
    return clip(add(center, mul(noise, perImage(scale, noise))), 0, 1);
  },
  noise: "normal",
};

const linf: Ball = {
  step: (x, g, stepSize) => add(x, mul(sign(g), spread(stepSize, x))),
  project(x, center, epsilon) {
    const difference = maximum(minimum(sub(x, center), epsilon), neg(epsilon));
    return clip(add(center, difference), 0, 1);
  },
  // Noise uniform in [-1, 1): uniform in the box.
  randomStart: (center, noise, epsilon) =>
    clip(add(center, mul(noise, epsilon)), 0, 1),
  noise: "uniform",
};

const unconstrained: Ball = {
  step: (x, g, stepSize) => add(x, mul(g, spread(stepSize, x))),
  project: (x) => clip(x, 0, 1),
  randomStart: (center, noise, epsilon) =>
    clip(add(center, mul(noise, epsilon)), 0, 1),
  noise: "uniform",
};

/** The ball of each norm. */
export const BALLS: Readonly<Record<Norm, Ball>> = { l2, linf, unconstrained };
