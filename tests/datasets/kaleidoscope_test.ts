import { assert, assertAlmostEquals } from "@std/assert";
import { Random } from "../../core/mod.ts";
import { kaleidoscope } from "../../datasets/mod.ts";

/** Correlation of a pattern with itself turned by an angle, inside a disc. */
function selfCorrelation(data: ArrayLike<number>, size: number, angle: number) {
  const middle = (size - 1) / 2;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  let [n, a, b, aa, bb, ab] = [0, 0, 0, 0, 0, 0];
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const [u, v] = [x - middle, y - middle];
      if (Math.hypot(u, v) > 0.9 * middle) continue;
      const xx = Math.round(cos * u - sin * v + middle);
      const yy = Math.round(sin * u + cos * v + middle);
      const [p, q] = [data[y * size + x], data[yy * size + xx]];
      [n, a, b, aa, bb, ab] = [
        ...[n + 1, a + p, b + q, aa + p * p, bb + q * q, ab + p * q],
      ];
    }
  }
  return (ab - a * b / n) / Math.sqrt((aa - a * a / n) * (bb - b * b / n));
}

Deno.test("kaleidoscope() looks the same turned by its wedge (seeds 0 to 3)", () => {
  for (let seed = 0; seed < 4; seed++) {
    const size = 96;
    const { data, shape } = kaleidoscope(size, new Random(seed));
    assert(shape.join() === `3,${size},${size}`);
    assert(data.every((x) => x >= -1e-6 && x <= 1 + 1e-6));
    const best = Math.max(
      ...[4, 5, 6, 7, 8].map((wedges) =>
        selfCorrelation(data, size, 2 * Math.PI / wedges)
      ),
    );
    assert(best > 0.85, `seed ${seed}: ${best}`);
  }
});

Deno.test("kaleidoscope() depends on its seed alone", () => {
  const draw = (seed: number) => kaleidoscope(16, new Random(seed)).data;
  assert(draw(1).every((x, i) => x === draw(1)[i]));
  assert(draw(1).some((x, i) => x !== draw(2)[i]));
  // Finer samples of the same pattern: the mean colour stays.
  const mean = (size: number) =>
    kaleidoscope(size, new Random(1)).data.reduce((sum, x) => sum + x, 0) /
    (3 * size * size);
  assertAlmostEquals(mean(16), mean(64), 0.01);
});
