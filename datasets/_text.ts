/**
 * Antialiased text, drawn by imagescript's font rasterizer (fontdue) with
 * DejaVu Sans.
 *
 * @module
 */
import { readPackageFile } from "./_package.ts";

/** How much of each pixel a text covers. */
export interface Coverage {
  readonly width: number;
  readonly height: number;
  /** `[height, width]`, 0 to 255. */
  readonly alpha: Uint8Array;
}

/** Draws single lines of text. */
export interface TextRenderer {
  /** @param height Height of the font in pixels */
  draw(text: string, height: number): Coverage;
}

/** Exports of imagescript's `wasm/any/font.wasm`. */
interface Rasterizer {
  readonly memory: WebAssembly.Memory;
  walloc(length: number): number;
  wlen(): number;
  font_new(address: number, length: number, scale: number): number;
  layout_new(): number;
  layout_free(layout: number): void;
  /** Sets options, given as JSON. */
  layout_reset(layout: number, address: number, length: number): void;
  layout_append(
    layout: number,
    font: number,
    address: number,
    length: number,
    scale: number,
    hasColour: boolean,
    r: number,
    g: number,
    b: number,
  ): void;
  layout_rasterize(layout: number, r: number, g: number, b: number): number;
  layout_rasterize_width(raster: number): number;
  layout_rasterize_height(raster: number): number;
  layout_rasterize_buffer(raster: number): number;
  layout_rasterize_free(raster: number): void;
}

let renderer: Promise<TextRenderer> | undefined;

/** The renderer; the font is read and parsed once. */
export function textRenderer(): Promise<TextRenderer> {
  return renderer ??= startRenderer();
}

async function startRenderer(): Promise<TextRenderer> {
  const [code, font] = await Promise.all([
    readPackageFile("imagescript", "./wasm/any/font.wasm"),
    readPackageFile("dejavu-fonts-ttf", "./ttf/DejaVuSans.ttf"),
  ]);
  const { instance } = await WebAssembly.instantiate(code);
  const wasm = instance.exports as unknown as Rasterizer;
  const put = (bytes: Uint8Array) => {
    const address = wasm.walloc(bytes.length);
    new Uint8Array(wasm.memory.buffer, address, bytes.length).set(bytes);
    return [address, bytes.length] as const;
  };
  const face = wasm.font_new(...put(font), 16);
  const drawn = new Map<string, Coverage>();

  const draw = (text: string, height: number): Coverage => {
    if (!text.trim()) return { width: 0, height, alpha: new Uint8Array() };
    const encoder = new TextEncoder();
    const layout = wasm.layout_new();
    wasm.layout_reset(layout, ...put(encoder.encode("{}")));
    const address = put(encoder.encode(text));
    wasm.layout_append(layout, face, ...address, height, false, 0, 0, 0);
    const raster = wasm.layout_rasterize(layout, 255, 255, 255);
    const size = {
      width: wasm.layout_rasterize_width(raster),
      height: wasm.layout_rasterize_height(raster),
    };
    const start = wasm.layout_rasterize_buffer(raster);
    const rgba = new Uint8Array(wasm.memory.buffer, start, wasm.wlen());
    const alpha = new Uint8Array(size.width * size.height);
    for (let i = 0; i < alpha.length; i++) alpha[i] = rgba[4 * i + 3];
    wasm.layout_rasterize_free(raster);
    wasm.layout_free(layout);
    return { ...size, alpha };
  };

  return {
    draw(text, height) {
      const key = `${height} ${text}`;
      let coverage = drawn.get(key);
      if (!coverage) {
        if (drawn.size >= 1000) drawn.clear();
        coverage = draw(text, height);
        drawn.set(key, coverage);
      }
      return coverage;
    },
  };
}
