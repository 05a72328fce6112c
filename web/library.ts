/**
 * What the site shows: runs, results and networks on disk, found anew when
 * they change.
 *
 * @module
 */
import { join } from "node:path";
import type { Run } from "../robust/results.ts";
import {
  parseResultsIndex,
  readRun,
  type ResultEntry,
  RESULTS_INDEX_FILE,
  type ResultsIndex,
} from "../robust/results.ts";
import { type Card, readCard } from "./card.ts";

/** Folders that the site reads. */
export interface LibraryOptions {
  /** Runs of training. */
  readonly runs: string;
  /** Runs of experiments, and the index of a reproduction. */
  readonly results: string;
  /** Results that come with the project, shown while there is no index. */
  readonly gallery: string;
  /** Networks that come with the project. */
  readonly weights: string;
}

/** Where a run lies. */
export type Root = "runs" | "results" | "gallery";

/** A run's record, or why there is none. */
export interface SiteRun {
  /** Names the run in addresses. */
  readonly key: string;
  readonly root: Root;
  /** Its folder as a user calls it, such as "runs/cifar10". */
  readonly folder: string;
  /** The same on disk. */
  readonly path: string;
  /** When its record was written, in ms. */
  readonly modified: number;
  readonly run?: Run;
  readonly error?: string;
}

/** Results and where they come from. */
export interface SiteResults {
  readonly root: "results" | "gallery";
  readonly index: ResultsIndex;
}

/** A network. */
export interface SiteModel {
  /** Names the model in addresses. */
  readonly key: string;
  /** Its checkpoint. */
  readonly path: string;
  readonly size: number;
  readonly modified: number;
  /** Key of the run that trained it, unless it is shipped. */
  readonly run?: string;
  readonly card?: Card;
  readonly error?: string;
}

/** How many folders below a root runs are looked for. */
const DEPTH = 4;

/** A larger record is no record. */
const LARGEST_RECORD = 64 << 20;

/** How long what was found is taken for current, in ms. */
const FRESH_MS = 500;

/** A run counts as under way this long after its last sign of life, in ms. */
const LIVE_MS = 15 * 60_000;

/** Reads folders; what has not changed is not read again. */
export class Library {
  readonly #options: LibraryOptions;
  readonly #records = new Map<string, { stamp: string; found: Found }>();
  readonly #cards = new Map<string, { stamp: string; found: FoundCard }>();
  readonly #runs = memo(() => this.#findRuns());
  readonly #results = memo(() => this.#findResults());
  readonly #models = memo(() => this.#findModels());

  constructor(options: LibraryOptions) {
    this.#options = options;
  }

  /** All runs, newest first, then those that cannot be read. */
  runs(): Promise<readonly SiteRun[]> {
    return this.#runs();
  }

  /** The run of a key. */
  async run(key: string): Promise<SiteRun | null> {
    return (await this.runs()).find((run) => run.key === key) ?? null;
  }

  /** The run of a result. */
  async runOf(results: SiteResults, entry: ResultEntry) {
    const path = join(this.#options[results.root], entry.run);
    return (await this.runs()).find((run) => run.path === path) ?? null;
  }

  /**
   * The index of results, else that of the gallery; null if there is neither.
   *
   * @throws {SyntaxError} If the index is damaged
   */
  results(): Promise<SiteResults | null> {
    return this.#results();
  }

  /** Networks: those that come with the project, then those of runs. */
  models(): Promise<readonly SiteModel[]> {
    return this.#models();
  }

  /** The network of a key. */
  async model(key: string): Promise<SiteModel | null> {
    return (await this.models()).find((model) => model.key === key) ?? null;
  }

  async #findRuns(): Promise<SiteRun[]> {
    const found: Found[] = [];
    for (const root of ["results", "runs", "gallery"] as const) {
      for (const path of recordsBelow(this.#options[root], DEPTH)) {
        found.push(await this.#record(root, path));
      }
    }
    found.sort((a, b) => startOf(b) - startOf(a) || (a.path < b.path ? -1 : 1));
    const keys = new Set<string>();
    return found.map((item) => {
      const id = item.run?.id ?? "";
      let key = /^[A-Za-z0-9][\w.-]{0,99}$/.test(id) ? id : slug(item.path);
      // Copies of a run share its id.
      if (keys.has(key)) key = `${key.slice(0, 80)}-${digest(item.path)}`;
      keys.add(key);
      return { key, ...item };
    });
  }

  async #record(root: Root, path: string): Promise<Found> {
    const file = join(path, "run.json");
    const below = path.slice(this.#options[root].length)
      .replace(/^[\\/]+/, "");
    const folder = [root, below].filter(Boolean).join("/");
    const base = { root, path, folder };
    try {
      const { size, mtime } = Deno.statSync(file);
      const modified = mtime?.getTime() ?? 0;
      const stamp = `${size} ${modified}`;
      const known = this.#records.get(file);
      if (known?.stamp === stamp) return known.found;
      const found = size > LARGEST_RECORD
        ? { ...base, modified, error: `Cannot read run "${file}": too large` }
        : await readRun(file).then(
          (run) => ({ ...base, modified, run }),
          (error: Error) => ({ ...base, modified, error: error.message }),
        );
      this.#records.set(file, { stamp, found });
      return found;
    } catch {
      return { ...base, modified: 0, error: `Cannot read run "${file}"` };
    }
  }

  async #findResults(): Promise<SiteResults | null> {
    for (const root of ["results", "gallery"] as const) {
      const path = join(this.#options[root], RESULTS_INDEX_FILE);
      let text: string;
      try {
        text = await Deno.readTextFile(path);
      } catch {
        continue;
      }
      return { root, index: parseResultsIndex(text, path) };
    }
    return null;
  }

  async #findModels(): Promise<SiteModel[]> {
    const models: SiteModel[] = [];
    const { weights } = this.#options;
    const names: string[] = [];
    try {
      for await (const { name, isFile } of Deno.readDir(weights)) {
        if (isFile && /^[\w.-]+\.safetensors$/.test(name)) names.push(name);
      }
    } catch {
      // None is shipped.
    }
    for (const name of names.sort()) {
      const key = name.replace(/\.safetensors$/, "");
      models.push({ key, ...await this.#card(join(weights, name)) });
    }
    for (const { key, path, run } of await this.runs()) {
      const file = run?.files.find(({ kind, path }) =>
        kind === "checkpoint" && path.endsWith(".safetensors") &&
        // Runs that include others list their files, too.
        !path.includes("/")
      );
      if (!file) continue;
      const found = await this.#card(join(path, file.path));
      models.push({ key, run: key, ...found });
    }
    return models;
  }

  async #card(path: string): Promise<FoundCard> {
    try {
      const { size, mtime, isFile } = await Deno.stat(path);
      const modified = mtime?.getTime() ?? 0;
      const stamp = `${size} ${modified}`;
      const known = this.#cards.get(path);
      if (known?.stamp === stamp) return known.found;
      const base = { path, size, modified };
      const found = isFile
        ? await readCard(path).then(
          (card) => ({ ...base, card }),
          (error: Error) => ({ ...base, error: error.message }),
        )
        : { ...base, error: `Cannot read checkpoint "${path}": no file` };
      this.#cards.set(path, { stamp, found });
      return found;
    } catch {
      const error = `Cannot read checkpoint "${path}": no such file`;
      return { path, size: 0, modified: 0, error };
    }
  }
}

type Found = Omit<SiteRun, "key">;
type FoundCard = Omit<SiteModel, "key" | "run">;

/** Whether a training run is still going on. */
export function isLive({ run, modified }: SiteRun, now = Date.now()): boolean {
  if (run?.command !== "train") return false;
  const { epochs } = run.flags;
  return typeof epochs === "number" && (run.history?.length ?? 0) < epochs &&
    now - modified < LIVE_MS;
}

/** Calls a function at most once at a time, and not again while it is fresh. */
function memo<T>(find: () => Promise<T>): () => Promise<T> {
  let last: { at: number; value: Promise<T> } | null = null;
  return () => {
    if (last && performance.now() - last.at < FRESH_MS) return last.value;
    const entry = { at: Infinity, value: find() };
    last = entry;
    // Its age counts from the end.
    const done = () => void (entry.at = performance.now());
    entry.value.then(done, done);
    return entry.value;
  };
}

/**
 * Folders with a record, at most so deep below one. It does not wait: hundreds
 * of small reads take a tenth of the time that way.
 */
function* recordsBelow(folder: string, depth: number): Generator<string> {
  let entries: Deno.DirEntry[];
  try {
    entries = [...Deno.readDirSync(folder)];
  } catch {
    return;
  }
  for (const { name, isFile, isDirectory } of entries) {
    if (isFile && name === "run.json") yield folder;
    // Folders of pictures hold no runs.
    const isBelow = isDirectory && name !== "tiles" && !name.startsWith(".");
    if (isBelow && depth > 0) {
      yield* recordsBelow(join(folder, name), depth - 1);
    }
  }
}

function startOf({ run }: Found): number {
  return run ? Date.parse(run.startedAt) : -Infinity;
}

function slug(path: string): string {
  const name = path.replace(/^.*[\\/]/, "").replace(/[^\w-]+/g, "-")
    .replace(/^-+/, "").slice(0, 60);
  return `${name || "run"}-${digest(path)}`;
}

/** A short number that tells paths apart (FNV-1a). */
function digest(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  }
  return (hash >>> 0).toString(16).padStart(8, "0");
}
