import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertNotEquals,
  assertRejects,
} from "@std/assert";
import { type NamedTensors, Random, tensor, tensorOf } from "../../core/mod.ts";
import {
  type Card,
  CARD_SCHEMA_VERSION,
  decodeCheckpoint,
  encodeCheckpoint,
  weightsHash,
} from "../../models/checkpoint.ts";
import {
  isLeftover,
  readCheckpoint,
  updateCard,
  writeCheckpoint,
  writeFileAtomic,
} from "../../models/files.ts";
import {
  decodeSafetensors,
  encodeSafetensors,
} from "../../models/safetensors.ts";

const CARD: Card = {
  schemaVersion: CARD_SCHEMA_VERSION,
  architecture: "resnet18",
  form: "cifar",
  width: 0.125,
  classes: ["cat", "dog"],
  dataset: "cifar10",
  imageSize: 32,
  mean: [0.4914, 0.4822, 0.4465],
  std: [0.2023, 0.1994, 0.201],
  attack: {
    norm: "l2",
    epsilon: 0.5,
    stepSize: 0.1,
    steps: 7,
    randomStart: true,
  },
  epoch: 3,
  seed: 0,
  accuracies: {
    clean: 0.9,
    adversarial: [{
      epsilon: 0.5,
      steps: 20,
      stepSize: 0.0625,
      restarts: 1,
      accuracy: 0.5,
      attack: "PGD-20",
      interval: { low: 0.4, high: 0.6, n: 100 },
    }],
    images: 100,
    cleanInterval: { low: 0.83, high: 0.95, n: 100 },
  },
  sanity: {
    images: 10,
    norm: "l2",
    epsilon: 0.5,
    steps: 20,
    checks: [{ name: "unbounded", passed: true, detail: "0.0% at 55" }],
  },
  evaluation: {
    complete: false,
    limit: null,
    provider: "cpu",
    cpu: "a processor",
    preprocessing: "as stored",
    measured: "2026-01-02T03:04:05Z",
  },
  training: { seconds: 12.5, provider: "cpu", cpu: "a processor", threads: 2 },
  data: { name: "cifar10", images: 50000, preprocessing: "as stored" },
  command: "deno task train",
  versions: { deno: "2.9.0" },
  created: "2026-01-02T03:04:05Z",
  extra: { note: [1, null, { a: true }] },
};

const TENSORS: NamedTensors = {
  "fc.weight": tensor([1 / 3, -2, 3, 4], [2, 2]),
  "bn.count": tensorOf("int64", BigInt64Array.of(12n), []),
};

/** A checkpoint file whose card is any JSON. */
function fileWithCard(card: unknown): Uint8Array {
  return encodeSafetensors(TENSORS, { card: JSON.stringify(card) });
}

async function namesIn(folder: string): Promise<string[]> {
  const names = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  return names.sort();
}

/** Runs a test in a folder that is removed afterwards. */
async function inFolder(body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("encodeCheckpoint() round-trips card and tensors", async () => {
  const checkpoint = { card: CARD, tensors: TENSORS };
  const read = await decodeCheckpoint(await encodeCheckpoint(checkpoint), "a");
  const weightsSha256 = await weightsHash(TENSORS);
  assertEquals(read.card, { ...CARD, weightsSha256 });
  assertEquals({ ...read.tensors }, { ...TENSORS });
  // A stale hash in the card is replaced.
  const stale = { ...CARD, weightsSha256: "0".repeat(64), attack: null };
  const again = await encodeCheckpoint({ card: stale, tensors: TENSORS });
  const { card } = await decodeCheckpoint(again, "a");
  assertEquals([card.weightsSha256, card.attack], [weightsSha256, null]);
});

Deno.test("encodeCheckpoint() in float16 hashes the rounded weights", async () => {
  const checkpoint = { card: CARD, tensors: TENSORS };
  const bytes = await encodeCheckpoint(checkpoint, { float16: true });
  const { card, tensors } = await decodeCheckpoint(bytes, "a");
  assertEquals(
    tensors["fc.weight"],
    tensor([0.333251953125, -2, 3, 4], [2, 2]),
  );
  assertEquals(card.weightsSha256, await weightsHash(tensors));
});

Deno.test("encodeCheckpoint() refuses a malformed card", async () => {
  const card = { ...CARD, epoch: NaN };
  await assertRejects(
    () => encodeCheckpoint({ card, tensors: TENSORS }),
    TypeError,
    "Cannot write checkpoint: the card's epoch must be an integer >= 0 and is NaN",
  );
});

Deno.test("decodeCheckpoint() keeps keys it does not know", async () => {
  const weightsSha256 = await weightsHash(TENSORS);
  const card = { ...CARD, weightsSha256, lab: { room: 3 } };
  assertEquals((await decodeCheckpoint(fileWithCard(card), "a")).card, card);
});

Deno.test("decodeCheckpoint() reads cards from before there were these fields", async () => {
  const weightsSha256 = await weightsHash(TENSORS);
  const { sanity: _, evaluation: _e, training: _t, data: _d, ...rest } = CARD;
  const [{ attack: _a, interval: _i, ...entry }] = CARD.accuracies.adversarial!;
  const accuracies = { clean: 0.9, images: 100, adversarial: [entry] };
  const old = { ...rest, accuracies, weightsSha256 };
  assertEquals((await decodeCheckpoint(fileWithCard(old), "a")).card, old);
});

Deno.test("updateCard() keeps weights, their precision and the rest of the card", async () => {
  const path = await Deno.makeTempFile({ suffix: ".safetensors" });
  for (const float16 of [true, false]) {
    await writeCheckpoint(path, { card: CARD, tensors: TENSORS }, { float16 });
    const before = await readCheckpoint(path);
    const { size } = await Deno.stat(path);
    const returned = await updateCard(path, (card) => ({ ...card, epoch: 4 }));
    const after = await readCheckpoint(path);
    assertEquals(after.card, { ...before.card, epoch: 4 });
    assertEquals(returned, after.card);
    assertEquals(after.tensors, before.tensors);
    assertEquals((await Deno.stat(path)).size, size);
  }
  await assertRejects(
    () => updateCard(path, (card) => ({ ...card, epoch: -1 })),
    TypeError,
    "the card's epoch must be",
  );
  assertEquals((await readCheckpoint(path)).card.epoch, 4);
  await Deno.remove(path);
});

Deno.test("updateCard() knows every float16", async () => {
  const path = await Deno.makeTempFile({ suffix: ".safetensors" });
  // All finite halves, from the smallest subnormal to the largest.
  const halves = Float32Array.from({ length: 0x7c00 }, (_, bits) => {
    const exponent = bits >> 10, fraction = bits & 0x3ff;
    return exponent === 0
      ? fraction * 2 ** -24
      : (1024 + fraction) * 2 ** (exponent - 25);
  });
  const odd = [1 + 2 ** -11, 2 ** -25, 65536, 2 ** -15 + 2 ** -26];
  const sizeOf = async (data: Float32Array) => {
    const tensors = { a: tensor(data, [data.length]) };
    await writeCheckpoint(path, { card: CARD, tensors });
    await updateCard(path, (card) => card);
    return (await Deno.stat(path)).size;
  };
  const half = await sizeOf(halves);
  for (const value of odd) {
    const changed = halves.slice();
    changed[7] = value;
    assert(await sizeOf(changed) > half + 50_000, `${value}`);
  }
  await Deno.remove(path);
});

Deno.test("decodeCheckpoint() says what is wrong with a card", async () => {
  const weightsSha256 = await weightsHash(TENSORS);
  const good = { ...CARD, weightsSha256 };
  const adversarial = CARD.accuracies.adversarial ?? [];
  const cases: [unknown, string][] = [
    [3, "the card must be an object and is 3"],
    [{}, "the card's schemaVersion is missing; it must be an integer >= 0"],
    [
      { ...good, schemaVersion: 2 },
      "the card has schema version 2 and this code reads up to 1; update",
    ],
    [{ ...good, architecture: "" }, "architecture must be text that is not"],
    [{ ...good, form: "mnist" }, `form must be "cifar" or "imagenet" and is`],
    [{ ...good, width: 0 }, "the card's width must be a number > 0 and is 0"],
    [{ ...good, classes: [] }, "classes must be a list of class names, at lea"],
    [{ ...good, classes: ["a", 1] }, 'at least one and is ["a",1]'],
    [
      { ...good, imageSize: 1.5 },
      "imageSize must be an integer > 0 and is 1.5",
    ],
    [{ ...good, mean: [1, 2] }, "mean must be three numbers and is [1,2]"],
    [{ ...good, std: [1, 2, 0] }, "std must be three numbers > 0 and is"],
    [{ ...good, attack: undefined }, "the card's attack is missing"],
    [{ ...good, attack: { ...CARD.attack, norm: "l1" } }, "attack's norm must"],
    [
      { ...good, attack: { ...CARD.attack, steps: -1 } },
      "steps must be an int",
    ],
    [{ ...good, epoch: "3" }, 'epoch must be an integer >= 0 and is "3"'],
    [{ ...good, accuracies: { clean: 93 } }, "clean must be a fraction from 0"],
    [
      {
        ...good,
        accuracies: { adversarial: [{ ...adversarial[0], steps: 0.5 }] },
      },
      "the card's accuracies's adversarial[0]'s steps must be",
    ],
    [
      {
        ...good,
        accuracies: { cleanInterval: { low: -1, high: 1, n: 3 } },
      },
      "cleanInterval's low must be a fraction from 0 to 1 and is -1",
    ],
    [
      { ...good, sanity: { ...CARD.sanity, checks: [{ name: "a" }] } },
      "the card's sanity's checks[0]'s passed is missing",
    ],
    [{ ...good, training: { seconds: 1 } }, "training's provider is missing"],
    [{ ...good, versions: { deno: 2 } }, 'versions["deno"] must be text'],
    [{ ...good, created: "soon" }, "created must be an ISO 8601 time"],
    [{ ...good, extra: [] }, "extra must be an object and is []"],
    [CARD, "weightsSha256 is missing; it must be 64 hexadecimal digits"],
  ];
  for (const [card, expected] of cases) {
    await assertRejects(
      () => decodeCheckpoint(fileWithCard(card), "a.safetensors"),
      SyntaxError,
      expected,
    );
  }
  const noJson = encodeSafetensors(TENSORS, { card: "{" });
  const noCard = encodeSafetensors(TENSORS, { format: "pt" });
  await assertRejects(
    () => decodeCheckpoint(noJson, "a"),
    SyntaxError,
    'Cannot read checkpoint "a": its card is not valid JSON',
  );
  await assertRejects(
    () => decodeCheckpoint(noCard, "a"),
    SyntaxError,
    'Cannot read checkpoint "a": its metadata has no "card"',
  );
});

Deno.test("decodeCheckpoint() refuses a file with any byte of data changed", async () => {
  const bytes = await encodeCheckpoint({ card: CARD, tensors: TENSORS });
  const start = bytes.length - 24; // int64 and four float32
  for (let at = start; at < bytes.length; at++) {
    const damaged = bytes.with(at, bytes[at] ^ 1);
    await assertRejects(
      () => decodeCheckpoint(damaged, "a"),
      SyntaxError,
      'Cannot read checkpoint "a": the file is damaged: the SHA-256',
    );
  }
});

Deno.test("decodeCheckpoint() gives a clean error for random damage", async () => {
  const original = await encodeCheckpoint({ card: CARD, tensors: TENSORS });
  const random = new Random(0, ["damage"]);
  for (let i = 0; i < 1000; i++) {
    const bytes = original.slice(
      0,
      random.integer(4) ? original.length : random.integer(original.length),
    );
    if (bytes.length) bytes[random.integer(bytes.length)] = random.integer(256);
    try {
      await decodeCheckpoint(bytes, "a");
    } catch (error) {
      assertInstanceOf(error, SyntaxError);
      assertMatch(error.message, /^Cannot read checkpoint "a": .+$/);
    }
  }
});

Deno.test("weightsHash() depends on names, dtypes, shapes and values only", async () => {
  const base = await weightsHash(TENSORS);
  assertMatch(base, /^[0-9a-f]{64}$/);
  const reversed = Object.fromEntries(Object.entries(TENSORS).reverse());
  assertEquals(await weightsHash(reversed), base);
  const bytes = Uint8Array.of(0, 1);
  const variants: NamedTensors[] = [
    {},
    { a: tensorOf("uint8", bytes, [2]) },
    { b: tensorOf("uint8", bytes, [2]) },
    { a: tensorOf("bool", bytes, [2]) },
    { a: tensorOf("uint8", bytes, [2, 1]) },
    { a: tensorOf("uint8", bytes.toReversed(), [2]) },
  ];
  const hashes = await Promise.all(variants.map(weightsHash));
  assertEquals(new Set(hashes).size, variants.length);
  // python3: d = sha256(bytes([0, 1])).hexdigest()
  //          sha256(f'"a" uint8 [2] {d}\n'.encode()).hexdigest()
  assertEquals(
    hashes[1],
    "415a401c968367493019a0852caed89a8e629aa389d7da77159db1478180c1ce",
  );
});

Deno.test("writeCheckpoint() and readCheckpoint() agree", () =>
  inFolder(async (folder) => {
    const path = `${folder}/model.safetensors`;
    await writeCheckpoint(path, { card: CARD, tensors: TENSORS });
    const { card, tensors } = await readCheckpoint(path);
    assertEquals(card.classes, CARD.classes);
    assertEquals({ ...tensors }, { ...TENSORS });
    assertEquals(await namesIn(folder), ["model.safetensors"]);
  }));

Deno.test("readCheckpoint() names the file it cannot open", () =>
  inFolder(async (folder) => {
    for (
      const [path, reason] of [
        [`${folder}/none`, "no such file or folder"],
        [folder, "it is a folder"],
      ]
    ) {
      await assertRejects(
        () => readCheckpoint(path),
        Error,
        `Cannot read checkpoint "${path}": ${reason}`,
      );
    }
  }));

Deno.test("writeFileAtomic() replaces text and bytes and any old file", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a`;
    await writeFileAtomic(path, "h\u00e9");
    assertEquals(await Deno.readTextFile(path), "h\u00e9");
    await writeFileAtomic(path, new Uint8Array());
    assertEquals((await Deno.readFile(path)).length, 0);
    assertEquals(await namesIn(folder), ["a"]);
  }));

Deno.test("writeFileAtomic() says why it cannot write", () =>
  inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/taken`);
    await Deno.writeTextFile(`${folder}/file`, "");
    for (
      const [name, reason] of [
        ["none/a", "no such file or folder"],
        ["taken", "it is a folder"],
        ["file/a", "not a directory"],
        ["a".repeat(300), "file name too long"],
      ]
    ) {
      const path = `${folder}/${name}`;
      const error = await assertRejects(() => writeFileAtomic(path, ""), Error);
      assertEquals(error.message, `Cannot write "${path}": ${reason}`);
    }
    assertEquals(await namesIn(folder), ["file", "taken"]);
  }));

Deno.test("writeFileAtomic() from many writers leaves one whole file", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a`;
    const contents = Array.from(
      { length: 20 },
      (_, i) => String(i).repeat(1 << 16),
    );
    await Promise.all(contents.map((text) => writeFileAtomic(path, text)));
    assert(contents.includes(await Deno.readTextFile(path)));
    assertEquals(await namesIn(folder), ["a"]);
  }));

Deno.test("writeFileAtomic() removes leftovers of the same name only", () =>
  inFolder(async (folder) => {
    const stale = ".a.0123456789abcdef.part";
    const others = [".a.txt.0123456789abcdef.part", ".a.part", "a.part"];
    for (const name of [stale, ...others]) {
      await Deno.writeTextFile(`${folder}/${name}`, "old");
    }
    assert(isLeftover(stale) && isLeftover(stale, "a"));
    assert(!isLeftover(stale, "b") && !isLeftover("a.part"));
    await writeFileAtomic(`${folder}/a`, "new");
    assertEquals(await namesIn(folder), ["a", ...others].sort());
  }));

/** Writes to a disk that fills up; nothing may change. */
async function assertFullDiskIsHarmless(folder: string, bytes: Uint8Array) {
  const path = `${folder}/a`;
  const before = await namesIn(folder);
  const error = await assertRejects(() => writeFileAtomic(path, bytes), Error);
  assertEquals(
    error.message,
    `Cannot write "${path}": no space left on the device`,
  );
  assertInstanceOf(error.cause, Error);
  assertEquals(await Deno.readTextFile(path), "old");
  assertEquals(await namesIn(folder), before);
}

Deno.test("writeFileAtomic() keeps the old file when a write fails", () =>
  inFolder(async (folder) => {
    await writeFileAtomic(`${folder}/a`, "old");
    const { write, sync } = Deno.FsFile.prototype;
    const full = new Error("No space left on device (os error 28)");
    try {
      Deno.FsFile.prototype.write = function (bytes) {
        // A short write first, as a real disk would do.
        return bytes.length < 1000
          ? Promise.reject(full)
          : write.call(this, bytes.subarray(0, 500));
      };
      await assertFullDiskIsHarmless(folder, new Uint8Array(2000));
      Deno.FsFile.prototype.write = write;
      Deno.FsFile.prototype.sync = () => Promise.reject(full);
      await assertFullDiskIsHarmless(folder, new Uint8Array(2000));
    } finally {
      Deno.FsFile.prototype.write = write;
      Deno.FsFile.prototype.sync = sync;
    }
  }));

const RUN_GRANTED =
  (await Deno.permissions.query({ name: "run" })).state === "granted";

function isRoot(): boolean {
  try {
    return Deno.uid() === 0;
  } catch {
    return false; // no permission to ask
  }
}

Deno.test({
  name: "writeFileAtomic() keeps the old file on a full tmpfs",
  // Needs Linux, root and --allow-run to mount a small file system.
  ignore: Deno.build.os !== "linux" || !RUN_GRANTED || !isRoot(),
  fn: () =>
    inFolder(async (folder) => {
      const args = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder];
      const mount = new Deno.Command("mount", { args, stderr: "null" });
      if (!(await mount.output()).success) return; // a container without mounts
      try {
        await writeFileAtomic(`${folder}/a`, "old");
        await assertFullDiskIsHarmless(folder, new Uint8Array(1 << 20));
        await writeFileAtomic(`${folder}/a`, "small enough");
      } finally {
        await new Deno.Command("umount", { args: [folder] }).output();
      }
    }),
});

Deno.test({
  name: "writeCheckpoint() killed at any moment leaves a whole file",
  // Needs --allow-run for the process that is killed.
  ignore: !RUN_GRANTED,
  fn: () =>
    inFolder(async (folder) => {
      const path = `${folder}/model.safetensors`;
      const card = JSON.stringify(CARD);
      const code = `
        import { writeFileAtomic } from "${
        import.meta.resolve("../../models/files.ts")
      }";
        import { encodeCheckpoint } from "${
        import.meta.resolve("../../models/checkpoint.ts")
      }";
        const files = await Promise.all([1, 2].map((epoch) =>
          encodeCheckpoint({
            card: { ...${card}, epoch },
            tensors: {
              x: {
                dtype: "float32",
                shape: [1 << 21],
                data: new Float32Array(1 << 21).fill(epoch),
              },
            },
          })
        ));
        for (let i = 0;; i++) {
          await writeFileAtomic(${JSON.stringify(path)}, files[i % 2]);
          if (i === 0) console.log("started");
        }`;
      const script = `${folder}/loop.ts`;
      await Deno.writeTextFile(script, code);
      const random = new Random(0, ["kill"]);
      let leftovers = 0;
      for (let round = 0; round < 8; round++) {
        const child = new Deno.Command(Deno.execPath(), {
          args: [
            "run",
            "--no-config",
            "--no-lock",
            `--allow-read=${folder}`,
            `--allow-write=${folder}`,
            script,
          ],
          stdout: "piped",
        }).spawn();
        const reader = child.stdout.getReader();
        assert(!(await reader.read()).done, "the writing process failed");
        const delay = 20 + random.integer(60);
        await new Promise((resolve) => setTimeout(resolve, delay));
        child.kill("SIGKILL");
        await child.status;
        await reader.cancel();
        const read = await readCheckpoint(path);
        assertEquals(read.tensors.x.data[0], read.card.epoch);
        leftovers += (await namesIn(folder)).filter((n) =>
          isLeftover(n)
        ).length;
      }
      assertNotEquals(leftovers, 0, "no kill hit a write; make files larger");
      await writeCheckpoint(path, { card: CARD, tensors: TENSORS });
      assertEquals(await namesIn(folder), ["loop.ts", "model.safetensors"]);
    }),
});

Deno.test("encodeCheckpoint() keeps the card under one metadata key", async () => {
  const bytes = await encodeCheckpoint({ card: CARD, tensors: TENSORS });
  const { metadata } = decodeSafetensors(bytes, "a");
  assertEquals(Object.keys(metadata), ["card"]);
});
