/**
 * Pictures that the playground offers.
 *
 * @module
 */
import { figuresOf } from "./figure.ts";
import type { Library } from "./library.ts";
import { runFile } from "./link.ts";

/** A picture to choose: what it is called, and where it is. */
export interface Sample {
  readonly label: string;
  readonly url: string;
}

/** Shapes that come with the site. */
const SHAPES = ["disc", "ring", "square", "triangle", "star", "heart"];

/** Pictures taken from results at most. */
const MOST = 12;

/** Targets of results, then shapes. */
export async function samplesOf(library: Library): Promise<Sample[]> {
  const found = new Map<string, Sample>();
  const results = await library.results().catch(() => null);
  for (const entry of results?.index.entries ?? []) {
    const run = await library.runOf(results!, entry);
    if (!run?.run) continue;
    for (const { rows } of figuresOf(run.run)) {
      for (const { label, cells } of rows) {
        if (!/^(target|source|original)/.test(label)) continue;
        for (const { column, frames: [{ path }] } of cells) {
          const name = column.replace(/\.\w+$/, "") || label;
          if (found.has(name)) continue;
          found.set(name, { label: name, url: runFile(run.key, path) });
        }
      }
    }
  }
  const shapes = SHAPES.map((label) => ({
    label,
    url: `/samples/${label}.png`,
  }));
  return [...[...found.values()].slice(0, MOST), ...shapes];
}
