/**
 * Kernels of ONNX Runtime's CPU provider that ONNX has no operators for:
 * convolutions on activations whose channels lie in blocks (NCHWc).
 *
 * ONNX Runtime takes these by itself where weights are constants. Here they
 * are also taken where weights change from step to step, as in training: 11 ms
 * against 22 ms for 3 x 3 convolutions at 256 channels of 8 x 8, and weight
 * gradients without a copy of the input for each tap of the kernel. Where
 * weights are constants, more stays in blocks: a step of inversion of ResNet-50
 * moves a tenth of what it would between layouts.
 *
 * @module
 */
import {
  apply,
  type Attributes,
  beforeReshapes,
  constant,
  CONV_WEIGHT_GRADIENT,
  type ConvGeometry,
  convGeometry,
  defineOp,
  expandOps,
  full,
  gather,
  int64s,
  mean,
  mul,
  neg,
  type Node,
  readInt64s,
  rebuilt,
  reshape,
  sameShape,
  type Shape,
  sum,
  topologicalOrder,
  transpose,
  TRANSPOSED_KERNEL,
} from "../core/mod.ts";
import { scatteredMaxPoolGradient } from "./pooling.ts";
import {
  addPhases,
  computePhases,
  countdown,
  joinPhases,
  jointKernel,
  type Phase,
  type Phases,
  phasesOf,
} from "./phases.ts";
import {
  canLayLanes,
  weightGradientByImages,
  weightGradientByLanes,
} from "./weight_gradient.ts";
import {
  COLUMN_CONV,
  columnConv,
  SWAP,
  swapBlocks,
  useWinograd,
} from "./winograd.ts";

const DOMAIN = "com.microsoft.nchwc";

/**
 * Shapes stay `[n, c, h, w]`; in memory it is `[n, c / block, h, w, block]`.
 */
const ReorderInput = defineOp({
  type: "ReorderInput",
  domain: DOMAIN,
  shape: ([x]) => x.shape,
});

const ReorderOutput = defineOp({
  type: "ReorderOutput",
  domain: DOMAIN,
  shape: ([{ shape: [n, , ...size] }], { channels }) => [
    n,
    (channels as { int: number }).int,
    ...size,
  ],
});

const DepthToSpace = defineOp({
  type: "DepthToSpace",
  shape([{ shape: [n, c, h, w] }], { blocksize }) {
    const { int: size } = blocksize as { int: number };
    return [n, c / size ** 2, h * size, w * size];
  },
});

/**
 * Weights are `[o / b, i / b, k, k, b (i), b (o)]` in memory; without blocks
 * of inputs, `[o / b, i, k, k, b (o)]`.
 */
const BlockedConv = defineOp({
  type: "Conv",
  domain: DOMAIN,
  shape([x, w], attributes) {
    const ints = (name: string) =>
      (attributes[name] as { ints: readonly number[] }).ints;
    const size = [0, 1].map((i) => {
      const reach = (w.shape[i + 2] - 1) * ints("dilations")[i] + 1;
      const pads = ints("pads")[i] + ints("pads")[i + 2];
      const room = x.shape[i + 2] + pads - reach;
      return Math.floor(room / ints("strides")[i]) + 1;
    });
    return [x.shape[0], w.shape[0], ...size];
  },
});

/** One value per channel: its blocks lie as plain ones do. */
const BlockedGlobalAveragePool = defineOp({
  type: "GlobalAveragePool",
  domain: DOMAIN,
  shape: ([{ shape: [n, c] }]) => [n, c, 1, 1],
});

function toBlocked(x: Node): Node {
  return apply(ReorderInput, [x]);
}

/** @param channels How many to keep, the first ones */
function toPlain(x: Node, channels = x.shape[1]): Node {
  return apply(ReorderOutput, [x], { channels: { int: channels } });
}

/** Options of a convolution in blocks. */
interface BlockedOptions {
  /** Distance between positions (default 1). */
  readonly stride?: number;
  /**
   * Zeros on every side, or above and below, left and right, or each in ONNX's
   * order: above, left, below, right (default 0).
   */
  readonly padding?:
    | number
    | readonly [number, number]
    | readonly [number, number, number, number];
  /** Distance between taps, down and to the right (default 1). */
  readonly dilation?: readonly [number, number];
  /** Number of independent convolutions (default 1). */
  readonly groups?: number;
  /** Added to every channel. */
  readonly bias?: Node | null;
  /** Added to the result, in blocks. */
  readonly sum?: Node | null;
  /** Applied to the result. */
  readonly relu?: boolean;
}

function blockedConv(x: Node, w: Node, options: BlockedOptions): Node {
  const { stride = 1, padding = 0, dilation = [1, 1], groups = 1 } = options;
  const { sum, relu } = options;
  const pads = typeof padding === "number" ? [padding, padding] : padding;
  const sides = pads.length === 4 ? pads : [...pads, ...pads];
  const attributes: Attributes = {
    kernel_shape: { ints: w.shape.slice(2) },
    strides: { ints: [stride, stride] },
    pads: { ints: sides },
    dilations: { ints: dilation },
    group: { int: groups },
    ...(relu ? { activation: { string: "Relu" } } : {}),
  };
  // The sum comes after the bias, which must then be there.
  const bias = options.bias ?? (sum && constant(full([w.shape[0]], 0)));
  const inputs = [x, w, ...(bias ? [bias] : []), ...(sum ? [sum] : [])];
  return apply(BlockedConv, inputs, attributes);
}

/** Weights `[o, i, k, k]` in the order that `BlockedConv` reads. */
function packed(w: Node, block: number): Node {
  const [o, i, k] = w.shape;
  const blocked = toBlocked(reshape(w, [1, o, i * k * k, 1]));
  if (i < block) return reshape(blocked, w.shape);
  const split = reshape(blocked, [o / block, i / block, block, k * k, block]);
  return reshape(transpose(split, [0, 1, 3, 2, 4]), w.shape);
}

/**
 * `packed()` of the transposed kernel of `[o, i, k, k]`, or of some of its rows
 * and columns.
 *
 * @param rows Rows of `w`, in the result's order
 * @param columns The same of columns
 */
function packedTransposed(
  w: Node,
  block: number,
  rows: readonly number[] = countdown(w.shape[2]),
  columns: readonly number[] = countdown(w.shape[3]),
): Node {
  const [o, i, k] = w.shape;
  const blocked = toBlocked(reshape(w, [o, i, k * k, 1]));
  const split = reshape(blocked, [o / block, block, i / block, k * k, block]);
  const moved = transpose(split, [2, 0, 3, 1, 4]);
  const taps = rows.flatMap((row) => columns.map((column) => row * k + column));
  const chosen = gather(moved, int64s(taps), 2);
  return reshape(chosen, [i, o, rows.length, columns.length]);
}

/**
 * Gradient of images of a few channels: all phases are the outputs of one
 * convolution.
 *
 * @param g Gradient of the convolution's output, in blocks
 * @param w Its weights `[outputs, c, k, k]`, plain
 * @returns `[n, c, h, w]`, plain
 */
function imageGradient(
  g: Node,
  w: Node,
  phases: readonly Phase[],
  block: number,
): Node {
  const stride = phases.length;
  const used = stride ** 2 * w.shape[1];
  const outputs = Math.ceil(used / block) * block;
  const { kernel, padding: [before, after] } = jointKernel(w, phases, outputs);
  const padding = [before, before, after, after] as const;
  const found = blockedConv(g, packed(kernel, block), { padding });
  const plain = toPlain(found, used);
  return stride === 1
    ? plain
    : apply(DepthToSpace, [plain], { blocksize: { int: stride } });
}

/**
 * Takes blocked kernels for convolutions and the gradients of their weights,
 * Winograd's way where it pays, and the CPU provider's own to the gradient of
 * max pooling. Activations then stay in blocks through sums, masks, ReLUs and the
 * normalisation of channels.
 *
 * @param outputs Nodes to compute
 * @param block Channels in a block, see `probeBlock()` in session.ts
 * @param isPrepared Whether a parameter is known before the graph runs
 * @returns Equal nodes, in the same order
 */
export function useBlockedKernels(
  outputs: readonly Node[],
  block: number,
  isPrepared: (name: string) => boolean,
): Node[] {
  const options = { block, elementwise: ELEMENTWISE, isPrepared };
  return expandOps(
    new Layout(useWinograd(outputs, options), block).outputs(),
    scatteredMaxPoolGradient,
  );
}

/** Phases times channels of images whose gradient is one convolution. */
const MOST_IMAGE_OUTPUTS = 16;

/** Elementwise ops that do not care where an element lies. */
const ELEMENTWISE = new Set(["Add", "Sub", "Mul", "Relu", "HardSigmoid"]);

/** Axes along which BatchNorm reduces. */
const ALL_BUT_CHANNELS = [0, 2, 3];

/** What one run of `BlockedConv` computes: `relu(conv(x) + sum)`. */
interface Kernel {
  /** A Conv, or what scales and shifts the channels of `x`. */
  readonly linear: Linear;
  /** Added, of the result's shape. */
  readonly sum: Node | null;
  readonly relu: boolean;
  /** Nodes on the way to the result that nothing else uses. */
  readonly within: readonly Node[];
}

type Linear =
  | { readonly kind: "conv"; readonly node: Node }
  | {
    readonly kind: "channels";
    readonly x: Node;
    /** Factor of each channel, `[1, c, 1, 1]`. */
    readonly scale: Node | null;
    /** Added to each channel, `[1, c, 1, 1]` or `[c]`. */
    readonly shift: Node | null;
    readonly within: readonly Node[];
  };

/** Rebuilds a graph with each value plain, in blocks, or both. */
class Layout {
  readonly #outputs: readonly Node[];
  readonly #block: number;
  /** Nodes whose result comes in blocks. */
  readonly #native = new Set<Node>();
  readonly #plain = new Map<Node, Node>();
  readonly #blocked = new Map<Node, Node>();
  readonly #uses = new Map<Node, number>();
  /** How the last of the nodes that a kernel computes is computed. */
  readonly #kernels = new Map<Node, Kernel>();
  /** The other nodes that a kernel computes. */
  readonly #fused = new Set<Node>();
  readonly #phases = new Map<Node, Phases>();

  constructor(outputs: readonly Node[], block: number) {
    this.#outputs = outputs;
    this.#block = block;
  }

  outputs(): Node[] {
    const order = topologicalOrder(this.#outputs);
    for (const x of [...this.#outputs, ...order.flatMap((n) => n.inputs)]) {
      this.#uses.set(x, (this.#uses.get(x) ?? 0) + 1);
    }
    for (const node of order) {
      if (this.#comesInBlocks(node)) this.#native.add(node);
    }
    // The last node first: a ReLU takes in the sum before it.
    for (const node of order.toReversed()) {
      const kernel = this.#fused.has(node) ? null : this.#kernelOf(node);
      if (!kernel) continue;
      this.#kernels.set(node, kernel);
      for (const x of kernel.within) this.#fused.add(x);
    }
    for (const node of order) {
      if (!this.#fused.has(node)) this.#place(node);
    }
    return this.#outputs.map((node) => this.#asPlain(node));
  }

  #comesInBlocks(node: Node): boolean {
    return this.#isConv(node) || this.#channelsOf(node) !== null ||
      this.#isElementwise(node) || this.#phasesOf(node) !== null ||
      node.op?.type === COLUMN_CONV ||
      node.op?.type === SWAP;
  }

  /** Whether a node is a convolution that the blocked kernel takes. */
  #isConv({ op, inputs: [x, w] }: Node): boolean {
    if (op?.type !== "Conv" || op.domain) return false;
    const [outputs, inputs] = w.shape;
    const isTransposed = w.op?.type === TRANSPOSED_KERNEL;
    return outputs % this.#block === 0 && (
      inputs % this.#block === 0 || (inputs < this.#block && !isTransposed)
    ) && x.shape.length === 4;
  }

  /** Phases of a strided convolution's gradient, if it can be in blocks. */
  #phasesOf(node: Node): Phase[] | null {
    const phases = phasesOf(node);
    if (!phases || phases.length === 1) return null;
    const [outputs, c] = node.inputs[1].shape;
    const isWhole = outputs % this.#block === 0 && c % this.#block === 0;
    return isWhole ? phases : null;
  }

  /** Whether a node may be computed in blocks, and one of its inputs is. */
  #isElementwise({ op, inputs, shape }: Node): boolean {
    return op !== null && ELEMENTWISE.has(op.type) && shape.length === 4 &&
      inputs.every((x) => sameShape(x.shape, shape)) &&
      inputs.some((x) => this.#native.has(x));
  }

  /** Reads a node as scale and shift of the channels of a value in blocks. */
  #channelsOf(node: Node): Linear & { kind: "channels" } | null {
    const { op, inputs: [a, b], shape } = node;
    if (!op || op.domain || shape.length !== 4) return null;
    const isVector = (x: Node) => sameShape(x.shape, [1, shape[1], 1, 1]);
    const [x, vector] = this.#native.has(a) ? [a, b] : [b, a];
    if (!x || !this.#native.has(x) || !vector || !isVector(vector)) return null;
    const kind = "channels";
    switch (op.type) {
      case "Mul":
        return { kind, x, scale: vector, shift: null, within: [] };
      case "Add": {
        const scaled = this.#isOnlyUsedOnce(x) && x.op?.type === "Mul"
          ? this.#channelsOf(x)
          : null;
        return scaled
          ? { ...scaled, shift: vector, within: [x] }
          : { kind, x, scale: null, shift: vector, within: [] };
      }
      case "Sub":
        return x === a
          ? {
            kind,
            x,
            scale: null,
            shift: neg(reshape(vector, [shape[1]])),
            within: [],
          }
          : null;
      default:
        return null;
    }
  }

  #isOnlyUsedOnce(node: Node): boolean {
    return this.#uses.get(node) === 1;
  }

  /** Finds relu(linear + sum), of which all but the first part may lack. */
  #kernelOf(node: Node): Kernel | null {
    const relu = node.op?.type === "Relu";
    const [top] = relu ? node.inputs : [node];
    if (!this.#native.has(top)) return null;
    if (relu && !this.#isOnlyUsedOnce(top)) return null;
    const within = relu ? [top] : [];
    const linear = this.#linearOf(top);
    if (linear) {
      const inner = linear.kind === "conv" ? [] : linear.within;
      return { linear, sum: null, relu, within: [...within, ...inner] };
    }
    const { op, inputs } = top;
    const isSum = op?.type === "Add" &&
      sameShape(inputs[0].shape, inputs[1].shape);
    if (!isSum) return null;
    for (const [i, term] of inputs.entries()) {
      const linear = this.#isOnlyUsedOnce(term) ? this.#linearOf(term) : null;
      if (!linear) continue;
      const inner = linear.kind === "conv" ? [] : linear.within;
      return {
        linear,
        sum: inputs[1 - i],
        relu,
        within: [...within, term, ...inner],
      };
    }
    return null;
  }

  #linearOf(node: Node): Linear | null {
    return this.#isConv(node) ? { kind: "conv", node } : this.#channelsOf(node);
  }

  #place(node: Node): void {
    const kernel = this.#kernels.get(node);
    const phases = this.#byPhases(node);
    if (phases) {
      this.#phases.set(node, phases);
      this.#blocked.set(node, joinPhases(phases, this.#block));
    } else if (kernel) {
      this.#blocked.set(node, this.#compute(kernel));
    } else if (node.op?.type === COLUMN_CONV) {
      this.#blocked.set(node, this.#columnConv(node));
    } else if (node.op?.type === SWAP) {
      const [x] = node.inputs;
      this.#blocked.set(node, swapBlocks(this.#asBlocked(x), this.#block));
    } else if (this.#native.has(node)) {
      const inputs = node.inputs.map((x) => this.#asBlocked(x));
      this.#blocked.set(node, rebuilt(node, inputs));
    } else {
      this.#plain.set(
        node,
        this.#reduced(node) ?? this.#imageGradient(node) ??
          this.#asItIs(node),
      );
    }
  }

  /** Computes a gradient by phases, or the sum of two that nothing else uses. */
  #byPhases(node: Node): Phases | null {
    const { op, inputs } = node;
    const phases = this.#phasesOf(node);
    if (phases) {
      return computePhases(
        phases,
        (row, column) => this.#phase(node, row, column),
      );
    }
    const terms = inputs.map((x) => this.#phases.get(x));
    const [a, b] = terms;
    const isSum = op?.type === "Add" && a && b &&
      inputs.every((x) => this.#isOnlyUsedOnce(x));
    return isSum ? addPhases(a, b) : null;
  }

  #phase({ inputs: [g, w] }: Node, row: Phase, column: Phase): Node {
    const weights = packedTransposed(
      this.#asPlain(w),
      this.#block,
      row.taps,
      column.taps,
    );
    const [[above, below], [left, right]] = [row.padding, column.padding];
    const padding = [above, left, below, right] as const;
    return blockedConv(this.#asBlocked(g), weights, { padding });
  }

  #compute({ linear, sum, relu }: Kernel): Node {
    const last = { sum: sum && this.#asBlocked(sum), relu };
    if (linear.kind === "channels") {
      const { x, scale, shift } = linear;
      const [, c] = x.shape;
      const weights = scale ? this.#asPlain(scale) : constant(full([c], 1));
      return blockedConv(this.#asBlocked(x), reshape(weights, [c, 1, 1, 1]), {
        ...last,
        groups: c,
        bias: shift && reshape(this.#asPlain(shift), [c]),
      });
    }
    const { inputs: [x, w, bias], attributes } = linear.node;
    const isWhole = x.shape[1] % this.#block === 0;
    return blockedConv(
      isWhole ? this.#asBlocked(x) : this.#asPlain(x),
      this.#packed(w),
      {
        ...convGeometry(attributes),
        ...last,
        bias: bias && this.#asPlain(bias),
      },
    );
  }

  #packed(w: Node): Node {
    return w.op?.type === TRANSPOSED_KERNEL
      ? packedTransposed(this.#asPlain(w.inputs[0]), this.#block)
      : packed(this.#asPlain(w), this.#block);
  }

  #columnConv({ inputs: [x, w, bias] }: Node): Node {
    return columnConv(
      this.#asBlocked(x),
      this.#packed(w),
      bias ? this.#asPlain(bias) : null,
      { block: this.#block, conv: blockedConv },
    );
  }

  /** Computes what leaves one value per channel, or a weight gradient. */
  #reduced({ op, inputs, attributes, shape }: Node): Node | null {
    const [x, second] = inputs;
    if (op?.type === CONV_WEIGHT_GRADIENT) {
      return this.#weightGradient(x, second, convGeometry(attributes));
    }
    if (!x || !this.#native.has(x)) return null;
    const pooled = () => apply(BlockedGlobalAveragePool, [this.#asBlocked(x)]);
    const [, , h, w] = x.shape;
    if (op?.type === "GlobalAveragePool") return pooled();
    const isReduced = (axes: readonly number[]) =>
      axes.join() === ALL_BUT_CHANNELS.join();
    const keepDims = shape.length === 4;
    if (op?.type === "ReduceMean") {
      const { ints } = attributes.axes as { ints: readonly number[] };
      return isReduced(ints)
        ? mean(pooled(), ALL_BUT_CHANNELS, { keepDims })
        : null;
    }
    if (op?.type === "ReduceSum" && isReduced(readInt64s(second))) {
      return mul(sum(pooled(), ALL_BUT_CHANNELS, { keepDims }), h * w);
    }
    return null;
  }

  #weightGradient(x: Node, g: Node, geometry: ConvGeometry): Node | null {
    const block = this.#block;
    const [n, outputs] = g.shape;
    if (outputs % block !== 0) return null;
    const kernels = { block, conv: blockedConv, toBlocked, toPlain };
    if (this.#native.has(x) && canLayLanes(x.shape, g.shape, geometry, block)) {
      const [lanes, gradient] = [this.#asBlocked(x), this.#asBlocked(g)];
      return weightGradientByLanes(lanes, gradient, geometry, kernels);
    }
    if (n % block !== 0) return null;
    const [images, gradient] = [this.#asPlain(x), this.#asBlocked(g)];
    return weightGradientByImages(images, gradient, geometry, kernels);
  }

  #imageGradient(node: Node): Node | null {
    const [g, w] = node.inputs;
    const phases = phasesOf(node);
    if (!phases || phases.some(({ taps }) => taps.length === 0)) return null;
    const [outputs, c] = w.shape;
    const isTaken = outputs % this.#block === 0 &&
      phases.length ** 2 * c <= MOST_IMAGE_OUTPUTS;
    return isTaken
      ? imageGradient(this.#asBlocked(g), this.#asPlain(w), phases, this.#block)
      : null;
  }

  #asItIs(node: Node): Node {
    return rebuilt(node, node.inputs.map((x) => this.#asPlain(x)));
  }

  #asPlain(node: Node): Node {
    const known = this.#plain.get(node);
    if (known) return known;
    const blocked = this.#blocked.get(node);
    // Made here rather than found in the graph.
    const plain = blocked ? toPlain(blocked) : this.#asItIs(node);
    this.#plain.set(node, plain);
    return plain;
  }

  #asBlocked(node: Node): Node {
    const known = this.#blocked.get(node);
    if (known) return known;
    const blocked = toBlocked(this.#asPlain(node));
    this.#blocked.set(node, blocked);
    return blocked;
  }
}

/**
 * Names of parameters that only blocked kernels read, as their weights: they
 * are as fast fed as constant.
 */
export function blockedWeights(outputs: readonly Node[]): Set<string> {
  const weights = new Set<string>();
  const others = new Set(outputs.map((node) => beforeReshapes(node).name));
  for (const { op, inputs } of topologicalOrder(outputs)) {
    // Who reads a reshape counts.
    if (op?.type === "Reshape") continue;
    inputs.map(beforeReshapes).forEach(({ kind, name }, i) => {
      if (kind !== "parameter") return;
      (op === BlockedConv && i === 1 ? weights : others).add(name);
    });
  }
  return weights.difference(others);
}

/** Elements whose order in memory tells the size of a block. */
export const PROBE_SHAPE: Shape = [1, 64, 1, 2];

/** A graph that shows how blocks lie in memory: from `x` to a flat vector. */
export function probeGraph(x: Node): Node {
  // The reshape reads the blocked memory as it lies.
  return reshape(toBlocked(x), [128]);
}
