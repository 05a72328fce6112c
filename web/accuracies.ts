/**
 * Accuracies of networks and whether they can be believed: what their cards
 * say, and runs of `evaluate`.
 *
 * @module
 */
import type { CardInterval, CardSanity } from "../models/mod.ts";
import type { Run } from "../robust/results.ts";
import { type Card, isSanity } from "./card.ts";
import { shareInterval, short } from "./format.ts";
import type { SiteModel, SiteRun } from "./library.ts";

/** A network's accuracy on clean or attacked images. */
export interface Accuracy {
  readonly name: string;
  readonly share: number;
  /** 95% interval; null if the number of images is not known. */
  readonly interval: { readonly low: number; readonly high: number } | null;
  readonly images: number | null;
  /** Key of the run that measured it, if it is not from the card. */
  readonly run: string | null;
}

/** All accuracies of a network, each attack once, the most images first. */
export function accuraciesOf(
  { card }: SiteModel,
  runs: readonly SiteRun[],
): Accuracy[] {
  if (!card) return [];
  const found: Accuracy[] = [];
  const add = (
    name: string,
    share: unknown,
    images: unknown,
    run: string | null,
    known?: CardInterval,
  ) => {
    if (typeof share !== "number" || !(share >= 0 && share <= 1)) return;
    const n = known?.n ??
      (typeof images === "number" && images > 0 ? images : null);
    const interval = known ?? (n ? shareInterval(share, n) : null);
    found.push({ name, share, interval, images: n, run });
  };
  const { clean, cleanInterval, adversarial = [], images } = card.accuracies;
  add("clean", clean, images, null, cleanInterval);
  for (const measured of adversarial) {
    const { attack: name, epsilon, accuracy, interval } = measured;
    const norm = card.attack?.norm ?? "l2";
    const label = name
      ? `${name}, ${norm} ε ${short(epsilon)}`
      : nameOf({ ...measured, norm });
    add(label, accuracy, images, null, interval);
  }
  for (const { key, metrics } of evaluationsOf(card, runs)) {
    const { clean, adversarial, images, attack } = metrics;
    add("clean", clean, images, key);
    if (attack && typeof attack === "object") {
      add(nameOf(attack), adversarial, images, key);
    }
  }
  const best = new Map<string, Accuracy>();
  for (const item of found) {
    const known = best.get(item.name);
    if (!known || (item.images ?? 0) > (known.images ?? 0)) {
      best.set(item.name, item);
    }
  }
  return [...best.values()];
}

/** The checklist of a network: its card's, else that of the newest run. */
export function sanityOf(
  { card }: SiteModel,
  runs: readonly SiteRun[],
): CardSanity | null {
  if (!card) return null;
  const measured: unknown[] = evaluationsOf(card, runs)
    .map(({ metrics }) => metrics.sanity);
  return card.sanity ?? measured.find(isSanity) ?? null;
}

/** What runs of `evaluate` have measured of the weights of a card. */
function evaluationsOf(
  { weightsSha256 }: Card,
  runs: readonly SiteRun[],
): { key: string; metrics: Run["metrics"] }[] {
  return runs.flatMap(({ key, run }) =>
    run?.command === "evaluate" &&
      run.weights.some(({ sha256 }) => sha256 === weightsSha256)
      ? [{ key, metrics: run.metrics }]
      : []
  );
}

function nameOf(attack: object): string {
  const { norm, epsilon, steps, restarts } = attack as Record<string, unknown>;
  const times = Number(restarts) > 1 ? ` x ${restarts}` : "";
  return `PGD-${steps}${times}, ${norm} ε ${short(Number(epsilon))}`;
}
