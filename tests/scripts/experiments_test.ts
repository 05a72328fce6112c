/**
 * Evaluation, inversion, interpolation and the demo end to end, on the
 * smallest networks.
 */
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { fitImage, readImage } from "../../datasets/mod.ts";
import type { Run } from "../../robust/run.ts";
import { assertAllClose } from "../_assert.ts";
import {
  filesBelow,
  recordOf,
  ROOT,
  run,
  SMALL,
  succeed,
  writeClasses,
  writePicture,
} from "./_script.ts";

/** Spaces and other scripts, as people have them in their paths. */
const folder = await Deno.makeTempDir({ prefix: "robust reps é-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

/** Flags of an experiment in an instant. */
const QUICK = ["--device", "cpu", "--threads", "1"] as const;

interface Setting {
  readonly robust: string;
  readonly standard: string;
  /** 37 x 23 pixels. */
  readonly jpeg: string;
  /** 20 x 41 pixels, half transparent. */
  readonly png: string;
}

let setting: Promise<Setting> | undefined;

/** Two networks and two pictures that all tests share. */
function prepared(): Promise<Setting> {
  return setting ??= (async () => {
    const [robust, standard] = ["robust", "standard"].map((name) =>
      `${folder}/${name} network`
    );
    const once = ["--epochs", "1", "--eval-images", "0"];
    await succeed("train", [...SMALL, ...once, "--out", robust]);
    await succeed("train", [
      ...[...SMALL, ...once, "--out", standard],
      ...["--epsilon", "0", "--seed", "1"],
    ]);
    return {
      robust,
      standard,
      jpeg: await writePicture(`${folder}/ä picture.jpg`, {
        width: 37,
        height: 23,
      }),
      png: await writePicture(`${folder}/clear.png`, {
        width: 20,
        height: 41,
        alpha: 128,
      }),
    };
  })();
}

/** Checks that a run's record lists each file there is, all PNG whole. */
async function assertFiles(out: string, record: Run): Promise<void> {
  const listed = record.files.map(({ path }) => path);
  assertEquals(listed.toSorted(), await pngsBelow(out));
  for (const { path, kind, label } of record.files) {
    const { shape } = await readImage(`${out}/${path}`);
    const isTile = path.startsWith("tiles/");
    assertEquals(kind, isTile ? "tile" : "figure");
    assert(label, path);
    if (isTile) assertEquals(shape, [3, 32, 32]);
    else assert(shape[1] > 64 && shape[2] > 64, `${path}: ${shape}`);
  }
}

async function pngsBelow(out: string): Promise<string[]> {
  return (await filesBelow(out)).filter((path) => path !== "run.json");
}

function assertRecord(
  record: Run,
  { command, roles }: { command: string; roles: readonly string[] },
): void {
  assertEquals(record.schemaVersion, 1);
  assertEquals(record.command, command);
  assertEquals(record.provider, "cpu");
  assertEquals(record.flags.threads, 1);
  assertEquals(record.weights.map(({ role }) => role), roles);
  assert(Object.hasOwn(record.versions, "onnxruntime-node"));
  assert(record.seconds > 0);
}

Deno.test("evaluate prints accuracies and writes its record", async () => {
  const { robust } = await prepared();
  const out = `${folder}/evaluation`;
  const json = `${folder}/evaluation.json`;
  const { code, stdout, stderr } = await run("evaluate", [
    ...["--model", robust, ...QUICK, "--out", out, "--json", json],
    ...["--limit", "20", "--batch-size", "8", "--eps", "0.25"],
    ...["--attack-steps", "5"],
  ]);
  assertEquals(code, 0, stderr);
  assertMatch(
    stdout,
    /^Clean accuracy: [\d.]+%\nAdversarial accuracy: [\d.]+% \(l2, epsilon 0.25, PGD-5, 1 run\)\nImages: 20\n$/,
  );
  assertMatch(stderr, /^Running on cpu: asked for$/m);
  const record = await recordOf(out);
  assertEquals(await recordOf(json), record);
  assertEquals(await filesBelow(out), ["run.json"]);
  assertRecord(record, { command: "evaluate", roles: ["evaluated"] });
  const trained = await recordOf(robust);
  assertEquals(record.weights[0].sha256, trained.weights[0].sha256);
  const { images, clean, adversarial, attack } = record.metrics;
  assertEquals(images, 20);
  assert(Number(adversarial) <= Number(clean));
  assertEquals(attack, {
    norm: "l2",
    epsilon: 0.25,
    steps: 5,
    stepSize: 0.125,
    randomStart: false,
    restarts: 1,
  });
});

Deno.test("evaluate gives the same numbers for the same seed", async () => {
  const { robust } = await prepared();
  const metrics = async (...args: string[]) => {
    const json = `${folder}/same.json`;
    await succeed("evaluate", [
      ...["--model", `${robust}/model.safetensors`, ...QUICK, "--json", json],
      ...["--limit", "12", "--attack-steps", "3", "--random-restarts", "2"],
      ...args,
    ]);
    return (await recordOf(json)).metrics;
  };
  const first = await metrics("--seed", "4");
  assertEquals(await metrics("--seed", "4"), first);
  const { clean, adversarialLoss } = await metrics("--seed", "5");
  assertEquals(clean, first.clean);
  assert(adversarialLoss !== first.adversarialLoss);
});

Deno.test("evaluate with epsilon 0 is clean only and writes no folder", async () => {
  const { robust } = await prepared();
  const cwd = `${folder}/nothing written`;
  await Deno.mkdir(cwd);
  const stdout = await succeed("evaluate", [
    ...["--model", "../robust network", ...QUICK],
    ...["--limit", "10", "--epsilon", "0"],
  ], { cwd });
  assertMatch(stdout, /^Clean accuracy: [\d.]+%\nImages: 10\n$/);
  assertEquals(await filesBelow(cwd), []);
  assert(robust);
});

Deno.test("evaluate needs no training split and says where classes differ", async () => {
  const { robust } = await prepared();
  const data = `${folder}/only test`;
  const letters = [..."abcdefghij"];
  await writeClasses(`${data}/test`, letters, 2);
  const { code, stderr } = await run("evaluate", [
    ...["--model", robust, ...QUICK, "--dataset", "image_folder"],
    ...["--data", data, "--attack-steps", "1"],
  ]);
  assertEquals(code, 0, stderr);
  assertStringIncludes(
    stderr,
    'The classes differ: label 0 is "disc" to the model and "a" in image_folder',
  );
});

Deno.test("invert takes test images of all classes in turn where it takes all", async () => {
  const { robust } = await prepared();
  const data = `${folder}/sorted by class`;
  await writeClasses(`${data}/test`, ["a", "b", "c"], 4);
  const out = `${folder}/in turn`;
  await succeed("invert", [
    ...["--model", robust, ...QUICK, "--dataset", "image_folder"],
    ...["--data", data, "--images", "6", "--steps", "1", "--out", out],
  ]);
  const { files } = await recordOf(out);
  const targets = files.flatMap(({ tile }) =>
    tile?.row === "target" ? [tile.column[0]] : []
  );
  assertEquals(targets, [..."abcabc"]);
});

Deno.test("interpolate pairs pictures of different classes for every count", async () => {
  const { robust } = await prepared();
  const data = `${folder}/three classes`;
  await writeClasses(`${data}/test`, ["a", "b", "c"], 6);
  for (const count of [2, 4, 5]) {
    const out = `${folder}/pairs of ${count}`;
    await succeed("interpolate", [
      ...["--model", robust, ...QUICK, "--dataset", "image_folder"],
      ...["--data", data, "--images", `${count}`, "--columns", `${count}`],
      ...["--frames", "2", "--steps", "1", "--out", out],
    ]);
    const { files } = await recordOf(out);
    const rows = files.flatMap(({ tile }) =>
      tile?.row.match(/pixels, ([abc]).* to ([abc])/)?.slice(1) ?? []
    );
    assert(rows.length >= 2 * count);
    for (let i = 0; i < rows.length; i += 2) {
      assert(rows[i] !== rows[i + 1], `${count}: ${rows}`);
    }
  }
});

Deno.test("invert makes a figure of several targets for two networks", async () => {
  const { robust, standard, jpeg, png } = await prepared();
  const out = `${folder}/inversion`;
  const { code, stdout, stderr } = await run("invert", [
    ...["--model", robust, "--standard", standard, ...QUICK, "--out", out],
    ...["--target", jpeg, "--target", png, "--steps", "5", "--seed", "2"],
  ]);
  assertEquals(code, 0, stderr);
  assertMatch(
    stdout,
    /^(standard: .+ n 2\)\n){3}(robust: .+ n 2\)\n){3}.*\/figure\.png\n$/,
  );
  const record = await recordOf(out);
  assertRecord(record, { command: "invert", roles: ["standard", "robust"] });
  await assertFiles(out, record);
  assertEquals(record.files.length, 1 + 4 * 2);
  for (const role of ["standard", "robust"]) {
    const { values, predictions, claims } = record.metrics[role] as {
      values: Record<string, number[]>;
      predictions: string[];
      claims: Record<string, { mean: number; n: number }>;
    };
    const { distance, ssim, pixelDistance } = values;
    for (const list of [distance, ssim, pixelDistance, predictions]) {
      assertEquals(list.length, 2);
    }
    assert(distance.every((d) => d > 0 && d < 2));
    assertEquals(claims.distance.n, 2);
    assertAlmostEquals(claims.distance.mean, (distance[0] + distance[1]) / 2);
  }
});

Deno.test("invert fits a picture of odd size into the target", async () => {
  const { robust, jpeg } = await prepared();
  const out = `${folder}/fitted`;
  await succeed("invert", [
    ...["--model", robust, ...QUICK, "--out", out, "--steps", "0"],
    ...["--from", jpeg, jpeg],
  ]);
  const square = fitImage(await readImage(jpeg), 32);
  const tile = await readImage(`${out}/tiles/target-1.png`);
  // PNG rounds to 256 levels.
  assertAllClose(tile, square, { tolerance: 0.51 / 255 });
  // No step: what it starts from is what comes out.
  for (const name of ["start-1", "robust-1"]) {
    assertEquals(await readImage(`${out}/tiles/${name}.png`), tile);
  }
  const { metrics } = await recordOf(out);
  const { values } = metrics.robust as { values: Record<string, number[]> };
  assertAlmostEquals(values.distance[0], 0, 1e-6);
  // Rounding of the file to 256 levels is no part of the record.
  assertAlmostEquals(values.ssim[0], 1, 1e-6);
});

Deno.test("invert puts what is transparent on white", async () => {
  const { robust } = await prepared();
  const clear = await writePicture(`${folder}/invisible.png`, {
    width: 32,
    height: 32,
    alpha: 0,
  });
  const out = `${folder}/on white`;
  await succeed("invert", [
    ...["--model", robust, ...QUICK, "--out", out, "--steps", "1"],
    ...["--target", clear],
  ]);
  const { data } = await readImage(`${out}/tiles/target-1.png`);
  assert(data.every((value) => value === 1));
});

Deno.test("invert brings representations closer and repeats itself", async () => {
  const { robust, jpeg } = await prepared();
  const distance = async (...args: string[]) => {
    const json = `${folder}/closer.json`;
    const out = await Deno.makeTempDir({ dir: folder });
    await succeed("invert", [
      ...["--model", robust, ...QUICK, "--target", jpeg, "--out", out],
      ...["--json", json, ...args],
    ]);
    const { metrics } = await recordOf(json);
    return (metrics.robust as { values: { distance: number[] } })
      .values.distance[0];
  };
  const start = await distance("--steps", "0");
  const end = await distance("--steps", "40");
  assert(end < start, `${end} is not below ${start}`);
  assertEquals(await distance("--steps", "40"), end);
  assert(await distance("--steps", "0", "--seed", "7") !== start);
});

Deno.test("interpolate makes a figure of all frames", async () => {
  const { robust, standard, jpeg, png } = await prepared();
  const out = `${folder}/interpolation`;
  const stdout = await succeed("interpolate", [
    ...["--model", robust, "--standard", standard, ...QUICK, "--out", out],
    ...["--frames", "4", "--attack-steps", "3", "--attack-lr", "0.2"],
    ...[jpeg, png],
  ]);
  assertMatch(
    stdout,
    /^standard: normalised distance .+\nrobust: normalised distance .+\n.*\/figure\.png\n$/,
  );
  const record = await recordOf(out);
  const roles = ["standard", "robust"];
  assertRecord(record, { command: "interpolate", roles });
  assertEquals([record.flags.steps, record.flags.stepSize], [3, 0.2]);
  await assertFiles(out, record);
  assertEquals(record.files.length, 1 + 3 * 4);
  const { distances } = record.metrics.robust as { distances: number[] };
  assertEquals(distances.length, 4);
  // Both ends are the pictures themselves.
  assertAlmostEquals(distances[0], 0, 1e-6);
  assertAlmostEquals(distances[3], 0, 1e-6);
});

Deno.test("experiments without --out take the next free folder below results", async () => {
  const { robust, jpeg } = await prepared();
  const cwd = `${folder}/elsewhere`;
  await Deno.mkdir(cwd);
  const args = ["--model", robust, ...QUICK, "--steps", "1", "--target", jpeg];
  for (const name of ["invert", "invert-2"]) {
    const stdout = await succeed("invert", args, { cwd });
    assert(stdout.endsWith(`\nresults/${name}/figure.png\n`), stdout);
    assertEquals((await recordOf(`${cwd}/results/${name}`)).command, "invert");
  }
});

Deno.test("demo tells the story and lists every file", async () => {
  const out = `${folder}/demo`;
  const { code, stdout, stderr } = await run("demo", [
    ...[...QUICK, "--epochs", "1", "--limit", "64", "--steps", "2"],
    ...["--out", out],
  ]);
  assertEquals(code, 0, stderr);
  assertMatch(stdout, /^standard +[\d.]+% +[\d.]+% +[\d.]+ +[\d.]+$/m);
  assertMatch(stdout, /^robust +[\d.]+% +[\d.]+% +[\d.]+ +[\d.]+$/m);
  assertStringIncludes(stdout, `\n${out}/run.json\n`);
  assertMatch(stdout, /deno task web .*\n$/);
  for (const name of ["train", "evaluate", "invert", "interpolate"]) {
    assertStringIncludes(stderr, `\ndeno task ${name} --`);
  }
  const record = await recordOf(out);
  assertRecord(record, { command: "demo", roles: ["standard", "robust"] });
  const records = (path: string) => path.endsWith("run.json");
  const files = (await filesBelow(out)).filter((path) => !records(path));
  assertEquals(record.files.map(({ path }) => path).toSorted(), files);
});

/** Scripts with their permission sets. */
const SCRIPTS = ["train", "evaluate", "invert", "interpolate", "demo"];

for (const script of [...SCRIPTS, "download"]) {
  Deno.test(`${script} has a task and prints --help with any permissions`, async () => {
    const { command } = config.tasks[script as keyof typeof config.tasks];
    const set = script === "download" ? "-P=download" : "-P";
    assertEquals(command, `deno run ${set} scripts/${script}.ts`);
    for (const permissions of [["-P"], ["-A"], [set]]) {
      const help = await succeed(script, ["--help"], { permissions });
      assertStringIncludes(help, `Usage: deno run scripts/${script}.ts`);
      for (const flag of ["--quiet", "--debug", "--help", "--out <path>"]) {
        assertStringIncludes(help, flag);
      }
      if (script === "download") continue;
      for (const flag of ["--seed", "--json", "--device", "--threads"]) {
        assertStringIncludes(help, flag);
      }
    }
  });
}

Deno.test("experiments run with all permissions, too", async () => {
  const { robust, jpeg } = await prepared();
  const out = `${folder}/all permissions`;
  await succeed("invert", [
    ...["--model", robust, ...QUICK, "--steps", "1", "--target", jpeg],
    ...["--out", out],
  ], { permissions: ["-A"], cwd: ROOT });
  assertEquals((await recordOf(out)).files.length, 4);
});
