/**
 * SGD with momentum against PyTorch.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { input, tensor } from "../../core/mod.ts";
import { compile } from "../../onnx/mod.ts";
import { sgd } from "../../robust/sgd.ts";
import { assertAllClose, evaluate } from "../_assert.ts";
import { readTensors } from "../_fixtures.ts";
import { floats, rowOf } from "../models/_fixture_network.ts";

Deno.test("sgd() takes PyTorch's three steps", async () => {
  const tensors = await readTensors("ops");
  const name = "sgd_3_steps";
  const start = floats(tensors, `${name}/in/p`);
  const gradients = floats(tensors, `${name}/in/grads`);
  const parameter = input("parameter", start.shape);
  const update = sgd(
    parameter,
    input("gradient", start.shape),
    input("velocity", start.shape),
    input("learningRate", []),
    { momentum: 0.9, weightDecay: 5e-4 },
  );
  const program = await compile({
    nextParameter: update.parameter,
    nextVelocity: update.velocity,
  }, { threads: 1 });
  let values = {
    parameter: start,
    velocity: tensor(start.data.map(() => 0), start.shape),
  };
  for (const step of [1, 2, 3]) {
    const found = await program.run({
      ...values,
      gradient: rowOf(gradients, step - 1),
      learningRate: tensor([0.1], []),
    });
    values = {
      parameter: floats(found, "nextParameter"),
      velocity: floats(found, "nextVelocity"),
    };
    assertAllClose(values.parameter, tensors[`${name}/out/p${step}`], {
      tolerance: 1e-5,
      name: `parameter after step ${step}`,
    });
  }
  const velocity = tensors[`${name}/out/momentum_buffer`];
  assertAllClose(values.velocity, velocity, { tolerance: 1e-5 });
  await program.release();
});

Deno.test("sgd() decays without a gradient and stands still at rate 0", async () => {
  const [p, g, v] = ["p", "g", "v"].map((name) => input(name, [1]));
  const rate = input("rate", []);
  const settings = { momentum: 0.5, weightDecay: 0.25 };
  const update = sgd(p, g, v, rate, settings);
  const feeds = { p: tensor([2]), g: tensor([0]), v: tensor([1]) };
  const run = (value: number) =>
    evaluate({ ...update }, { ...feeds, rate: tensor([value], []) });
  // v = 0.5 * 1 + 0.25 * 2 = 1, p = 2 - rate * v
  const decayed = await run(0.5);
  assertEquals([...decayed.velocity.data], [1]);
  assertEquals([...decayed.parameter.data], [1.5]);
  const still = await run(0);
  assertEquals([...still.parameter.data], [2]);
});
