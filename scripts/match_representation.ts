/**
 * Changes pictures as little as gradient steps do until they represent others
 * (paper, eq. 1, Fig. 2): with a standard network the result still looks like
 * the picture it started from; with a robust one it changes into the other.
 *
 *   deno run -P scripts/match_representation.ts --model runs/cifar-l2 \
 *     --standard runs/cifar-std x1.png x2.png
 *
 * The first picture is optimised to represent the second. Without pictures,
 * pairs of test images of different classes are taken.
 *
 * @module
 */
import { type JsonObject, pixelDistances, ssim, type Tensor } from "../mod.ts";
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
  type Pictures,
  PRESET_FLAG,
  TRAJECTORY_FLAG,
  withPreset,
} from "./_experiment.ts";
import { invert } from "./invert.ts";

/** Flags of this script. */
export const FLAGS = {
  ...optimisationFlags(1000),
  ...PRESET_FLAG,
  ...TRAJECTORY_FLAG,
  ...EXPERIMENT_FLAGS,
} as const satisfies FlagTable;

type Flags = ParsedFlags<typeof FLAGS>;

async function openPair(
  experiment: Experiment,
  paths: readonly string[],
): Promise<{ sources: Pictures; targets: Pictures }> {
  const [first, second] = [paths.slice(0, 1), paths.slice(1)];
  return {
    sources: await experiment.pictures(first, { part: 1 }),
    targets: await experiment.pictures(second),
  };
}

/** Makes the figure; the work of this script. */
export async function main(
  given: Flags,
  context: ScriptContext,
): Promise<void> {
  const flags = withPreset(given, context.args, FLAGS);
  if (flags._.length === 1) {
    throw new UsageError("Need two pictures, x1 and x2: 1 given");
  }
  const experiment = await Experiment.open(
    "match_representation",
    flags,
    context,
  );
  const { sources, targets } = await openPair(experiment, flags._);
  const title = "Pictures that represent others";
  const columns = targets.names.map((name, i) =>
    `${sources.names[i]}, ${name}`
  );
  const figure: { label: string; images: Tensor }[] = [
    { label: "x1", images: sources.images },
    { label: "x2", images: targets.images },
  ];
  await experiment.preview(title, [
    ...figure,
    ...experiment.models.map(({ role }) => ({
      label: role,
      images: sources.images,
    })),
  ], columns);
  const metrics: Record<string, JsonObject> = {};
  for (const { role, model } of experiment.models) {
    const [n] = sources.images.shape;
    const { onStep, observe, done } = experiment.follow(role, "match", n, {
      ...flags,
      names: columns,
    });
    const { images, distances } = await invert(
      model,
      targets.images,
      sources.images,
      {
        ...flags,
        stepSize: experiment.stepSize(flags),
        signal: context.signal,
        onStep,
        observe,
      },
    );
    await done(images);
    figure.push({ label: role, images });
    const { judge, robustJudge } = await experiment.judged(images, sources);
    metrics[role] = experiment.metrics({
      ...await experiment.claims(images, targets, distances.data),
      pixelDistanceToStart: pixelDistances(images, sources.images),
      ssimToStart: ssim(images, sources.images),
      ...(judge ? { judgeStart: judge } : {}),
      ...(robustJudge ? { robustJudgeStart: robustJudge } : {}),
    });
  }
  const path = await experiment.figure(title, figure, columns);
  await experiment.finish(metrics);
  for (const line of claimLines(metrics)) context.print(line);
  context.print(path);
}

if (import.meta.main) {
  const positional = { name: "image", help: "x1 and x2", max: 2 };
  await runScript(import.meta, FLAGS, { positional }, main);
}
