import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertThrows,
} from "@std/assert";
import { Random } from "../../core/mod.ts";
import {
  bootstrapInterval,
  crossedInterval,
  wilsonInterval,
} from "../../robust/statistics.ts";

Deno.test("bootstrapInterval() covers the mean 95 times in 100 (seed 0)", () => {
  const random = new Random(0);
  let covered = 0;
  for (let i = 0; i < 400; i++) {
    const sample = Array.from({ length: 64 }, () => random.uniform());
    const { low, high } = bootstrapInterval(sample, random.stream("b", i));
    if (low <= 0.5 && 0.5 <= high) covered++;
  }
  // Three standard errors of a share of 0.95 among 400 are 0.033.
  assertAlmostEquals(covered / 400, 0.95, 0.035);
});

Deno.test("bootstrapInterval() is as wide as the normal one (seed 1)", () => {
  const random = new Random(1);
  const sample = Array.from({ length: 1000 }, () => random.uniform());
  const { mean, low, high, n } = bootstrapInterval(sample, random);
  const error = 1.96 * Math.sqrt(1 / 12 / n);
  assertAlmostEquals(high - mean, error, 0.1 * error);
  assertAlmostEquals(mean - low, error, 0.1 * error);
});

Deno.test("bootstrapInterval() of equal values is that value", () => {
  const { mean, low, high } = bootstrapInterval([0.1, 0.1, 0.1], new Random(0));
  assert(low === mean && mean === high);
});

Deno.test("bootstrapInterval() refuses nothing and what is no number", () => {
  const random = new Random(0);
  assertThrows(() => bootstrapInterval([], random), RangeError, "0 values");
  assertThrows(() => bootstrapInterval([1, NaN], random), RangeError, "NaN");
});

Deno.test("wilsonInterval() gives published values", () => {
  // Newcombe 1998, Statistics in Medicine 17, Table I, method 3.
  const published: [number, number, number, number][] = [
    [81, 263, 0.2553, 0.3662],
    [15, 148, 0.0624, 0.1605],
    [0, 20, 0, 0.1611],
    [1, 29, 0.0061, 0.1718],
  ];
  for (const [count, n, low, high] of published) {
    const found = wilsonInterval(count, n);
    assertEquals([found.mean, found.n], [count / n, n]);
    assertAlmostEquals(found.low, low, 6e-5);
    assertAlmostEquals(found.high, high, 6e-5);
    const mirrored = wilsonInterval(n - count, n);
    assertAlmostEquals(mirrored.low, 1 - found.high, 1e-12);
    assertAlmostEquals(mirrored.high, 1 - found.low, 1e-12);
  }
});

Deno.test("wilsonInterval() refuses what is no share", () => {
  for (const [count, n] of [[0, 0], [3, 2], [-1, 2], [0.5, 2], [1, NaN]]) {
    assertThrows(
      () => wilsonInterval(count, n),
      RangeError,
      `Cannot give an interval for ${count} of ${n} images`,
    );
  }
});

Deno.test("crossedInterval() covers the mean where rows differ (seed 0)", () => {
  const random = new Random(0);
  let crossed = 0, pooled = 0;
  const trials = 100;
  for (let i = 0; i < trials; i++) {
    // A part of each row, one of each column, and one of each value.
    const rows = random.normal([12]).data, columns = random.normal([20]).data;
    const table = Array.from(
      rows,
      (row) =>
        Array.from(
          columns,
          (column) => row + column + random.normal([1]).data[0],
        ),
    );
    const covers = ({ low, high }: { low: number; high: number }) =>
      low <= 0 && 0 <= high;
    if (covers(crossedInterval(table, random.stream("crossed", i)))) crossed++;
    const all = table.flat();
    if (covers(bootstrapInterval(all, random.stream("pooled", i)))) pooled++;
  }
  // Values that share a row or a column say less than as many by themselves.
  assert(crossed >= 88, `${crossed} of ${trials}`);
  assert(pooled <= 60, `${pooled} of ${trials}`);
});

Deno.test("crossedInterval() of one row is as bootstrapInterval() has it", () => {
  const row = [...new Random(3).normal([200]).data];
  const one = bootstrapInterval(row, new Random(1));
  const { mean, low, high, n } = crossedInterval([row], new Random(1));
  assertEquals([mean, n], [one.mean, 200]);
  assert(Math.abs(low - one.low) < 0.03 && Math.abs(high - one.high) < 0.03);
});

Deno.test("crossedInterval() refuses what is no table of numbers", () => {
  const random = new Random(0);
  for (const table of [[], [[]], [[1, 2], [3]]]) {
    assertThrows(
      () => crossedInterval(table, random),
      RangeError,
      "Cannot average a table",
    );
  }
  assertThrows(() => crossedInterval([[1, NaN]], random), RangeError, "NaN");
});
