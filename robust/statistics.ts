/**
 * Means and shares over images with their uncertainty.
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
  const mean = Array.from(values).reduce((sum, x) => sum + x, 0) / n;
  return resampled({ mean, n }, () => {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += values[Math.floor(random.uniform() * n)];
    return sum / n;
  });
}

/**
 * Mean of a table's values and its 95% interval where rows and columns are
 * samples of their own, such as features and pictures: both are resampled (Owen
 * 2007, "The pigeonhole bootstrap").
 *
 * @param table Rows of one length, at least one
 * @param random Draws the samples
 * @returns Mean, interval and number of values
 * @throws {RangeError} If rows differ in length, there is no value, or one is
 * not a finite number
 */
export function crossedInterval(
  table: readonly (readonly number[])[],
  random: Random,
): Interval {
  const columns = table[0]?.length ?? 0;
  const n = table.length * columns;
  if (n === 0 || !table.every((row) => row.length === columns)) {
    throw new RangeError(
      `Cannot average a table with rows of ${table.map((row) => row.length)}`,
    );
  }
  const odd = table.flat().find((value) => !Number.isFinite(value));
  if (odd !== undefined) {
    throw new RangeError(`Cannot average ${n} values of which one is ${odd}`);
  }
  const draw = (count: number) =>
    Array.from({ length: count }, () => Math.floor(random.uniform() * count));
  const mean = table.flat().reduce((sum, x) => sum + x, 0) / n;
  return resampled({ mean, n }, () => {
    const chosen = draw(columns);
    let sum = 0;
    for (const i of draw(table.length)) {
      for (const j of chosen) sum += table[i][j];
    }
    return sum / n;
  });
}

/** A mean with the middle 95% of the means of resampled values. */
function resampled(
  { mean, n }: Pick<Interval, "mean" | "n">,
  resample: () => number,
): Interval {
  const means = Float64Array.from({ length: RESAMPLES }, resample).sort();
  // Rounding must not put the mean of equal values outside its interval.
  return {
    mean,
    low: Math.min(mean, percentile(means, 0.025)),
    high: Math.max(mean, percentile(means, 0.975)),
    n,
  };
}

/** 97.5th percentile of the normal distribution. */
const Z = 1.959963984540054;

/**
 * A share of images and its 95% interval by Wilson's score (Wilson 1927), which
 * unlike the usual approximation holds for shares near 0 and 1 and few images.
 *
 * @param count Images that count, such as those classified correctly
 * @param n Images in all
 * @returns Share, interval and number of images
 * @throws {RangeError} If `n` is not an integer >= 1 or `count` not of 0 to `n`
 */
export function wilsonInterval(count: number, n: number): Interval {
  const fits = Number.isInteger(n) && n >= 1 && Number.isInteger(count) &&
    count >= 0 && count <= n;
  if (!fits) {
    throw new RangeError(
      `Cannot give an interval for ${count} of ${n} images: need integers, ` +
        `0 <= count <= n and n >= 1`,
    );
  }
  const mean = count / n;
  const scale = 1 + Z ** 2 / n;
  const center = (mean + Z ** 2 / (2 * n)) / scale;
  const half = Z / scale *
    Math.sqrt(mean * (1 - mean) / n + Z ** 2 / (4 * n ** 2));
  // Rounding must not put the ends beyond what a share can be.
  return {
    mean,
    low: count === 0 ? 0 : Math.max(0, center - half),
    high: count === n ? 1 : Math.min(1, center + half),
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
