/**
 * The history of a training run.
 *
 * @module
 */
import type { Run } from "../robust/results.ts";

/** What an epoch of training came to. */
export interface EpochView {
  readonly epoch: number;
  readonly loss: number;
  readonly accuracy: number;
  readonly learningRate: number;
  readonly clean?: number;
  readonly adversarial?: number;
}

/** A run's epochs; what is no number is left out. */
export function epochsOf({ history = [] }: Pick<Run, "history">): EpochView[] {
  const number = (value: unknown) =>
    typeof value === "number" ? value : undefined;
  return history.map((record, i) => {
    const metrics = (record.metrics ?? {}) as Record<string, unknown>;
    const clean = number(metrics.clean);
    const adversarial = number(metrics.adversarial);
    return {
      epoch: number(record.epoch) ?? i + 1,
      loss: number(record.loss) ?? NaN,
      accuracy: number(record.accuracy) ?? NaN,
      learningRate: number(record.learningRate) ?? NaN,
      ...(clean === undefined ? {} : { clean }),
      ...(adversarial === undefined ? {} : { adversarial }),
    };
  });
}

/** A training run in a few words: its folder, and what it was trained against. */
export function trainingLabel(
  folder: string,
  { epsilon }: { readonly epsilon?: unknown },
): string {
  const radius = Number(epsilon ?? 0);
  const kind = radius > 0 ? `robust, ε ${radius}` : "standard";
  return `${folder.replace(/^.*\//, "")} (${kind})`;
}
