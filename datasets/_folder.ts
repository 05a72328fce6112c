/**
 * Class folders of image files: `<split>/<class>/<image>`.
 *
 * @module
 */
import { Pool } from "./_pool.ts";
import {
  balancedSubset,
  LARGEST_PACKED,
  makeSplit,
  type OpenOptions,
  sharedBytes,
  type Split,
  type SplitName,
  type TaskOptions,
} from "./dataset.ts";
import { imageSize } from "./resize.ts";

/** Folder names a split may have, the first one found counts. */
export const SPLIT_FOLDERS: Readonly<Record<SplitName, readonly string[]>> = {
  train: ["train"],
  test: ["test", "val"],
};

/** One labelled file. */
export interface LabelledFile {
  readonly path: string;
  readonly label: number;
}

/** Whether a path is a folder; false if there is nothing. */
export async function isFolder(path: string): Promise<boolean> {
  return (await statOf(path))?.isDirectory ?? false;
}

/** Whether a path is a file; false if there is nothing. */
export async function isFile(path: string): Promise<boolean> {
  return (await statOf(path))?.isFile ?? false;
}

async function statOf(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.stat(path);
  } catch (error) {
    if (
      error instanceof Deno.errors.NotFound ||
      error instanceof Deno.errors.NotADirectory
    ) {
      return undefined;
    }
    throw error;
  }
}

/** Names of the folders in a folder, sorted by code unit. */
export async function foldersIn(path: string): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of Deno.readDir(path)) {
    if (entry.name.startsWith(".")) continue;
    if (
      entry.isDirectory ||
      (entry.isSymlink && await isFolder(`${path}/${entry.name}`))
    ) {
      names.push(entry.name);
    }
  }
  return names.sort();
}

/** Paths of the PNG and JPEG files in a folder, sorted by code unit. */
export async function imagesIn(path: string): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of Deno.readDir(path)) {
    if (!entry.isDirectory && /\.(png|jpe?g)$/i.test(entry.name)) {
      names.push(entry.name);
    }
  }
  return names.sort().map((name) => `${path}/${name}`);
}

/**
 * Paths of all PNG and JPEG files below a folder, each folder's own before
 * those of the folders in it, sorted by code unit. Hidden folders are left out.
 *
 * @param path A folder
 */
export async function listImages(path: string): Promise<string[]> {
  const paths = await imagesIn(path);
  for (const name of await foldersIn(path)) {
    paths.push(...await listImages(`${path}/${name}`));
  }
  return paths;
}

/**
 * Folder of a split.
 *
 * @throws {Deno.errors.NotFound} If there is none
 */
export async function splitFolder(
  root: string,
  split: SplitName,
): Promise<string> {
  for (const name of SPLIT_FOLDERS[split]) {
    const path = `${root}/${name}`;
    if (await isFolder(path)) return path;
  }
  throw new Deno.errors.NotFound(
    `Cannot open the ${split} split in "${root}": there is no folder ` +
      SPLIT_FOLDERS[split].map((name) => `"${name}"`).join(" or "),
  );
}

/** Where the data are. @throws {TypeError} If the option was not given */
export async function dataFolder(
  name: string,
  data: string | undefined,
): Promise<string> {
  const path = requireData(name, data);
  if (!await isFolder(path)) {
    throw new Deno.errors.NotFound(
      `Cannot open data set "${name}": there is no folder "${path}"`,
    );
  }
  return path;
}

/** The data option. @throws {TypeError} If it was not given */
export function requireData(name: string, data: string | undefined): string {
  if (!data) {
    throw new TypeError(
      `Cannot open data set "${name}" without its folder: give data`,
    );
  }
  return withoutSlash(data);
}

/** A folder's path without separators at its end. */
export function withoutSlash(path: string): string {
  return path.replace(/(?<=.)[\\/]+$/, "");
}

/**
 * Files of a split, labelled.
 *
 * @param folder Folder of the split, of class folders
 * @param labelOf Label of a class folder; undefined leaves it out
 */
export async function listFiles(
  folder: string,
  labelOf: (name: string) => number | undefined,
): Promise<LabelledFile[]> {
  const files: LabelledFile[] = [];
  for (const name of await foldersIn(folder)) {
    const label = labelOf(name);
    if (label === undefined) continue;
    for (const path of await imagesIn(`${folder}/${name}`)) {
      files.push({ path, label });
    }
  }
  if (files.length === 0) {
    throw new Deno.errors.NotFound(
      `Cannot open "${folder}": it holds no class folders of PNG or JPEG files`,
    );
  }
  return files;
}

/** Checks a size given by the user. @throws {RangeError} If it is no size */
export function checkSize(size: number): number {
  if (!Number.isInteger(size) || size < 8 || size > 1024) {
    throw new RangeError(
      `Cannot make images of size ${size}: give an integer from 8 to 1024`,
    );
  }
  return size;
}

/**
 * Size of images when none is asked for: that of the first one if it is small
 * enough to be kept in memory, else 224.
 */
export async function naturalSize(
  files: readonly LabelledFile[],
): Promise<number> {
  const { readImage } = await import("./image.ts");
  for (const { path } of files.slice(0, 10)) {
    try {
      const { height, width } = imageSize(await readImage(path));
      const shorter = Math.min(height, width);
      return shorter <= LARGEST_PACKED && shorter >= 8 ? shorter : 224;
    } catch {
      continue; // Opening reports damaged files; here the next one will do.
    }
  }
  return 224;
}

/** What `decodeFiles()` does with images. */
interface DecodeOptions extends TaskOptions {
  /** Name of the work in its progress. */
  readonly stage: string;
  /** Height and width to decode to. */
  readonly size: number;
  /** Images that a worker decodes at a time. */
  readonly chunk: number;
  /** Shared memory for the images from `start` to `end`. */
  readonly out: (start: number, end: number) => Uint8Array<SharedArrayBuffer>;
  /** Receives which image cannot be decoded, and why. */
  readonly onFailure: (index: number, message: string) => void;
}

/** Decodes image files in workers. */
export async function decodeFiles(
  paths: readonly string[],
  { stage, size, chunk, out, onFailure, onProgress, signal }: DecodeOptions,
): Promise<void> {
  const total = paths.length;
  if (total === 0) return;
  signal?.throwIfAborted();
  using pool = new Pool(navigator.hardwareConcurrency);
  const abort = () => pool.close(signal?.reason);
  signal?.addEventListener("abort", abort);
  // The clock of what shows progress starts with the first report.
  onProgress?.({ stage, done: 0, total });
  let done = 0, reported = performance.now();
  const decode = async (start: number) => {
    const end = Math.min(start + chunk, total);
    const failures = await pool.run({
      kind: "decode",
      paths: paths.slice(start, end),
      size,
      out: out(start, end),
    });
    for (const { position, message } of failures) {
      onFailure(start + position, message);
    }
    done += end - start;
    if (performance.now() - reported > 200 || done === total) {
      reported = performance.now();
      onProgress?.({ stage, done, total });
    }
  };
  try {
    const chunks: Promise<void>[] = [];
    for (let i = 0; i < total; i += chunk) chunks.push(decode(i));
    await Promise.all(chunks);
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/** Images of a split that a worker decodes at a time. */
const CHUNK = 250;

/**
 * Makes a split of files: decoded into memory if small, else on demand.
 *
 * @throws {Error} If no image can be decoded
 */
export async function openFiles(
  name: SplitName,
  all: readonly LabelledFile[],
  { size, limit, onProgress, onWarning, signal }: OpenOptions & {
    readonly size: number;
  },
): Promise<Split> {
  const subset = balancedSubset(Uint32Array.from(all, (f) => f.label), limit);
  const files = Array.from(subset, (i) => all[i]);
  const labels = Uint32Array.from(files, (file) => file.label);
  const imageShape = [3, size, size] as const;
  if (size > LARGEST_PACKED) {
    const paths = files.map((file) => file.path);
    const source = { kind: "files", paths } as const;
    return makeSplit({ name, imageShape, labels, source });
  }
  const length = 3 * size * size;
  const pixels = sharedBytes(files.length * length);
  const failed: number[] = [];
  await decodeFiles(files.map((file) => file.path), {
    stage: `decode ${name}`,
    size,
    chunk: CHUNK,
    out: (start, end) => pixels.subarray(start * length, end * length),
    onFailure(index, message) {
      failed.push(index);
      onWarning?.(message);
    },
    onProgress,
    signal,
  });
  if (failed.length === files.length) {
    throw new Error(
      `Cannot open the ${name} split: none of its ${files.length} images, ` +
        `such as "${files[0].path}", can be decoded; ` +
        `check the files or pass another folder`,
    );
  }
  if (failed.length === 0) {
    const source = { kind: "packed", pixels } as const;
    return makeSplit({ name, imageShape, labels, source });
  }
  onWarning?.(
    `Left out ${failed.length} of ${files.length} images of the ${name} split`,
  );
  const bad = new Set(failed);
  const kept = files.keys().filter((i) => !bad.has(i)).toArray();
  kept.forEach((from, to) =>
    pixels.copyWithin(to * length, from * length, (from + 1) * length)
  );
  return makeSplit({
    name,
    imageShape,
    labels: Uint32Array.from(kept, (i) => labels[i]),
    source: {
      kind: "packed",
      pixels: pixels.subarray(0, kept.length * length),
    },
  });
}

/** Opens each split asked for, one after the other. */
export async function openSplits<S extends SplitName>(
  names: readonly S[],
  open: (name: S) => Promise<Split>,
): Promise<Record<S, Split>> {
  const splits: Partial<Record<S, Split>> = {};
  for (const name of new Set(names)) splits[name] = await open(name);
  return splits as Record<S, Split>;
}
