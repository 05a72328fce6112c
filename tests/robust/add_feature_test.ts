import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertThrows,
} from "@std/assert";
import {
  grad,
  input,
  Random,
  rows,
  sum,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import { initializeModel } from "../../models/mod.ts";
import { compile } from "../../onnx/mod.ts";
import { Network } from "../../robust/network.ts";
import { addFeature } from "../../robust/objectives.ts";
import { optimizeInput } from "../../robust/pgd.ts";

const REPRESENTATIONS = tensor([
  ...[0.5, 2, 1], // behind: climbs
  ...[3, 2, 1], // ahead: has arrived
  ...[0, 0, 0], // level: not yet
], [3, 3]);

async function evaluated(stop: "exceed" | "clamp") {
  const { feeds, loss } = addFeature([0, 0, 0], 3, stop);
  const representation = input("representation", [3, 3]);
  const coordinate = input("coordinate", [3, 3]);
  const losses = loss({ representation, logits: representation }, {
    coordinate,
  });
  const [gradient] = grad(sum(losses), [representation]);
  const program = await compile({ losses, gradient });
  const result = await program.run({
    representation: REPRESENTATIONS,
    coordinate: feeds.coordinate,
  });
  await program.release();
  return {
    losses: Array.from((result.losses as Tensor).data),
    gradient: Array.from((result.gradient as Tensor).data),
  };
}

Deno.test("addFeature() climbs its coordinate until it exceeds all others", async () => {
  const { losses, gradient } = await evaluated("exceed");
  assertEquals(losses, [-1.5, 1, 0]);
  // Only the coordinate itself, and nothing once it has arrived.
  assertEquals(gradient, [1, 0, 0, 0, 0, 0, 1, 0, 0]);
});

Deno.test("addFeature() with clamp climbs until the coordinate is 1", async () => {
  const { losses, gradient } = await evaluated("clamp");
  assertEquals(losses, [-0.5, 0, -1]);
  assertEquals(gradient, [1, 0, 0, 0, 0, 0, 1, 0, 0]);
});

Deno.test("addFeature() refuses coordinates that are not there", () => {
  assertThrows(() => addFeature([3], 3, "exceed"), RangeError, "has 3, 0 to 2");
});

Deno.test("optimizeInput() stops each image where its feature leads", async () => {
  const spec = {
    architecture: "resnet10",
    form: "cifar",
    width: 2,
    classes: 10,
    mean: [0.5, 0.5, 0.5],
    std: [0.25, 0.25, 0.25],
  } as const;
  const random = new Random(1);
  const network = new Network(spec, initializeModel(spec, random));
  const images = random.uniformTensor([4, 3, 32, 32]);
  const { representation } = await network.predict(images);
  // The first image leads already; the others are second in theirs.
  const coordinates = [0, 1, 2, 3].map((i) => {
    const row = Array.from(rows(representation, i, i + 1).data);
    const sorted = row.toSorted((a, b) => b - a);
    return row.indexOf(sorted[i === 0 ? 0 : 1]);
  });
  let last = 0;
  const result = await optimizeInput(network, images, {
    objective: addFeature(coordinates, 16, "exceed"),
    direction: "maximize",
    epsilon: 1000,
    stepSize: 0.2,
    steps: 400,
    onStep: ({ step, losses }) => {
      last = step;
      return losses.data.every((lead) => lead > 0);
    },
  });
  assert(last < 400, `stopped early, after ${last} steps`);
  assert(result.losses.data.every((lead) => lead > 0));
  assertEquals(rows(result.images, 0, 1).data, rows(images, 0, 1).data);
  const { representation: after } = await network.predict(result.images);
  coordinates.forEach((coordinate, i) => {
    const row = Array.from(rows(after, i, i + 1).data);
    const others = row.filter((_, j) => j !== coordinate);
    const lead = row[coordinate] - Math.max(...others);
    assertAlmostEquals(lead, result.losses.data[i], 1e-4);
  });
  await network.release();
});
