/**
 * The checklist: an honest network passes, those that hide gradients fail.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  checkSanity,
  SANITY_CHECKS,
  type SanityCheck,
} from "../../robust/sanity.ts";
import { masked, trainedNetwork } from "./_networks.ts";
import { splitOf } from "./_split.ts";

// Robust: of a standard network of this size the losses are so rugged that PGD
// is far from the worst case, which the checklist rightly says.
const { network, split } = await trainedNetwork({ epsilon: 1, epochs: 40 });

/** Names of the checks that failed. */
function failures(checks: readonly SanityCheck[]): string[] {
  return checks.filter(({ passed }) => !passed).map(({ name }) => name);
}

for (const [norm, epsilon] of [["l2", 1.5], ["linf", 0.06]] as const) {
  Deno.test(`checkSanity() passes an honest network (${norm})`, async () => {
    const seen: SanityCheck[] = [];
    const report = await checkSanity(network, split, {
      norm,
      epsilon,
      queries: 200,
      onCheck: (check) => seen.push(check),
    });
    assertEquals(report.checks, seen);
    assertEquals(seen.map(({ name }) => name), [...SANITY_CHECKS]);
    const lines = seen.map(({ name, detail }) => `${name}: ${detail}`);
    assertEquals(failures(report.checks), [], lines.join("\n"));
    assertEquals([report.images, report.epsilon], [40, epsilon]);
  });
}

Deno.test("checkSanity() fails a network whose logits are scaled by 1e4", async () => {
  const hidden = masked(network, 1e4);
  const { checks } = await checkSanity(hidden, split, {
    norm: "l2",
    epsilon: 5,
    queries: 200,
  });
  const failed = failures(checks);
  for (const name of ["unbounded", "black-box", "gradients", "planted"]) {
    assert(failed.includes(name), `${name}: ${JSON.stringify(checks)}`);
  }
  await hidden.release();
});

Deno.test("checkSanity() refuses what it cannot check", async () => {
  await assertRejects(
    () => checkSanity(network, split, { norm: "l2", epsilon: 0 }),
    RangeError,
    "Cannot check an attack of epsilon 0 and 20 steps",
  );
  const images = await split.load([0, 1]);
  const wrong = splitOf(
    images.data.map((x) => Math.round(255 * x)),
    [4, 4],
    [3, 16, 16],
  );
  await assertRejects(
    () => checkSanity(network, wrong, { norm: "l2", epsilon: 0.5 }),
    RangeError,
    "none of 2 images is classified correctly",
  );
});

Deno.test("checkSanity() stops when its signal aborts", async () => {
  const signal = AbortSignal.abort(new Error("enough"));
  await assertRejects(
    () => checkSanity(network, split, { norm: "l2", epsilon: 1, signal }),
    Error,
    "enough",
  );
});
