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
  /** Whether the convolution is left, and how its weights' gradient is made. */
  readonly convolution: "Conv" | "whole" | "separate" | "columns";
  readonly weights: "at once" | "per image";
  readonly kernel: number;
  readonly stride: number;
  readonly padding: number;
  /** Much work for a software adapter, and of a way that another case takes. */
  readonly isSlow: boolean;
}

/** A case: by default 3 x 3 without a stride, as many zeros as keep the size. */
function row(
  images: number,
  channels: TiledCase["channels"],
  size: TiledCase["size"],
  convolution: TiledCase["convolution"],
  weights: TiledCase["weights"],
  rest: Partial<TiledCase> = {},
): TiledCase {
  const { kernel = 3 } = rest;
  const usual = { kernel, stride: 1, padding: kernel >> 1, isSlow: false };
  return { images, channels, size, convolution, weights, ...usual, ...rest };
}

/** Shapes of every choice. */
export const TILED_CASES: readonly TiledCase[] = [
  row(16, [512, 512], [4, 4], "whole", "at once", { isSlow: true }),
  row(8, [256, 256], [8, 8], "whole", "at once", { isSlow: true }),
  row(4, [512, 512], [7, 6], "whole", "at once"),
  row(32, [256, 512], [8, 8], "columns", "at once", { stride: 2 }),
  row(32, [128, 128], [16, 15], "separate", "per image"),
  row(8, [64, 64], [32, 32], "Conv", "per image"),
  row(4, [3, 16], [33, 31], "Conv", "per image", { kernel: 7, stride: 2 }),
  row(4, [64, 128], [15, 16], "Conv", "per image", { kernel: 1, stride: 2 }),
  row(1, [512, 256], [4, 2], "Conv", "at once"),
  row(2, [512, 512], [2, 2], "Conv", "at once", { kernel: 1, padding: 1 }),
  row(50, [5, 6], [9, 8], "Conv", "per image", { padding: 0 }),
  row(64, [16, 8], [9, 7], "Conv", "per image", { kernel: 1 }),
];

/** Name, nodes and values of a case; `w` is a parameter. */
export function tiledCase(
  { images: n, channels: [c, k], size, kernel, stride, padding }: TiledCase,
): {
  readonly name: string;
  readonly outputs: Readonly<Record<"y" | "gx" | "gw", Node>>;
  readonly feeds: Readonly<Record<string, Tensor>>;
} {
  const x = input("x", [n, c, ...size]);
  const w = parameter("w", [k, c, kernel, kernel]);
  const bias = input("bias", [k]);
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
