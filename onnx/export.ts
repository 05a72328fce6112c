/**
 * From nodes to the bytes of an ONNX model.
 *
 * @module
 */
import {
  type AnyTensor,
  type Attribute,
  type DType,
  expandOps,
  type NamedTensors,
  type Node,
  type Op,
  sameShape,
  show,
  simplify,
  topologicalOrder,
} from "../core/mod.ts";
import {
  type AttributeProto,
  encodeModel,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from "./proto.ts";
import { useBlockedKernels } from "./blocked.ts";

/**
 * Version of the ONNX operators: the newest that Debian's onnx package, the
 * independent check of our files, still knows.
 */
export const OPSET = 17;

/** Version of the file format that came with opset 17. */
const IR_VERSION = 8n;

/** ONNX's number for each dtype (TensorProto.DataType). */
const DATA_TYPE: Record<DType, number> = {
  float32: 1,
  uint8: 2,
  int64: 7,
  bool: 9,
};

/** Name, dtype and shape of an input or output. */
export interface ValueInfo {
  /** What feeds and results call it. */
  readonly name: string;
  /** Type of its elements. */
  readonly dtype: DType;
  /** Sizes of its axes. */
  readonly shape: readonly number[];
}

/** Options of `exportModel()`. */
export interface ExportOptions {
  /** Values for parameters that become part of the model; others are fed. */
  readonly constants?: NamedTensors;
  /** Stored in the file, such as the model's card. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Names of inputs, in their order; others follow in the graph's. */
  readonly inputOrder?: readonly string[];
  /**
   * Leave large constants out of the bytes: each is then a file beside, named
   * in `external` (default false).
   */
  readonly externalData?: boolean;
  /**
   * Shapes of inputs and outputs by name, instead of their own: a text names a
   * size that is known when the model runs. See `exportDynamicModel()`.
   */
  readonly shapes?: ReadonlyMap<string, readonly (number | string)[]>;
}

/**
 * Replaces what ONNX lacks, and simplifies.
 *
 * @param outputs Nodes to compute
 * @param block Take the CPU provider's own kernels, with this many channels in
 * a block: the graph then runs on that provider alone
 * @param isPrepared For those kernels: whether a parameter is known before the
 * graph runs, by its name (default: none is)
 * @returns Equal nodes, in the same order
 */
export function lower(
  outputs: readonly Node[],
  block?: number,
  isPrepared: (name: string) => boolean = () => false,
): Node[] {
  const once = simplify(outputs);
  return simplify(
    block ? useBlockedKernels(once, block, isPrepared) : expandOps(once),
  );
}

/** A constant outside of the model's bytes. */
export interface ExternalFile {
  /** Where the model looks for it, relative to its own folder. */
  readonly path: string;
  /** The constant's elements: not a copy. */
  readonly data: Uint8Array;
}

/** An ONNX model and what it needs and gives. */
export interface ExportedModel {
  /** Content of the `.onnx` file. */
  readonly bytes: Uint8Array;
  /** Files that belong beside it; none without `externalData`. */
  readonly external: readonly ExternalFile[];
  /** What is fed: inputs, and parameters without a constant. */
  readonly inputs: readonly ValueInfo[];
  /** What it computes, in the order asked for. */
  readonly outputs: readonly ValueInfo[];
  /** Operator types used, each with its count. */
  readonly operators: ReadonlyMap<string, number>;
}

/** Constants of at least this many bytes go to files beside. */
const EXTERNAL_BYTES = 1024;

/** Most bytes that readers of protobuf accept. */
const MAX_PROTOBUF_BYTES = 2 ** 31 - 1;

/** Bytes kept for what is not weights: nodes, names, metadata. */
const HEADROOM = 2 ** 24;

/**
 * Writes the graph of some nodes as an ONNX model.
 *
 * @param outputs Nodes to compute, by output name
 * @param options Constants, metadata, where large constants go
 * @throws {TypeError} If two inputs, or an input and an output, share a name,
 * or a constant does not have the shape of its parameter
 * @throws {RangeError} If the bytes would be more than protobuf allows
 */
export function exportModel(
  outputs: Readonly<Record<string, Node>>,
  options: ExportOptions = {},
): ExportedModel {
  const { constants = {}, metadata = {}, externalData = false } = options;
  const results = lower(Object.values(outputs));
  const names = new Map<Node, string>();
  const inputs: ValueInfo[] = [];
  const nodes: NodeProto[] = [];
  const initializers: TensorProto[] = [];
  const operators = new Map<string, number>();
  const domains = new Set([""]);
  const external: ExternalFile[] = [];

  const order = topologicalOrder(results);
  const given = new Set([
    ...Object.keys(outputs),
    ...order.map(({ name }) => name),
  ]);
  // An op that computes an output writes it under the output's name.
  const direct = new Map<Node, string>();
  Object.keys(outputs).forEach((name, i) => {
    const node = results[i];
    if (node.kind === "op" && !direct.has(node)) direct.set(node, name);
  });
  for (const node of order) {
    let name = direct.get(node) ?? (node.name || `n${names.size}`);
    const isFree = direct.has(node) || node.name !== "";
    while (!isFree && given.has(name)) name = `_${name}`;
    names.set(node, name);
    if (node.kind === "op") {
      const { type, domain = "" } = node.op!;
      domains.add(domain);
      operators.set(type, (operators.get(type) ?? 0) + 1);
      nodes.push({
        input: node.inputs.map((x) => names.get(x)!),
        output: [...unusedResults(name, node.op!), name],
        name,
        opType: type,
        domain,
        attribute: Object.entries(node.attributes).map(attributeProto),
      });
      continue;
    }
    const value = node.value ?? valueFor(node, constants);
    if (value) {
      initializers.push(
        tensorProto(name, value, externalData ? external : null),
      );
    } else if (inputs.some((info) => info.name === name)) {
      throw new TypeError(
        `Cannot export two inputs named "${name}": use one node for both`,
      );
    } else {
      inputs.push({ name, dtype: node.dtype, shape: node.shape });
    }
  }

  const { inputOrder = [] } = options;
  const rank = ({ name }: ValueInfo) =>
    inputOrder.includes(name) ? inputOrder.indexOf(name) : inputOrder.length;
  inputs.sort((a, b) => rank(a) - rank(b));
  const infos = Object.keys(outputs).map((name, i): ValueInfo => {
    const node = results[i];
    if (order.some((other) => other.name === name)) {
      throw new TypeError(
        `Cannot export output "${name}": an input has this name; rename one`,
      );
    }
    // An input, or another output too: needs a node of its own.
    if (names.get(node) !== name) {
      nodes.push({
        input: [names.get(node)!],
        output: [name],
        name: `output ${name}`,
        opType: "Identity",
        attribute: [],
      });
    }
    return { name, dtype: node.dtype, shape: node.shape };
  });

  const inline = initializers.reduce(
    (total, { rawData }) => total + (rawData?.length ?? 0),
    0,
  );
  if (inline > MAX_PROTOBUF_BYTES - HEADROOM) {
    throw new RangeError(
      `Cannot write an ONNX model with ${inline} bytes of weights inside: a ` +
        `file may have ${MAX_PROTOBUF_BYTES}; export a smaller network`,
    );
  }
  const describe = (info: ValueInfo) =>
    valueInfoProto(info, options.shapes?.get(info.name));
  const bytes = encodeModel({
    irVersion: IR_VERSION,
    producerName: "robust-reps",
    graph: {
      name: "robust-reps",
      node: nodes,
      initializer: initializers,
      input: inputs.map(describe),
      output: infos.map(describe),
    },
    opsetImport: [...domains].map((domain) => ({
      domain,
      version: BigInt(domain === "" ? OPSET : 1),
    })),
    metadataProps: Object.entries(metadata).map(([key, value]) => ({
      key,
      value,
    })),
  });
  return {
    bytes,
    external,
    inputs,
    outputs: infos,
    operators,
  };
}

/** Names for an operator's results before the one that is wanted. */
function unusedResults(name: string, { result = 0 }: Op): string[] {
  return Array.from({ length: result }, (_, i) => `${name}:${i}`);
}

/** The constant a parameter is bound to, or null if it is fed. */
function valueFor(node: Node, constants: NamedTensors): AnyTensor | null {
  if (node.kind !== "parameter" || !Object.hasOwn(constants, node.name)) {
    return null;
  }
  const value = constants[node.name];
  if (!sameShape(value.shape, node.shape) || value.dtype !== node.dtype) {
    throw new TypeError(
      `Cannot bind parameter "${node.name}" ${show(node.shape)} to a ` +
        `${value.dtype} tensor of shape ${show(value.shape)}`,
    );
  }
  return value;
}

function rawBytes({ data }: AnyTensor): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Writes a constant, or if it is large adds it to the files beside. */
function tensorProto(
  name: string,
  value: AnyTensor,
  external: ExternalFile[] | null,
): TensorProto {
  const data = rawBytes(value);
  const proto: TensorProto = {
    dims: value.shape.map(BigInt),
    dataType: DATA_TYPE[value.dtype],
    name,
  };
  if (!external || data.length < EXTERNAL_BYTES) {
    return { ...proto, rawData: data };
  }
  const path = `constant-${external.length}`;
  external.push({ path, data });
  return {
    ...proto,
    dataLocation: 1,
    externalData: [
      { key: "location", value: path },
      { key: "offset", value: "0" },
      { key: "length", value: String(data.length) },
    ],
  };
}

function attributeProto([name, value]: [string, Attribute]): AttributeProto {
  if ("int" in value) return { name, i: BigInt(value.int), type: 2 };
  if ("ints" in value) return { name, ints: value.ints.map(BigInt), type: 7 };
  if ("float" in value) return { name, f: value.float, type: 1 };
  return { name, s: new TextEncoder().encode(value.string), type: 3 };
}

function valueInfoProto(
  { name, dtype, shape }: ValueInfo,
  sizes: readonly (number | string)[] = shape,
): ValueInfoProto {
  const dim = sizes.map((size) =>
    typeof size === "string" ? { dimParam: size } : { dimValue: BigInt(size) }
  );
  return {
    name,
    type: { tensorType: { elemType: DATA_TYPE[dtype], shape: { dim } } },
  };
}
