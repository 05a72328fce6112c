/**
 * A picture of work in progress: `preview.png` in the run's folder has the
 * layout of the figure to come and is replaced every few seconds.
 *
 * @module
 */
import {
  encodePng,
  montage,
  type PgdStep,
  type Tensor,
  tensor,
} from "../mod.ts";
import type { FlagTable, Progress, ProgressTask } from "./_cli.ts";

/** Name of the picture in a run's folder. */
export const PREVIEW_FILE = "preview.png";

/** What the picture is called until it is whole. */
const PART = ".preview.png.part";

/** Drawing takes at most this part of the time. */
const SHARE = 0.1;

/** Flag of experiments that can be watched. */
export const PREVIEW_FLAG = {
  previewEvery: {
    type: "number",
    default: 2,
    min: 0,
    help:
      `seconds between pictures of work in progress, ${PREVIEW_FILE}; 0: none`,
  },
} as const satisfies FlagTable;

/** A row of a figure. */
interface Row {
  readonly label: string;
  /** `[n, 3, h, w]` */
  readonly images: Tensor;
}

/** Options of `Preview.open()`. */
export interface PreviewOptions {
  /** Title of the figure. */
  readonly title: string;
  /** Rows of the figure; those that are optimised hold their start. */
  readonly rows: readonly Row[];
  /** Text above each column. */
  readonly columns: readonly string[];
  /** Least seconds between two pictures; 0: none. */
  readonly previewEvery: number;
  /** Prints a line on stderr. */
  readonly note: (text: string) => void;
}

/** Milliseconds between two steps that are shown, if steps are shorter. */
const SHOWN_EVERY = 100;

/** One optimisation of a row's images. */
export interface Followed {
  /** For `optimizeInput()`. */
  readonly onStep: (step: PgdStep) => void;
  /** For `optimizeInput()`: which steps there is something to show of. */
  readonly observe: (step: number) => boolean;
  /** Ends it; what came out may differ from the last iterate. */
  done(images: Tensor): void;
}

/** Shows optimisations as they go, on stderr and as a picture. */
export class Preview {
  readonly #path: string | null;
  readonly #part: string;
  readonly #options: PreviewOptions;
  readonly #rows: readonly Row[];
  #drawing: Promise<unknown> = Promise.resolve();
  /** When the next picture is due. */
  #due = Infinity;

  private constructor(folder: string | null, options: PreviewOptions) {
    this.#path = folder && `${folder}/${PREVIEW_FILE}`;
    this.#part = `${folder}/${PART}`;
    this.#options = options;
    this.#rows = options.rows.map(({ label, images }) => ({
      label,
      images: tensor(images.data.slice(), images.shape),
    }));
  }

  /**
   * Draws the first picture and says where it is.
   *
   * @param folder The run's folder; null if it writes no files
   */
  static async open(
    folder: string | null,
    options: PreviewOptions,
  ): Promise<Preview> {
    const preview = new Preview(folder, options);
    if (folder && options.previewEvery > 0) {
      const isThere = await preview.#draw();
      if (isThere) options.note(`Work in progress: ${preview.#path}`);
    }
    return preview;
  }

  /**
   * Follows the optimisation of a row, batch by batch.
   *
   * @param label The row's
   * @param progress Where its steps are counted
   * @param options What is done, steps per batch, images in a batch at most,
   *   and images in all if only the first of them are shown
   */
  follow(
    label: string,
    progress: Progress,
    { task, steps, batchSize, images: count }: {
      readonly task: string;
      readonly steps: number;
      readonly batchSize: number;
      readonly images?: number;
    },
  ): Followed {
    const { images: { data, shape } } = this.#rows.find((row) =>
      row.label === label
    )!;
    const [n] = shape;
    const total = steps * Math.ceil((count ?? n) / batchSize);
    const length = data.length / n;
    const show = (images: Tensor, start: number) => {
      const room = Math.max(0, n - start) * length;
      data.set(images.data.subarray(0, room), Math.min(n, start) * length);
    };
    // Begun with the first step: time left is told from those that took time.
    let bar: ProgressTask | undefined;
    let due = -Infinity;
    return {
      observe: () => performance.now() >= Math.min(due, this.#due),
      onStep: ({ step, start, images }) => {
        due = performance.now() + SHOWN_EVERY;
        bar ??= progress.start(`${task} (${label})`, total);
        bar.update(steps * Math.floor(start / batchSize) + step);
        show(images, start);
        this.#drawIfDue();
      },
      done: (images) => {
        bar?.done();
        show(images, 0);
      },
    };
  }

  /** Removes the picture, once the figure is there. */
  async close(): Promise<void> {
    this.#due = Infinity;
    await this.#drawing;
    if (!this.#path) return;
    await Deno.remove(this.#path).catch(() => {});
  }

  #drawIfDue(): void {
    if (performance.now() < this.#due) return;
    this.#due = Infinity;
    this.#drawing = this.#draw();
  }

  /** @returns Whether the picture could be written */
  async #draw(): Promise<boolean> {
    const begun = performance.now();
    const { title, columns, previewEvery, note } = this.#options;
    const figure = await montage({ title, rows: this.#rows, columns });
    const png = await encodePng(figure);
    try {
      // At once: between two steps there is no time to wait for a disk.
      Deno.writeFileSync(this.#part, png);
      Deno.renameSync(this.#part, this.#path!);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      note(`No more ${PREVIEW_FILE}, as it cannot be written: ${reason}`);
      await Deno.remove(this.#part).catch(() => {});
      return false;
    }
    const now = performance.now();
    const rest = (now - begun) * (1 - SHARE) / SHARE;
    this.#due = now + Math.max(1000 * previewEvery, rest);
    return true;
  }
}

/**
 * Removes the picture that an interrupted run left behind, if it left nothing
 * else: its folder is free again.
 */
export async function removePreview(folder: string): Promise<void> {
  const names: string[] = [];
  try {
    for await (const { name } of Deno.readDir(folder)) names.push(name);
  } catch {
    return; // No folder, or none to read: nothing was left.
  }
  const isLeft = (name: string) => name === PREVIEW_FILE || name === PART;
  if (!names.every(isLeft)) return;
  for (const name of names) await Deno.remove(`${folder}/${name}`);
}
