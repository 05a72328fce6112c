/**
 * What pages of results are given.
 *
 * @module
 */
import { HttpError } from "fresh";
import type { Interval, ResultEntry, RunFile } from "../robust/results.ts";
import { type FigureData, figuresOf } from "./figure.ts";
import { quoted } from "./format.ts";
import type { Library, SiteResults, SiteRun } from "./library.ts";
import { runFile } from "./link.ts";

/** A result in a list. */
export interface EntryView
  extends Pick<ResultEntry, "id" | "paper" | "title" | "claim" | "dataset"> {
  readonly shows: boolean | null;
  /** Address of its figure. */
  readonly picture: string | null;
}

/** Whose results they are, and how they were made. */
export interface ResultsOrigin {
  readonly quick: boolean;
  readonly created: string | null;
  readonly isGallery: boolean;
}

/** All results, and what is wrong with the index. */
export interface ResultsView extends ResultsOrigin {
  readonly entries: readonly EntryView[];
  readonly error: string | null;
}

const NONE: ResultsView = {
  entries: [],
  quick: false,
  created: null,
  isGallery: false,
  error: null,
};

export async function resultsOf(library: Library): Promise<ResultsView> {
  try {
    const results = await library.results();
    if (!results) return NONE;
    const { created, quick } = results.index;
    const entries: EntryView[] = [];
    for (const entry of results.index.entries) {
      const run = await library.runOf(results, entry);
      const { id, paper, title, claim, dataset, shows } = entry;
      const picture = run && figureFile(run);
      entries.push({
        ...{ id, paper, title, claim, dataset },
        shows: shows ?? null,
        picture: run && picture ? runFile(run.key, picture) : null,
      });
    }
    const isGallery = results.root === "gallery";
    return { entries, quick, created, isGallery, error: null };
  } catch (error) {
    return { ...NONE, error: messageOf(error) };
  }
}

/** A result's page. */
export interface ResultView {
  readonly entry: ResultEntry;
  /** Key of its run; null if that is missing. */
  readonly run: string | null;
  readonly error: string | null;
  readonly figures: readonly FigureData[];
  /** Address of the whole figure. */
  readonly picture: string | null;
  readonly curve: CurveData | null;
  readonly files: readonly RunFile[];
  readonly origin: ResultsOrigin;
  readonly previous: EntryView | null;
  readonly next: EntryView | null;
}

/** Distance by radius, for networks by role (Fig. 4). */
export interface CurveData {
  readonly radius: readonly number[];
  /** Radius of training. */
  readonly epsilon: number | null;
  readonly roles: Readonly<Record<string, readonly Interval[]>>;
}

/**
 * The index of results, for answers that are nothing without it.
 *
 * @throws {HttpError} If it is damaged
 */
export async function openResults(
  library: Library,
): Promise<SiteResults | null> {
  return await library.results().catch((error) => {
    throw new HttpError(500, messageOf(error));
  });
}

/**
 * The result of an id.
 *
 * @throws {HttpError} If the index is damaged
 */
export async function resultOf(
  library: Library,
  id: string,
): Promise<ResultView | null> {
  const results = await openResults(library);
  const entry = results?.index.entries.find((entry) => entry.id === id);
  if (!results || !entry) return null;
  const run = await library.runOf(results, entry);
  const { entries, error: _, ...origin } = await resultsOf(library);
  const at = entries.findIndex((entry) => entry.id === id);
  const picture = run && figureFile(run);
  return {
    entry,
    run: run?.key ?? null,
    error: run ? run.error ?? null : `Its run "${entry.run}" is missing`,
    figures: run?.run ? figuresOf(run.run) : [],
    picture: run && picture ? runFile(run.key, picture) : null,
    curve: run?.run ? curveOf(run.run.metrics.curve) : null,
    files: run?.run?.files ?? [],
    origin,
    previous: entries[at - 1] ?? null,
    next: entries[at + 1] ?? null,
  };
}

/** Reads what a run says of its curve; null if it is not one. */
export function curveOf(value: unknown): CurveData | null {
  const { radius, epsilon, roles } = (value ?? {}) as Record<string, unknown>;
  const isNumbers = (list: unknown): list is number[] =>
    Array.isArray(list) && list.every(Number.isFinite);
  if (!isNumbers(radius) || typeof roles !== "object" || !roles) return null;
  const isIntervals = (list: unknown): list is Interval[] =>
    Array.isArray(list) && list.length === radius.length &&
    list.every((item) => isNumbers([item?.mean, item?.low, item?.high]));
  const read = Object.entries(roles).filter(([, list]) => isIntervals(list));
  if (read.length === 0) return null;
  return {
    radius,
    epsilon: typeof epsilon === "number" ? epsilon : null,
    roles: Object.fromEntries(read),
  };
}

/** An inversion to play with. */
export interface Teaser {
  readonly title: string;
  readonly text: string;
  readonly figure: FigureData;
  readonly run: string;
  readonly command: string;
}

/** What the first page shows above the list of results. */
export interface FirstPage {
  /** Robust against standard; null without a run that has both. */
  readonly teaser: Teaser | null;
  readonly headline: { readonly src: string; readonly alt: string } | null;
}

export async function firstPageOf(
  library: Library,
  { entries }: ResultsView,
): Promise<FirstPage> {
  const results = entries.length > 0 ? await library.results() : null;
  const shown: SiteRun[] = [];
  for (const entry of results?.index.entries ?? []) {
    const run = await library.runOf(results!, entry);
    if (run) shown.push(run);
  }
  const runs = [...shown, ...await library.runs()];
  return { teaser: teaserOf(runs), headline: headlineOf(runs) };
}

/** The best of what runs have to play with; of equals, the first. */
function teaserOf(runs: readonly SiteRun[]): Teaser | null {
  const candidates = runs.flatMap((run) =>
    run.run ? figuresOf(run.run).map((figure) => ({ run, figure })) : []
  ).filter(({ figure }) =>
    ["robust", "standard"].every((role) =>
      figure.rows.some(({ label }) => label.startsWith(role))
    )
  );
  const score = ({ run, figure }: (typeof candidates)[number]) =>
    (run.run!.command === "invert" ? 2 : 0) +
    (figure.parameter === "step" ? 4 : figure.parameter === "lambda" ? 1 : 0);
  const [best] = candidates.toSorted((a, b) => score(b) - score(a));
  if (!best) return null;
  const { run, figure } = best;
  return {
    title: TITLES[figure.parameter ?? ""] ?? "Robust beside standard",
    text: TEXTS[figure.parameter ?? ""] ??
      "The same done with a robust and with a standard network: both reach " +
        "the representation they are asked for, but only the robust one’s " +
        "pictures look like it.",
    figure,
    run: run.key,
    command: commandOf(run),
  };
}

function headlineOf(runs: readonly SiteRun[]): FirstPage["headline"] {
  const item = runs.find(({ run }) => run?.command === "headline");
  const file = item && figureFile(item);
  if (!item || !file) return null;
  const figure = item.run!.files.find(({ kind }) => kind === "figure");
  return {
    src: runFile(item.key, file),
    alt: figure?.label ?? "The headline figure",
  };
}

const TITLES: Readonly<Record<string, string | undefined>> = {
  step: "Drag to invert",
  lambda: "Drag from one picture to another",
};

const TEXTS: Readonly<Record<string, string | undefined>> = {
  step: "Gradient steps turn a start into a picture that has the target’s " +
    "representation. Both networks are satisfied at the end; only under the " +
    "robust one does the picture look like the target.",
  lambda: "Pictures whose representations lie on the line between those of " +
    "two others.",
};

/** The command line that made a run. */
export function commandOf({ run }: SiteRun): string {
  const argv = run!.argv ?? [];
  return ["deno task", run!.command, ...argv.map(quoted)].join(" ");
}

/** Path of a run's whole figure. */
export function figureFile({ run }: SiteRun): string | null {
  const figures = run?.files.filter(({ kind }) => kind === "figure") ?? [];
  const [first] = figures;
  const picture = figures.find(({ path }) => path.endsWith(".png")) ?? first;
  return picture?.path ?? null;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
