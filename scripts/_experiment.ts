/**
 * What the experiments of the paper share: networks side by side, the images
 * they are shown, and numbers for what the paper claims by eye.
 *
 * @module
 */
import {
  bootstrapInterval,
  classesInTurn,
  crossedInterval,
  type Dataset,
  DATASETS,
  initializeModel,
  type Interval,
  type JsonObject,
  type LoadedNetwork,
  Network,
  pixelDistances,
  predictions,
  Random,
  retrievalRanks,
  rows,
  type RunWeights,
  selectImages,
  ssim,
  stack,
  type Tensor,
  tensor,
  type TILE_PARAMETERS,
} from "../mod.ts";
import {
  COMMON_FLAGS,
  type Flag,
  type FlagTable,
  givenFlags,
  type ParsedFlags,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import { readImages, unstack } from "./_images.ts";
import { type Followed, Preview, PREVIEW_FLAG } from "./_preview.ts";
import {
  MODEL_FLAGS,
  openData,
  openDevice,
  openModel,
  openModels,
  Recorder,
  stepSizeFor,
  weightsOf,
} from "./_run.ts";

/** Flags of every experiment. */
export const EXPERIMENT_FLAGS = {
  ...MODEL_FLAGS,
  untrained: {
    type: "boolean",
    help: "put an untrained network of the same architecture beside them",
  },
  judge: {
    type: "string",
    help: "independent standard network that says what results look like",
  },
  robustJudge: {
    type: "string",
    help: "the same of an independent robust network, which sees more as we do",
  },
  dataset: {
    type: "choice",
    choices: DATASETS,
    help: "test images to use; the model's own data set if not given",
  },
  data: { type: "path", help: "folder or archive of the data set" },
  images: {
    type: "integer",
    default: 10,
    min: 1,
    help: "test images to use where no picture is named",
  },
  columns: {
    type: "integer",
    default: 10,
    min: 1,
    help: "images shown in the figure; the numbers are of all",
  },
  gallery: {
    type: "integer",
    default: 1000,
    min: 2,
    help: "test images among which the judge looks for the target",
  },
  batchSize: { type: "integer", default: 32, min: 1, help: "images per run" },
  out: {
    type: "path",
    help: "folder of figure, tiles and record; a new one below results/",
  },
  ...PREVIEW_FLAG,
  ...COMMON_FLAGS,
} as const satisfies FlagTable;

/** Flags of the optimisation; its numbers of steps differ. */
export function optimisationFlags<Steps extends number>(steps: Steps) {
  return {
    steps: {
      type: "integer",
      default: steps,
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
      help: "l2 radius around the start; 1000 leaves it free",
    },
    fakeRelu: {
      type: "boolean",
      default: true,
      help: "let the last ReLU pass the gradient, as the reference code does",
    },
    keep: {
      type: "choice",
      choices: ["last", "best"],
      default: "last",
      help: "which iterate counts",
    },
  } as const satisfies FlagTable;
}

/** Flag that keeps iterates as tiles. */
export const TRAJECTORY_FLAG = {
  trajectory: {
    type: "integer",
    default: 0,
    min: 0,
    help: "iterates of each image shown to keep as tiles",
  },
} as const satisfies FlagTable;

/**
 * Flag that sets others to what the paper says, or to what its reference code
 * does; flags given on the command line win.
 */
export const PRESET_FLAG = {
  preset: {
    type: "choice",
    choices: ["paper", "code"],
    help: "settings of the paper's text or of its reference code",
  },
} as const satisfies FlagTable;

/** What all notebooks of the reference code do, and the text does not say. */
const PRESETS = {
  paper: { fakeRelu: false, keep: "last" },
  code: { fakeRelu: true, keep: "last" },
} as const;

/**
 * Sets the flags of a preset that the command line does not set.
 *
 * @param own What this experiment's notebook or section has of its own
 */
export function withPreset<F extends { readonly preset?: "paper" | "code" }>(
  flags: F,
  args: readonly string[],
  table: Readonly<Record<string, Flag>>,
  own: Readonly<Partial<Record<"paper" | "code", Partial<F>>>> = {},
): F {
  const { preset } = flags;
  if (!preset) return flags;
  const given = givenFlags(args, table);
  const chosen = Object.entries({ ...PRESETS[preset], ...own[preset] })
    .filter(([name]) => !given.has(name));
  return { ...flags, ...Object.fromEntries(chosen) };
}

/** Values of these flags. */
export type ExperimentFlags = ParsedFlags<typeof EXPERIMENT_FLAGS>;

/** Test images that tell what a feature stands for. */
const TOP = 9;

/** What a network is in an experiment. */
export type Role = "robust" | "standard" | "vgg" | "untrained";

/** An independent network that says what results look like. */
export interface Judge {
  /**
   * Which: a standard one is itself fooled by what standard networks have in
   * common (Ilyas et al. 2019), a robust one less.
   */
  readonly name: "judge" | "robustJudge";
  readonly model: LoadedNetwork;
}

/** Name of the robust judge's share of a claim. */
export function robustName(name: string): string {
  return `robust${name[0].toUpperCase()}${name.slice(1)}`;
}

/** Images of an experiment and what they are. */
export interface Pictures {
  /** `[n, 3, h, w]` */
  readonly images: Tensor;
  /** Name of each: its file's, or its class. */
  readonly names: readonly string[];
  /** Class of each, if it comes from a data set. */
  readonly classes: readonly string[] | null;
  /** Index of each among the test images; null of a user's pictures. */
  readonly indices: readonly number[] | null;
}

/** A row of a figure, of which the first columns are shown. */
export interface FigureRow {
  readonly label: string;
  readonly images: Tensor;
  /** Text below each image. */
  readonly captions?: readonly string[];
}

/** One value per image of what the paper claims by eye. */
export interface Claims {
  readonly [name: string]: readonly number[];
}

/**
 * Test images with the classes in turn, as a limit leaves them: where it keeps
 * all, they come as the files do, class by class.
 */
function inTurn(dataset: Dataset<"test">): Dataset<"test"> {
  const { test } = dataset.splits;
  const { labels } = test;
  const count = new Set(labels).size;
  return new Set(labels.subarray(0, count)).size === count ? dataset : {
    ...dataset,
    splits: { test: selectImages(test, classesInTurn(labels)) },
  };
}

/** An experiment under way. */
export class Experiment {
  readonly flags: ExperimentFlags;
  readonly context: ScriptContext;
  readonly recorder: Recorder;
  readonly provider: string;
  /** Networks that are compared. */
  readonly models: readonly {
    readonly role: Role;
    readonly model: LoadedNetwork;
  }[];
  /** Judge results; none if none was named. */
  readonly judges: readonly Judge[];
  /** Height and width of all images. */
  readonly imageSize: number;
  #dataset: Promise<Dataset<"test">> | null = null;
  readonly #judged = new Map<Judge, Promise<Tensor>>();
  #preview: Preview | null = null;
  readonly #weights: RunWeights[];

  private constructor(
    flags: ExperimentFlags,
    context: ScriptContext,
    opened: Pick<Experiment, "recorder" | "provider" | "models" | "judges">,
    weights: RunWeights[],
  ) {
    this.flags = flags;
    this.context = context;
    this.recorder = opened.recorder;
    this.provider = opened.provider;
    this.models = opened.models;
    this.judges = opened.judges;
    this.imageSize = flags.size ?? opened.models.at(-1)!.model.card.imageSize;
    this.#weights = weights;
  }

  /** Opens the networks that the flags name. */
  static async open(
    name: string,
    flags: ExperimentFlags,
    context: ScriptContext,
  ): Promise<Experiment> {
    const { args, note } = context;
    const recorder = await Recorder.open(name, flags, flags.out, { args });
    const device = await openDevice(flags, note);
    const trained = await openModels(flags, device);
    const robust = trained.at(-1)!.model;
    const vgg = "vgg" in flags && typeof flags.vgg === "string"
      ? [{ role: "vgg" as const, model: await openModel(flags.vgg, device) }]
      : [];
    const judges: Judge[] = [];
    for (const name of ["judge", "robustJudge"] as const) {
      const source = flags[name];
      if (source === undefined) continue;
      judges.push({ name, model: await openModel(source, device) });
    }
    const weights: RunWeights[] = [];
    for (const { role, model } of [...vgg, ...trained]) {
      weights.push(await weightsOf(role, model));
    }
    for (const { name, model } of judges) {
      weights.push(await weightsOf(name, model));
    }
    const models = [
      ...(flags.untrained
        ? [{ role: "untrained", model: untrainedLike(robust, flags.seed) }]
        : []),
      ...vgg,
      ...trained,
    ] as Experiment["models"];
    const { provider } = device;
    return new Experiment(
      flags,
      context,
      { recorder, provider, models, judges },
      weights,
    );
  }

  /** The network that the experiment is about. */
  get robust(): LoadedNetwork {
    return this.models.at(-1)!.model;
  }

  /** Length of a step: the flag's, or the paper's for this size. */
  stepSize({ stepSize }: { readonly stepSize?: number }): number {
    return stepSize ?? stepSizeFor(this);
  }

  /** Random numbers for a purpose. */
  random(...names: readonly (string | number)[]): Random {
    return new Random(this.flags.seed).stream(...names);
  }

  /** The test images that `--dataset` and `--data` name. */
  async test(): Promise<Dataset<"test">> {
    const { flags, context } = this;
    const count = Math.max(flags.gallery, 2 * flags.images);
    return await (this.#dataset ??= openData(
      flags.dataset ?? this.robust.card.dataset,
      { ...flags, splits: ["test"], limit: count, size: this.imageSize },
      context,
    ).then(inTurn));
  }

  /**
   * Pictures that were named, or test images of all classes in turn.
   *
   * @param paths Files; none for test images
   * @param options.part Which test images: 0 the first, 1 others of other
   *   classes
   * @param options.count How many test images (default: as the flag says)
   */
  async pictures(
    paths: readonly string[],
    { part = 0, count: wanted = this.flags.images }: {
      readonly part?: 0 | 1;
      readonly count?: number;
    } = {},
  ): Promise<Pictures> {
    if (paths.length > 0) {
      return {
        images: await readImages(paths, this),
        names: paths.map((path) => path.replace(/^.*[\\/]/, "")),
        classes: null,
        indices: null,
      };
    }
    if (!this.hasTest) {
      const name = this.flags.dataset ?? this.robust.card.dataset;
      throw new UsageError(
        `No picture is named: name one, or pass --data <path> for test images ` +
          `of ${name}`,
      );
    }
    const { classes, splits: { test } } = await this.test();
    const { seed } = this.flags;
    const count = Math.min(wanted, test.size);
    // Further than a whole part, so that the class is another.
    const further = (count + 1) % classes.length === 0 ? count + 2 : count + 1;
    const indices = Array.from(
      { length: count },
      (_, i) => (2 * seed * count + part * further + i) % test.size,
    );
    const names = indices.map((i) => classes[test.labels[i]]);
    return {
      images: await test.load(indices),
      names,
      classes: names,
      indices,
    };
  }

  /** The first columns of some images. */
  shown(images: Tensor): Tensor {
    return rows(images, 0, Math.min(this.flags.columns, images.shape[0]));
  }

  /**
   * Draws the figure as it stands now and then, while images change.
   *
   * @param count Columns to show, if not those of the flag
   */
  async preview(
    title: string,
    figure: readonly FigureRow[],
    columns: readonly string[],
    count = this.flags.columns,
  ): Promise<void> {
    this.#preview = await Preview.open(this.recorder.folder, {
      title,
      columns: columns.slice(0, count),
      rows: figure.map(({ label, images }) => ({
        label,
        images: rows(images, 0, Math.min(count, images.shape[0])),
      })),
      previewEvery: this.flags.previewEvery,
      note: this.context.note,
    });
  }

  /**
   * Follows the optimisation of a row: progress, preview, and iterates as
   * tiles.
   *
   * @param label The row's
   * @param images How many are optimised
   */
  follow(
    label: string,
    task: string,
    images: number,
    { steps, trajectory = 0, names }: {
      readonly steps: number;
      readonly trajectory?: number;
      readonly names?: readonly string[];
    },
  ): Omit<Followed, "done"> & { done(images: Tensor): Promise<void> } {
    const { batchSize } = this.flags;
    const followed = this.#preview!.follow(label, this.context.progress, {
      ...{ task, steps, batchSize, images },
    });
    const kept = trajectorySteps(steps, trajectory);
    const tiles: { i: number; step: number; image: Tensor }[] = [];
    return {
      observe: (step) => kept.has(step) || followed.observe(step),
      onStep: (state) => {
        followed.onStep(state);
        if (!kept.has(state.step)) return;
        const n = Math.min(
          state.images.shape[0],
          this.flags.columns - state.start,
        );
        for (let i = 0; i < n; i++) {
          const { data, shape } = rows(state.images, i, i + 1);
          const image = tensor(data.slice(), shape.slice(1));
          tiles.push({ i: state.start + i, step: state.step, image });
        }
      },
      done: async (images) => {
        followed.done(images);
        for (const { i, step, image } of tiles) {
          const column = names?.[i] ?? String(i + 1);
          await this.recorder.tile(
            `tiles/steps/${label}-${i + 1}-${step}`,
            image,
            `${label}, ${column}, step ${step}`,
            { row: label, column, parameter: { name: "step", value: step } },
          );
        }
      },
    };
  }

  /**
   * How well images show their targets, one value per image: normalised
   * `distance` of representations, `ssim` and `pixelDistance` to the target,
   * and if there is a judge whether it sees the target's class (`judge`) and,
   * of test images, the `rank` at which it finds the target.
   */
  async claims(
    images: Tensor,
    targets: Pictures,
    distances: ArrayLike<number>,
  ): Promise<Claims> {
    return {
      distance: Array.from(distances),
      ...(this.imageSize >= 11 ? { ssim: ssim(images, targets.images) } : {}),
      pixelDistance: pixelDistances(images, targets.images),
      ...await this.judged(images, targets),
    };
  }

  /** The judges' part of `claims()`; nothing without one. */
  async judged(images: Tensor, targets: Pictures): Promise<Claims> {
    return await this.byJudge(async (judge) => {
      const { network, card } = judge.model;
      const { logits, representation } = await network.predict(
        images,
        this.flags,
      );
      const found = predictions(logits);
      const classes = targets.classes ??
        await this.classesSeen(judge, targets.images);
      return {
        judge: classes.map((name, i) =>
          card.classes[found[i]] === name ? 1 : 0
        ),
        ...(targets.indices
          ? {
            rank: retrievalRanks(
              representation,
              await this.#judgedGallery(judge),
              targets.indices,
            ),
          }
          : {}),
      };
    });
  }

  /** What each judge says, the robust one's under names of their own. */
  async byJudge(ask: (judge: Judge) => Promise<Claims>): Promise<Claims> {
    const all: Record<string, readonly number[]> = {};
    for (const judge of this.judges) {
      for (const [name, values] of Object.entries(await ask(judge))) {
        all[judge.name === "judge" ? name : robustName(name)] = values;
      }
    }
    return all;
  }

  /** The class that a judge sees in each image. */
  async classesSeen({ model }: Judge, images: Tensor): Promise<string[]> {
    const { logits } = await model.network.predict(images, this.flags);
    const { classes } = model.card;
    return Array.from(predictions(logits), (label) => classes[label]);
  }

  /**
   * Coordinates of a representation: those that were named, or some chosen at
   * random.
   *
   * @throws {UsageError} If one that was named is not there
   */
  async coordinates(
    model: LoadedNetwork,
    { coordinate, features }: {
      readonly coordinate: readonly number[];
      readonly features: number;
    },
  ): Promise<readonly number[]> {
    if (coordinate.length === 0) return await this.features(model, features);
    const size = representationSize(model);
    const odd = coordinate.find((i) => i >= size);
    if (odd !== undefined) {
      throw new UsageError(
        `There is no coordinate ${odd}: the representation has ${size}, 0 to ` +
          `${size - 1}`,
      );
    }
    return coordinate;
  }

  /** Coordinates of a representation, chosen at random. */
  async features(model: LoadedNetwork, count: number): Promise<number[]> {
    const size = representationSize(model);
    const random = this.random("features");
    // Standard networks have dead coordinates, which nothing can show.
    const gallery = await this.activations(model);
    const alive = Array.from({ length: size }, (_, i) => i).filter((i) =>
      !gallery || gallery.some((row) => row[i] > 0)
    );
    const order = random.permutation(alive.length);
    return Array.from(order.slice(0, count), (i) => alive[i]);
  }

  readonly #activations = new Map<LoadedNetwork, Promise<Float32Array[]>>();

  /**
   * Representation of each test image under a network; null if the user named
   * no data.
   */
  async activations(model: LoadedNetwork): Promise<Float32Array[] | null> {
    if (!this.hasTest) return null;
    let known = this.#activations.get(model);
    if (!known) {
      known = this.#gallery(model).then((all) => {
        const [n, d] = all.shape;
        return Array.from(
          { length: n },
          (_, i) => all.data.subarray(i * d, (i + 1) * d) as Float32Array,
        );
      });
      this.#activations.set(model, known);
    }
    return await known;
  }

  /** Whether there are test images to look at. */
  get hasTest(): boolean {
    const { dataset, data } = this.flags;
    const name = dataset ?? this.robust.card.dataset;
    return name === "shapes" || data !== undefined;
  }

  /** Indices of the test images that activate a coordinate most, then less. */
  async ranking(model: LoadedNetwork, coordinate: number): Promise<number[]> {
    const all = await this.activations(model) ?? [];
    return Array.from(all, (_, i) => i)
      .sort((a, b) => all[b][coordinate] - all[a][coordinate]);
  }

  /**
   * What a feature stands for: the most frequent class among the test images
   * that activate it most; null without test images.
   */
  async featureClass(
    model: LoadedNetwork,
    coordinate: number,
  ): Promise<string | null> {
    const top = (await this.ranking(model, coordinate)).slice(0, TOP);
    if (top.length === 0) return null;
    const { classes, splits: { test } } = await this.test();
    const counts = new Map<string, number>();
    for (const i of top) {
      const name = classes[test.labels[i]];
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    return [...counts].sort(([, a], [, b]) => b - a)[0][0];
  }

  /** Representation of each test image. */
  async #gallery(model: LoadedNetwork): Promise<Tensor> {
    const { splits: { test } } = await this.test();
    const all = await test.load(Array.from({ length: test.size }, (_, i) => i));
    return (await model.network.predict(all, this.flags)).representation;
  }

  async #judgedGallery(judge: Judge): Promise<Tensor> {
    let known = this.#judged.get(judge);
    if (!known) {
      known = this.#gallery(judge.model);
      this.#judged.set(judge, known);
    }
    return await known;
  }

  /** Means of values with their 95% intervals, by name. */
  intervals(values: Claims): Record<string, Interval> {
    return Object.fromEntries(
      Object.entries(values).map(([name, list]) => [
        name,
        bootstrapInterval(list, this.random("bootstrap")),
      ]),
    );
  }

  /**
   * Claims on pictures under several features as metrics.
   *
   * @param tables By name, for each feature a value for each picture
   */
  crossedMetrics(
    tables: Readonly<Record<string, readonly (readonly number[])[]>>,
  ): JsonObject {
    const entries = Object.entries(tables);
    return {
      claims: Object.fromEntries(entries.map(([name, table]) => [
        name,
        crossedInterval(table, this.random("bootstrap")),
      ])),
      values: Object.fromEntries(
        entries.map(([name, table]) => [name, table.flat()]),
      ),
    } as unknown as JsonObject;
  }

  /** Claims as metrics: intervals, and the values they are of. */
  metrics(values: Claims): JsonObject {
    return { claims: this.intervals(values), values } as unknown as JsonObject;
  }

  /** Writes the figure and its tiles. */
  async figure(
    title: string,
    figure: readonly FigureRow[],
    columns: readonly string[],
    parameter?: {
      readonly name: (typeof TILE_PARAMETERS)[number];
      readonly values: readonly number[];
    },
  ): Promise<string> {
    const { columns: count } = this.flags;
    return await this.recorder.figure(
      title,
      figure.map(({ label, images, captions }) => ({
        label,
        images: this.shown(images),
        ...(captions ? { captions: captions.slice(0, count) } : {}),
      })),
      columns.slice(0, count),
      parameter && { ...parameter, values: parameter.values.slice(0, count) },
    );
  }

  /** Writes the record and lets go of everything. */
  async finish(metrics: JsonObject): Promise<void> {
    await this.#preview?.close();
    (await this.#dataset)?.close();
    await this.recorder.write(
      { provider: this.provider, weights: this.#weights, metrics },
      this.flags.json,
    );
    for (const { model } of this.models) await model.network.release();
    for (const { model } of this.judges) await model.network.release();
  }
}

/** Names of pairs, such as "dog to cat"; numbers tell equal ones apart. */
export function pairNames(
  sources: readonly string[],
  targets: readonly string[],
): string[] {
  const seen = new Map<string, number>();
  return sources.map((source, i) => {
    const name = `${source} to ${targets[i]}`;
    const count = (seen.get(name) ?? 0) + 1;
    seen.set(name, count);
    return count > 1 ? `${name} (${count})` : name;
  });
}

/** A network as it is before training. */
function untrainedLike(
  { network: { spec, options }, card }: LoadedNetwork,
  seed: number,
): LoadedNetwork {
  const parameters = initializeModel(
    spec,
    new Random(seed).stream("untrained"),
  );
  const network = new Network(spec, parameters, options);
  const { weightsSha256: _, ...rest } = card;
  return { network, card: rest, path: "untrained", notes: [] };
}

/** Steps 0 to the last, denser at the start, where most happens. */
function trajectorySteps(steps: number, count: number): ReadonlySet<number> {
  if (count < 1) return new Set();
  return new Set(
    Array.from(
      { length: count + 1 },
      (_, i) => Math.round(steps * (i / count) ** 2),
    ),
  );
}

/** Claims of the networks as lines for people. */
export function claimLines(
  metrics: Readonly<Record<string, JsonObject>>,
): string[] {
  return Object.entries(metrics).flatMap(([role, { claims }]) =>
    Object.entries((claims ?? {}) as unknown as Record<string, Interval>)
      .map(([name, { mean, low, high, n }]) =>
        `${role}: ${words(name)} ${number(mean)} ` +
        `(${number(low)} to ${number(high)}, n ${n})`
      )
  );
}

const WORDS: Readonly<Record<string, string>> = {
  distance: "normalised distance",
  pixelDistance: "l2 distance to the target",
  pixelDistanceToStart: "l2 distance to the start",
  ssim: "SSIM to the target",
  ssimToStart: "SSIM to the start",
  judge: "judge sees the target's class",
  judgeStart: "judge sees the start's class",
  rank: "rank of the target",
  monotonicity: "monotonicity along lambda",
  confidence: "judge's confidence half way",
  agreement: "cosine of one feature's images",
  shuffledAgreement: "cosine of different features' images",
  sameClass: "one feature's images seen as one class",
  shuffledSameClass: "different features' images seen as one class",
  arrived: "pictures that have the feature",
  change: "l2 length of the change",
  ssimToSource: "SSIM to the source",
  judgeFeature: "judge sees the feature's class",
  judgeFeatureBefore: "judge sees the feature's class before",
  activation: "value of the coordinate",
  judgeMost: "most activating images of the class the judge sees",
  judgeLeast: "least activating images of that class",
};

/** A claim in words; the robust judge's are those of the other one. */
function words(name: string): string {
  if (name in WORDS) return WORDS[name];
  const [plain] = Object.keys(WORDS).filter((known) =>
    robustName(known) === name
  );
  return plain ? `${WORDS[plain]} (robust judge)` : name;
}

function number(x: number): string {
  return Math.abs(x) >= 100 ? x.toFixed(0) : x.toFixed(3);
}

/** Length of a network's representation. */
export function representationSize(
  { network: { parameters, spec } }: Pick<LoadedNetwork, "network">,
): number {
  // The last layer reads it: [classes, d].
  const last = Object.values(parameters).findLast(({ shape }) =>
    shape.length === 2 && shape[0] === spec.classes
  );
  return last!.shape[1];
}

/** Each image of `[n, 3, h, w]`, `times` in a row. */
export function repeated(images: Tensor, times: number): Tensor {
  return stack(unstack(images).flatMap((image) => Array(times).fill(image)));
}
