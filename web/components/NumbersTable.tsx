import type { Interval, ResultNumber } from "../../robust/results.ts";
import { percent, short } from "../format.ts";

type Unit = ResultNumber["unit"];

function text(value: number, unit: Unit): string {
  return unit === "fraction" ? percent(value) : short(value);
}

/** Networks in the order they are shown; others follow. */
const ROLES = ["robust", "standard", "vgg", "untrained"];

/** Numbers of one measure, by network. */
interface Measure {
  readonly name: string;
  readonly unit: Unit;
  readonly by: Readonly<Record<string, ResultNumber | undefined>>;
}

/** Gathers "distance, robust" and "distance, standard"; null if few match. */
function measuresOf(numbers: readonly ResultNumber[]): Measure[] | null {
  const measures = new Map<string, Measure>();
  for (const number of numbers) {
    const [, name, role] = /^(.+), ([^,]+)$/.exec(number.label) ?? [];
    if (role === undefined) return null;
    const { by = {} } = measures.get(name) ?? {};
    if (by[role]) return null;
    measures.set(name, {
      name,
      unit: number.unit,
      by: { ...by, [role]: number },
    });
  }
  return measures.size < numbers.length ? [...measures.values()] : null;
}

/** Numbers of a result: the paper's beside ours, with intervals. */
export function NumbersTable(
  { numbers, caption }: {
    readonly numbers: readonly ResultNumber[];
    readonly caption: string;
  },
) {
  const measures = measuresOf(numbers);
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
      {measures
        ? <ByNetwork measures={measures} caption={caption} />
        : <OneByOne numbers={numbers} caption={caption} />}
    </div>
  );
}

function ByNetwork(
  { measures, caption }: {
    readonly measures: readonly Measure[];
    readonly caption: string;
  },
) {
  const found = new Set(measures.flatMap(({ by }) => Object.keys(by)));
  const roles = [...new Set([...ROLES, ...found])]
    .filter((role) => found.has(role));
  const counts = measures.flatMap(({ by }) =>
    Object.values(by).flatMap((number) => number?.ours?.n ?? [])
  );
  const n = Math.max(...counts);
  return (
    <table class="numbers by-network">
      <caption>
        {caption}
        {n > 0 && `; means over ${n.toLocaleString("en")} images with 95% ` +
            `intervals`}
      </caption>
      <thead>
        <tr>
          <th scope="col">Measure</th>
          {roles.map((role) => (
            <th key={role} scope="col" class={`${role}-head`}>{role}</th>
          ))}
        </tr>
      </thead>
      <tbody>
        {measures.map(({ name, unit, by }) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            {roles.map((role) => {
              const { ours = null, paper = null } = by[role] ?? {};
              return (
                <td key={role}>
                  <span class="strong">
                    {ours ? text(ours.mean, unit) : by[role] && "not measured"}
                  </span>
                  {ours && <IntervalBar value={ours} unit={unit} />}
                  {paper !== null && (
                    <span class="muted">paper: {text(paper, unit)}</span>
                  )}
                </td>
              );
            })}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function OneByOne(
  { numbers, caption }: {
    readonly numbers: readonly ResultNumber[];
    readonly caption: string;
  },
) {
  return (
    <table class="numbers">
      <caption>{caption}</caption>
      <thead>
        <tr>
          <th scope="col">Measure</th>
          <th scope="col" class="num">Paper</th>
          <th scope="col" class="num">Ours</th>
          <th scope="col">95% interval</th>
          <th scope="col" class="num">Images</th>
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
  );
}

/** An interval in figures, and for shares as a bar. */
export function IntervalBar(
  { value: { mean, low, high }, unit }: {
    readonly value: Pick<Interval, "mean" | "low" | "high">;
    readonly unit: Unit;
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
