/**
 * The model of scaling against its simulation, and the benchmark's arithmetic.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  CLUSTER,
  expectedMaximum,
  predict,
  RESNET50_ATTACKED,
  RESNET50_STANDARD,
  simulate,
  sumSeconds,
} from "../../bench/_scaling.ts";
import { scaleRows, scaleTable } from "../../bench/scale_bench.ts";
import { Random } from "../../core/mod.ts";

const COUNTS = [1, 2, 8, 16, 64, 512];

Deno.test("predict() is the simulation where all ranks are alike", () => {
  const cluster = { ...CLUSTER, jitter: 0 };
  for (const ranks of COUNTS) {
    const options = { steps: 3, random: new Random(0) };
    const work = RESNET50_STANDARD;
    const { step } = predict(ranks, 32, work, cluster);
    const simulated = simulate(ranks, 32, work, cluster, options);
    assert(
      Math.abs(step / simulated - 1) < 0.01,
      `${ranks}: ${step}, ${simulated}`,
    );
  }
});

Deno.test("predict() is near the simulation where ranks vary", () => {
  for (const ranks of COUNTS) {
    const options = { steps: 200, random: new Random(1) };
    const { step } = predict(ranks, 32, RESNET50_ATTACKED, CLUSTER);
    const simulated = simulate(ranks, 32, RESNET50_ATTACKED, CLUSTER, options);
    assert(
      Math.abs(step / simulated - 1) < 0.02,
      `${ranks}: ${step}, ${simulated}`,
    );
  }
});

Deno.test("sumSeconds() of two ranks is two messages and an addition", () => {
  const { node } = CLUSTER;
  const expected = 2 * (node.latency + 8e6 / node.bandwidth) + 8e6 / 10e9;
  const found = sumSeconds(2, 8e6, CLUSTER);
  assert(Math.abs(found / expected - 1) < 1e-9);
  assertEquals(sumSeconds(1, 8e6, CLUSTER), 0);
});

Deno.test("expectedMaximum() is that of normal values", () => {
  // Tables of order statistics (Harter 1961).
  for (const [n, mean] of [[2, 0.56419], [8, 1.42360], [100, 2.50759]]) {
    assert(Math.abs(expectedMaximum(n) - mean) < 0.03, `${n}`);
  }
});

Deno.test("scaleRows() compares ranks with one", () => {
  const report = { reduceMs: [2, 4], sumMs: 1, bytes: 8e6 };
  const rows = scaleRows(
    "W3",
    new Map([
      [1, [{ ...report, ranks: 1, images: 32, stepMs: [100, 300, 200] }]],
      [2, [{ ...report, ranks: 2, images: 64, stepMs: [250, 250] }]],
    ]),
  );
  assertEquals(rows.map((row) => row.imagesPerSecond), [160, 256]);
  assertEquals(rows.map((row) => row.efficiency), [1, 0.8]);
  assertEquals(rows[1].reduceMs, 3);
  assertEquals(rows[1].predicted, 200 / 201);
  assertEquals(scaleTable(rows).split("\n").length, 4);
});
