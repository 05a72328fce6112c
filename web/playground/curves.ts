/**
 * Curves of the playground's objective.
 *
 * @module
 */
import type { Series } from "../components/Chart.tsx";
import type { Progress } from "../engine/protocol.ts";
import type { ModelSummary } from "../views.ts";

/** Objective by step, for each network. */
export interface Curves {
  readonly steps: readonly number[];
  readonly lines: Readonly<Record<string, readonly (number | null)[]>>;
}

export const NO_CURVES: Curves = { steps: [], lines: {} };

/** Adds what networks report; a chart needs one list of steps. */
export function extended(
  curves: Curves,
  progress: readonly Progress[],
): Curves {
  const steps = [...curves.steps];
  const lines: Record<string, (number | null)[]> = {};
  for (const { curve } of progress) {
    for (const { step } of curve) {
      if (step > (steps.at(-1) ?? -1)) steps.push(step);
    }
  }
  const at = new Map(steps.map((step, i) => [step, i]));
  for (const { model, curve } of progress) {
    const line = steps.map((_, i) => curves.lines[model]?.[i] ?? null);
    for (const { step, losses } of curve) {
      const mean = losses.reduce((a, b) => a + b, 0) / losses.length;
      line[at.get(step)!] = mean;
    }
    lines[model] = line;
  }
  return { steps, lines };
}

/** The latest value of a network. */
export function lastOf({ lines }: Curves, model: string): number | undefined {
  return lines[model]?.findLast((value) => value !== null) ?? undefined;
}

/** Lines of a chart, in the colours of the networks' roles. */
export function linesOf(
  { lines }: Curves,
  models: readonly ModelSummary[],
): Series[] {
  const roles = models.map(({ epsilon }) =>
    epsilon > 0 ? "robust" : "standard"
  );
  const isSame = roles[0] === roles[1];
  return models.filter(({ key }) => lines[key]).map(({ key }, i) => ({
    label: isSame ? key : roles[i],
    colour: isSame ? `run-${i}` : roles[i],
    values: lines[key],
  }));
}
