/**
 * Graph passes: what ONNX Runtime does not do for itself.
 *
 * @module
 */
import {
  type Attributes,
  GRADIENT_OVERRIDE,
  Node,
  parameter,
  scalarValue,
  topologicalOrder,
} from "./graph.ts";
import { reshape } from "./ops/movement.ts";
import { sameShape } from "./shape.ts";
import type { Shape } from "./tensor.ts";

/**
 * Replaces operators that ONNX lacks by what they expand to.
 *
 * @param outputs Nodes to compute
 * @param kernel A target's own way to compute a node from new inputs, or null
 * @returns Equal nodes, in the same order
 */
export function expandOps(
  outputs: readonly Node[],
  kernel: (node: Node, inputs: readonly Node[]) => Node | null = () => null,
): Node[] {
  return rewrite(outputs, (node, inputs) =>
    kernel(node, inputs) ??
      node.op?.expand?.(inputs, node.attributes) ??
      rebuilt(node, inputs));
}

/**
 * Rebuilds a graph from its inputs to its outputs.
 *
 * @param visit From a node and its rebuilt inputs to what replaces it
 */
export function rewrite(
  outputs: readonly Node[],
  visit: (node: Node, inputs: readonly Node[]) => Node,
): Node[] {
  const replacements = new Map<Node, Node>();
  for (const node of topologicalOrder(outputs, dependencies)) {
    const inputs = dependencies(node).map((x) => replacements.get(x)!);
    replacements.set(
      node,
      node.op?.type === GRADIENT_OVERRIDE ? inputs[0] : visit(node, inputs),
    );
  }
  return outputs.map((node) => replacements.get(node)!);
}

/** Inputs that a node's value needs, without those of its gradient alone. */
function dependencies(node: Node): readonly Node[] {
  return node.op?.type === GRADIENT_OVERRIDE
    ? node.inputs.slice(0, 1)
    : node.inputs;
}

/**
 * Drops nodes that nothing needs, takes out gradient overrides, multiplies by
 * one, additions of zero and reshapes of reshapes, makes reshapes of transposes
 * that move only axes of size 1, and merges nodes that compute the same.
 * Constants are left to ONNX Runtime, which folds them when it loads.
 *
 * @param outputs Nodes to compute
 * @returns Equal nodes, in the same order
 */
export function simplify(outputs: readonly Node[]): Node[] {
  const known = new Map<string, Node>();
  const ids = new Map<Node, number>();
  const merged = (node: Node): Node => {
    if (ids.has(node)) return node;
    // A pass may have made a node's inputs, too.
    const whole = rebuilt(node, node.inputs.map(merged));
    const key = keyOf(whole, ids);
    const same = known.get(key) ?? whole;
    known.set(key, same);
    if (!ids.has(same)) ids.set(same, ids.size);
    return same;
  };
  return rewrite(outputs, (node, inputs) =>
    merged(
      neutral(node, inputs) ?? viewed(node, inputs) ?? rebuilt(node, inputs),
    ));
}

/** The input that a node equals, if it changes nothing. */
function neutral(node: Node, inputs: readonly Node[]): Node | null {
  const [a, b] = inputs;
  const keep = (x: Node) =>
    sameShape(x.shape, node.shape) && x.dtype === node.dtype ? x : null;
  switch (node.op?.type) {
    case "Mul":
      if (isValue(b, 1)) return keep(a);
      return isValue(a, 1) ? keep(b) : null;
    case "Add":
      if (isValue(b, 0)) return keep(a);
      return isValue(a, 0) ? keep(b) : null;
    default:
      return null;
  }
}

/**
 * A node that leaves all elements where they lie, as a reshape of what was
 * before others of its kind; null for other nodes.
 */
function viewed(node: Node, [x, shape]: readonly Node[]): Node | null {
  if (movesNothing(node)) return reshape(beforeReshapes(x), node.shape);
  if (node.op?.type !== "Reshape") return null;
  const base = beforeReshapes(x);
  // Its shape may be one that is known only when it runs.
  return sameShape(base.shape, node.shape)
    ? base
    : rebuilt(node, [base, shape]);
}

/** Whether a node is a transpose that moves only axes of size 1. */
function movesNothing({ op, attributes, inputs: [x] }: Node): boolean {
  if (op?.type !== "Transpose") return false;
  const { ints } = attributes.perm as { ints: readonly number[] };
  const moved = ints.filter((axis) => x.shape[axis] !== 1);
  return moved.every((axis, i) => i === 0 || moved[i - 1] < axis);
}

/** Whether every element of a small constant is `value`. */
function isValue(node: Node, value: number): boolean {
  if (scalarValue(node) !== null) return scalarValue(node) === value;
  const data = node.value?.dtype === "float32" ? node.value.data : null;
  return data !== null && data.length <= 4096 &&
    (data as Float32Array).every((x) => x === value);
}

/** A node with other inputs. */
export function rebuilt(node: Node, inputs: readonly Node[]): Node {
  if (inputs.every((x, i) => x === node.inputs[i])) return node;
  const { kind, dtype, shape, op, attributes } = node;
  return new Node(kind, dtype, shape, op, inputs, attributes);
}

/**
 * Text that is equal for nodes that compute the same, also of two graphs;
 * constants of more than a few elements are equal only if they are one node.
 *
 * @param known Texts of nodes found before
 */
export function expressionKey(node: Node, known: Map<Node, string>): string {
  for (const each of topologicalOrder([node])) {
    if (!known.has(each)) known.set(each, keyOf(each, known));
  }
  return known.get(node)!;
}

/** Text that is equal for nodes that compute the same from equal inputs. */
function keyOf(node: Node, ids: ReadonlyMap<Node, unknown>): string {
  switch (node.kind) {
    case "op": {
      const { domain = "", type, result = 0 } = node.op!;
      const inputs = node.inputs.map((x) => ids.get(x)).join();
      return `${domain}:${type}:${result}(${inputs})` +
        attributesKey(node.attributes);
    }
    case "constant": {
      const { dtype, data, shape } = node.value!;
      // Large constants are equal only if they are the same node.
      return data.length <= 64
        ? `${dtype}[${shape}]${Array.from<unknown>(data).map(exactly)}`
        : `constant ${node.id}`;
    }
    default:
      return `${node.kind} ${node.name} ${node.dtype}[${node.shape}]`;
  }
}

/** Prints a number; unlike `String()`, -0 not as 0. */
function exactly(value: unknown): string {
  return Object.is(value, -0) ? "-0" : String(value);
}

function attributesKey(attributes: Attributes): string {
  const names = Object.keys(attributes).sort();
  return JSON.stringify(names.map((name) => [name, attributes[name]]));
}

/** A graph in two parts, see `hoistParameters()`. */
export interface Hoisted {
  /** What depends on parameters alone, by name. */
  readonly prepared: Readonly<Record<string, Node>>;
  /** The rest, with parameters of those names. */
  readonly outputs: readonly Node[];
}

/** What a node only views in another shape. */
export function beforeReshapes(node: Node): Node {
  return node.op?.type === "Reshape" ? beforeReshapes(node.inputs[0]) : node;
}

/**
 * Takes out what depends on parameters and not on inputs, such as weights
 * with BatchNorm folded in: computed once, it serves many runs. Reshapes stay
 * with what reads them, as a graph's outputs are copied by them.
 *
 * @param outputs Nodes to compute
 * @param isHoisted Tells by name which parameters count; others are as inputs
 */
export function hoistParameters(
  outputs: readonly Node[],
  isHoisted: (name: string) => boolean = () => true,
): Hoisted {
  const varies = new Set<Node>();
  const learned = new Set<Node>();
  const frontier = new Map<Node, Node>();
  for (const node of topologicalOrder(outputs, dependencies)) {
    const inputs = dependencies(node);
    const isParameter = node.kind === "parameter" && isHoisted(node.name);
    const isFed = node.kind === "input" ||
      (node.kind === "parameter" && !isParameter);
    if (isFed || inputs.some((x) => varies.has(x))) {
      varies.add(node);
      for (const x of inputs.map(beforeReshapes)) {
        if (x.kind !== "op" || varies.has(x) || !learned.has(x)) continue;
        if (x.dtype !== "float32") continue;
        if (frontier.has(x)) continue;
        const name = `prepared:${frontier.size}`;
        frontier.set(x, parameter(name, x.shape));
      }
    } else if (isParameter || inputs.some((x) => learned.has(x))) {
      learned.add(node);
    }
  }
  return {
    prepared: Object.fromEntries(
      Array.from(frontier, ([node, { name }]) => [name, node]),
    ),
    outputs: rewrite(
      outputs,
      (node, inputs) => frontier.get(node) ?? rebuilt(node, inputs),
    ),
  };
}

/** Graphs that read parameters in other shapes, see `viewParameters()`. */
export interface Viewed {
  /** The graphs. */
  readonly outputs: readonly Node[];
  /** New shapes, by the parameters' names. */
  readonly shapes: Readonly<Record<string, Shape>>;
}

/**
 * Gives parameters the shape that all their readers reshape them to: it costs
 * nothing where they are fed, and a node's time in every run otherwise.
 *
 * @param outputs Nodes to compute
 * @param isViewed Tells by name which parameters may change their shape
 */
export function viewParameters(
  outputs: readonly Node[],
  isViewed: (name: string) => boolean,
): Viewed {
  const readers = new Map<Node, (Node | null)[]>();
  const read = (x: Node, reader: Node | null) => {
    if (x.kind !== "parameter" || !isViewed(x.name)) return;
    readers.set(x, [...readers.get(x) ?? [], reader]);
  };
  for (const node of topologicalOrder(outputs)) {
    for (const x of node.inputs) read(x, node);
  }
  for (const x of outputs) read(x, null);
  const views = new Map<Node, Node>();
  for (const [node, [first, ...others]] of readers) {
    const reshapes = (reader: Node | null) =>
      reader?.op?.type === "Reshape" && sameShape(reader.shape, first!.shape);
    if (![first, ...others].every(reshapes)) continue;
    views.set(node, parameter(node.name, first!.shape));
  }
  const isSame = ({ op, shape }: Node, [x]: readonly Node[]) =>
    op?.type === "Reshape" && sameShape(x.shape, shape);
  return {
    outputs: rewrite(
      outputs,
      (node, inputs) =>
        views.get(node) ??
          (isSame(node, inputs) ? inputs[0] : rebuilt(node, inputs)),
    ),
    shapes: Object.fromEntries(
      Array.from(views.values(), ({ name, shape }) => [name, shape]),
    ),
  };
}
