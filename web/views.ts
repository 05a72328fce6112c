/**
 * Records as pages and the API show them.
 *
 * @module
 */
import type { Run } from "../robust/results.ts";
import { epochsOf } from "./epochs.ts";
import { percent, short } from "./format.ts";
import { isLive, type SiteModel, type SiteRun } from "./library.ts";
import { runPage, runRecord } from "./link.ts";

/** A run in a list. */
export interface RunSummary {
  readonly key: string;
  readonly folder: string;
  readonly command: string;
  readonly startedAt: string;
  readonly seconds: number;
  readonly dataset: string | null;
  readonly state: "finished" | "running" | "interrupted" | "broken";
  /** Its most telling numbers, in a few words. */
  readonly numbers: string;
  readonly error?: string;
  readonly page: string;
  readonly record: string;
}

export function summaryOf(item: SiteRun): RunSummary {
  const { key, folder, run } = item;
  const links = { page: runPage(key), record: runRecord(key) };
  if (!run) {
    return {
      key,
      folder,
      command: "unknown",
      startedAt: "",
      seconds: 0,
      dataset: null,
      state: "broken",
      numbers: "",
      error: item.error,
      ...links,
    };
  }
  return {
    key,
    folder,
    command: run.command,
    startedAt: run.startedAt,
    seconds: run.seconds,
    dataset: datasetOf(run),
    state: stateOf(item),
    numbers: numbersOf(run),
    ...links,
  };
}

function stateOf(item: SiteRun): RunSummary["state"] {
  if (isLive(item)) return "running";
  const { run } = item;
  const epochs = run?.flags.epochs;
  const isShort = run?.command === "train" && typeof epochs === "number" &&
    (run.history?.length ?? 0) < epochs;
  return isShort ? "interrupted" : "finished";
}

function datasetOf({ flags }: Run): string | null {
  return typeof flags.dataset === "string" ? flags.dataset : null;
}

function numbersOf(run: Run): string {
  const last = epochsOf(run).at(-1);
  if (last) {
    const parts = [`epoch ${last.epoch}`];
    if (last.clean !== undefined) parts.push(`clean ${percent(last.clean)}`);
    if (last.adversarial !== undefined) {
      parts.push(`adversarial ${percent(last.adversarial)}`);
    }
    if (parts.length === 1) parts.push(`training ${percent(last.accuracy)}`);
    return parts.join(", ");
  }
  const { clean, adversarial } = run.metrics;
  if (typeof clean === "number") {
    return `clean ${percent(clean)}` +
      (typeof adversarial === "number"
        ? `, adversarial ${percent(adversarial)}`
        : "");
  }
  const parts: string[] = [];
  for (const role of ["robust", "standard"]) {
    const mean = distanceOf(run.metrics[role]);
    if (mean !== null) parts.push(`distance ${short(mean)} ${role}`);
  }
  return parts.join(", ");
}

/** Mean of the distances that a network's part of an experiment reached. */
function distanceOf(metrics: unknown): number | null {
  const { distances, claims } = (metrics ?? {}) as {
    distances?: unknown;
    claims?: { distance?: { mean?: unknown } };
  };
  const mean = claims?.distance?.mean;
  if (typeof mean === "number") return mean;
  if (!Array.isArray(distances) || distances.length === 0) return null;
  return distances.reduce((a, b) => a + Number(b), 0) / distances.length;
}

/** A network as the playground and the API know it. */
export interface ModelSummary {
  readonly key: string;
  readonly label: string;
  readonly architecture: string;
  readonly dataset: string;
  readonly imageSize: number;
  readonly classes: readonly string[];
  readonly epsilon: number;
  readonly norm: string | null;
  readonly clean: number | null;
  readonly size: number;
}

export function modelSummary({ key, size, card }: SiteModel): ModelSummary {
  const { architecture, width, dataset, imageSize, classes, attack } = card!;
  return {
    key,
    label: labelOf(card!, key),
    architecture: `${architecture}, width ${width}`,
    dataset,
    imageSize,
    classes,
    epsilon: attack?.epsilon ?? 0,
    norm: attack?.norm ?? null,
    clean: card!.accuracies.clean ?? null,
    size,
  };
}

function labelOf(card: NonNullable<SiteModel["card"]>, key: string): string {
  const kind = card.attack
    ? `robust, ${card.attack.norm} ε ${card.attack.epsilon}`
    : "standard";
  return `${card.dataset} ${card.architecture}, ${kind} (${key})`;
}
