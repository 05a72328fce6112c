import { type Signal, useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { type Cell, type FigureData, type Frame, frameAt } from "../figure.ts";
import { short } from "../format.ts";
import { link, runFile, runPage } from "../link.ts";

interface Props {
  readonly figure: FigureData;
  /** Key of the run that made it. */
  readonly run: string;
  readonly command: string;
  /** The parameter's value, if another island moves it, too. */
  readonly position?: Signal<number>;
  /** Without files and recipe below. */
  readonly compact?: boolean;
}

const NAMES: Readonly<Record<string, string | undefined>> = {
  lambda: "λ",
  step: "Steps",
  radius: "Radius",
  coordinate: "Coordinate",
};

/** Pictures in rows and columns; a slider moves all that vary. */
export default function Figure(
  { figure, run, command, position, compact = false }: Props,
) {
  const { parameter, values, columns, rows } = figure;
  const own = useSignal(values[firstOf(figure)] ?? 0);
  const value = position ?? own;
  const zoom = useSignal(false);
  const shown = useSignal<{ row: string; cell: Cell } | null>(null);
  const dialog = useRef<HTMLDialogElement>(null);
  const grid = useRef<HTMLDivElement>(null);
  const index = nearest(values, value.value);

  /** All pictures are magnified at the place that the pointer is over. */
  const look = (event: PointerEvent) => {
    const image = (event.target as Element).closest(".tile");
    if (!zoom.value || !image || !grid.current) return;
    const { left, top, width, height } = image.getBoundingClientRect();
    const { style } = grid.current;
    style.setProperty("--x", `${100 * (event.clientX - left) / width}%`);
    style.setProperty("--y", `${100 * (event.clientY - top) / height}%`);
  };
  const open = (row: string, cell: Cell) => {
    shown.value = { row, cell };
    dialog.current?.showModal();
  };
  const frameOf = ({ frames }: Cell) => frameAt(frames, values[index] ?? 0);
  const isStrip = columns.length === 1 && values.length > 1;

  return (
    <div
      class={`figure${zoom.value ? " zoomed" : ""}`}
      style={{ "--columns": columns.length }}
    >
      <div class="figure-tools">
        {parameter && values.length > 1 && (
          <label class="slider">
            <span class="slider-name">{NAMES[parameter] ?? parameter}</span>
            <input
              type="range"
              min={0}
              max={values.length - 1}
              step={1}
              value={index}
              aria-valuetext={`${NAMES[parameter] ?? parameter} ${
                short(values[index])
              }`}
              onInput={({ currentTarget }) => {
                value.value = values[Number(currentTarget.value)];
              }}
            />
            <output>{short(values[index])}</output>
          </label>
        )}
        <button
          type="button"
          class="button small"
          aria-pressed={zoom.value ? "true" : "false"}
          onClick={() => zoom.value = !zoom.value}
        >
          Zoom all
        </button>
      </div>
      <div
        class="scroll"
        ref={grid}
        onPointerMove={look}
        tabIndex={0}
        role="region"
        aria-label="Pictures"
      >
        <table class="grid">
          {columns.length > 1 && (
            <thead>
              <tr>
                <td></td>
                {columns.map((column) => (
                  <th key={column} scope="col">{clean(column)}</th>
                ))}
              </tr>
            </thead>
          )}
          <tbody>
            {rows.map(({ label, cells }) => (
              <tr key={label} class={roleOf(label)}>
                <th scope="row">{label}</th>
                {columns.map((column) => {
                  const cell = cells.find((cell) =>
                    cell.column === column
                  );
                  return (
                    <td key={column}>
                      {cell && (
                        <Tile
                          run={run}
                          frame={frameOf(cell)}
                          onOpen={() => open(label, cell)}
                        />
                      )}
                    </td>
                  );
                })}
                {isStrip && (
                  <td class="strip">
                    {cells.flatMap((cell) =>
                      cell.frames.length > 1
                        ? cell.frames.map((frame) => (
                          <img
                            key={frame.path}
                            class={frame.value === values[index]
                              ? "strip-now"
                              : ""}
                            src={link(runFile(run, frame.path))}
                            alt={`${frame.label}, ${parameter} ${
                              short(frame.value ?? 0)
                            }`}
                            title={`${NAMES[parameter!] ?? parameter} ${
                              short(frame.value ?? 0)
                            }`}
                            loading="lazy"
                            onClick={() => value.value = frame.value ?? 0}
                          />
                        ))
                        : []
                    )}
                  </td>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {!compact && (
        <p class="muted caption">
          {captionOf(figure)} Press a picture for its recipe and file.
        </p>
      )}
      <dialog ref={dialog} aria-label="Picture">
        {shown.value && (
          <Detail
            run={run}
            command={command}
            row={shown.value.row}
            frame={frameOf(shown.value.cell)}
            parameter={parameter}
          />
        )}
        <form method="dialog">
          <button type="submit" class="button small">Close</button>
        </form>
      </dialog>
    </div>
  );
}

function Tile(
  { run, frame, onOpen }: {
    readonly run: string;
    readonly frame: Frame;
    readonly onOpen: () => void;
  },
) {
  const src = link(runFile(run, frame.path));
  // A link without JavaScript, a dialog with it.
  return (
    <a
      class="tile"
      href={src}
      onClick={(event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        onOpen();
      }}
    >
      <img src={src} alt={frame.label} width="64" height="64" />
    </a>
  );
}

function Detail(
  { run, command, row, frame, parameter }: {
    readonly run: string;
    readonly command: string;
    readonly row: string;
    readonly frame: Frame;
    readonly parameter: string | null;
  },
) {
  const src = link(runFile(run, frame.path));
  return (
    <div class="detail">
      <img src={src} alt={frame.label} />
      <div>
        <h3>{frame.label}</h3>
        <dl>
          <dt>Row</dt>
          <dd>{row}</dd>
          {frame.value !== null && parameter && (
            <>
              <dt>{NAMES[parameter] ?? parameter}</dt>
              <dd>{short(frame.value)}</dd>
            </>
          )}
          <dt>Made by</dt>
          <dd>
            <code class="command">{command}</code>
          </dd>
        </dl>
        <p class="links">
          <a href={src}>{frame.path}</a>
          <a href={link(runPage(run))}>The run</a>
        </p>
      </div>
    </div>
  );
}

function captionOf({ parameter, values, rows }: FigureData): string {
  const names = rows.map(({ label }) => label).filter(Boolean);
  const listed = names.length > 1 ? `Rows: ${names.join(", ")}. ` : "";
  if (!parameter || values.length < 2) return listed;
  return `${listed}${NAMES[parameter] ?? parameter} from ${short(values[0])} ` +
    `to ${short(values.at(-1)!)}.`;
}

/** Index of the value to begin at, where there is most to see. */
function firstOf({ parameter, values }: FigureData): number {
  switch (parameter) {
    case "lambda":
      return Math.floor(values.length / 2);
    case "coordinate":
      return 0;
    default:
      return values.length - 1;
  }
}

/** Networks have their colours. */
function roleOf(label: string): string {
  return /^(robust|standard|untrained)/.exec(label)?.[0] ?? "";
}

function clean(column: string): string {
  return column.replace(/\.(png|jpe?g)$/i, "");
}

function nearest(values: readonly number[], value: number): number {
  let best = 0;
  for (const [i, other] of values.entries()) {
    if (Math.abs(other - value) < Math.abs(values[best] - value)) best = i;
  }
  return best;
}
