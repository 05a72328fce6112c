/**
 * Interpolates between two pictures through a network's representation
 * (paper, eq. 6, Fig. 12, 17 and 18): each frame starts at the mix of the
 * pixels and is optimised until its representation is the mix of the two
 * pictures' representations.
 *
 *   deno run -P scripts/interpolate.ts --model runs/cifar-l2 \
 *     --standard runs/cifar-std a.png b.jpg --frames 8
 *
 * The figure has a row of plain pixel mixes and one for each network. Without
 * pictures, pairs of test images are taken, and with a judge it says how
 * steadily the first one's class gives way to the second one's.
 *
 * @module
 */
import {
  type JsonObject,
  kendallTau,
  type LoadedNetwork,
  matchRepresentation,
  optimizeInput,
  type OptimizeOptions,
  rows,
  softmaxRows,
  type Tensor,
  tensor,
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
  type Claims,
  Experiment,
  EXPERIMENT_FLAGS,
  type Judge,
  optimisationFlags,
  pairNames,
  type Pictures,
  PRESET_FLAG,
  withPreset,
} from "./_experiment.ts";
import { classNames, lerp, readImages } from "./_images.ts";

/** Flags of this script. */
export const FLAGS = {
  frames: {
    type: "integer",
    default: 10,
    min: 2,
    help: "pictures along the way, both ends included",
  },
  ...optimisationFlags(400),
  keep: {
    type: "choice",
    choices: ["last", "best"],
    default: "best",
    help: "which iterate counts",
  },
  ...PRESET_FLAG,
  ...EXPERIMENT_FLAGS,
  images: {
    type: "integer",
    default: 3,
    min: 1,
    help: "pairs of test images where no pictures are named",
  },
  columns: {
    type: "integer",
    default: 3,
    min: 1,
    help: "pairs shown in the figure; the numbers are of all",
  },
} as const satisfies FlagTable;

type Flags = ParsedFlags<typeof FLAGS>;

/** Options of `interpolate()`. */
export interface InterpolateOptions extends
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
    | "observe"
  > {
  /** Images along the way, both ends included. */
  readonly frames: number;
}

/** Frames and how well their representations match the mixes. */
export interface Interpolation {
  /** `[pairs * frames, 3, h, w]`, pair by pair */
  readonly images: Tensor;
  /** Normalised distance to the mixed representation, `[pairs * frames]`. */
  readonly distances: Tensor;
}

/** Straight lines from each row of `a` to that of `b`, line by line. */
function mixes(a: Tensor, b: Tensor, frames: number): Tensor {
  const [n, ...shape] = a.shape;
  const data = new Float32Array(frames * a.data.length);
  const length = a.data.length / n;
  for (let i = 0; i < n; i++) {
    const line = lerp(rows(a, i, i + 1), rows(b, i, i + 1), frames);
    data.set(line.data, i * frames * length);
  }
  return tensor(data, [n * frames, ...shape]);
}

/**
 * Interpolates between pairs of images.
 *
 * @param model Network whose representation is mixed
 * @param a First image of each pair, `[pairs, 3, h, w]`
 * @param b Last image of each pair, of the same shape
 */
export async function interpolate(
  { network }: Pick<LoadedNetwork, "network">,
  a: Tensor,
  b: Tensor,
  options: InterpolateOptions,
): Promise<Interpolation> {
  const { frames } = options;
  const first = await network.predict(a, options);
  const last = await network.predict(b, options);
  const mixed = mixes(first.representation, last.representation, frames);
  const { images, losses } = await optimizeInput(
    network,
    mixes(a, b, frames),
    { ...options, objective: matchRepresentation(mixed) },
  );
  return { images, distances: losses };
}

async function openPairs(
  experiment: Experiment,
  paths: readonly string[],
): Promise<[Pictures, Pictures]> {
  if (paths.length === 0) {
    return [
      await experiment.pictures([]),
      await experiment.pictures([], { part: 1 }),
    ];
  }
  const images = await readImages(paths, experiment);
  const one = (i: number): Pictures => ({
    images: rows(images, i, i + 1),
    names: [paths[i].replace(/^.*[\\/]/, "")],
    classes: null,
    indices: null,
  });
  return [one(0), one(1)];
}

/**
 * How the judge sees the ways from `a` to `b`, one value per pair: how
 * steadily the share of the second class rises (`monotonicity`, Kendall's tau)
 * and the probability of whatever it sees half way (`confidence`).
 */
async function judgedWays(
  experiment: Experiment,
  judge: Judge,
  images: Tensor,
  frames: number,
  [a, b]: readonly [Pictures, Pictures],
): Promise<Claims> {
  const { network, card } = judge.model;
  const names = card.classes;
  const ends = await Promise.all(
    [a, b].map(async ({ classes, images }) =>
      classes ?? await experiment.classesSeen(judge, images)
    ),
  );
  const { logits } = await network.predict(images, experiment.flags);
  const chances = softmaxRows(logits);
  const monotonicity: number[] = [];
  const confidence: number[] = [];
  for (let i = 0; i < ends[0].length; i++) {
    const way = chances.slice(i * frames, (i + 1) * frames);
    const [from, to] = ends.map((list) => names.indexOf(list[i]));
    confidence.push(Math.max(...way[Math.floor(frames / 2)]));
    if (from === to || from < 0 || to < 0) continue;
    monotonicity.push(kendallTau(way.map((p) => p[to] / (p[from] + p[to]))));
  }
  return { confidence, ...(monotonicity.length > 0 ? { monotonicity } : {}) };
}

/** Makes the figure; the work of this script. */
export async function main(
  given: Flags,
  context: ScriptContext,
): Promise<void> {
  const flags = withPreset(given, context.args, FLAGS, {
    code: { keep: "best" },
  });
  if (flags._.length === 1) {
    throw new UsageError("Need two pictures to interpolate between: 1 given");
  }
  const experiment = await Experiment.open("interpolate", flags, context);
  const { signal, print } = context;
  const { frames } = flags;
  const [a, b] = await openPairs(experiment, flags._);
  const pairs = a.names.length;
  const names = pairNames(a.names, b.names);
  const shownPairs = Math.min(flags.columns, pairs);
  const lambdas = Array.from({ length: frames }, (_, i) => i / (frames - 1));
  const columns = lambdas.map((lambda) => lambda.toFixed(2));
  const title = "Interpolation through the representation";
  const pixels = mixes(a.images, b.images, frames);
  const part = (images: Tensor, i: number) =>
    rows(images, i * frames, (i + 1) * frames);
  const label = (role: string, i: number) =>
    pairs > 1 ? `${role}, ${names[i]}` : role;
  const made: { role: string; images: Tensor }[] = [
    { role: "pixels", images: pixels },
  ];
  // The preview shows the first pair.
  const starts = experiment.models.map(({ role }) => ({
    role,
    images: pixels,
  }));
  await experiment.preview(
    title,
    [...made, ...starts].map(({ role, images }) => ({
      label: role,
      images: part(images, 0),
    })),
    columns,
    frames,
  );
  const ways = async (images: Tensor): Promise<Claims> =>
    await experiment.byJudge((judge) =>
      judgedWays(experiment, judge, images, frames, [a, b])
    );
  const metrics: Record<string, JsonObject> = {
    pixels: experiment.metrics(await ways(pixels)),
  };
  for (const { role, model } of experiment.models) {
    const { onStep, observe, done } = experiment.follow(
      role,
      "interpolate",
      pairs * frames,
      flags,
    );
    const { images, distances } = await interpolate(model, a.images, b.images, {
      ...flags,
      stepSize: experiment.stepSize(flags),
      signal,
      onStep,
      observe,
    });
    await done(images);
    made.push({ role, images });
    const ofPair = Array.from(
      { length: pairs },
      (_, i) =>
        distances.data.slice(i * frames, (i + 1) * frames)
          .reduce((sum, x) => sum + x / frames, 0),
    );
    metrics[role] = {
      ...experiment.metrics({ distance: ofPair, ...await ways(images) }),
      distances: Array.from(distances.data),
      predictions: await classNames(model, images, flags),
    };
  }
  const figure = Array.from(
    { length: shownPairs },
    (_, i) =>
      made.map(({ role, images }) => ({
        label: label(role, i),
        images: part(images, i),
      })),
  ).flat();
  const path = await experiment.recorder.figure(title, figure, columns, {
    name: "lambda",
    values: lambdas,
  });
  await experiment.finish(metrics);
  for (const line of claimLines(metrics)) print(line);
  print(path);
}

if (import.meta.main) {
  const positional = {
    name: "image",
    help: "the two pictures, PNG or JPEG of any size",
    max: 2,
  };
  await runScript(import.meta, FLAGS, { positional }, main);
}
