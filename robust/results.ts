/**
 * Run folders on disk: make, write, read, list.
 *
 * @module
 */
import { join } from "node:path";
import { fileError, isLeftover, writeFileAtomic } from "../models/files.ts";
import { formatRun, parseRun, type Run } from "./run.ts";

export * from "./run.ts";
export * from "./results_index.ts";

/** Name of the record in a run's folder. */
const RUN_FILE = "run.json";

/** How many folders below the root `listRuns()` looks. */
const LIST_DEPTH = 4;

/** What a script wants a folder for. */
export interface RunFolderOptions {
  /** Name of the script. */
  readonly command: string;
  /** Go on with the run in the folder, if there is one. */
  readonly resume?: boolean;
  /** Whether the script can resume at all, for the error (default true). */
  readonly resumable?: boolean;
  /** Replace what the run in the folder wrote. */
  readonly overwrite?: boolean;
}

/** A record found by `listRuns()`, or why it cannot be read. */
export type ListedRun =
  | { readonly path: string; readonly run: Run; readonly error?: undefined }
  | { readonly path: string; readonly error: string; readonly run?: undefined };

/**
 * Makes the folder of a run, and its parents. A folder with anything in it is
 * refused, so that no result is lost by accident, unless the options say what
 * to do with it: `resume` keeps everything, `overwrite` removes the old record
 * and the files it lists and keeps the rest.
 *
 * @param out Path of the folder
 * @returns The run to resume; `null` if there is none or it was cut off before
 *   its record was whole
 * @throws {Error} If the folder is in use, cannot be made, or holds a run of
 *   another script or one that this code cannot read
 */
export async function createRunFolder(
  out: string,
  options: RunFolderOptions,
): Promise<Run | null> {
  const { command, resume = false, overwrite = false } = options;
  const { resumable = true } = options;
  try {
    await Deno.mkdir(out, { recursive: true });
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) {
      throw new Error(
        `Cannot use "${out}" as the folder of a run: it is a file; ` +
          `pass another --out`,
      );
    }
    throw fileError("make folder", out, error);
  }
  const names = (await namesIn(out)).filter((name) => !isLeftover(name));
  if (names.length === 0) return null;
  if (!resume && !overwrite) {
    throw new Error(
      `Cannot start "${command}" in "${out}": it already holds ` +
        `${await describe(out, names)}; pass ` +
        `${resumable ? "--resume or " : ""}another --out`,
    );
  }

  const previous = names.includes(RUN_FILE) ? await readUnfinished(out) : null;
  if (previous && previous.command !== command) {
    throw new Error(
      `Cannot ${resume ? "resume" : "overwrite"} "${out}" with "${command}": ` +
        `it holds a run of "${previous.command}"; pass another --out`,
    );
  }
  if (resume) return previous;
  // The record goes first: a folder without one is never taken for finished.
  if (names.includes(RUN_FILE)) await removeFile(join(out, RUN_FILE));
  for (const { path } of previous?.files ?? []) {
    await removeFile(join(out, path));
  }
  return null;
}

/**
 * Writes the record of a run, whole or not at all.
 *
 * @param folder Folder made by `createRunFolder()`
 * @returns Path of the record
 * @throws {TypeError} If the run is malformed
 * @throws {Error} If the record cannot be written; an old one is untouched
 */
export async function writeRun(folder: string, run: Run): Promise<string> {
  const path = join(folder, RUN_FILE);
  await writeFileAtomic(path, formatRun(run));
  return path;
}

/**
 * Reads the record of a run.
 *
 * @param folderOrFile The run's folder or the record itself
 * @throws {SyntaxError} If the record is malformed, or of a newer version
 * @throws {Error} If the record cannot be opened
 */
export async function readRun(folderOrFile: string): Promise<Run> {
  let path = folderOrFile, json: string;
  try {
    if ((await Deno.stat(path)).isDirectory) path = join(path, RUN_FILE);
    json = await Deno.readTextFile(path);
  } catch (error) {
    throw fileError("read run", path, error);
  }
  return parseRun(json, path);
}

/**
 * Finds the records of all runs below a folder, at most four folders deep.
 * Links and hidden folders are not followed.
 *
 * @returns Newest first, then those that cannot be read, by path
 */
export async function listRuns(root: string): Promise<ListedRun[]> {
  const found = await listBelow(root, LIST_DEPTH);
  return found.sort((a, b) =>
    startOf(b) - startOf(a) || (a.path < b.path ? -1 : 1)
  );
}

/**
 * Commit checked out at a folder, read from its `.git` without running git.
 *
 * @param root Folder that holds `.git`
 * @returns Hash in hexadecimal, or `null` if it cannot be told: no repository,
 *   no commit yet, a linked worktree, or no permission to read
 */
export async function currentCommit(root: string): Promise<string | null> {
  const git = join(root, ".git");
  // Asked first, as reading without permission would stop for a prompt.
  const { state } = await Deno.permissions.query({ name: "read", path: git });
  if (state !== "granted") return null;
  const head = await readTextIfAny(join(git, "HEAD"));
  if (head === null || isCommit(head)) return head;
  const ref = /^ref: (refs\/\S+)$/.exec(head)?.[1];
  if (!ref || ref.split("/").includes("..")) return null;
  const loose = await readTextIfAny(join(git, ref));
  if (loose !== null) return isCommit(loose) ? loose : null;
  const packed = await readTextIfAny(join(git, "packed-refs")) ?? "";
  for (const line of packed.split("\n")) {
    const [hash, name] = line.trim().split(" ");
    if (name === ref && isCommit(hash)) return hash;
  }
  return null;
}

function isCommit(text: string): boolean {
  return /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(text);
}

async function readTextIfAny(path: string): Promise<string | null> {
  try {
    return (await Deno.readTextFile(path)).trim();
  } catch {
    return null;
  }
}

async function namesIn(folder: string): Promise<string[]> {
  const names = [];
  try {
    for await (const { name } of Deno.readDir(folder)) names.push(name);
  } catch (error) {
    throw fileError("read folder", folder, error);
  }
  return names.sort();
}

/** Says what is in a folder, for the error that it is in use. */
async function describe(
  folder: string,
  names: readonly string[],
): Promise<string> {
  if (!names.includes(RUN_FILE)) {
    return `${names.length === 1 ? "a file" : `${names.length} files`}, ` +
      `such as ${JSON.stringify(names[0])}`;
  }
  try {
    const { command, startedAt } = await readRun(folder);
    return `a run of "${command}" from ${startedAt}`;
  } catch {
    return `a ${RUN_FILE} that cannot be read`;
  }
}

/** Reads the record in a folder; `null` if it is empty or cut off. */
async function readUnfinished(folder: string): Promise<Run | null> {
  const path = join(folder, RUN_FILE);
  let json: string;
  try {
    json = await Deno.readTextFile(path);
  } catch (error) {
    throw fileError("read run", path, error);
  }
  try {
    JSON.parse(json);
  } catch {
    return null;
  }
  return parseRun(json, path);
}

async function removeFile(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw fileError("remove", path, error);
  }
}

function startOf(item: ListedRun): number {
  return item.run ? Date.parse(item.run.startedAt) : -Infinity;
}

async function listBelow(folder: string, depth: number): Promise<ListedRun[]> {
  const listed: ListedRun[] = [];
  try {
    for await (const entry of Deno.readDir(folder)) {
      const path = join(folder, entry.name);
      if (entry.name === RUN_FILE) listed.push(await readListed(path));
      else if (entry.isDirectory && depth > 0 && entry.name[0] !== ".") {
        listed.push(...await listBelow(path, depth - 1));
      }
    }
  } catch (error) {
    // A root that does not exist yet has no runs.
    if (!(error instanceof Deno.errors.NotFound)) {
      listed.push({
        path: folder,
        error: fileError("read folder", folder, error).message,
      });
    }
  }
  return listed;
}

async function readListed(path: string): Promise<ListedRun> {
  try {
    return { path, run: await readRun(path) };
  } catch (error) {
    return {
      path,
      error: error instanceof Error ? error.message : String(error),
    };
  }
}
