/**
 * Interpolates between two pictures through a network's representation
 * (paper, eq. 6, Fig. 12, 17 and 18): each frame starts at the mix of the
 * pixels and is optimised until its representation is the mix of the two
 * pictures' representations.
 *
 *   deno run -P scripts/interpolate.ts --model runs/cifar-l2 \
 *     --standard runs/cifar-std a.png b.jpg --frames 8
 *
 * The figure has a row of plain pixel mixes and one for each network.
 *
 * @module
 */
import {
  type JsonObject,
  type LoadedNetwork,
  matchRepresentation,
  optimizeInput,
  type OptimizeOptions,
  rows,
  type RunWeights,
  type Tensor,
} from "../mod.ts";
import {
  COMMON_FLAGS,
  type FlagTable,
  type ParsedFlags,
  runScript,
  type ScriptContext,
} from "./_cli.ts";
import { classNames, lerp, readImages } from "./_images.ts";
import { Preview, PREVIEW_FLAG } from "./_preview.ts";
import {
  MODEL_FLAGS,
  openDevice,
  openModels,
  Recorder,
  stepSizeFor,
  weightsOf,
} from "./_run.ts";

/** Flags of this script. */
export const FLAGS = {
  ...MODEL_FLAGS,
  frames: {
    type: "integer",
    default: 10,
    min: 2,
    help: "pictures along the way, both ends included",
  },
  steps: {
    type: "integer",
    default: 400,
    min: 0,
    aliases: ["attack-steps"],
    help: "gradient steps",
  },
  stepSize: {
    type: "number",
    above: 0,
    aliases: ["attack-lr"],
    help: "length of a step; 0.1 up to 64 x 64 pixels, else 1",
  },
  epsilon: {
    type: "number",
    default: 1000,
    min: 0,
    aliases: ["eps"],
    help: "l2 radius around the pixel mix; 1000 leaves it free",
  },
  batchSize: { type: "integer", default: 16, min: 1, help: "frames per run" },
  out: {
    type: "path",
    help: "folder of figure, tiles and record; a new one below results/",
  },
  ...PREVIEW_FLAG,
  ...COMMON_FLAGS,
} as const satisfies FlagTable;

/** Options of `interpolate()`. */
export interface InterpolateOptions extends
  Pick<
    OptimizeOptions,
    "steps" | "stepSize" | "epsilon" | "batchSize" | "signal" | "onStep"
  > {
  /** Images along the way, both ends included. */
  readonly frames: number;
}

/** Frames and how well their representations match the mixes. */
export interface Interpolation {
  /** `[frames, 3, h, w]` */
  readonly images: Tensor;
  /** Normalised distance to the mixed representation, `[frames]`. */
  readonly distances: Tensor;
}

/**
 * Interpolates between two images.
 *
 * @param model Network whose representation is mixed
 * @param ends The two images, `[2, 3, h, w]`
 */
export async function interpolate(
  { network }: Pick<LoadedNetwork, "network">,
  ends: Tensor,
  options: InterpolateOptions,
): Promise<Interpolation> {
  const { frames } = options;
  const { representation } = await network.predict(ends);
  const mix = (pair: Tensor) =>
    lerp(rows(pair, 0, 1), rows(pair, 1, 2), frames);
  const { images, losses } = await optimizeInput(network, mix(ends), {
    ...options,
    objective: matchRepresentation(mix(representation)),
    keep: "best",
  });
  return { images, distances: losses };
}

/** Makes the figure; the work of this script. */
export async function main(
  flags: ParsedFlags<typeof FLAGS>,
  { args, signal, progress, note, print }: ScriptContext,
): Promise<void> {
  const recorder = await Recorder.open("interpolate", flags, flags.out, {
    args,
  });
  const device = await openDevice(flags, note);
  const models = await openModels(flags, device);
  const [first] = models;
  const imageSize = flags.size ?? first.model.card.imageSize;
  const ends = await readImages(flags._, { imageSize });
  const options = {
    ...flags,
    stepSize: flags.stepSize ?? stepSizeFor({ imageSize }),
    signal,
  };
  const pixels = lerp(rows(ends, 0, 1), rows(ends, 1, 2), flags.frames);
  const columns = Array.from(
    { length: flags.frames },
    (_, i) => `${(i / (flags.frames - 1)).toFixed(2)}`,
  );
  const figure: { label: string; images: Tensor }[] = [{
    label: "pixels",
    images: pixels,
  }];
  const title = "Interpolation through the representation";
  const starts = models.map(({ role }) => ({ label: role, images: pixels }));
  const preview = await Preview.open(recorder.folder, {
    title,
    columns,
    rows: [...figure, ...starts],
    previewEvery: flags.previewEvery,
    note,
  });
  const metrics: Record<string, JsonObject> = {};
  const weights: RunWeights[] = [];
  for (const { role, model } of models) {
    const { onStep, done } = preview.follow(role, progress, {
      ...flags,
      task: "interpolate",
    });
    const { images, distances } = await interpolate(model, ends, {
      ...options,
      onStep,
    });
    done(images);
    figure.push({ label: role, images: images });
    metrics[role] = {
      distances: Array.from(distances.data),
      meanDistance: mean(distances.data),
      predictions: await classNames(model, images, flags),
    };
    weights.push(await weightsOf(role, model));
  }
  const path = await recorder.figure(title, figure, columns, {
    name: "lambda",
    values: columns.map(Number),
  });
  await preview.close();
  await recorder.write(
    { provider: device.provider, weights, metrics },
    flags.json,
  );
  for (const { role } of models) {
    const { meanDistance } = metrics[role] as { meanDistance: number };
    print(`${role}: mean normalised distance ${meanDistance.toFixed(4)}`);
  }
  print(path);
}

function mean(values: Float32Array): number {
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}

if (import.meta.main) {
  const positional = {
    name: "image",
    help: "the two pictures, PNG or JPEG of any size",
    min: 2,
    max: 2,
  };
  await runScript(import.meta, FLAGS, { positional }, main);
}
