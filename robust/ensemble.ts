/**
 * Accuracy under one or several attacks, each on the images that withstood those
 * before: the worst case of each image.
 *
 * APGD-CE, APGD-T and Square in this order are AutoAttack (Croce and Hein 2020)
 * without its FAB attack.
 *
 * @module
 */
import { Random } from "../core/mod.ts";
import { batches, type Split } from "../datasets/mod.ts";
import { apgdEach, checkApgd, pgdEach, type PlainPgdSettings } from "./apgd.ts";
import type { Norm } from "./ball.ts";
import { predictions } from "./evaluate.ts";
import { TARGETED_DLR_CLASSES } from "./margin.ts";
import { DEFAULT_BATCH_SIZE, type Network } from "./network.ts";
import { oneHot } from "./objectives.ts";
import { checkPgd } from "./pgd.ts";
import type { AttackedImage, AttackSource } from "./slots.ts";
import { checkSquare, squareEach } from "./square.ts";

/** Names of the attacks, in the order they run in. */
export const ENSEMBLE_ATTACKS = ["pgd", "apgd-ce", "apgd-t", "square"] as const;

/** Name of one of them. */
export type EnsembleAttack = (typeof ENSEMBLE_ATTACKS)[number];

/** The attacks that accuracy is measured under. */
export interface EnsembleSettings {
  /** Which, at least one. */
  readonly attacks: readonly EnsembleAttack[];
  /** How perturbations are measured. */
  readonly norm: Exclude<Norm, "unconstrained">;
  /** Radius of the ball in [0, 1] pixel units. */
  readonly epsilon: number;
  /** Steps of each run of PGD and APGD (paper: 100). */
  readonly steps: number;
  /** Length of a step of PGD (default: 2.5 epsilon / steps). */
  readonly stepSize?: number;
  /** Runs of PGD; more than 1, or 0 steps, start at random points (default 1). */
  readonly restarts?: number;
  /** Target classes of APGD-T at most (paper: 9). */
  readonly targets: number;
  /** Queries of Square per image (paper: 5000). */
  readonly queries: number;
}

/** AutoAttack's settings. */
export const AUTOATTACK = {
  attacks: ["apgd-ce", "apgd-t", "square"],
  steps: 100,
  targets: 9,
  queries: 5000,
} as const;

/** Options of `evaluateEnsemble()`. */
export interface EnsembleOptions extends EnsembleSettings {
  /** Images per run (default 64). */
  readonly batchSize?: number;
  /** Evaluate this many images, the split's first (default: all). */
  readonly limit?: number;
  /** Of random starts and squares (default 0). */
  readonly seed?: number;
  /** Receives what is done: "clean" or an attack, and images of it. */
  readonly onProgress?: (stage: string, done: number, total: number) => void;
  /** As that of `batches()`: images that cannot be decoded are left out. */
  readonly onWarning?: (message: string) => void;
  /** Stops the evaluation: the promise rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** Result of `evaluateEnsemble()`; fractions are 0 to 1. */
export interface EnsembleEvaluation {
  /** Number of images evaluated. */
  readonly images: number;
  /** Fraction of clean images classified correctly. */
  readonly clean: number;
  /** Fraction classified correctly clean and under every attack. */
  readonly adversarial: number;
  /** Each attack, and the fraction left after it and those before. */
  readonly attacks: readonly {
    readonly name: EnsembleAttack;
    /** Images it was run on. */
    readonly attacked: number;
    /** Of them misclassified by it. */
    readonly broken: number;
    /** Fraction of all images that withstand it and those before. */
    readonly accuracy: number;
  }[];
  /** Whether each image is classified correctly, in the split's order. */
  readonly perImage: {
    readonly clean: readonly boolean[];
    readonly adversarial: readonly boolean[];
  };
}

/**
 * What an attack does otherwise for as many classes, in a sentence; null if
 * nothing.
 */
export function ensembleNote(
  { attacks, targets }: Pick<EnsembleSettings, "attacks" | "targets">,
  classes: number,
): string | null {
  if (!attacks.includes("apgd-t")) return null;
  const others = Math.max(0, classes - 1);
  const few = classes < TARGETED_DLR_CLASSES
    ? "on the margin, as the targeted DLR loss compares " +
      `${TARGETED_DLR_CLASSES} logits`
    : "";
  const capped = others < targets ? `against all ${others} wrong classes` : "";
  const parts = [capped, few].filter((part) => part !== "");
  return parts.length > 0
    ? `APGD-T runs ${parts.join(", and ")}: there are ${classes} classes`
    : null;
}

/** @throws {RangeError} If a setting is out of range */
export function checkEnsemble(settings: EnsembleSettings): void {
  if (settings.attacks.length === 0) {
    throw new RangeError(
      `Cannot attack with nothing: name one of ${ENSEMBLE_ATTACKS.join(", ")}`,
    );
  }
  const has = (name: EnsembleAttack) => settings.attacks.includes(name);
  if (has("pgd")) checkPgd(plainSettings(settings));
  if (has("apgd-ce") || has("apgd-t")) {
    checkApgd({ ...settings, loss: "targeted" });
  }
  if (has("square")) checkSquare(settings);
}

/**
 * Measures accuracy on a split under the worst case of several attacks. An
 * image is attacked no more once one has broken it.
 *
 * @param network Network to measure
 * @param split Images and labels; the labels index the network's classes
 * @param options The attacks, how many images, and how they run
 * @throws {RangeError} If the data set's labels do not fit the network, or a
 * setting is out of range
 *
 * @example
 * ```ts
 * import {
 *   AUTOATTACK,
 *   evaluateEnsemble,
 *   initializeModel,
 *   type ModelSpec,
 *   Network,
 *   openDataset,
 *   Random,
 * } from "../mod.ts";
 *
 * const { classes, mean, std, splits, close } = await openDataset("shapes", {
 *   splits: ["test"],
 *   limit: 10,
 * });
 * const spec: ModelSpec = {
 *   architecture: "resnet10",
 *   form: "cifar",
 *   width: 4,
 *   classes: classes.length,
 *   mean,
 *   std,
 * };
 * // Untrained; `loadNetwork()` reads a trained one.
 * const network = new Network(spec, initializeModel(spec, new Random(0)));
 * const { adversarial, attacks } = await evaluateEnsemble(
 *   network,
 *   splits.test,
 *   { ...AUTOATTACK, norm: "l2", epsilon: 0.5, steps: 5, queries: 10 },
 * );
 * console.log(adversarial, attacks.at(-1)!.accuracy); // equal fractions
 * await network.release();
 * close();
 * ```
 */
export async function evaluateEnsemble(
  network: Network,
  split: Split,
  options: EnsembleOptions,
): Promise<EnsembleEvaluation> {
  checkEnsemble(options);
  const { batchSize = DEFAULT_BATCH_SIZE, seed = 0, signal } = options;
  const limit = Math.min(options.limit ?? Infinity, split.size);
  const report = options.onProgress ?? (() => {});
  const places: number[] = [];
  const clean: boolean[] = [];
  const stream = batches(split, {
    batchSize: Math.min(batchSize, split.size),
    random: new Random(seed),
    onWarning: options.onWarning,
    signal,
  });
  for await (const { images, labels, indices } of stream) {
    signal?.throwIfAborted();
    oneHot(labels, network.spec.classes); // Refuses labels without a class.
    const { logits } = await network.predict(images, { batchSize });
    const count = Math.min(labels.length, limit - clean.length);
    predictions(logits).subarray(0, count).forEach((found, i) => {
      places.push(indices[i]);
      clean.push(found === labels[i]);
    });
    report("clean", clean.length, limit);
    if (clean.length >= limit) break;
  }
  const images = clean.length;
  if (images === 0) {
    throw new Error(
      `Cannot evaluate on the ${split.name} split: none of its ${split.size} ` +
        `images can be decoded`,
    );
  }
  const adversarial = [...clean];
  const attacks: EnsembleEvaluation["attacks"][number][] = [];
  for (const name of ENSEMBLE_ATTACKS) {
    if (!options.attacks.includes(name)) continue;
    const left = [...adversarial.keys()].filter((i) => adversarial[i]);
    let broken = 0;
    await attackEach(name, network, sourceOfSplit(split, places, left), {
      ...options,
      batchSize,
      seed,
      onDone: (image) => {
        if (!image.broken) return;
        broken++;
        adversarial[left[image.i]] = false;
      },
      onProgress: (done) => report(name, done, left.length),
    });
    const accuracy = (left.length - broken) / images;
    attacks.push({ name, attacked: left.length, broken, accuracy });
  }
  return {
    images,
    clean: clean.filter(Boolean).length / images,
    adversarial: adversarial.filter(Boolean).length / images,
    attacks,
    perImage: { clean, adversarial },
  };
}

/** Some images of a split; their random streams are those of the split. */
function sourceOfSplit(
  split: Split,
  places: readonly number[],
  chosen: readonly number[],
): AttackSource {
  return {
    count: chosen.length,
    imageShape: split.imageShape,
    label: (i) => split.labels[places[chosen[i]]],
    index: (i) => places[chosen[i]],
    load: async (i) => (await split.load([places[chosen[i]]])).data,
  };
}

function plainSettings(settings: EnsembleSettings): PlainPgdSettings {
  const { norm, epsilon, steps, restarts = 1 } = settings;
  return {
    norm,
    epsilon,
    steps,
    stepSize: settings.stepSize ?? 2.5 * epsilon / Math.max(1, steps),
    restarts,
    randomStart: restarts > 1 || steps === 0,
  };
}

async function attackEach(
  name: EnsembleAttack,
  network: Network,
  source: AttackSource,
  { onProgress, ...options }: Omit<EnsembleOptions, "onProgress"> & {
    readonly onDone: (image: AttackedImage) => void;
    readonly onProgress: (done: number) => void;
  },
): Promise<void> {
  if (name === "pgd") {
    const settings = plainSettings(options);
    return await pgdEach(network, source, {
      ...options,
      ...settings,
      onProgress,
    });
  }
  if (name === "square") {
    return await squareEach(network, source, { ...options, onProgress });
  }
  const loss = name === "apgd-ce" ? "cross-entropy" : "targeted";
  return await apgdEach(network, source, { ...options, onProgress, loss });
}
