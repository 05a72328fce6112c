/**
 * What a measurement was made on.
 *
 * @module
 */
import { availableParallelism, cpus } from "node:os";
import type { Dataset } from "../mod.ts";

/** Model of the processor, and threads that networks run on. */
export function hardware(
  { threads }: { readonly threads?: number },
): { cpu: string; threads: number } {
  const cpu = cpus()[0]?.model.replace(/\s+/g, " ").trim();
  return {
    cpu: cpu || "unknown processor",
    threads: threads ?? availableParallelism(),
  };
}

/** What is done to the images of a data set before a network sees them. */
export function preprocessingOf(
  dataset: Pick<Dataset, "name" | "imageShape">,
): string {
  const size = dataset.imageShape[1];
  const square = `${size} x ${size}`;
  const shorter = size === 224 ? 256 : size;
  const fit = dataset.name === "shapes"
    ? `drawn at ${square}`
    : `${square} as they are, others resized to a shorter side of ${shorter} ` +
      `and centre cropped`;
  return `${fit}; bytes / 255; normalised inside the network`;
}
