import { useComputed, useSignal, useSignalEffect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Chart, type Series } from "../components/Chart.tsx";
import { epochsOf, type EpochView, trainingLabel } from "../epochs.ts";
import { MOST_COMPARED } from "../filter.ts";
import { percent, short } from "../format.ts";
import { link, runPage, runRecord } from "../link.ts";

/** A training run, as far as it is known. */
export interface CurveRun {
  readonly key: string;
  readonly label: string;
  readonly epochs: readonly EpochView[];
  /** Epochs it is to have. */
  readonly total: number;
  readonly isLive: boolean;
}

interface Props {
  readonly runs: readonly CurveRun[];
  /** Whether the address says which runs are shown, as `?compare=`. */
  readonly followsAddress?: boolean;
}

/** How often a run under way is asked for, in ms. */
const POLL_MS = 2500;

/** Training curves of one or several runs, live while one is training. */
export default function RunCurves({ runs: given, followsAddress }: Props) {
  const runs = useSignal(given);
  const isLive = useComputed(() => runs.value.some(({ isLive }) => isLive));

  // A static copy answers every query with the same page.
  useEffect(() => {
    if (!followsAddress) return;
    const keys = new URLSearchParams(location.search).getAll("compare");
    const known = new Set(given.map(({ key }) => key));
    if (keys.length === 0 || keys.every((key) => known.has(key))) return;
    Promise.all(keys.slice(0, MOST_COMPARED).map((key) => load(key))).then(
      (loaded) => {
        runs.value = loaded.filter((run) => run !== null);
      },
    );
  }, []);

  useSignalEffect(() => {
    if (!isLive.value) return;
    const timer = setInterval(async () => {
      if (document.hidden) return;
      const next = await Promise.all(
        runs.peek().map(async (run) =>
          run.isLive ? await load(run.key, run.label) ?? run : run
        ),
      );
      const before = runs.peek();
      const changed = next.some((run, i) =>
        run.epochs.length !== before[i].epochs.length ||
        run.isLive !== before[i].isLive
      );
      if (changed) runs.value = next;
    }, POLL_MS);
    return () => clearInterval(timer);
  });

  const shown = runs.value.filter(({ epochs }) => epochs.length > 0);
  if (shown.length === 0) {
    return (
      <p class="muted" role="status">
        {isLive.value
          ? "The first epoch is under way; its numbers appear here."
          : "No epoch is finished yet."}
      </p>
    );
  }
  const last = Math.max(...shown.map(({ epochs }) => epochs.at(-1)!.epoch));
  const x = {
    label: "epoch",
    values: Array.from({ length: last }, (_, i) => i + 1),
  };
  const many = shown.length > 1;
  const line = (
    run: CurveRun,
    i: number,
    name: string,
    of: (epoch: EpochView) => number | undefined,
    dashed = false,
  ): Series[] => {
    if (!run.epochs.some((epoch) => Number.isFinite(of(epoch)))) return [];
    const values: (number | null)[] = x.values.map(() => null);
    for (const epoch of run.epochs) {
      values[epoch.epoch - 1] = finite(of(epoch));
    }
    const label = many ? `${run.label}: ${name}` : name;
    const colour = many ? `run-${i % 6}` : dashed ? "standard" : "robust";
    return [{ label, values, colour, dashed: many && dashed }];
  };
  const accuracy = shown.flatMap((run, i) => {
    const measured = [
      ...line(run, i, "clean", ({ clean }) => clean),
      ...line(run, i, "adversarial", ({ adversarial }) => adversarial, true),
    ];
    return measured.length > 0
      ? measured
      : line(run, i, "training", ({ accuracy }) => accuracy);
  });
  return (
    <div class="curves">
      <p role="status" class={isLive.value ? "live" : "visually-hidden"}>
        {isLive.value ? "Training is under way; the curves follow it." : ""}
      </p>
      <div class="curve-grid">
        <Chart
          title="Accuracy"
          x={x}
          y={{
            label: "accuracy",
            format: (v) => percent(v, 0),
            range: [0, 1],
          }}
          series={accuracy}
          sync="epochs"
        />
        <Chart
          title="Loss"
          x={x}
          y={{ label: "loss on (attacked) training images", format: short }}
          series={shown.flatMap((run, i) =>
            line(run, i, "loss", ({ loss }) => loss)
          )}
          sync="epochs"
        />
        <Chart
          title="Learning rate"
          x={x}
          y={{ label: "learning rate", format: short }}
          series={shown.flatMap((run, i) =>
            line(run, i, "learning rate", ({ learningRate }) => learningRate)
          )}
          sync="epochs"
        />
      </div>
      <details open={many}>
        <summary>{many ? "Last epochs side by side" : "The numbers"}</summary>
        <div class="scroll" tabIndex={0} role="region" aria-label="Epochs">
          <EpochTable runs={shown} />
        </div>
      </details>
    </div>
  );
}

/** All epochs of one run, or the last ones of several. */
function EpochTable({ runs }: { readonly runs: readonly CurveRun[] }) {
  const many = runs.length > 1;
  const rows = many
    ? runs.map((run) => ({ run, epoch: run.epochs.at(-1)! }))
    : runs[0].epochs.map((epoch) => ({ run: runs[0], epoch }));
  return (
    <table class="numbers">
      <caption class="visually-hidden">Epochs of training</caption>
      <thead>
        <tr>
          {many && <th scope="col">Run</th>}
          <th scope="col" class="num">Epoch</th>
          <th scope="col" class="num">Loss</th>
          <th scope="col" class="num">Training</th>
          <th scope="col" class="num">Clean</th>
          <th scope="col" class="num">Adversarial</th>
          <th scope="col" class="num">Learning rate</th>
        </tr>
      </thead>
      <tbody>
        {rows.map(({ run, epoch }) => (
          <tr key={`${run.key} ${epoch.epoch}`}>
            {many && (
              <th scope="row">
                <a href={link(runPage(run.key))}>{run.label}</a>
              </th>
            )}
            <td class="num">
              {many ? `${epoch.epoch} of ${run.total}` : epoch.epoch}
            </td>
            <td class="num">{short(epoch.loss)}</td>
            <td class="num">{share(epoch.accuracy)}</td>
            <td class="num">{share(epoch.clean)}</td>
            <td class="num">{share(epoch.adversarial)}</td>
            <td class="num">{short(epoch.learningRate)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Reads a run's record from the server. */
async function load(key: string, known?: string): Promise<CurveRun | null> {
  try {
    const response = await fetch(link(runRecord(key)));
    if (!response.ok) return null;
    const run = await response.json();
    const epochs = epochsOf(run);
    const { flags = {} } = run;
    const total = Number(flags.epochs ?? epochs.length);
    const label = known ?? trainingLabel(String(flags.out ?? key), flags);
    return { key, label, epochs, total, isLive: epochs.length < total };
  } catch {
    // The next poll tries again.
    return null;
  }
}

function finite(value: number | undefined): number | null {
  return value !== undefined && Number.isFinite(value) ? value : null;
}

function share(value: number | undefined): string {
  return finite(value) === null ? "–" : percent(value!);
}
