/**
 * Every op of core/ops on the WebGPU provider against the CPU provider, with
 * no node left to the CPU.
 *
 * Needs an adapter. Debian's chromium brings a software one, slow but correct:
 * `VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json deno test -A
 * tests/onnx/webgpu_test.ts`. Set before the process starts: the Vulkan loader
 * does not see what Deno sets later.
 *
 * @module
 */
import { assert, assertRejects } from "@std/assert";
import { apply, defineOp, input, tensor } from "../../core/mod.ts";
import { compile } from "../../onnx/mod.ts";
import { assertAllClose, evaluate } from "../_assert.ts";
import { assertPlain } from "../_plain.ts";
import { TILED_CASES, tiledCase } from "./_tiled.ts";
import { OP_CASES, valueAndGradient } from "../core/_ops.ts";

/** Rows that the WebGPU provider cannot run, with the reason. */
const NOT_ON_WEBGPU: Readonly<Record<string, string>> = {
  "toFloat() of integers": "its Cast does not read int64",
};

const ignore = !hasAdapter();

/** Whether the Vulkan loader was pointed to a driver that is there. */
function hasAdapter(): boolean {
  const driver = Deno.env.get("VK_ICD_FILENAMES");
  try {
    if (driver && Deno.statSync(driver).isFile) return true;
  } catch {
    // Named, yet missing: as if it were not named.
  }
  console.log(
    "WebGPU tests are ignored: set VK_ICD_FILENAMES to a Vulkan driver's " +
      "file, such as /usr/lib/chromium/vk_swiftshader_icd.json",
  );
  return false;
}

for (const opCase of OP_CASES) {
  const { op, about } = opCase;
  const row = `${op}() ${about}`;
  Deno.test({
    name: `${row} is the same on webgpu`,
    ignore: ignore || row in NOT_ON_WEBGPU,
    async fn() {
      const { outputs, feeds } = valueAndGradient(opCase, 0);
      const expected = await evaluate(outputs, feeds);
      const found = await evaluate(outputs, feeds, {
        provider: "webgpu",
        noFallback: true,
      });
      for (const [name, value] of Object.entries(expected)) {
        assertAllClose(found[name], value, {
          tolerance: 1e-4,
          name: `${op} ${name}`,
        });
      }
    },
  });
}

for (const each of TILED_CASES.filter(({ isSlow }) => !isSlow)) {
  const { name, outputs, feeds } = tiledCase(each);
  Deno.test({
    name: `a convolution of ${name}, is the same on webgpu`,
    ignore,
    async fn() {
      const found = await evaluate(outputs, feeds, {
        provider: "webgpu",
        noFallback: true,
        constants: { w: feeds.w },
      });
      await assertPlain(found, outputs, feeds, 1e-5);
    },
  });
}

for (const [row, reason] of Object.entries(NOT_ON_WEBGPU)) {
  Deno.test({
    name: `${row} is still refused by webgpu: ${reason}`,
    ignore,
    async fn() {
      const opCase = OP_CASES.find(({ op, about }) =>
        `${op}() ${about}` === row
      );
      assert(opCase, `Take ${row} off the list: there is no such row`);
      const { outputs } = valueAndGradient(opCase, 0);
      await assertRejects(
        () => compile(outputs, { provider: "webgpu", noFallback: true }),
        Error,
        "Cannot run on webgpu",
      );
    },
  });
}

const Det = defineOp({ type: "Det", shape: () => [] });

Deno.test({
  name: "noFallback refuses an op that webgpu cannot run",
  ignore,
  async fn() {
    const y = apply(Det, [input("x", [2, 2])]);
    const feeds = { x: tensor([1, 2, 3, 4], [2, 2]) };
    const { y: onCpu } = await evaluate({ y }, feeds, { provider: "webgpu" });
    assertAllClose(onCpu, tensor([-2], []), { tolerance: 1e-6 });
    await assertRejects(
      () => compile({ y }, { provider: "webgpu", noFallback: true }),
      Error,
      "Cannot run on webgpu",
    );
  },
});
