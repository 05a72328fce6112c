/**
 * optimizeInput() against the reference library's attacks, and its laws.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  mean,
  mul,
  neg,
  Random,
  rows,
  slice,
  sub,
  sum,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import { Network } from "../../robust/network.ts";
import {
  coordinateObjective,
  crossEntropyObjective,
  matchRepresentation,
  type Objective,
  oneHot,
} from "../../robust/objectives.ts";
import {
  optimizeInput,
  type OptimizeOptions,
  type PgdSettings,
  pgdStep,
  scalar,
} from "../../robust/pgd.ts";
import type { Norm } from "../../robust/ball.ts";
import { assertAllClose, errorOf } from "../_assert.ts";
import { readDescription, readTensors } from "../_fixtures.ts";
import { runPlain } from "../_plain.ts";
import {
  FIXTURE_SPEC,
  fixtureParameters,
  floats,
  integers,
} from "../models/_fixture_network.ts";

const tensors = await readTensors("cifar_pgd");
const network = new Network(FIXTURE_SPEC, await fixtureParameters(), {
  threads: 1,
});
const x = floats(tensors, "x");
const labels = integers(tensors, "labels");
const COUNT = labels.length;

const crossEntropies = crossEntropyObjective(labels, FIXTURE_SPEC.classes);
const inversion = matchRepresentation(floats(tensors, "target_representation"));

interface FixtureCase {
  readonly constraint: "2" | "inf" | "unconstrained";
  readonly eps: number;
  readonly step_size: number;
  readonly targeted: boolean;
  readonly loss: "cross_entropy" | "inversion" | "feature";
  readonly feature_index?: number;
  readonly iterations: number;
  readonly use_best: boolean;
  readonly start: "x" | "inversion_start";
  readonly torch_float32_error: {
    readonly perturbation_rel_l2: number;
    readonly trajectory_losses_max_abs_per_iterate: readonly number[];
    readonly final_losses: { readonly max_abs: number };
  };
}

const { label_note: _, ...cases } = await readDescription<
  & Readonly<Record<string, FixtureCase>>
  & { readonly label_note: FixtureCase }
>("cifar_pgd");

const NORM_OF = {
  2: "l2",
  inf: "linf",
  unconstrained: "unconstrained",
} as const;

function objectiveOf({ loss, feature_index }: FixtureCase): Objective {
  switch (loss) {
    case "cross_entropy":
      return crossEntropies;
    case "inversion":
      return inversion;
    case "feature":
      return coordinateObjective(new Array(COUNT).fill(feature_index), 64);
  }
}

/** Differences of the elements of two tensors. */
function minus({ data, shape }: Tensor, other: Tensor): Tensor {
  return tensor(data.map((value, i) => value - other.data[i]), shape);
}

/** Largest difference between two tensors' elements. */
function gap(a: Tensor, b: Tensor): number {
  return minus(a, b).data.reduce((most, d) => Math.max(most, Math.abs(d)), 0);
}

/** A step that moves an image this much otherwise crossed a kink, relative. */
const KINK = 1e-4;

/**
 * The step at which each image first crosses a kink: where the order of sums
 * alone decides the sign of an activation, the gradient jumps, and runs of two
 * implementations part from there on. Infinity where there is none.
 *
 * @param iterates Images before each step and after the last
 */
async function firstKinks(
  fixture: FixtureCase,
  iterates: readonly Tensor[],
  stepSize: number,
): Promise<number[]> {
  const { feeds, loss, ofRepresentation: fakeRelu } = objectiveOf(fixture);
  const norm = NORM_OF[fixture.constraint];
  const [first] = iterates;
  const shapes = Object.fromEntries(
    Object.entries(feeds).map(([name, { shape }]) => [name, shape]),
  );
  const settings = { norm, loss, feeds: shapes, fakeRelu };
  const { next } = pgdStep(FIXTURE_SPEC, first.shape, settings);
  const kinks = new Array<number>(COUNT).fill(Infinity);
  for (const [step, images] of iterates.slice(0, -1).entries()) {
    const plain = await runPlain({ next }, {
      ...network.parameters,
      ...feeds,
      images,
      center: first,
      epsilon: scalar(fixture.eps),
      stepSize: scalar(fixture.targeted ? -stepSize : stepSize),
    });
    for (let i = 0; i < COUNT; i++) {
      const [from, ours, theirs] = [images, iterates[step + 1], plain.next]
        .map((all) => rows(all, i, i + 1));
      const { relative } = errorOf(
        minus(ours, from),
        minus(theirs, from),
        "l2",
      );
      if (relative > KINK) kinks[i] = Math.min(kinks[i], step);
    }
  }
  return kinks;
}

/** Cases whose runs part in any two implementations. */
const OVERSHOOTING = ["inversion_20_best", "inversion_20_last"];

/** As much worse than PyTorch in float32 as another float32 run may be. */
const WORSE = 10;

for (const [name, fixture] of Object.entries(cases)) {
  Deno.test(`optimizeInput() attacks as the reference library does: ${name}`, async () => {
    const { constraint, step_size, torch_float32_error: error } = fixture;
    const start = floats(tensors, fixture.start);
    const trajectory: Tensor[] = [];
    const iterates: Tensor[] = [];
    // Its unconstrained step takes the gradient of the batch's mean.
    const stepSize = constraint === "unconstrained"
      ? step_size / COUNT
      : step_size;
    const { images, losses } = await optimizeInput(network, start, {
      objective: objectiveOf(fixture),
      norm: NORM_OF[constraint],
      epsilon: fixture.eps,
      stepSize,
      steps: fixture.iterations,
      direction: fixture.targeted ? "minimize" : "maximize",
      keep: fixture.use_best ? "best" : "last",
      onStep: ({ images, losses }) => {
        iterates.push(tensor(images.data.slice(), images.shape));
        trajectory.push(tensor(losses.data.slice(), losses.shape));
      },
    });

    const kinks = await firstKinks(fixture, iterates, stepSize);
    const whole = kinks.flatMap((kink, i) => kink === Infinity ? [i] : []);
    if (!OVERSHOOTING.includes(name)) {
      assert(whole.length >= COUNT - 2, `images met kinks at ${kinks}`);
    }
    /** What belongs to images that have met no kink. */
    const smooth = (all: Tensor): Tensor =>
      tensor(
        whole.flatMap((i) => [...rows(all, i, i + 1).data]),
        [whole.length, ...all.shape.slice(1)],
      );

    const expected = floats(tensors, `${name}/trajectory_losses`);
    assertEquals(trajectory.length, fixture.iterations + 1);
    trajectory.forEach((found, i) => {
      const row = tensor(expected.data.slice(i * COUNT, (i + 1) * COUNT));
      const errors = minus(found, row).data
        .map((error, image) => kinks[image] < i ? 0 : Math.abs(error)).sort();
      if (OVERSHOOTING.includes(name)) {
        // Steps this long meet kinks, behind which an image's runs part:
        // PyTorch's own in float32 and float64 do from the fifth on.
        const tight = i < 5 ? COUNT : i < 10 ? COUNT - 2 : COUNT / 2;
        assert(errors[tight - 1] <= 2e-6, `iterate ${i}: ${errors}`);
        assert(errors[COUNT - 1] <= 0.03, `iterate ${i}: ${errors}`);
        return;
      }
      // One image may part from PyTorch's run at a kink of that alone, earlier
      // than another image does in PyTorch's own.
      const own = error.trajectory_losses_max_abs_per_iterate;
      const most = i === 0 ? own[0] : Math.max(...own);
      [[COUNT - 2, own[i]], [COUNT - 1, most]].forEach(([rank, allowed]) =>
        assert(
          errors[rank] <= Math.max(2e-6, WORSE * allowed),
          `losses of iterate ${i} are off by ${errors}; PyTorch's by ${allowed}`,
        )
      );
    });

    if (`${name}/after_first_step` in tensors) {
      const after = floats(tensors, `${name}/after_first_step`);
      assert(gap(iterates[1], after) < 1e-5);
    }

    const finalLosses = floats(tensors, `${name}/final_losses`);
    const worstLoss = gap(smooth(losses), smooth(finalLosses));
    assert(worstLoss <= Math.max(2e-6, WORSE * error.final_losses.max_abs));

    const final = floats(tensors, `${name}/final`);
    if (constraint === "inf") {
      // The sign of a gradient near 0 may differ: count pixels.
      const off = minus(smooth(images), smooth(final)).data.filter((d) =>
        Math.abs(d) > 1e-4
      );
      assert(off.length <= 300, `${off.length} pixels differ`);
    } else {
      const perturbation = errorOf(
        smooth(minus(images, start)),
        smooth(minus(final, start)),
        "l2",
      ).relative;
      const allowed = WORSE * error.perturbation_rel_l2;
      assert(
        perturbation <= Math.max(1e-4, allowed),
        `perturbation is ${perturbation} off; allowed is ${allowed}`,
      );
    }
  });
}

/** An attack that the laws below vary. */
const ATTACK = {
  objective: crossEntropies,
  norm: "l2",
  epsilon: 0.5,
  stepSize: 0.2,
  steps: 4,
  direction: "maximize",
  keep: "best",
} as const satisfies OptimizeOptions;

function attack(options: Partial<OptimizeOptions> = {}) {
  return optimizeInput(network, x, { ...ATTACK, ...options });
}

function average({ data }: Tensor): number {
  return data.reduce((sum, value) => sum + value, 0) / data.length;
}

Deno.test("optimizeInput() returns what its last call of onStep showed", async () => {
  let last: { images: Tensor; losses: Tensor } | undefined;
  const found = await attack({
    keep: "last",
    onStep: ({ images, losses }) =>
      last = {
        images: tensor(images.data.slice(), images.shape),
        losses: tensor(losses.data.slice(), losses.shape),
      },
  });
  assertEquals(found, last);
});

Deno.test("optimizeInput() shows the steps that are observed, and the last", async () => {
  const seen: number[] = [];
  const asked: number[] = [];
  const options = { keep: "best", steps: 5 } as const;
  const found = await attack({
    ...options,
    observe: (step) => asked.push(step) % 3 === 2,
    onStep: ({ step }) => seen.push(step),
  });
  assertEquals(asked, [0, 1, 2, 3, 4]);
  assertEquals(seen, [1, 4, 5]);
  assertEquals(found, await attack(options));
});

Deno.test("optimizeInput() keeps each image's best iterate", async () => {
  const seen: Tensor[] = [];
  // Steps this long overshoot, so that the last is not everywhere the best.
  const { losses } = await attack({
    epsilon: 4,
    stepSize: 4,
    steps: 6,
    onStep: ({ losses }) => seen.push(tensor(losses.data.slice())),
  });
  const best = Float32Array.from(
    { length: COUNT },
    (_, i) => Math.max(...seen.map(({ data }) => data[i])),
  );
  assertEquals(losses.data, best);
  assert(gap(losses, seen.at(-1)!) > 0);
});

Deno.test("optimizeInput() with no steps returns the start and its loss", async () => {
  const { images, losses } = await attack({ steps: 0 });
  assertEquals(images.data, x.data);
  const start = floats(tensors, "l2_7_last/trajectory_losses");
  assertAllClose(losses, tensor(start.data.slice(0, COUNT)), {
    tolerance: 2e-6,
  });
});

Deno.test("optimizeInput() with epsilon 0 stays where it is", async () => {
  for (const norm of ["l2", "linf"] as const) {
    const { images } = await attack({ norm, epsilon: 0 });
    assertEquals(images.data, x.data);
  }
});

Deno.test("optimizeInput() minimises by default and returns the last iterate", async () => {
  const { direction: _, keep: __, ...rest } = ATTACK;
  const implied = await optimizeInput(network, x, rest);
  const stated = await attack({ direction: "minimize", keep: "last" });
  assertEquals(implied, stated);
});

Deno.test("optimizeInput() stays inside the balls around its centres", async () => {
  const center = floats(tensors, "inversion_start");
  for (const norm of ["l2", "linf"] as const) {
    // The start itself is outside, and must not count as the best iterate.
    for (const steps of [0, 1, 3]) {
      const { images } = await attack({ norm, center, epsilon: 0.3, steps });
      const size = images.data.length / COUNT;
      const difference = minus(images, center).data;
      for (let i = 0; i < COUNT; i++) {
        const row = difference.subarray(i * size, (i + 1) * size);
        const length = norm === "l2"
          ? Math.sqrt(row.reduce((sum, d) => sum + d * d, 0))
          : row.reduce((most, d) => Math.max(most, Math.abs(d)), 0);
        assert(
          length <= 0.3 * (1 + 1e-5),
          `${norm}, ${steps} steps: ${length}`,
        );
      }
    }
  }
});

Deno.test("optimizeInput() keeps the worst of different restarts per image", async () => {
  const starts: Tensor[] = [];
  const ends: Tensor[] = [];
  const { images, losses } = await attack({
    keep: "last",
    randomStart: new Random(5),
    restarts: 3,
    onStep: ({ step, restart, images, losses }) => {
      if (step === 0) {
        assertEquals(restart, starts.length);
        starts.push(tensor(images.data.slice()));
      }
      if (step === ATTACK.steps) ends.push(tensor(losses.data.slice()));
    },
  });
  assertEquals([starts.length, ends.length], [3, 3]);
  for (const [i, j] of [[0, 1], [0, 2], [1, 2]]) {
    assert(gap(starts[i], starts[j]) > 1e-3);
  }
  const worst = Float32Array.from(
    { length: COUNT },
    (_, i) => Math.max(...ends.map(({ data }) => data[i])),
  );
  assertEquals(losses.data, worst);
  const winners = new Set(
    Array.from(
      worst,
      (loss, i) => ends.findIndex(({ data }) => data[i] === loss),
    ),
  );
  assert(winners.size > 1, "one restart was the worst for all images");
  const again = await optimizeInput(network, images, { ...ATTACK, steps: 0 });
  assertAllClose(again.losses, losses, { tolerance: 1e-6 });
});

Deno.test("optimizeInput() refuses restarts without a random start", async () => {
  await assertRejects(
    () => attack({ restarts: 2 }),
    RangeError,
    "Cannot restart 2 times without a random start",
  );
  for (const restarts of [0, -1, 1.5, NaN]) {
    await assertRejects(
      () => attack({ restarts, randomStart: new Random(0) }),
      RangeError,
      `restarts must be an integer >= 1: current value is ${restarts}`,
    );
  }
});

Deno.test("optimizeInput() reports every step of every batch and restart", async () => {
  const seen: string[] = [];
  await attack({
    steps: 2,
    batchSize: 5,
    randomStart: new Random(0),
    restarts: 2,
    onStep: ({ step, restart, start, images, losses }) =>
      seen.push(
        [step, restart, start, images.shape[0], losses.shape].join(" "),
      ),
  });
  const expected = [[0, 5], [5, 3]].flatMap(([start, count]) =>
    [0, 1].flatMap((restart) =>
      [0, 1, 2].map((step) => [step, restart, start, count, count].join(" "))
    )
  );
  assertEquals(seen, expected);
});

Deno.test("optimizeInput() stops when its signal aborts", async () => {
  const controller = new AbortController();
  const steps: number[] = [];
  await assertRejects(
    () =>
      attack({
        steps: 50,
        signal: controller.signal,
        onStep: ({ step }) => {
          steps.push(step);
          if (step === 2) controller.abort(new Error("enough"));
        },
      }),
    Error,
    "enough",
  );
  assertEquals(steps, [0, 1, 2]);
});

Deno.test("an attack with more steps, restarts or epsilon is not weaker", async () => {
  const strength = async (options: Partial<OptimizeOptions>) =>
    (await attack(options)).losses;
  const clean = await strength({ steps: 0 });

  const bySteps = [clean];
  for (const steps of [1, 3, 8]) bySteps.push(await strength({ steps }));
  const byRestarts: Tensor[] = [];
  for (const restarts of [1, 2, 4]) {
    const randomStart = new Random(9);
    byRestarts.push(await strength({ restarts, randomStart }));
  }
  // The same iterates and more: not weaker for any image.
  for (const nested of [bySteps, byRestarts]) {
    for (let i = 1; i < nested.length; i++) {
      assert(minus(nested[i], nested[i - 1]).data.every((d) => d >= 0));
    }
  }
  assert(average(bySteps[3]) > average(bySteps[1]) + 1e-3);

  const byEpsilon = [average(clean)];
  for (const epsilon of [0.1, 0.25, 0.5, 1, 2]) {
    const stepSize = 2.5 * epsilon / 8;
    byEpsilon.push(average(await strength({ epsilon, stepSize, steps: 8 })));
  }
  for (let i = 1; i < byEpsilon.length; i++) {
    assert(byEpsilon[i] > byEpsilon[i - 1]);
  }
});

Deno.test("optimizeInput() gives the same in batches with a remainder", async () => {
  for (const norm of ["l2", "linf"] as const) {
    const whole = await attack({ norm, epsilon: 0.05, stepSize: 0.02 });
    for (const batchSize of [3, 1]) {
      const options = { norm, epsilon: 0.05, stepSize: 0.02, batchSize };
      const found = await attack(options);
      assertAllClose(found.losses, whole.losses, { tolerance: 2e-6 });
      assertAllClose(found.images, whole.images, {
        tolerance: 1e-5,
        relative: "l2",
      });
    }
  }
});

Deno.test("optimizeInput() does not let images change each other's result", async () => {
  const alone = await optimizeInput(network, rows(x, 0, 2), {
    ...ATTACK,
    objective: crossEntropyObjective(labels.slice(0, 2), 10),
  });
  const { images, losses } = await attack();
  assertAllClose(rows(images, 0, 2), alone.images, { tolerance: 1e-5 });
  assertAllClose(rows(losses, 0, 2), alone.losses, { tolerance: 2e-6 });
});

Deno.test("random starts do not depend on the batch size", async () => {
  for (const norm of ["l2", "linf"] as const) {
    const starts = (batchSize: number, seed = 3) =>
      attack({ norm, steps: 0, batchSize, randomStart: new Random(seed) });
    const whole = await starts(8);
    for (const batchSize of [1, 3]) {
      const found = await starts(batchSize);
      assertAllClose(found.images, whole.images, { tolerance: 2e-7 });
    }
    assertEquals(await starts(8), whole);
    const other = await starts(8, 4);
    assert(gap(other.images, whole.images) > 1e-3);
  }
});

Deno.test("optimizeInput() refuses settings out of range", async () => {
  const refused: [Partial<PgdSettings>, string][] = [
    [{ epsilon: -1 }, "epsilon must be >= 0: current value is -1"],
    [{ epsilon: NaN }, "epsilon must be >= 0: current value is NaN"],
    [{ epsilon: Infinity }, "epsilon must be >= 0: current value is Infinity"],
    [{ stepSize: -0.1 }, "stepSize must be >= 0: current value is -0.1"],
    [{ stepSize: NaN }, "stepSize must be >= 0: current value is NaN"],
    [{ steps: 1.5 }, "steps must be an integer >= 0: current value is 1.5"],
    [{ steps: -1 }, "steps must be an integer >= 0: current value is -1"],
    [{ norm: "l1" as Norm }, "choose one of l2, linf, unconstrained"],
  ];
  for (const [settings, message] of refused) {
    await assertRejects(() => attack(settings), RangeError, message);
  }
});

Deno.test("optimizeInput() refuses tensors that do not fit", async () => {
  const one = crossEntropyObjective(labels.slice(1), 10);
  await assertRejects(() => attack({ objective: one }), TypeError);
  await assertRejects(() => attack({ center: rows(x, 0, 3) }), TypeError);
  for (const shape of [[3, 32, 32], [0, 3, 32, 32]]) {
    const size = shape.reduce((a, b) => a * b);
    const images = tensor(new Float32Array(size), shape);
    await assertRejects(
      () => optimizeInput(network, images, ATTACK),
      TypeError,
      "need [n, 3, h, w] with n >= 1",
    );
  }
});

Deno.test("batch sizes below 1 are refused", async () => {
  for (const batchSize of [0, -1, 1.5, NaN]) {
    await assertRejects(
      () => attack({ batchSize }),
      RangeError,
      `batch size must be an integer >= 1: current value is ${batchSize}`,
    );
    await assertRejects(
      () => network.predict(x, { batchSize }),
      RangeError,
      `batch size must be an integer >= 1: current value is ${batchSize}`,
    );
  }
});

const FIRST_LOGIT: Objective = {
  name: "first logit",
  ofRepresentation: false,
  feeds: {},
  loss: ({ logits }) =>
    sum(slice(logits, [{ axis: 1, start: 0, end: 1 }]), [1]),
};

/** Prefers one class to another, which rows of a feed name. */
function marginObjective(classA: number, classB: number): Objective {
  const rowsOf = (label: number) =>
    oneHot(new Array(COUNT).fill(label), FIXTURE_SPEC.classes);
  return {
    name: "margin",
    ofRepresentation: false,
    feeds: { a: rowsOf(classA), b: rowsOf(classB) },
    loss: ({ logits }, { a, b }) => sum(mul(logits, sub(a, b)), [1]),
  };
}

Deno.test("optimizeInput() takes an objective of one's own", async () => {
  const objective = marginObjective(3, 5);
  const before = await attack({ objective, steps: 0 });
  const { images, losses } = await attack({ objective });
  assert(minus(losses, before.losses).data.every((d) => d > 0));
  const { logits } = await network.predict(images);
  for (let i = 0; i < COUNT; i++) {
    const margin = logits.data[i * 10 + 3] - logits.data[i * 10 + 5];
    assert(Math.abs(margin - losses.data[i]) < 1e-5);
  }
});

Deno.test("objectives of different functions do not share a program", async () => {
  const up = await attack({ objective: FIRST_LOGIT, steps: 0 });
  const negated: Objective = {
    ...FIRST_LOGIT,
    loss: (outputs, feeds) => neg(FIRST_LOGIT.loss(outputs, feeds)),
  };
  const down = await attack({ objective: negated, steps: 0 });
  assertEquals(up.losses.data, down.losses.data.map((value) => -value));
});

Deno.test("optimizeInput() refuses objectives without one value per image", async () => {
  const refused: Objective["loss"][] = [
    ({ logits }) => logits,
    ({ logits }) => mean(logits),
    ({ logits }) => sum(logits, [1], { keepDims: true }),
  ];
  for (const loss of refused) {
    await assertRejects(
      () => attack({ objective: { ...FIRST_LOGIT, loss } }),
      TypeError,
      "need one value per image, [8]",
    );
  }
});

Deno.test("optimizeInput() refuses feeds under its own names", async () => {
  for (const name of ["images", "center", "epsilon", "stepSize", "noise"]) {
    const objective = { ...FIRST_LOGIT, feeds: { [name]: x } };
    await assertRejects(
      () => attack({ objective }),
      RangeError,
      `under the name "${name}": it is reserved`,
    );
  }
});

Deno.test("objectives refuse labels and coordinates that do not exist", () => {
  for (const label of [-1, 10, 1.5, NaN]) {
    assertThrows(
      () => crossEntropyObjective([label], 10),
      RangeError,
      `label ${label}`,
    );
    assertThrows(
      () => coordinateObjective([label], 10),
      RangeError,
      `coordinate ${label}`,
    );
  }
});

Deno.test("fakeRelu follows the objective unless an option says otherwise", async () => {
  const start = floats(tensors, "inversion_start");
  const run = (fakeRelu?: boolean) =>
    optimizeInput(network, start, {
      objective: inversion,
      epsilon: 1000,
      stepSize: 0.5,
      steps: 1,
      fakeRelu,
    });
  const [implied, fake, ordinary] = [
    await run(),
    await run(true),
    await run(false),
  ];
  assertEquals(implied, fake);
  assert(gap(fake.images, ordinary.images) > 1e-4);
});

Deno.test("optimizeInput() stays at its optimum without NaN", async () => {
  const { representation } = await network.predict(x);
  const { images, losses } = await optimizeInput(network, x, {
    objective: matchRepresentation(representation),
    epsilon: 1000,
    stepSize: 0.1,
    steps: 3,
    keep: "best",
  });
  assert(images.data.every(Number.isFinite));
  assert(losses.data.every((loss) => loss < 1e-5));
});

Deno.test("matchRepresentation() is finite where all features of the target are 0", async () => {
  const { representation } = await network.predict(x);
  const { data, shape } = representation;
  const { images, losses } = await optimizeInput(network, x, {
    objective: matchRepresentation(tensor(data.map(() => 0), shape)),
    epsilon: 1000,
    stepSize: 0.1,
    steps: 2,
  });
  assert(images.data.every(Number.isFinite));
  assert(losses.data.every(Number.isFinite));
});
