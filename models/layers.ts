/**
 * Layers of networks, and the scope that names their parameters.
 *
 * @module
 */
import {
  add,
  batchNormTrain,
  clip,
  constant,
  conv2d,
  div,
  full,
  gemm,
  mul,
  type Node,
  parameter,
  type Random,
  reshape,
  type Shape,
  sizeOf,
  sqrt,
  sub,
  type Tensor,
  tensor,
} from "../core/mod.ts";

/** Makes the initial value of a parameter. */
export type Initializer = (shape: Shape, random: Random) => Tensor;

/** A parameter of a model. */
export interface ParameterInfo {
  /** Its value in the graph. */
  readonly node: Node;
  /** Makes its initial value. */
  readonly initialize: Initializer;
  /** Whether gradient descent moves it; running statistics are not. */
  readonly trainable: boolean;
}

/** What a model's scopes collect. */
interface Collected {
  readonly parameters: Map<string, ParameterInfo>;
  readonly updates: Map<string, Node>;
}

/**
 * Names parameters by where they are in the network, as torchvision does:
 * `scope.at("layer1").at("0").parameter("weight", ...)` is "layer1.0.weight".
 */
export class Scope {
  /** Whether BatchNorm uses the statistics of the batch. */
  readonly training: boolean;
  readonly #prefix: string;
  readonly #collected: Collected;

  /**
   * @param training Whether BatchNorm uses the statistics of the batch
   * @param prefix Put before every name
   * @param collected Shared with the parent scope
   */
  constructor(
    training: boolean,
    prefix = "",
    collected: Collected = { parameters: new Map(), updates: new Map() },
  ) {
    this.training = training;
    this.#prefix = prefix;
    this.#collected = collected;
  }

  /** Parameters by full name, in order of definition. */
  get parameters(): ReadonlyMap<string, ParameterInfo> {
    return this.#collected.parameters;
  }

  /** New values of running statistics by full name, when training. */
  get updates(): ReadonlyMap<string, Node> {
    return this.#collected.updates;
  }

  /** Scope of a part of the network. */
  at(name: string | number): Scope {
    const prefix = `${this.#prefix}${name}.`;
    return new Scope(this.training, prefix, this.#collected);
  }

  /** A parameter of this part. */
  parameter(
    name: string,
    shape: Shape,
    initialize: Initializer,
    { trainable = true } = {},
  ): Node {
    const path = this.#prefix + name;
    const node = parameter(path, shape);
    this.#collected.parameters.set(path, { node, initialize, trainable });
    return node;
  }

  /** Declares what a parameter becomes after a training step. */
  update(name: string, value: Node): void {
    this.#collected.updates.set(this.#prefix + name, value);
  }
}

const zeros: Initializer = (shape) => full(shape, 0);
const ones: Initializer = (shape) => full(shape, 1);

/** Normal with variance 2 / fan-out (He et al. 2015), as torchvision's. */
const heNormal: Initializer = (shape, random) => {
  const deviation = Math.sqrt(2 / (shape[0] * sizeOf(shape.slice(2))));
  const values = random.normal(shape);
  const { data } = values;
  // Millions of them: map() with a closure takes ten times as long.
  for (let i = 0; i < data.length; i++) data[i] *= deviation;
  return values;
};

/** Uniform within 1 / sqrt(fan-in), PyTorch's default for linear layers. */
function uniformFanIn(fanIn: number): Initializer {
  const bound = 1 / Math.sqrt(fanIn);
  return (shape, random) => random.uniformTensor(shape, -bound, bound);
}

/** Mean and standard deviation of each channel of a data set. */
export interface Normalization {
  /** Per channel, in [0, 1] pixel units; subtracted. */
  readonly mean: readonly number[];
  /** Per channel, in [0, 1] pixel units; divided by. */
  readonly std: readonly number[];
}

/**
 * Clips images to [0, 1] and normalises their channels. The gradient passes
 * at exactly 0 and 1, as in the reference code.
 *
 * @param images `[n, 3, h, w]`
 */
export function normalize(
  images: Node,
  { mean, std }: Normalization,
): Node {
  const channels = (values: readonly number[]) =>
    constant(tensor(values, [1, values.length, 1, 1]));
  return div(sub(clip(images, 0, 1), channels(mean)), channels(std));
}

/** Geometry of a convolution layer. */
export interface ConvLayerOptions {
  /** Height and width of the kernel. */
  readonly kernel: number;
  /** Distance between positions (default 1). */
  readonly stride?: number;
  /** Zeros on every side (default: keeps the size at stride 1). */
  readonly padding?: number;
}

/**
 * Convolution with bias.
 *
 * @param scope Receives "weight" and "bias"
 * @param x `[n, c, h, w]`
 * @returns `[n, outputs, h', w']`
 */
export function conv(
  scope: Scope,
  x: Node,
  outputs: number,
  options: ConvLayerOptions,
): Node {
  const { kernel, stride, padding = (kernel - 1) / 2 } = options;
  const shape = [outputs, x.shape[1], kernel, kernel];
  const weight = scope.parameter("weight", shape, heNormal);
  const bias = scope.parameter("bias", [outputs], zeros);
  return conv2d(x, weight, { stride, padding, bias });
}

const MOMENTUM = 0.1;
const EPSILON = 1e-5;

/**
 * Convolution without bias followed by BatchNorm. Outside training both are
 * one convolution: the statistics are folded into its weights.
 *
 * @param convScope Receives "weight"
 * @param normScope Receives "weight", "bias" and the running statistics
 * @param x `[n, c, h, w]`
 * @returns `[n, outputs, h', w']`
 */
export function convBatchNorm(
  convScope: Scope,
  normScope: Scope,
  x: Node,
  outputs: number,
  options: ConvLayerOptions & { readonly bias?: boolean },
): Node {
  const { kernel, stride, padding = (kernel - 1) / 2 } = options;
  const shape = [outputs, x.shape[1], kernel, kernel];
  const weight = convScope.parameter("weight", shape, heNormal);
  // VGG's convolutions keep a bias next to BatchNorm.
  const bias = options.bias
    ? convScope.parameter("bias", [outputs], zeros)
    : undefined;
  const gamma = normScope.parameter("weight", [outputs], ones);
  const beta = normScope.parameter("bias", [outputs], zeros);
  const fixed = { trainable: false };
  const mean = normScope.parameter("running_mean", [outputs], zeros, fixed);
  const variance = normScope.parameter("running_var", [outputs], ones, fixed);
  if (!normScope.training) {
    const scale = div(gamma, sqrt(add(variance, EPSILON)));
    const folded = mul(weight, reshape(scale, [outputs, 1, 1, 1]));
    const offset = bias ? sub(bias, mean) : mul(mean, -1);
    const shift = add(beta, mul(offset, scale));
    return conv2d(x, folded, { stride, padding, bias: shift });
  }
  const h = conv2d(x, weight, { stride, padding, bias });
  const norm = batchNormTrain(h, gamma, beta, EPSILON);
  const count = h.shape[0] * h.shape[2] * h.shape[3];
  const unbiased = mul(norm.variance, count / Math.max(1, count - 1));
  normScope.update("running_mean", mixed(mean, norm.mean));
  normScope.update("running_var", mixed(variance, unbiased));
  return norm.output;
}

/** Moves a running statistic towards that of the batch. */
function mixed(running: Node, batch: Node): Node {
  return add(mul(running, 1 - MOMENTUM), mul(batch, MOMENTUM));
}

/**
 * Fully connected layer.
 *
 * @param scope Receives "weight" `[outputs, inputs]` and "bias" `[outputs]`
 * @param x `[n, inputs]`
 * @returns `[n, outputs]`
 */
export function linear(scope: Scope, x: Node, outputs: number): Node {
  const inputs = x.shape[1];
  const initialize = uniformFanIn(inputs);
  const weight = scope.parameter("weight", [outputs, inputs], initialize);
  const bias = scope.parameter("bias", [outputs], initialize);
  return gemm(x, weight, { transB: true, bias });
}
