/**
 * Training runs as curves.
 *
 * @module
 */
import { epochsOf, trainingLabel } from "./epochs.ts";
import type { CurveRun } from "./islands/RunCurves.tsx";
import { isLive, type SiteRun } from "./library.ts";

export function curveRun(item: SiteRun): CurveRun {
  const epochs = epochsOf(item.run!);
  const { flags } = item.run!;
  return {
    key: item.key,
    label: trainingLabel(item.folder, flags),
    epochs,
    total: Number(flags.epochs ?? epochs.length),
    isLive: isLive(item),
  };
}
