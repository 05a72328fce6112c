/**
 * Checkpoints on disk, and files that are never half written.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import {
  type Card,
  type Checkpoint,
  checkpointParts,
  decodeCheckpoint,
} from "./checkpoint.ts";
import type { SafetensorsOptions } from "./safetensors.ts";

/** Bytes read or hashed at once. */
const READ_STEP = 1 << 22;

/**
 * Reads a checkpoint.
 *
 * @param path File written by `writeCheckpoint()`
 * @returns Parameters by name, and their card
 * @throws {SyntaxError} If the file is not a checkpoint, whole and unchanged
 * @throws {Error} If the file cannot be opened
 */
export async function readCheckpoint(path: string): Promise<Checkpoint> {
  return await decodeCheckpoint(await readBytes(path), path);
}

/**
 * Reads a file, holding it once, where `Deno.readFile()` takes its size twice.
 *
 * @throws {Error} If it cannot be read, with the system's error as cause
 */
export async function readBytes(
  path: string,
): Promise<Uint8Array<ArrayBuffer>> {
  try {
    using file = await Deno.open(path);
    const { isFile, isDirectory, size } = await file.stat();
    if (isDirectory) throw new Deno.errors.IsADirectory();
    // A pipe does not tell its length.
    if (!isFile) return await Deno.readFile(path);
    const bytes = new Uint8Array(size);
    let at = 0;
    while (at < size) {
      const count = await file.read(bytes.subarray(at, at + READ_STEP));
      if (count === null) break;
      at += count;
    }
    return bytes.subarray(0, at);
  } catch (error) {
    throw fileError("read checkpoint", path, error);
  }
}

/**
 * SHA-256 of a large file's bytes: some at a time, where `sha256()` copies all.
 *
 * @returns 64 hexadecimal digits
 */
export function sha256InParts(bytes: Uint8Array): string {
  const hash = createHash("sha256");
  for (let at = 0; at < bytes.length; at += READ_STEP) {
    hash.update(bytes.subarray(at, at + READ_STEP));
  }
  return hash.digest("hex");
}

/**
 * Writes a checkpoint, whole or not at all.
 *
 * @param path Where to write; its folder must exist
 * @param checkpoint Parameters and their card
 * @param options `float16` halves the file
 * @throws {TypeError} If the card or a tensor is malformed
 * @throws {RangeError} If a value is too large for float16
 * @throws {Error} If the file cannot be written; an old one is untouched
 */
export async function writeCheckpoint(
  path: string,
  checkpoint: Checkpoint,
  options: SafetensorsOptions = {},
): Promise<void> {
  const parts = await checkpointParts(checkpoint, options, sha256InParts);
  await writeFileAtomic(path, parts);
}

/**
 * Replaces the card of a checkpoint on disk, whole or not at all; the weights
 * stay as they are, in float16 if the file holds such.
 *
 * @param path File written by `writeCheckpoint()`
 * @param change Makes the new card of the one in the file
 * @returns The new card
 * @throws {SyntaxError} If the file is not a checkpoint, whole and unchanged
 * @throws {TypeError} If the new card is malformed
 * @throws {Error} If the file cannot be read or written
 */
export async function updateCard(
  path: string,
  change: (card: Card) => Card,
): Promise<Card> {
  const { card, tensors } = await readCheckpoint(path);
  const float16 = Object.values(tensors).every(({ dtype, data }) =>
    dtype !== "float32" || isHalf(data as Float32Array)
  );
  const changed = change(card);
  await writeCheckpoint(path, { card: changed, tensors }, { float16 });
  return { ...changed, weightsSha256: card.weightsSha256 };
}

/** Whether float16 holds every value exactly. */
function isHalf(data: Float32Array): boolean {
  const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
  return data.every((value, i) => {
    const size = Math.abs(value);
    if (size === 0) return true;
    if (!(size <= 65504)) return false;
    // 11 significant bits; below 2^-14 multiples of 2^-24.
    return size >= 2 ** -14
      ? (bits[i] & 0x1fff) === 0
      : Number.isInteger(size * 2 ** 24);
  });
}

/**
 * Writes a file, whole or not at all: into a temporary file in the same
 * folder, flushed to the disk and then renamed. Whenever the process is killed
 * or the disk fills up, the old file stays as it was. What killed processes
 * left behind for the same name is removed.
 *
 * @param path Where to write; its folder must exist
 * @param content Text is written as UTF-8, parts one after the other
 * @throws {Error} If the file cannot be written, with the system's error as
 *   cause
 */
export async function writeFileAtomic(
  path: string,
  content: Uint8Array | string | readonly Uint8Array[],
): Promise<void> {
  const whole = typeof content === "string"
    ? new TextEncoder().encode(content)
    : content;
  const parts = whole instanceof Uint8Array ? [whole] : whole;
  try {
    if (await isFolder(path)) throw new Deno.errors.IsADirectory();
    await removeLeftovers(path);
    await replaceFile(path, parts);
  } catch (error) {
    throw fileError("write", path, error);
  }
  await flushFolder(dirname(path));
}

/**
 * Whether a file is the temporary one of an unfinished `writeFileAtomic()`.
 *
 * @param name Name of the file, without its folder
 * @param target Name it would get; any if left out
 */
export function isLeftover(name: string, target?: string): boolean {
  const match = /^\.(.+)\.[0-9a-f]{16}\.part$/s.exec(name);
  return match !== null && (target === undefined || match[1] === target);
}

/**
 * A system's error as one sentence that names the file.
 *
 * @param action What failed, such as "write"
 * @param error The error thrown, which becomes the cause
 */
export function fileError(action: string, path: string, error: unknown): Error {
  return new Error(`Cannot ${action} "${path}": ${reasonOf(error)}`, {
    cause: error,
  });
}

function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "no such file or folder";
  if (error instanceof Deno.errors.IsADirectory) return "it is a folder";
  if (error instanceof Deno.errors.PermissionDenied) return "permission denied";
  if (!(error instanceof Error)) return String(error);
  // "No space left on device (os error 28): write" -> "no space left on device"
  const reason = error.message.replace(/ \(os error \d+\).*/s, "");
  if (/^no space left/i.test(reason)) return "no space left on the device";
  return reason.charAt(0).toLowerCase() + reason.slice(1);
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function replaceFile(
  path: string,
  parts: readonly Uint8Array[],
): Promise<void> {
  const { file, temporary } = await openTemporary(path);
  try {
    for (const part of parts) {
      for (let at = 0; at < part.length;) {
        at += await file.write(part.subarray(at));
      }
    }
    await file.sync();
    // Renamed while locked, so that no other writer takes it for a leftover.
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    throw error;
  } finally {
    file.close();
  }
}

/** Creates and locks a temporary file; a killed process loses its locks. */
async function openTemporary(
  path: string,
): Promise<{ file: Deno.FsFile; temporary: string }> {
  for (;;) {
    const id = crypto.getRandomValues(new Uint8Array(8)).toHex();
    const temporary = join(dirname(path), `.${basename(path)}.${id}.part`);
    const file = await Deno.open(temporary, { write: true, createNew: true });
    try {
      await lock(file);
      // Another writer may have removed it before it was locked.
      await Deno.lstat(temporary);
      return { file, temporary };
    } catch (error) {
      file.close();
      if (error instanceof Deno.errors.NotFound) continue;
      await Deno.remove(temporary).catch(() => {});
      throw error;
    }
  }
}

async function lock(file: Deno.FsFile): Promise<void> {
  try {
    await file.lock(true);
  } catch {
    // Some network file systems have no locks; without them nobody can tell
    // leftovers from files in use, so removeLeftovers() leaves them, too.
  }
}

/** Removes temporary files for `path` that no running process has locked. */
async function removeLeftovers(path: string): Promise<void> {
  const folder = dirname(path);
  for await (const { name } of Deno.readDir(folder)) {
    if (!isLeftover(name, basename(path))) continue;
    const leftover = join(folder, name);
    // Whatever fails here, the write itself can go on.
    try {
      using file = await Deno.open(leftover, { read: true, write: true });
      if (await file.tryLock(true)) await Deno.remove(leftover);
    } catch {
      continue;
    }
  }
}

/** Makes a rename last through a power cut, where the system can. */
async function flushFolder(folder: string): Promise<void> {
  try {
    using file = await Deno.open(folder, { read: true });
    await file.sync();
  } catch {
    // Not every system opens folders; the file is whole either way.
  }
}
