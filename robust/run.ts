/**
 * Run records: what a script did, with what, and what came out.
 *
 * @module
 */
import { type JsonObject, type Rule, rules } from "../models/mod.ts";

const {
  checkRecord,
  count,
  isoTime,
  jsonRecord,
  listOf,
  mapOf,
  nonNegative,
  nullable,
  object,
  optional,
  rule,
  sha256Text,
  text,
} = rules;

/** Version of `Run` this code writes; older ones are read, newer refused. */
export const RUN_SCHEMA_VERSION = 1;

/** A checkpoint a run used or made. */
export interface RunWeights {
  /** What it was used for, such as "robust" or "standard". */
  readonly role: string;
  /** Path of its file. */
  readonly path: string;
  /** `weightsHash()` of its parameters. */
  readonly sha256: string;
}

/** What changes along the tiles of one picture. */
export const TILE_PARAMETERS = [
  "lambda",
  "step",
  "radius",
  "coordinate",
] as const;

/**
 * Where a tile stands in its figure. Tiles of one row whose parameter differs
 * show the same picture as that parameter grows: a page may put a slider there.
 */
export interface TilePlace {
  /** Its row, such as "robust". */
  readonly row: string;
  /** Its column, such as the target's name. */
  readonly column: string;
  /** What the picture was made at, where figures or trajectories vary it. */
  readonly parameter?: {
    /** What is varied: mix, gradient steps done, l2 radius, feature. */
    readonly name: (typeof TILE_PARAMETERS)[number];
    /** Its value here. */
    readonly value: number;
  };
}

/** A file a run wrote. */
export interface RunFile {
  /** Relative to the run's folder, with forward slashes. */
  readonly path: string;
  /** What it is: a tile is one image of a figure. */
  readonly kind: "figure" | "tile" | "checkpoint" | "data";
  /** What a page may print beside it. */
  readonly label?: string;
  /** Where a tile stands in its figure. */
  readonly tile?: TilePlace;
  /** SHA-256 of the file's bytes. */
  readonly sha256?: string;
}

/** What a script did; stored as `run.json` in the run's folder. */
export interface Run {
  /** Version of this record, at most {@linkcode RUN_SCHEMA_VERSION}. */
  readonly schemaVersion: number;
  /** Tells runs apart. */
  readonly id: string;
  /** Name of the script, such as "invert". */
  readonly command: string;
  /** The command line as typed. */
  readonly argv?: readonly string[];
  /** Every flag's value, defaults included. */
  readonly flags: JsonObject;
  /** Seed of all that was random. */
  readonly seed: number;
  /** Execution provider: "cpu", "webgpu" or "cuda". */
  readonly provider: string;
  /** Versions by package; includes deno, onnxruntime-node, robust-reps. */
  readonly versions: Readonly<Record<string, string>>;
  /** Commit of the code; `null` if unknown. */
  readonly commit?: string | null;
  /** Checkpoints it used or made. */
  readonly weights: readonly RunWeights[];
  /** Results. JSON has no NaN or infinity: they are stored as `null`. */
  readonly metrics: JsonObject;
  /** Results over time, oldest first, such as one object per epoch. */
  readonly history?: readonly JsonObject[];
  /** Files it wrote, the record itself left out. */
  readonly files: readonly RunFile[];
  /** ISO 8601 time. */
  readonly startedAt: string;
  /** Wall time in seconds. */
  readonly seconds: number;
}

/**
 * Reads a run record.
 *
 * @param json Text of a `run.json`
 * @param source Its name, for errors
 * @throws {SyntaxError} If the text is not a run record, or a newer one
 */
export function parseRun(json: string, source: string): Run {
  return RECORD.parse(json, source);
}

/**
 * Writes a run record as text.
 *
 * @returns Indented JSON with a line break at the end
 * @throws {TypeError} If the run is malformed
 */
export function formatRun(run: Run): string {
  return RECORD.format(run);
}

/** Whether a path stays inside the folder it is relative to. */
function staysInside(path: unknown): boolean {
  return typeof path === "string" && !/^[a-z]:|[\\\0]/i.test(path) &&
    path.split("/").every((part) => !["", ".", ".."].includes(part));
}

const jsonObject = object("an object");

const RUN_RULES: Readonly<Record<string, Rule>> = {
  id: text,
  command: text,
  argv: optional(listOf(
    rule((value) => typeof value === "string", "text"),
    "a list of texts",
  )),
  flags: jsonObject,
  seed: count,
  provider: text,
  versions: mapOf(text, "an object of texts"),
  commit: optional(nullable(text)),
  weights: listOf(
    checkRecord({ role: text, path: text, sha256: sha256Text }),
    "a list",
  ),
  metrics: jsonObject,
  history: optional(listOf(jsonObject, "a list of objects")),
  files: listOf(
    checkRecord({
      path: rule(staysInside, `a path inside the run's folder, without ".."`),
      kind: rule(
        (value) =>
          typeof value === "string" &&
          ["figure", "tile", "checkpoint", "data"].includes(value),
        `"figure", "tile", "checkpoint" or "data"`,
      ),
      label: optional(rule((value) => typeof value === "string", "text")),
      tile: optional(checkRecord({
        row: rule((value) => typeof value === "string", "text"),
        column: rule((value) => typeof value === "string", "text"),
        parameter: optional(checkRecord({
          name: rule(
            (value) => (TILE_PARAMETERS as readonly unknown[]).includes(value),
            `one of ${TILE_PARAMETERS.join(", ")}`,
          ),
          value: rule(Number.isFinite, "a number"),
        })),
      })),
      sha256: optional(sha256Text),
    }),
    "a list",
  ),
  startedAt: isoTime,
  seconds: nonNegative,
};

const RECORD = jsonRecord<Run>(
  "run",
  "the run",
  RUN_SCHEMA_VERSION,
  checkRecord(RUN_RULES),
);
