/**
 * Reads zip archives whose files are stored as they are, which is how PyTorch
 * writes them. Nothing is unpacked, so an archive cannot grow.
 *
 * @module
 */
import { type Fail, quote } from "./elements.ts";

/** Files of one archive at most: a checkpoint has one per tensor. */
const MAX_FILES = 100_000;

/** Sizes of the fixed part of each record, in bytes. */
const END = 22, END64 = 56, LOCATOR64 = 20, CENTRAL = 46, LOCAL = 30;

/** A file of an archive. */
export interface ZipFile {
  /** Its length in bytes. */
  readonly size: number;
  /**
   * Its bytes, which share the archive's memory.
   *
   * @throws What `fail` throws, if their checksum is wrong
   */
  read(): Uint8Array;
}

/** Whether bytes begin like a zip archive that holds files. */
export function isZip(bytes: Uint8Array): boolean {
  return [0x50, 0x4b, 3, 4].every((byte, i) => bytes[i] === byte);
}

/**
 * Lists the files of an archive.
 *
 * @param bytes The whole archive
 * @param fail Throws what is wrong
 * @returns Files by name
 */
export function readZip(
  bytes: Uint8Array,
  fail: Fail,
): ReadonlyMap<string, ZipFile> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { count, start, size } = readEnd(bytes, view, fail);
  if (count > MAX_FILES) fail(`its zip archive lists ${count} files`);
  if (start + size > bytes.length) {
    fail("the directory of its zip archive lies beyond its end");
  }
  const files = new Map<string, ZipFile>();
  const text = new TextDecoder();
  const end = start + size;
  let at = start, held = 0;
  for (let i = 0; i < count; i++) {
    if (at + CENTRAL > end || view.getUint32(at, true) !== 0x02014b50) {
      fail("the directory of its zip archive is damaged");
    }
    const nameLength = view.getUint16(at + 28, true);
    const extraLength = view.getUint16(at + 30, true);
    const next = at + CENTRAL + nameLength + extraLength +
      view.getUint16(at + 32, true);
    if (next > end) fail("the directory of its zip archive is damaged");
    const name = text.decode(
      bytes.subarray(at + CENTRAL, at + CENTRAL + nameLength),
    );
    if (files.has(name)) fail(`its zip archive has ${quote(name)} twice`);
    const [size, packed, offset] = wideFields(
      view,
      at + CENTRAL + nameLength,
      extraLength,
      [24, 20, 42].map((field) => view.getUint32(at + field, true)),
    );
    // Files that overlap would make reading them all take far longer.
    held += size;
    if (held > bytes.length) fail("its files hold more than the archive");
    const what = {
      name,
      size,
      packed,
      offset,
      flags: view.getUint16(at + 8, true),
      method: view.getUint16(at + 10, true),
      checksum: view.getUint32(at + 16, true),
    };
    // Directories of an archive are entries as well, and hold nothing.
    if (!name.endsWith("/")) {
      files.set(name, { size, read: () => readFile(bytes, view, what, fail) });
    }
    at = next;
  }
  return files;
}

/** Where the directory is: from the record at the end of the archive. */
function readEnd(
  bytes: Uint8Array,
  view: DataView,
  fail: Fail,
): { count: number; start: number; size: number } {
  // A comment of up to 64 KiB may follow the record.
  const first = Math.max(0, bytes.length - END - 0xffff);
  let at = bytes.length - END;
  while (at >= first && view.getUint32(at, true) !== 0x06054b50) at--;
  if (at < first) {
    return fail(
      "it begins like a zip archive but lacks the directory at its end: the " +
        "file is truncated",
    );
  }
  const end = {
    count: view.getUint16(at + 10, true),
    size: view.getUint32(at + 12, true),
    start: view.getUint32(at + 16, true),
  };
  const isFull = end.count === 0xffff || end.size === 0xffffffff ||
    end.start === 0xffffffff;
  const locator = at - LOCATOR64;
  if (!isFull || locator < 0 || view.getUint32(locator, true) !== 0x07064b50) {
    return end;
  }
  const wide = Number(view.getBigUint64(locator + 8, true));
  if (wide + END64 > locator || view.getUint32(wide, true) !== 0x06064b50) {
    return fail("the end of its zip archive is damaged");
  }
  return {
    count: Number(view.getBigUint64(wide + 32, true)),
    size: Number(view.getBigUint64(wide + 40, true)),
    start: Number(view.getBigUint64(wide + 48, true)),
  };
}

/** Replaces the fields that do not fit 32 bits by those of the extra field. */
function wideFields(
  view: DataView,
  start: number,
  length: number,
  fields: readonly number[],
): number[] {
  const end = start + length;
  for (let at = start; at + 4 <= end;) {
    const size = view.getUint16(at + 2, true);
    if (view.getUint16(at, true) === 1) {
      let wide = at + 4;
      const last = Math.min(end, wide + size);
      return fields.map((field) => {
        if (field !== 0xffffffff || wide + 8 > last) return field;
        wide += 8;
        return Number(view.getBigUint64(wide - 8, true));
      });
    }
    at += 4 + size;
  }
  return [...fields];
}

function readFile(
  bytes: Uint8Array,
  view: DataView,
  { name, size, packed, offset, flags, method, checksum }: {
    readonly name: string;
    readonly size: number;
    readonly packed: number;
    readonly offset: number;
    readonly flags: number;
    readonly method: number;
    readonly checksum: number;
  },
  fail: Fail,
): Uint8Array {
  if (flags & 1) fail(`${quote(name)} in its zip archive is encrypted`);
  if (method !== 0 || packed !== size) {
    fail(
      `${quote(name)} in its zip archive is compressed, which PyTorch never ` +
        `does: unpack it and pack it again without compression`,
    );
  }
  const isThere = offset + LOCAL <= bytes.length &&
    view.getUint32(offset, true) === 0x04034b50;
  const start = isThere
    ? offset + LOCAL + view.getUint16(offset + 26, true) +
      view.getUint16(offset + 28, true)
    : Infinity;
  if (start + size > bytes.length) {
    fail(
      `${quote(name)} lies beyond the end of its zip archive: the file is ` +
        `truncated or damaged`,
    );
  }
  const content = bytes.subarray(start, start + size);
  if (crc32(content) !== checksum) {
    fail(
      `the checksum of ${quote(name)} in its zip archive is wrong: the file ` +
        `is damaged`,
    );
  }
  return content;
}

/** Remainders for a byte that is followed by 0 to 7 others. */
const TABLES = Array.from({ length: 8 }, () => new Uint32Array(256));
for (let i = 0; i < 256; i++) {
  let value = i;
  for (let bit = 0; bit < 8; bit++) {
    value = value & 1 ? value >>> 1 ^ 0xedb88320 : value >>> 1;
  }
  TABLES[0][i] = value;
}
for (let t = 1; t < 8; t++) {
  for (let i = 0; i < 256; i++) {
    const value = TABLES[t - 1][i];
    TABLES[t][i] = value >>> 8 ^ TABLES[0][value & 0xff];
  }
}

/** Checksum of zip archives, eight bytes at a time. */
export function crc32(bytes: Uint8Array): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = TABLES;
  let crc = -1, i = 0;
  for (; i + 8 <= bytes.length; i += 8) {
    crc ^= bytes[i] | bytes[i + 1] << 8 | bytes[i + 2] << 16 |
      bytes[i + 3] << 24;
    crc = t7[crc & 0xff] ^ t6[crc >>> 8 & 0xff] ^ t5[crc >>> 16 & 0xff] ^
      t4[crc >>> 24] ^ t3[bytes[i + 4]] ^ t2[bytes[i + 5]] ^
      t1[bytes[i + 6]] ^ t0[bytes[i + 7]];
  }
  for (; i < bytes.length; i++) crc = crc >>> 8 ^ t0[(crc ^ bytes[i]) & 0xff];
  return ~crc >>> 0;
}
