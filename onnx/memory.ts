/**
 * Memory that ONNX Runtime reads and writes in place.
 *
 * @module
 */
import {
  allocate,
  type AnyTensor,
  sizeOf,
  type Tensor,
  tensor,
} from "../core/mod.ts";
import type { ValueInfo } from "./export.ts";

/** Bytes in a line of cache, and in the widest vector register. */
const LINE = 64;

/**
 * Bytes that begin with a line of cache, where the host tells addresses.
 * Elsewhere vectors of weights lie across two lines, which makes the CPU
 * provider's convolutions a fifth slower.
 */
function allocateBytes(length: number): Uint8Array<ArrayBuffer> {
  const memory = new Uint8Array(length + LINE);
  const start = (LINE - addressOf(memory) % LINE) % LINE;
  return memory.subarray(start, start + length);
}

/** Place in memory, or 0 if that is not to be known. */
function addressOf(bytes: Uint8Array<ArrayBuffer>): number {
  if (!("Deno" in globalThis)) return 0;
  try {
    const pointer = Deno.UnsafePointer.of(bytes);
    return Number(Deno.UnsafePointer.value(pointer));
  } catch {
    // Without the permission to call native code.
    return 0;
  }
}

/** Size of a float32 value in memory, to the end of its last line. */
function spaceOf({ shape }: ValueInfo): number {
  const bytes = Float32Array.BYTES_PER_ELEMENT * sizeOf(shape);
  return Math.ceil(bytes / LINE) * LINE;
}

/**
 * Tensors that programs write into, to be used again and again.
 *
 * @param infos Their names, element types and shapes
 * @returns Tensors by name
 */
export function allocateTensors(
  infos: readonly ValueInfo[],
): Record<string, AnyTensor> {
  const floats = infos.filter(({ dtype }) => dtype === "float32");
  const others = infos.filter(({ dtype }) => dtype !== "float32");
  return {
    ...allocateOverlaid(floats)[0],
    ...Object.fromEntries(others.map(({ name, dtype, shape }) => [
      name,
      { dtype, shape, data: allocate(dtype, sizeOf(shape)) } as AnyTensor,
    ])),
  };
}

/**
 * Frees a tensor's memory at once, with that of all that share it: what a
 * collection of garbage would free later adds up to networks.
 */
export function freeTensor({ data: { buffer } }: AnyTensor): void {
  if (buffer instanceof ArrayBuffer && !buffer.detached) buffer.transfer(0);
}

/**
 * Tensors in groups that share one memory: writing to one group spoils the
 * others.
 *
 * @param groups Names and shapes of float32 values
 * @returns Tensors by name, one record per group
 */
export function allocateOverlaid(
  ...groups: readonly (readonly ValueInfo[])[]
): Record<string, Tensor>[] {
  const sizes = groups.map((infos) =>
    infos.reduce((total, info) => total + spaceOf(info), 0)
  );
  const memory = allocateBytes(Math.max(...sizes));
  return groups.map((infos) => {
    let offset = memory.byteOffset;
    return Object.fromEntries(infos.map((info) => {
      const { name, shape } = info;
      const data = new Float32Array(memory.buffer, offset, sizeOf(shape));
      offset += spaceOf(info);
      return [name, tensor(data, shape)];
    }));
  });
}
