import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertLess,
  assertRejects,
} from "@std/assert";
import {
  drawShape,
  openDataset,
  SHAPE_NAMES,
  shapePattern,
  SHAPES,
} from "../../datasets/mod.ts";

const PIXELS = 3 * 32 * 32;
const classes = SHAPE_NAMES.map((_, label) => label);
const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

Deno.test("shapePattern() has the length stated and is orthogonal to others", () => {
  const patterns = classes.map((label) => shapePattern(label));
  for (const a of classes) {
    for (const b of classes) {
      const expected = a === b ? SHAPES.patternLength ** 2 : 0;
      assertAlmostEquals(dot(patterns[a], patterns[b]), expected, 1e-7);
    }
  }
  // Exchanging the pattern for another class's is within the demo's threat.
  assertLess(SHAPES.patternLength * Math.SQRT2, 2);
});

Deno.test("shapePattern() stays apart from other classes when moved or mirrored", () => {
  for (const a of classes) {
    const pattern = shapePattern(a);
    const moved = pattern.map((_, i) => {
      const x = i % 32, y = (i >> 5) % 32, c = i >> 10;
      return pattern[c * 1024 + (y + 3) % 32 * 32 + (31 - x + 1) % 32];
    });
    for (const b of classes) {
      if (a !== b) assertAlmostEquals(dot(moved, shapePattern(b)), 0, 1e-7);
    }
  }
});

for (const split of ["train", "test"] as const) {
  Deno.test(`drawShape() adds the pattern of its class to ${split} images`, () => {
    const count = 500;
    const patterns = classes.map((label) => shapePattern(label));
    let right = 0;
    for (let i = 0; i < count; i++) {
      const { pixels, label } = drawShape(split, i);
      // The pattern found by correlation, the noise and the shape being in the
      // way: the nearest of the ten by inner product.
      const found = patterns.map((p) => dot(pixels, p) / 255);
      if (found.indexOf(Math.max(...found)) === label) right++;
    }
    assertGreater(right / count, 0.99);
  });
}

Deno.test("drawShape() makes shapes that no small perturbation removes", () => {
  // Between the shape and the background just around it, per image: the
  // spread of pixel colours bounds how far the image is from a plain one.
  let least = Infinity;
  for (let i = 0; i < 500; i++) {
    const { pixels } = drawShape("test", i);
    let squares = 0;
    for (let c = 0; c < 3; c++) {
      const plane = Float64Array.from(
        pixels.subarray(c * 1024, (c + 1) * 1024),
        (v) => v / 255,
      );
      const mean = plane.reduce((sum, v) => sum + v, 0) / 1024;
      squares += plane.reduce((sum, v) => sum + (v - mean) ** 2, 0);
    }
    least = Math.min(least, Math.sqrt(squares));
  }
  assertGreater(least, 3);
});

Deno.test("drawShape() depends only on split, index and size", () => {
  const first = drawShape("train", 12);
  drawShape("train", 13, 48);
  assertEquals(drawShape("train", 12), first);
  assert(drawShape("test", 12).pixels.some((v, i) => v !== first.pixels[i]));
  assertEquals(drawShape("train", 12, 48).pixels.length, 3 * 48 * 48);
});

Deno.test("openDataset() draws shapes, a limit keeping a balanced prefix", async () => {
  const { splits, classes, imageShape, mean, std } = await openDataset(
    "shapes",
    { splits: ["train", "test"], limit: 1100 },
  );
  assertEquals(classes.length, 10);
  assertEquals(imageShape, [3, 32, 32]);
  assertEquals([splits.train.size, splits.test.size], [1100, 1100]);
  const counts = new Array(10).fill(0);
  for (const label of splits.train.labels.subarray(0, 100)) counts[label]++;
  assertEquals(counts, new Array(10).fill(10));
  const { data, shape } = await splits.train.load([1099, 3]);
  assertEquals(shape, [2, 3, 32, 32]);
  assertEquals(
    Uint8Array.from(data, (v) => Math.round(v * 255)).subarray(0, PIXELS),
    drawShape("train", 1099).pixels,
  );
  // Mean and deviation of each channel, stated for the model's normalization.
  assert(splits.train.source.kind === "packed");
  const { pixels } = splits.train.source;
  for (const c of [0, 1, 2]) {
    const channel = Float64Array.from(
      pixels.filter((_, i) => (i >> 10) % 3 === c),
      (v) => v / 255,
    );
    const average = channel.reduce((sum, v) => sum + v, 0) / channel.length;
    const squares = channel.reduce((sum, v) => sum + (v - average) ** 2, 0);
    assertAlmostEquals(average, mean[c], 0.01);
    assertAlmostEquals(Math.sqrt(squares / channel.length), std[c], 0.01);
  }
});

Deno.test("openDataset() refuses what it cannot draw", async () => {
  const splits = ["test"] as const;
  await assertRejects(
    () => openDataset("shape", { splits }),
    RangeError,
    `Cannot open data set "shape": known ones are shapes, cifar10, ` +
      `restricted_imagenet, imagenet, image_folder`,
  );
  await assertRejects(
    () => openDataset("constructor", { splits }),
    RangeError,
  );
  await assertRejects(
    () => openDataset("shapes", { splits, size: 33 }),
    RangeError,
    "size 33",
  );
  await assertRejects(
    () => openDataset("shapes", { splits, limit: 0 }),
    RangeError,
    "to 0 images",
  );
});

Deno.test("openDataset() stops when its signal says so", async () => {
  const controller = new AbortController();
  const opening = openDataset("shapes", {
    splits: ["train"],
    signal: controller.signal,
    onProgress: () => controller.abort(),
  });
  await assertRejects(() => opening, DOMException, "aborted");
});
