/**
 * Inverts representations: optimises a seed until its representation matches
 * a target's (paper, eq. 4, Fig. 3, 13 and 15). With a robust network the
 * result looks like the target; with a standard one it does not.
 *
 *   deno run -P scripts/invert.ts --model runs/cifar-l2 \
 *     --standard runs/cifar-std --target a.png --from noise
 *
 * The paper takes 10,000 steps; a few hundred show the picture.
 *
 * @module
 */
import {
  type JsonObject,
  type LoadedNetwork,
  matchRepresentation,
  optimizeInput,
  type OptimizeOptions,
  Random,
  type RunWeights,
  type Tensor,
  tensor,
} from "../mod.ts";
import {
  COMMON_FLAGS,
  type FlagTable,
  type ParsedFlags,
  runScript,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import {
  classNames,
  noiseSeeds,
  pixelDistances,
  readImages,
} from "./_images.ts";
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
  target: {
    type: "path",
    multiple: true,
    help: "picture to represent; may be repeated",
  },
  from: {
    type: "string",
    default: "noise",
    help: "where to start: noise, or a picture",
  },
  steps: {
    type: "integer",
    default: 10_000,
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
    help: "l2 radius around the seed; 1000 leaves it free",
  },
  batchSize: { type: "integer", default: 16, min: 1, help: "targets per run" },
  out: {
    type: "path",
    help: "folder of figure, tiles and record; a new one below results/",
  },
  ...PREVIEW_FLAG,
  ...COMMON_FLAGS,
} as const satisfies FlagTable;

/** Options of `invert()`. */
export type InvertOptions = Pick<
  OptimizeOptions,
  "steps" | "stepSize" | "epsilon" | "batchSize" | "signal" | "onStep"
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
 * @param seeds Where to start, of the same shape
 */
export async function invert(
  { network }: Pick<LoadedNetwork, "network">,
  targets: Tensor,
  seeds: Tensor,
  options: InvertOptions,
): Promise<Inversion> {
  const { representation } = await network.predict(targets, options);
  const { images, losses } = await optimizeInput(network, seeds, {
    ...options,
    objective: matchRepresentation(representation),
  });
  return { images, distances: losses };
}

async function readSeeds(
  from: string,
  targets: Tensor,
  seed: number,
): Promise<Tensor> {
  if (from === "noise") return noiseSeeds(targets.shape, new Random(seed));
  const [n, , size] = targets.shape;
  const image = await readImages([from], { imageSize: size });
  const data = new Float32Array(targets.data.length);
  for (let i = 0; i < n; i++) data.set(image.data, i * image.data.length);
  return tensor(data, targets.shape);
}

/** Makes the figure; the work of this script. */
export async function main(
  flags: ParsedFlags<typeof FLAGS>,
  { args, signal, progress, note, print }: ScriptContext,
): Promise<void> {
  const paths = [...flags.target, ...flags._];
  if (paths.length === 0) {
    throw new UsageError("No picture to invert: pass --target a.png");
  }
  const recorder = await Recorder.open("invert", flags, flags.out, { args });
  const device = await openDevice(flags, note);
  const models = await openModels(flags, device);
  const { card } = models[0].model;
  const imageSize = flags.size ?? card.imageSize;
  const targets = await readImages(paths, { imageSize });
  const seeds = await readSeeds(flags.from, targets, flags.seed);
  const title = "Inverted representations";
  const columns = paths.map((path) => path.replace(/^.*[\\/]/, ""));
  const figure: { label: string; images: Tensor }[] = [
    { label: "target", images: targets },
    { label: "seed", images: seeds },
  ];
  const starts = models.map(({ role }) => ({ label: role, images: seeds }));
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
      task: "invert",
    });
    const { images, distances } = await invert(model, targets, seeds, {
      ...flags,
      stepSize: flags.stepSize ?? stepSizeFor({ imageSize }),
      signal,
      onStep,
    });
    done(images);
    figure.push({ label: role, images: images });
    metrics[role] = {
      distances: Array.from(distances.data),
      pixelDistances: pixelDistances(images, targets),
      targetClasses: await classNames(model, targets, flags),
      predictions: await classNames(model, images, flags),
    };
    weights.push(await weightsOf(role, model));
  }
  const path = await recorder.figure(title, figure, columns);
  await preview.close();
  await recorder.write(
    { provider: device.provider, weights, metrics },
    flags.json,
  );
  for (const { role } of models) {
    const { distances } = metrics[role] as { distances: number[] };
    const worst = Math.max(...distances);
    print(`${role}: normalised distance at most ${worst.toFixed(4)}`);
  }
  print(path);
}

if (import.meta.main) {
  const positional = { name: "target", help: "more pictures to represent" };
  await runScript(import.meta, FLAGS, { positional }, main);
}
