import type { Interval, ResultNumber } from "../../robust/results.ts";
import { percent, short } from "../format.ts";

function text(value: number, unit: ResultNumber["unit"]): string {
  return unit === "fraction" ? percent(value) : short(value);
}

/** Numbers of a result: the paper's beside ours, with its interval. */
export function NumbersTable(
  { numbers, caption }: {
    readonly numbers: readonly ResultNumber[];
    readonly caption: string;
  },
) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
      <table class="numbers">
        <caption>{caption}</caption>
        <thead>
          <tr>
            <th scope="col">Measure</th>
            <th scope="col" class="num">Paper</th>
            <th scope="col" class="num">Ours</th>
            <th scope="col">95% interval</th>
            <th scope="col" class="num">n</th>
          </tr>
        </thead>
        <tbody>
          {numbers.map(({ label, unit, paper, ours }) => (
            <tr key={label}>
              <th scope="row">{label}</th>
              <td class="num">{paper === null ? "–" : text(paper, unit)}</td>
              <td class="num strong">
                {ours ? text(ours.mean, unit) : "not measured"}
              </td>
              <td>{ours && <IntervalBar value={ours} unit={unit} />}</td>
              <td class="num">{ours ? ours.n.toLocaleString("en") : ""}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** An interval in figures, and for shares as a bar. */
export function IntervalBar(
  { value: { mean, low, high }, unit }: {
    readonly value: Pick<Interval, "mean" | "low" | "high">;
    readonly unit: ResultNumber["unit"];
  },
) {
  const figures = `${text(low, unit)} – ${text(high, unit)}`;
  if (unit !== "fraction") return <span class="interval">{figures}</span>;
  const x = (value: number) => 100 * Math.min(1, Math.max(0, value));
  return (
    <span class="interval">
      <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
        <rect class="track" x="0" y="4" width="100" height="2" />
        <rect
          class="range"
          x={x(low)}
          y="1.5"
          width={Math.max(1, x(high) - x(low))}
          height="7"
        />
        <rect
          class="mean"
          x={Math.max(0, x(mean) - 0.6)}
          y="0"
          width="1.2"
          height="10"
        />
      </svg>
      <span>{figures}</span>
    </span>
  );
}
