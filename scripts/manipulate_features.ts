/**
 * Adds a feature to pictures (paper, section 4.2.1, Fig. 11 and 23): ascends a
 * coordinate of the representation until it exceeds all others, or as the
 * reference code does until it reaches 1 (--stop clamp). With a robust network
 * a pattern appears that means something; with a standard one almost nothing.
 *
 *   deno run -P scripts/manipulate_features.ts --model runs/cifar-l2 \
 *     --standard runs/cifar-std --coordinate 12 a.png b.png
 *
 * What a feature stands for is told from the test images that activate it
 * most, if there are any: --data.
 *
 * @module
 */
import {
  addFeature,
  type FeatureStop,
  type JsonObject,
  type LoadedNetwork,
  optimizeInput,
  type OptimizeOptions,
  pixelDistances,
  ssim,
  type Tensor,
} from "../mod.ts";
import {
  type FlagTable,
  type ParsedFlags,
  runScript,
  type ScriptContext,
} from "./_cli.ts";
import {
  claimLines,
  type Claims,
  Experiment,
  EXPERIMENT_FLAGS,
  optimisationFlags,
  PRESET_FLAG,
  representationSize,
  withPreset,
} from "./_experiment.ts";

/** Flags of this script. */
export const FLAGS = {
  coordinate: {
    type: "integer",
    multiple: true,
    min: 0,
    help: "feature to add; may be repeated",
  },
  features: {
    type: "integer",
    default: 2,
    min: 1,
    help: "features to choose at random where none is named",
  },
  stop: {
    type: "choice",
    choices: ["exceed", "clamp"],
    default: "exceed",
    help: "when a picture has enough: its coordinate exceeds all others, or 1",
  },
  ...optimisationFlags(800),
  ...PRESET_FLAG,
  ...EXPERIMENT_FLAGS,
} as const satisfies FlagTable;

type Flags = ParsedFlags<typeof FLAGS>;

/** Options of `manipulate()`. */
export interface ManipulateOptions extends
  Pick<
    OptimizeOptions,
    | "steps"
    | "stepSize"
    | "epsilon"
    | "batchSize"
    | "fakeRelu"
    | "keep"
    | "signal"
    | "onStep"
  > {
  /** When an image has enough of its feature. */
  readonly stop: FeatureStop;
}

/**
 * Adds a feature to each image.
 *
 * @param model Network whose representation has the features
 * @param images `[n, 3, h, w]` in [0, 1]
 * @param coordinates Feature of each, `[n]`
 * @returns The images, and for each by how much it has arrived: see
 *   `addFeature()`
 */
export async function manipulate(
  { network }: Pick<LoadedNetwork, "network">,
  images: Tensor,
  coordinates: readonly number[],
  options: ManipulateOptions,
): Promise<{ images: Tensor; leads: Tensor }> {
  const { stop } = options;
  const isDone = (lead: number) => stop === "exceed" ? lead > 0 : lead >= 0;
  const size = representationSize({ network });
  const result = await optimizeInput(network, images, {
    ...options,
    objective: addFeature(coordinates, size, stop),
    direction: "maximize",
    onStep: (state) =>
      options.onStep?.(state) || state.losses.data.every(isDone),
  });
  return { images: result.images, leads: result.losses };
}

/** Makes the figure; the work of this script. */
export async function main(
  given: Flags,
  context: ScriptContext,
): Promise<void> {
  const flags = withPreset(given, context.args, FLAGS, {
    paper: { stop: "exceed" },
    code: { keep: "best", stop: "clamp", steps: 800, stepSize: 0.1 },
  });
  const experiment = await Experiment.open(
    "manipulate_features",
    flags,
    context,
  );
  const sources = await experiment.pictures(flags._);
  const title = "Features added to pictures";
  const [n] = sources.images.shape;
  const figure: { label: string; images: Tensor; captions?: string[] }[] = [
    { label: "original", images: sources.images },
  ];
  await experiment.preview(title, [
    ...figure,
    ...experiment.models.map(({ role }) => ({
      label: role,
      images: sources.images,
    })),
  ], sources.names);
  const metrics: Record<string, JsonObject> = {};
  for (const { role, model } of experiment.models) {
    const coordinates = await experiment.coordinates(model, flags);
    const all: Record<string, number[][]> = {};
    const features: JsonObject[] = [];
    for (const coordinate of coordinates) {
      const { onStep, done } = experiment.follow(role, "add feature", n, flags);
      const { images, leads } = await manipulate(
        model,
        sources.images,
        Array(n).fill(coordinate),
        {
          ...flags,
          stepSize: experiment.stepSize(flags),
          signal: context.signal,
          onStep,
        },
      );
      await done(images);
      const meaning = await experiment.featureClass(model, coordinate);
      figure.push({
        label: `${role}, feature ${coordinate}` +
          (meaning ? ` (${meaning})` : ""),
        images,
      });
      features.push({ coordinate, meaning });
      const values: Claims = {
        arrived: Array.from(
          leads.data,
          (lead) => (flags.stop === "exceed" ? lead > 0 : lead >= 0) ? 1 : 0,
        ),
        change: pixelDistances(images, sources.images),
        ssimToSource: ssim(images, sources.images),
        ...await judgedFeature(experiment, images, sources.images, meaning),
      };
      for (const [name, list] of Object.entries(values)) {
        (all[name] ??= []).push(Array.from(list));
      }
    }
    metrics[role] = { ...experiment.crossedMetrics(all), features };
  }
  const path = await experiment.figure(title, figure, sources.names);
  await experiment.finish(metrics);
  for (const line of claimLines(metrics)) context.print(line);
  context.print(path);
}

/** Whether the judge sees what the feature stands for, before and after. */
async function judgedFeature(
  experiment: Experiment,
  images: Tensor,
  before: Tensor,
  meaning: string | null,
): Promise<Claims> {
  if (meaning === null) return {};
  return await experiment.byJudge(async (judge) => {
    const sees = async (images: Tensor) =>
      (await experiment.classesSeen(judge, images)).map((name) =>
        name === meaning ? 1 : 0
      );
    return {
      judgeFeature: await sees(images),
      judgeFeatureBefore: await sees(before),
    };
  });
}

if (import.meta.main) {
  const positional = { name: "image", help: "pictures to change" };
  await runScript(import.meta, FLAGS, { positional }, main);
}
