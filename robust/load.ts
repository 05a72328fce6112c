/**
 * Networks from disk.
 *
 * @module
 */
import {
  type Architecture,
  ARCHITECTURES,
  type Card,
  checkpointFormat,
  decodeCheckpoint,
  type ModelSpec,
} from "../models/mod.ts";
import { readBytes, sha256InParts } from "../models/files.ts";
import {
  importCheckpoint,
  type ImportCheckpointOptions,
  type ImportedCheckpoint,
} from "./import.ts";
import { Network, type RunOptions } from "./network.ts";

/** Name of the checkpoint in a run's folder. */
export const MODEL_FILE = "model.safetensors";

/** Folder of the networks that come with the project. */
const SHIPPED = new URL("../models/weights/", import.meta.url);

/** A network and its card. */
export interface LoadedNetwork {
  /** Ready to run; release it after use. */
  readonly network: Network;
  /** What it was trained on, and how. */
  readonly card: Card;
  /** File it was read from. */
  readonly path: string;
  /** What was inferred, if another project's file was read. */
  readonly notes: readonly string[];
}

/** The network that a card describes. */
export function specOf(card: Card): ModelSpec {
  const { architecture, form, width, classes, mean, std } = card;
  return {
    architecture: architecture as Architecture,
    form,
    width,
    classes: classes.length,
    mean,
    std,
  };
}

/** Names of the networks that come with the project. */
export async function shippedModels(): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name } of Deno.readDir(SHIPPED)) {
      if (name.endsWith(".safetensors")) names.push(name.slice(0, -12));
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names.sort();
}

/**
 * Finds a network's checkpoint.
 *
 * @param source Folder of a training run, a `.safetensors` or PyTorch file, or
 * the name of a shipped network
 * @returns Path of the file
 * @throws {RangeError} If the source is a name that nothing has
 * @throws {Error} If a folder holds no checkpoint, or the path does not exist
 */
export async function findModel(source: string): Promise<string> {
  const info = await Deno.stat(source).catch((error) => {
    if (
      error instanceof Deno.errors.NotFound ||
      error instanceof Deno.errors.NotADirectory
    ) return null;
    throw error;
  });
  if (info?.isFile) return source;
  if (info?.isDirectory) {
    const path = `${source.replace(/[\\/]+$/, "")}/${MODEL_FILE}`;
    const file = await Deno.stat(path).catch(() => null);
    if (file?.isFile) return path;
    throw new Error(
      `Cannot load a model from "${source}": the folder holds no ` +
        `${MODEL_FILE}; pass the folder of a training run that has saved one`,
    );
  }
  const shipped = await shippedModels();
  if (shipped.includes(source)) {
    const { fileURLToPath } = await import("node:url");
    return fileURLToPath(new URL(`${source}.safetensors`, SHIPPED));
  }
  if (/[\\/.]/.test(source)) {
    throw new Error(
      `Cannot load a model from "${source}": no such file or folder; pass ` +
        `the folder of a training run or a .safetensors file`,
    );
  }
  throw new RangeError(
    `Unknown model "${source}": pass the folder of a training run` +
      (shipped.length > 0
        ? `, a .safetensors file, or one of ${shipped.join(", ")}`
        : " or a .safetensors file"),
  );
}

/**
 * Loads a network: a checkpoint of this project, or a file of PyTorch if all
 * there is to know can be told from it, see `importCheckpoint()`.
 *
 * @param source As for `findModel()`
 * @param options Where it runs
 * @throws {RangeError} If the source is a name that nothing has
 * @throws {SyntaxError} If the file is not a checkpoint, whole and unchanged
 * @throws {TypeError} If its tensors do not fit its card, or a file of PyTorch
 *   holds no known network
 */
export async function loadNetwork(
  source: string,
  options: RunOptions = {},
): Promise<LoadedNetwork> {
  const path = await findModel(source);
  const bytes = await readBytes(path);
  if (checkpointFormat(bytes, path) === "torch") {
    const { checkpoint, notes } = importBytes(bytes, path);
    const { card, tensors } = checkpoint;
    const network = new Network(specOf(card), tensors, options);
    return { network, card, path, notes };
  }
  const { card, tensors } = await decodeCheckpoint(bytes, path);
  if (!(ARCHITECTURES as readonly string[]).includes(card.architecture)) {
    throw new SyntaxError(
      `Cannot read checkpoint "${path}": its architecture ` +
        `"${card.architecture}" is none of ${ARCHITECTURES.join(", ")}`,
    );
  }
  const network = new Network(specOf(card), tensors, options);
  return { network, card, path, notes: [] };
}

/**
 * Reads another project's file as a checkpoint, without executing anything
 * that the file says; see `importCheckpoint()`.
 *
 * @param path A file of PyTorch or of safetensors
 * @param options What the file does not tell
 * @returns The checkpoint, and what was inferred
 * @throws {SyntaxError} If the file is damaged or of no known format
 * @throws {TypeError} If it holds no known network or not the one asked for
 * @throws {Error} If the file cannot be opened
 */
export async function importFile(
  path: string,
  options: Omit<ImportCheckpointOptions, "sha256"> = {},
): Promise<ImportedCheckpoint> {
  return importBytes(await readBytes(path), path, options);
}

/**
 * Reads another project's file as a checkpoint, as `importFile()` does.
 *
 * @param bytes The whole file, which is taken over
 * @param path Where it was read from, for errors and the card
 * @param options What the file does not tell
 * @returns The checkpoint, and what was inferred
 * @throws {SyntaxError} If the file is damaged or of no known format
 * @throws {TypeError} If it holds no known network or not the one asked for
 */
export function importBytes(
  bytes: Uint8Array,
  path: string,
  options: Omit<ImportCheckpointOptions, "sha256"> = {},
): ImportedCheckpoint {
  // Before anything is moved within the bytes.
  const sha256 = sha256InParts(bytes);
  return importCheckpoint(bytes, path, { ...options, sha256 });
}
