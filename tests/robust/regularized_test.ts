import { assert, assertAlmostEquals, assertThrows } from "@std/assert";
import { input, Random, type Tensor, tensor } from "../../core/mod.ts";
import { initializeModel } from "../../models/mod.ts";
import { compile } from "../../onnx/mod.ts";
import { Network } from "../../robust/network.ts";
import { coordinateObjective } from "../../robust/objectives.ts";
import { optimizeInput } from "../../robust/pgd.ts";
import { fourierBasis, randomAffine } from "../../robust/regularized.ts";
import { assertAllClose } from "../_assert.ts";

const SPEC = {
  architecture: "resnet10",
  form: "cifar",
  width: 2,
  classes: 10,
  mean: [0.5, 0.5, 0.5],
  std: [0.25, 0.25, 0.25],
} as const;

Deno.test("fourierBasis() decodes as NumPy's irfft2 does", async () => {
  const { decode, shape } = fourierBasis(8, 8);
  const z = shape(1);
  const program = await compile({ images: decode(input("z", z)) });
  const size = z.reduce((product, x) => product * x);
  const values = Array.from(
    { length: size },
    (_, i) => 0.05 * Math.sin(1.3 * i),
  );
  const { images } = await program.run({ z: tensor(values, z) });
  await program.release();
  // numpy.fft.irfft2(S / max(f, 1/8) * 8) / 4, the colour matrix, sigmoid; at
  // the pixels 0, 1, 9, 27 and 63 of each channel. NumPy 1.24.
  const wanted = [
    ...[0.501116, 0.509125, 0.488265, 0.497478, 0.507833],
    ...[0.501486, 0.511071, 0.485477, 0.497081, 0.508994],
    ...[0.501133, 0.517762, 0.479406, 0.493974, 0.519272],
  ];
  const found = [0, 1, 2].flatMap((channel) =>
    [0, 1, 9, 27, 63].map((pixel) =>
      (images as Tensor).data[64 * channel + pixel]
    )
  );
  assertAllClose(tensor(found, [15]), tensor(wanted, [15]), {
    tolerance: 1e-5,
  });
  assertThrows(() => fourierBasis(8, 7), RangeError, "even width");
});

Deno.test("randomAffine() of range 0 changes nothing, and repeats itself", async () => {
  const none = randomAffine({ shift: 0, degrees: 0, scale: 0 });
  const some = randomAffine({ shift: 0.1, degrees: 10, scale: 0.1 });
  const x = new Random(0).uniformTensor([2, 3, 9, 9]);
  const program = await compile({
    images: none.apply(input("x", x.shape), input("changes", [2, 2, 3])),
  });
  const run = async (changes: Tensor) =>
    (await program.run({ x, changes })).images as Tensor;
  assertAllClose(await run(none.draw(2, new Random(1))), x, {
    tolerance: 1e-5,
  });
  const drawn = some.draw(2, new Random(1));
  assertAllClose(drawn, some.draw(2, new Random(1)), { tolerance: 0 });
  const { data } = await run(drawn);
  assert(data.some((value, i) => Math.abs(value - x.data[i]) > 0.05));
  await program.release();
});

Deno.test("randomAffine() shifts by a fraction of the side", async () => {
  const { apply } = randomAffine({ shift: 1, degrees: 0, scale: 0 });
  const x = tensor([1, 2, 3, 4, 5, 6, 7, 8].flatMap((v) => [v, v, v]), [
    1,
    3,
    2,
    4,
  ]);
  const program = await compile({
    images: apply(input("x", x.shape), input("changes", [1, 2, 3])),
  });
  // A quarter of the width is one pixel: each takes its right neighbour's.
  const changes = tensor([1, 0, 0.5, 0, 1, 0], [1, 2, 3]);
  const { data } = (await program.run({ x, changes })).images as Tensor;
  await program.release();
  for (let row = 0; row < 6; row++) {
    for (let column = 0; column < 3; column++) {
      const at = 4 * row + column;
      assertAlmostEquals(data[at], x.data[at + 1], 1e-5);
    }
  }
});

Deno.test("optimizeInput() raises a coordinate through frequencies and changes", async () => {
  const random = new Random(3);
  const network = new Network(SPEC, initializeModel(SPEC, random));
  const parameterization = fourierBasis(32, 32);
  const noise = random.stream("z").normal(parameterization.shape(3));
  const z = tensor(noise.data.map((x) => 0.01 * x), noise.shape);
  const seen: number[] = [];
  const run = async (steps: number) =>
    await optimizeInput(network, z, {
      objective: coordinateObjective([0, 1, 2], 16),
      direction: "maximize",
      epsilon: 1000,
      stepSize: 0.5,
      steps,
      batchSize: 2,
      parameterization,
      transform: randomAffine({ shift: 0.05, degrees: 10, scale: 0.1 }),
      transformRandom: new Random(5),
      onStep: ({ images }) => {
        seen.push(images.shape[3]);
      },
    });
  const before = await run(0);
  const after = await run(30);
  assert(seen.every((width) => width === 32), "onStep() receives images");
  assert(after.images.shape.join() === "3,3,32,32");
  assert(after.images.data.every((x) => x >= 0 && x <= 1));
  after.losses.data.forEach((value, i) =>
    assert(value > before.losses.data[i])
  );
  const again = await run(30);
  assertAllClose(again.images, after.images, { tolerance: 0 });
  await network.release();
});
