import { assert, assertAlmostEquals, assertThrows } from "@std/assert";
import { Random } from "../../core/mod.ts";
import { bootstrapInterval } from "../../robust/statistics.ts";

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
