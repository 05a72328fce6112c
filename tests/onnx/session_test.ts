import {
  assert,
  assertEquals,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import {
  conv2d,
  exp,
  grad,
  greater,
  input,
  matmul,
  mul,
  neg,
  parameter,
  Random,
  relu,
  sum,
  tensor,
} from "../../core/mod.ts";
import { chooseProvider, compile, type Provider } from "../../onnx/mod.ts";
import { evaluate } from "../_assert.ts";

const MIB = 2 ** 20;

Deno.test("Program knows its inputs, outputs and provider", async () => {
  const y = mul(input("x", [2]), parameter("w", [2]));
  const program = await compile({ y, positive: greater(y, 0) });
  try {
    assertEquals(program.provider, "cpu");
    assertEquals(program.inputs.map(({ name }) => name), ["x", "w"]);
    assertEquals(program.outputs, [
      { name: "y", dtype: "float32", shape: [2] },
      { name: "positive", dtype: "bool", shape: [2] },
    ]);
    const found = await program.run({
      x: tensor([1, -2]),
      w: tensor([3, 4]),
      ignored: tensor([0]),
    });
    assertEquals(found.y, tensor([3, -8]));
    assertEquals([...found.positive.data], [1, 0]);
  } finally {
    await program.release();
  }
});

Deno.test("Program.run() refuses feeds that do not fit", async () => {
  const program = await compile({ y: neg(input("x", [2])) });
  try {
    const wrong = [
      [{}, "nothing"],
      [{ x: tensor([1, 2, 3]) }, "float32 [3]"],
      [{ x: { dtype: "int64", shape: [2], data: new BigInt64Array(2) } }, ""],
    ] as const;
    for (const [feeds, found] of wrong) {
      const error = await assertRejects(() => program.run(feeds), TypeError);
      assertEquals(
        error.message,
        `Cannot feed "x": need float32 [2], found ${found || "int64 [2]"}`,
      );
    }
    const error = await assertRejects(
      () => program.run({ x: tensor([1, 2]) }, { y: tensor([1]) }),
      TypeError,
    );
    assertEquals(
      error.message,
      'Cannot write "y": need float32 [2], found float32 [1]',
    );
  } finally {
    await program.release();
  }
});

Deno.test("Program.run() writes into tensors it is given", async () => {
  const x = input("x", [3]);
  const program = await compile({ y: exp(x), z: greater(x, 0) });
  try {
    const into = program.allocateOutputs();
    const first = await program.run({ x: tensor([0, 1, -1]) }, into);
    assertStrictEquals(first.y, into.y);
    assertEquals(into.y.data[0], 1);
    assertEquals([...into.z.data], [0, 1, 0]);
    await program.run({ x: tensor([0, -1, 1]) }, into);
    assertEquals([...into.z.data], [0, 0, 1]);
    const { y } = into;
    const partly = await program.run({ x: tensor([0, 0, 0]) }, { y });
    assertEquals([...y.data], [1, 1, 1]);
    assertEquals([...partly.z.data], [0, 0, 0]);
    assertEquals([...into.z.data], [0, 0, 1]);
  } finally {
    await program.release();
  }
});

Deno.test("Program.run() gives new tensors at each run otherwise", async () => {
  const program = await compile({ y: neg(input("x", [1])) });
  try {
    const first = await program.run({ x: tensor([1]) });
    await program.run({ x: tensor([2]) });
    assertEquals(first.y.data[0], -1);
  } finally {
    await program.release();
  }
});

Deno.test("Program cannot run after release()", async () => {
  const program = await compile({ y: neg(input("x", [1])) });
  await program.release();
  await assertRejects(() => program.run({ x: tensor([1]) }), Error);
});

Deno.test("compile() gives the same bits for the same seed and threads", async () => {
  const x = input("x", [4, 8, 16, 16]);
  const w = input("w", [16, 8, 3, 3]);
  const y = relu(conv2d(x, w, { padding: 1 }));
  const [gx, gw] = grad(y, [x, w]);
  const run = (threads: number) => {
    const random = new Random(0);
    const feeds = { x: random.normal(x.shape), w: random.normal(w.shape) };
    return evaluate({ y, gx, gw }, feeds, { threads });
  };
  for (const threads of [1, 2]) {
    const [first, second] = [await run(threads), await run(threads)];
    for (const name of ["y", "gx", "gw"]) {
      assertEquals(first[name].data, second[name].data, `${name} ${threads}`);
    }
  }
});

Deno.test("noFallback does not hinder the CPU itself", async () => {
  const { y } = await evaluate({ y: neg(input("x", [1])) }, {
    x: tensor([1]),
  }, { noFallback: true });
  assertEquals(y.data[0], -1);
});

Deno.test("compile() refuses a provider it does not know", async () => {
  const error = await assertRejects(
    () =>
      compile({ y: neg(input("x", [1])) }, {
        provider: "tpu" as unknown as Provider,
      }),
    Error,
    "Cannot run on tpu",
  );
  assert(!error.message.includes("\n"));
});

const hasCudaLibrary = (await chooseProvider("auto")).provider === "cuda";

Deno.test({
  name: "cuda asked for without its library says what is missing",
  ignore: hasCudaLibrary,
  async fn() {
    const before = Deno.env.get("NVIDIA_TF32_OVERRIDE");
    try {
      const error = await assertRejects(
        () => chooseProvider("cuda"),
        Error,
        "Cannot run on cuda: ONNX Runtime could not load its CUDA provider",
      );
      assert(error.message.includes("docs/devices.md"));
      assert(!error.message.includes("\n"));
    } finally {
      if (before === undefined) Deno.env.delete("NVIDIA_TF32_OVERRIDE");
      else Deno.env.set("NVIDIA_TF32_OVERRIDE", before);
    }
  },
});

Deno.test("webgpu asked for without an adapter says so", async () => {
  // A process of its own: the Vulkan loader reads its environment once.
  const code = `
    import { chooseProvider } from "./onnx/mod.ts";
    try {
      console.log((await chooseProvider("webgpu")).provider);
    } catch (error) {
      console.log(error.message);
    }`;
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--frozen=false", code],
    cwd: new URL("../../", import.meta.url),
    env: { VK_ICD_FILENAMES: "/nonexistent.json", VK_DRIVER_FILES: "" },
  }).output();
  const text = new TextDecoder().decode(stdout).trim();
  if (Deno.build.os === "linux") {
    assert(
      text.startsWith("Cannot run on webgpu: no WebGPU adapter could run"),
      text,
    );
    assert(text.includes("--device cpu") && !text.includes("\n"), text);
  }
});

Deno.test("chooseProvider() names its reason", async () => {
  assertEquals(await chooseProvider("cpu"), {
    provider: "cpu",
    reason: "asked for",
  });
  const { provider, reason } = await chooseProvider("auto");
  assert(["cpu", "webgpu", "cuda"].includes(provider));
  assert(reason.length > 0);
});

/** Growth of the process over a repeated action, after as much warm-up. */
async function growth(
  times: number,
  action: () => Promise<unknown>,
): Promise<number> {
  for (let i = 0; i < times; i++) await action();
  const before = Deno.memoryUsage().rss;
  for (let i = 0; i < times; i++) await action();
  return (Deno.memoryUsage().rss - before) / MIB;
}

Deno.test("Program.run() does not leak over 1,000 runs", async () => {
  const x = input("x", [64, 64]);
  const program = await compile({ y: sum(matmul(x, x), [1]) }, { threads: 1 });
  try {
    const feeds = { x: new Random(0).normal([64, 64]) };
    const grown = await growth(1000, () => program.run(feeds));
    // Feeds alone are 16 MiB over 1,000 runs.
    assert(grown < 8, `Expected less than 8 MiB more, found ${grown}`);
  } finally {
    await program.release();
  }
});

Deno.test("compile() and release() do not leak over 400 times", async () => {
  const w = new Random(0).normal([256, 256]);
  const y = matmul(input("x", [8, 256]), parameter("w", [256, 256]));
  const grown = await growth(400, async () => {
    const program = await compile({ y }, { threads: 1, constants: { w } });
    await program.release();
  });
  // The weights alone are 100 MiB over 400 times.
  assert(grown < 16, `Expected less than 16 MiB more, found ${grown}`);
});
