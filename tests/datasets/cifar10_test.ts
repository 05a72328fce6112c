import { assert, assertEquals, assertRejects } from "@std/assert";
import { CIFAR10_CLASSES, openDataset } from "../../datasets/mod.ts";
import { readTar } from "../../datasets/tar.ts";

const RECORDS = 10_000, RECORD = 3073;

/** A batch file: image i has label i % 10 and pixels (i + place) % 251. */
function makeBatch(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(RECORDS * RECORD);
  for (let i = 0; i < RECORDS; i++) {
    bytes[i * RECORD] = i % 10;
    for (let at = 1; at < 20; at++) bytes[i * RECORD + at] = (i + at) % 251;
  }
  return bytes;
}

/** One file of a tar archive; its first part is the header. */
function tarFile(path: string, size: number): Uint8Array {
  const header = new Uint8Array(512);
  const put = (text: string, at: number) =>
    header.set(new TextEncoder().encode(text), at);
  put(path, 0);
  put("0000644\0", 100);
  put(size.toString(8).padStart(11, "0") + "\0", 124);
  put("        ", 148);
  put("0", 156);
  put("ustar\0" + "00", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  put(sum.toString(8).padStart(6, "0") + "\0 ", 148);
  return header;
}

function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function makeTar(files: Readonly<Record<string, Uint8Array>>) {
  const parts = Object.entries(files).flatMap(([path, bytes]) => [
    tarFile(path, bytes.length),
    bytes,
    new Uint8Array((512 - bytes.length % 512) % 512),
  ]);
  return concat([...parts, new Uint8Array(1024)]);
}

async function gzip(bytes: Uint8Array<ArrayBuffer>) {
  const stream = new Blob([bytes]).stream()
    .pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

Deno.test("cifar10 opens the official binary files and archive", async (t) => {
  const root = await Deno.makeTempDir();
  const batch = makeBatch();
  const options = { splits: ["test"] } as const;
  const archive = `${root}/cifar-10-binary.tar.gz`;
  try {
    await t.step("nothing there", async () => {
      await assertRejects(
        () => openDataset("cifar10", { ...options, data: root }),
        Deno.errors.NotFound,
        `Cannot find CIFAR-10 in "${root}": looked for data_batch_1.bin, ` +
          `train/airplane, cifar-10-batches-bin, cifar10, cifar-10 and ` +
          `cifar-10-binary.tar.gz`,
      );
    });

    await t.step("archive in a folder", async () => {
      const folder = "cifar-10-batches-bin";
      const bytes = makeTar({
        [`${folder}/batches.meta.txt`]: new Uint8Array(61),
        [`${folder}/readme.html`]: new Uint8Array(88),
        [`${folder}/test_batch.bin`]: batch,
      });
      await Deno.writeFile(archive, await gzip(bytes));
      const { classes, splits } = await openDataset("cifar10", {
        ...options,
        data: root,
      });
      assertEquals(classes, CIFAR10_CLASSES);
      assertEquals(splits.test.size, RECORDS);
      assertEquals(splits.test.labels[7], 7);
      const { data } = await splits.test.load([9999]);
      assertEquals(Math.round(255 * data[3]), (9999 + 4) % 251);
    });

    await t.step("archive without the split asked for", async () => {
      await assertRejects(
        () => openDataset("cifar10", { splits: ["train"], data: archive }),
        Deno.errors.NotFound,
        `there is no "data_batch_1.bin" in "${archive}"`,
      );
    });

    await t.step("damaged and truncated archives", async () => {
      const bytes = await Deno.readFile(archive);
      const path = `${root}/broken.tar.gz`;
      const damaged = bytes.slice();
      damaged.fill(0, 2000, 3000);
      for (
        const broken of [
          bytes.subarray(0, bytes.length >> 1),
          damaged,
          new TextEncoder().encode("not an archive"),
          new Uint8Array(),
          await gzip(new Uint8Array(512).fill(65)),
          await gzip(makeTar({ "a.bin": batch }).slice(0, 700)),
        ]
      ) {
        await Deno.writeFile(path, broken);
        const error = await assertRejects(
          () => openDataset("cifar10", { ...options, data: path }),
          SyntaxError,
          `Cannot read "${path}" as `,
        );
        assert(error.message.endsWith("; download it again"), error.message);
      }
    });

    await t.step("folder, which goes before the archive", async () => {
      const folder = `${root}/cifar-10-batches-bin`;
      await Deno.mkdir(folder);
      await Deno.writeFile(`${folder}/test_batch.bin`, batch);
      for (const data of [root, folder]) {
        const { splits } = await openDataset("cifar10", {
          ...options,
          data,
          limit: 20,
        });
        const labels = [...splits.test.labels];
        assertEquals(labels.slice(0, 10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assertEquals(labels.length, 20);
        const { data: pixels } = await splits.test.load([3]);
        // Image i has label i % 10, and its first pixel is i + 1 mod 251.
        assertEquals(
          Math.round(pixels[0] * 255 + 1),
          Math.round(pixels[1] * 255),
        );
      }
      await assertRejects(
        () => openDataset("cifar10", { splits: ["train"], data: root }),
        Deno.errors.NotFound,
        `there is no "data_batch_1.bin" in "${folder}"`,
      );
      await assertRejects(
        () => openDataset("cifar10", { ...options, data: root, size: 64 }),
        RangeError,
        "its images are 32 x 32",
      );
    });

    await t.step("files of the wrong length or with wrong labels", async () => {
      const folder = `${root}/cifar-10-batches-bin`;
      await Deno.writeFile(`${folder}/test_batch.bin`, batch.subarray(1));
      await assertRejects(
        () => openDataset("cifar10", { ...options, data: root }),
        SyntaxError,
        "it has 30729999 bytes, not 30730000; download it again",
      );
      batch[5 * RECORD] = 10;
      await Deno.writeFile(`${folder}/test_batch.bin`, batch);
      await assertRejects(
        () => openDataset("cifar10", { ...options, data: root }),
        SyntaxError,
        "image 5 has label 10",
      );
    });
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("readTar() reads an archive in chunks of any size", async () => {
  const bytes = makeTar({
    "a/one.bin": Uint8Array.from({ length: 1000 }, (_, i) => i),
    "skipped": new Uint8Array(5000),
    "empty": new Uint8Array(),
    "two": Uint8Array.of(1, 2, 3),
  });
  for (const size of [1, 100, 512, 100_000]) {
    let at = 0;
    const stream = new ReadableStream<Uint8Array>({
      pull(controller) {
        controller.enqueue(bytes.subarray(at, at += size));
        if (at >= bytes.length) controller.close();
      },
    });
    const files = await Array.fromAsync(
      readTar(stream, (path) => path !== "skipped"),
    );
    assertEquals(
      files.map(({ path, bytes }) => [path, bytes.length]),
      [["a/one.bin", 1000], ["empty", 0], ["two", 3]],
    );
    assertEquals(files[0].bytes[999], 999 % 256);
    assertEquals([...files[2].bytes], [1, 2, 3]);
  }
});
