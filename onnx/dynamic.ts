/**
 * Models whose number of images is decided when they run.
 *
 * Graphs have static shapes. Built for two numbers of images they differ in
 * nothing but the sizes that follow from that number: comparing the two finds
 * those sizes, and what holds them is computed when the model runs.
 *
 * @module
 */
import {
  apply,
  concat,
  constant,
  defineOp,
  type DType,
  type NamedTensors,
  Node,
  rebuilt,
  rewrite,
  type Shape,
  show,
  tensorOf,
  topologicalOrder,
} from "../core/mod.ts";
import { type ExportedModel, exportModel, lower } from "./export.ts";

/** Name of the number of images in the file. */
export const BATCH_SYMBOL = "n";

/**
 * The two numbers of images compared: primes unlike the sizes in networks, as
 * constants that are equal by chance would be merged in one graph alone.
 */
const PROBES = [4091, 4093] as const;

/** Name, dtype and shape of an input or output of any number of images. */
export interface DynamicValueInfo {
  /** What feeds and results call it. */
  readonly name: string;
  /** Type of its elements. */
  readonly dtype: DType;
  /** Sizes of its axes; {@linkcode BATCH_SYMBOL} is the number of images. */
  readonly shape: readonly (number | typeof BATCH_SYMBOL)[];
}

/** Options of `exportDynamicModel()`. */
export interface DynamicExportOptions {
  /** Values for the parameters, which become part of the model. */
  readonly constants?: NamedTensors;
  /** Stored in the file, such as the model's card. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Names of inputs, in their order; others follow in the graph's. */
  readonly inputOrder?: readonly string[];
}

/** An ONNX model for any number of images. */
export interface DynamicModel
  extends Omit<ExportedModel, "external" | "inputs" | "outputs"> {
  /** What is fed. */
  readonly inputs: readonly DynamicValueInfo[];
  /** What it computes, in the order asked for. */
  readonly outputs: readonly DynamicValueInfo[];
}

/**
 * Writes a graph as a self-contained ONNX model that takes any number of
 * images: the first axis of its inputs and outputs is symbolic.
 *
 * Standard operators alone are used, so that any runtime can read it.
 *
 * @param build Makes the nodes to compute, by output name, for a number of
 * images; it is called for two numbers, and must do the same for both
 * @throws {TypeError} If the graph depends on the number of images in another
 * way than by its shapes, such as a mean over images
 * @throws {RangeError} If the model is larger than a protobuf file may be
 *
 * @example
 * ```ts
 * import { input, mul, sum } from "../core/mod.ts";
 * import { exportDynamicModel } from "./mod.ts";
 * const { bytes, inputs } = exportDynamicModel((n) => {
 *   const x = input("x", [n, 3]);
 *   return { squares: sum(mul(x, x), [1]) };
 * });
 * console.log(bytes.length > 0, inputs[0].shape); // true, ["n", 3]
 * ```
 */
export function exportDynamicModel(
  build: (batch: number) => Readonly<Record<string, Node>>,
  options: DynamicExportOptions = {},
): DynamicModel {
  const [first, second] = PROBES.map(build);
  const [a, b] = [first, second].map((outputs) =>
    lower(Object.values(outputs))
  );
  const twins = pair(a, b);
  const dynamic = new Dynamic(twins).outputs(a);
  const names = Object.keys(first);
  const shapes = new Map<string, DynamicValueInfo["shape"]>();
  for (const [node, twin] of twins) {
    if (node.name) shapes.set(node.name, symbolic(node.shape, twin.shape));
  }
  a.forEach((node, i) =>
    shapes.set(names[i], symbolic(node.shape, b[i].shape))
  );
  const { external: _none, inputs, outputs, ...model } = exportModel(
    Object.fromEntries(names.map((name, i) => [name, dynamic[i]])),
    { ...options, shapes },
  );
  const described = ({ name, dtype }: { name: string; dtype: DType }) => ({
    name,
    dtype,
    shape: shapes.get(name)!,
  });
  return {
    ...model,
    inputs: inputs.map(described),
    outputs: outputs.map(described),
  };
}

/** Sizes of a shape, where those that differ are the number of images. */
function symbolic(a: Shape, b: Shape): DynamicValueInfo["shape"] {
  return a.map((size, axis) => {
    if (size === b[axis]) return size;
    if (size === PROBES[0] && b[axis] === PROBES[1]) return BATCH_SYMBOL;
    throw new TypeError(
      `Cannot export shape ${show(a)} for any number of images: axis ${axis} ` +
        `is not the number of images`,
    );
  });
}

/** Node of each of the second graph's, by the first graph's. */
function pair(
  a: readonly Node[],
  b: readonly Node[],
): ReadonlyMap<Node, Node> {
  const [left, right] = [a, b].map((outputs) => topologicalOrder(outputs));
  const twins = new Map(left.map((node, i) => [node, right[i]]));
  const differ = left.length !== right.length ||
    left.some((node, i) => {
      const twin = right[i];
      return node.kind !== twin.kind || node.op?.type !== twin.op?.type ||
        node.name !== twin.name || node.dtype !== twin.dtype ||
        node.shape.length !== twin.shape.length ||
        node.inputs.length !== twin.inputs.length ||
        node.inputs.some((x, j) => twins.get(x) !== twin.inputs[j]) ||
        JSON.stringify(node.attributes) !== JSON.stringify(twin.attributes);
    });
  if (differ) throw unlike("its operators are others");
  return twins;
}

function unlike(how: string): TypeError {
  return new TypeError(
    `Cannot export a graph for any number of images as with another number ` +
      `${how}: make it treat each image alike`,
  );
}

const ShapeOf = defineOp({
  type: "Shape",
  shape: ([x]) => [x.shape.length],
  dtype: () => "int64",
});

const First = defineOp({
  type: "Gather",
  shape: ([, indices]) => indices.shape,
});

function int64s(values: readonly number[]): Node {
  const data = BigInt64Array.from(values, BigInt);
  return constant(tensorOf("int64", data, [values.length]));
}

/** Rewrites the first graph; the second says what depends on the number. */
class Dynamic {
  readonly #twins: ReadonlyMap<Node, Node>;
  readonly #count: Node | null;

  constructor(twins: ReadonlyMap<Node, Node>) {
    this.#twins = twins;
    const batched = twins.keys().find(({ kind, shape }) =>
      kind === "input" && shape[0] === PROBES[0]
    );
    this.#count = batched
      ? apply(First, [apply(ShapeOf, [batched]), int64s([0])], {
        axis: { int: 0 },
      })
      : null;
  }

  outputs(nodes: readonly Node[]): Node[] {
    return rewrite(nodes, (node, inputs) => {
      const free = node.inputs.map((x, i) =>
        this.#varies(x) ? this.#free(node, i) : inputs[i]
      );
      return rebuilt(node, free);
    }).map((node, i) => this.#varies(nodes[i]) ? this.#computed(node) : node);
  }

  /** Whether a node is a constant that depends on the number of images. */
  #varies(node: Node): boolean {
    if (!node.value) return false;
    const [a, b] = [node.value, this.#twins.get(node)?.value ?? node.value];
    return a.data.length !== b.data.length ||
      a.data.some((value, i) => value !== b.data[i]);
  }

  /** Input `i` of a node, a constant, for any number of images. */
  #free({ op, inputs }: Node, i: number): Node {
    const target = inputs[i];
    const sizes = target.dtype === "int64" ? this.#sizes(target) : [];
    const varying = sizes.filter((size) => size === BATCH_SYMBOL);
    if (op?.type === "Reshape" && i === 1 && varying.length === 1) {
      // -1: whatever is left.
      return int64s(sizes.map((s) => s === BATCH_SYMBOL ? -1 : s));
    }
    if (op?.type === "Expand" && i === 1) {
      const { shape } = inputs[0];
      const missing = sizes.length - shape.length;
      // 1 keeps an axis as it is.
      const kept = sizes.map((size, axis) =>
        size === BATCH_SYMBOL && shape[axis - missing] === PROBES[0] ? 1 : size
      );
      return this.#vector(kept);
    }
    return this.#computed(target);
  }

  /** A constant of any kind, computed from the number of images. */
  #computed(node: Node): Node {
    if (node.dtype === "int64") return this.#vector(this.#sizes(node));
    const twin = this.#twins.get(node)!;
    const sizes = symbolic(node.shape, twin.shape);
    const isRepeated = [node, twin].every(({ value }) =>
      value!.data.every((x) => x === node.value!.data[0])
    );
    if (!isRepeated) throw unlike("its constants are others");
    const { dtype, value } = node;
    const single = constant(
      tensorOf(dtype, value!.data.slice(0, 1) as never, []) as never,
    );
    return expanded(single, this.#vector(sizes), node.shape);
  }

  /** Elements of an int64 vector, where the number of images is a symbol. */
  #sizes(node: Node): DynamicValueInfo["shape"] {
    const [a, b] = [node, this.#twins.get(node)!].map(({ value }) =>
      Array.from(value!.data as BigInt64Array, Number)
    );
    return symbolic(a, b);
  }

  #vector(sizes: DynamicValueInfo["shape"]): Node {
    if (!sizes.includes(BATCH_SYMBOL)) return int64s(sizes as number[]);
    if (!this.#count) throw unlike("its constants are others");
    const count = this.#count;
    return concat(
      sizes.map((size) => size === BATCH_SYMBOL ? count : int64s([size])),
      0,
    );
  }
}

const ExpandTo = defineOp({
  type: "Expand",
  shape: ([x]) => x.shape,
});

function expanded(x: Node, target: Node, shape: Shape): Node {
  return new Node("op", x.dtype, shape, ExpandTo, [x, target]);
}
