/**
 * Measures the accuracy of a network on a test split, clean and under attack
 * (paper, Tables 4 and 5).
 *
 * Under PGD an image counts as robust if it is classified correctly clean and
 * by every run, each of which keeps the iterate of largest cross-entropy. Under
 * the other attacks, and on cards, any misclassified iterate breaks an image.
 * They are those of AutoAttack (Croce and Hein 2020): apgd-ce, apgd-t
 * (targeted; with fewer than 4 classes on the margin, with few against all
 * wrong classes), square (no gradients), and autoattack: the worst case of
 * these three for each image, which is AutoAttack without FAB.
 *
 *   deno task evaluate --model runs/cifar-l2 --data data --epsilon 0.5 \
 *     --attack-steps 20 --json out.json
 *   deno task evaluate --model runs/cifar-l2 --data data --attack autoattack
 *   deno task evaluate --model runs/cifar-l2 --data data --sanity
 *   deno task evaluate --cards --data data
 *   mpirun -n 4 deno task evaluate --distributed mpi --model runs/cifar-l2 ...
 *
 * --sanity goes through the checklist of "On Evaluating Adversarial Robustness"
 * (Carlini et al. 2019) and says of each line whether it holds. --cards
 * measures the shipped networks, clean, under PGD-20 and PGD-100 at three
 * radii, and by that checklist, and writes the numbers with their 95%
 * intervals (Wilson's score) onto their cards; stopped, it goes on where it
 * was. Radii for l2 grow with the root of the number of pixels: 0.5 at 32 x 32
 * is 1 at 64 x 64. With --attack it adds that attack at the epsilon of training.
 *
 * @module
 */
import {
  AUTOATTACK,
  checkSanity,
  DATASETS,
  type EnsembleAttack,
  type EnsembleEvaluation,
  ensembleNote,
  type EnsembleSettings,
  evaluate,
  evaluateEnsemble,
  type Evaluation,
  type EvaluationAttack,
  type Interval,
  type JsonObject,
  type LoadedNetwork,
  type Split,
  wilsonInterval,
} from "../mod.ts";
import {
  COMMON_FLAGS,
  type FlagTable,
  givenFlags,
  kebab,
  type ParsedFlags,
  parseFlags,
  runScript,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import { attackName, evaluateCards, stages } from "./_cards.ts";
import { EVALUATE_PRESETS, expandPresets, presetFlag } from "./_presets.ts";
import { onRanks, RANK_FLAGS } from "./_ranks.ts";
import {
  normOf,
  openData,
  openDevice,
  openModel,
  percent,
  Recorder,
  SIZE_FLAG,
  weightsOf,
} from "./_run.ts";

/** Flags of this script. */
export const FLAGS = {
  model: {
    type: "string",
    aliases: ["resume"],
    help: "run folder, .safetensors or .pt file, or shipped name",
  },
  dataset: {
    type: "choice",
    choices: DATASETS,
    help: "images to test on; the model's own if not given",
  },
  data: { type: "path", help: "folder or archive of the data set" },
  epsilon: {
    type: "number",
    default: 0.5,
    min: 0,
    aliases: ["eps"],
    help: "radius of the perturbations in [0, 1] units; 0: clean only",
  },
  norm: {
    type: "choice",
    choices: ["l2", "linf", "2", "inf"],
    default: "l2",
    aliases: ["constraint"],
    help: "how perturbations are measured",
  },
  attack: {
    type: "choice",
    choices: ["pgd", "apgd-ce", "apgd-t", "square", "autoattack"],
    default: "pgd",
    help: "autoattack is apgd-ce, apgd-t and square: without FAB",
  },
  attackSteps: {
    type: "integer",
    min: 1,
    help: "steps of a run; 20 for PGD and 100 for APGD if not given",
  },
  queries: {
    type: "integer",
    default: AUTOATTACK.queries,
    min: 1,
    help: "images that square may show the network, for each image",
  },
  targets: {
    type: "integer",
    default: AUTOATTACK.targets,
    min: 1,
    help: "wrong classes that apgd-t tries at most, the likeliest first",
  },
  stepSize: {
    type: "number",
    above: 0,
    aliases: ["attack-lr"],
    help: "length of a PGD step; 2.5 * epsilon / steps if not given",
  },
  randomStart: { type: "boolean", help: "start at a random point of the ball" },
  restarts: {
    type: "integer",
    default: 1,
    min: 1,
    aliases: ["random-restarts"],
    help: "runs per image; more than 1 start at random points",
  },
  sanity: {
    type: "boolean",
    help: "check whether PGD's result can be believed, on 200 images",
  },
  strict: { type: "boolean", help: "exit with 1 if a check of these fails" },
  cards: {
    type: "boolean",
    help: "write the numbers of the shipped networks, or --model, on the cards",
  },
  preset: presetFlag(EVALUATE_PRESETS),
  limit: { type: "integer", min: 1, help: "test this many images" },
  ...SIZE_FLAG,
  batchSize: {
    type: "integer",
    min: 1,
    help: "images per run; 100 up to 64 x 64 pixels, else 10",
  },
  out: { type: "path", help: "folder for the record (default: none)" },
  ...RANK_FLAGS,
  ...COMMON_FLAGS,
} as const satisfies FlagTable;

type Flags = ParsedFlags<typeof FLAGS>;

/** Steps of each run, where none are asked for. */
function stepsOf({ attack, attackSteps }: Flags): number {
  return attackSteps ?? (attack === "pgd" ? 20 : AUTOATTACK.steps);
}

/** PGD as the flags say. */
function attackOf(flags: Flags): EvaluationAttack {
  const { epsilon, restarts } = flags;
  const steps = stepsOf(flags);
  return {
    norm: normOf(flags.norm),
    epsilon,
    steps,
    stepSize: flags.stepSize ?? 2.5 * epsilon / steps,
    randomStart: flags.randomStart || restarts > 1,
    restarts,
  };
}

/** Attacks other than PGD as the flags say. */
function ensembleOf(flags: Flags): EnsembleSettings {
  const { attack, epsilon, targets, queries } = flags;
  return {
    attacks: attack === "autoattack"
      ? AUTOATTACK.attacks
      : [attack as EnsembleAttack],
    norm: normOf(flags.norm),
    epsilon,
    steps: stepsOf(flags),
    targets,
    queries,
  };
}

/** A share of images as it goes on record, with its 95% interval. */
function interval(share: number, images: number): JsonObject {
  const { low, high, n }: Interval = wilsonInterval(
    Math.round(share * images),
    images,
  );
  return { low, high, n };
}

/** The result as it goes on record. */
function metricsOf(
  { images, clean, cleanLoss, adversarial, adversarialLoss }: Evaluation,
  attack: EvaluationAttack | null,
): JsonObject {
  return {
    images,
    clean,
    cleanInterval: interval(clean, images),
    cleanLoss,
    ...(attack
      ? {
        adversarial: adversarial!,
        adversarialInterval: interval(adversarial!, images),
        adversarialLoss: adversarialLoss!,
        attack: { ...attack },
      }
      : {}),
  };
}

function ensembleMetrics(
  { images, clean, adversarial, attacks }: EnsembleEvaluation,
  { norm, epsilon, steps, targets, queries }: EnsembleSettings,
): JsonObject {
  return {
    images,
    clean,
    cleanInterval: interval(clean, images),
    adversarial,
    adversarialInterval: interval(adversarial, images),
    attacks: attacks.map((attack) => ({ ...attack })),
    attack: { norm, epsilon, steps, targets, queries },
  };
}

/** What a measurement prints and records. */
interface Outcome {
  readonly metrics: JsonObject;
  readonly lines: readonly string[];
  /** Names of checks that failed. */
  readonly failed?: readonly string[];
}

interface Work {
  readonly flags: Flags;
  readonly model: LoadedNetwork;
  readonly split: Split;
  readonly batchSize: number;
  readonly context: ScriptContext;
}

/** Clean accuracy, and that under PGD. */
async function measurePgd(
  { flags, model: { network }, split, batchSize, context }: Work,
): Promise<Outcome> {
  const { progress, note, warn = note, signal, ranks } = context;
  const attack = flags.epsilon === 0 ? null : attackOf(flags);
  const share = split.size / (ranks?.communicator.size ?? 1);
  const task = progress.start("evaluate", Math.ceil(share));
  const result = await evaluate(network, split, {
    ...(attack ? { attack } : {}),
    batchSize,
    seed: flags.seed,
    communicator: ranks?.communicator,
    onProgress: (done) => task.update(done),
    onWarning: warn,
    signal,
  });
  task.done();
  const lines = [`Clean accuracy: ${percent(result.clean)}`];
  if (attack) {
    const { norm, epsilon, steps, restarts } = attack;
    lines.push(
      `Adversarial accuracy: ${percent(result.adversarial!)} (${norm}, ` +
        `epsilon ${epsilon}, PGD-${steps}, ` +
        `${restarts} ${restarts > 1 ? "restarts" : "run"})`,
    );
  }
  lines.push(`Images: ${result.images}`);
  return { metrics: metricsOf(result, attack), lines };
}

/** Clean accuracy, and that under the attacks of AutoAttack. */
async function measureEnsemble(
  { flags, model: { network }, split, batchSize, context }: Work,
): Promise<Outcome> {
  const { progress, note, signal } = context;
  const settings = ensembleOf(flags);
  const few = ensembleNote(settings, network.spec.classes);
  if (few) note(few);
  const { onProgress, done } = stages(progress, "evaluate");
  const result = await evaluateEnsemble(network, split, {
    ...settings,
    batchSize,
    seed: flags.seed,
    onProgress,
    onWarning: note,
    signal,
  });
  done();
  const { norm, epsilon } = settings;
  return {
    metrics: ensembleMetrics(result, settings),
    lines: [
      `Clean accuracy: ${percent(result.clean)}`,
      ...(result.attacks.length > 1
        ? result.attacks.map(({ name, attacked, broken, accuracy }) =>
          `After ${name}: ${percent(accuracy)} (${broken} of ${attacked} ` +
          `images broken)`
        )
        : []),
      `Adversarial accuracy: ${
        percent(result.adversarial)
      } (${norm}, epsilon ` +
      `${epsilon}, ${attackName(settings.attacks, settings)})`,
      `Images: ${result.images}`,
    ],
  };
}

/** The checklist. */
async function measureSanity(
  { flags, model: { network }, split, batchSize, context }: Work,
): Promise<Outcome> {
  const { progress, note, signal, print } = context;
  // AutoAttack's number is more than a check needs.
  const hasQueries = givenFlags(context.args, FLAGS).has("queries");
  const { onProgress, done } = stages(progress, "sanity");
  const { images, norm, epsilon, steps, checks } = await checkSanity(
    network,
    split,
    {
      norm: normOf(flags.norm),
      epsilon: flags.epsilon,
      steps: stepsOf(flags),
      ...(hasQueries ? { queries: flags.queries } : {}),
      limit: flags.limit ?? SANITY_IMAGES,
      batchSize,
      seed: flags.seed,
      onProgress,
      onCheck: ({ name, passed, detail }) =>
        print(`${passed ? "pass" : "FAIL"} ${name}: ${detail}`),
      onWarning: note,
      signal,
    },
  );
  done();
  const failed = checks.filter(({ passed }) => !passed);
  return {
    metrics: {
      images,
      sanity: {
        images,
        norm,
        epsilon,
        steps,
        checks: checks.map((check) => ({ ...check })),
      },
    },
    lines: [
      `Checks: ${checks.length - failed.length} of ${checks.length} pass`,
      `Images: ${images}`,
    ],
    failed: failed.map(({ name }) => name),
  };
}

/** Images of the checklist, where no number is asked for. */
const SANITY_IMAGES = 200;

/** Flags that a card's own values stand for. */
const NOT_FOR_CARDS = [
  ...["dataset", "epsilon", "norm", "stepSize", "randomStart", "restarts"],
  ...["preset", "size", "sanity", "out", "json"],
];

/** @throws {UsageError} If a flag would not count */
function checkCardFlags(set: ReadonlySet<string>): void {
  for (const key of NOT_FOR_CARDS) {
    if (!set.has(key)) continue;
    throw new UsageError(
      `--cards measures each network as its card says: leave out --` +
        kebab(key),
    );
  }
  const isAttack = set.has("attack");
  for (const key of ["attackSteps", "queries", "targets"]) {
    if (!set.has(key) || isAttack) continue;
    throw new UsageError(
      `--cards with --${kebab(key)} needs --attack: pass it, too`,
    );
  }
}

/** The flags with those of presets, checked for what excludes another. */
function flagsOf(given: Flags, { args, note }: ScriptContext): Flags {
  const { preset } = given;
  const flags = preset.length === 0 ? given : {
    ...parseFlags(
      expandPresets(args, preset, FLAGS, EVALUATE_PRESETS, note),
      FLAGS,
    ),
    preset,
  };
  if (flags.model === undefined && !flags.cards) {
    throw new UsageError(
      `Missing flag --model, ${FLAGS.model.help}: pass --model <string>`,
    );
  }
  const set = givenFlags(args, FLAGS);
  const needs = (key: string, isMet: boolean, what: string) => {
    if (set.has(key) && !isMet) {
      throw new UsageError(`--${key} needs ${what}: pass it, too`);
    }
  };
  needs("strict", flags.sanity || flags.cards, "--sanity or --cards");
  if (flags.cards) checkCardFlags(set);
  const own = flags.sanity ? "sanity" : `attack ${flags.attack}`;
  for (const key of ["stepSize", "randomStart", "restarts"]) {
    if (!set.has(key) || (flags.attack === "pgd" && !flags.sanity)) continue;
    throw new UsageError(
      `--${kebab(key)} does not count with --${own}: leave it out`,
    );
  }
  if (flags.sanity && flags.epsilon === 0) {
    throw new UsageError("--sanity needs an epsilon > 0: current value is 0");
  }
  if (flags.sanity && flags.attack !== "pgd") {
    throw new UsageError(
      `--sanity checks PGD: leave out --attack ${flags.attack}`,
    );
  }
  return flags;
}

/** Evaluates a network; the work of this script. */
export async function main(
  given: Flags,
  context: ScriptContext,
): Promise<void> {
  const { args, note, print, ranks } = context;
  const flags = flagsOf(given, context);
  checkRanks(flags, context);
  if (flags.cards) return await writeCards(flags, context);
  // Of several ranks the first one writes.
  const isWriter = (ranks?.communicator.rank ?? 0) === 0;
  const out = isWriter ? flags.out ?? null : null;
  const recorder = await Recorder.open("evaluate", flags, out, { args });
  const device = await openDevice(flags, note, ranks);
  const model = await openModel(flags.model!, device);
  const { card, network } = model;
  const imageSize = flags.size ?? card.imageSize;
  const dataset = await openData(flags.dataset ?? card.dataset, {
    data: flags.data,
    splits: ["test"],
    limit: flags.limit ?? (flags.sanity ? SANITY_IMAGES : undefined),
    size: imageSize,
  }, context);
  try {
    if (dataset.classes.length !== card.classes.length) {
      throw new Error(
        `Cannot evaluate "${flags.model}" on ${dataset.name}: the model has ` +
          `${card.classes.length} classes, the data set ` +
          `${dataset.classes.length}; pass another --dataset or --model`,
      );
    }
    const other = card.classes.findIndex((name, i) =>
      name !== dataset.classes[i]
    );
    // Imported networks have numbers where the file named no classes.
    const hasNames = card.classes.some((name, i) => name !== `${i}`);
    if (other >= 0 && hasNames) {
      note(
        `The classes differ: label ${other} is "${card.classes[other]}" to ` +
          `the model and "${dataset.classes[other]}" in ${dataset.name}`,
      );
    }
    const measure = flags.sanity
      ? measureSanity
      : flags.attack === "pgd" || flags.epsilon === 0
      ? measurePgd
      : measureEnsemble;
    const { metrics, lines, failed = [] } = await measure({
      flags,
      model,
      split: dataset.splits.test,
      batchSize: flags.batchSize ?? (imageSize <= 64 ? 100 : 10),
      context,
    });
    if (!isWriter) return;
    await recorder.write({
      provider: device.provider,
      weights: [await weightsOf("evaluated", model)],
      metrics,
    }, flags.json);
    for (const line of lines) print(line);
    if (flags.strict) checkStrict(failed);
  } finally {
    dataset.close();
    await network.release();
  }
}

/** @throws {Error} If a check failed */
function checkStrict(failed: readonly string[]): void {
  if (failed.length === 0) return;
  throw new Error(
    `Cannot believe the measured robustness: failed ${failed.join(", ")}`,
  );
}

async function writeCards(
  flags: Flags,
  context: ScriptContext,
): Promise<void> {
  const { attacks, steps, targets, queries } = ensembleOf(flags);
  const { failed } = await evaluateCards({
    ...flags,
    attacks: flags.attack === "pgd" ? [] : attacks,
    settings: { steps, targets, queries },
  }, context);
  if (flags.strict) checkStrict(failed);
}

/** @throws {UsageError} If several ranks cannot share what is measured */
function checkRanks(flags: Flags, { ranks }: ScriptContext): void {
  const isShared = !flags.cards && !flags.sanity &&
    (flags.attack === "pgd" || flags.epsilon === 0);
  if (!ranks || isShared) return;
  throw new UsageError(
    "Cannot share --cards, --sanity or attacks other than PGD over ranks: " +
      "leave out --distributed",
  );
}

if (import.meta.main) await runScript(import.meta, FLAGS, {}, onRanks(main));
