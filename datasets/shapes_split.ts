/**
 * Opens the embedded data set, drawn in workers.
 *
 * @module
 */
import { openSplits } from "./_folder.ts";
import { Pool } from "./_pool.ts";
import {
  checkLimit,
  type Dataset,
  makeDataset,
  makeSplit,
  type OpenOptions,
  sharedBytes,
  type SplitName,
} from "./dataset.ts";
import {
  SHAPE_NAMES,
  shapeLabel,
  SHAPES,
  SHAPES_NORMALIZATION,
} from "./shapes.ts";

/** Images a worker draws at a time. */
const CHUNK = 500;

/**
 * Draws the splits asked for.
 *
 * @throws {RangeError} If the size is not a multiple of 4 from 16 to 64
 */
export async function openShapes<S extends SplitName>(
  options: OpenOptions<S>,
): Promise<Dataset<S>> {
  const { size = SHAPES.size, limit, onProgress, signal } = options;
  if (size % 4 !== 0 || !(size >= 16 && size <= 64)) {
    throw new RangeError(
      `Cannot draw shapes of size ${size}: give a multiple of 4 from 16 to 64`,
    );
  }
  checkLimit(limit);
  signal?.throwIfAborted();
  using pool = new Pool(navigator.hardwareConcurrency);
  const abort = () => pool.close(signal?.reason);
  signal?.addEventListener("abort", abort);
  try {
    const splits = await openSplits(options.splits, async (name) => {
      const total = Math.min(limit ?? Infinity, SHAPES.count[name]);
      const length = 3 * size * size;
      const pixels = sharedBytes(total * length);
      let done = 0;
      onProgress?.({ stage: `draw ${name}`, done, total });
      const drawChunk = async (start: number) => {
        const end = Math.min(start + CHUNK, total);
        const out = pixels.subarray(start * length, end * length);
        await pool.run({ kind: "shapes", split: name, start, size, out });
        done += end - start;
        onProgress?.({ stage: `draw ${name}`, done, total });
      };
      const starts = Array.from(
        { length: Math.ceil(total / CHUNK) },
        (_, i) => i * CHUNK,
      );
      await Promise.all(starts.map(drawChunk));
      return makeSplit({
        name,
        imageShape: [3, size, size],
        labels: Uint32Array.from({ length: total }, (_, i) => shapeLabel(i)),
        source: { kind: "packed", pixels },
      });
    });
    return makeDataset({
      name: "shapes",
      classes: SHAPE_NAMES,
      size,
      normalization: SHAPES_NORMALIZATION,
      splits,
    });
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}
