/**
 * Accuracy under several attacks.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  checkEnsemble,
  ENSEMBLE_ATTACKS,
  ensembleNote,
  type EnsembleSettings,
  evaluateEnsemble,
} from "../../robust/ensemble.ts";
import { evaluate } from "../../robust/evaluate.ts";
import { trainedNetwork } from "./_networks.ts";

const { network, split } = await trainedNetwork();

const SETTINGS: EnsembleSettings = {
  attacks: ENSEMBLE_ATTACKS,
  norm: "l2",
  epsilon: 0.2,
  steps: 15,
  targets: 9,
  queries: 40,
};

Deno.test("evaluateEnsemble() attacks what is left, and finds at least what PGD finds", async () => {
  const stages = new Map<string, number>();
  const found = await evaluateEnsemble(network, split, {
    ...SETTINGS,
    batchSize: 7,
    onProgress: (stage, done, total) => {
      assert(done >= (stages.get(stage) ?? 0) && done <= total);
      stages.set(stage, done);
    },
  });
  const pgd = await evaluate(network, split, {
    attack: {
      norm: "l2",
      epsilon: 0.2,
      steps: 15,
      stepSize: 0.04,
      randomStart: false,
      restarts: 1,
    },
  });
  assertEquals(found.images, 40);
  assertEquals(found.clean, pgd.clean);
  assertEquals(found.perImage.clean, pgd.perImage.clean);
  assert(found.adversarial <= pgd.adversarial!);
  assert(found.adversarial < found.clean && found.adversarial > 0);
  let left = Math.round(40 * found.clean);
  for (const { name, attacked, broken, accuracy } of found.attacks) {
    assertEquals(attacked, left, name);
    left -= broken;
    assertEquals(accuracy, left / 40);
    assertEquals(stages.get(name) ?? 0, attacked);
  }
  assertEquals(found.attacks.map(({ name }) => name), [...ENSEMBLE_ATTACKS]);
  assertEquals(found.adversarial, left / 40);
  found.perImage.adversarial.forEach((is, i) =>
    assert(!is || found.perImage.clean[i])
  );
});

Deno.test("evaluateEnsemble() runs the PGD of evaluate(), and 0 steps are noise", async () => {
  for (const norm of ["l2", "linf"] as const) {
    const epsilon = norm === "l2" ? 0.2 : 0.005;
    const attack = { norm, epsilon, steps: 15, stepSize: epsilon / 6 };
    const plain = await evaluate(network, split, {
      attack: { ...attack, randomStart: false, restarts: 1 },
    });
    const settings = { ...SETTINGS, ...attack, attacks: ["pgd"] as const };
    const found = await evaluateEnsemble(network, split, settings);
    // Any iterate counts, where evaluate() looks at that of largest loss.
    assert(Math.abs(found.adversarial - plain.adversarial!) <= 0.05);
    assert(found.adversarial > 0 && found.adversarial < 1);
    const restarted = await evaluateEnsemble(network, split, {
      ...settings,
      restarts: 3,
    });
    assert(restarted.adversarial <= found.adversarial + 0.05);
    const noise = await evaluateEnsemble(network, split, {
      ...settings,
      steps: 0,
      restarts: 5,
    });
    assert(noise.adversarial > found.adversarial);
  }
});

Deno.test("evaluateEnsemble() gives the same in any batches, and of the first images", async () => {
  const run = (batchSize: number, limit?: number) =>
    evaluateEnsemble(network, split, { ...SETTINGS, batchSize, limit });
  const whole = await run(40);
  assertEquals(await run(11), whole);
  const first = await run(9, 10);
  assertEquals(first.images, 10);
  assertEquals(
    first.perImage.adversarial,
    whole.perImage.adversarial.slice(0, 10),
  );
});

Deno.test("ensembleNote() says what few classes change", () => {
  const note = (classes: number) => ensembleNote(SETTINGS, classes);
  assertEquals(note(10), null);
  assertEquals(
    note(6),
    "APGD-T runs against all 5 wrong classes: there are 6 classes",
  );
  assertEquals(
    note(3),
    "APGD-T runs against all 2 wrong classes, and on the margin, as the " +
      "targeted DLR loss compares 4 logits: there are 3 classes",
  );
  assertEquals(ensembleNote({ ...SETTINGS, attacks: ["square"] }, 3), null);
});

Deno.test("checkEnsemble() refuses settings out of range", async () => {
  checkEnsemble(SETTINGS);
  await assertRejects(
    () => evaluateEnsemble(network, split, { ...SETTINGS, attacks: [] }),
    RangeError,
    "Cannot attack with nothing: name one of pgd, apgd-ce, apgd-t, square",
  );
});
