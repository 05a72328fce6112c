import {
  assert,
  assertEquals,
  assertNotEquals,
  assertThrows,
} from "@std/assert";
import { philox, Random } from "../../core/random.ts";
import { CHUNK, randomKernels } from "../../core/random_kernels.ts";

/** Counter, key, block: Random123's known answers for philox4x32-10. */
const KNOWN_ANSWERS: readonly [number[], number[], number[]][] = [
  [
    [0, 0, 0, 0],
    [0, 0],
    [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
  ],
  [
    [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    [0xffffffff, 0xffffffff],
    [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  ],
  [
    [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    [0xa4093822, 0x299f31d0],
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  ],
];

for (const [counter, key, block] of KNOWN_ANSWERS) {
  Deno.test(`philox() at ${counter} gives the known answer`, () => {
    const out = new Uint32Array(4);
    philox(counter, key, out);
    assertEquals([...out], block);
  });
}

for (const [counter, key, block] of KNOWN_ANSWERS) {
  Deno.test(`the kernel of philox() at ${counter} gives the known answer`, () => {
    const { words, philox } = randomKernels();
    words.fill(0);
    philox(5, 1, counter, key);
    assertEquals([...words.subarray(4, 9)], [0, ...block]);
  });
}

/** Normal values made of uniform ones, one by one. */
function boxMuller(random: Random, count: number): Float32Array {
  const values = new Float32Array(count + count % 2);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - random.uniform()));
    const angle = 2 * Math.PI * random.uniform();
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return values.subarray(0, count);
}

Deno.test("Random draws in bulk what it draws one by one", () => {
  for (const drawn of [0, 1, 2, 3, 4]) {
    for (const size of [1, 2, 3, 5, 16, CHUNK, 2 * CHUNK + 7]) {
      const [random, other] = [new Random(1, ["x"]), new Random(1, ["x"])];
      for (let i = 0; i < drawn; i++) {
        assertEquals(random.uint32(), other.uint32());
      }
      const { data } = random.uniformTensor([size], -1, 3);
      const expected = Float32Array.from(data, () => other.uniform(-1, 3));
      assertEquals(data.findIndex((x, i) => x !== expected[i]), -1);
      assertEquals(random.uint32(), other.uint32());
      const normal = random.normal([size]).data;
      assertEquals(normal, boxMuller(other, size));
      assertEquals(random.uint32(), other.uint32());
    }
  }
});

Deno.test("Random draws in bulk where the counter's first word overflows", () => {
  const [random, other] = [new Random(1, ["x"]), new Random(1, ["x"])];
  for (const stream of [random, other]) stream.skip(4 * (2 ** 32 - 3));
  const { data } = random.uniformTensor([2 * CHUNK]);
  const expected = Float32Array.from(data, () => other.uniform());
  assertEquals(data.findIndex((x, i) => x !== expected[i]), -1);
});

/** Mean, variance and fourth central moment over the squared variance. */
function moments(values: Float32Array): [number, number, number] {
  const n = values.length;
  const mean = values.reduce((sum, x) => sum + x / n, 0);
  const central = (power: number) =>
    values.reduce((sum, x) => sum + (x - mean) ** power / n, 0);
  return [mean, central(2), central(4) / central(2) ** 2];
}

function assertNear(actual: number, expected: number, tolerance: number): void {
  assert(
    Math.abs(actual - expected) <= tolerance,
    `Expected ${actual} to be within ${tolerance} of ${expected}`,
  );
}

Deno.test("Random gives the same numbers for the same seed and path", () => {
  const first = new Random(7).stream("attack", 3).normal([5]);
  const second = new Random(7, ["attack", 3]).normal([5]);
  assertEquals(first.data, second.data);
});

Deno.test("Random gives other numbers for another seed or path", () => {
  const streams = [
    new Random(0),
    new Random(1),
    new Random(0xffffffff),
    new Random(0).stream(""),
    new Random(0).stream("a"),
    new Random(0).stream("a", "b"),
    new Random(0).stream("b", "a"),
    new Random(0).stream("ab"),
    new Random(0).stream(1),
    new Random(0).stream("1"),
    new Random(0).stream(1, 0),
  ];
  const first = streams.map((random) => random.uint32());
  assertEquals(new Set(first).size, streams.length);
});

Deno.test("Random.stream() is not moved by numbers drawn before", () => {
  const random = new Random(3);
  const before = random.stream("x").uint32();
  random.normal([101]);
  assertEquals(random.stream("x").uint32(), before);
});

Deno.test("Random.skip() leaves out the numbers that would have come", () => {
  for (const drawn of [0, 1, 3, 4, 9]) {
    for (const skipped of [0, 1, 2, 3, 4, 5, 8, 1001]) {
      const [random, other] = [new Random(1, ["x"]), new Random(1, ["x"])];
      for (let i = 0; i < drawn; i++) {
        assertEquals(random.uint32(), other.uint32());
      }
      for (let i = 0; i < skipped; i++) random.uint32();
      other.skip(skipped);
      for (let i = 0; i < 9; i++) {
        assertEquals(other.uint32(), random.uint32());
      }
    }
  }
});

Deno.test("Random streams of neighbouring names are uncorrelated", () => {
  const n = 20_000;
  const draw = (step: number) =>
    new Random(0).stream("s", step).normal([n]).data;
  const reference = draw(0);
  for (const step of [1, 2, 3]) {
    const other = draw(step);
    const product = reference.reduce((sum, x, i) => sum + x * other[i] / n, 0);
    assertNear(product, 0, 5 / Math.sqrt(n));
  }
});

Deno.test("Random streams do not collide among 200,000 paths", () => {
  const seen = new Set<string>();
  for (let epoch = 0; epoch < 20; epoch++) {
    for (let step = 0; step < 10_000; step++) {
      const random = new Random(0, ["attack", epoch, step]);
      seen.add(`${random.uint32()} ${random.uint32()}`);
    }
  }
  assertEquals(seen.size, 200_000);
});

Deno.test("Random does not repeat itself from block to block", () => {
  const random = new Random(0);
  const words = Array.from({ length: 40_000 }, () => random.uint32());
  // About n^2 / 2^33 = 0.2 pairs are expected by chance.
  assert(new Set(words).size >= words.length - 4);
});

Deno.test("Random.normal() has the moments of a standard normal", () => {
  const n = 200_000;
  const [mean, variance, kurtosis] = moments(new Random(0).normal([n]).data);
  assertNear(mean, 0, 5 / Math.sqrt(n));
  assertNear(variance, 1, 5 * Math.sqrt(2 / n));
  assertNear(kurtosis, 3, 5 * Math.sqrt(24 / n));
});

Deno.test("Random.normal() is Box and Muller's to the last bit of a float", () => {
  const n = 1_000_000;
  const { data } = new Random(5).normal([n]);
  const expected = boxMuller(new Random(5), n);
  assertEquals(data.findIndex((x, i) => x !== expected[i]), -1);
});

Deno.test("Random.normal() fills odd sizes, scalars and nothing", () => {
  assertEquals(new Random(0).normal([3]).shape, [3]);
  assert(new Random(0).normal([3]).data.every((x) => x !== 0));
  assertEquals(new Random(0).normal([]).data.length, 1);
  assertEquals(new Random(0).normal([0, 4]).data.length, 0);
});

Deno.test("Random.uniformTensor() has the moments of its interval", () => {
  const n = 100_000;
  const { data } = new Random(0).uniformTensor([n], -1, 3);
  const [mean, variance, kurtosis] = moments(data);
  assertNear(mean, 1, 5 * Math.sqrt(16 / 12 / n));
  assertNear(variance, 16 / 12, 0.02);
  assertNear(kurtosis, 1.8, 0.03);
  assert(data.every((x) => x >= -1 && x <= 3));
});

Deno.test("Random.uniform() stays below its upper end", () => {
  const random = new Random(0);
  for (let i = 0; i < 10_000; i++) {
    const x = random.uniform();
    assert(x >= 0 && x < 1);
  }
});

Deno.test("Random.integer() is unbiased", () => {
  const random = new Random(0);
  const [limit, n] = [7, 70_000];
  const counts = Array(limit).fill(0);
  for (let i = 0; i < n; i++) counts[random.integer(limit)]++;
  const expected = n / limit;
  const chiSquared = counts.reduce(
    (sum, count) => sum + (count - expected) ** 2 / expected,
    0,
  );
  // The 99.9th percentile for 6 degrees of freedom.
  assert(chiSquared < 22.5, `Expected chi squared < 22.5, found ${chiSquared}`);
});

Deno.test("Random.integer() is unbiased where most words are rejected", () => {
  const random = new Random(0);
  const limit = 3 * 2 ** 30;
  const n = 30_000;
  let low = 0;
  for (let i = 0; i < n; i++) if (random.integer(limit) < 2 ** 30) low++;
  // A remainder of 32-bit words would give half instead of a third.
  assertNear(low / n, 1 / 3, 5 * Math.sqrt(2 / 9 / n));
});

Deno.test("Random.integer() reaches its ends", () => {
  const random = new Random(0);
  assertEquals(random.integer(1), 0);
  assert(random.integer(2 ** 32) < 2 ** 32);
});

Deno.test("Random.permutation() names every index once", () => {
  const order = new Random(0).permutation(1000);
  assertEquals([...order].sort((a, b) => a - b), [...Array(1000).keys()]);
  assertNotEquals([...order], [...Array(1000).keys()]);
  assertEquals(new Random(0).permutation(0).length, 0);
  assertEquals([...new Random(0).permutation(1)], [0]);
});

Deno.test("Random.permutation() makes each order equally likely", () => {
  const random = new Random(0);
  const counts = new Map<string, number>();
  const n = 12_000;
  for (let i = 0; i < n; i++) {
    const key = random.permutation(3).join();
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  assertEquals(counts.size, 6);
  for (const count of counts.values()) {
    assertNear(count, n / 6, 5 * Math.sqrt(n * 5 / 36));
  }
});

Deno.test("Random refuses seeds and limits out of range", () => {
  for (const seed of [-1, 0.5, 2 ** 32, NaN]) {
    assertEquals(
      assertThrows(() => new Random(seed), RangeError).message,
      `Cannot seed the generator with ${seed}: ` +
        "give an integer from 0 to 4294967295",
    );
  }
  for (const limit of [0, -3, 1.5, 2 ** 32 + 1, NaN]) {
    assertEquals(
      assertThrows(() => new Random(0).integer(limit), RangeError).message,
      `Cannot draw an integer below ${limit}: give 1 to 4294967296`,
    );
  }
});
