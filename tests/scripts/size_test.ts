/**
 * Experiments on images of 224 x 224 from folders, decoded when needed, with
 * files among them that cannot be.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { readImage } from "../../datasets/mod.ts";
import {
  filesBelow,
  recordOf,
  run,
  SMALL,
  succeed,
  writePicture,
} from "./_script.ts";

const folder = await Deno.makeTempDir({ prefix: "robust-reps-size-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

const QUICK = ["--device", "cpu", "--threads", "1"] as const;

let prepared: Promise<void> | undefined;

/** Photographs of two classes, one damaged in each split. */
function prepare(): Promise<void> {
  return prepared ??= (async () => {
    for (const split of ["train", "val"]) {
      for (const [label, name] of ["cat", "dog"].entries()) {
        const path = `${folder}/data/${split}/${name}`;
        await Deno.mkdir(path, { recursive: true });
        for (let i = 0; i < 4; i++) {
          const hue = 120 * label + 20 * i;
          const size = { width: 300 + i, height: 260 + 30 * label, hue };
          await writePicture(`${path}/${i}.jpg`, size);
        }
      }
      const whole = await Deno.readFile(`${folder}/data/${split}/cat/1.jpg`);
      await Deno.writeFile(
        `${folder}/data/${split}/dog/damaged.jpg`,
        whole.subarray(0, 1000),
      );
    }
    await Deno.copyFile(`${folder}/data/val/cat/0.jpg`, `${folder}/a.jpg`);
    await Deno.copyFile(`${folder}/data/val/dog/0.jpg`, `${folder}/b.jpg`);
  })();
}

const DATA = ["--dataset", "image_folder", "--data", "data"] as const;

async function train(out: string): Promise<string> {
  const { stderr, code } = await run("train", [
    ...[...SMALL, "--limit", "9", "--batch-size", "4", "--epochs", "2"],
    ...["--size", "224", ...DATA, "--eval-images", "9", "--out", out],
  ], { cwd: folder });
  assertEquals(code, 0, stderr);
  return stderr;
}

Deno.test("train at 224 leaves out damaged images, the same each time", async () => {
  await prepare();
  const stderr = await train("one");
  const count = (text: RegExp) => stderr.match(new RegExp(text, "g"))?.length;
  assertEquals(count(/Cannot decode ".*train\/dog\/damaged.jpg" as/), 1);
  assertEquals(count(/Cannot decode ".*val\/dog\/damaged.jpg" as/), 1);
  assertEquals(count(/Left out 1 of 9 images of the test split/), 1);
  assertMatch(stderr, /Epoch 2: .*\(8 images\)/);
  await train("two");
  const [one, two] = await Promise.all(
    ["one", "two"].map((name) => recordOf(`${folder}/${name}`)),
  );
  assertEquals(two.weights[0].sha256, one.weights[0].sha256);
});

Deno.test("experiments take --size 224", async () => {
  await prepare();
  // A network of 32 x 32 images: the size is the flag's.
  const model = ["--model", "small", ...QUICK, "--size", "224"];
  await succeed("train", [
    ...[...SMALL, "--epochs", "1", "--eval-images", "0", "--out", "small"],
    ...[...DATA, "--size", "32", "--limit", "9", "--batch-size", "4"],
  ], { cwd: folder });
  const evaluated = await run("evaluate", [
    ...[...model, ...DATA, "--attack-steps", "2", "--batch-size", "4"],
  ], { cwd: folder });
  assertEquals(evaluated.code, 0, evaluated.stderr);
  assertMatch(evaluated.stdout, /^Images: 8$/m);
  assertMatch(evaluated.stderr, /Left out 1 of 9 images of the test split/);

  const few = ["--steps", "1", "--preview-every", "0"];
  const pair = ["a.jpg", "b.jpg"], one = ["a.jpg", "--features", "1"];
  const data = [...DATA, "--gallery", "2", "--features", "1"];
  for (
    const [script, ...args] of [
      ["invert", "--target", "a.jpg"],
      ["interpolate", ...pair, "--frames", "3"],
      ["constrained_inversion", ...pair, "--radius", "9"],
      ["match_representation", ...pair],
      ["manipulate_features", ...one],
      ["visualize_features", ...data, "--images", "1"],
      ["maximizing_inputs", ...data, "--images", "2", "--top", "1"],
      ["headline", ...pair],
    ]
  ) {
    const out = `${folder}/${script}`;
    await succeed(script, [...model, ...few, ...args, "--out", out], {
      cwd: folder,
    });
    const tiles = (await filesBelow(out)).filter((path) =>
      path.startsWith("tiles/")
    );
    assert(tiles.length > 0);
    for (const tile of tiles) {
      assertEquals((await readImage(`${out}/${tile}`)).shape, [3, 224, 224]);
    }
  }
});
