/**
 * The Square attack: no gradients, monotone, inside the ball.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { rows } from "../../core/mod.ts";
import { predictions } from "../../robust/evaluate.ts";
import { Network } from "../../robust/network.ts";
import { square, squareShare } from "../../robust/square.ts";
import {
  lengths,
  linearDistances,
  linearImages,
  linearNetwork,
  masked,
  trainedNetwork,
} from "./_networks.ts";

const { network, split } = await trainedNetwork();
const IMAGES = await split.load([...Array(12).keys()]);
const LABELS = predictions((await network.predict(IMAGES)).logits);

Deno.test("squareShare() halves on the paper's schedule", () => {
  const at = (query: number) => 0.8 / squareShare(query, 10_000);
  assertEquals(
    [0, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001, 9999].map(at),
    [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512],
  );
  assertEquals(squareShare(26, 5000), 0.2);
});

Deno.test("Square sees logits only, improves monotonically, and stays in the ball", async () => {
  /** Refuses every program but that of `predict()`. */
  class BlackBox extends Network {
    override program(...[key, build]: Parameters<Network["program"]>) {
      assert(key.startsWith("predict"), key);
      return super.program(key, build);
    }
  }
  const { spec, parameters, options } = network;
  const box = new BlackBox(spec, parameters, options);
  for (const norm of ["l2", "linf"] as const) {
    const epsilon = norm === "l2" ? 2 : 0.08;
    const last = Array.from(LABELS, () => Infinity);
    const { images, broken, queries } = await square(box, IMAGES, LABELS, {
      norm,
      epsilon,
      queries: 150,
      batchSize: 5,
      onMargin: (i, margin) => {
        assert(margin <= last[i], `${margin} after ${last[i]}`);
        last[i] = margin;
      },
    });
    assert(images.data.every((x) => x >= 0 && x <= 1));
    for (const length of lengths(images, IMAGES, norm)) {
      assert(length <= epsilon * (1 + 1e-5), `${norm} ${length}`);
    }
    const seen = predictions((await box.predict(images)).logits);
    broken.forEach((is, i) => {
      assertEquals(is, seen[i] !== LABELS[i]);
      assertEquals(is, last[i] < 0);
      assert(is ? queries[i] <= 150 : queries[i] === 150);
    });
    assert(broken.some((is) => is), `${norm} breaks nothing`);
  }
  await box.release();
});

Deno.test("Square breaks a network whose gradients are hidden as it does the honest one", async () => {
  const hidden = masked(network);
  const settings = { norm: "l2", epsilon: 2, queries: 100 } as const;
  const honest = await square(network, IMAGES, LABELS, settings);
  const same = await square(hidden, IMAGES, LABELS, settings);
  assertEquals(same.broken, honest.broken);
  await hidden.release();
});

Deno.test("Square on a linear classifier never succeeds below the least length", async () => {
  const matrix = [[4, 0, 0], [0, 3, 0], [0, 0, 5]] as const;
  const linear = linearNetwork(matrix);
  const images = linearImages(6, 1);
  for (const norm of ["l2", "linf"] as const) {
    const { labels, distances } = linearDistances(images, matrix, norm);
    for (const [i, distance] of distances.entries()) {
      const attack = async (share: number) => {
        const image = rows(images, i, i + 1);
        const { broken } = await square(linear, image, [labels[i]], {
          norm,
          epsilon: share * distance,
          queries: 1000,
        });
        return broken[0];
      };
      assertEquals(await attack(0.99), false);
      // All of a box's corners are a few squares away.
      if (norm === "linf" && distance < 0.06) {
        assertEquals(await attack(3), true);
      }
    }
  }
  await linear.release();
});

Deno.test("Square gives the same twice, in any batches", async () => {
  const settings = { norm: "l2", epsilon: 1.5, queries: 40, seed: 1 } as const;
  const once = await square(network, IMAGES, LABELS, settings);
  assertEquals(await square(network, IMAGES, LABELS, settings), once);
  const parts = await square(network, IMAGES, LABELS, {
    ...settings,
    batchSize: 5,
  });
  assertEquals(parts.broken, once.broken);
});

Deno.test("Square refuses settings out of range", async () => {
  await assertRejects(
    () =>
      square(network, IMAGES, LABELS, { norm: "l2", epsilon: 1, queries: 0 }),
    RangeError,
    "queries must be an integer >= 1: current value is 0",
  );
});
