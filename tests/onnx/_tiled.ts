/**
 * Convolutions that the WebGPU provider is given in other formulations.
 *
 * @module
 */
import {
  conv2d,
  grad,
  input,
  mul,
  type Node,
  parameter,
  Random,
  sum,
  type Tensor,
} from "../../core/mod.ts";

/** A convolution and how it is to be computed. */
export interface TiledCase {
  readonly images: number;
  readonly channels: readonly [number, number];
  readonly size: readonly [number, number];
  readonly kernel?: number;
  readonly stride?: number;
  /** Default: as many zeros as keep the size. */
  readonly padding?: number;
  /** Much work for a software adapter, and of a way that another case takes. */
  readonly isSlow?: boolean;
  /** Whether the convolution is left, and how its weights' gradient is made. */
  readonly expected: {
    readonly convolution: "Conv" | "whole" | "separate" | "columns";
    readonly weights: "at once" | "per image";
  };
}

/** Shapes of every choice. */
export const TILED_CASES: readonly TiledCase[] = [
  {
    images: 16,
    channels: [512, 512],
    size: [4, 4],
    isSlow: true,
    expected: { convolution: "whole", weights: "at once" },
  },
  {
    images: 8,
    channels: [256, 256],
    size: [8, 8],
    isSlow: true,
    expected: { convolution: "whole", weights: "at once" },
  },
  {
    images: 4,
    channels: [512, 512],
    size: [7, 6],
    expected: { convolution: "whole", weights: "at once" },
  },
  {
    images: 32,
    channels: [256, 512],
    size: [8, 8],
    stride: 2,
    expected: { convolution: "columns", weights: "at once" },
  },
  {
    images: 32,
    channels: [128, 128],
    size: [16, 15],
    expected: { convolution: "separate", weights: "per image" },
  },
  {
    images: 8,
    channels: [64, 64],
    size: [32, 32],
    expected: { convolution: "Conv", weights: "per image" },
  },
  {
    images: 4,
    channels: [3, 16],
    size: [33, 31],
    kernel: 7,
    stride: 2,
    expected: { convolution: "Conv", weights: "per image" },
  },
  {
    images: 4,
    channels: [64, 128],
    size: [15, 16],
    kernel: 1,
    stride: 2,
    expected: { convolution: "Conv", weights: "per image" },
  },
  {
    images: 1,
    channels: [512, 256],
    size: [4, 2],
    expected: { convolution: "Conv", weights: "at once" },
  },
  {
    images: 2,
    channels: [512, 512],
    size: [2, 2],
    kernel: 1,
    padding: 1,
    expected: { convolution: "Conv", weights: "at once" },
  },
  {
    images: 50,
    channels: [5, 6],
    size: [9, 8],
    padding: 0,
    expected: { convolution: "Conv", weights: "per image" },
  },
  {
    images: 64,
    channels: [16, 8],
    size: [9, 7],
    kernel: 1,
    expected: { convolution: "Conv", weights: "per image" },
  },
];

/** Name, nodes and values of a case; `w` is a parameter. */
export function tiledCase(
  { images: n, channels: [c, k], size, kernel = 3, stride = 1, ...rest }:
    TiledCase,
): {
  readonly name: string;
  readonly outputs: Readonly<Record<"y" | "gx" | "gw", Node>>;
  readonly feeds: Readonly<Record<string, Tensor>>;
} {
  const x = input("x", [n, c, ...size]);
  const w = parameter("w", [k, c, kernel, kernel]);
  const bias = input("bias", [k]);
  const { padding = kernel >> 1 } = rest;
  const y = conv2d(x, w, { stride, padding, bias });
  const g = input("g", y.shape);
  const [gx, gw] = grad(sum(mul(y, g)), [x, w]);
  const random = new Random(1);
  const feeds = Object.fromEntries(
    [x, w, bias, g].map(({ name, shape }) => [name, random.normal(shape)]),
  );
  const name = `${n} x ${c} x ${size.join(" x ")} to ${k} channels, ` +
    `kernel ${kernel}, stride ${stride}, padding ${padding}`;
  return { name, outputs: { y, gx, gw }, feeds };
}
