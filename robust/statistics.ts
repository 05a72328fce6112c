/**
 * Means over images with their uncertainty.
 *
 * @module
 */
import type { Random } from "../core/mod.ts";
import type { Interval } from "./results_index.ts";

/** Resamplings of `bootstrapInterval()`. */
const RESAMPLES = 2000;

/**
 * Mean of values and its 95% interval by the bootstrap: from the 2.5th to the
 * 97.5th percentile of the means of resampled values (Efron 1979).
 *
 * @param values One per image, at least one
 * @param random Draws the samples
 * @returns Mean, interval and number of values
 * @throws {RangeError} If there is no value, or one is not a finite number
 */
export function bootstrapInterval(
  values: ArrayLike<number>,
  random: Random,
): Interval {
  const n = values.length;
  const odd = Array.from(values).find((value) => !Number.isFinite(value));
  if (n === 0 || odd !== undefined) {
    throw new RangeError(
      `Cannot average ${n} values` + (n > 0 ? ` of which one is ${odd}` : ""),
    );
  }
  const means = new Float64Array(RESAMPLES);
  for (let i = 0; i < RESAMPLES; i++) {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += values[Math.floor(random.uniform() * n)];
    means[i] = sum / n;
  }
  means.sort();
  // Rounding must not put the mean of equal values outside its interval.
  const mean = Array.from(values).reduce((sum, x) => sum + x, 0) / n;
  return {
    mean,
    low: Math.min(mean, percentile(means, 0.025)),
    high: Math.max(mean, percentile(means, 0.975)),
    n,
  };
}

/** Linear interpolation between the two nearest of sorted values. */
function percentile(sorted: Float64Array, fraction: number): number {
  const at = fraction * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}
