/**
 * Steps, projections and random starts: against PyTorch, and their laws on
 * seeded random images.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  type AnyTensor,
  input,
  Random,
  rows,
  sizeOf,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import { compile, type Program } from "../../onnx/mod.ts";
import { BALLS, type Norm, NORMS } from "../../robust/ball.ts";
import { assertAllClose, evaluate } from "../_assert.ts";
import { readDescription, readTensors, underPrefix } from "../_fixtures.ts";

/** The reference adds the noise of its box, uniform in [0, 1), scaled. */
function centered({ data, shape }: AnyTensor): Tensor {
  return tensor(
    Float32Array.from(data as Float32Array, (u) => 2 * u - 1),
    shape,
  );
}

const tensors = await readTensors("ops");
const { cases } = await readDescription<{
  readonly cases: Readonly<
    Record<string, { readonly attributes: Readonly<Record<string, number>> }>
  >;
}>("ops");

for (const norm of ["l2", "linf"] as const) {
  for (const op of ["project", "step", "random_start"] as const) {
    const name = `${op}_${norm}`;
    Deno.test(`${name} has PyTorch's values`, async () => {
      const given = underPrefix(tensors, `${name}/in`);
      const { eps = 0, step_size = 0 } = cases[name].attributes;
      const x = input("x", given.x.shape);
      const other = input("other", x.shape);
      const length = input("length", []);
      const ball = BALLS[norm];
      const [y, fed, value] = op === "project"
        ? [ball.project(x, other, length), given.x0, eps]
        : op === "step"
        ? [ball.step(x, other, length), given.g, step_size]
        : [
          ball.randomStart(x, other, length),
          given.noise ?? centered(given.uniform),
          eps,
        ];
      const feeds = { x: given.x, other: fed, length: tensor([value], []) };
      const found = await evaluate({ y }, feeds);
      assertAllClose(found.y, tensors[`${name}/out/y`], { tolerance: 1e-5 });
    });
  }
}

const IMAGE = [3, 4, 4] as const;
const SIZE = sizeOf(IMAGE);
/** Images in a batch of random cases. */
const COUNT = 64;

/** One operation of a ball, compiled for `count` images. */
async function operation(
  norm: Norm,
  op: "project" | "step" | "randomStart",
  count = COUNT,
): Promise<(a: Tensor, b: Tensor, length: number) => Promise<Tensor>> {
  const a = input("a", [count, ...IMAGE]);
  const b = input("b", a.shape);
  const program: Program = await compile(
    { y: BALLS[norm][op](a, b, input("length", [])) },
    { threads: 1 },
  );
  return async (a, b, length) => {
    const feeds = { a, b, length: tensor([length], []) };
    return (await program.run(feeds)).y as Tensor;
  };
}

function l2(values: ArrayLike<number>): number {
  return Math.sqrt(Array.from(values).reduce((sum, x) => sum + x * x, 0));
}

function linf(values: ArrayLike<number>): number {
  return Math.max(...Array.from(values, Math.abs));
}

/** Differences of each image of two tensors. */
function differences(a: Tensor, b: Tensor): Float32Array[] {
  return Array.from({ length: a.shape[0] }, (_, i) => {
    const from = i * SIZE;
    return a.data.slice(from, from + SIZE).map((x, j) => x - b.data[from + j]);
  });
}

/** Images in [0, 1], a tenth of whose pixels are exactly 0 or 1. */
function drawImages(random: Random, count = COUNT): Tensor {
  const { data, shape } = random.uniformTensor([count, ...IMAGE], -0.05, 1.05);
  return tensor(data.map((x) => Math.min(1, Math.max(0, x))), shape);
}

/**
 * Gradients of all sizes, from 1e-20 to 1e16; each fourth is zero, or zero but
 * for one pixel.
 */
function drawGradients(random: Random, count = COUNT): Tensor {
  const { data, shape } = random.normal([count, ...IMAGE]);
  for (let i = 0; i < count; i++) {
    const row = data.subarray(i * SIZE, (i + 1) * SIZE);
    const scale = 10 ** random.uniform(-20, 16);
    row.forEach((x, j) => row[j] = x * scale);
    if (i % 4 === 0) row.fill(0, i % 8 === 0 ? 0 : 1);
  }
  return tensor(data, shape);
}

function add({ data, shape }: Tensor, b: Tensor): Tensor {
  return tensor(data.map((x, i) => x + b.data[i]), shape);
}

const EPSILONS = [0, 1e-6, 0.03, 0.5, 3, 1000];
const SEEDS = [0, 1, 2, 3, 4];

for (const norm of ["l2", "linf"] as const) {
  const length = norm === "l2" ? l2 : linf;

  Deno.test(`${norm} project() ends inside the ball and the box, and does so once`, async () => {
    const project = await operation(norm, "project");
    for (const seed of SEEDS) {
      const random = new Random(seed);
      const center = drawImages(random);
      const x = add(center, drawGradients(random));
      for (const epsilon of EPSILONS) {
        const y = await project(x, center, epsilon);
        assert(y.data.every((value) => value >= 0 && value <= 1));
        for (const difference of differences(y, center)) {
          assert(length(difference) <= epsilon * (1 + 1e-6) + 1e-6);
        }
        const again = await project(y, center, epsilon);
        assertAllClose(again, y, { tolerance: 1e-6 });
      }
    }
  });

  Deno.test(`${norm} project() leaves images inside the ball and the box as they are`, async () => {
    const project = await operation(norm, "project");
    const random = new Random(11);
    const center = drawImages(random);
    const x = drawImages(random);
    const far = Math.max(...differences(x, center).map(length));
    // Rounding of the difference from the centre is all that changes.
    const y = await project(x, center, far * 1.001);
    assertAllClose(y, x, { tolerance: 2e-7 });
  });

  Deno.test(`${norm} project() with epsilon 0 returns the centre`, async () => {
    const project = await operation(norm, "project");
    const random = new Random(12);
    const center = drawImages(random);
    const x = add(center, drawGradients(random));
    assertAllClose(await project(x, center, 0), center, { tolerance: 0 });
  });

  Deno.test(`${norm} step() does not move along a zero gradient, nor to NaN`, async () => {
    const step = await operation(norm, "step");
    for (const seed of SEEDS) {
      const random = new Random(seed);
      const x = drawImages(random);
      const g = drawGradients(random);
      for (const stepSize of [0.5, -0.5, 0, 1e4]) {
        const y = await step(x, g, stepSize);
        assert(y.data.every(Number.isFinite));
        differences(y, x).forEach((difference, i) => {
          if (i % 8 === 0 || stepSize === 0) assertEquals(l2(difference), 0);
        });
      }
    }
  });

  Deno.test(`${norm} step() downhill mirrors the one uphill`, async () => {
    const step = await operation(norm, "step");
    const random = new Random(13);
    const origin = tensor(new Float32Array(COUNT * SIZE), [COUNT, ...IMAGE]);
    const g = drawGradients(random);
    const up = await step(origin, g, 0.3);
    const down = await step(origin, g, -0.3);
    assertEquals(up.data, down.data.map((x) => -x + 0));
  });

  for (const op of ["project", "step", "randomStart"] as const) {
    Deno.test(`${norm} ${op}() treats each image alone as in a batch`, async () => {
      const together = await operation(norm, op);
      const alone = await operation(norm, op, 1);
      const random = new Random(14);
      const images = drawImages(random);
      const gradients = drawGradients(random);
      const [a, b] = op === "project"
        ? [add(images, gradients), images]
        : [images, gradients];
      const y = await together(a, b, 0.5);
      for (let i = 0; i < COUNT; i++) {
        const one = await alone(rows(a, i, i + 1), rows(b, i, i + 1), 0.5);
        // Reductions over one and over many images may add in another order.
        assertAllClose(rows(y, i, i + 1), one, { tolerance: 2e-7 });
      }
    });
  }

  Deno.test(`${norm} randomStart() is inside the ball and the box`, async () => {
    const start = await operation(norm, "randomStart");
    for (const seed of SEEDS) {
      const random = new Random(seed);
      const center = drawImages(random);
      const noise = BALLS[norm].noise === "normal"
        ? random.normal(center.shape)
        : random.uniformTensor(center.shape, -1, 1);
      for (const epsilon of EPSILONS) {
        const y = await start(center, noise, epsilon);
        assert(y.data.every((value) => value >= 0 && value <= 1));
        for (const difference of differences(y, center)) {
          assert(length(difference) <= epsilon * (1 + 1e-6) + 1e-6);
        }
      }
    }
  });
}

/** Images of 0.5, where a short step does not meet the box. */
const GREY = tensor(
  new Float32Array(COUNT * SIZE).fill(0.5),
  [COUNT, ...IMAGE],
);

Deno.test("l2 project() lands on the sphere, on the ray from the centre", async () => {
  const project = await operation("l2", "project");
  const random = new Random(21);
  const away = random.normal(GREY.shape);
  const y = await project(add(GREY, away), GREY, 0.4);
  const [moved, rays] = [differences(y, GREY), differences(away, full(0))];
  moved.forEach((difference, i) => {
    const norm = l2(difference);
    assert(Math.abs(norm / 0.4 - 1) < 2e-6, `found ${norm}`);
    const along = difference.reduce((sum, d, j) => sum + d * rays[i][j], 0);
    assert(Math.abs(along / (norm * l2(rays[i])) - 1) < 1e-6);
  });
});

function full(value: number): Tensor {
  return tensor(new Float32Array(COUNT * SIZE).fill(value), [COUNT, ...IMAGE]);
}

Deno.test("l2 step() has the step's length whatever the gradient's", async () => {
  const step = await operation("l2", "step");
  const random = new Random(22);
  const g = drawGradients(random);
  const y = await step(full(0), g, 0.3);
  const gradients = differences(g, full(0));
  let counted = 0;
  differences(y, full(0)).forEach((moved, i) => {
    const norm = l2(gradients[i]);
    // 1e-10 is added to the gradient's length, as in the reference code.
    if (norm === 0 || norm < 1e-4) return;
    counted++;
    assert(Math.abs(l2(moved) / 0.3 - 1) < 2e-6, `gradient of length ${norm}`);
  });
  assert(counted > COUNT / 4);
});

Deno.test("l2 step() shrinks below gradients of length 1e-10 only", async () => {
  const step = await operation("l2", "step");
  const lengths = [1e-4, 1e-8, 1e-10, 1e-12];
  const expected = lengths.map((n) => 0.3 * n / (n + 1e-10));
  const g = full(0);
  lengths.forEach((n, i) => g.data[i * SIZE] = n);
  const y = await step(full(0), g, 0.3);
  const found = lengths.map((_, i) => y.data[i * SIZE]);
  assertAllClose(tensor(found), tensor(expected), { tolerance: 1e-5 });
});

Deno.test("l2 step() gives no NaN where the square of the gradient overflows", async () => {
  const step = await operation("l2", "step");
  const y = await step(full(0.5), full(1e30), 0.3);
  assert(y.data.every(Number.isFinite));
});

Deno.test("l2 randomStart() lies on the sphere away from the box", async () => {
  const start = await operation("l2", "randomStart");
  const noise = new Random(23).normal(GREY.shape);
  for (const difference of differences(await start(GREY, noise, 0.4), GREY)) {
    assert(Math.abs(l2(difference) / 0.4 - 1) < 2e-6);
  }
});

Deno.test("linf step() moves every pixel by the step along its sign", async () => {
  const step = await operation("linf", "step");
  const g = drawGradients(new Random(24));
  const y = await step(full(0), g, 0.25);
  assertEquals(y.data, g.data.map((value) => 0.25 * Math.sign(value) + 0));
});

Deno.test("project() has the values worked out by hand", async () => {
  const x = input("x", [1, 2]);
  const center = input("center", [1, 2]);
  const epsilon = input("epsilon", []);
  const nodes = Object.fromEntries(
    NORMS.map((norm) => [norm, BALLS[norm].project(x, center, epsilon)]),
  );
  const found = await evaluate(nodes, {
    x: tensor([3.5, 4.9], [1, 2]),
    center: tensor([0.5, 0.9], [1, 2]),
    epsilon: tensor([0.25], []),
  });
  const expected = { l2: [0.65, 1], linf: [0.75, 1], unconstrained: [1, 1] };
  for (const norm of NORMS) {
    assertAllClose(found[norm], tensor(expected[norm], [1, 2]), {
      tolerance: 1e-6,
      name: norm,
    });
  }
});

Deno.test("unconstrained step() moves by the gradient itself", async () => {
  const step = await operation("unconstrained", "step");
  const g = new Random(25).normal(GREY.shape);
  const y = await step(GREY, g, -2);
  const expected = tensor(g.data.map((value) => 0.5 - 2 * value), g.shape);
  assertAllClose(y, expected, { tolerance: 1e-6 });
});
