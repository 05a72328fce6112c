import type { Signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { Chart } from "../components/Chart.tsx";
import { short } from "../format.ts";
import type { CurveData } from "../pages.ts";

interface Props {
  readonly curve: CurveData;
  /** Shared with the pictures' slider. */
  readonly radius: Signal<number>;
}

/** Distance reached by radius, with bands (Fig. 4). */
export default function RadiusCurve({ curve, radius }: Props) {
  const { epsilon, roles } = curve;
  const names = Object.keys(roles);
  const series = useMemo(
    () =>
      Object.entries(roles).map(([role, intervals]) => ({
        label: role,
        colour: ["robust", "standard"].includes(role) ? role : "untrained",
        values: intervals.map(({ mean }) => mean),
        low: intervals.map(({ low }) => low),
        high: intervals.map(({ high }) => high),
      })),
    [roles],
  );
  const now = radius.value;
  const marks = useMemo(() => [
    ...(epsilon ? [{ x: epsilon, label: `ε of training` }] : []),
    { x: now, label: "pictures" },
  ], [epsilon, now]);
  const pick = (x: number) => {
    radius.value = curve.radius.reduce((a, b) =>
      Math.abs(Math.log(b / x)) < Math.abs(Math.log(a / x)) ? b : a
    );
  };
  const at = curve.radius.indexOf(now);
  return (
    <section class="curve" aria-label="Distance by radius">
      <Chart
        title="Normalised distance reached within each l2 radius"
        x={{ label: "l2 radius", values: curve.radius }}
        y={{ label: "‖R(x) − R(t)‖ / ‖R(t)‖", format: short }}
        series={series}
        marks={marks}
        onPick={pick}
        logX
        height={300}
      />
      <details open={false}>
        <summary>The numbers</summary>
        <div class="scroll" tabIndex={0} role="region" aria-label="Distances">
          <table class="numbers">
            <caption>Mean distance and 95% interval by radius</caption>
            <thead>
              <tr>
                <th scope="col" class="num">Radius</th>
                {names.map((name) => <th key={name} scope="col">{name}</th>)}
              </tr>
            </thead>
            <tbody>
              {curve.radius.map((value, i) => (
                <tr key={value} class={i === at ? "now" : ""}>
                  <th scope="row" class="num">{short(value)}</th>
                  {names.map((name) => {
                    const { mean, low, high } = roles[name][i];
                    return (
                      <td key={name}>
                        {short(mean)}{" "}
                        <span class="muted">{short(low)} – {short(high)}</span>
                      </td>
                    );
                  })}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </section>
  );
}
