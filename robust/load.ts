/**
 * Networks from disk.
 *
 * @module
 */
import type { Card } from "../models/mod.ts";
import {
  type Architecture,
  ARCHITECTURES,
  type ModelSpec,
} from "../models/mod.ts";
import { readCheckpoint } from "../models/files.ts";
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
 * @param source Folder of a training run, a `.safetensors` file, or the name
 * of a shipped network
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
 * Loads a network.
 *
 * @param source As for `findModel()`
 * @param options Where it runs
 * @throws {RangeError} If the source is a name that nothing has
 * @throws {SyntaxError} If the file is not a checkpoint, whole and unchanged
 * @throws {TypeError} If its tensors do not fit its card
 */
export async function loadNetwork(
  source: string,
  options: RunOptions = {},
): Promise<LoadedNetwork> {
  const path = await findModel(source);
  const { card, tensors } = await readCheckpoint(path);
  if (!(ARCHITECTURES as readonly string[]).includes(card.architecture)) {
    throw new SyntaxError(
      `Cannot read checkpoint "${path}": its architecture ` +
        `"${card.architecture}" is none of ${ARCHITECTURES.join(", ")}`,
    );
  }
  return { network: new Network(specOf(card), tensors, options), card, path };
}
