import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertLess,
  assertRejects,
} from "@std/assert";
import { Random } from "../../core/mod.ts";
import { encodeCheckpoint } from "../../models/mod.ts";
import { noiseSeeds } from "../../scripts/_images.ts";
import { Engine } from "../../web/engine/engine.ts";
import type { Task } from "../../web/engine/protocol.ts";
import {
  computeKnown,
  KNOWN,
  selfTest,
  TOLERANCE,
} from "../../web/engine/self_test.ts";
import { TINY, tinyParameters } from "./_site.ts";

const SIZE = TINY.imageSize;

async function openEngine(): Promise<Engine> {
  const engine = new Engine({ threads: 1 });
  for (const seed of [0, 1]) {
    const bytes = await encodeCheckpoint({
      card: TINY,
      tensors: tinyParameters(seed),
    });
    assertEquals(await engine.load(`tiny-${seed}`, bytes), 32);
  }
  return engine;
}

function task(fields: Partial<Task>): Task {
  const random = new Random(3);
  const pictures = ["a", "b"].map((name) =>
    new Float32Array(
      random.stream(name).uniformTensor([3, SIZE, SIZE]).data,
    )
  );
  return {
    mode: "invert",
    models: ["tiny-0"],
    pictures,
    size: SIZE,
    start: "noise",
    seed: 7,
    coordinate: 5,
    frames: 4,
    stepSize: 0.1,
    radius: 1000,
    ...fields,
  };
}

Deno.test("the self-test's values are those of the CPU provider", async () => {
  const found = await computeKnown({ threads: 1 });
  assertEquals(found.length, KNOWN.length);
  for (const [i, value] of KNOWN.entries()) {
    assertAlmostEquals(found[i], value, 1e-5);
  }
  assertLess(await selfTest({ threads: 1 }), TOLERANCE);
});

Deno.test("Engine inverts from the noise of scripts/invert.ts, in parts as at once", async () => {
  const engine = await openEngine();
  const [start] = await engine.start(task({ models: ["tiny-0", "tiny-1"] }));
  const noise = noiseSeeds([1, 3, SIZE, SIZE], new Random(7));
  const shown = new Uint8ClampedArray([255 * noise.data[0]]);
  assertEquals(start.pixels[0][0], shown[0]);
  assertEquals(engine.count, 2);
  const losses: number[] = [];
  for (const steps of [1, 4, 7]) {
    const [first] = await engine.advance(steps);
    losses.push(...first.curve.map(({ losses }) => losses[0]));
    assertEquals(first.curve.at(-1)!.step, first.step);
  }
  const other = await openEngine();
  await other.start(task({}));
  const [once] = await other.advance(12);
  assertEquals(once.curve.map(({ step }) => step), [...Array(13).keys()]);
  for (const [i, { losses: [loss] }] of once.curve.entries()) {
    assertAlmostEquals(losses[i], loss, 1e-5);
  }
  assertLess(losses.at(-1)!, losses[0]);
  await engine.release();
  await other.release();
});

Deno.test("Engine keeps within the radius", async () => {
  const engine = await openEngine();
  await engine.start(task({ radius: 0.3 }));
  await engine.advance(3);
  const [{ moved }] = await engine.advance(7);
  assertLess(moved[0], 0.3 + 1e-4);
  engine.steer({ stepSize: 0.1, radius: 0.05 });
  const [after] = await engine.advance(1);
  assertLess(after.moved[0], 0.05 + 1e-4);
  await engine.release();
});

Deno.test("Engine interpolates all frames at once", async () => {
  const engine = await openEngine();
  const before = await engine.start(task({ mode: "interpolate" }));
  assertEquals(before[0].pixels.length, 4);
  const [{ curve, predictions }] = await engine.advance(5);
  assertEquals(predictions.length, 4);
  const [first, last] = [curve[0], curve.at(-1)!].map(({ losses }) => losses);
  // The ends are what they should be; between them distances fall.
  assertLess(last[1] + last[2], first[1] + first[2]);
  await engine.release();
});

/** A feature that does not begin at 0: untrained networks have dead ones. */
async function alive(engine: Engine, fields: Partial<Task>) {
  for (let coordinate = 0; coordinate < 32; coordinate++) {
    const asked = task({ ...fields, coordinate });
    await engine.start(asked);
    const [{ curve: [{ losses: [value] }] }] = await engine.advance(1);
    if (value > 0) return asked;
  }
  throw new Error("All features are dead");
}

Deno.test("Engine raises a feature, from noise, another picture, or in one", async () => {
  for (
    const fields of [
      { mode: "visualize", start: "noise" },
      { mode: "visualize", start: "picture" },
      { mode: "add" },
    ] as const
  ) {
    const engine = await openEngine();
    const { coordinate } = await alive(engine, fields);
    await engine.start(task({ ...fields, coordinate }));
    const [{ curve, rank }] = await engine.advance(10);
    const [first, last] = [curve[0], curve.at(-1)!].map(({ losses }) => losses);
    assertLess(first[0], last[0]);
    assert(rank !== null && rank >= 1 && rank <= 32);
    await engine.release();
  }
});

Deno.test("Engine refuses networks that are not loaded", async () => {
  const engine = new Engine({});
  await assertRejects(
    () => engine.start(task({ models: ["none"] })),
    Error,
    `"none" is not loaded`,
  );
});
