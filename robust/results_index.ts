/**
 * The index of a reproduction: one record per figure and table of the paper,
 * with its number beside ours.
 *
 * @module
 */
import { type Rule, rules } from "../models/mod.ts";

const {
  checkRecord,
  count,
  isoTime,
  jsonRecord,
  listOf,
  nonNegative,
  nullable,
  optional,
  rule,
  text,
} = rules;

/** Version of `ResultsIndex` this code writes; newer ones are refused. */
export const RESULTS_INDEX_SCHEMA_VERSION = 1;

/** Name of the index in the folder of results. */
export const RESULTS_INDEX_FILE = "index.json";

/** A mean over images, and where it lies with 95% confidence. */
export interface Interval {
  /** Mean of the values. */
  readonly mean: number;
  /** Lower end of the 95% interval. */
  readonly low: number;
  /** Upper end. */
  readonly high: number;
  /** Number of values. */
  readonly n: number;
}

/** One number of a figure or table. */
export interface ResultNumber {
  /** What it is, such as "judge agrees, robust". */
  readonly label: string;
  /** How it is written: a share of one, or a plain number. */
  readonly unit: "fraction" | "number";
  /** The paper's, where it gives one. */
  readonly paper: number | null;
  /** Ours; `null` if it could not be measured. */
  readonly ours: Interval | null;
}

/** One figure or table of the paper, as it came out here. */
export interface ResultEntry {
  /** Tells entries apart; also the name of its page, such as "fig-3-cifar10". */
  readonly id: string;
  /** Where in the paper, such as "Fig. 3, 13, 15". */
  readonly paper: string;
  /** In a few words. */
  readonly title: string;
  /** What the paper claims, in a sentence. */
  readonly claim: string;
  /** Whether that shows here; `null` if nothing here can tell. */
  readonly shows: boolean | null;
  /** What was seen, in a sentence or two. */
  readonly note: string;
  /** Images it was made with. */
  readonly dataset: string;
  /** The exact command that makes it again. */
  readonly command: string;
  /** Folder of its run, relative to the index. */
  readonly run: string;
  /** Its numbers. */
  readonly numbers: readonly ResultNumber[];
}

/** What `deno task reproduce` made. */
export interface ResultsIndex {
  /** Version of this record, at most {@linkcode RESULTS_INDEX_SCHEMA_VERSION}. */
  readonly schemaVersion: number;
  /** ISO 8601 time. */
  readonly created: string;
  /** Whether fewer images and steps were used. */
  readonly quick: boolean;
  /** Time that all of it took, in seconds. */
  readonly seconds: number;
  /** In the paper's order. */
  readonly entries: readonly ResultEntry[];
}

/**
 * Reads an index.
 *
 * @param json Text of an `index.json`
 * @param source Its name, for errors
 * @throws {SyntaxError} If the text is not an index, or a newer one
 */
export function parseResultsIndex(json: string, source: string): ResultsIndex {
  return RECORD.parse(json, source);
}

/**
 * Writes an index as text.
 *
 * @returns Indented JSON with a line break at the end
 * @throws {TypeError} If the index is malformed
 */
export function formatResultsIndex(index: ResultsIndex): string {
  return RECORD.format(index);
}

const finite = rule(Number.isFinite, "a number");
const bool = rule((value) => typeof value === "boolean", "true or false");

/** One folder of letters, digits and dashes: it becomes part of addresses. */
const folderName = rule(
  (value) =>
    typeof value === "string" && /^[a-z0-9][a-z0-9-]{0,63}$/.test(value),
  "up to 64 small letters, digits and dashes",
);

const INDEX_RULE: Rule = checkRecord({
  created: isoTime,
  quick: bool,
  seconds: nonNegative,
  entries: listOf(
    checkRecord({
      id: folderName,
      paper: text,
      title: text,
      claim: text,
      shows: optional(nullable(bool)),
      note: rule((value) => typeof value === "string", "text"),
      dataset: text,
      command: text,
      run: folderName,
      numbers: listOf(
        checkRecord({
          label: text,
          unit: rule(
            (value) => value === "fraction" || value === "number",
            `"fraction" or "number"`,
          ),
          paper: nullable(finite),
          ours: nullable(
            checkRecord({ mean: finite, low: finite, high: finite, n: count }),
          ),
        }),
        "a list",
      ),
    }),
    "a list",
  ),
});

const RECORD = jsonRecord<ResultsIndex>(
  "results",
  "the index",
  RESULTS_INDEX_SCHEMA_VERSION,
  INDEX_RULE,
);
