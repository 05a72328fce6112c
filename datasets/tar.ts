/**
 * Reads tar archives as a stream (POSIX.1-1988 ustar; longer names of later
 * formats are not needed here).
 *
 * @module
 */

const BLOCK = 512;

/** One file of an archive. */
export interface TarFile {
  /** Path inside the archive. */
  readonly path: string;
  /** Contents. */
  readonly bytes: Uint8Array;
}

/** Takes exact numbers of bytes from a stream. */
class ByteReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #rest = new Uint8Array();

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
  }

  /** Fills `out`; returns how much of it was left to take. */
  async fill(out: Uint8Array): Promise<number> {
    let filled = 0;
    while (filled < out.length) {
      if (this.#rest.length === 0) {
        const { value, done } = await this.#reader.read();
        if (done) break;
        this.#rest = new Uint8Array(value);
      }
      const part = this.#rest.subarray(0, out.length - filled);
      out.set(part, filled);
      filled += part.length;
      this.#rest = this.#rest.subarray(part.length);
    }
    return filled;
  }

  async cancel(): Promise<void> {
    await this.#reader.cancel().catch(() => {});
  }
}

function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/**
 * Files of a tar archive, as they come.
 *
 * @param stream The archive, decompressed
 * @param wanted Which paths to hold; others are skipped over
 * @throws {SyntaxError} If it is damaged or ends early; the message completes
 *   "as ..."
 */
export async function* readTar(
  stream: ReadableStream<Uint8Array>,
  wanted: (path: string) => boolean,
): AsyncGenerator<TarFile, void, void> {
  const reader = new ByteReader(stream);
  const header = new Uint8Array(BLOCK);
  try {
    for (;;) {
      const filled = await reader.fill(header);
      if (filled < BLOCK) throw new SyntaxError("the archive ends too early");
      if (header.every((byte) => byte === 0)) {
        // To the end, so that a checksum of the compression there is checked.
        while (!await skip(reader, 2 ** 20));
        return;
      }
      const sum = header.reduce(
        (total, byte, i) => total + (i >= 148 && i < 156 ? 32 : byte),
        0,
      );
      const size = parseInt(text(header.subarray(124, 136)), 8);
      if (
        parseInt(text(header.subarray(148, 156)), 8) !== sum || !(size >= 0)
      ) {
        throw new SyntaxError("it is not a tar archive, or is damaged");
      }
      const prefix = text(header.subarray(345, 500));
      const name = text(header.subarray(0, 100));
      const path = prefix ? `${prefix}/${name}` : name;
      const isFile = header[156] === 0x30 || header[156] === 0;
      const padding = (BLOCK - size % BLOCK) % BLOCK;
      const keep = isFile && wanted(path);
      const bytes = new Uint8Array(keep ? size : 0);
      const ends = keep
        ? await reader.fill(bytes) < size || await skip(reader, padding)
        : await skip(reader, size + padding);
      if (ends) throw new SyntaxError("the archive ends too early");
      if (keep) yield { path, bytes };
    }
  } finally {
    await reader.cancel();
  }
}

/** Skips bytes; returns whether the stream ended first. */
async function skip(reader: ByteReader, length: number): Promise<boolean> {
  const scratch = new Uint8Array(Math.min(length, 65536));
  for (let left = length; left > 0;) {
    const part = scratch.subarray(0, Math.min(left, scratch.length));
    if (await reader.fill(part) < part.length) return true;
    left -= part.length;
  }
  return false;
}
