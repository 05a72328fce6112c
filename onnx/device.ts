/**
 * Tensors in the memory of a device.
 *
 * @module
 */
import {
  type NamedTensors,
  type Shape,
  show,
  type Tensor,
} from "../core/mod.ts";

/**
 * Whether tensors can stay in a provider's own memory between runs. CUDA's
 * cannot: onnxruntime-node knows the memory of WebGPU alone.
 */
export function hasOwnMemory(provider: string): boolean {
  return provider === "webgpu";
}

/**
 * A float32 tensor in a provider's memory: programs of that provider read it,
 * and a `DeviceReader` copies it.
 */
export class DeviceTensor implements Tensor {
  readonly dtype = "float32";
  readonly shape: Shape;
  /** @ignore For Program. */
  readonly held: { dispose(): void };

  /** @ignore Programs make it. */
  constructor(held: { dispose(): void }, shape: Shape) {
    this.held = held;
    this.shape = shape;
  }

  /**
   * Its elements are elsewhere.
   *
   * @throws {TypeError} Always
   */
  get data(): never {
    throw new TypeError(
      `Cannot read a tensor ${show(this.shape)} in the memory of a device: ` +
        `copy it with a DeviceReader`,
    );
  }

  /** Frees its memory: no program can read it afterwards. */
  release(): void {
    this.held.dispose();
  }
}

/** Frees the tensors among these that are in a device's memory. */
export function releaseDevice(tensors: NamedTensors): void {
  for (const value of Object.values(tensors)) {
    if (value instanceof DeviceTensor) value.release();
  }
}
