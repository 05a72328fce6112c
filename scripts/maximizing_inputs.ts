/**
 * What a coordinate stands for (paper, Fig. 8): the input that maximises it,
 * found from grey, beside the test images that activate it most and least.
 * With a robust network they show the same thing.
 *
 *   deno run -P scripts/maximizing_inputs.ts --model runs/cifar-l2 \
 *     --standard runs/cifar-std --data data --judge runs/judge
 *
 * @module
 */
import { full, type JsonObject, stack, type Tensor } from "../mod.ts";
import {
  type FlagTable,
  type ParsedFlags,
  runScript,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import {
  claimLines,
  Experiment,
  EXPERIMENT_FLAGS,
  optimisationFlags,
  PRESET_FLAG,
  withPreset,
} from "./_experiment.ts";
import { unstack } from "./_images.ts";
import { visualize } from "./visualize_features.ts";

/** Flags of this script. */
export const FLAGS = {
  coordinate: {
    type: "integer",
    multiple: true,
    min: 0,
    help: "feature to maximise; may be repeated",
  },
  features: {
    type: "integer",
    default: 4,
    min: 1,
    help: "features to choose at random where none is named",
  },
  top: {
    type: "integer",
    default: 3,
    min: 1,
    help: "test images to show that activate a feature most, and least",
  },
  ...optimisationFlags(1500),
  epsilon: {
    type: "number",
    default: 500,
    min: 0,
    aliases: ["eps"],
    help: "l2 radius around grey; 500 leaves it free",
  },
  stepSize: {
    type: "number",
    above: 0,
    aliases: ["attack-lr"],
    help: "length of a step; 0.05 up to 64 x 64 pixels, else 0.5",
  },
  keep: {
    type: "choice",
    choices: ["last", "best"],
    default: "best",
    help: "which iterate counts",
  },
  ...PRESET_FLAG,
  ...EXPERIMENT_FLAGS,
} as const satisfies FlagTable;

type Flags = ParsedFlags<typeof FLAGS>;

/** Makes the figure; the work of this script. */
export async function main(
  given: Flags,
  context: ScriptContext,
): Promise<void> {
  const flags = withPreset(given, context.args, FLAGS, {
    code: { keep: "best" },
  });
  const experiment = await Experiment.open("maximizing_inputs", flags, context);
  if (!experiment.hasTest) {
    throw new UsageError(
      "Missing flag --data, folder or archive of test images: pass --data <path>",
    );
  }
  const { classes, splits: { test } } = await experiment.test();
  const size = experiment.imageSize;
  const count = flags.coordinate.length || flags.features;
  const grey = full([count, 3, size, size], 0.5);
  const title = "Inputs and test images that activate a feature";
  const columns = [
    "maximising",
    ...Array.from({ length: flags.top }, (_, i) => `most ${i + 1}`),
    ...Array.from({ length: flags.top }, (_, i) => `least ${i + 1}`),
  ];
  await experiment.preview(
    title,
    experiment.models.map(({ role }) => ({ label: role, images: grey })),
    Array.from({ length: count }, (_, i) => `${i + 1}`),
  );
  const figure: { label: string; images: Tensor; captions: string[] }[] = [];
  const metrics: Record<string, JsonObject> = {};
  for (const { role, model } of experiment.models) {
    const coordinates = await experiment.coordinates(model, flags);
    const { onStep, observe, done } = experiment.follow(
      role,
      "maximise",
      count,
      flags,
    );
    const { images, activations } = await visualize(model, grey, coordinates, {
      ...flags,
      stepSize: flags.stepSize ?? experiment.stepSize({}) / 2,
      signal: context.signal,
      onStep,
      observe,
    }, experiment.random.bind(experiment));
    await done(images);
    const list = unstack(images);
    const values: Record<string, number[]> = {
      activation: Array.from(activations.data),
    };
    const nameOf = (index: number) => classes[test.labels[index]];
    const rankings: number[][] = [];
    for (const [i, coordinate] of coordinates.entries()) {
      const ranking = await experiment.ranking(model, coordinate);
      rankings.push(ranking);
      if (i >= flags.columns) continue;
      const indices = [
        ...ranking.slice(0, flags.top),
        ...ranking.slice(-flags.top).reverse(),
      ];
      figure.push({
        label: `${role}, feature ${coordinate}`,
        images: stack([list[i], ...unstack(await test.load(indices))]),
        captions: ["", ...indices.map(nameOf)],
      });
    }
    const judged = await experiment.byJudge(async (judge) => {
      const seen = await experiment.classesSeen(judge, images);
      const share = (part: (ranking: readonly number[]) => readonly number[]) =>
        rankings.map((ranking, i) =>
          part(ranking).filter((index) => nameOf(index) === seen[i]).length /
          part(ranking).length
        );
      return {
        judgeMost: share((ranking) => ranking.slice(0, TOP)),
        judgeLeast: share((ranking) => ranking.slice(-TOP)),
      };
    });
    metrics[role] = {
      ...experiment.metrics({ ...values, ...judged }),
      coordinates,
    };
  }
  const path = await experiment.recorder.figure(title, figure, columns);
  await experiment.finish(metrics);
  for (const line of claimLines(metrics)) context.print(line);
  context.print(path);
}

/** Test images whose classes are compared to what the judge sees. */
const TOP = 9;

if (import.meta.main) await runScript(import.meta, FLAGS, {}, main);
