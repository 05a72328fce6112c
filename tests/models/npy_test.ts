import { assertEquals, assertThrows } from "@std/assert";
import { type AnyTensor, tensor, tensorOf } from "../../core/mod.ts";
import { encodeNpy } from "../../models/mod.ts";

/** Header that `numpy.save()` writes for a shape. */
function headerOf(descr: string, shape: string): string {
  const fields = `{'descr': '${descr}', 'fortran_order': False, ` +
    `'shape': ${shape}, }`;
  return `${fields.padEnd(117)}\n`;
}

const CASES: readonly (readonly [string, AnyTensor, string, string])[] = [
  ["a scalar", tensor([5], []), "<f4", "()"],
  ["a vector", tensor([1, 2, 3]), "<f4", "(3,)"],
  ["a matrix", tensor([1, 2, 3, 4, 5, 6], [2, 3]), "<f4", "(2, 3)"],
  ["nothing", tensor([], [0, 3]), "<f4", "(0, 3)"],
  ["int64", tensorOf("int64", BigInt64Array.of(-1n, 2n), [2]), "<i8", "(2,)"],
  ["bool", tensorOf("bool", Uint8Array.of(1, 0), [1, 2]), "|b1", "(1, 2)"],
  ["bytes", tensorOf("uint8", Uint8Array.of(7), [1]), "|u1", "(1,)"],
];

for (const [name, value, descr, shape] of CASES) {
  Deno.test(`encodeNpy() writes ${name} as numpy.save() does`, () => {
    const bytes = encodeNpy(value);
    assertEquals([...bytes.subarray(0, 10)], [
      ...[0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 118, 0],
    ]);
    const header = new TextDecoder().decode(bytes.subarray(10, 128));
    assertEquals(header, headerOf(descr, shape));
    const { buffer, byteOffset, byteLength } = value.data;
    assertEquals(
      bytes.subarray(128),
      new Uint8Array(buffer.slice(byteOffset, byteOffset + byteLength)),
    );
  });
}

Deno.test("encodeNpy() takes views and refuses what does not fit", () => {
  const data = Float32Array.of(9, 1, 2).subarray(1);
  const bytes = encodeNpy(tensor(data));
  assertEquals([...new Float32Array(bytes.slice(128).buffer)], [1, 2]);
  assertThrows(
    () => encodeNpy({ dtype: "float32", data, shape: [3] }),
    TypeError,
    "Cannot write 2 elements as shape [3]: it holds 3",
  );
});
