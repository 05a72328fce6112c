/**
 * How the learning rate and epsilon change while training.
 *
 * @module
 */

/** Shape of the learning rate over training. */
export type Schedule =
  /** Times 0.1 at each of these epochs (paper: 30 and 60 of 110). */
  | { readonly kind: "step"; readonly at: readonly number[] }
  /**
   * Up from 0 to its peak after 40% of training, then down to 0 (Smith and
   * Topin 2018, as in Wong et al. 2020): reaches a given accuracy in fewer
   * epochs.
   */
  | { readonly kind: "cyclic" };

/** Where the cyclic schedule peaks, as a fraction of training. */
const PEAK = 0.4;

/**
 * Learning rate at a moment of training.
 *
 * @param schedule Its shape
 * @param peak The largest learning rate
 * @param epoch Epochs done, fractional within an epoch
 * @param epochs Epochs in all
 * @returns Learning rate, 0 to `peak`
 */
export function learningRateAt(
  schedule: Schedule,
  peak: number,
  epoch: number,
  epochs: number,
): number {
  if (schedule.kind === "step") {
    const drops = schedule.at.filter((at) => Math.floor(epoch) >= at).length;
    return peak * 0.1 ** drops;
  }
  const done = epoch / epochs;
  return done < PEAK
    ? peak * done / PEAK
    : peak * Math.max(0, (1 - done) / (1 - PEAK));
}

/**
 * Fraction of epsilon and of the step size that the attack uses: grows
 * linearly over the first epochs.
 *
 * @param epoch Epochs done, fractional within an epoch
 * @param warmup Epochs until the full value; 0 starts with it
 * @returns Fraction, 0 to 1
 */
export function warmupAt(epoch: number, warmup: number): number {
  return warmup > 0 ? Math.min(1, epoch / warmup) : 1;
}

/**
 * PGD steps of the attack at a moment of training: grow from 1 over the first
 * epochs, when a weak attack does (Wang et al. 2019, "On the convergence and
 * robustness of adversarial training").
 *
 * @param steps Of the attack in full
 * @param epoch Epochs done, fractional within an epoch
 * @param warmup Epochs until all steps are taken; 0 starts with all
 * @returns Integer, 1 to `steps`
 */
export function attackStepsAt(
  steps: number,
  epoch: number,
  warmup: number,
): number {
  const done = warmup > 0 ? epoch / warmup : 1;
  return Math.min(steps, 1 + Math.floor(steps * done));
}

/** A start of training at a lower learning rate. */
export interface LearningRateWarmup {
  /** Epochs until the full learning rate. */
  readonly epochs: number;
  /** Fraction of it at the very beginning, 0 to 1. */
  readonly from: number;
}

/**
 * Fraction of the learning rate while it warms up: grows linearly (Goyal et
 * al. 2017, "Accurate, large minibatch SGD", 2.2: gradual warm-up).
 *
 * @param epoch Epochs done, fractional within an epoch
 * @param warmup Left out: none
 * @returns Fraction, 0 to 1
 */
export function learningRateWarmupAt(
  epoch: number,
  warmup: LearningRateWarmup | undefined,
): number {
  if (!warmup || epoch >= warmup.epochs) return 1;
  return warmup.from + (1 - warmup.from) * epoch / warmup.epochs;
}
