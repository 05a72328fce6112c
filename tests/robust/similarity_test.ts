import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertThrows,
} from "@std/assert";
import { Random, type Tensor, tensor } from "../../core/mod.ts";
import {
  kendallTau,
  pixelDistances,
  retrievalRanks,
  softmaxRows,
  ssim,
} from "../../robust/similarity.ts";

/** Waves that NumPy can make, too. */
function waves(shape: number[], phase: number): Tensor {
  const size = shape.reduce((product, x) => product * x);
  const values = Array.from(
    { length: size },
    (_, i) => 0.5 + 0.5 * Math.sin(0.37 * i * (1 + phase) + phase),
  );
  return tensor(values, shape);
}

Deno.test("ssim() agrees with scikit-image", () => {
  const shape = [2, 3, 16, 20];
  const a = waves(shape, 0.1);
  const other = waves(shape, 0.7);
  const b = tensor(a.data.map((x, i) => 0.6 * x + 0.4 * other.data[i]), shape);
  // skimage.metrics.structural_similarity(a, b, data_range=1,
  // gaussian_weights=True, sigma=1.5, use_sample_covariance=False), averaged
  // over the channels; scikit-image 0.19.
  const [first, second] = ssim(a, b);
  assertAlmostEquals(first, 0.8122211210866856, 1e-6);
  assertAlmostEquals(second, 0.8122373828805894, 1e-6);
});

Deno.test("ssim() is 1 for equal images, symmetric, and lower for others", () => {
  const random = new Random(0);
  const a = random.uniformTensor([2, 3, 12, 12]);
  const b = random.uniformTensor([2, 3, 12, 12]);
  ssim(a, a).forEach((value) => assertAlmostEquals(value, 1, 1e-12));
  assertEquals(ssim(a, b), ssim(b, a));
  assert(ssim(a, b).every((value) => value < 0.5));
});

Deno.test("ssim() refuses small images and other shapes", () => {
  const small = tensor(new Float32Array(300), [1, 3, 10, 10]);
  assertThrows(() => ssim(small, small), TypeError, "at least 11 pixels");
  const other = tensor(new Float32Array(192), [1, 3, 8, 8]);
  assertThrows(() => ssim(small, other), TypeError, "[1, 3, 10, 10]");
});

Deno.test("kendallTau() is Kendall's tau-a", () => {
  assertEquals(kendallTau([1, 2, 3]), 1);
  assertEquals(kendallTau([3, 2, 1]), -1);
  assertEquals(kendallTau([2, 2, 2]), 0);
  // scipy.stats.kendalltau gives tau-b, 0.5855400437691199: the same 12 pairs,
  // over the root of the 21 pairs of positions and the 20 of values.
  const tau = kendallTau([0.1, 0.3, 0.2, 0.7, 0.7, 0.9, 0.4]);
  assertAlmostEquals(tau * 21 / Math.sqrt(21 * 20), 0.5855400437691199, 1e-12);
});

Deno.test("retrievalRanks() counts what is nearer", () => {
  const gallery = tensor([0, 0, 1, 0, 2, 0, 5, 0], [4, 2]);
  const queries = tensor([0.9, 0, 0.9, 0, 0.9, 0, 0.9, 0], [4, 2]);
  assertEquals(retrievalRanks(queries, gallery, [0, 1, 2, 3]), [2, 1, 3, 4]);
  assertThrows(
    () => retrievalRanks(tensor([1], [1, 1]), gallery, [0]),
    TypeError,
    "length 2 by one of length 1",
  );
});

Deno.test("pixelDistances() is the l2 norm over a whole image", () => {
  const a = tensor([0, 0, 0, 1, 1, 1], [2, 3, 1, 1]);
  const b = tensor([1, 2, 2, 1, 1, 1], [2, 3, 1, 1]);
  assertEquals(pixelDistances(a, b), [3, 0]);
});

Deno.test("softmaxRows() sums to 1 and stands large logits", () => {
  const [first, second] = softmaxRows(tensor([0, Math.log(3), 1e4, 0], [2, 2]));
  assertAlmostEquals(first[0], 0.25, 1e-6);
  assertAlmostEquals(first[1], 0.75, 1e-6);
  assertEquals(second, [1, 0]);
});
