/**
 * Visualises coordinates of a representation (paper, eq. 5, Fig. 7 and 19 to
 * 22): maximises R(x)_i from noise, from grey and from test images. With a
 * robust network what appears is the same from wherever it starts and means
 * something; with a standard one it is noise.
 *
 *   deno run -P scripts/visualize_features.ts --model runs/cifar-l2 \
 *     --standard runs/cifar-std --vgg runs/cifar-vgg --data data
 *
 * --regularized is the baseline that standard networks need to show anything
 * (Fig. 9 and 10; Olah et al. 2017): images made of decorrelated frequencies
 * and colours, seen under random shifts, rotations and scales.
 *
 * @module
 */
import {
  coordinateObjective,
  fourierBasis,
  full,
  type JsonObject,
  type LoadedNetwork,
  optimizeInput,
  type OptimizeOptions,
  randomAffine,
  stack,
  type Tensor,
} from "../mod.ts";
import {
  type FlagTable,
  givenFlags,
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
  PRESET_FLAG,
  representationSize,
  withPreset,
} from "./_experiment.ts";
import { classNames, noiseSeeds, unstack } from "./_images.ts";

/** Flags of this script. */
export const FLAGS = {
  coordinate: {
    type: "integer",
    multiple: true,
    min: 0,
    help: "feature to visualise; may be repeated",
  },
  features: {
    type: "integer",
    default: 8,
    min: 1,
    help: "features to choose at random where none is named",
  },
  regularized: {
    type: "boolean",
    help: "the regularised baseline: frequencies, decorrelated colours, jitter",
  },
  ...optimisationFlags(200),
  ...PRESET_FLAG,
  ...EXPERIMENT_FLAGS,
  images: {
    type: "integer",
    default: 2,
    min: 0,
    help: "test images to start from, beside noise and grey",
  },
  vgg: { type: "string", help: "standard network of VGG's kind, a row more" },
} as const satisfies FlagTable;

type Flags = ParsedFlags<typeof FLAGS>;

/** How far images are shifted, turned and scaled (Olah et al. 2017). */
const AFFINE = { shift: 16 / 224, degrees: 10, scale: 0.1 } as const;

/** Length of a step in the space of frequencies, and of the start there. */
const FOURIER_STEP = 1, FOURIER_START = 0.01;

/** Options of `visualize()`. */
export interface VisualizeOptions extends
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
  /** Use the regularised baseline: the starts then give the number alone. */
  readonly regularized?: boolean;
}

/**
 * Maximises a coordinate from each start.
 *
 * @param model Network whose representation has the coordinates
 * @param starts `[n, 3, h, w]` in [0, 1]
 * @param coordinates One of each start, `[n]`
 * @param random Draws starts and changes of the regularised baseline
 * @returns The images, and the value reached by each
 */
export async function visualize(
  model: Pick<LoadedNetwork, "network">,
  starts: Tensor,
  coordinates: readonly number[],
  options: VisualizeOptions,
  random: Experiment["random"],
): Promise<{ images: Tensor; activations: Tensor }> {
  const objective = coordinateObjective(
    coordinates,
    representationSize(model),
  );
  const [n, , height, width] = starts.shape;
  const parameterization = options.regularized
    ? fourierBasis(height, width)
    : undefined;
  const scale = (value: number) => FOURIER_START * value;
  const z = parameterization && random("frequencies").normal(
    parameterization.shape(n),
  );
  const { images, losses } = await optimizeInput(
    model.network,
    z ? { ...z, data: z.data.map(scale) } as Tensor : starts,
    {
      ...options,
      objective,
      direction: "maximize",
      ...(parameterization
        ? {
          parameterization,
          transform: randomAffine(AFFINE),
          transformRandom: random("changes"),
        }
        : {}),
    },
  );
  return { images, activations: losses };
}

/** A start and what it is called. */
interface Start {
  readonly name: string;
  /** `[1, 3, h, w]` */
  readonly image: Tensor;
}

async function openStarts(
  experiment: Experiment,
  flags: Flags,
): Promise<Start[]> {
  const { imageSize } = experiment;
  const shape = [1, 3, imageSize, imageSize];
  const noise = (i: number) => noiseSeeds(shape, experiment.random("start", i));
  if (flags.regularized) {
    return [0, 1].map((i) => ({ name: `start ${i + 1}`, image: noise(i) }));
  }
  const starts = [
    { name: "noise", image: noise(0) },
    { name: "grey", image: full(shape, 0.5) },
  ];
  if (flags._.length === 0 && (flags.images === 0 || !experiment.hasTest)) {
    return [...starts, { name: "noise 2", image: noise(1) }];
  }
  const { images, names } = await experiment.pictures(flags._);
  return [
    ...starts,
    ...unstack(images).map((image, i) => ({
      name: names[i],
      image: stack([image]),
    })),
  ];
}

/** Makes the figure; the work of this script. */
export async function main(
  given: Flags,
  context: ScriptContext,
): Promise<void> {
  const flags = withPreset(given, context.args, FLAGS);
  const unused = (["epsilon", "images"] as const).find((name) =>
    givenFlags(context.args, FLAGS).has(name)
  );
  if (flags.regularized && (unused || flags._.length > 0)) {
    throw new UsageError(
      `Cannot use ${unused ? `--${unused}` : "pictures"} with --regularized: ` +
        `frequencies start at random and are not bounded; leave one out`,
    );
  }
  const experiment = await Experiment.open(
    "visualize_features",
    flags,
    context,
  );
  const starts = await openStarts(experiment, flags);
  const title = flags.regularized
    ? "Features with regularisation"
    : "Features of the representation";
  const figure: { label: string; images: Tensor; captions: string[] }[] = [];
  const metrics: Record<string, JsonObject> = {};
  const count = flags.coordinate.length || flags.features;
  const grey = full(
    [count, 3, experiment.imageSize, experiment.imageSize],
    0.5,
  );
  await experiment.preview(
    title,
    experiment.models.map(({ role }) => ({ label: role, images: grey })),
    Array.from({ length: count }, (_, i) => `${i + 1}`),
  );
  for (const { role, model } of experiment.models) {
    const coordinates = await experiment.coordinates(model, flags);
    const k = coordinates.length;
    const n = k * starts.length;
    const { onStep, observe, done } = experiment.follow(
      role,
      "visualise",
      n,
      flags,
    );
    const all = starts.flatMap(({ image }) => Array(k).fill(unstack(image)[0]));
    const { images, activations } = await visualize(
      model,
      stack(all),
      starts.flatMap(() => coordinates),
      {
        ...flags,
        stepSize: flags.regularized
          ? flags.stepSize ?? FOURIER_STEP
          : experiment.stepSize(flags),
        signal: context.signal,
        onStep,
        observe,
      },
      experiment.random.bind(experiment),
    );
    await done(images);
    const list = unstack(images);
    const seen = await classNames(model, images, flags);
    for (const [i, { name }] of starts.entries()) {
      figure.push({
        label: `${role}, ${name}`,
        images: stack(list.slice(i * k, (i + 1) * k)),
        captions: seen.slice(i * k, (i + 1) * k),
      });
    }
    metrics[role] = {
      ...experiment.metrics(
        k < 2
          ? {}
          : await experiment.byJudge((judge) =>
            agreement(experiment, judge, images, k)
          ),
      ),
      coordinates,
      predictions: seen,
      activations: Array.from(activations.data),
    };
  }
  const { columns } = flags;
  // Each network has features of its own: columns are numbered.
  const path = await experiment.figure(
    title,
    figure,
    Array.from({ length: count }, (_, i) => `feature ${i + 1}`),
    {
      name: "coordinate",
      values: Array.from({ length: Math.min(columns, count) }, (_, i) => i + 1),
    },
  );
  await experiment.finish(metrics);
  for (const line of claimLines(metrics)) context.print(line);
  context.print(path);
}

/**
 * Whether one coordinate from different starts shows the judge the same thing,
 * one value per coordinate: mean cosine of the judge's representations
 * (`agreement`) and share of pairs seen as one class (`sameClass`), each beside
 * what pairs of different coordinates have (`shuffled...`).
 *
 * @param images `[starts * coordinates, 3, h, w]`, start by start
 * @param k Coordinates, at least two
 */
async function agreement(
  experiment: Experiment,
  judge: Judge,
  images: Tensor,
  k: number,
): Promise<Claims> {
  const { network } = judge.model;
  const { representation } = await network.predict(images, experiment.flags);
  const classes = await experiment.classesSeen(judge, images);
  const [n, d] = representation.shape;
  const vector = (i: number) => {
    const row = representation.data.subarray(i * d, (i + 1) * d);
    return Array.from(row as Float32Array);
  };
  const vectors = Array.from({ length: n }, (_, i) => vector(i));
  const names = [
    "agreement",
    "shuffledAgreement",
    "sameClass",
    "shuffledSameClass",
  ];
  const values = names.map(() => Array<number>(k).fill(0));
  for (let c = 0; c < k; c++) {
    const sums = [0, 0, 0, 0];
    const counts = [0, 0];
    for (let i = c; i < n; i += k) {
      for (let j = 0; j < n; j++) {
        // Only pairs of different starts.
        if (Math.floor(i / k) === Math.floor(j / k)) continue;
        const other = j % k === c ? 0 : 1;
        sums[other] += cosine(vectors[i], vectors[j]);
        sums[2 + other] += classes[i] === classes[j] ? 1 : 0;
        counts[other]++;
      }
    }
    sums.forEach((sum, s) => values[s][c] = sum / counts[s % 2]);
  }
  return Object.fromEntries(names.map((name, s) => [name, values[s]]));
}

function cosine(a: readonly number[], b: readonly number[]): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i] * b[i];
    aa += a[i] ** 2;
    bb += b[i] ** 2;
  }
  return ab / (Math.sqrt(aa * bb) || 1);
}

if (import.meta.main) {
  const positional = { name: "image", help: "pictures to start from" };
  await runScript(import.meta, FLAGS, { positional }, main);
}
