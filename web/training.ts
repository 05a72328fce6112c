/**
 * Training runs as curves.
 *
 * @module
 */
import { epochsOf } from "./epochs.ts";
import type { CurveRun } from "./islands/RunCurves.tsx";
import { isLive, type SiteRun } from "./library.ts";

export function curveRun(item: SiteRun): CurveRun {
  const epochs = epochsOf(item.run!);
  const { flags } = item.run!;
  const epsilon = Number(flags.epsilon ?? 0);
  const kind = epsilon > 0 ? `robust, ε ${epsilon}` : "standard";
  return {
    key: item.key,
    label: `${item.folder.replace(/^.*\//, "")} (${kind})`,
    epochs,
    total: Number(flags.epochs ?? epochs.length),
    isLive: isLive(item),
  };
}
