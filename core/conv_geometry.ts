/**
 * Geometry of convolutions.
 *
 * @module
 */
import type { Attributes } from "./graph.ts";

/** Geometry of a convolution, the same along rows and columns, in pixels. */
export interface ConvGeometry {
  /** Side of the kernel. */
  readonly kernel: number;
  /** Distance between positions. */
  readonly stride: number;
  /** Zeros on every side. */
  readonly padding: number;
}

/** Reads the geometry from the attributes of a Conv or ConvTranspose. */
export function convGeometry(attributes: Attributes): ConvGeometry {
  const first = (name: string) =>
    (attributes[name] as { ints: readonly number[] }).ints[0];
  return {
    kernel: first("kernel_shape"),
    stride: first("strides"),
    padding: first("pads"),
  };
}
