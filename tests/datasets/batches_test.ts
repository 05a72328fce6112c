import {
  assert,
  assertEquals,
  assertNotEquals,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { Random } from "../../core/mod.ts";
import {
  augmentSmall,
  lighting,
  randomRegion,
  shiftAndFlip,
} from "../../datasets/augment.ts";
import {
  balancedSplit,
  balancedSubset,
  makeSplit,
  selectImages,
} from "../../datasets/dataset.ts";
import {
  type Batch,
  batchCount,
  batches,
  type BatchOptions,
  encodePng,
  openDataset,
  type Split,
} from "../../datasets/mod.ts";

const random = new Random(7);

async function shapes(limit: number): Promise<Split> {
  const { splits } = await openDataset("shapes", { splits: ["train"], limit });
  return splits.train;
}

async function all(split: Split, options: BatchOptions): Promise<Batch[]> {
  return await Array.fromAsync(batches(split, options));
}

/** Pixels of each image, by its index in the split. */
function byIndex(made: readonly Batch[]): Map<number, Float32Array> {
  const images = new Map<number, Float32Array>();
  for (const { images: { data }, indices } of made) {
    const length = data.length / indices.length;
    indices.forEach((index, i) =>
      images.set(index, data.slice(i * length, (i + 1) * length))
    );
  }
  return images;
}

Deno.test("batches() gives each image once, in order, as load() does", async () => {
  const split = await shapes(70);
  const made = await all(split, { batchSize: 32, random });
  assertEquals(made.map((batch) => batch.images.shape[0]), [32, 32, 6]);
  assertEquals(
    made.flatMap((batch) => [...batch.indices]),
    Array.from({ length: 70 }, (_, i) => i),
  );
  assertEquals(made[1].labels, split.labels.slice(32, 64));
  assertEquals(made[2].images, await split.load([64, 65, 66, 67, 68, 69]));
});

Deno.test("batches() drops a last batch that is smaller", async () => {
  const split = await shapes(70);
  const options = { batchSize: 32, dropLast: true, random };
  assertEquals((await all(split, options)).length, 2);
  assertEquals(batchCount(split, options), 2);
  assertEquals(batchCount(split, { batchSize: 32 }), 3);
});

Deno.test("batches() shuffles by seed and epoch", async () => {
  const split = await shapes(60);
  const orders = await Promise.all(
    [[0, 0], [0, 0], [0, 1], [1, 0]].map(async ([seed, epoch]) => {
      const made = await all(split, {
        batchSize: 20,
        order: "shuffled",
        random: new Random(seed),
        epoch,
      });
      for (const { labels, indices } of made) {
        assertEquals([...labels], [...indices].map((i) => i % 10));
      }
      return made.flatMap((batch) => [...batch.indices]);
    }),
  );
  assertEquals(orders[0], orders[1]);
  assertNotEquals(orders[0], orders[2]);
  assertNotEquals(orders[0], orders[3]);
  for (const order of orders) {
    assertEquals(
      order.toSorted((a, b) => a - b),
      Array.from({ length: 60 }, (_, i) => i),
    );
  }
});

Deno.test("batches() does not depend on workers, prefetching or batch size", async () => {
  const split = await shapes(60);
  const common = { order: "shuffled", augmentation: "reference" } as const;
  const [one, two, three] = await Promise.all([
    all(split, { ...common, random, batchSize: 16 }),
    all(split, { ...common, random, batchSize: 16, workers: 3, prefetch: 0 }),
    all(split, { ...common, random, batchSize: 60, workers: 2 }),
  ]);
  assertEquals(two, one);
  assertEquals(byIndex(three), byIndex(one));
});

Deno.test("batches() resumes with the very same batches", async () => {
  const split = await shapes(60);
  const options = {
    batchSize: 16,
    order: "shuffled",
    augmentation: "standard",
    random,
    epoch: 3,
  } as const;
  const whole = await all(split, options);
  assertEquals(await all(split, { ...options, start: 2 }), whole.slice(2));
  assertEquals(await all(split, { ...options, start: 9 }), []);
});

Deno.test("batches() makes parts and every n-th of the very same batches", async () => {
  const split = await shapes(60);
  const options = {
    batchSize: 16,
    order: "shuffled",
    augmentation: "standard",
    random,
  } as const;
  const whole = await all(split, options);
  const size = 3 * 32 * 32;
  // The last batch has 12 images.
  for (const count of [1, 3, 4]) {
    const parts = await Promise.all(
      Array.from(
        { length: count },
        (_, index) => all(split, { ...options, part: { index, count } }),
      ),
    );
    for (const [i, { images, labels, indices }] of whole.entries()) {
      const mine = parts.map((made) => made[i]);
      assertEquals(mine.flatMap((part) => [...part.indices]), [...indices]);
      assertEquals(mine.flatMap((part) => [...part.labels]), [...labels]);
      let first = 0;
      for (const { images: part } of mine) {
        const end = first + part.shape[0];
        const rows = images.data.subarray(first * size, end * size);
        assertEquals(part.data, rows);
        first = end;
      }
    }
  }
  const odd = await all(split, { ...options, start: 1, stride: 2 });
  assertEquals(odd, [whole[1], whole[3]]);
  assertEquals(await all(split, { ...options, start: 2, stride: 3 }), [
    whole[2],
  ]);
  assertEquals(await all(split, { ...options, start: 4, stride: 5 }), []);
});

Deno.test("batches() augments anew in each epoch", async () => {
  const split = await shapes(10);
  const options = { batchSize: 10, augmentation: "standard", random } as const;
  const [[first], [second]] = await Promise.all([
    all(split, options),
    all(split, { ...options, epoch: 1 }),
  ]);
  assertEquals(first.indices, second.indices);
  assertNotEquals(first.images.data, second.images.data);
});

Deno.test("augmentation crop enlarges parts of a small image, half of them mirrored", () => {
  const size = 16, plane = size * size;
  // Red grows to the right, green downwards, blue is even.
  const image = Float32Array.from({ length: 3 * plane }, (_, at) => {
    const [x, y] = [at % size, Math.floor(at / size) % size];
    return [0.3 + 0.02 * x, 0.3 + 0.02 * y, 0.5][Math.floor(at / plane)];
  });
  const scratch = new Float32Array(image.length);
  let mirrored = 0;
  for (let i = 0; i < 100; i++) {
    const data = image.slice();
    augmentSmall({ data, size }, "crop", random.stream(i), scratch);
    assert(data.every((x) => x >= 0 && x <= 1));
    const across = data[size - 1] - data[0];
    const down = data[plane + plane - size] - data[plane];
    if (across < 0) mirrored++;
    // 35% of the area and sides of 3 to 4 leave half of a side, and jitter
    // changes contrast by at most a tenth twice.
    for (const [slope, whole] of [[Math.abs(across), 0.3], [down, 0.3]]) {
      assert(slope > 0.4 * whole && slope < 1.4 * whole, `${slope}`);
    }
  }
  assert(mirrored > 30 && mirrored < 70, `${mirrored}`);
});

Deno.test("balancedSplit() keeps what opening with a limit keeps", async () => {
  const split = await shapes(70);
  const some = balancedSplit(split, 25);
  const kept = balancedSubset(split.labels, 25);
  assertEquals(some.labels, Uint32Array.from(kept, (i) => split.labels[i]));
  assertEquals(
    await some.load([...Array(25).keys()]),
    await split.load(kept),
  );
  split.close();
  assertEquals((await some.load([3])).shape, [1, 3, 32, 32]);
  const files = makeSplit({
    name: "test",
    imageShape: [3, 100, 100],
    labels: Uint32Array.of(0, 0, 0, 1),
    source: { kind: "files", paths: ["a", "b", "c", "d"] },
  });
  const { source, labels } = balancedSplit(files, 2);
  assertEquals([...labels], [0, 1]);
  assert(source.kind === "files" && source.paths[1] === "d");
  const chosen = selectImages(some, [4, 4, 0]);
  assertEquals(await chosen.load([0, 1, 2]), await some.load([4, 4, 0]));
  assertThrows(() => selectImages(some, [25]), RangeError, "load image 25");
});

Deno.test("batches() ends its workers when left early or stopped", async () => {
  // The test runner fails a test that leaves a worker behind.
  const split = await shapes(60);
  for await (const { indices } of batches(split, { batchSize: 8, random })) {
    assertEquals(indices.length, 8);
    break;
  }
  const controller = new AbortController();
  const { signal } = controller;
  await assertRejects(
    async () => {
      for await (const _ of batches(split, { batchSize: 8, random, signal })) {
        controller.abort(new Error("stopped here"));
      }
    },
    Error,
    "stopped here",
  );
});

Deno.test("batches() refuses numbers out of range", async () => {
  const split = await shapes(10);
  const cases: [Partial<BatchOptions>, string][] = [
    [
      { batchSize: 0 },
      "batch size must be an integer >= 1: current value is 0",
    ],
    [{ start: -1 }, "first batch"],
    [{ stride: 0 }, "distance between batches"],
    [{ part: { index: 2, count: 2 } }, "Cannot make part 2 of batches of 2"],
    [{ workers: 0.5 }, "number of workers"],
    [{ epoch: NaN }, "epoch"],
    [
      { augmentation: "strong" as "standard" },
      `"strong": give one of none, standard, reference`,
    ],
  ];
  for (const [options, message] of cases) {
    await assertRejects(
      () => all(split, { batchSize: 2, random, ...options }),
      RangeError,
      message,
    );
  }
});

Deno.test("a closed split says so", async () => {
  const split = await shapes(10);
  split.close();
  await assertRejects(() => split.load([0]), RangeError, "closed");
  await assertRejects(
    () => all(split, { batchSize: 2, random }),
    RangeError,
    "closed",
  );
});

Deno.test("batches() decodes files, any number of workers alike", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const paths = await Promise.all([0, 1, 2, 3, 4].map(async (i) => {
      const path = `${folder}/${i}.png`;
      const image = new Random(i).uniformTensor([3, 80, 100 + i]);
      await Deno.writeFile(path, await encodePng(image));
      return path;
    }));
    const imageShape = [3, 72, 72] as const;
    const labels = Uint32Array.of(0, 1, 0, 1, 0);
    const source = { kind: "files", paths } as const;
    const split = makeSplit({ name: "test", imageShape, labels, source });
    const plain = await all(split, { batchSize: 3, random, workers: 2 });
    assertEquals(plain[0].images, await split.load([0, 1, 2]));
    const augmentation = "standard" as const;
    const [one, two] = await Promise.all(
      [1, 2].map((workers) =>
        all(split, { batchSize: 3, random, augmentation, workers })
      ),
    );
    assertEquals(one, two);
    assertNotEquals(one[0].images.data, plain[0].images.data);
    for (const { images } of one) {
      assert(images.data.every((v) => v >= 0 && v <= 1));
    }

    await Deno.writeTextFile(paths[1], "not an image");
    const reason = `Cannot decode "${paths[1]}" as it is neither PNG nor ` +
      `JPEG: convert it first`;
    for (const workers of [1, 2]) {
      const warnings: string[] = [];
      const onWarning = (message: string) => warnings.push(message);
      const options = { batchSize: 2, random, workers, onWarning };
      const kept = await all(split, options);
      assertEquals(kept.map(({ indices }) => [...indices]), [[0], [2, 3], [4]]);
      assertEquals(kept.map(({ labels }) => [...labels]), [[0], [0, 1], [0]]);
      assertEquals(kept[0].images, await split.load([0]));
      assertEquals(kept[1].images, await split.load([2, 3]));
      const full = await all(split, { ...options, dropLast: true });
      assertEquals(full.map(({ indices }) => [...indices]), [[0, 0], [2, 3]]);
      assertEquals(full[0].images, await split.load([0, 0]));
      const count = "Left out 1 of 5 images of the test split";
      assertEquals(warnings, [reason, count, reason, count]);
    }
    await assertRejects(
      () =>
        all(split, { batchSize: 1, random, dropLast: true, onWarning() {} }),
      Error,
      `none of its 1 images can be decoded: ${reason}`,
    );
    await assertRejects(
      () => all(split, { batchSize: 5, random, workers: 2 }),
      Error,
      `Cannot decode "${paths[1]}" as it is neither PNG nor JPEG`,
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("shiftAndFlip() equals cropping the padded image", () => {
  // One channel pattern repeated: value = 10 * row + column + 1.
  const plane = [1, 2, 3, 11, 12, 13, 21, 22, 23];
  const data = Float32Array.from([...plane, ...plane, ...plane]);
  const scratch = new Float32Array(27);
  shiftAndFlip({ data, size: 3 }, { dx: 1, dy: -1, flipped: false }, scratch);
  assertEquals([...data.slice(9, 18)], [0, 0, 0, 2, 3, 0, 12, 13, 0]);
  shiftAndFlip({ data, size: 3 }, { dx: 0, dy: 0, flipped: true }, scratch);
  assertEquals([...data.slice(0, 9)], [0, 0, 0, 0, 3, 2, 0, 13, 12]);
});

Deno.test("augmentSmall() moves at most size / 8 pixels and flips half", () => {
  // One lit pixel in the middle tells where it went.
  const size = 32;
  const counts = new Map<number, number>();
  for (let i = 0; i < 2000; i++) {
    const data = new Float32Array(3 * size * size);
    data[16 * size + 10] = 1;
    const scratch = new Float32Array(data.length);
    augmentSmall({ data, size }, "standard", new Random(i), scratch);
    const at = data.indexOf(1);
    const [x, y] = [at % size, Math.floor(at / size)];
    assert(Math.abs(y - 16) <= 4);
    assert(Math.abs(x - 10) <= 4 || Math.abs(x - 21) <= 4);
    const key = x < 16 ? 0 : 1;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  // Four standard deviations of a fair coin over 2000 throws are 89.
  assert(Math.abs(counts.get(0)! - 1000) < 90);
});

Deno.test("randomRegion() stays inside, with the area and ratio asked for", () => {
  const random = new Random(0);
  for (let i = 0; i < 2000; i++) {
    const { top, left, height, width } = randomRegion(300, 400, random);
    assert(top >= 0 && left >= 0 && top + height <= 300 && left + width <= 400);
    const area = height * width / (300 * 400);
    assert(area > 0.078 && area <= 1, `${area}`);
    assert(width / height > 0.73 && width / height < 1.36);
  }
  // No region of a strip has such a ratio, so the middle is taken.
  assertEquals(randomRegion(10, 1000, random), {
    top: 0,
    left: 493,
    height: 10,
    width: 13,
  });
});

Deno.test("lighting() shifts all pixels by one colour", () => {
  const data = new Float32Array(12).fill(0.5);
  lighting(data, 0.05, new Random(1));
  for (let c = 0; c < 3; c++) {
    assertEquals(new Set(data.slice(4 * c, 4 * c + 4)).size, 1);
  }
  assertNotEquals(data[0], 0.5);
  assert(Math.abs(data[0] - 0.5) < 0.05);
});

Deno.test("balancedSubset() takes the classes in turn; prefixes agree", () => {
  const labels = Uint32Array.from({ length: 50 }, (_, i) => Math.floor(i / 20));
  const kept = balancedSubset(labels, 12);
  assertEquals([...kept].map((i) => labels[i]), [
    ...[0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2],
  ]);
  assertEquals(new Set(kept).size, 12);
  assertEquals(balancedSubset(labels, 5), kept.slice(0, 5));
  assertEquals(
    balancedSubset(labels, 99),
    Uint32Array.from({ length: 50 }, (_, i) => i),
  );
  // A class that runs out leaves its turns to the others.
  assertEquals(balancedSubset(labels, 49).length, 49);
});
