/**
 * Kernels of ONNX Runtime's CPU provider that ONNX has no operators for:
 * convolutions on activations whose channels lie in blocks (NCHWc).
 *
 * ONNX Runtime takes these by itself where weights are constants. Here they
 * are taken where weights change from step to step, as in training: 15 ms
 * against 20 ms for 3 x 3 convolutions at 256 channels of 8 x 8, and weight
 * gradients without a copy of the input for each tap of the kernel.
 *
 * @module
 */
import {
  apply,
  type Attributes,
  constant,
  CONV_WEIGHT_GRADIENT,
  defineOp,
  expandOps,
  flip,
  full,
  type NamedTensors,
  type Node,
  pad,
  rebuilt,
  reshape,
  sameShape,
  type Shape,
  slice,
  topologicalOrder,
  transpose,
  TRANSPOSED_KERNEL,
} from "../core/mod.ts";

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
  shape: ([x]) => x.shape,
});

/** Weights are `[o / b, i / b, k, k, b (i), b (o)]` in memory. */
const BlockedConv = defineOp({
  type: "Conv",
  domain: DOMAIN,
  shape([x, w], attributes) {
    const ints = (name: string) =>
      (attributes[name] as { ints: readonly number[] }).ints;
    const size = [0, 1].map((i) => {
      const reach = (w.shape[i + 2] - 1) * ints("dilations")[i] + 1;
      const room = x.shape[i + 2] + 2 * ints("pads")[i] - reach;
      return Math.floor(room / ints("strides")[i]) + 1;
    });
    return [x.shape[0], w.shape[0], ...size];
  },
});

function toBlocked(x: Node): Node {
  return apply(ReorderInput, [x]);
}

function toPlain(x: Node): Node {
  return apply(ReorderOutput, [x], { channels: { int: x.shape[1] } });
}

/** Options of a convolution in blocks. */
interface BlockedOptions {
  readonly stride: number;
  readonly padding: number;
  readonly dilation?: number;
  /** Added to every channel. */
  readonly bias?: Node;
  /** Added to the result, in blocks. */
  readonly sum?: Node;
  readonly relu?: boolean;
}

function blockedConv(x: Node, w: Node, options: BlockedOptions): Node {
  const { stride, padding, dilation = 1, sum, relu } = options;
  const attributes: Attributes = {
    kernel_shape: { ints: w.shape.slice(2) },
    strides: { ints: [stride, stride] },
    pads: { ints: [padding, padding, padding, padding] },
    dilations: { ints: [dilation, dilation] },
    group: { int: 1 },
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
  const split = reshape(w, [o / block, block, i / block, block, k * k]);
  return reshape(transpose(split, [0, 2, 4, 3, 1]), w.shape);
}

/** `packed()` of the transposed kernel of `[o, i, k, k]`, in one move. */
function packedTransposed(w: Node, block: number): Node {
  const [o, i, k] = w.shape;
  const split = reshape(w, [o / block, block, i / block, block, k * k]);
  const moved = transpose(split, [2, 0, 4, 1, 3]);
  return reshape(flip(moved, [2]), [i, o, k, k]);
}

interface Geometry {
  readonly kernel: number;
  readonly stride: number;
  readonly padding: number;
}

function geometryOf(attributes: Attributes): Geometry {
  const first = (name: string) =>
    (attributes[name] as { ints: readonly number[] }).ints[0];
  return {
    kernel: first("kernel_shape"),
    stride: first("strides"),
    padding: first("pads"),
  };
}

/**
 * Gradient of a convolution's weights as one convolution: images are its
 * channels, and the output's gradient is its kernel.
 */
function weightGradient(
  x: Node,
  g: Node,
  { kernel, stride, padding }: Geometry,
  block: number,
): Node | null {
  const [n] = x.shape;
  const [, outputs, h, w] = g.shape;
  if (n % block !== 0 || outputs % block !== 0) return null;
  const border = [0, 0, padding, padding];
  const images = pad(transpose(x, [1, 0, 2, 3]), border, border);
  const split = [n / block, block, outputs / block, h * w, block];
  const kernels = transpose(reshape(toBlocked(g), split), [2, 0, 3, 1, 4]);
  const result = toPlain(
    blockedConv(toBlocked(images), reshape(kernels, [outputs, n, h, w]), {
      stride: 1,
      padding: 0,
      dilation: stride,
    }),
  );
  // Strided: rows of the input that no kernel position reaches are left over.
  const taps = slice(result, [
    { axis: 2, start: 0, end: kernel },
    { axis: 3, start: 0, end: kernel },
  ]);
  return transpose(taps, [1, 0, 2, 3]);
}

/** Which of the kernels here to take. */
export interface BlockedSettings {
  /** Channels in a block, see `probeBlock()` in session.ts. */
  readonly block: number;
  /** Parameters that do not change from run to run. */
  readonly constants: NamedTensors;
}

/** Elementwise ops that do not care where an element lies. */
const ELEMENTWISE = new Set(["Add", "Sub", "Mul", "Relu", "HardSigmoid"]);

/**
 * Takes blocked kernels where they pay: for the gradients of weights and,
 * outside of training, for convolutions with fed weights, whose activations
 * then stay in blocks through sums, masks and ReLUs.
 *
 * @param outputs Nodes to compute
 * @returns Equal nodes, in the same order
 */
export function useBlockedKernels(
  outputs: readonly Node[],
  settings: BlockedSettings,
): Node[] {
  let isTraining = false;
  const gradients = expandOps(outputs, (node, inputs) => {
    if (node.op?.type === TRANSPOSED_KERNEL) return rebuilt(node, inputs);
    if (node.op?.type !== CONV_WEIGHT_GRADIENT) return null;
    isTraining = true;
    const [x, g] = inputs;
    return weightGradient(x, g, geometryOf(node.attributes), settings.block);
  });
  // BatchNorm over a batch reduces channels, which is slower in blocks than
  // the convolutions are faster.
  return isTraining
    ? expandOps(gradients)
    : expandOps(new Layout(gradients, settings).outputs());
}

/** Rebuilds a graph with each value plain, in blocks, or both. */
class Layout {
  readonly #outputs: readonly Node[];
  readonly #block: number;
  readonly #constants: NamedTensors;
  /** Nodes that change from run to run. */
  readonly #fed = new Set<Node>();
  /** Nodes whose result comes in blocks. */
  readonly #native = new Set<Node>();
  readonly #plain = new Map<Node, Node>();
  readonly #blocked = new Map<Node, Node>();
  readonly #uses = new Map<Node, number>();
  /** Nodes that are computed within the one that uses them. */
  readonly #fused = new Set<Node>();

  constructor(
    outputs: readonly Node[],
    { block, constants }: BlockedSettings,
  ) {
    this.#outputs = outputs;
    this.#block = block;
    this.#constants = constants;
  }

  outputs(): Node[] {
    const order = topologicalOrder(this.#outputs);
    for (const x of [...this.#outputs, ...order.flatMap((n) => n.inputs)]) {
      this.#uses.set(x, (this.#uses.get(x) ?? 0) + 1);
    }
    for (const node of order) {
      const isBound = node.kind === "constant" ||
        (node.kind === "parameter" &&
          Object.hasOwn(this.#constants, node.name));
      const isLeaf = node.kind !== "op";
      const changes = isLeaf
        ? !isBound
        : node.inputs.some((x) => this.#fed.has(x));
      if (changes) this.#fed.add(node);
    }
    for (const node of order) this.#findFusion(node);
    for (const node of order) {
      if (!this.#fused.has(node)) this.#place(node);
    }
    return this.#outputs.map((node) => this.#asPlain(node));
  }

  /** Marks the parts of relu(conv + shortcut) that nothing else uses. */
  #findFusion(node: Node): void {
    if (node.op?.type !== "Relu") return;
    const [sum] = node.inputs;
    if (this.#isConv(sum) && this.#uses.get(sum) === 1) this.#fused.add(sum);
    if (sum.op?.type !== "Add" || this.#uses.get(sum) !== 1) return;
    const conv = sum.inputs.find((x) =>
      this.#isConv(x) && this.#uses.get(x) === 1
    );
    if (!conv || !sameShape(sum.inputs[0].shape, sum.inputs[1].shape)) return;
    this.#fused.add(sum).add(conv);
  }

  /** Whether a node is a convolution that the blocked kernel takes. */
  #isConv(node: Node): boolean {
    const { op, inputs: [x, w] } = node;
    return op?.type === "Conv" && !op.domain && this.#fed.has(w) &&
      x.shape[1] % this.#block === 0 && w.shape[0] % this.#block === 0;
  }

  #place(node: Node): void {
    const [first] = node.inputs;
    if (node.op?.type === "Relu" && this.#fused.has(first)) {
      const sum = this.#isConv(first) ? null : first;
      const conv = sum ? sum.inputs.find((x) => this.#fused.has(x))! : first;
      const other = sum?.inputs.find((x) => x !== conv) ?? null;
      this.#setNative(node, this.#convolve(conv, other, true));
    } else if (this.#isConv(node)) {
      this.#setNative(node, this.#convolve(node, null, false));
    } else if (this.#isElementwise(node)) {
      const inputs = node.inputs.map((x) => this.#asBlocked(x));
      this.#setNative(node, rebuilt(node, inputs));
    } else {
      const inputs = node.inputs.map((x) => this.#asPlain(x));
      this.#plain.set(node, rebuilt(node, inputs));
    }
  }

  #setNative(node: Node, blocked: Node): void {
    this.#native.add(node);
    this.#blocked.set(node, blocked);
  }

  #convolve(conv: Node, sum: Node | null, relu: boolean): Node {
    const [x, w, bias] = conv.inputs;
    const isTransposed = w.op?.type === TRANSPOSED_KERNEL;
    const weights = isTransposed
      ? packedTransposed(this.#asPlain(w.inputs[0]), this.#block)
      : packed(this.#asPlain(w), this.#block);
    return blockedConv(this.#asBlocked(x), weights, {
      ...geometryOf(conv.attributes),
      relu,
      ...(bias ? { bias: this.#asPlain(bias) } : {}),
      ...(sum ? { sum: this.#asBlocked(sum) } : {}),
    });
  }

  /** Whether a node may be computed in blocks, and one of its inputs is. */
  #isElementwise({ op, inputs, shape }: Node): boolean {
    return op !== null && ELEMENTWISE.has(op.type) && shape.length === 4 &&
      inputs.every((x) => sameShape(x.shape, shape)) &&
      inputs.some((x) => this.#native.has(x));
  }

  #asPlain(node: Node): Node {
    const known = this.#plain.get(node);
    if (known) return known;
    const plain = toPlain(this.#blocked.get(node)!);
    this.#plain.set(node, plain);
    return plain;
  }

  #asBlocked(node: Node): Node {
    const known = this.#blocked.get(node);
    if (known) return known;
    const blocked = toBlocked(this.#plain.get(node)!);
    this.#blocked.set(node, blocked);
    return blocked;
  }
}

/** Elements whose order in memory tells the size of a block. */
export const PROBE_SHAPE: Shape = [1, 64, 1, 2];

/** A graph that shows how blocks lie in memory: from `x` to a flat vector. */
export function probeGraph(x: Node): Node {
  // The reshape reads the blocked memory as it lies.
  return reshape(toBlocked(x), [128]);
}
