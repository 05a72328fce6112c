/**
 * Figures: rows of images with labels.
 *
 * @module
 */
import { rows as rowsOf, type Tensor, tensor } from "../core/mod.ts";
import { type Coverage, type TextRenderer, textRenderer } from "./_text.ts";
import { imageSize } from "./resize.ts";

/** One row of a montage. */
export interface MontageRow {
  /** Text to the left of the row. */
  readonly label?: string;
  /** Images `[3, h, w]`, or one tensor `[n, 3, h, w]`, in [0, 1]. */
  readonly images: readonly Tensor[] | Tensor;
  /** Text below each image. */
  readonly captions?: readonly string[];
}

/** Options of {@linkcode montage}. */
export interface MontageOptions {
  /** Rows, from the top; they may differ in length. */
  readonly rows: readonly MontageRow[];
  /** Text above each column. */
  readonly columns?: readonly string[];
  /** Text above it all. */
  readonly title?: string;
  /**
   * Least height and width of the largest image in the figure, in pixels: the
   * smallest whole `scale` that reaches it is taken. 96 if left out.
   */
  readonly tileSize?: number;
  /** Pixels of the figure, across and down, for each pixel of an image. */
  readonly scale?: number;
}

/** Font heights and distances, in pixels. */
const TITLE = 22, LABEL = 15, CAPTION = 12, MARGIN = 12, GAP = 6;
/** Widest row label before it is broken into lines. */
const WIDEST_LABEL = 200;
/** Brightness of text. */
const INK = 0.13;

/**
 * Draws images in rows on white, enlarged by repeating pixels, with labels.
 *
 * @returns The figure, `[3, height, width]`
 * @throws {TypeError} If there are no images, or one is not `[3, h, w]`
 * @throws {RangeError} If the scale or tile size is out of range
 *
 * @example
 * ```ts
 * import { full } from "../core/mod.ts";
 * import { encodePng } from "./image.ts";
 * import { montage } from "./montage.ts";
 * const figure = await montage({
 *   title: "Inversion",
 *   columns: ["dog", "cat"],
 *   rows: [{ label: "target", images: full([2, 3, 32, 32], 0.5) }],
 * });
 * const png = await encodePng(figure);
 * ```
 */
export async function montage(options: MontageOptions): Promise<Tensor> {
  const rows = options.rows.map(({ label, images, captions }) => ({
    label,
    images: listImages(images),
    captions,
  }));
  const sizes = rows.flatMap((row) => row.images.map(imageSize));
  if (sizes.length === 0) {
    throw new TypeError(
      "Cannot draw a montage of no images: give at least one",
    );
  }
  const largest = {
    height: Math.max(...sizes.map((size) => size.height)),
    width: Math.max(...sizes.map((size) => size.width)),
  };
  const scale = chooseScale(Math.max(largest.height, largest.width), options);
  const cell = { height: largest.height * scale, width: largest.width * scale };
  const text = await textRenderer();

  const labels = rows.map((row) => wrap(row.label, LABEL, WIDEST_LABEL, text));
  const columns = Math.max(...rows.map((row) => row.images.length));
  const heads = Array.from(
    { length: columns },
    (_, i) => wrap(options.columns?.[i], LABEL, cell.width, text),
  );
  const title = wrap(options.title, TITLE, Infinity, text);
  const captions = rows.map((row) =>
    row.images.map((_, i) => wrap(row.captions?.[i], CAPTION, cell.width, text))
  );

  const labelWidth = Math.max(...labels.map((block) => block.width));
  const left = MARGIN + (labelWidth > 0 ? labelWidth + 2 * GAP : 0);
  const titleHeight = title.height > 0 ? title.height + GAP : 0;
  const headHeight = Math.max(...heads.map((block) => block.height));
  const top = MARGIN + titleHeight + (headHeight > 0 ? headHeight + GAP : 0);
  const heights = rows.map((_, r) => {
    const below = Math.max(0, ...captions[r].map((block) => block.height));
    return Math.max(cell.height + below, labels[r].height);
  });
  const width = Math.max(
    left + columns * (cell.width + GAP) - GAP,
    MARGIN + title.width,
  ) + MARGIN;
  const height = top + heights.reduce((sum, h) => sum + h + GAP, -GAP) + MARGIN;

  const figure = tensor(
    new Float32Array(3 * height * width).fill(1),
    [3, height, width],
  );
  drawBlock(figure, title, { x: MARGIN, y: MARGIN, align: 0 });
  heads.forEach((block, i) =>
    drawBlock(figure, block, {
      x: left + i * (cell.width + GAP) + cell.width / 2,
      y: top - GAP - block.height,
      align: 0.5,
    })
  );
  let y = top;
  rows.forEach((row, r) => {
    const middle = y + cell.height / 2 - labels[r].height / 2;
    drawBlock(figure, labels[r], {
      x: left - 2 * GAP,
      y: Math.max(y, middle),
      align: 1,
    });
    row.images.forEach((image, i) => {
      const x = left + i * (cell.width + GAP);
      drawImage(figure, image, { x, y, scale });
      drawBlock(figure, captions[r][i], {
        x: x + cell.width / 2,
        y: y + cell.height,
        align: 0.5,
      });
    });
    y += heights[r] + GAP;
  });
  return figure;
}

function listImages(images: readonly Tensor[] | Tensor): readonly Tensor[] {
  if (!("shape" in images)) return images;
  const [n, ...shape] = images.shape;
  return Array.from(
    { length: n },
    (_, i) => tensor(rowsOf(images, i, i + 1).data, shape),
  );
}

function chooseScale(
  side: number,
  { scale, tileSize = 96 }: MontageOptions,
): number {
  const chosen = scale ?? Math.max(1, Math.ceil(tileSize / side));
  if (!Number.isInteger(chosen) || chosen < 1 || chosen * side > 4096) {
    throw new RangeError(
      `Cannot draw images of ${side} pixels at scale ${chosen}: give a whole ` +
        `number, so that an image gets at most 4096 pixels`,
    );
  }
  return chosen;
}

/** Lines of text. */
interface Block {
  readonly lines: readonly Coverage[];
  readonly width: number;
  readonly height: number;
  readonly lineHeight: number;
}

/** Breaks text into lines: at line feeds, and between words if too wide. */
function wrap(
  label: string | undefined,
  fontHeight: number,
  widest: number,
  text: TextRenderer,
): Block {
  const lines: string[] = [];
  for (const paragraph of label ? label.split("\n") : []) {
    let line = "";
    for (const word of paragraph.split(" ")) {
      const longer = line ? `${line} ${word}` : word;
      if (line && text.draw(longer, fontHeight).width > widest) {
        lines.push(line);
        line = word;
      } else {
        line = longer;
      }
    }
    lines.push(line);
  }
  const drawn = lines.map((line) => shorten(line, fontHeight, widest, text));
  const lineHeight = Math.ceil(fontHeight * 1.25);
  return {
    lines: drawn,
    width: Math.max(0, ...drawn.map((line) => line.width)),
    height: drawn.length * lineHeight,
    lineHeight,
  };
}

/** Draws a line, cut off with an ellipsis where it is too wide. */
function shorten(
  line: string,
  fontHeight: number,
  widest: number,
  text: TextRenderer,
): Coverage {
  let drawn = text.draw(line, fontHeight);
  const characters = [...line];
  while (drawn.width > widest && characters.length > 1) {
    characters.pop();
    drawn = text.draw(`${characters.join("").trimEnd()}…`, fontHeight);
  }
  return drawn;
}

/** Where text goes: `align` 0 begins at x, 0.5 is centred, 1 ends there. */
interface Place {
  readonly x: number;
  readonly y: number;
  readonly align: 0 | 0.5 | 1;
}

function drawBlock(figure: Tensor, block: Block, { x, y, align }: Place): void {
  const [, height, width] = figure.shape;
  const plane = height * width;
  block.lines.forEach((line, l) => {
    const left = Math.round(x - align * line.width);
    const top = Math.round(y + l * block.lineHeight);
    for (let v = 0; v < line.height; v++) {
      for (let u = 0; u < line.width; u++) {
        const alpha = line.alpha[v * line.width + u] / 255;
        const column = left + u, row = top + v;
        const outside = column < 0 || column >= width || row < 0 ||
          row >= height;
        if (alpha === 0 || outside) continue;
        for (let c = 0; c < 3; c++) {
          const at = c * plane + row * width + column;
          figure.data[at] += alpha * (INK - figure.data[at]);
        }
      }
    }
  });
}

function drawImage(
  figure: Tensor,
  image: Tensor,
  { x, y, scale }: { x: number; y: number; scale: number },
): void {
  const [, height, width] = figure.shape;
  const size = imageSize(image);
  for (let c = 0; c < 3; c++) {
    for (let v = 0; v < size.height * scale; v++) {
      const from = (c * size.height + Math.floor(v / scale)) * size.width;
      const to = (c * height + y + v) * width + x;
      for (let u = 0; u < size.width * scale; u++) {
        figure.data[to + u] = image.data[from + Math.floor(u / scale)];
      }
    }
  }
}
