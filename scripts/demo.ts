/**
 * The paper's story in five minutes on two CPU cores, with nothing to
 * download: trains a standard and a robust network on the embedded data set
 * of shapes, evaluates both, inverts and interpolates with both.
 *
 *   deno task demo
 *
 * Each shape carries a faint pattern that betrays its class (see
 * datasets/shapes.ts). The standard network leans on the pattern, so small
 * perturbations fool it, and a picture takes on another's representation while
 * it looks the same (paper, Fig. 2); the robust one has to see the shape, so
 * that its inversions change into the target's. Every step is one of the other
 * scripts, whose command is printed.
 *
 * @module
 */
import { type JsonObject, openDataset, readRun, type Run } from "../mod.ts";
import {
  COMMON_FLAGS,
  type FlagTable,
  type ParsedFlags,
  runScript,
  type ScriptContext,
} from "./_cli.ts";
import { unstack } from "./_images.ts";
import { callScript, percent, Recorder, type Script } from "./_run.ts";
import * as evaluate from "./evaluate.ts";
import * as interpolate from "./interpolate.ts";
import * as invert from "./invert.ts";
import * as train from "./train.ts";

const SCRIPTS = { train, evaluate, interpolate, invert } as const;

const FLAGS = {
  out: { type: "path", help: "folder; a new one below results/ if not given" },
  epochs: {
    type: "integer",
    min: 1,
    help: "epochs of both trainings (default: standard 1, robust 5)",
  },
  limit: { type: "integer", min: 10, help: "use this many images" },
  steps: { type: "integer", default: 300, min: 1, help: "inversion steps" },
  ...COMMON_FLAGS,
} as const satisfies FlagTable;

/**
 * A small network that two cores train in minutes. No augmentation: its crops
 * bring black edges, which inversions then show.
 */
const TRAINING = [
  ...["--dataset", "shapes", "--arch", "resnet10", "--width", "16"],
  ...["--batch-size", "64", "--schedule", "cyclic", "--learning-rate", "0.2"],
  ...["--augmentation", "none", "--eval-images", "0"],
];

/**
 * Radius that the robust network is trained against: if spread evenly, 9 of
 * 255 levels at each value. Shapes and backgrounds are 100 apart in red.
 */
const EPSILON = 2;

/** Class of the picture that inversions start from. */
const SEED = "heart";

/** Test images that are inverted, one of each of the first classes. */
const TARGETS = 6;

async function main(
  flags: ParsedFlags<typeof FLAGS>,
  context: ScriptContext,
): Promise<void> {
  const recorder = await Recorder.open("demo", flags, flags.out, context);
  const out = recorder.folder!;
  const { seed, device, threads } = flags;
  const common = [
    ...["--seed", `${seed}`, "--device", device],
    ...(threads ? ["--threads", `${threads}`] : []),
  ];

  /** Runs a script as the command line would, and reads its record. */
  const run = async (
    name: keyof typeof SCRIPTS,
    folder: string,
    args: readonly string[],
  ): Promise<Run> => {
    const argv = [...args, "--out", `${out}/${folder}`, ...common];
    context.note(`\ndeno task ${name} ${argv.join(" ")}`);
    // Each parses with its own table, so its flags are of its own type.
    await callScript(SCRIPTS[name] as unknown as Script, argv, context);
    const run = await readRun(`${out}/${folder}`);
    recorder.include(folder, run.files);
    return run;
  };

  const limit = flags.limit ? ["--limit", `${flags.limit}`] : [];
  const epochs = (count: number) => ["--epochs", `${flags.epochs ?? count}`];
  const standard = await run("train", "standard", [
    ...TRAINING,
    ...limit,
    ...epochs(1),
    ...["--epsilon", "0"],
  ]);
  const robust = await run("train", "robust", [
    ...TRAINING,
    ...limit,
    ...epochs(5),
    ...["--epsilon", `${EPSILON}`, "--attack-steps", "2"],
    ...["--step-size", `${0.6 * EPSILON}`, "--epsilon-warmup", "1.5"],
  ]);
  const models = { standard: `${out}/standard`, robust: `${out}/robust` };
  const accuracies: Record<string, JsonObject> = {};
  for (const [role, model] of Object.entries(models)) {
    const { metrics } = await run("evaluate", `evaluate-${role}`, [
      ...["--model", model, "--epsilon", `${EPSILON}`],
      ...["--attack-steps", "20", "--limit", `${flags.limit ?? 400}`],
    ]);
    accuracies[role] = metrics;
  }
  const [start, ...images] = await writeImages(recorder);
  const pair = ["--model", models.robust, "--standard", models.standard];
  const steps = ["--steps", `${flags.steps}`];
  const targets = images.flatMap((path) => ["--target", path]);
  const inversion = await run("invert", "invert", [
    ...[...pair, ...steps, ...targets],
    ...["--from", start],
  ]);
  const fromNoise = await run("invert", "invert-from-noise", [
    ...[...pair, ...steps, ...targets],
  ]);
  const interpolation = await run("interpolate", "interpolate", [
    ...pair,
    ...steps,
    ...["--frames", "8", images[0], images[3]],
  ]);

  const metrics = {
    accuracies,
    inversion: inversion.metrics,
    inversionFromNoise: fromNoise.metrics,
    interpolation: interpolation.metrics,
    seconds: { standard: standard.seconds, robust: robust.seconds },
  };
  const { provider } = robust;
  const { weights } = inversion;
  await recorder.write({ provider, weights, metrics }, flags.json);
  for (const line of story(metrics, out)) context.print(line);
}

/** Writes the seed image and the targets; returns the paths. */
async function writeImages(recorder: Recorder): Promise<string[]> {
  const dataset = await openDataset("shapes", { splits: ["test"] });
  const { classes, splits: { test } } = dataset;
  const names = [SEED, ...classes.slice(0, TARGETS)];
  const indices = names.map((name) =>
    test.labels.indexOf(classes.indexOf(name))
  );
  const images = unstack(await test.load(indices));
  dataset.close();
  const paths: string[] = [];
  for (const [i, image] of images.entries()) {
    paths.push(await recorder.tile(`images/${names[i]}`, image, names[i]));
  }
  return paths;
}

/** The numbers that tell the story, and where the figures are. */
function story(
  { accuracies, inversion }: {
    readonly accuracies: Readonly<Record<string, JsonObject>>;
    readonly inversion: JsonObject;
  },
  out: string,
): string[] {
  const rows = ["standard", "robust"].map((role) => {
    const { clean, adversarial } = accuracies[role] as Record<string, number>;
    const { values } = inversion[role] as {
      readonly values: Readonly<Record<string, readonly number[]>>;
    };
    return [
      role.padEnd(10),
      percent(clean).padStart(8),
      percent(adversarial).padStart(12),
      mean(values.distance).toFixed(3).padStart(18),
      mean(values.pixelDistance).toFixed(2).padStart(16),
    ].join("");
  });
  return [
    "",
    "network      clean  under attack  distance reached  pixels to target",
    ...rows,
    "",
    `under attack: accuracy under PGD-20, l2, epsilon ${EPSILON}`,
    `distance reached: ||R(x) - R(t)|| / ||R(t)|| of inversions from a ${SEED}`,
    "pixels to target: l2 distance of inversions to the pictures they represent",
    "",
    "Both networks are satisfied, but look at the pictures: under the robust one",
    `the ${SEED} turns into each target, and between two targets into both in turn;`,
    `under the standard one it stays a ${SEED}, and a double exposure.`,
    "",
    `${out}/invert/figure.png`,
    `${out}/invert-from-noise/figure.png`,
    `${out}/interpolate/figure.png`,
    `${out}/run.json`,
    "",
    "deno task web shows all of it, and inverts your own picture in the browser",
  ];
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}

if (import.meta.main) await runScript(import.meta, FLAGS, {}, main);
