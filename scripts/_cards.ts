/**
 * Measures networks and writes the numbers onto their cards.
 *
 * @module
 */
import {
  type AdversarialAccuracy,
  balancedSplit,
  type Card,
  type CardEvaluation,
  type CardInterval,
  checkSanity,
  type Dataset,
  type EnsembleAttack,
  type EnsembleEvaluation,
  type EnsembleSettings,
  evaluateEnsemble,
  findModel,
  type Interval,
  readCheckpoint,
  shippedModels,
  updateCard,
  wilsonInterval,
} from "../mod.ts";
import type { ProgressTask, ScriptContext } from "./_cli.ts";
import { hardware, preprocessingOf } from "./_hardware.ts";
import { openData, openDevice, openModel, percent } from "./_run.ts";

/** Flags of `evaluate` that count here. */
export interface CardFlags {
  readonly model?: string;
  readonly data?: string;
  readonly limit?: number;
  readonly batchSize?: number;
  readonly seed: number;
  readonly device: "auto" | "cpu" | "webgpu" | "cuda";
  readonly threads?: number;
  /** Attacks besides those of every card; empty: those of every card. */
  readonly attacks: readonly EnsembleAttack[];
  /** Settings of those. */
  readonly settings: Pick<EnsembleSettings, "steps" | "targets" | "queries">;
}

/** Numbers of steps of PGD that every card has. */
const STEPS = [20, 100] as const;

/** Radii for images of 32 x 32 pixels. */
const RADII = {
  l2: [0.25, 0.5, 1],
  linf: [2 / 255, 4 / 255, 8 / 255],
} as const;

/** Images of the sanity checks. */
const SANITY_IMAGES = 200;

/**
 * How much longer an l2 perturbation may be than at 32 x 32 pixels to change
 * each pixel as much: lengths grow with the root of the number of pixels.
 */
export function epsilonScale(imageSize: number): number {
  return imageSize / 32;
}

/** The radii that a card reports, in its own norm. */
export function cardRadii(
  { attack, imageSize }: Pick<Card, "attack" | "imageSize">,
): { norm: "l2" | "linf"; radii: number[] } {
  const norm = attack?.norm ?? "l2";
  const scale = norm === "l2" ? epsilonScale(imageSize) : 1;
  return { norm, radii: RADII[norm].map((radius) => radius * scale) };
}

/** Name of attacks on a card. */
export function attackName(
  attacks: readonly EnsembleAttack[],
  { steps, queries }: { readonly steps: number; readonly queries: number },
): string {
  const names = attacks.map((attack) =>
    attack === "square"
      ? `Square-${queries}`
      : `${attack.toUpperCase()}-${steps}`
  );
  const isAuto = ["apgd-ce", "apgd-t", "square"].every((name) =>
    (attacks as readonly string[]).includes(name)
  );
  return names.join(" + ") + (isAuto ? " (AutoAttack without FAB)" : "");
}

/** An interval as cards write it. */
export function cardInterval({ low, high, n }: Interval): CardInterval {
  return { low, high, n };
}

/** One thing to measure. */
interface Measurement {
  readonly name: string;
  readonly epsilon: number;
  readonly settings: EnsembleSettings;
}

function plan(card: Card, flags: CardFlags): Measurement[] {
  const { norm, radii } = cardRadii(card);
  if (flags.attacks.length > 0) {
    const epsilon = card.attack?.epsilon ?? radii[1];
    const name = attackName(flags.attacks, flags.settings);
    const settings = { ...flags.settings, attacks: flags.attacks };
    return [{ name, epsilon, settings: { ...settings, norm, epsilon } }];
  }
  return STEPS.flatMap((steps) =>
    radii.map((epsilon): Measurement => ({
      name: `PGD-${steps}`,
      epsilon,
      settings: {
        attacks: ["pgd"],
        norm,
        epsilon,
        steps,
        targets: 1,
        queries: 1,
      },
    }))
  );
}

/** Whether an entry is that of a measurement. */
function isEntryOf(
  { name, epsilon }: Measurement,
  entry: AdversarialAccuracy,
): boolean {
  return entry.attack === name && entry.epsilon === epsilon;
}

function entryOf(
  { name, epsilon, settings }: Measurement,
  { adversarial, images }: EnsembleEvaluation,
): AdversarialAccuracy {
  const { steps, attacks, queries } = settings;
  const isSquare = attacks.length === 1 && attacks[0] === "square";
  return {
    attack: name,
    epsilon,
    steps: isSquare ? queries : steps,
    // Of APGD the first one, of Square the size of its changes.
    stepSize: attacks[0] === "pgd" ? 2.5 * epsilon / steps : 2 * epsilon,
    restarts: 1,
    accuracy: adversarial,
    interval: intervalOf(adversarial, images),
  };
}

function intervalOf(share: number, images: number): CardInterval {
  return cardInterval(wilsonInterval(Math.round(share * images), images));
}

/**
 * Measures shipped networks, or one that `--model` names, and writes the
 * numbers onto their cards as they come in: a run that is stopped goes on where
 * it was.
 *
 * @returns Names of the networks, and of checks that failed
 */
export async function evaluateCards(
  flags: CardFlags,
  context: ScriptContext,
): Promise<{ names: string[]; failed: string[] }> {
  const { note, print } = context;
  const names = flags.model ? [flags.model] : await shippedModels();
  if (names.length === 0) {
    throw new Error(
      `Cannot measure the shipped networks: there are none under ` +
        `models/weights; pass --model with a network`,
    );
  }
  const device = await openDevice(flags, note);
  const opened = new Map<string, Dataset<"test">>();
  const failed: string[] = [];
  try {
    for (const [i, name] of names.entries()) {
      const path = await findModel(name);
      const { card } = await readCheckpoint(path);
      const key = `${card.dataset} ${card.imageSize}`;
      const dataset = opened.get(key) ?? await openData(card.dataset, {
        data: flags.data,
        splits: ["test"],
        limit: flags.limit,
        size: card.imageSize,
      }, context);
      opened.set(key, dataset);
      if (dataset.classes.join("\n") !== card.classes.join("\n")) {
        throw new Error(
          `Cannot measure "${name}" on ${dataset.name}: it knows the classes ` +
            `${card.classes.join(", ")}, and the data have ` +
            dataset.classes.join(", "),
        );
      }
      print(`${name} (${i + 1} of ${names.length})`);
      const measured = await evaluateCard(
        { name, path },
        dataset,
        device,
        flags,
        context,
      );
      const bad = measured.sanity?.checks.filter(({ passed }) => !passed) ?? [];
      failed.push(...bad.map((check) => `${check.name} of ${name}`));
    }
  } finally {
    for (const dataset of opened.values()) dataset.close();
  }
  return { names, failed };
}

async function evaluateCard(
  { name, path }: { readonly name: string; readonly path: string },
  dataset: Dataset<"test">,
  device: Awaited<ReturnType<typeof openDevice>>,
  flags: CardFlags,
  { note, print, progress, signal }: ScriptContext,
): Promise<Card> {
  const { network, card: before } = await openModel(path, device);
  const { test } = dataset.splits;
  const limit = flags.limit ?? null;
  const isAddition = flags.attacks.length > 0;
  const isContinued = !isAddition && before.evaluation?.complete === false &&
    before.evaluation.limit === limit;
  const isKept = isContinued || isAddition;
  if (isContinued) note(`Going on with the card of ${name}`);
  const stamp = (complete: boolean): CardEvaluation => ({
    complete,
    limit,
    provider: device.provider,
    cpu: hardware(flags).cpu,
    preprocessing: preprocessingOf(dataset),
    measured: new Date().toISOString(),
  });
  let card: Card = before;
  const save = async (changes: Partial<Card>, complete: boolean) => {
    // An addition leaves what is said of the rest.
    const evaluation = isAddition && card.evaluation
      ? card.evaluation
      : stamp(complete);
    card = await updateCard(
      path,
      (found) => ({ ...found, ...changes, evaluation }),
    );
  };
  const run = flags.batchSize ?? (card.imageSize <= 64 ? 100 : 10);
  const shared = { batchSize: run, seed: flags.seed, signal, onWarning: note };
  try {
    if (!isKept) card = { ...card, accuracies: {}, sanity: undefined };
    for (const measurement of plan(card, flags)) {
      const known = card.accuracies.adversarial ?? [];
      const isDone = known.find((entry) => isEntryOf(measurement, entry));
      if (isContinued && isDone) continue;
      const { name, epsilon, settings } = measurement;
      const { onProgress, done } = stages(
        progress,
        `${name}, ${short(epsilon)}`,
      );
      const result = await evaluateEnsemble(network, test, {
        ...shared,
        ...settings,
        onProgress,
      });
      done();
      const entry = entryOf(measurement, result);
      const { clean, images } = result;
      await save({
        sanity: card.sanity,
        accuracies: {
          ...card.accuracies,
          ...(isAddition && card.accuracies.clean !== undefined ? {} : {
            clean,
            cleanInterval: intervalOf(clean, images),
            images,
          }),
          adversarial: [
            ...known.filter((other) => !isEntryOf(measurement, other)),
            entry,
          ],
        },
      }, false);
      print(
        `  ${name} at epsilon ${short(epsilon)}: ${
          share(entry.accuracy, images)
        }`,
      );
    }
    if (isAddition) return card;
    const { clean, images } = card.accuracies;
    print(`  clean: ${share(clean!, images!)}`);
    if (!card.sanity) {
      const { norm, radii } = cardRadii(card);
      const { onProgress, done } = stages(progress, "sanity");
      const sanity = await checkSanity(
        network,
        balancedSplit(test, SANITY_IMAGES),
        {
          ...shared,
          norm,
          epsilon: card.attack?.epsilon || radii[1],
          onProgress,
        },
      );
      done();
      await save({ sanity }, true);
    } else {
      await save({}, true);
    }
    const { checks } = card.sanity!;
    print(
      `  sanity: ${checks.filter(({ passed }) => passed).length} of ` +
        `${checks.length} checks pass`,
    );
    return card;
  } finally {
    await network.release();
  }
}

/** A share with its interval, for people. */
function share(accuracy: number, images: number): string {
  const { low, high } = intervalOf(accuracy, images);
  return `${percent(accuracy)} (95%: ${percent(low)} to ${percent(high)}, ` +
    `${images} images)`;
}

function short(epsilon: number): string {
  return String(Number(epsilon.toPrecision(3)));
}

/** Shows the progress of work in stages. */
export function stages(
  progress: ScriptContext["progress"],
  title: string,
): {
  readonly onProgress: (stage: string, done: number, total: number) => void;
  readonly done: () => void;
} {
  let current = "";
  let task: ProgressTask | null = null;
  return {
    onProgress: (stage, done, total) => {
      if (stage !== current || !task) {
        task?.done();
        task = progress.start(`${title}: ${stage}`, total);
        current = stage;
      }
      task.update(done);
    },
    done: () => task?.done(),
  };
}
