/**
 * How near the representation of another image can be brought within a ball
 * around a source (paper, Fig. 4 and 5): with a standard network at once, with
 * a robust one not until the ball is much larger than what it was trained
 * against; what of the target shows, shows early.
 *
 *   deno run -P scripts/constrained_inversion.ts --model runs/cifar-l2 \
 *     --standard runs/cifar-std --untrained --data data --images 64
 *
 * Radii are the paper's 2, 4, ..., 512 for 224 x 224 pixels, scaled by the
 * side of the images; each starts where the one before ended. curve.svg is
 * Fig. 4, figure.png is Fig. 5.
 *
 * @module
 */
import {
  bootstrapInterval,
  type Interval,
  type JsonObject,
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
  type Claims,
  Experiment,
  EXPERIMENT_FLAGS,
  optimisationFlags,
  pairNames,
  PRESET_FLAG,
  type Role,
  withPreset,
} from "./_experiment.ts";
import { unstack } from "./_images.ts";
import { invert } from "./invert.ts";
import { curvePlot } from "./_plot.ts";

const { epsilon: _, ...OPTIMISATION } = optimisationFlags(200);

/** Flags of this script. */
export const FLAGS = {
  ...OPTIMISATION,
  keep: {
    type: "choice",
    choices: ["last", "best"],
    default: "best",
    help: "which iterate counts",
  },
  radius: {
    type: "number",
    multiple: true,
    above: 0,
    help: "l2 radius in [0, 1] units; may be repeated (default: the paper's)",
  },
  ...PRESET_FLAG,
  ...EXPERIMENT_FLAGS,
  columns: {
    type: "integer",
    default: 3,
    min: 1,
    help: "images shown in the figure; the numbers are of all",
  },
} as const satisfies FlagTable;

type Flags = ParsedFlags<typeof FLAGS>;

/** What an inversion starts from and aims at. */
const PAIR = ["source", "target"];

/** The paper's radii, for images of 224 x 224 pixels. */
const PAPER_RADII = Array.from({ length: 9 }, (_, i) => 2 ** (i + 1));

/** Makes the figures; the work of this script. */
export async function main(
  given: Flags,
  context: ScriptContext,
): Promise<void> {
  const flags = withPreset(given, context.args, FLAGS, {
    paper: { keep: "best" },
    code: { keep: "best" },
  });
  if (flags._.length === 1) {
    throw new UsageError("Need two pictures, source and target: 1 given");
  }
  const experiment = await Experiment.open(
    "constrained_inversion",
    flags,
    context,
  );
  const [first, second] = [flags._.slice(0, 1), flags._.slice(1)];
  const sources = await experiment.pictures(first, { part: 1 });
  const targets = await experiment.pictures(second);
  const epsilon = experiment.robust.card.attack?.epsilon ?? null;
  // Where the paper compares: twice what the network was trained against.
  const twice = epsilon && 2 * epsilon;
  const radii = [
    ...new Set(
      flags.radius.length > 0 ? flags.radius : [
        ...PAPER_RADII.map((radius) => radius * experiment.imageSize / 224),
        ...(twice ? [twice] : []),
      ],
    ),
  ].toSorted((a, b) => a - b);
  const atTwice = twice === null ? -1 : radii.indexOf(twice);
  const title = "Inversions within a ball around the source";
  const [n] = sources.images.shape;
  await experiment.preview(title, [
    { label: "source", images: sources.images },
    { label: "target", images: targets.images },
    ...experiment.models.map(({ role }) => ({
      label: role,
      images: sources.images,
    })),
  ], targets.names);

  const metrics: Record<string, JsonObject> = {};
  const curve: Record<string, Interval[]> = {};
  const found: { role: Role; images: Tensor[] }[] = [];
  for (const { role, model } of experiment.models) {
    let images = sources.images;
    const perRadius: Tensor[] = [];
    const points: { distance: number[]; claims: Claims }[] = [];
    for (const radius of radii) {
      const task = `invert within ${radius.toFixed(2)}`;
      const { onStep, observe, done } = experiment.follow(role, task, n, {
        steps: flags.steps,
      });
      const inversion = await invert(model, targets.images, images, {
        ...flags,
        epsilon: radius,
        center: sources.images,
        stepSize: flags.stepSize ??
          Math.min(2.5 * radius / flags.steps, experiment.stepSize(flags)),
        signal: context.signal,
        onStep,
        observe,
      });
      images = inversion.images;
      await done(images);
      perRadius.push(images);
      points.push({
        distance: Array.from(inversion.distances.data),
        claims: await experiment.claims(
          images,
          targets,
          inversion.distances.data,
        ),
      });
    }
    found.push({ role, images: perRadius });
    curve[role] = points.map(({ distance }) =>
      bootstrapInterval(distance, experiment.random("bootstrap"))
    );
    metrics[role] = {
      ...experiment.metrics({
        ...points.at(-1)!.claims,
        ...(atTwice < 0 ? {} : { atTwiceEpsilon: points[atTwice].distance }),
      }),
      atRadius: points.map(({ claims }) => experiment.intervals(claims)),
    } as unknown as JsonObject;
  }
  const svg = curvePlot({ radius: radii, epsilon, roles: curve });
  const { recorder } = experiment;
  const curvePath = await recorder.file(
    "curve.svg",
    svg,
    "figure",
    "Distance reached within each radius",
  );
  const columns = radii.map((radius) => radius.toFixed(2));
  const shown = Math.min(flags.columns, n);
  const names = pairNames(sources.names, targets.names);
  const figure = Array.from({ length: shown }, (_, i) => {
    const name = names[i];
    const pair = [sources, targets].map(({ images }) => unstack(images)[i]);
    const asked = { label: name, images: stack(pair), pictures: PAIR };
    const reached = found.map(({ role, images }) => ({
      label: `${role}, ${name}`,
      images: stack(images.map((all) => unstack(all)[i])),
    }));
    return [asked, ...reached];
  }).flat();
  const path = await recorder.figure(title, figure, columns, {
    name: "radius",
    values: radii,
  });
  await experiment.finish(
    {
      ...metrics,
      curve: { radius: radii, epsilon, roles: curve },
    } as unknown as JsonObject,
  );
  for (const [role, points] of Object.entries(curve)) {
    const line = points.map(({ mean }) => mean.toFixed(3)).join(" ");
    context.print(`${role}: normalised distance ${line}`);
  }
  context.print(`at radii ${columns.join(" ")}`);
  context.print(curvePath);
  context.print(path);
}

if (import.meta.main) {
  const positional = { name: "image", help: "source and target", max: 2 };
  await runScript(import.meta, FLAGS, { positional }, main);
}
