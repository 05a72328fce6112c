import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import {
  allocate,
  full,
  rows,
  sizeOf,
  stack,
  tensor,
  tensorOf,
} from "../../core/mod.ts";
import {
  broadcast,
  broadcastAxes,
  checkAxes,
  reducedShape,
} from "../../core/shape.ts";

Deno.test("tensor() copies numbers and keeps a Float32Array", () => {
  const data = Float32Array.of(1, 2);
  assertStrictEquals(tensor(data).data, data);
  assertEquals(tensor([1, 2, 3, 4], [2, 2]), {
    dtype: "float32",
    shape: [2, 2],
    data: Float32Array.of(1, 2, 3, 4),
  });
  assertEquals(tensor([1, 2]).shape, [2]);
  assertEquals(tensor([5], []).shape, []);
});

Deno.test("tensor() refuses data that does not fit", () => {
  assertEquals(
    assertThrows(() => tensor([1, 2, 3], [2, 2]), TypeError).message,
    "Cannot make a tensor of shape [2,2] from 3 elements: it holds 4",
  );
  for (const size of [-1, 0.5, NaN]) {
    assertEquals(
      assertThrows(() => tensor([1], [size]), TypeError).message,
      `Cannot make a tensor of shape [${size}]: sizes must be integers >= 0`,
    );
  }
});

Deno.test("tensorOf() keeps the array and copies the shape", () => {
  const shape = [2];
  const data = BigInt64Array.of(1n, 2n);
  const value = tensorOf("int64", data, shape);
  shape[0] = 9;
  assertStrictEquals(value.data, data);
  assertEquals(value.shape, [2]);
});

Deno.test("full() and sizeOf() handle scalars and empty axes", () => {
  assertEquals(full([2, 1], 3).data, Float32Array.of(3, 3));
  assertEquals(full([], 3).data, Float32Array.of(3));
  assertEquals(full([2, 0], 3).data.length, 0);
  assertEquals(sizeOf([]), 1);
});

Deno.test("allocate() makes the array of each dtype", () => {
  assertEquals(allocate("float32", 2), new Float32Array(2));
  assertEquals(allocate("int64", 2), new BigInt64Array(2));
  assertEquals(allocate("uint8", 2), new Uint8Array(2));
  assertEquals(allocate("bool", 2), new Uint8Array(2));
});

Deno.test("rows() shares memory", () => {
  const value = tensor([1, 2, 3, 4, 5, 6], [3, 2]);
  const part = rows(value, 1, 3);
  assertEquals([part.shape, [...part.data]], [[2, 2], [3, 4, 5, 6]]);
  part.data[0] = 9;
  assertEquals(value.data[2], 9);
  assertEquals(rows(value, 3, 3).shape, [0, 2]);
});

Deno.test("rows() refuses rows outside the tensor", () => {
  const value = tensor([1, 2, 3, 4, 5, 6], [3, 2]);
  for (const [start, end] of [[-1, 2], [2, 1], [0, 4]]) {
    assertEquals(
      assertThrows(() => rows(value, start, end), RangeError).message,
      `Cannot take rows ${start} to ${end} of a tensor of shape [3,2]`,
    );
  }
});

Deno.test("stack() joins along a new first axis", () => {
  const value = stack([tensor([1, 2]), tensor([3, 4]), tensor([5, 6])]);
  assertEquals([value.shape, [...value.data]], [[3, 2], [1, 2, 3, 4, 5, 6]]);
});

Deno.test("stack() refuses nothing and unequal shapes", () => {
  assertEquals(
    assertThrows(() => stack([]), TypeError).message,
    "Cannot stack tensors of shapes (none): give at least one, all of one shape",
  );
  assertEquals(
    assertThrows(() => stack([tensor([1]), tensor([1, 2])]), TypeError).message,
    "Cannot stack tensors of shapes [1], [2]: give at least one, all of one " +
      "shape",
  );
});

Deno.test("broadcast() follows numpy's rule", () => {
  assertEquals(broadcast([2, 1, 3], [4, 1]), [2, 4, 3]);
  assertEquals(broadcast([], [2]), [2]);
  assertEquals(broadcast([1], [0]), [0]);
  assertEquals(
    assertThrows(() => broadcast([2, 3], [2, 4]), TypeError).message,
    "Cannot broadcast [2, 3] with [2, 4]: sizes of an axis must be equal or 1",
  );
});

Deno.test("broadcastAxes() names the stretched axes", () => {
  assertEquals(broadcastAxes([1, 3], [2, 2, 3]), [0, 1]);
  assertEquals(broadcastAxes([1], [1]), []);
  assertEquals(broadcastAxes([], [1, 2]), [0, 1]);
});

Deno.test("checkAxes() counts negative axes from the end", () => {
  assertEquals(checkAxes([-1, 0], 3), [2, 0]);
  for (const axis of [2, -3, 0.5]) {
    assertEquals(
      assertThrows(() => checkAxes([axis], 2), RangeError).message,
      `Cannot use axis ${axis}: the tensor has 2 axes`,
    );
  }
  assertEquals(
    assertThrows(() => checkAxes([0, -2], 2), RangeError).message,
    "Cannot use axes [0, -2]: one is named twice",
  );
});

Deno.test("reducedShape() drops axes or keeps them with size 1", () => {
  assertEquals(reducedShape([2, 3, 4], [0, 2], false), [3]);
  assertEquals(reducedShape([2, 3, 4], [0, 2], true), [1, 3, 1]);
});
