/**
 * The graph: nodes define values before anything runs. Ops are ONNX operators,
 * so that lowering a graph is writing its records down.
 *
 * @module
 */
import { show } from "./shape.ts";
import {
  type AnyTensor,
  type DType,
  type Shape,
  type Tensor,
  tensor,
  tensorOf,
} from "./tensor.ts";

/** Attribute of an ONNX operator: a number is a float unless it is wrapped. */
export type Attribute =
  | { readonly int: number }
  | { readonly ints: readonly number[] }
  | { readonly float: number }
  | { readonly string: string };

/** ONNX attributes by name. */
export type Attributes = Readonly<Record<string, Attribute>>;

/** What a gradient rule may use. */
export interface VjpContext {
  /** What the op was applied to. */
  readonly inputs: readonly Node[];
  /** The op's attributes. */
  readonly attributes: Attributes;
  /** The op's result. */
  readonly output: Node;
  /** Gradient of the loss with respect to `output`, of its shape. */
  readonly upstream: Node;
}

/** An operator: type, shape rule and gradient rule. */
export interface Op {
  /** ONNX operator type. */
  readonly type: string;
  /** ONNX domain; "" is the standard one. */
  readonly domain?: string;
  /** Which of the operator's results this is (default 0, the first). */
  readonly result?: number;
  /** Shape of the result; throws TypeError if the inputs do not fit. */
  shape(inputs: readonly Node[], attributes: Attributes): Shape;
  /** Element type of the result; that of the first input if left out. */
  dtype?(inputs: readonly Node[]): DType;
  /**
   * Vector-Jacobian products: one gradient per input, before sums over
   * broadcast axes, or null where none flows. Left out: no gradient at all.
   */
  vjp?(context: VjpContext): readonly (Node | null)[];
  /**
   * For an operator that ONNX lacks: the same from operators that it has.
   * Lowering puts it in place, unless the target has a kernel of its own.
   */
  expand?(inputs: readonly Node[], attributes: Attributes): Node;
}

/** Where a node's value comes from. */
export type NodeKind =
  /** Fed at every run. */
  | "input"
  /** Named and learned: fed, or bound to a constant when compiling. */
  | "parameter"
  /** Known now. */
  | "constant"
  /** Computed by an op. */
  | "op";

let created = 0;

/** A value in the graph: immutable, defined by what made it. */
export class Node {
  /** Order of creation: inputs of a node have smaller ids. */
  readonly id: number = created++;

  /** @ignore Use input(), parameter(), constant() and the ops. */
  constructor(
    readonly kind: NodeKind,
    readonly dtype: DType,
    readonly shape: Shape,
    readonly op: Op | null = null,
    readonly inputs: readonly Node[] = [],
    readonly attributes: Attributes = {},
    readonly name: string = "",
    readonly value: AnyTensor | null = null,
  ) {}

  /** Prints as `Conv [2, 16, 32, 32]`. */
  toString(): string {
    return `${this.op?.type ?? this.kind} ${this.name}${show(this.shape)}`;
  }
}

/** A value fed at every run, by name. */
export function input(
  name: string,
  shape: Shape,
  dtype: DType = "float32",
): Node {
  return new Node("input", dtype, shape, null, [], {}, name);
}

/** A named value of a model: fed, or bound to a constant when compiling. */
export function parameter(name: string, shape: Shape): Node {
  return new Node("parameter", "float32", shape, null, [], {}, name);
}

/** A value known now; a number becomes a float32 scalar. */
export function constant(value: AnyTensor | number): Node {
  const known = typeof value === "number" ? tensor([value], []) : value;
  return new Node(
    "constant",
    known.dtype,
    known.shape,
    null,
    [],
    {},
    "",
    known,
  );
}

/** A vector of int64, which ONNX wants for shapes, axes and pads. */
export function int64s(values: readonly number[]): Node {
  return constant(
    tensorOf("int64", BigInt64Array.from(values, BigInt), [values.length]),
  );
}

/** Reads a constant int64 vector back, for shape rules. */
export function readInt64s(node: Node): number[] {
  if (node.value?.dtype !== "int64") {
    throw new TypeError(`Cannot read ${node}: need a constant of int64`);
  }
  return Array.from(node.value.data as BigInt64Array, Number);
}

/** Reads a constant float32 scalar or null if the node is not one. */
export function scalarValue(node: Node): number | null {
  const value = node.value as Tensor | null;
  return value?.dtype === "float32" && value.data.length === 1
    ? value.data[0]
    : null;
}

/** Checks an op's record where it is written. */
export function defineOp(op: Op): Op {
  return op;
}

/**
 * Applies an op to nodes.
 *
 * @throws {TypeError} If the shapes do not fit, naming the op
 */
export function apply(
  op: Op,
  inputs: readonly Node[],
  attributes: Attributes = {},
): Node {
  const shape = op.shape(inputs, attributes);
  const dtype = op.dtype ? op.dtype(inputs) : inputs[0].dtype;
  return new Node("op", dtype, shape, op, inputs, attributes);
}

/**
 * The nodes that `outputs` need, each after its inputs.
 *
 * @param outputs Nodes to compute
 * @param dependencies What a node needs; all its inputs if left out
 */
export function topologicalOrder(
  outputs: readonly Node[],
  dependencies: (node: Node) => readonly Node[] = (node) => node.inputs,
): Node[] {
  const seen = new Set<Node>();
  const order: Node[] = [];
  // An explicit stack: unrolled loops make graphs deeper than the call stack.
  const stack: [Node, number][] = [];
  for (const output of outputs) {
    if (!seen.has(output)) {
      seen.add(output);
      stack.push([output, 0]);
    }
    while (stack.length > 0) {
      const top = stack[stack.length - 1];
      const next = dependencies(top[0])[top[1]++];
      if (!next) {
        order.push(top[0]);
        stack.pop();
      } else if (!seen.has(next)) {
        seen.add(next);
        stack.push([next, 0]);
      }
    }
  }
  return order;
}

/**
 * Op of a node that is computed one way and differentiated another. ONNX has
 * no such operator: lowering passes the first input through.
 */
export const GRADIENT_OVERRIDE = "robust-reps.GradientOverride";

/**
 * Replaces the gradient of a value.
 *
 * @param value Computed as it is; no gradient flows into it
 * @param inputs Nodes that the gradient flows to instead
 * @param vjp From the upstream gradient to one gradient per node of `inputs`
 * @returns A node equal to `value`
 */
export function withGradient(
  value: Node,
  inputs: readonly Node[],
  vjp: (upstream: Node) => readonly (Node | null)[],
): Node {
  const op: Op = {
    type: GRADIENT_OVERRIDE,
    shape: ([first]) => first.shape,
    vjp: ({ upstream }) => [null, ...vjp(upstream)],
  };
  return apply(op, [value, ...inputs]);
}

/** The same value, through which no gradient flows. */
export function stopGradient(value: Node): Node {
  return withGradient(value, [], () => []);
}
