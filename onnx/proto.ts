/**
 * The protobuf messages of ONNX that this project writes, described at run
 * time to @bufbuild/protobuf: no generated code, and no `eval`, which a strict
 * content security policy forbids in browsers.
 *
 * Field numbers are those of onnx.proto; proto2, as readers check presence.
 *
 * @module
 */
import {
  create,
  createFileRegistry,
  fromBinary,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  type FieldDescriptorProto,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
  FieldDescriptorProtoSchema,
  FileDescriptorProtoSchema,
} from "@bufbuild/protobuf/wkt";

type Kind = "int64" | "int32" | "float" | "string" | "bytes" | string;

/** Field name -> number and kind; `[]` marks a repeated field. */
const MESSAGES: Record<string, Record<string, [number, Kind]>> = {
  StringStringEntryProto: { key: [1, "string"], value: [2, "string"] },
  OperatorSetIdProto: { domain: [1, "string"], version: [2, "int64"] },
  TensorProto: {
    dims: [1, "int64[]"],
    dataType: [2, "int32"],
    name: [8, "string"],
    rawData: [9, "bytes"],
    externalData: [13, "StringStringEntryProto[]"],
    dataLocation: [14, "int32"],
  },
  Dimension: { dimValue: [1, "int64"], dimParam: [2, "string"] },
  TensorShapeProto: { dim: [1, "Dimension[]"] },
  TensorTypeProto: { elemType: [1, "int32"], shape: [2, "TensorShapeProto"] },
  TypeProto: { tensorType: [1, "TensorTypeProto"] },
  ValueInfoProto: { name: [1, "string"], type: [2, "TypeProto"] },
  AttributeProto: {
    name: [1, "string"],
    f: [2, "float"],
    i: [3, "int64"],
    s: [4, "bytes"],
    ints: [8, "int64[]"],
    type: [20, "int32"],
  },
  NodeProto: {
    input: [1, "string[]"],
    output: [2, "string[]"],
    name: [3, "string"],
    opType: [4, "string"],
    attribute: [5, "AttributeProto[]"],
    domain: [7, "string"],
  },
  GraphProto: {
    node: [1, "NodeProto[]"],
    name: [2, "string"],
    initializer: [5, "TensorProto[]"],
    input: [11, "ValueInfoProto[]"],
    output: [12, "ValueInfoProto[]"],
  },
  ModelProto: {
    irVersion: [1, "int64"],
    producerName: [2, "string"],
    graph: [7, "GraphProto"],
    opsetImport: [8, "OperatorSetIdProto[]"],
    metadataProps: [14, "StringStringEntryProto[]"],
  },
};

const SCALARS: Record<string, Type> = {
  int64: Type.INT64,
  int32: Type.INT32,
  float: Type.FLOAT,
  string: Type.STRING,
  bytes: Type.BYTES,
};

function describeField(
  name: string,
  [number, kind]: [number, Kind],
): FieldDescriptorProto {
  const base = kind.replace("[]", "");
  return create(FieldDescriptorProtoSchema, {
    name,
    jsonName: name,
    number,
    label: kind.endsWith("[]") ? Label.REPEATED : Label.OPTIONAL,
    ...(base in SCALARS
      ? { type: SCALARS[base] }
      : { type: Type.MESSAGE, typeName: `.onnx.${base}` }),
  });
}

const registry = createFileRegistry(
  create(FileDescriptorProtoSchema, {
    name: "onnx.proto",
    package: "onnx",
    syntax: "proto2",
    messageType: Object.entries(MESSAGES).map(([name, fields]) => ({
      name,
      field: Object.entries(fields).map(([field, spec]) =>
        describeField(field, spec)
      ),
    })),
  }),
  () => undefined,
);

const ModelSchema = registry.getMessage("onnx.ModelProto")!;

/** A tensor as ONNX writes it. */
export interface TensorProto {
  dims: bigint[];
  dataType: number;
  name: string;
  rawData?: Uint8Array;
  externalData?: { key: string; value: string }[];
  dataLocation?: number;
}

/** An input or output of a graph. */
export interface ValueInfoProto {
  name: string;
  type: {
    tensorType: {
      elemType: number;
      shape: { dim: { dimValue?: bigint; dimParam?: string }[] };
    };
  };
}

/** An attribute of a node. */
export interface AttributeProto {
  name: string;
  f?: number;
  i?: bigint;
  s?: Uint8Array;
  ints?: bigint[];
  type: number;
}

/** An operator and the names of what it reads and writes. */
export interface NodeProto {
  input: string[];
  output: string[];
  name: string;
  opType: string;
  domain?: string;
  attribute: AttributeProto[];
}

/** A whole model. */
export interface ModelProto {
  irVersion: bigint;
  producerName: string;
  graph: {
    name: string;
    node: NodeProto[];
    initializer: TensorProto[];
    input: ValueInfoProto[];
    output: ValueInfoProto[];
  };
  opsetImport: { domain: string; version: bigint }[];
  metadataProps: { key: string; value: string }[];
}

/** Writes a model as protobuf bytes. */
export function encodeModel(model: ModelProto): Uint8Array {
  // The schema is only known at run time, so its type knows no fields.
  const message = create(ModelSchema, model as never);
  return toBinary(ModelSchema, message as MessageShape<typeof ModelSchema>);
}

/**
 * Reads the parts of a model that `encodeModel()` writes.
 *
 * @throws {Error} If the bytes are not protobuf
 */
export function decodeModel(bytes: Uint8Array): ModelProto {
  return fromBinary(ModelSchema, bytes) as unknown as ModelProto;
}
