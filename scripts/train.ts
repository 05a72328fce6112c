/**
 * Trains a network, against small perturbations of its inputs or, with
 * --epsilon 0, without (paper, Tables 1-3).
 *
 * The folder of --out holds the network (model.safetensors), the state that
 * --resume continues from (training.safetensors) and the record (run.json),
 * each replaced whole about once a minute: stop with Ctrl-C, or even kill it,
 * and continue with --resume to end in the same weights. With --resume and
 * all flags, a folder without a run starts one.
 *
 *   deno task train --out runs/shapes-l2 --epsilon 0.5
 *   deno task train --dataset cifar10 --data data --width 32 --epsilon 0.5 \
 *     --epochs 30 --out runs/cifar-l2
 *   deno task train --resume --out runs/cifar-l2
 *
 * --preset trains a shipped network again; paper and code, which go with other
 * flags, set what the paper and its reference code do differently.
 *
 *   deno task train --preset cifar10-l2 --out runs/cifar10-l2
 *
 * After each epoch accuracy is measured on test images and on as many training
 * images, clean and under PGD. If PGD breaks training images that the attack of
 * training does not, training has found a way around that attack (catastrophic
 * overfitting), and a note says so; with --guard-steps training then goes on
 * with an attack of more steps.
 *
 * On several machines or GPUs, under mpirun or Slurm (docs/scale.md):
 *
 *   mpirun -n 4 deno task train --distributed mpi --batch-size 256 \
 *     --ghost-batch 64 --out runs/cifar-l2
 *
 * Each rank takes its part of every batch and gradients are averaged.
 * --batch-size counts the images of all ranks. For larger batches the field's
 * rule is to scale the learning rate with the batch size and to warm up over
 * five epochs (Goyal et al. 2017, "Accurate, large minibatch SGD"): pass the
 * learning rate that suits batches of 256 with --lr-batch 256 --lr-warmup 5.
 *
 * Defaults are those of the reference library for CIFAR-10: SGD with momentum
 * 0.9, weight decay 5e-4, learning rate 0.1 divided by 10 every 50 epochs,
 * batches of 128, PGD of 7 steps of epsilon / 5. Shorter trainings do better
 * with --schedule cyclic.
 *
 * @module
 */
import {
  type Architecture,
  ARCHITECTURES,
  AUGMENTATIONS,
  broadcastJson,
  type Card,
  CARD_SCHEMA_VERSION,
  type CardAttack,
  type CardTraining,
  checkTrainSettings,
  type Dataset,
  DATASETS,
  decodeTraining,
  encodeCheckpoint,
  encodeTraining,
  type EpochRecord,
  evaluate,
  type EvaluationAttack,
  formatRun,
  type JsonObject,
  MODEL_FILE,
  type Network,
  type Provider,
  Random,
  readCheckpoint,
  type Run,
  type SavedTraining,
  selectImages,
  type Split,
  type SplitName,
  stateParameters,
  train,
  type TrainingAttack,
  type TrainSettings,
  type TrainState,
  weightsHash,
  wilsonInterval,
  writeFileAtomic,
} from "../mod.ts";
import {
  COMMON_FLAGS,
  type FlagTable,
  givenFlags,
  kebab,
  type ParsedFlags,
  parseFlags,
  type Ranks,
  runScript,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import { hardware, preprocessingOf } from "./_hardware.ts";
import { expandPresets, presetFlag, TRAIN_PRESETS } from "./_presets.ts";
import { onRanks, RANK_FLAGS } from "./_ranks.ts";
import {
  normOf,
  openData,
  openDevice,
  percent,
  quoted,
  Recorder,
  usageOf,
  versions,
} from "./_run.ts";

/** Name of the resumable state in the run's folder. */
const STATE_FILE = "training.safetensors";

/** Flags of this script. */
export const FLAGS = {
  out: { type: "path", help: "folder of the run" },
  preset: presetFlag(TRAIN_PRESETS),
  resume: { type: "boolean", help: "continue the run in --out" },
  dataset: {
    type: "choice",
    choices: DATASETS,
    default: "shapes",
    help: "images to train on",
  },
  data: { type: "path", help: "folder or archive of the data set" },
  arch: {
    type: "choice",
    choices: ARCHITECTURES,
    default: "resnet18",
    help: "architecture",
  },
  form: {
    type: "choice",
    choices: ["auto", "cifar", "imagenet"],
    default: "auto",
    help: "stem and pooling; cifar for images up to 64 x 64",
  },
  width: {
    type: "integer",
    default: 64,
    min: 1,
    help: "channels of the first stage",
  },
  epsilon: {
    type: "number",
    default: 0.5,
    min: 0,
    aliases: ["eps"],
    help: "radius of the perturbations in [0, 1] units; 0: none",
  },
  advTrain: {
    type: "integer",
    min: 0,
    max: 1,
    help: "0 is the same as --epsilon 0",
  },
  norm: {
    type: "choice",
    choices: ["l2", "linf", "2", "inf"],
    default: "l2",
    aliases: ["constraint"],
    help: "how perturbations are measured",
  },
  attackSteps: {
    type: "integer",
    default: 7,
    min: 1,
    help: "PGD steps per batch",
  },
  stepSize: {
    type: "number",
    above: 0,
    aliases: ["attack-lr"],
    help: "length of a PGD step; epsilon / 5 if not given",
  },
  randomStart: {
    type: "boolean",
    default: true,
    help: "start PGD at a random point (paper; the reference code does not)",
  },
  epochs: {
    type: "integer",
    default: 150,
    min: 1,
    help: "passes over the data",
  },
  batchSize: {
    type: "integer",
    default: 128,
    min: 2,
    help: "images per step, of all ranks together",
  },
  ghostBatch: {
    type: "integer",
    min: 1,
    help:
      "images that BatchNorm sees at a time, on any number of ranks; those of " +
      "a rank if not given",
  },
  learningRate: {
    type: "number",
    default: 0.1,
    above: 0,
    aliases: ["lr"],
    help: "largest learning rate",
  },
  learningRateBatch: {
    type: "integer",
    min: 1,
    aliases: ["lr-batch"],
    help:
      "batch size that --lr is for: lr x batch-size / this is used (Goyal et " +
      "al. 2017: 256)",
  },
  learningRateWarmup: {
    type: "number",
    default: 0,
    min: 0,
    aliases: ["lr-warmup"],
    help:
      "epochs over which the learning rate grows linearly, from --lr where " +
      "--lr-batch scales it, else from 0 (Goyal et al.: 5)",
  },
  schedule: {
    type: "choice",
    choices: ["step", "cyclic"],
    default: "step",
    help: "shape of the learning rate over training",
  },
  stepEvery: {
    type: "integer",
    default: 50,
    min: 1,
    aliases: ["step-lr"],
    help: "epochs after which schedule step divides by 10",
  },
  momentum: {
    type: "number",
    default: 0.9,
    min: 0,
    below: 1,
    help: "fraction of the velocity kept",
  },
  weightDecay: {
    type: "number",
    default: 5e-4,
    min: 0,
    help: "l2 penalty on the parameters",
  },
  epsilonWarmup: {
    type: "number",
    default: 0,
    min: 0,
    help: "epochs over which epsilon grows from 0",
  },
  attackStepsWarmup: {
    type: "number",
    default: 0,
    min: 0,
    help: "epochs over which PGD steps grow from 1, each as much longer",
  },
  guardSteps: {
    type: "integer",
    min: 1,
    help:
      "PGD steps after an epoch that shows catastrophic overfitting, more than " +
      "--attack-steps; together they reach as far as before (default: no change)",
  },
  ema: {
    type: "number",
    default: 0,
    min: 0,
    below: 1,
    help: "decay of the parameters' moving average per step, such as 0.999",
  },
  augmentation: {
    type: "choice",
    choices: AUGMENTATIONS,
    default: "standard",
    help:
      "random changes to the images; up to 64 x 64: standard shifts and mirrors " +
      "them, reference also changes colours and rotates, crop takes a part of " +
      "35% to 100% of the area and changes colours",
  },
  limit: {
    type: "integer",
    min: 1,
    help: "use this many images of each split",
  },
  size: { type: "integer", min: 8, help: "height and width of the images" },
  evalImages: {
    type: "integer",
    default: 500,
    min: 0,
    help: "test images to evaluate on after each epoch",
  },
  evalEpsilon: {
    type: "number",
    min: 0,
    help: "radius of that attack; --epsilon, or 0.5 (linf 8/255) if it is 0",
  },
  evalSteps: {
    type: "integer",
    default: 10,
    min: 1,
    help: "PGD steps of that attack",
  },
  ...RANK_FLAGS,
  ...COMMON_FLAGS,
} as const satisfies FlagTable;

type Flags = ParsedFlags<typeof FLAGS>;

/** Flags that may change when a run is resumed: they do not alter the result. */
const FREE = new Set<string>([
  ...[
    "out",
    "preset",
    "resume",
    "data",
    "device",
    "threads",
    "json",
    "quiet",
    "debug",
  ],
  ...["evalImages", "evalEpsilon", "evalSteps", "help"],
  // A run may go on on another number of ranks.
  ...["distributed", "rankLogs"],
]);

function attackOf(flags: Flags): TrainingAttack | null {
  const { epsilon, attackSteps: steps, randomStart } = flags;
  if (epsilon === 0 || flags.advTrain === 0) return null;
  const norm = normOf(flags.norm);
  return {
    norm,
    epsilon,
    steps,
    stepSize: flags.stepSize ?? epsilon / 5,
    randomStart,
  };
}

/**
 * Learning rate and its warm-up by the linear scaling rule: times as much for
 * batches times as large, growing from what it was scaled from.
 */
function learningRateOf(
  flags: Flags,
): Pick<TrainSettings, "learningRate" | "learningRateWarmup"> {
  const { batchSize, learningRateBatch, learningRateWarmup: epochs } = flags;
  const scale = batchSize / (learningRateBatch ?? batchSize);
  const from = learningRateBatch === undefined ? 0 : Math.min(1, 1 / scale);
  return {
    learningRate: flags.learningRate * scale,
    ...(epochs > 0 ? { learningRateWarmup: { epochs, from } } : {}),
  };
}

function settingsOf(flags: Flags, dataset: Dataset): TrainSettings {
  const { epochs, batchSize, ghostBatch, momentum, weightDecay } = flags;
  const { epsilonWarmup, attackStepsWarmup, guardSteps, ema } = flags;
  const { augmentation, seed, width, stepEvery } = flags;
  const small = dataset.imageShape[1] <= 64;
  const form = flags.form === "auto"
    ? (small ? "cifar" : "imagenet")
    : flags.form;
  const drops = Math.floor((epochs - 1) / stepEvery);
  return {
    spec: {
      architecture: flags.arch as Architecture,
      form,
      width,
      classes: dataset.classes.length,
      mean: dataset.mean,
      std: dataset.std,
    },
    attack: attackOf(flags),
    schedule: flags.schedule === "cyclic" ? { kind: "cyclic" } : {
      kind: "step",
      at: Array.from({ length: drops }, (_, i) => (i + 1) * stepEvery),
    },
    epochs,
    batchSize,
    // States of runs without ghost batches do not name them.
    ...(ghostBatch === undefined ? {} : { ghostBatch }),
    ...learningRateOf(flags),
    momentum,
    weightDecay,
    epsilonWarmup,
    ...(attackStepsWarmup > 0 ? { attackStepsWarmup } : {}),
    ...(guardSteps === undefined ? {} : { guardSteps }),
    ema,
    augmentation: augmentation as TrainSettings["augmentation"],
    seed,
  };
}

/** What the images are, as the state and the card know them. */
function dataOf(flags: Flags, dataset: Dataset): JsonObject {
  return {
    dataset: dataset.name,
    images: dataset.splits.train.size,
    size: dataset.imageShape[1],
    limit: flags.limit ?? null,
  };
}

/** The state in the folder, if there is one. */
async function readState(folder: string): Promise<SavedTraining | null> {
  const path = `${folder}/${STATE_FILE}`;
  const bytes = await Deno.readFile(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  });
  if (!bytes) return null;
  try {
    return await decodeTraining(bytes, path);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new SyntaxError(`${error.message}; train into another --out`, {
      cause: error,
    });
  }
}

/** @throws {Error} If a state is not one of this training */
function checkSaved(
  out: string,
  saved: SavedTraining,
  { settings, data }: Pick<SavedTraining, "settings" | "data">,
): void {
  const show = ({ images, dataset, size }: JsonObject) =>
    `${images} images of ${dataset} (${size} x ${size})`;
  if (JSON.stringify(saved.data) !== JSON.stringify(data)) {
    throw new Error(
      `Cannot resume "${out}": it was trained on ${show(saved.data)}, found ` +
        `${show(data)}; pass the same data, or train into another --out`,
    );
  }
  if (JSON.stringify(saved.settings) !== JSON.stringify(settings)) {
    throw new Error(
      `Cannot resume "${out}": its ${STATE_FILE} was made with other ` +
        `settings; pass the flags it was started with, or another --out`,
    );
  }
}

/** Whether a run has all its epochs, and its network is whole. */
async function isFinished({ folder, previous }: Recorder): Promise<boolean> {
  if (!previous || previous.metrics.epoch !== previous.flags.epochs) {
    return false;
  }
  try {
    const { card } = await readCheckpoint(`${folder}/${MODEL_FILE}`);
    return card.weightsSha256 === previous.weights[0]?.sha256;
  } catch {
    return false;
  }
}

/**
 * Flags of a resumed run: those it was started with, but for those that may
 * change. Another value given for one of the others is refused.
 */
function resumedFlags(
  flags: Flags,
  previous: Run,
  args: readonly string[],
): Flags {
  const stored = previous.flags as Partial<Record<keyof Flags, unknown>>;
  const given = givenFlags(args, FLAGS);
  for (const name of given) {
    const key = name as keyof Flags;
    const before = stored[key];
    if (!FREE.has(name) && flags[key] !== before) {
      throw new UsageError(
        `Cannot resume "${flags.out}" with --${kebab(name)} ${
          flags[key]
        }: it ` +
          `was started with ${
            before ?? "the default"
          }; leave the flag out, or ` +
          `train into another --out`,
      );
    }
  }
  const free = Object.entries(flags).filter(([name]) =>
    FREE.has(name) && (given.has(name) || !(name in stored))
  );
  return { ...flags, ...stored, ...Object.fromEntries(free) } as Flags;
}

function cardOf(
  settings: TrainSettings,
  dataset: Dataset,
  state: TrainState,
  extra: Pick<Card, "versions" | "command" | "training">,
): Card {
  const { spec, attack, seed } = settings;
  const { architecture, form, width, mean, std } = spec;
  const metrics = state.history.at(-1)?.metrics;
  const interval = (accuracy: number) => {
    const { images } = metrics!;
    const { low, high, n } = wilsonInterval(
      Math.round(accuracy * images),
      images,
    );
    return { low, high, n };
  };
  return {
    schemaVersion: CARD_SCHEMA_VERSION,
    architecture,
    form,
    width,
    classes: dataset.classes,
    dataset: dataset.name,
    imageSize: dataset.imageShape[1],
    mean: mean as Card["mean"],
    std: std as Card["std"],
    attack: attack as CardAttack | null,
    epoch: state.epoch,
    seed,
    accuracies: metrics && "clean" in metrics
      ? {
        clean: metrics.clean,
        cleanInterval: interval(metrics.clean),
        images: metrics.images,
        adversarial: [{
          attack: `PGD-${metrics.steps}`,
          epsilon: metrics.epsilon,
          steps: metrics.steps,
          stepSize: metrics.stepSize,
          restarts: 1,
          accuracy: metrics.adversarial,
          interval: interval(metrics.adversarial),
        }],
      }
      : {},
    data: {
      name: dataset.name,
      images: dataset.splits.train.size,
      preprocessing: preprocessingOf(dataset),
    },
    ...extra,
    created: new Date().toISOString(),
  };
}

/** The attack of the evaluation after each epoch. */
function evaluationAttack(flags: Flags): EvaluationAttack {
  const norm = normOf(flags.norm);
  const fallback = norm === "l2" ? 0.5 : 8 / 255;
  const epsilon = flags.evalEpsilon ?? (flags.epsilon || fallback);
  const steps = flags.evalSteps;
  return {
    norm,
    epsilon,
    steps,
    stepSize: 2.5 * epsilon / steps,
    randomStart: false,
    restarts: 1,
  };
}

/** Share of its accuracy that training must lose to PGD to be warned of. */
const COLLAPSE = 0.5;

/** Smaller losses say nothing: early epochs are near chance. */
const LEAST_GAP = 0.15;

/**
 * What to say if the attack of training has lost its grip: attacked batches are
 * classified well, and PGD breaks the same images (Wong et al. 2020,
 * "catastrophic overfitting"). Null if not, and where the attack of the
 * evaluation is stronger by its radius alone.
 *
 * @param attack The attack of training
 * @param record Of the epoch; its accuracy is that on attacked batches
 * @param metrics Accuracy of training images under PGD, and its radius
 * @param guardSteps Steps that training goes on with, if it is guarded
 */
export function overfittingWarning(
  attack: Pick<TrainingAttack, "epsilon"> | null,
  { epoch, accuracy }: Pick<EpochRecord, "epoch" | "accuracy">,
  { trainAdversarial, epsilon, steps }: {
    readonly trainAdversarial: number;
    readonly epsilon: number;
    readonly steps: number;
  },
  guardSteps?: number,
): string | null {
  if (!attack || attack.epsilon === 0 || epsilon > attack.epsilon) return null;
  const isKept = trainAdversarial >= COLLAPSE * accuracy ||
    accuracy - trainAdversarial < LEAST_GAP;
  if (isKept) return null;
  return `Catastrophic overfitting in epoch ${epoch}: ${
    percent(accuracy)
  } of ` +
    `attacked training images are classified correctly, but ` +
    `${percent(trainAdversarial)} under PGD-${steps}; ` +
    (guardSteps === undefined
      ? "train with more --attack-steps, a smaller --step-size or --guard-steps"
      : `going on with PGD-${guardSteps}`);
}

/** Opens the images; a missing test split only costs the evaluation. */
async function openImages(
  flags: Flags,
  context: ScriptContext,
): Promise<Dataset> {
  const { signal, note } = context;
  const { data, limit, size, evalImages } = flags;
  const open = (split: SplitName, count: number | undefined) =>
    openData(
      flags.dataset,
      { data, splits: [split], limit: count, size },
      context,
    );
  const dataset = await open("train", limit);
  if (evalImages === 0) return dataset;
  try {
    // Limited when opened: then all classes are among the images.
    const count = Math.min(limit ?? evalImages, evalImages);
    const { splits } = await open("test", count);
    return { ...dataset, splits: { ...dataset.splits, test: splits.test } };
  } catch (error) {
    signal.throwIfAborted();
    note(`Training without evaluation: ${(error as Error).message}`);
    return dataset;
  }
}

/** Flags and arguments with those of presets in place of their names. */
function withPresets(
  flags: Flags,
  { args, note }: ScriptContext,
): { given: Flags & { readonly out: string }; args: readonly string[] } {
  const { preset } = flags;
  const [name] = preset;
  const out = flags.out ?? (name && `runs/${name}`);
  if (out === undefined) {
    throw new UsageError(
      `Missing flag --out, ${FLAGS.out.help}: pass --out <path>`,
    );
  }
  if (preset.length === 0) return { given: { ...flags, out }, args };
  const expanded = expandPresets(args, preset, FLAGS, TRAIN_PRESETS, note);
  return {
    given: { ...parseFlags(expanded, FLAGS), preset, out },
    // The preset may change: what was trained is told by its flags.
    args: expanded,
  };
}

/** What rank 0 tells the others before they train together. */
interface Plan {
  /** Those of a resumed run. */
  readonly flags: Flags;
  readonly isFinished: boolean;
}

/** The part of ranks other than 0: they read no run and write none. */
async function follow(
  given: Flags,
  context: ScriptContext,
  ranks: Ranks,
): Promise<void> {
  const { communicator } = ranks;
  const plan = await broadcastJson<Plan>(communicator, null);
  if (plan.isFinished) return;
  const flags = {
    ...plan.flags,
    // Another machine may keep the data elsewhere.
    data: given.data ?? plan.flags.data,
    device: given.device,
    threads: given.threads,
  };
  const bytes = await communicator.broadcast(null);
  const saved = bytes.length > 0
    ? await decodeTraining(bytes, "what rank 0 sent")
    : null;
  const device = await openDevice(flags, context.note, ranks);
  await trainInto(null, flags, saved, device, context);
}

/** Trains a network; the work of this script. */
export async function main(
  flagsGiven: Flags,
  context: ScriptContext,
): Promise<void> {
  const { signal, note, print, ranks } = context;
  const { given, args } = withPresets(flagsGiven, context);
  if (ranks && ranks.communicator.rank > 0) {
    return await follow(given, context, ranks);
  }
  const { resume } = given;
  const recorder = await Recorder.open("train", given, given.out, {
    args,
    resume,
  });
  const { previous } = recorder;
  const out = recorder.folder!;
  const saved = resume ? await readState(out) : null;
  const flags = previous ? resumedFlags(given, previous, args) : given;
  recorder.setFlags(flags);
  const plan: Plan = { flags, isFinished: await isFinished(recorder) };
  if (ranks) await broadcastJson(ranks.communicator, plan);
  if (plan.isFinished) {
    note(`Nothing to resume: "${out}" has all its epochs`);
    if (flags.json) await writeFileAtomic(flags.json, formatRun(previous!));
    print(`${out}/${MODEL_FILE}`);
    return;
  }
  if (resume && !saved) noteStart(recorder, args, note);
  await ranks?.communicator.broadcast(
    saved ? await encodeTraining(saved) : new Uint8Array(0),
  );
  const device = await openDevice(flags, note, ranks);
  if (!previous) {
    // From here on --resume knows the flags.
    const { provider } = device;
    await recorder.write({ provider, metrics: { epoch: 0 } }, flags.json);
  }
  try {
    await trainInto(recorder, flags, saved, device, context);
  } catch (error) {
    if (signal.aborted && (error as Error).name === "AbortError") {
      throw new DOMException(
        `${(error as Error).message}; continue with: deno task train ` +
          `--resume --out ${quoted(out)}`,
        "AbortError",
      );
    }
    await recorder.discard();
    throw error;
  }
  print(`${out}/${MODEL_FILE}`);
}

/** Says what --resume does without a state, if anything. */
function noteStart(
  { folder, previous }: Recorder,
  args: readonly string[],
  note: (text: string) => void,
): void {
  if (previous && previous.weights.length > 0) {
    throw new Error(
      `Cannot resume "${folder}": its ${STATE_FILE} is missing; train into ` +
        `another --out`,
    );
  }
  const isSet = [...givenFlags(args, FLAGS)].some((name) => !FREE.has(name));
  if (!previous && !isSet) {
    // A mistyped folder would train with the defaults for days.
    throw new Error(
      `Cannot resume "${folder}": it holds no run; pass the flags to train ` +
        `with, or another --out`,
    );
  }
  note(
    previous
      ? `Starting from the beginning: "${folder}" was stopped before it saved`
      : `Starting anew: "${folder}" holds no run to resume`,
  );
}

/** @param recorder Null on ranks that write nothing */
async function trainInto(
  recorder: Recorder | null,
  flags: Flags,
  saved: SavedTraining | null,
  device: { readonly provider: Provider; readonly threads?: number },
  context: ScriptContext,
): Promise<void> {
  const { signal, progress, note, warn = note } = context;
  const communicator = context.ranks?.communicator ?? null;
  const dataset = await openImages(flags, context);
  const settings = settingsOf(flags, dataset);
  try {
    checkTrainSettings(settings, communicator?.size);
  } catch (error) {
    throw usageOf(error);
  }
  const data = dataOf(flags, dataset);
  if (saved && recorder) {
    checkSaved(recorder.folder!, saved, { settings, data });
  }
  const known = await versions();
  const words = (recorder?.args ?? []).map(quoted).join(" ");
  const command = `deno task train ${words}`;
  const training = (state: TrainState): CardTraining => ({
    seconds: state.history.reduce((sum, { seconds }) => sum + seconds, 0) +
      state.sums.seconds,
    provider: device.provider,
    ...hardware(flags),
    ...(flags.preset.length > 0 ? { preset: flags.preset.join(", ") } : {}),
  });

  let written: TrainState | null = null;
  const write = async (state: TrainState) => {
    if (!recorder) return;
    const card = cardOf(settings, dataset, state, {
      versions: known,
      command,
      training: training(state),
    });
    const tensors = stateParameters(state);
    const model = await encodeCheckpoint({ card, tensors });
    const resumable = await encodeTraining({ settings, data, state });
    await recorder.file(STATE_FILE, resumable, "data", "state for --resume");
    await recorder.file(MODEL_FILE, model, "checkpoint", "network");
    const sha256 = await weightsHash(tensors);
    await recorder.write({
      provider: device.provider,
      weights: [{ role: "trained", path: MODEL_FILE, sha256 }],
      metrics: { epoch: state.epoch, ...state.history.at(-1)?.metrics },
      history: state.history as unknown as JsonObject[],
    }, flags.json);
    written = state;
  };

  const warned = new Set<string>();
  const onWarning = (message: string) => {
    if (!warned.has(message)) warn(message);
    warned.add(message);
  };
  const test = (dataset.splits as Partial<Dataset["splits"]>).test;
  if (settings.guardSteps !== undefined && !test) {
    throw new UsageError(
      `Cannot guard against overfitting without test images: pass ` +
        `--eval-images above 0 and data with a test split, or no --guard-steps`,
    );
  }
  // As many training images as test images. At random, not from the classes in
  // turn: their accuracy is compared with that of the batches.
  const sample = test &&
    selectImages(
      dataset.splits.train,
      new Random(0).permutation(dataset.splits.train.size)
        .subarray(0, Math.min(flags.evalImages, test.size)),
    );
  const onEpoch = async (
    network: Network,
    record: EpochRecord,
  ): Promise<Record<string, number>> => {
    if (!test) return {};
    const attack = evaluationAttack(flags);
    const count = Math.min(flags.evalImages, test.size);
    const measure = async (stage: string, split: Split) => {
      const task = progress.start(stage, Math.min(count, split.size));
      const result = await evaluate(network, split, {
        attack,
        limit: count,
        communicator,
        onWarning,
        onProgress: (done) => task.update(done),
        signal,
      });
      task.done();
      return result;
    };
    const result = await measure("evaluate", test);
    const seen = await measure("evaluate on training images", sample!);
    const metrics = {
      clean: result.clean,
      adversarial: result.adversarial!,
      images: result.images,
      epsilon: attack.epsilon,
      steps: attack.steps,
      stepSize: attack.stepSize,
      trainClean: seen.clean,
      trainAdversarial: seen.adversarial!,
    };
    note(
      `Epoch ${record.epoch}: loss ${record.loss.toFixed(3)}, training ` +
        `${percent(record.accuracy)}, test ${percent(result.clean)} clean, ` +
        `${
          percent(metrics.adversarial)
        } under PGD-${attack.steps} at epsilon ` +
        `${attack.epsilon.toFixed(3)}, training images ` +
        `${percent(seen.clean)} and ${percent(metrics.trainAdversarial)} ` +
        `(${result.images} images)`,
    );
    // Until epsilon has grown, the attack of training is the weaker one.
    const isGrown = record.epoch > settings.epsilonWarmup;
    const warning = isGrown &&
      overfittingWarning(
        settings.attack,
        record,
        metrics,
        settings.guardSteps,
      );
    if (!warning) return metrics;
    note(warning);
    return { ...metrics, overfitting: 1 };
  };

  let task = null as ReturnType<typeof progress.start> | null;
  try {
    const state = await train(settings, dataset.splits.train, {
      ...device,
      communicator,
      state: saved?.state,
      signal,
      onStep: ({ epoch, step, stepsPerEpoch, loss, accuracy }) => {
        task ??= progress.start(
          `epoch ${epoch + 1}/${settings.epochs}`,
          stepsPerEpoch,
          step - 1,
        );
        const text = `loss ${loss.toFixed(3)}, ${percent(accuracy)}`;
        task.update(step, text);
        if (step === stepsPerEpoch) {
          task.done();
          task = null;
        }
      },
      onEpoch,
      onWarning,
      onCheckpoint: write,
    });
    // A run that ended between two of its files has nothing left to train.
    if (!written) await write(state);
  } finally {
    dataset.close();
  }
}

if (import.meta.main) await runScript(import.meta, FLAGS, {}, onRanks(main));
