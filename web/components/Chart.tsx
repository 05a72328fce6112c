import { useEffect, useRef } from "preact/hooks";
import type uPlot from "uplot";

/** A line of a chart. */
export interface Series {
  readonly label: string;
  readonly values: readonly (number | null)[];
  /** Name of a colour of the style sheet, such as "robust". */
  readonly colour: string;
  readonly dashed?: boolean;
  /** Limits of a band around it. */
  readonly low?: readonly number[];
  readonly high?: readonly number[];
}

export interface ChartProps {
  /** Says what the chart shows; read out in its place. */
  readonly title: string;
  readonly x: { readonly label: string; readonly values: readonly number[] };
  readonly y: {
    readonly label: string;
    readonly format: (value: number) => string;
    readonly range?: readonly [number, number];
    readonly log?: boolean;
  };
  readonly series: readonly Series[];
  /** Powers of two along x. */
  readonly logX?: boolean;
  /** Marks on x. */
  readonly marks?: readonly {
    readonly x: number;
    readonly label: string;
  }[];
  /** Receives the place on x that was pressed. */
  readonly onPick?: (x: number) => void;
  /** Charts of one key show one cursor. */
  readonly sync?: string;
  readonly height?: number;
}

/** A line chart; needs a table of its values beside it. */
export function Chart(props: ChartProps) {
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const shape = JSON.stringify([
    props.series.map(({ label, colour, low }) => [label, colour, !low]),
    props.logX,
    props.y.range,
  ]);

  useEffect(() => {
    let isGone = false;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const draw = async () => {
      const { default: UPlot } = await import("uplot");
      if (isGone || !holder.current) return;
      plot.current?.destroy();
      plot.current = new UPlot(
        optionsOf(holder.current, latest),
        dataOf(latest.current),
        holder.current,
      );
    };
    draw();
    dark.addEventListener("change", draw);
    const observer = new ResizeObserver(() => {
      const { current: u } = plot;
      const width = holder.current?.clientWidth ?? 0;
      if (u && width > 0 && width !== u.width) {
        u.setSize({ width, height: latest.current.height ?? HEIGHT });
      }
    });
    observer.observe(holder.current!);
    return () => {
      isGone = true;
      observer.disconnect();
      dark.removeEventListener("change", draw);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => {
    plot.current?.setData(dataOf(props));
  }, [props.x.values, props.series]);

  useEffect(() => {
    plot.current?.redraw();
  }, [props.marks]);

  return (
    <div class="chart">
      <p class="chart-title" aria-hidden="true">{props.title}</p>
      <div ref={holder} class="plot" role="img" aria-label={props.title} />
      <ul class="legend" aria-hidden="true">
        {props.series.map(({ label, colour, dashed }) => (
          <li key={label} class={`c-${colour}${dashed ? " dashed" : ""}`}>
            {label}
          </li>
        ))}
      </ul>
    </div>
  );
}

const HEIGHT = 240;

function dataOf({ x, series }: ChartProps): uPlot.AlignedData {
  const lines: (readonly (number | null)[])[] = [x.values];
  for (const { values, low, high } of series) {
    lines.push(values);
    if (low && high) lines.push(low, high);
  }
  return lines as uPlot.AlignedData;
}

function optionsOf(
  holder: HTMLElement,
  latest: { readonly current: ChartProps },
): uPlot.Options {
  const { series, x, y, logX = false, sync } = latest.current;
  const style = getComputedStyle(holder);
  const colour = (name: string) => style.getPropertyValue(`--${name}`).trim();
  const font = `12px ${style.fontFamily}`;
  const axis: uPlot.Axis = {
    stroke: colour("muted"),
    grid: { stroke: colour("line"), width: 1 },
    ticks: { stroke: colour("line"), width: 1, size: 4 },
    font,
    labelFont: font,
    labelSize: 20,
  };
  const lines: uPlot.Series[] = [{ label: x.label }];
  const bands: uPlot.Band[] = [];
  for (const { label, colour: name, dashed, low, high } of series) {
    const stroke = colour(name);
    lines.push({
      label,
      stroke,
      width: 2,
      points: { show: (u) => u.data[0].length < 40, size: 5 },
      spanGaps: true,
      ...(dashed ? { dash: [6, 4] } : {}),
    });
    if (low && high) {
      const edge = { width: 0, stroke: "transparent", points: { show: false } };
      lines.push({ ...edge, label: `${label}, low` });
      lines.push({ ...edge, label: `${label}, high` });
      const at = lines.length - 1;
      bands.push({ series: [at, at - 1], fill: `${stroke}33` });
    }
  }
  return {
    width: holder.clientWidth,
    height: latest.current.height ?? HEIGHT,
    legend: { show: false },
    cursor: {
      drag: { x: false, y: false },
      ...(sync ? { sync: { key: sync } } : {}),
    },
    scales: {
      x: { time: false, ...(logX ? { distr: 3, log: 2 } : {}) },
      y: {
        ...(y.range ? { range: [...y.range] as [number, number] } : {}),
        ...(y.log ? { distr: 3 } : {}),
      },
    },
    axes: [
      {
        ...axis,
        label: x.label,
        size: 34,
        values: (_, ticks) =>
          ticks.map((tick) =>
            tick === null ? "" : `${Number(tick.toPrecision(4))}`
          ),
      },
      {
        ...axis,
        label: y.label,
        size: 56,
        values: (_, ticks) =>
          ticks.map((tick) =>
            tick === null ? "" : latest.current.y.format(tick)
          ),
      },
    ],
    series: lines,
    bands,
    hooks: {
      ready: [(u) =>
        u.over.addEventListener("click", ({ offsetX }) => {
          latest.current.onPick?.(u.posToVal(offsetX, "x"));
        })],
      draw: [(u) => drawMarks(u, latest.current.marks ?? [], colour)],
    },
  };
}

function drawMarks(
  u: uPlot,
  marks: NonNullable<ChartProps["marks"]>,
  colour: (name: string) => string,
): void {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.fillStyle = colour("ink");
  ctx.strokeStyle = colour("ink");
  for (const { x, label } of marks) {
    const at = Math.round(u.valToPos(x, "x", true));
    if (at < bbox.left || at > bbox.left + bbox.width) continue;
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(at, bbox.top);
    ctx.lineTo(at, bbox.top + bbox.height);
    ctx.stroke();
    const isRight = at > bbox.left + bbox.width * 0.7;
    ctx.textAlign = isRight ? "right" : "left";
    const gap = (isRight ? -6 : 6) * devicePixelRatio;
    ctx.fillText(label, at + gap, bbox.top + 14 * devicePixelRatio);
  }
  ctx.restore();
}
