import {
  assert,
  assertEquals,
  assertLess,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { Random, type Tensor, tensor } from "../../core/mod.ts";
import {
  adjustBrightness,
  adjustContrast,
  adjustSaturation,
  rotate,
} from "../../datasets/augment.ts";
import {
  centreCrop,
  decodeImage,
  encodePng,
  fitImage,
  montage,
  readImage,
  resize,
} from "../../datasets/mod.ts";
import { resizeRegion } from "../../datasets/resize.ts";
import golden from "./_golden.ts";

type Rows = readonly (readonly (readonly number[])[])[];

/** Rows of bytes to an image `[3, h, w]`. */
function fromRows(rows: Rows): Tensor {
  const data = [0, 1, 2].flatMap((c) =>
    rows.flatMap((row) => row.map((pixel) => pixel[c] / 255))
  );
  return tensor(data, [3, rows.length, rows[0].length]);
}

/** Largest difference, in steps of a byte. */
function largestDifference(a: Tensor, b: Tensor): number {
  assertEquals(a.shape, b.shape);
  return 255 *
    a.data.reduce((most, v, i) => Math.max(most, Math.abs(v - b.data[i])), 0);
}

const fromBase64 = (text: string) =>
  Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

for (const [name, { file, pixels }] of Object.entries(golden.png)) {
  Deno.test(`decodeImage() reads a PNG file of kind ${name} as Pillow`, async () => {
    const image = await decodeImage(fromBase64(file));
    // Pillow rounds to bytes when it composites.
    const tolerance = name === "transparent" ? 0.51 : 1e-4;
    assertLess(largestDifference(image, fromRows(pixels)), tolerance);
  });
}

for (const [name, { file, pixels }] of Object.entries(golden.jpeg)) {
  Deno.test(`decodeImage() reads a JPEG file of kind ${name} as Pillow`, async () => {
    const image = await decodeImage(fromBase64(file));
    // Inverse transform and colour conversion round differently.
    assertLess(largestDifference(image, fromRows(pixels)), 3.01);
  });
}

Deno.test("encodePng() and decodeImage() round trip every byte", async () => {
  const random = new Random(0);
  const data = Float32Array.from(
    { length: 3 * 37 * 53 },
    () => random.integer(256) / 255,
  );
  const image = tensor(data, [3, 37, 53]);
  assertEquals(await decodeImage(await encodePng(image)), image);
});

Deno.test("encodePng() clamps and rounds", async () => {
  const image = tensor([-1, 2, 0.5, NaN, 0.1, 1], [3, 1, 2]);
  const { data } = await decodeImage(await encodePng(image));
  assertEquals(
    Array.from(data, (v) => Math.round(v * 255)),
    [0, 255, 128, 0, 26, 255],
  );
});

Deno.test("encodePng() refuses what is no image", async () => {
  await assertRejects(
    () => encodePng(tensor([0, 0], [1, 1, 2])),
    TypeError,
    "[1,1,2]",
  );
});

Deno.test("decodeImage() names the image it cannot decode", async (t) => {
  const png = fromBase64(golden.png.colour.file);
  const jpeg = fromBase64(golden.jpeg.colour.file);
  const huge = png.slice();
  new DataView(huge.buffer).setUint32(16, 100_000);
  new DataView(huge.buffer).setUint32(20, 1_000);
  const empty = png.slice();
  new DataView(empty.buffer).setUint32(16, 0);
  const flipped = png.slice();
  flipped[60] ^= 1;
  const cases: Record<string, [Uint8Array, string]> = {
    "no bytes": [new Uint8Array(), "it is empty"],
    "text": [new TextEncoder().encode("hello"), "neither PNG nor JPEG"],
    "too many pixels": [huge, "100000 x 1000 pixels"],
    "no pixels": [empty, "0 x 5 pixels"],
    "half a PNG file": [png.subarray(0, 80), "ends too early"],
    "a PNG header": [png.subarray(0, 20), "ends within its header"],
    "a flipped bit": [flipped, "checksum of its IDAT chunk is wrong"],
    "half a JPEG file": [jpeg.subarray(0, 100), "ends before its pixels"],
    "a JPEG file without pixels": [
      jpeg.subarray(0, jpeg.length - 40),
      "end too early",
    ],
    "a JPEG marker": [jpeg.subarray(0, 4), "ends before its pixels"],
  };
  for (const [name, [bytes, reason]] of Object.entries(cases)) {
    await t.step(name, async () => {
      const error = await assertRejects(
        () => decodeImage(bytes, { name: `"a.png"` }),
        SyntaxError,
        reason,
      );
      assert(error.message.startsWith(`Cannot decode "a.png" as `));
    });
  }
  await t.step("and decodes the next one", async () => {
    await decodeImage(jpeg);
  });
});

Deno.test("decodeImage() survives any damaged JPEG file", async () => {
  const jpeg = fromBase64(golden.jpeg.progressive.file);
  const random = new Random(1);
  for (let i = 0; i < 300; i++) {
    const bytes = jpeg.slice();
    for (let k = 0; k < 4; k++) {
      bytes[20 + random.integer(bytes.length - 20)] = random.integer(256);
    }
    try {
      await decodeImage(bytes);
    } catch (error) {
      assert(error instanceof SyntaxError, String(error));
    }
  }
});

Deno.test("readImage() names a missing file", async () => {
  await assertRejects(
    () => readImage("no/such.png"),
    Deno.errors.NotFound,
    `Cannot read image "no/such.png"`,
  );
});

for (const { height, width, pixels } of golden.resized) {
  Deno.test(`resize() to ${height} x ${width} equals Pillow's`, () => {
    const made = resize(fromRows(golden.image), { height, width });
    // Pillow rounds to bytes after each of its two passes.
    assertLess(largestDifference(made, fromRows(pixels)), 1.1);
  });
}

Deno.test("resize() keeps a constant image constant", () => {
  const flat = tensor(new Float32Array(3 * 11 * 17).fill(0.3), [3, 11, 17]);
  for (const [height, width] of [[4, 40], [40, 4], [1, 1], [11, 5]]) {
    const { data } = resize(flat, { height, width });
    assert(data.every((v) => Math.abs(v - 0.3) < 1e-6));
  }
});

Deno.test("resizeRegion() makes the window a crop of the whole would", () => {
  const image = new Random(0).uniformTensor([3, 31, 47]);
  const all = { top: 0, left: 0, height: 31, width: 47 };
  const size = { height: 20, width: 30 };
  const window = { top: 4, left: 7, height: 11, width: 9 };
  const made = resizeRegion(image, all, size, window);
  const cut = resizeRegion(resizeRegion(image, all, size), window, {
    height: 11,
    width: 9,
  });
  assertLess(largestDifference(made, cut), 1e-3);
});

Deno.test("centreCrop() rounds half to even, as torchvision", () => {
  const image = tensor(
    Float32Array.from({ length: 3 * 5 * 7 }, (_, i) => i),
    [3, 5, 7],
  );
  // (5 - 2) / 2 = 1.5 rounds to 2; (7 - 2) / 2 = 2.5 rounds to 2.
  assertEquals([...centreCrop(image, 2).data.slice(0, 4)], [16, 17, 23, 24]);
  assertThrows(() => centreCrop(image, 6), RangeError, "resize it first");
});

Deno.test("fitImage() takes 224 from a shorter side of 256", () => {
  // A ramp: the value tells the column it came from.
  const row = Float32Array.from({ length: 512 }, (_, x) => x / 512);
  const data = new Float32Array(3 * 512 * 512);
  for (let y = 0; y < 3 * 512; y++) data.set(row, y * 512);
  const image = fitImage(tensor(data, [3, 512, 512]), 224);
  assertEquals(image.shape, [3, 224, 224]);
  // Output column 0 is column 16 of 256, the mean near column 32.5 of 512.
  assertLess(Math.abs(image.data[0] * 512 - 32.5), 0.01);
  assertEquals(fitImage(image, 32).shape, [3, 32, 32]);
});

Deno.test("rotate() equals Pillow's", () => {
  const image = fromRows(golden.block);
  const scratch = new Float32Array(image.data.length);
  rotate({ data: image.data, size: 8 }, 20, scratch);
  assertLess(largestDifference(image, fromRows(golden.rotated20)), 1e-4);
});

const ADJUSTMENTS = {
  brightness120: (data: Float32Array) => adjustBrightness(data, 1.2),
  contrast75: (data: Float32Array) => adjustContrast(data, 0.75),
  saturation125: (data: Float32Array) => adjustSaturation(data, 1.25),
} as const;

for (const [name, adjust] of Object.entries(ADJUSTMENTS)) {
  Deno.test(`colour adjustment ${name} equals Pillow's`, () => {
    const image = fromRows(golden.block);
    adjust(image.data);
    const expected = fromRows(golden[name as keyof typeof ADJUSTMENTS]);
    // Pillow truncates to bytes.
    assertLess(largestDifference(image, expected), 1.1);
  });
}

Deno.test("montage() places images, enlarged, with text around them", async () => {
  const red = tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [3, 2, 2]);
  const options = {
    title: "Title",
    columns: ["a", "b"],
    rows: [{ label: "row", images: [red, red], captions: ["c"] }],
    scale: 20,
  };
  const figure = await montage(options);
  const [, height, width] = figure.shape;
  const plane = height * width;
  let reds = 0, inks = 0;
  for (let i = 0; i < plane; i++) {
    const [r, g] = [figure.data[i], figure.data[i + plane]];
    if (r === 1 && g === 0) reds++;
    if (r < 0.2 && g < 0.2) inks++;
  }
  assertEquals(reds, 2 * 40 * 40);
  assert(inks > 50, `${inks} dark pixels`);
  const bare = await montage({ rows: [{ images: [red] }], scale: 20 });
  assertEquals(bare.shape, [3, 64, 64]);
});

Deno.test("montage() shortens text that does not fit", async () => {
  const image = new Random(0).uniformTensor([2, 3, 8, 8]);
  const [short, long] = await Promise.all(
    ["x", "averyveryverylongwordthatcannotbebroken"].map((column) =>
      montage({ columns: [column], rows: [{ images: image }] })
    ),
  );
  assertEquals(short.shape, long.shape);
});

Deno.test("montage() refuses no images and fractional scales", async () => {
  await assertRejects(() => montage({ rows: [] }), TypeError, "no images");
  const rows = [{ images: new Random(0).uniformTensor([1, 3, 8, 8]) }];
  await assertRejects(
    () => montage({ rows, scale: 1.5 }),
    RangeError,
    "scale 1.5",
  );
});
