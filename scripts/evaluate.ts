/**
 * Measures the accuracy of a network on a test split, clean and under PGD
 * (paper, Tables 4 and 5).
 *
 * An image counts as robust if it is classified correctly clean and by every
 * run of the attack, each of which keeps the iterate of largest
 * cross-entropy.
 *
 *   deno task evaluate --model runs/cifar-l2 --data data --epsilon 0.5 \
 *     --attack-steps 20 --json out.json
 *   mpirun -n 4 deno task evaluate --distributed mpi --model runs/cifar-l2 ...
 *
 * @module
 */
import {
  DATASETS,
  evaluate,
  type Evaluation,
  type EvaluationAttack,
  type JsonObject,
} from "../mod.ts";
import {
  COMMON_FLAGS,
  type FlagTable,
  type ParsedFlags,
  runScript,
  type ScriptContext,
} from "./_cli.ts";
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
    required: true,
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
  attackSteps: { type: "integer", default: 20, min: 1, help: "PGD steps" },
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

function attackOf(flags: ParsedFlags<typeof FLAGS>): EvaluationAttack | null {
  const { epsilon, attackSteps: steps, restarts } = flags;
  if (epsilon === 0) return null;
  return {
    norm: normOf(flags.norm),
    epsilon,
    steps,
    stepSize: flags.stepSize ?? 2.5 * epsilon / steps,
    randomStart: flags.randomStart || restarts > 1,
    restarts,
  };
}

/** The result as it goes on record. */
function metricsOf(
  { images, clean, cleanLoss, adversarial, adversarialLoss }: Evaluation,
  attack: EvaluationAttack | null,
): JsonObject {
  return {
    images,
    clean,
    cleanLoss,
    ...(attack
      ? {
        adversarial: adversarial!,
        adversarialLoss: adversarialLoss!,
        attack: { ...attack },
      }
      : {}),
  };
}

/** Evaluates a network; the work of this script. */
export async function main(
  flags: ParsedFlags<typeof FLAGS>,
  context: ScriptContext,
): Promise<void> {
  const { args, signal, progress, note, print, warn = note, ranks } = context;
  // Of several ranks the first one writes.
  const isWriter = (ranks?.communicator.rank ?? 0) === 0;
  const out = isWriter ? flags.out ?? null : null;
  const recorder = await Recorder.open("evaluate", flags, out, { args });
  const device = await openDevice(flags, note, ranks);
  const model = await openModel(flags.model, device);
  const { card, network } = model;
  const imageSize = flags.size ?? card.imageSize;
  const dataset = await openData(flags.dataset ?? card.dataset, {
    data: flags.data,
    splits: ["test"],
    limit: flags.limit,
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
    const attack = attackOf(flags);
    const share = dataset.splits.test.size / (ranks?.communicator.size ?? 1);
    const task = progress.start("evaluate", Math.ceil(share));
    const result = await evaluate(network, dataset.splits.test, {
      ...(attack ? { attack } : {}),
      batchSize: flags.batchSize ?? (imageSize <= 64 ? 100 : 10),
      seed: flags.seed,
      communicator: ranks?.communicator,
      onProgress: (done) => task.update(done),
      onWarning: warn,
      signal,
    });
    task.done();
    if (!isWriter) return;
    await recorder.write({
      provider: device.provider,
      weights: [await weightsOf("evaluated", model)],
      metrics: metricsOf(result, attack),
    }, flags.json);
    print(`Clean accuracy: ${percent(result.clean)}`);
    if (attack) {
      const { norm, epsilon, steps, restarts } = attack;
      print(
        `Adversarial accuracy: ${percent(result.adversarial!)} (${norm}, ` +
          `epsilon ${epsilon}, PGD-${steps}, ` +
          `${restarts} ${restarts > 1 ? "restarts" : "run"})`,
      );
    }
    print(`Images: ${result.images}`);
  } finally {
    dataset.close();
    await network.release();
  }
}

if (import.meta.main) await runScript(import.meta, FLAGS, {}, onRanks(main));
