/**
 * From times to figures, and figures to a table.
 *
 * @module
 */

/**
 * Middle value; the mean of the two middle ones for an even count.
 *
 * @throws {RangeError} If there are no values
 */
export function median(values: readonly number[]): number {
  if (values.length === 0) {
    throw new RangeError("Cannot take the median of no values");
  }
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? sorted[half]
    : (sorted[half - 1] + sorted[half]) / 2;
}

/** Times measured one right after the other, by contestant. */
export type Pair = Readonly<Record<string, number>>;

/** How much longer one contestant takes than another. */
export interface Ratio {
  /** Median of `pairs`. */
  readonly median: number;
  /** Ratio within each pair, in the order measured. */
  readonly pairs: readonly number[];
}

/**
 * Ratio of two contestants' times: taken within each pair, so that a slow
 * phase of the machine hits both sides alike.
 *
 * @throws {RangeError} If no pair has both
 */
export function pairwiseRatio(
  pairs: readonly Pair[],
  numerator: string,
  denominator: string,
): Ratio {
  const ratios = pairs
    .filter((pair) => numerator in pair && denominator in pair)
    .map((pair) => pair[numerator] / pair[denominator]);
  if (ratios.length === 0) {
    throw new RangeError(
      `Cannot compare "${numerator}" with "${denominator}": they were never ` +
        `measured together`,
    );
  }
  return { median: median(ratios), pairs: ratios };
}

/** A number with about three digits, as times and rates are read. */
export function showNumber(value: number): string {
  if (!Number.isFinite(value)) return "-";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

/**
 * Rows under a header, columns aligned: the first to the left, the others to
 * the right. Markdown.
 *
 * @throws {TypeError} If a row has not as many cells as the header
 */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  for (const row of rows) {
    if (row.length !== header.length) {
      throw new TypeError(
        `Cannot format a row of ${row.length} cells: the header has ` +
          header.length,
      );
    }
  }
  const widths = header.map((name, i) =>
    Math.max(3, name.length, ...rows.map((row) => row[i].length))
  );
  const line = (cells: readonly string[]) =>
    `| ${
      cells.map((cell, i) =>
        i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])
      ).join(" | ")
    } |`;
  const rule = widths.map((width, i) =>
    i === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`
  );
  return [header, rule, ...rows].map(line).join("\n");
}
