/**
 * Stochastic gradient descent with momentum, as nodes.
 *
 * @module
 */
import { add, mul, type Node, sub } from "../core/mod.ts";

/** Settings of an update. */
export interface SgdSettings {
  /** Fraction of the previous velocity that is kept, such as 0.9. */
  readonly momentum: number;
  /** Times the parameter itself, added to its gradient, such as 5e-4. */
  readonly weightDecay: number;
}

/** A parameter and its velocity after a step. */
export interface SgdUpdate {
  /** New value, of the parameter's shape. */
  readonly parameter: Node;
  /** New velocity, of the parameter's shape. */
  readonly velocity: Node;
}

/**
 * One step of SGD with momentum as PyTorch defines it, without dampening:
 * `v <- momentum v + (g + weightDecay p)`, `p <- p - learningRate v`.
 *
 * @param parameter Any shape
 * @param gradient Shape of the parameter
 * @param velocity Shape of the parameter; zeros before the first step
 * @param learningRate Scalar
 * @param settings Momentum and weight decay
 */
export function sgd(
  parameter: Node,
  gradient: Node,
  velocity: Node,
  learningRate: Node,
  { momentum, weightDecay }: SgdSettings,
): SgdUpdate {
  const decayed = add(gradient, mul(parameter, weightDecay));
  const next = add(mul(velocity, momentum), decayed);
  return {
    parameter: sub(parameter, mul(next, learningRate)),
    velocity: next,
  };
}
