/**
 * The paper in one picture (Fig. 1): inversion, interpolation, features and
 * manipulation by plain gradient steps, with a robust network and, if given, a
 * standard one beneath.
 *
 *   deno run -P scripts/headline.ts --model runs/cifar-l2 \
 *     --standard runs/cifar-std --data data
 *
 * @module
 */
import { type JsonObject, rows, stack, type Tensor } from "../mod.ts";
import {
  type FlagTable,
  type ParsedFlags,
  runScript,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import {
  Experiment,
  EXPERIMENT_FLAGS,
  type FigureRow,
  optimisationFlags,
} from "./_experiment.ts";
import { noiseSeeds, unstack } from "./_images.ts";
import { interpolate } from "./interpolate.ts";
import { invert } from "./invert.ts";
import { manipulate } from "./manipulate_features.ts";
import { visualize } from "./visualize_features.ts";

/** Flags of this script. */
export const FLAGS = {
  ...optimisationFlags(400),
  ...EXPERIMENT_FLAGS,
  images: {
    type: "integer",
    default: 6,
    min: 2,
    help: "columns: test images where no pictures are named",
  },
} as const satisfies FlagTable;

/** Makes the figure; the work of this script. */
export async function main(
  flags: ParsedFlags<typeof FLAGS>,
  context: ScriptContext,
): Promise<void> {
  if (flags._.length === 1) {
    throw new UsageError("Need at least two pictures: 1 given");
  }
  const experiment = await Experiment.open("headline", flags, context);
  const { images, names } = await experiment.pictures(flags._);
  const [n] = images.shape;
  const random = experiment.random.bind(experiment);
  const noise = noiseSeeds(images.shape, random());
  const options = {
    ...flags,
    stepSize: experiment.stepSize(flags),
    signal: context.signal,
  };
  const parts: [string, (model: Experiment["robust"]) => Promise<Tensor>][] = [
    [
      "inverted from noise",
      async (model) => (await invert(model, images, noise, options)).images,
    ],
    [
      `from ${names[0]} to ${names[1]}`,
      async (model) =>
        (await interpolate(model, rows(images, 0, 1), rows(images, 1, 2), {
          ...options,
          frames: n,
          keep: "best",
        })).images,
    ],
    [
      "features, from noise",
      async (model) => {
        const coordinates = await experiment.features(model, n);
        return (await visualize(model, noise, coordinates, options, random))
          .images;
      },
    ],
    [
      "a feature added",
      async (model) => {
        const coordinates = await experiment.features(model, n);
        return (await manipulate(model, images, coordinates, {
          ...options,
          stop: "exceed",
        })).images;
      },
    ],
  ];
  // Robust first: it is what the picture is about.
  const models = experiment.models.toReversed();
  const task = context.progress.start("headline", parts.length * models.length);
  const figure: FigureRow[] = [{ label: "pictures", images }];
  let done = 0;
  for (const [label, make] of parts) {
    for (const { role, model } of models) {
      const made = unstack(await make(model)).slice(0, n);
      figure.push({ label: `${label}, ${role}`, images: stack(made) });
      task.update(++done);
    }
  }
  task.done();
  const title = "Robust representations, by gradient steps on the input";
  const path = await experiment.figure(title, figure, names);
  const rowLabels = figure.map(({ label }) => label);
  await experiment.finish({ rows: rowLabels } as JsonObject);
  context.print(path);
}

if (import.meta.main) {
  const positional = { name: "image", help: "pictures, two or more" };
  await runScript(import.meta, FLAGS, { positional }, main);
}
