/**
 * The training script end to end: records, cards, and above all that killing
 * and resuming it changes nothing.
 */
import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertStringIncludes,
} from "@std/assert";
import { Random } from "../../core/mod.ts";
import { type Card, weightsHash } from "../../models/mod.ts";
import { readCheckpoint } from "../../models/files.ts";
import { decodeTraining } from "../../robust/mod.ts";
import {
  command,
  type Ended,
  exists,
  filesBelow,
  recordOf,
  run,
  SMALL,
  succeed,
  writeClasses,
} from "./_script.ts";

/** Checks that the tests below share the work of. */
const folder = await Deno.makeTempDir({ prefix: "robust-reps-train-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

/** Trains into a folder below the shared one. */
async function train(name: string, ...args: string[]): Promise<string> {
  const out = `${folder}/${name}`;
  await succeed("train", [...SMALL, "--out", out, ...args]);
  return out;
}

let whole: Promise<string> | undefined;

/** Folder of a training that nothing interrupted. */
function uninterrupted(): Promise<string> {
  return whole ??= train("whole");
}

/** Hashes of the network and of everything training goes on from. */
async function bitsOf(out: string): Promise<string[]> {
  const { card } = await readCheckpoint(`${out}/model.safetensors`);
  const path = `${out}/training.safetensors`;
  const { state } = await decodeTraining(await Deno.readFile(path), path);
  const { parameters, velocity, average } = state;
  return [
    card.weightsSha256!,
    await weightsHash(parameters),
    await weightsHash(velocity),
    await weightsHash(average),
    `epoch ${state.epoch}, step ${state.step}`,
  ];
}

async function cardOf(out: string): Promise<Card> {
  return (await readCheckpoint(`${out}/model.safetensors`)).card;
}

/** Continues a run; one killed before its record began is started again. */
async function resume(out: string): Promise<Ended> {
  const started = await exists(`${out}/run.json`);
  const flags = started ? [] : SMALL;
  const ended = await run("train", ["--resume", "--out", out, ...flags]);
  assertEquals(ended.code, 0, ended.stderr);
  return ended;
}

Deno.test("train writes a network, a state and the record of the run", async () => {
  const json = `${folder}/new folder/record.json`;
  const out = `${folder}/recorded`;
  const { code, stdout, stderr } = await run("train", [
    ...SMALL,
    ...["--out", out, "--json", json, "--seed", "3"],
  ]);
  assertEquals(code, 0, stderr);
  assertEquals(stdout, `${out}/model.safetensors\n`);
  assertMatch(stderr, /^Epoch 1: loss \d.*PGD-2.*\(16 images\)$/m);
  const files = ["model.safetensors", "run.json", "training.safetensors"];
  assertEquals(await filesBelow(out), files);

  const record = await recordOf(out);
  assertEquals(await recordOf(json), record);
  assertEquals(record.schemaVersion, 1);
  assertEquals(record.command, "train");
  assertEquals(record.seed, 3);
  assertEquals(record.provider, "cpu");
  assertEquals(record.flags.width, 2);
  assertEquals(record.flags.momentum, 0.9);
  assertEquals(record.argv?.includes("--eval-images"), true);
  const packages = ["deno", "onnxruntime-node", "robust-reps"];
  assertEquals(Object.keys(record.versions).sort(), packages);
  assertEquals(record.metrics.epoch, 2);
  assertEquals(record.history?.length, 2);
  assertEquals(record.files.map(({ path }) => path).sort(), [
    "model.safetensors",
    "training.safetensors",
  ]);
  assert(record.seconds > 0 && record.seconds < 600);
  assert(Math.abs(Date.now() - Date.parse(record.startedAt)) < 600_000);
  const card = await cardOf(out);
  assertEquals(record.weights, [{
    role: "trained",
    path: "model.safetensors",
    sha256: card.weightsSha256!,
  }]);
});

Deno.test("train puts a card into the checkpoint", async () => {
  const card = await cardOf(await uninterrupted());
  assertEquals([card.architecture, card.form, card.width], [
    "resnet10",
    "cifar",
    2,
  ]);
  assertEquals([card.dataset, card.imageSize], ["shapes", 32]);
  assertEquals(card.classes.length, 10);
  assertEquals([card.epoch, card.seed], [2, 0]);
  assertEquals(card.attack, {
    norm: "l2",
    epsilon: 0.5,
    steps: 2,
    stepSize: 0.1,
    randomStart: true,
  });
  assertEquals(card.accuracies.images, 16);
  assertEquals(card.accuracies.adversarial?.[0].stepSize, 2.5 * 0.5 / 2);
  assertStringIncludes(card.command!, "deno task train --arch resnet10");
  assert(Object.hasOwn(card.versions!, "onnxruntime-node"));
});

Deno.test("train understands the reference library's names", async () => {
  const out = await train(
    "aliases",
    ...["--eps", "0.25", "--constraint", "inf", "--attack-lr", "0.125"],
    ...["--step-lr", "1", "--lr", "0.05", "--eval-images", "0"],
  );
  const { attack, accuracies } = await cardOf(out);
  assertEquals([attack?.norm, attack?.epsilon], ["linf", 0.25]);
  assertEquals(attack?.stepSize, 0.125);
  assertEquals(accuracies, {});
  const { history } = await recordOf(out);
  const rates = history!.map(({ learningRate }) => learningRate as number);
  assertEquals(rates.map((rate) => rate.toFixed(6)), ["0.050000", "0.005000"]);
  const standard = await train("standard", "--adv-train", "0");
  assertEquals((await cardOf(standard)).attack, null);
});

Deno.test("train gives the same bits for the same seed only", async () => {
  const bits = await bitsOf(await uninterrupted());
  assertEquals(await bitsOf(await train("again")), bits);
  const other = await bitsOf(await train("other", "--seed", "1"));
  assertNotEquals(other[0], bits[0]);
});

Deno.test("train prints nothing on stderr with --quiet", async () => {
  const out = `${folder}/quiet`;
  const ended = await run("train", [...SMALL, "--out", out, "--quiet"]);
  assertEquals(ended, {
    code: 0,
    stdout: `${out}/model.safetensors\n`,
    stderr: "",
  });
});

Deno.test("train needs no test split", async () => {
  const data = `${folder}/only train`;
  await writeClasses(`${data}/train`, ["a", "b"], 16);
  const out = await train(
    "trained on a folder",
    ...["--dataset", "image_folder", "--data", data, "--limit", "32"],
  );
  const { classes, imageSize, accuracies } = await cardOf(out);
  assertEquals([classes, imageSize, accuracies], [["a", "b"], 16, {}]);
});

/** Kills a training with SIGKILL when `moment` resolves. */
async function killed(
  out: string,
  args: readonly string[],
  moment: () => Promise<void>,
): Promise<boolean> {
  const child = command("train", [...args, "--out", out, "--quiet"]).spawn();
  await Promise.race([moment(), child.status]);
  try {
    child.kill("SIGKILL");
  } catch (error) {
    // It ended by itself; its status may still be on the way.
    if (!(error instanceof TypeError)) throw error;
  }
  const { signal } = await child.status;
  await Promise.all([child.stdout.cancel(), child.stderr.cancel()]);
  return signal === "SIGKILL";
}

function after(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Resolves when a file below a folder, or its temporary one, changes. */
async function whenTouched(out: string, part: string): Promise<void> {
  await Deno.mkdir(out, { recursive: true });
  using watcher = Deno.watchFs(out);
  // Enough for any training here; a test must not wait for ever.
  const timer = setTimeout(() => watcher.close(), 60_000);
  try {
    for await (const { paths } of watcher) {
      if (paths.some((path) => path.includes(part))) return;
    }
  } finally {
    clearTimeout(timer);
  }
}

const isWindows = Deno.build.os === "windows";

for (
  const file of ["run.json", "training.safetensors", "model.safetensors"]
) {
  for (const part of [`/.${file}.`, `/${file}`]) {
    Deno.test({
      name: `train killed while it writes ${part} resumes to the same bits`,
      ignore: isWindows,
      fn: async () => {
        const bits = await bitsOf(await uninterrupted());
        const out = `${folder}/killed at ${part.replaceAll("/", "")}`;
        await Deno.mkdir(out);
        assert(await killed(out, SMALL, () => whenTouched(out, part)));
        await resume(out);
        assertEquals(await bitsOf(out), bits);
        assertEquals((await filesBelow(out)).length, 3);
      },
    });
  }
}

Deno.test({
  name: "train killed at random moments resumes to the same bits (seed 0)",
  ignore: isWindows,
  fn: async () => {
    const bits = await bitsOf(await uninterrupted());
    const { seconds } = await recordOf(await uninterrupted());
    const random = new Random(0);
    for (let i = 0; i < 3; i++) {
      const out = `${folder}/killed ${i}`;
      const moment = () => after(random.uniform() * (300 + 1000 * seconds));
      // Twice in a row, the second time while it resumes.
      await killed(out, SMALL, moment);
      const started = await exists(`${out}/run.json`);
      await killed(
        out,
        started ? ["--resume"] : [...SMALL, "--resume"],
        moment,
      );
      await resume(out);
      assertEquals(await bitsOf(out), bits);
      const { epoch, command = "" } = await cardOf(out);
      assertEquals(epoch, 2);
      // Not only "--resume --out ...", which would not make it again.
      assertStringIncludes(command, "--arch resnet10 --width 2");
    }
  },
});

Deno.test({
  name: "train stopped by Ctrl-C says how to continue, in the same bits",
  ignore: isWindows,
  fn: async () => {
    // One long epoch: what is saved is in the middle of it.
    const length = ["--limit", "320", "--epochs", "1", "--attack-steps", "7"];
    const long = [...SMALL, ...length, "--ema", "0.9"];
    const bits = await bitsOf(await train("long", ...long));
    const out = `${folder}/stopped by Ctrl-C`;
    const child = command("train", [...long, "--out", out]).spawn();
    let stderr = "";
    const decoder = new TextDecoder();
    for await (const bytes of child.stderr) {
      stderr += decoder.decode(bytes, { stream: true });
      if (stderr.includes("draw test:") && !stderr.includes("stopping")) {
        await after(200);
        child.kill("SIGINT");
        stderr += "stopping\n";
      }
    }
    const { code } = await child.status;
    await child.stdout.cancel();
    assertEquals(code, 130, stderr);
    const errors = stderr.split("\n").filter((line) => line.includes("error:"));
    assertEquals(errors, [
      "error: Stopped by SIGINT; continue with: deno task train --resume " +
      `--out '${out}'`,
    ]);
    const before = await bitsOf(out);
    assertMatch(before.at(-1)!, /^epoch 0, step [1-9]\d*$/);
    const { stderr: resumed } = await resume(out);
    assertStringIncludes(resumed, "epoch 1/1: 20 in ");
    assertEquals(await bitsOf(out), bits);
    assertEquals((await recordOf(out)).flags.ema, 0.9);
  },
});

Deno.test("train --resume of a finished run changes nothing", async () => {
  const out = await train("finished");
  const read = () =>
    Promise.all(
      ["run.json", "model.safetensors", "training.safetensors"].map((name) =>
        Deno.readFile(`${out}/${name}`)
      ),
    );
  const before = await read();
  const { stderr, stdout } = await resume(out);
  assertStringIncludes(stderr, `Nothing to resume: "${out}" has all its`);
  assertEquals(stdout, `${out}/model.safetensors\n`);
  assertEquals(await read(), before);
});

Deno.test("train --resume writes the network anew if only it is gone", async () => {
  const out = await train("without network");
  const { weightsSha256 } = await cardOf(out);
  await Deno.remove(`${out}/model.safetensors`);
  await resume(out);
  assertEquals((await cardOf(out)).weightsSha256, weightsSha256);
});

Deno.test("train --resume takes other threads and refuses other settings", async () => {
  const out = `${folder}/cut`;
  const args = [...SMALL, "--out", out];
  if (!isWindows) {
    await Deno.mkdir(out);
    await killed(out, SMALL, () => whenTouched(out, "/model.safetensors"));
  } else await succeed("train", args);
  const refused = await run("train", [
    ...["--resume", "--out", out, "--epsilon", "1", "--quiet"],
  ]);
  assertEquals(refused, {
    code: 2,
    stdout: "",
    stderr: `error: Cannot resume "${out}" with --epsilon 1: it was started ` +
      "with 0.5; leave the flag out, or train into another --out\n",
  });
  // The same flags again are no conflict.
  await succeed("train", [
    ...args,
    ...["--resume", "--threads", "2", "--device", "auto"],
  ]);
  assertEquals((await cardOf(out)).epoch, 2);
  assertEquals((await recordOf(out)).flags.threads, 2);
});

Deno.test("train --resume with flags starts a run where there is none", async () => {
  const out = `${folder}/none yet`;
  await succeed("train", [...SMALL, "--resume", "--out", out]);
  const bits = await bitsOf(await uninterrupted());
  assertEquals(await bitsOf(out), bits);
});

Deno.test("train stops when the loss is no number and leaves no half run", async () => {
  const out = `${folder}/diverged`;
  const args = [...SMALL, "--out", out, "--learning-rate", "1e30", "--quiet"];
  const ended = await run("train", args);
  assertEquals([ended.code, ended.stdout], [1, ""]);
  assertMatch(
    ended.stderr,
    /^error: Cannot go on training as .*NaN.* lower the learning rate\n$/,
  );
  assertEquals(await filesBelow(out), []);
  // The folder is free for another try.
  await succeed("train", [...SMALL, "--out", out]);
});
