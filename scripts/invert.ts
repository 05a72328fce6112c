/**
 * Inverts representations: optimises a start until its representation matches
 * a target's (paper, eq. 4, Fig. 3, 6 and 13 to 16). With a robust network the
 * result looks like the target; with a standard one it does not.
 *
 *   deno run -P scripts/invert.ts --model runs/cifar-l2 \
 *     --standard runs/cifar-std --target a.png --from noise
 *   deno run -P scripts/invert.ts --model runs/cifar-l2 --data data \
 *     --images 64 --from images --judge runs/judge
 *
 * Without a picture the targets are test images; with --ood they are patterns
 * of a kaleidoscope, and the pictures in the folder of --ood-data, if given.
 * The paper takes 10,000 steps; a few hundred show the picture.
 *
 * @module
 */
import {
  type JsonObject,
  kaleidoscope,
  listImages,
  type LoadedNetwork,
  matchRepresentation,
  optimizeInput,
  type OptimizeOptions,
  stack,
  type Tensor,
} from "../mod.ts";
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
  repeated,
  TRAJECTORY_FLAG,
  withPreset,
} from "./_experiment.ts";
import { classNames, noiseSeeds, readImages, unstack } from "./_images.ts";

/** Flags of this script. */
export const FLAGS = {
  target: {
    type: "path",
    multiple: true,
    help: "picture to represent; may be repeated",
  },
  from: {
    type: "string",
    default: "noise",
    help: "where to start: noise, images (other test images), or a picture",
  },
  ood: {
    type: "boolean",
    help: "represent what is unlike the training images",
  },
  oodData: {
    type: "path",
    help: "folder of pictures of classes that were not trained on",
  },
  ...optimisationFlags(10_000),
  ...PRESET_FLAG,
  ...TRAJECTORY_FLAG,
  ...EXPERIMENT_FLAGS,
} as const satisfies FlagTable;

type Flags = ParsedFlags<typeof FLAGS>;

/** Options of `invert()`. */
export type InvertOptions = Pick<
  OptimizeOptions,
  | "steps"
  | "stepSize"
  | "epsilon"
  | "center"
  | "batchSize"
  | "fakeRelu"
  | "keep"
  | "signal"
  | "onStep"
  | "observe"
>;

/** Inverted images and how well they match. */
export interface Inversion {
  /** `[n, 3, h, w]` */
  readonly images: Tensor;
  /** Normalised distance of representations, `[n]`. */
  readonly distances: Tensor;
}

/**
 * Inverts the representations of targets.
 *
 * @param model Network whose representation is inverted
 * @param targets `[n, 3, h, w]` in [0, 1]
 * @param starts Where to start, of the same shape
 */
export async function invert(
  { network }: Pick<LoadedNetwork, "network">,
  targets: Tensor,
  starts: Tensor,
  options: InvertOptions,
): Promise<Inversion> {
  const { representation } = await network.predict(targets, options);
  const { images, losses } = await optimizeInput(network, starts, {
    ...options,
    objective: matchRepresentation(representation),
  });
  return { images, distances: losses };
}

/** Patterns and pictures unlike the training images, in turn. */
async function outOfDistribution(
  { flags, random, imageSize }: {
    readonly flags: Flags;
    readonly random: Experiment["random"];
    readonly imageSize: number;
  },
): Promise<Pictures> {
  const { images: count, oodData } = flags;
  const files = oodData === undefined ? [] : await listImages(oodData);
  if (oodData !== undefined && files.length === 0) {
    throw new UsageError(`No picture to invert: "${oodData}" holds none`);
  }
  // Spread over the folder: neighbours are of one class.
  const pictures = oodData === undefined ? 0 : Math.floor(count / 2);
  const paths = Array.from(
    { length: pictures },
    (_, i) => files[Math.floor(i * files.length / pictures)],
  );
  const patterns = Array.from(
    { length: count - pictures },
    (_, i) => kaleidoscope(imageSize, random("kaleidoscope", i)),
  );
  const read = paths.length > 0
    ? unstack(await readImages(paths, { imageSize }))
    : [];
  const images = stack([...patterns, ...read]);
  const names = [
    ...patterns.map((_, i) => `pattern ${i + 1}`),
    ...paths.map((path) => path.split(/[\\/]/).at(-2) ?? path),
  ];
  return { images, names, classes: null, indices: null };
}

/** Targets of the experiment. */
async function openTargets(
  experiment: Experiment,
  flags: Flags,
): Promise<Pictures> {
  const paths = [...flags.target, ...flags._];
  if (!flags.ood) return await experiment.pictures(paths);
  if (paths.length > 0) {
    throw new UsageError(
      "Cannot invert named pictures and --ood at once: leave one out",
    );
  }
  const { imageSize } = experiment;
  const random = experiment.random.bind(experiment);
  return await outOfDistribution({ flags, random, imageSize });
}

async function openStarts(
  experiment: Experiment,
  { images }: Pictures,
  from: string,
): Promise<Tensor> {
  const [n] = images.shape;
  if (from === "noise") return noiseSeeds(images.shape, experiment.random());
  if (from !== "images") {
    return repeated(await readImages([from], experiment), n);
  }
  return (await experiment.pictures([], { part: 1, count: n })).images;
}

/** Makes the figure; the work of this script. */
export async function main(
  given: Flags,
  context: ScriptContext,
): Promise<void> {
  const flags = withPreset(given, context.args, FLAGS);
  const experiment = await Experiment.open("invert", flags, context);
  const { signal, print } = context;
  const targets = await openTargets(experiment, flags);
  const starts = await openStarts(experiment, targets, flags.from);
  const title = flags.ood
    ? "Inverted representations of unknown images"
    : "Inverted representations";
  const figure: { label: string; images: Tensor }[] = [
    { label: "target", images: targets.images },
    { label: "start", images: starts },
  ];
  await experiment.preview(title, [
    ...figure,
    ...experiment.models.map(({ role }) => ({ label: role, images: starts })),
  ], targets.names);
  const metrics: Record<string, JsonObject> = {};
  for (const { role, model } of experiment.models) {
    const [n] = starts.shape;
    const { onStep, observe, done } = experiment.follow(role, "invert", n, {
      ...flags,
      names: targets.names,
    });
    const { images, distances } = await invert(model, targets.images, starts, {
      ...flags,
      stepSize: experiment.stepSize(flags),
      signal,
      onStep,
      observe,
    });
    await done(images);
    figure.push({ label: role, images });
    const claims = await experiment.claims(images, targets, distances.data);
    metrics[role] = {
      ...experiment.metrics(claims),
      targetClasses: await classNames(model, targets.images, flags),
      predictions: await classNames(model, images, flags),
    };
  }
  const path = await experiment.figure(title, figure, targets.names);
  await experiment.finish(metrics);
  for (const line of claimLines(metrics)) print(line);
  print(path);
}

if (import.meta.main) {
  const positional = { name: "target", help: "more pictures to represent" };
  await runScript(import.meta, FLAGS, { positional }, main);
}
