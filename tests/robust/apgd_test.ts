/**
 * Auto-PGD against its paper's schedule, plain PGD, and networks whose smallest
 * adversarial perturbation is known.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { constant, rows, type Tensor, tensor } from "../../core/mod.ts";
import { compile } from "../../onnx/mod.ts";
import {
  apgd,
  type ApgdSettings,
  apgdStep,
  checkpointsOf,
  StepSizeSchedule,
} from "../../robust/apgd.ts";
import { predictions } from "../../robust/evaluate.ts";
import {
  dlrObjective,
  marginObjective,
  targetedDlrObjective,
} from "../../robust/margin.ts";
import { crossEntropyObjective, oneHot } from "../../robust/objectives.ts";
import { optimizeInput, scalar } from "../../robust/pgd.ts";
import { evaluate } from "../_assert.ts";
import {
  lengths,
  linearDistances,
  linearImages,
  linearLogits,
  linearNetwork,
  masked,
  trainedNetwork,
} from "./_networks.ts";

const { network, split } = await trainedNetwork();
const IMAGES = await split.load([...Array(20).keys()]);
const LABELS = predictions((await network.predict(IMAGES)).logits);

const SETTINGS: ApgdSettings = {
  norm: "l2",
  epsilon: 1,
  steps: 20,
  loss: "cross-entropy",
};

Deno.test("checkpointsOf() follows the paper's recurrence", () => {
  assertEquals(checkpointsOf(100), [22, 41, 57, 70, 80, 87, 93, 99]);
  assertEquals(checkpointsOf(20), [5, 9, 12, 14, 16, 18, 19, 20]);
  assertEquals(checkpointsOf(1), [1]);
});

/**
 * The paper's Algorithm 1 written a second time, in one dimension and with the
 * whole history at hand, to maximise a function on [-1, 1].
 */
function toyApgd(
  f: (x: number) => number,
  slope: (x: number) => number,
  start: number,
  steps: number,
): { stepSizes: number[]; best: number } {
  const project = (x: number) => Math.min(1, Math.max(-1, x));
  const p = [0, 0.22];
  while (p.at(-1)! < 1) {
    p.push(p.at(-1)! + Math.max(p.at(-1)! - p.at(-2)! - 0.03, 0.06));
  }
  const w = p.map((share) => Math.ceil(Number((share * steps).toFixed(9))))
    .filter((at) => at <= steps);
  const eta = [2];
  const x = [start];
  const bests = [f(start)];
  let xBest = start;
  const grown: boolean[] = [];
  for (let k = 0; k < steps; k++) {
    const z = project(x[k] + eta[k] * Math.sign(slope(x[k])));
    const moved = k === 0
      ? z
      : x[k] + 0.75 * (z - x[k]) + 0.25 * (x[k] - x[k - 1]);
    x.push(project(moved));
    grown.push(f(x[k + 1]) > f(x[k]));
    if (f(x[k + 1]) > f(xBest)) xBest = x[k + 1];
    bests.push(f(xBest));
    eta.push(eta[k]);
    const j = w.indexOf(k + 1);
    if (j < 1) continue;
    const [from, to] = [w[j - 1], w[j]];
    const rises = grown.slice(from, to).filter(Boolean).length;
    const slow = rises < 0.75 * (to - from);
    const before = from === 0 ? NaN : eta[from];
    const stuck = before === eta[to - 1] && eta[from] === eta[from - 1] &&
      bests[from] === bests[to];
    if (slow || stuck) {
      eta[k + 1] = eta[k] / 2;
      x[k + 1] = xBest;
    }
  }
  return { stepSizes: eta.slice(0, steps), best: f(xBest) };
}

Deno.test("StepSizeSchedule halves as a second writing of the algorithm does", () => {
  const toys: [(x: number) => number, (x: number) => number, number][] = [
    // A peak between the steps, a slope to the edge, and ripples.
    [(x) => -((x - 0.3) ** 2), (x) => -2 * (x - 0.3), -0.9],
    [(x) => x, () => 1, -1],
    [
      (x) => Math.sin(9 * x) + x,
      (x) => 9 * Math.cos(9 * x) + 1,
      -0.2,
    ],
  ];
  for (const [f, slope, start] of toys) {
    for (const steps of [10, 50, 100]) {
      const expected = toyApgd(f, slope, start, steps);
      const project = (x: number) => Math.min(1, Math.max(-1, x));
      const schedule = new StepSizeSchedule(steps, 2);
      const stepSizes: number[] = [];
      let [x, before, best] = [start, start, start];
      for (let k = 0; k <= steps; k++) {
        const { isBest, restart } = schedule.observe(k, f(x));
        if (isBest) best = x;
        if (k === steps) break;
        if (restart) x = best;
        stepSizes.push(schedule.stepSize);
        const z = project(x + schedule.stepSize * Math.sign(slope(x)));
        const next = k === 0 ? z : x + 0.75 * (z - x) + 0.25 * (x - before);
        [before, x] = [x, project(next)];
      }
      assertEquals(stepSizes, expected.stepSizes, `${f} in ${steps} steps`);
      assertEquals(schedule.best, expected.best);
    }
  }
});

Deno.test("apgdStep() takes each image's own step size and momentum", async () => {
  for (const norm of ["l2", "linf"] as const) {
    const shape = [3, ...IMAGES.shape.slice(1)];
    const images = rows(IMAGES, 0, 3);
    const previous = tensor(images.data.map((x) => x - 0.001), shape);
    const labels = oneHot(LABELS.subarray(0, 3), 5);
    const objective = crossEntropyObjective(LABELS.subarray(0, 3), 5);
    const step = apgdStep(network.spec, shape, {
      norm,
      loss: objective.loss,
      feeds: { labels: labels.shape },
    });
    const program = await compile(step, {
      constants: network.parameters,
      threads: 1,
    });
    const sizes = [0, 0.01, 0.02];
    const run = async (momentum: number) =>
      (await program.run({
        images,
        previous,
        center: images,
        epsilon: scalar(100),
        stepSize: tensor(sizes, [3]),
        momentum: tensor([momentum, momentum, momentum], [3]),
        labels,
      })).next as Tensor;
    const moved = lengths(await run(1), images, norm);
    // Without edges in the way a step has its length.
    moved.forEach((length, i) =>
      assert(Math.abs(length - sizes[i]) < 1e-4, `${norm} ${moved}`)
    );
    const drifted = await run(0.75);
    // The image with no step of its own moves by a quarter of its last move.
    const first = rows(drifted, 0, 1).data.map((x, i) => x - images.data[i]);
    first.forEach((x) => assert(Math.abs(x - 0.00025) < 1e-6));
    await program.release();
  }
});

Deno.test("a gradient of 1e-22 still gives a step of full length", async () => {
  const tiny = masked(network, 1e-20);
  const { images, broken } = await apgd(tiny, IMAGES, LABELS, {
    ...SETTINGS,
    epsilon: 4,
  });
  const found = lengths(images, IMAGES, "l2").filter((_, i) => !broken[i]);
  found.forEach((length) => assert(length > 1, `${length}`));
  assert(broken.filter(Boolean).length > 0);
  await tiny.release();
});

Deno.test("APGD stays in the ball and in [0, 1], and finds what it says", async () => {
  for (const norm of ["l2", "linf"] as const) {
    for (const loss of ["cross-entropy", "targeted"] as const) {
      const epsilon = norm === "l2" ? 1 : 0.05;
      const result = await apgd(network, IMAGES, LABELS, {
        ...SETTINGS,
        norm,
        epsilon,
        loss,
        batchSize: 7,
      });
      const { images, broken } = result;
      assert(images.data.every((x) => x >= 0 && x <= 1));
      for (const length of lengths(images, IMAGES, norm)) {
        assert(length <= epsilon * (1 + 1e-5), `${norm} ${length}`);
      }
      const seen = predictions((await network.predict(images)).logits);
      broken.forEach((is, i) => assertEquals(is, seen[i] !== LABELS[i]));
    }
  }
});

Deno.test("APGD finds at least what PGD finds", async () => {
  for (const norm of ["l2", "linf"] as const) {
    for (
      const epsilon of norm === "l2" ? [0.4, 0.8, 1.6] : [0.01, 0.02, 0.04]
    ) {
      const settings = { norm, epsilon, steps: 20 };
      const pgd = await optimizeInput(network, IMAGES, {
        ...settings,
        stepSize: 2.5 * epsilon / 20,
        objective: crossEntropyObjective(LABELS, 5),
        direction: "maximize",
        keep: "best",
      });
      const seen = predictions((await network.predict(pgd.images)).logits);
      const byPgd = seen.filter((label, i) => label !== LABELS[i]).length;
      for (const loss of ["cross-entropy", "targeted"] as const) {
        const result = await apgd(network, IMAGES, LABELS, {
          ...settings,
          loss,
        });
        const byApgd = result.broken.filter(Boolean).length;
        assert(byApgd >= byPgd, `${norm} ${epsilon} ${loss}: ${byApgd}`);
      }
    }
  }
});

Deno.test("APGD-T breaks a network whose logits hide the gradient", async () => {
  const hidden = masked(network);
  const settings = { ...SETTINGS, epsilon: 3 };
  const honest = await apgd(network, IMAGES, LABELS, settings);
  const dlr = await apgd(hidden, IMAGES, LABELS, {
    ...settings,
    loss: "targeted",
  });
  const count = (broken: readonly boolean[]) => broken.filter(Boolean).length;
  assert(count(honest.broken) > 0);
  assert(count(dlr.broken) >= count(honest.broken));
  await hidden.release();
});

Deno.test("APGD gives each image the same, whatever else is attacked", async () => {
  const settings = { ...SETTINGS, epsilon: 0.6, seed: 3 };
  const whole = await apgd(network, IMAGES, LABELS, settings);
  const again = await apgd(network, IMAGES, LABELS, {
    ...settings,
    batchSize: 20,
  });
  assertEquals(again, whole);
  const parts = await apgd(network, IMAGES, LABELS, {
    ...settings,
    batchSize: 3,
  });
  assertEquals(parts.broken, whole.broken);
});

const MATRIX = [[4, 0, 0], [0, 3, 0], [0, 0, 5], [1, 1, 2]] as const;

Deno.test("APGD on a linear classifier succeeds just above the least length, and never below", async () => {
  // Cross-entropy weighs all wrong classes, so that only with a single one its
  // steepest direction is the shortest way out.
  for (
    const [loss, classes] of [["cross-entropy", 2], ["targeted", 4]] as const
  ) {
    const matrix = MATRIX.slice(0, classes);
    const linear = linearNetwork(matrix);
    const images = linearImages(12, 1);
    const { logits } = await linear.predict(images);
    linearLogits(images, matrix).flat().forEach((value, i) =>
      assert(Math.abs(value - logits.data[i]) < 1e-5)
    );
    for (const norm of ["l2", "linf"] as const) {
      const { labels, distances } = linearDistances(images, matrix, norm);
      let tried = 0;
      for (const [i, distance] of distances.entries()) {
        if (distance > 0.2) continue;
        tried++;
        for (
          const [share, expected] of [[0.98, false], [1.02, true]] as const
        ) {
          const { broken, queries } = await apgd(
            linear,
            rows(images, i, i + 1),
            [labels[i]],
            { norm, epsilon: share * distance, steps: 30, loss },
          );
          assertEquals(broken, [expected], `${norm} ${loss} ${distance}`);
          if (!expected) assert(queries[0] >= 31 * (classes - 1));
        }
      }
      assert(tried >= 6, `${tried} images`);
    }
    await linear.release();
  }
});

Deno.test("APGD-T runs against the wrong classes there are, and below 4 on the margin", async () => {
  for (const classes of [2, 3]) {
    const matrix = MATRIX.slice(0, classes);
    const linear = linearNetwork(matrix);
    const images = linearImages(4, 2);
    const { labels, distances } = linearDistances(images, matrix, "l2");
    for (const [i, distance] of distances.entries()) {
      for (const [share, expected] of [[0.97, false], [1.03, true]] as const) {
        const { broken } = await apgd(
          linear,
          rows(images, i, i + 1),
          [labels[i]],
          {
            norm: "l2",
            epsilon: share * distance,
            steps: 20,
            loss: "targeted",
          },
        );
        assertEquals(broken, [expected], `${classes} classes`);
      }
    }
    await linear.release();
  }
});

Deno.test("margin and DLR losses are those of the papers", async () => {
  const logits = tensor([1, 5, 2, 4, 0, -1, 3, 8], [2, 4]);
  const node = constant(logits);
  const labels = [1, 2];
  const value = async (
    { loss, feeds }: ReturnType<typeof marginObjective>,
  ) => {
    const nodes = Object.fromEntries(
      Object.entries(feeds).map(([name, feed]) => [name, constant(feed)]),
    );
    const out = loss({ logits: node, representation: node }, nodes);
    return [...(await evaluate({ out }, {})).out.data].map(Number);
  };
  assertEquals(await value(marginObjective(labels, 4)), [-1, 5]);
  // (z_j - z_y) / (z_1 - z_3)
  const dlr = await value(dlrObjective(labels, 4));
  [-1 / 3, 5 / 8].forEach((x, i) => assert(Math.abs(x - dlr[i]) < 1e-6));
  // (z_t - z_y) / (z_1 - (z_3 + z_4) / 2)
  const targeted = await value(targetedDlrObjective(labels, [0, 0], 4));
  [-4 / 3.5, -3 / 8.5].forEach((x, i) =>
    assert(Math.abs(x - targeted[i]) < 1e-6)
  );
});

Deno.test("APGD refuses settings out of range", async () => {
  const refused: [Partial<ApgdSettings>, string][] = [
    [{ epsilon: -1 }, "epsilon must be >= 0"],
    [{ steps: 0 }, "steps must be an integer >= 1: current value is 0"],
    [{ targets: 0.5 }, "targets must be an integer >= 1"],
    [{ norm: "unconstrained" as "l2" }, "Cannot run Auto-PGD without a ball"],
  ];
  for (const [changes, message] of refused) {
    await assertRejects(
      () => apgd(network, IMAGES, LABELS, { ...SETTINGS, ...changes }),
      RangeError,
      message,
    );
  }
  await assertRejects(
    () => apgd(network, IMAGES, LABELS.map(() => 5), SETTINGS),
    RangeError,
    "Cannot use label 5: the model has 5 classes, 0 to 4",
  );
  await assertRejects(
    () => apgd(network, IMAGES, [1], SETTINGS),
    TypeError,
    "Cannot attack 20 images with 1 labels",
  );
});

Deno.test("APGD stops when its signal aborts", async () => {
  const signal = AbortSignal.abort(new Error("enough"));
  await assertRejects(
    () => apgd(network, IMAGES, LABELS, { ...SETTINGS, signal }),
    Error,
    "enough",
  );
});
