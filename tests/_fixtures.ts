/**
 * Reads reference values from tests/fixtures; shared/fixtures/README.md of the
 * workshop tells how they were made.
 *
 * @module
 */
import type { AnyTensor, NamedTensors } from "../core/mod.ts";
import { decodeSafetensors } from "../models/safetensors.ts";

const FOLDER = new URL("./fixtures/", import.meta.url);

/** Reads `tests/fixtures/<name>.safetensors`. */
export async function readTensors(name: string): Promise<NamedTensors> {
  const file = `${name}.safetensors`;
  const bytes = await Deno.readFile(new URL(file, FOLDER));
  return decodeSafetensors(bytes, file).tensors;
}

/** Reads a file of `tests/fixtures` as it is. */
export async function readBytes(
  file: string,
): Promise<Uint8Array<ArrayBuffer>> {
  return await Deno.readFile(new URL(file, FOLDER));
}

/** Reads `tests/fixtures/<name>.json`; the caller knows its form. */
export async function readDescription<T>(name: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(new URL(`${name}.json`, FOLDER)));
}

/** The tensors whose names begin with `prefix/`, without it. */
export function underPrefix(
  tensors: NamedTensors,
  prefix: string,
): Record<string, AnyTensor> {
  const start = `${prefix}/`;
  return Object.fromEntries(
    Object.entries(tensors)
      .filter(([name]) => name.startsWith(start))
      .map(([name, value]) => [name.slice(start.length), value]),
  );
}
