/**
 * Curves as SVG.
 *
 * @module
 */
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import type { Interval } from "../mod.ts";

/** Colours that stay apart for colour-blind eyes (Okabe and Ito 2008). */
const COLOURS: Readonly<Record<string, string>> = {
  robust: "#0072b2",
  standard: "#d55e00",
  untrained: "#6b6b6b",
};

/** Distance reached within each radius, by network. */
export interface Curve {
  /** l2 radii, growing. */
  readonly radius: readonly number[];
  /** Radius that the robust network was trained against. */
  readonly epsilon: number | null;
  /** Normalised distance at each radius. */
  readonly roles: Readonly<Record<string, readonly Interval[]>>;
}

/**
 * Draws Fig. 4: means as lines, 95% intervals as bands.
 *
 * @returns An SVG document
 */
export function curvePlot({ radius, epsilon, roles }: Curve): string {
  const points = Object.entries(roles).flatMap(([role, list]) =>
    list.map(({ mean, low, high }, i) => ({
      ...{ role, radius: radius[i], mean, low, high },
    }))
  );
  const { document } = parseHTML("<!doctype html><html></html>");
  const color = {
    domain: Object.keys(roles),
    range: Object.keys(roles).map((role) => COLOURS[role]),
  };
  const svg = Plot.plot({
    document: document as unknown as Document,
    width: 640,
    height: 400,
    marginLeft: 50,
    style: { background: "white", color: "#222", fontFamily: "sans-serif" },
    x: {
      type: "log",
      label: "l2 radius around the source",
      ticks: radius.slice(),
      tickFormat: (x: number) => String(Number(x.toPrecision(2))),
    },
    y: { label: "normalised distance to the target", zero: true, grid: true },
    color,
    marks: [
      Plot.ruleY([0]),
      ...(epsilon
        ? [
          Plot.ruleX([epsilon], { strokeDasharray: "4 3" }),
          Plot.text([epsilon], {
            x: (x: number) => x,
            frameAnchor: "top",
            dx: 4,
            textAnchor: "start",
            text: () => "trained against",
          }),
        ]
        : []),
      Plot.areaY(points, {
        ...{ x: "radius", y1: "low", y2: "high", fill: "role", z: "role" },
        fillOpacity: 0.2,
      }),
      Plot.lineY(points, {
        ...{ x: "radius", y: "mean", stroke: "role", z: "role" },
        marker: true,
      }),
      ...Object.keys(roles).map((role, i) =>
        Plot.text([role], {
          frameAnchor: "top-right",
          fill: COLOURS[role],
          fontSize: 13,
          dy: 4 + 18 * i,
        })
      ),
    ],
  });
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return `${svg.outerHTML}\n`;
}
