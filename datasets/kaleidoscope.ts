/**
 * Kaleidoscope patterns: pictures unlike any photograph, to see what of them a
 * representation keeps (paper, Fig. 6).
 *
 * @module
 */
import { type Random, type Tensor, tensor } from "../core/mod.ts";

/** Samples of a pixel each way, averaged. */
const SAMPLES = 3;

/** Discs that a wedge is painted with. */
const DISCS = 14;

interface Disc {
  readonly x: number;
  readonly y: number;
  readonly radius: number;
  /** Fraction of the radius that is left out in the middle. */
  readonly hole: number;
  readonly colour: readonly number[];
}

/**
 * Draws a pattern of mirrored wedges, 4 to 8 of them.
 *
 * @param size Height and width in pixels
 * @param random Draws wedges, discs and colours
 * @returns `[3, size, size]` in [0, 1]
 */
export function kaleidoscope(size: number, random: Random): Tensor {
  const wedges = 4 + random.integer(5);
  const colour = () => [0, 1, 2].map(() => random.uniform(0.05, 0.95));
  const background = colour();
  const discs: Disc[] = Array.from({ length: DISCS }, () => {
    const distance = random.uniform(0, 1.3);
    const angle = random.uniform(0, Math.PI / wedges);
    return {
      x: distance * Math.cos(angle),
      y: distance * Math.sin(angle),
      radius: random.uniform(0.08, 0.45),
      hole: random.uniform() < 0.3 ? random.uniform(0.3, 0.8) : 0,
      colour: colour(),
    };
  });
  const turn = random.uniform(0, 2 * Math.PI);
  const colourAt = (x: number, y: number): readonly number[] => {
    const wedge = 2 * Math.PI / wedges;
    const angle = Math.atan2(y, x) + turn + 4 * Math.PI;
    const within = angle % wedge;
    const folded = Math.min(within, wedge - within);
    const r = Math.hypot(x, y);
    const [u, v] = [r * Math.cos(folded), r * Math.sin(folded)];
    const top = discs.findLast((disc) => {
      const distance = Math.hypot(u - disc.x, v - disc.y) / disc.radius;
      return distance < 1 && distance >= disc.hole;
    });
    return top ? top.colour : background;
  };
  const data = new Float32Array(3 * size * size);
  const step = 2 / (size * SAMPLES);
  for (let i = 0; i < size * SAMPLES; i++) {
    for (let j = 0; j < size * SAMPLES; j++) {
      const rgb = colourAt((j + 0.5) * step - 1, (i + 0.5) * step - 1);
      const pixel = Math.floor(i / SAMPLES) * size + Math.floor(j / SAMPLES);
      rgb.forEach((value, c) =>
        data[c * size * size + pixel] += value / SAMPLES ** 2
      );
    }
  }
  return tensor(data, [3, size, size]);
}
