/**
 * Tiles of a run as rows and columns of pictures, with a slider where a
 * parameter varies.
 *
 * @module
 */
import type { Run, RunFile } from "../robust/results.ts";

/** A picture at one value of the parameter. */
export interface Frame {
  /** Null where the picture does not vary. */
  readonly value: number | null;
  /** Path in the run's folder. */
  readonly path: string;
  readonly label: string;
}

/** The pictures of one place. */
export interface Cell {
  readonly column: string;
  /** By value. */
  readonly frames: readonly Frame[];
}

export interface FigureRow {
  readonly label: string;
  readonly cells: readonly Cell[];
}

/** Pictures that belong together. */
export interface FigureData {
  /** What the slider varies; null without one. */
  readonly parameter: string | null;
  /** All values that some picture was made at, rising. */
  readonly values: readonly number[];
  readonly columns: readonly string[];
  readonly rows: readonly FigureRow[];
}

/** Rows as the paper orders them; others follow as they come. */
const ORDER = [
  ...["source", "picture", "target", "start", "seed", "pixel"],
  ...["untrained", "vgg", "standard", "robust"],
];

/**
 * The figures of a run: one, or one per parameter.
 *
 * @param run Its tiles without a place are put where their labels say
 */
export function figuresOf({ files }: Pick<Run, "files">): FigureData[] {
  const tiles = withColumns(
    files.filter(({ kind }) => kind === "tile").map((file) => ({
      file,
      place: file.tile ?? placeOf(file),
    })),
  );
  const names = new Set(
    tiles.flatMap(({ place }) => place.parameter?.name ?? []),
  );
  if (names.size <= 1) {
    return tiles.length === 0 ? [] : [build(tiles, [...names][0] ?? null)];
  }
  const still = tiles.filter(({ place }) => !place.parameter);
  return Array.from(names, (name, i) =>
    build([
      ...(i === 0 ? still : []),
      ...tiles.filter(({ place }) => place.parameter?.name === name),
    ], name));
}

interface PlacedFile {
  readonly file: RunFile;
  readonly place: NonNullable<RunFile["tile"]>;
}

/**
 * Where tiles name no column, but their rows are such as "robust, dog to cat"
 * and "standard, dog to cat", the columns are what comes after the comma; also
 * where other tiles have such a column.
 */
function withColumns(tiles: readonly PlacedFile[]): readonly PlacedFile[] {
  const split = (row: string) => /^([^,]+), (.+)$/.exec(row);
  const open = tiles.filter(({ place }) => place.column === "");
  const rows = new Set(open.map(({ place }) => place.row));
  const columns = new Set(Array.from(rows, (row) => split(row)?.[2]));
  const isShared = columns.size < rows.size ||
    tiles.some(({ place }) => place.column && columns.has(place.column));
  if (columns.has(undefined) || !isShared) return tiles;
  return tiles.map(({ file, place }) => {
    if (place.column !== "") return { file, place };
    const [, row, column] = split(place.row)!;
    return { file, place: { ...place, row, column } };
  });
}

/** Older runs have labels such as "robust, disc.png" alone. */
function placeOf({ label = "", path }: RunFile): PlacedFile["place"] {
  const match = /^(.*?), (.*)$/.exec(label) ?? /^(.*) (\d+)$/.exec(label);
  return match
    ? { row: match[1], column: match[2] }
    : { row: "", column: label || path };
}

function build(
  tiles: readonly PlacedFile[],
  parameter: string | null,
): FigureData {
  const values = new Set<number>();
  const columns = new Set<string>();
  const rows = new Map<string, Map<string, Frame[]>>();
  for (const { file, place } of tiles) {
    const { row, column, parameter: at } = place;
    columns.add(column);
    if (at) values.add(at.value);
    const cells = rows.get(row) ?? new Map<string, Frame[]>();
    rows.set(row, cells);
    const frames = cells.get(column) ?? [];
    cells.set(column, frames);
    frames.push({
      value: at?.value ?? null,
      path: file.path,
      label: file.label ?? [row, column].filter(Boolean).join(", "),
    });
  }
  const rank = (label: string) => {
    const found = ORDER.findIndex((name) => label.startsWith(name));
    return found < 0 ? ORDER.length : found;
  };
  return {
    parameter,
    values: [...values].sort((a, b) => a - b),
    columns: [...columns],
    rows: Array.from(rows, ([label, cells]) => ({
      label,
      cells: Array.from(cells, ([column, frames]) => ({
        column,
        frames: ofValues(frames),
      })),
    })).sort((a, b) => rank(a.label) - rank(b.label)),
  };
}

/** By value; what came out in the end is among them. */
function ofValues(frames: readonly Frame[]): Frame[] {
  const varied = frames.filter(({ value }) => value !== null);
  return varied.length === 0
    ? frames.slice(0, 1)
    : varied.sort((a, b) => a.value! - b.value!);
}

/** The frame to show at a value: the last one not beyond it. */
export function frameAt(frames: readonly Frame[], value: number): Frame {
  let found = frames[0];
  for (const frame of frames) {
    if (frame.value !== null && frame.value <= value) found = frame;
  }
  return found;
}
