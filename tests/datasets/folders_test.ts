import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertRejects,
} from "@std/assert";
import { full, Random } from "../../core/mod.ts";
import {
  CIFAR10_CLASSES,
  encodePng,
  openDataset,
  type Progress,
  readImage,
  RESTRICTED_IMAGENET,
} from "../../datasets/mod.ts";

/** Makes a folder with files in it, for as long as `use` takes. */
async function withFolder(
  files: Readonly<Record<string, Uint8Array | string>>,
  use: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, content] of Object.entries(files)) {
      const path = `${folder}/${name}`;
      const parent = path.slice(0, path.lastIndexOf("/"));
      await Deno.mkdir(parent, { recursive: true });
      const bytes = typeof content === "string"
        ? new TextEncoder().encode(content)
        : content;
      await Deno.writeFile(path, bytes);
    }
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const grey = (level: number, size = 32) =>
  encodePng(full([3, size, size], level / 255));

Deno.test("openDataset() opens class folders, packed if small", async () => {
  const files = {
    "train/cat/b.png": await grey(10),
    "train/cat/a.PNG": await grey(20),
    "train/ant/x.png": await grey(30),
    "train/ant/notes.txt": "not an image file, so not looked at",
    "train/.hidden/x.png": await grey(30),
    "val/bee/x.png": await grey(40),
  };
  await withFolder(files, async (data) => {
    const progress: Progress[] = [];
    const { classes, imageShape, splits } = await openDataset("folder", {
      data: `${data}\\/`,
      splits: ["train", "test"],
      onProgress: (p) => progress.push(p),
    });
    assertEquals(classes, ["ant", "bee", "cat"]);
    assertEquals(imageShape, [3, 32, 32]);
    assertEquals([...splits.train.labels], [0, 2, 2]);
    assertEquals([...splits.test.labels], [1]);
    assertEquals(splits.train.source.kind, "packed");
    const { data: pixels } = await splits.train.load([0, 1, 2]);
    assertEquals(
      [0, 3072, 6144].map((i) => Math.round(pixels[i] * 255)),
      [30, 20, 10],
    );
    // Clocks start with the first report, so that comes before the work.
    assertEquals(progress, [
      { stage: "decode train", done: 0, total: 3 },
      { stage: "decode train", done: 3, total: 3 },
      { stage: "decode test", done: 0, total: 1 },
      { stage: "decode test", done: 1, total: 1 },
    ]);
  });
});

Deno.test("openDataset() needs only the splits asked for", async () => {
  await withFolder({ "val/a/x.png": await grey(1) }, async (data) => {
    await openDataset("image_folder", { data, splits: ["test"] });
    await assertRejects(
      () => openDataset("image_folder", { data, splits: ["train"] }),
      Deno.errors.NotFound,
      `Cannot open the train split in "${data}": there is no folder "train"`,
    );
  });
  // Without folders of splits, the classes are a test split.
  await withFolder({ "a/x.png": await grey(1) }, async (data) => {
    const { splits } = await openDataset("image_folder", {
      data,
      splits: ["test"],
    });
    assertEquals(splits.test.size, 1);
    await assertRejects(
      () => openDataset("image_folder", { data, splits: ["train"] }),
      Deno.errors.NotFound,
    );
  });
});

Deno.test("openDataset() leaves out damaged images and counts them", async () => {
  const good = await grey(50);
  const files = {
    "test/a/1.png": good,
    "test/a/2.png": good.subarray(0, 40),
    "test/a/3.jpg": "text",
    "test/b/4.png": await grey(60),
  };
  await withFolder(files, async (data) => {
    const warnings: string[] = [];
    const { splits } = await openDataset("image_folder", {
      data,
      splits: ["test"],
      onWarning: (message) => warnings.push(message),
    });
    assertEquals([...splits.test.labels], [0, 1]);
    const { data: pixels } = await splits.test.load([1]);
    assertEquals(Math.round(pixels[0] * 255), 60);
    assertEquals(warnings, [
      `Cannot decode "${data}/test/a/2.png" as it ends too early`,
      `Cannot decode "${data}/test/a/3.jpg" as it is neither PNG nor JPEG: ` +
      `convert it first`,
      `Left out 2 of 4 images of the test split`,
    ]);
  });
});

Deno.test("openDataset() refuses a folder with nothing to use", async () => {
  await withFolder({ "test/a/1.png": "text" }, async (data) => {
    await assertRejects(
      () => openDataset("image_folder", { data, splits: ["test"], size: 32 }),
      Error,
      `none of its 1 images, such as "${data}/test/a/1.png", can be decoded`,
    );
  });
  await withFolder({ "test/a/notes.txt": "text" }, async (data) => {
    await assertRejects(
      () => openDataset("image_folder", { data, splits: ["test"] }),
      Deno.errors.NotFound,
      "no class folders of PNG or JPEG files",
    );
    await assertRejects(
      () =>
        openDataset("image_folder", { data: `${data}/x`, splits: ["test"] }),
      Deno.errors.NotFound,
      `there is no folder "${data}/x"`,
    );
  });
  await assertRejects(
    () => openDataset("image_folder", { splits: ["test"] }),
    TypeError,
    `Cannot open data set "image_folder" without its folder: give data`,
  );
});

Deno.test("openDataset() decodes large images on demand", async () => {
  const image = new Random(0).uniformTensor([3, 90, 120]);
  const file = await encodePng(image);
  await withFolder({ "test/a/1.png": file }, async (data) => {
    const options = { data, splits: ["test"] } as const;
    const large = await openDataset("image_folder", options);
    assertEquals(large.imageShape, [3, 224, 224]);
    assertEquals(large.splits.test.source.kind, "files");
    assertEquals((await large.splits.test.load([0])).shape, [1, 3, 224, 224]);
    const small = await openDataset("image_folder", { ...options, size: 32 });
    assertEquals(small.splits.test.source.kind, "packed");
    await assertRejects(
      () => openDataset("image_folder", { ...options, size: 2 }),
      RangeError,
      "size 2",
    );
  });
});

Deno.test("openDataset() groups ImageNet classes by classes.tsv", async () => {
  const files = {
    "classes.tsv": "wnid\timagenet_index\tname\nn1\t33\tturtle\n" +
      "n2\t151\tdog\nn3\t268\tdog\nn4\t269\twolf\n",
    "train/n1/x.png": await grey(1),
    "train/n2/x.png": await grey(2),
    "train/n4/x.png": await grey(4),
    "val/n3/x.png": await grey(3),
  };
  await withFolder(files, async (data) => {
    const { classes, splits, mean } = await openDataset("restricted-imagenet", {
      data,
      splits: ["train", "test"],
    });
    assertEquals(classes, ["Dog", "Turtle"]);
    assertEquals([...splits.train.labels], [1, 0]);
    assertEquals([...splits.test.labels], [0]);
    assertEquals(mean, [0.4717, 0.4499, 0.3837]);
    await assertRejects(
      () => openDataset("imagenet", { data, splits: ["test"] }),
      SyntaxError,
      "names 4 classes, not 1000",
    );
    await Deno.writeTextFile(
      `${data}/classes.tsv`,
      "wnid\timagenet_index\nn1\tx",
    );
    await assertRejects(
      () => openDataset("restricted_imagenet", { data, splits: ["test"] }),
      SyntaxError,
      "line 2 must hold a wnid and an index",
    );
    await Deno.remove(`${data}/classes.tsv`);
    await assertRejects(
      () => openDataset("restricted_imagenet", { data, splits: ["test"] }),
      Deno.errors.NotFound,
      "there is no classes.tsv, and the class folders number 0, not 1000",
    );
  });
});

Deno.test("openDataset() numbers 1000 sorted folders without classes.tsv", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const wnids = Array.from(
      { length: 1000 },
      (_, i) => `n${String(10_000_000 + 37 * i)}`,
    );
    for (const wnid of wnids) {
      await Deno.mkdir(`${folder}/val/${wnid}`, { recursive: true });
    }
    for (const i of [0, 285, 397]) {
      await Deno.writeFile(
        `${folder}/val/${wnids[i]}/x.png`,
        await grey(i % 256),
      );
    }
    const options = { data: folder, splits: ["test"] } as const;
    const imagenet = await openDataset("imagenet", options);
    assertEquals(imagenet.classes.length, 1000);
    assertEquals([...imagenet.splits.test.labels], [0, 285, 397]);
    const restricted = await openDataset("restricted_imagenet", options);
    assertEquals(
      restricted.classes,
      RESTRICTED_IMAGENET.map((group) => group.name),
    );
    assertEquals([...restricted.splits.test.labels], [1, 6]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

const DATA = new URL("../../data", import.meta.url).pathname;
const exists = (path: string) => {
  try {
    return Deno.statSync(`${DATA}/${path}`).isDirectory;
  } catch {
    return false;
  }
};

Deno.test({
  name: "cifar10 opens class folders (needs data/cifar10)",
  ignore: !exists("cifar10"),
  async fn() {
    const { classes, splits } = await openDataset("cifar10", {
      data: DATA,
      splits: ["test"],
      limit: 200,
    });
    assertEquals(classes, CIFAR10_CLASSES);
    const counts = new Array(10).fill(0);
    for (const label of splits.test.labels) counts[label]++;
    assertEquals(counts, new Array(10).fill(20));
    // Pixels (0, 0), (5, 9) and (31, 31) of the file, read with Pillow 12.3.0.
    const first = await readImage(`${DATA}/cifar10/test/airplane/0000.jpg`);
    const bytes = [0, 5 * 32 + 9, 31 * 32 + 31].map((at) =>
      [0, 1, 2].map((c) => 255 * first.data[c * 1024 + at])
    );
    const expected = [[141, 159, 179], [209, 162, 182], [49, 72, 64]];
    bytes.flat().forEach((v, i) =>
      assertAlmostEquals(v, expected.flat()[i], 3.01)
    );
  },
});

Deno.test({
  name: "restricted_imagenet opens (needs data/restricted-tiny-imagenet)",
  ignore: !exists("restricted-tiny-imagenet"),
  async fn() {
    const warnings: string[] = [];
    const { classes, imageShape, splits } = await openDataset(
      "restricted_imagenet",
      {
        data: `${DATA}/restricted-tiny-imagenet`,
        splits: ["test"],
        onWarning: (message) => warnings.push(message),
      },
    );
    assertEquals(imageShape, [3, 64, 64]);
    assertEquals(classes, ["Dog", "Cat", "Frog", "Bird", "Primate", "Insect"]);
    assertEquals([splits.test.size, warnings], [23 * 37, []]);
    // Also from the folder of all data sets; decoded, as it is small.
    const all = await openDataset("restricted_imagenet", {
      data: DATA,
      splits: ["test"],
      limit: 12,
    });
    assertEquals(all.splits.test.source.kind, "packed");
    assertEquals(all.classes, classes);
    assertEquals([...all.splits.test.labels].sort(), [
      ...[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5],
    ]);
  },
});

Deno.test({
  name: "imagenet opens in full size (needs data/imagenet-samples)",
  ignore: !exists("imagenet-samples"),
  async fn() {
    const data = `${DATA}/imagenet-samples`;
    const splits = ["test"] as const;
    const imagenet = await openDataset("imagenet", { data, splits });
    assertEquals(imagenet.splits.test.size, 44);
    const bullfrog = imagenet.splits.test.labels.indexOf(30);
    assertEquals(imagenet.classes[30], "bullfrog");
    const { shape, data: pixels } = await imagenet.splits.test.load([bullfrog]);
    assertEquals(shape, [1, 3, 224, 224]);
    // Pillow 12.3.0: resize() to a shorter side of 256, BILINEAR, crop() of
    // the middle 224, mean of each channel.
    for (const [c, mean] of [140.248, 134.777, 91.334].entries()) {
      const plane = pixels.subarray(c * 224 * 224, (c + 1) * 224 * 224);
      const sum = plane.reduce((total, v) => total + v, 0);
      assertAlmostEquals(255 * sum / plane.length, mean, 0.05);
    }
    const restricted = await openDataset("restricted_imagenet", {
      data,
      splits,
    });
    assertEquals(restricted.classes.length, 9);
    const ood = await openDataset("image_folder", {
      data: `${data}/ood`,
      splits,
    });
    assert(ood.splits.test.size >= 12);
  },
});
