/**
 * ONNX graphs of networks, made when first asked for.
 *
 * @module
 */
import { readCheckpoint } from "../models/files.ts";
import { type ExportKind, exportNetwork } from "../robust/mod.ts";
import { specOf } from "../robust/load.ts";
import type { SiteModel } from "./library.ts";

/** Files that a network can be downloaded as, by name. */
export const GRAPHS: Readonly<Record<string, ExportKind>> = {
  "forward.onnx": "forward",
  "representation.onnx": "representation",
  "input-gradient.onnx": "input-gradient",
  "pgd-step.onnx": "pgd-step",
};

/** Graphs kept in memory at most. */
const KEPT = 4;

const graphs = new Map<string, Promise<Uint8Array<ArrayBuffer>>>();

/** Bytes of a network's graph. */
export function graphOf(
  { path, modified }: SiteModel,
  what: ExportKind,
): Promise<Uint8Array<ArrayBuffer>> {
  const key = `${path} ${modified} ${what}`;
  const found = graphs.get(key) ?? make(path, what);
  // The one used longest ago goes first.
  graphs.delete(key);
  graphs.set(key, found);
  found.catch(() => graphs.delete(key));
  if (graphs.size > KEPT) graphs.delete(graphs.keys().next().value!);
  return found;
}

async function make(
  path: string,
  what: ExportKind,
): Promise<Uint8Array<ArrayBuffer>> {
  const { card, tensors } = await readCheckpoint(path);
  const { bytes } = exportNetwork(specOf(card), tensors, {
    what,
    size: card.imageSize,
    objective: "match-representation",
    card,
  });
  return new Uint8Array(bytes);
}
