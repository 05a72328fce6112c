/**
 * Embeddings of images: what the files hold, and what goes wrong for users.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Random, type Tensor, tensor } from "../../core/mod.ts";
import { decodeSafetensors, encodeSafetensors } from "../../models/mod.ts";
import { loadNetwork } from "../../robust/load.ts";
import { readImages } from "../../scripts/_images.ts";
import { assertAllClose } from "../_assert.ts";
import {
  assertSentence,
  exists,
  recordOf,
  run,
  SMALL,
  succeed,
  writePicture,
} from "./_script.ts";

const folder = await Deno.makeTempDir({ prefix: "robust reps é-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

const QUICK = ["--device", "cpu", "--threads", "1", "--quiet"] as const;

let files: Promise<void> | undefined;

/** A network, pictures, and files that are none, once. */
function prepare(): Promise<void> {
  return files ??= (async () => {
    const quick = ["--epochs", "1", "--eval-images", "0"];
    await succeed("train", [...SMALL, ...quick, "--out", `${folder}/run`]);
    for (const name of ["b", "a", "empty"]) {
      await Deno.mkdir(`${folder}/pictures/${name}`, { recursive: true });
    }
    const sizes = { width: 40, height: 32 };
    await writePicture(`${folder}/pictures/z.jpg`, { ...sizes, hue: 10 });
    await writePicture(`${folder}/pictures/a/2.png`, { ...sizes, hue: 90 });
    await writePicture(`${folder}/pictures/a/1.png`, { ...sizes, hue: 150 });
    await writePicture(`${folder}/pictures/b/é.png`, { ...sizes, hue: 250 });
    await Deno.writeTextFile(`${folder}/pictures/a/0.png`, "no picture");
    await Deno.writeTextFile(`${folder}/pictures/notes.txt`, "no picture");
  })();
}

/** Paths below `pictures`, in order, without the damaged one. */
const WHOLE = ["z.jpg", "a/1.png", "a/2.png", "b/é.png"]
  .map((name) => `pictures/${name}`);

const ask = (...args: string[]) =>
  run("represent", ["--model", "run", ...QUICK, ...args], { cwd: folder });

async function read(path: string): ReturnType<typeof decode> {
  return await decode(`${folder}/${path}`);
}

async function decode(path: string) {
  return decodeSafetensors(await Deno.readFile(path), path);
}

Deno.test("represent writes representations, logits and names of a folder", async () => {
  await prepare();
  const [out, json] = ["both.safetensors", "both.json"];
  const ended = await ask("pictures/", "--out", out, "--json", json);
  assertEquals(ended.code, 0, ended.stderr);
  assertEquals(
    ended.stdout,
    "representation: [4, 16]\nlogits: [4, 10]\nboth.safetensors\n",
  );
  const { tensors, metadata } = await read(out);
  assertEquals(Object.keys(tensors).sort(), ["logits", "representation"]);
  assertEquals(JSON.parse(metadata.files), WHOLE);
  const { network, card } = await loadNetwork(`${folder}/run`);
  assertEquals(metadata.weightsSha256, card.weightsSha256);
  assertEquals(JSON.parse(metadata.classes), card.classes);
  const images = await readImages(
    WHOLE.map((path) => `${folder}/${path}`),
    card,
  );
  const expected = await network.predict(images);
  await network.release();
  for (const name of ["representation", "logits"] as const) {
    assertAllClose(tensors[name], expected[name], { tolerance: 1e-5, name });
  }
  const { metrics, command } = await recordOf(`${folder}/${json}`);
  assertEquals(command, "represent");
  assertEquals([metrics.images, metrics.skipped], [4, 1]);
  assertEquals(metrics.files, WHOLE);
});

Deno.test("represent says which images of a folder it left out", async () => {
  await prepare();
  const { code, stderr } = await run("represent", [
    ...["--model", "run", "--device", "cpu", "--threads", "1"],
    ...["--out", "noted.npy", "pictures"],
  ], { cwd: folder });
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /Cannot decode "pictures\/a\/0.png" as it is neither/);
  assertMatch(stderr, /Left out 1 of 5 images/);
});

Deno.test("represent gives the same for files, tensors and any batch size", async () => {
  await prepare();
  await ask(...WHOLE, "--out", "all.safetensors");
  await ask(...WHOLE, "--out", "two.safetensors", "--batch-size", "3");
  const [all, two] = [
    await read("all.safetensors"),
    await read("two.safetensors"),
  ];
  assertEquals(two.metadata, all.metadata);
  const images = await readImages(WHOLE.map((path) => `${folder}/${path}`), {
    imageSize: 32,
  });
  await Deno.writeFile(
    `${folder}/x.safetensors`,
    encodeSafetensors({ x: images }),
  );
  await ask("--inputs", "x.safetensors", "--out", "fed.safetensors");
  const fed = await read("fed.safetensors");
  assertEquals(
    JSON.parse(fed.metadata.files),
    WHOLE.map((_, i) => `x.safetensors#${i}`),
  );
  for (const name of ["representation", "logits"] as const) {
    const options = { tolerance: 1e-5, name };
    assertAllClose(two.tensors[name], all.tensors[name], options);
    assertAllClose(fed.tensors[name], all.tensors[name], options);
  }
});

/** Reads what `encodeNpy()` writes of two axes. */
async function readNpy(path: string): Promise<Tensor> {
  const bytes = await Deno.readFile(`${folder}/${path}`);
  const offset = 10 + bytes[8] + 256 * bytes[9];
  const header = new TextDecoder().decode(bytes.subarray(10, offset));
  const [, n, d] = header.match(
    /^{'descr': '<f4', 'fortran_order': False, 'shape': \((\d+), (\d+)\), } *\n$/,
  )!;
  const data = new Float32Array(bytes.slice(offset).buffer);
  return tensor(data, [Number(n), Number(d)]);
}

Deno.test("represent writes either tensor as .npy", async () => {
  await prepare();
  await ask(...WHOLE, "--out", "all.safetensors");
  const { tensors } = await read("all.safetensors");
  await ask(...WHOLE, "--out", "default.npy");
  assertEquals(await readNpy("default.npy"), tensors.representation);
  await ask(...WHOLE, "--out", "logits.npy", "--what", "logits");
  assertEquals(await readNpy("logits.npy"), tensors.logits);
  await ask(...WHOLE, "--out", "one.safetensors", "--what", "logits");
  assertEquals(Object.keys((await read("one.safetensors")).tensors), [
    "logits",
  ]);
});

Deno.test("represent reads images at --size", async () => {
  await prepare();
  const out = "large.safetensors";
  await succeed("represent", [
    ...["--model", "run", ...QUICK, "--size", "48", "--out", out, ...WHOLE],
  ], { cwd: folder });
  const { metadata, tensors } = await read(out);
  assertEquals(metadata.imageSize, "48 x 48");
  assert((tensors.logits.data as Float32Array).every(Number.isFinite));
});

Deno.test("represent answers each mistake with one sentence", async () => {
  await prepare();
  const write = (name: string, x: Tensor) =>
    Deno.writeFile(`${folder}/${name}.safetensors`, encodeSafetensors({ x }));
  await write("flat", tensor([1, 2, 3]));
  const bytes = new Random(0).uniformTensor([1, 3, 32, 32], 0, 255);
  await write("bytes", bytes);
  const unnamed = encodeSafetensors({ y: bytes });
  await Deno.writeFile(`${folder}/unnamed.safetensors`, unnamed);
  const rows: [string[], 1 | 2, RegExp][] = [
    [[], 2, /Missing flag --out, file to write/],
    [["--out", "o.npy"], 2, /No image to represent: pass image files, folders/],
    [["--out", "o.txt", "pictures"], 2, /name a .safetensors or .npy file/],
    [["--out", "o.npy", "--what", "x"], 2, /--what must be representation or/],
    [["--out", "o.npy", "no.png"], 1, /"no.png": there is no such file or/],
    [["--out", "o.npy", "pictures/empty"], 1, /it holds no PNG or JPEG files/],
    [
      ["--out", "o.npy", "pictures/a/0.png"],
      1,
      /Cannot decode "pictures\/a\/0/,
    ],
    [["--out", "o.npy", "--inputs", "no"], 1, /Cannot read "no": no such file/],
    [
      ["--out", "o.npy", "--inputs", "flat.safetensors"],
      1,
      /need x of float32 \[n, 3, h, w\], found float32 \[3\]/,
    ],
    [
      ["--out", "o.npy", "--inputs", "unnamed.safetensors"],
      1,
      /found nothing of this name/,
    ],
    [
      ["--out", "o.npy", "--inputs", "bytes.safetensors"],
      1,
      /all values of x must be in \[0, 1\]; divide bytes by 255/,
    ],
    [
      ["--out", "o.npy", "--inputs", "flat.safetensors", "pictures"],
      2,
      /Unexpected argument "pictures": --inputs gives the images/,
    ],
    [
      ["--out", "o.npy", "--inputs", "flat.safetensors", "--size", "32"],
      2,
      /--size does not apply to --inputs/,
    ],
    [["--out", "o.npy", "pictures", "--size", "4"], 2, /--size must be >= 8/],
    [["--out", "o.npy", "pictures", "--model", "x"], 2, /Unknown model "x"/],
  ];
  for (const [args, code, wanted] of rows) {
    assertSentence(await ask(...args), code, wanted);
  }
  assertEquals(await exists(`${folder}/o.npy`), false);
});
