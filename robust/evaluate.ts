/**
 * Standard and adversarial accuracy (paper, Tables 4 and 5).
 *
 * @module
 */
import { Random, rows, type Tensor } from "../core/mod.ts";
import { batches, type Split } from "../datasets/mod.ts";
import {
  broadcastJson,
  type Communicator,
  gatherJson,
} from "../distributed/mod.ts";
import type { Norm } from "./ball.ts";
import { DEFAULT_BATCH_SIZE, type Network } from "./network.ts";
import { crossEntropyObjective } from "./objectives.ts";
import {
  checkPgd,
  checkRestarts,
  optimizeInput,
  type PgdSettings,
} from "./pgd.ts";

/** The attack that accuracy is measured under. */
export interface EvaluationAttack extends PgdSettings {
  /** How perturbations are measured. */
  readonly norm: Norm;
  /** Start at a random point of the ball. */
  readonly randomStart: boolean;
  /** Runs per image; an image counts as correct if it withstands all. */
  readonly restarts: number;
}

/** Options of `evaluate()`. */
export interface EvaluateOptions {
  /** Left out: clean accuracy only. */
  readonly attack?: EvaluationAttack;
  /** Images per run (default 64). */
  readonly batchSize?: number;
  /** Evaluate this many images, the split's first (default: all). */
  readonly limit?: number;
  /** Of the random starts (default 0). */
  readonly seed?: number;
  /**
   * Ranks that evaluate together, each calling `evaluate()` with the same
   * arguments: they take batches in turn, and all get the result of one rank.
   */
  readonly communicator?: Communicator | null;
  /** Receives the number of images done, by this rank. */
  readonly onProgress?: (done: number) => void;
  /** As that of `batches()`: images that cannot be decoded are left out. */
  readonly onWarning?: (message: string) => void;
  /** Stops the evaluation: the promise rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** Result of `evaluate()`; fractions are 0 to 1. */
export interface Evaluation {
  /** Number of images evaluated. */
  readonly images: number;
  /** Fraction of clean images classified correctly. */
  readonly clean: number;
  /** Fraction classified correctly both clean and under every attack run. */
  readonly adversarial?: number;
  /** Mean cross-entropy of the clean images. */
  readonly cleanLoss: number;
  /** Mean of each image's largest cross-entropy found. */
  readonly adversarialLoss?: number;
  /** Whether each image is classified correctly, in the split's order. */
  readonly perImage: {
    readonly clean: readonly boolean[];
    /** Both clean and under every attack run. */
    readonly adversarial?: readonly boolean[];
  };
}

/**
 * Class with the largest logit of each image.
 *
 * @param logits `[n, classes]`
 * @returns Labels, `[n]`
 */
export function predictions(logits: Tensor): Uint32Array {
  const [n, classes] = logits.shape;
  return Uint32Array.from({ length: n }, (_, i) => {
    const row = logits.data.subarray(i * classes, (i + 1) * classes);
    return row.indexOf(row.reduce((a, b) => Math.max(a, b), -Infinity));
  });
}

/**
 * Measures accuracy on a split, clean and under PGD on the cross-entropy.
 *
 * @param network Network to measure
 * @param split Images and labels; the labels index the network's classes
 * @param options The attack, how many images, and how they run
 * @throws {RangeError} If the data set's labels do not fit the network, or a
 * setting of the attack is out of range
 *
 * @example
 * ```ts
 * import {
 *   evaluate,
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
 * const { clean, adversarial } = await evaluate(network, splits.test, {
 *   attack: {
 *     norm: "l2",
 *     epsilon: 0.5,
 *     stepSize: 0.1,
 *     steps: 2,
 *     randomStart: false,
 *     restarts: 1,
 *   },
 * }); // fractions, 0 to 1
 * await network.release();
 * close();
 * ```
 */
export async function evaluate(
  network: Network,
  split: Split,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  const { attack, batchSize = DEFAULT_BATCH_SIZE, seed = 0, signal } = options;
  const { communicator = null } = options;
  if (attack) {
    checkPgd(attack);
    checkRestarts(attack.restarts, attack.randomStart);
  }
  const limit = Math.min(options.limit ?? Infinity, split.size);
  const size = Math.min(batchSize, split.size);
  const random = new Random(seed);
  const stream = batches(split, {
    batchSize: size,
    order: "sequential",
    augmentation: "none",
    random,
    epoch: 0,
    start: communicator?.rank ?? 0,
    stride: communicator?.size ?? 1,
    onWarning: options.onWarning,
    signal,
  });
  const mine: BatchResult[] = [];
  let done = 0;
  for await (const batch of stream) {
    signal?.throwIfAborted();
    // Those that cannot be decoded are missing.
    const start = size * Math.floor(batch.indices[0] / size);
    const count = batch.indices.filter((index) => index < limit).length;
    if (count === 0) break;
    const images = rows(batch.images, 0, count);
    const labels = batch.labels.subarray(0, count);
    const measure = { ...options, attack, batchSize, random, start };
    mine.push(await evaluateBatch(network, images, labels, measure));
    done += count;
    options.onProgress?.(done);
  }
  const results = communicator ? await shared(communicator, mine) : mine;
  const clean = results.flatMap((result) => result.clean);
  const adversarial = results.flatMap((result) => result.adversarial);
  const images = clean.length;
  if (images === 0) {
    throw new Error(
      `Cannot evaluate on the ${split.name} split: none of its ${split.size} ` +
        `images can be decoded`,
    );
  }
  const fraction = (flags: readonly boolean[]) =>
    flags.filter(Boolean).length / images;
  const mean = (name: "cleanLoss" | "adversarialLoss") =>
    results.reduce((sum, result) => sum + result[name], 0) / images;
  return {
    images,
    clean: fraction(clean),
    cleanLoss: mean("cleanLoss"),
    ...(attack
      ? {
        adversarial: fraction(adversarial),
        adversarialLoss: mean("adversarialLoss"),
      }
      : {}),
    perImage: { clean, ...(attack ? { adversarial } : {}) },
  };
}

/** What one batch came to; losses are sums. */
interface BatchResult {
  /** Index of its first image. */
  readonly start: number;
  readonly clean: readonly boolean[];
  readonly adversarial: readonly boolean[];
  readonly cleanLoss: number;
  readonly adversarialLoss: number;
}

async function evaluateBatch(
  network: Network,
  images: Tensor,
  labels: Uint32Array,
  { attack, batchSize, signal, random, start }: EvaluateOptions & {
    readonly batchSize: number;
    readonly random: Random;
    readonly start: number;
  },
): Promise<BatchResult> {
  const objective = crossEntropyObjective(labels, network.spec.classes);
  const run = (settings: PgdSettings, restart?: number) =>
    optimizeInput(network, images, {
      ...settings,
      objective,
      direction: "maximize",
      keep: "best",
      batchSize,
      offset: start,
      signal,
      randomStart: restart === undefined
        ? undefined
        : random.stream("restart", restart),
    });
  const classify = async (candidates: Tensor) => {
    const { logits } = await network.predict(candidates, { batchSize });
    const predicted = Array.from(predictions(logits));
    return {
      correct: predicted.map((label, i) => label === labels[i]),
      losses: crossEntropies(logits, labels),
    };
  };
  const { correct: clean, losses } = await classify(images);
  const cleanLoss = total(losses);
  if (!attack) {
    return { start, clean, adversarial: [], cleanLoss, adversarialLoss: 0 };
  }
  let adversarial = clean;
  let worst = losses;
  for (let restart = 0; restart < attack.restarts; restart++) {
    const result = await run(attack, attack.randomStart ? restart : undefined);
    const attacked = await classify(result.images);
    adversarial = adversarial.map((is, i) => is && attacked.correct[i]);
    worst = worst.map((loss, i) => Math.max(loss, attacked.losses[i]));
  }
  return {
    start,
    clean,
    adversarial,
    cleanLoss,
    adversarialLoss: total(worst),
  };
}

/** The results of all ranks in the order of the images, on every rank. */
async function shared(
  communicator: Communicator,
  mine: readonly BatchResult[],
): Promise<BatchResult[]> {
  const parts = await gatherJson(communicator, mine);
  const all = parts?.flat().sort((a, b) => a.start - b.start) ?? null;
  const results = await broadcastJson(communicator, all);
  // JSON has no NaN.
  return results.map((result) => ({
    ...result,
    cleanLoss: result.cleanLoss ?? NaN,
    adversarialLoss: result.adversarialLoss ?? NaN,
  }));
}

/** Cross-entropy of each image, as `crossEntropy()` defines it. */
function crossEntropies(
  logits: Tensor,
  labels: ArrayLike<number>,
): Float64Array {
  const [n, classes] = logits.shape;
  return Float64Array.from({ length: n }, (_, i) => {
    const row = logits.data.subarray(i * classes, (i + 1) * classes);
    const top = row.reduce((a, b) => Math.max(a, b), -Infinity);
    const sum = row.reduce((a, b) => a + Math.exp(b - top), 0);
    return top + Math.log(sum) - row[labels[i]];
  });
}

function total(losses: Float64Array): number {
  return losses.reduce((sum, loss) => sum + loss, 0);
}
