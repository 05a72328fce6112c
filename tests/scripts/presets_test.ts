/**
 * Presets, and the warning of catastrophic overfitting.
 */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { sizeOf } from "../../core/mod.ts";
import { type Architecture, modelParameters } from "../../models/mod.ts";
import { readCheckpoint } from "../../models/files.ts";
import { parseFlags, UsageError } from "../../scripts/_flags.ts";
import {
  EVALUATE_PRESETS,
  expandPresets,
  TRAIN_PRESETS,
} from "../../scripts/_presets.ts";
import { FLAGS as EVALUATE } from "../../scripts/evaluate.ts";
import { FLAGS as TRAIN, overfittingWarning } from "../../scripts/train.ts";
import { recordOf, run, SMALL, succeed } from "./_script.ts";

const folder = await Deno.makeTempDir({ prefix: "robust-reps-presets-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

/** Expands the presets of a command line of train; with the notes made. */
function expanded(...args: string[]): { args: string[]; notes: string[] } {
  const notes: string[] = [];
  const { preset } = parseFlags(args, TRAIN);
  return {
    args: expandPresets(args, preset, TRAIN, TRAIN_PRESETS, (text) => {
      notes.push(text);
    }),
    notes,
  };
}

Deno.test("every preset is a command line, and its network can be shipped", () => {
  for (const [name, { args }] of Object.entries(TRAIN_PRESETS)) {
    const flags = parseFlags(args.split(" "), TRAIN);
    if (name === "paper" || name === "code") continue;
    const parameters = modelParameters({
      architecture: flags.arch as Architecture,
      form: "cifar",
      width: flags.width,
      classes: 10,
      mean: [0, 0, 0],
      std: [1, 1, 1],
    });
    const count = [...parameters.values()]
      .reduce((sum, { node }) => sum + sizeOf(node.shape), 0);
    assert(2 * count <= 11.9e6, `${name} takes ${2 * count} bytes`);
    assertEquals(flags.data, "data");
  }
  for (const { args } of Object.values(EVALUATE_PRESETS)) {
    parseFlags(args.split(" "), EVALUATE);
  }
});

Deno.test("judges and VGGs are no copies of the networks they judge", () => {
  const of = (name: string) =>
    parseFlags(TRAIN_PRESETS[name].args.split(" "), TRAIN);
  for (const data of ["cifar10", "tiny"]) {
    const [robust, standard, vgg, judge] = ["l2", "standard", "vgg", "judge"]
      .map((kind) => of(`${data}-${kind}`));
    assertEquals([robust.arch, robust.width], [standard.arch, standard.width]);
    assert(robust.epsilon > 0);
    assertEquals([standard.epsilon, vgg.epsilon, judge.epsilon], [0, 0, 0]);
    assert(judge.arch !== standard.arch && judge.seed !== standard.seed);
    assertMatch(vgg.arch, /^vgg16/);
  }
  // Twice the length at 64 x 64: lengths grow with the root of the pixels.
  assertEquals(of("tiny-l2").epsilon, 2 * of("cifar10-l2").epsilon);
});

Deno.test("expandPresets() puts each flag once, and notes what replaces a preset's", () => {
  const { args, notes } = expanded(
    ...["--preset", "cifar10-l2", "--out", "a", "--width=8", "--eps", "0.25"],
    ...["--data", "data"],
  );
  const flags = parseFlags(args, TRAIN);
  assertEquals([flags.width, flags.epsilon, flags.dataset], [
    ...[8, 0.25, "cifar10"],
  ]);
  const before = parseFlags(TRAIN_PRESETS["cifar10-l2"].args.split(" "), TRAIN);
  assertEquals([flags.epochs, flags.preset], [before.epochs, []]);
  assertEquals(notes, [
    `--width 8 in place of ${before.width} of preset cifar10-l2`,
    "--epsilon 0.25 in place of 0.5 of preset cifar10-l2",
  ]);
  for (const name of ["width", "epsilon", "data"]) {
    const given = args.filter((arg) => arg.replace(/=.*/, "") === `--${name}`);
    assert(given.length <= 1, `${given}`);
  }
  assertEquals(args.filter((arg) => arg === "--eps").length, 1);
  assertEquals(expanded("--out", "a").args, ["--out", "a"]);
});

Deno.test("preset code takes the weight decay of the data set, paper one for all", () => {
  const decay = (...args: string[]) =>
    parseFlags(expanded(...args).args, TRAIN);
  const code = decay("--preset", "code", "--dataset", "cifar10");
  assertEquals([code.weightDecay, code.randomStart], [5e-4, false]);
  assertEquals(decay("--preset", "tiny-l2", "--preset=code").weightDecay, 1e-4);
  const paper = decay("--preset", "tiny-l2", "--preset", "paper");
  assertEquals([paper.weightDecay, paper.randomStart], [5e-4, true]);
  const own = expanded(
    ...["--preset", "code", "--dataset", "imagenet", "--weight-decay", "0"],
  );
  assertEquals(parseFlags(own.args, TRAIN).weightDecay, 0);
});

Deno.test("an unknown preset is a mistake in the command line", () => {
  assertThrows(
    () => parseFlags(["--preset", "cifar10"], TRAIN),
    UsageError,
    "--preset must be cifar10-l2,",
  );
});

Deno.test("train --preset records its flags, and --resume takes it again", async () => {
  const out = `${folder}/run`;
  const args = [...SMALL, "--preset", "code", "--out", out, "--epochs", "1"];
  await succeed("train", args);
  const { card } = await readCheckpoint(`${out}/model.safetensors`);
  assertEquals(card.attack?.randomStart, false);
  assertEquals(card.training?.preset, "code");
  assertEquals(card.training?.threads, 1);
  assert(card.training!.seconds > 0 && card.training!.cpu.length > 0);
  assertEquals(card.data?.name, "shapes");
  assertMatch(card.command!, /^deno task train --no-random-start /);
  assert(!card.command!.includes("--preset"));
  const { flags, metrics } = await recordOf(out);
  assertEquals([flags.preset, flags.randomStart], [["code"], false]);
  for (const name of ["trainClean", "trainAdversarial"]) {
    const share = Number(metrics[name]);
    assert(share >= 0 && share <= 1, `${name}: ${metrics[name]}`);
  }
  const again = await run("train", [...args, "--resume"]);
  assertEquals(again.code, 0, again.stderr);
  assertMatch(again.stderr, /Nothing to resume/);
});

Deno.test("overfittingWarning() speaks where PGD breaks what the attack of training does not", () => {
  const warned = (
    accuracy: number,
    trainAdversarial: number,
    { trained = 0.5, epsilon = 0.5 } = {},
  ) =>
    overfittingWarning(
      { epsilon: trained },
      { epoch: 3, accuracy },
      { trainAdversarial, epsilon, steps: 10 },
    );
  assertEquals(warned(0.5, 0.52), null);
  assertEquals(warned(0.6, 0.4), null);
  // Near chance, and against another radius than that of training.
  assertEquals(warned(0.2, 0.08), null);
  assertEquals(warned(0.9, 0.1, { epsilon: 1 }), null);
  assertMatch(
    warned(0.95, 0.01)!,
    /^Catastrophic overfitting in epoch 3: 95.0% of attacked .* 1.0% under PGD-10; train with more --attack-steps/,
  );
  assertMatch(
    overfittingWarning({ epsilon: 0.5 }, { epoch: 3, accuracy: 0.95 }, {
      trainAdversarial: 0.01,
      epsilon: 0.5,
      steps: 10,
    }, 2)!,
    /under PGD-10; going on with PGD-2$/,
  );
  assertEquals(
    overfittingWarning(null, { epoch: 1, accuracy: 0.9 }, {
      trainAdversarial: 0,
      epsilon: 0.5,
      steps: 10,
    }),
    null,
  );
});
