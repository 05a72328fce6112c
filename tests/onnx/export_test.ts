import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  add,
  affineSample,
  type AnyTensor,
  batchNormTrain,
  constant,
  conv2d,
  crossEntropy,
  full,
  gemm,
  globalAveragePool,
  grad,
  input,
  matmul,
  maxPool,
  mul,
  neg,
  type Node,
  parameter,
  Random,
  relu,
  resizeBilinear,
  tensor,
} from "../../core/mod.ts";
import { compile, exportModel, OPSET } from "../../onnx/mod.ts";
import { decodeModel } from "../../onnx/proto.ts";
import { assertAllClose, evaluate } from "../_assert.ts";
import { OP_CASES, valueAndGradient } from "../core/_ops.ts";

/** A small network's loss and gradients, of every family of ops. */
function network(): Record<string, Node> {
  const x = input("x", [2, 3, 9, 8]);
  const labels = input("labels", [2, 4]);
  const theta = input("theta", [2, 2, 3]);
  const weights = [
    parameter("conv.weight", [5, 3, 3, 3]),
    parameter("gamma", [5]),
    parameter("beta", [5]),
    parameter("fc.weight", [4, 5]),
    parameter("fc.bias", [4]),
  ] as const;
  const [w, gamma, beta, fc, bias] = weights;
  const turned = affineSample(resizeBilinear(x, [7, 7]), theta);
  const h = conv2d(turned, w, { stride: 2, padding: 1 });
  const normal = relu(batchNormTrain(h, gamma, beta, 1e-5).output);
  const pooled = maxPool(normal, { kernel: 3, stride: 2, padding: 1 });
  const features = globalAveragePool(pooled);
  const logits = gemm(features, fc, { transB: true, bias });
  const loss = crossEntropy(logits, labels);
  const gradients = grad(loss, [x, ...weights]);
  return {
    loss,
    logits,
    ...Object.fromEntries(gradients.map((g, i) => [`g${i}`, g])),
  };
}

/** Runs onnx.checker of Debian's python3-onnx; null where it is missing. */
async function check(files: readonly string[]): Promise<string | null> {
  const script = "import sys, onnx\n" +
    "for path in sys.argv[1:]:\n" +
    "    onnx.checker.check_model(path, full_check=True)\n" +
    "print('checked', len(sys.argv) - 1)";
  try {
    const { code, stdout, stderr } = await new Deno.Command(
      "/usr/bin/python3",
      { args: ["-c", script, ...files] },
    ).output();
    const text = new TextDecoder().decode(code === 0 ? stdout : stderr);
    return text.includes("No module named 'onnx'") ? null : text.trim();
  } catch {
    return null;
  }
}

const canCheck = await check([]) !== null;
if (!canCheck) {
  console.log(
    "A test is ignored: it needs Debian's python3-onnx as /usr/bin/python3",
  );
}

Deno.test("exportModel() writes what decodeModel() reads", () => {
  const x = input("x", [2]);
  const y = add(mul(x, parameter("w", [2])), 5);
  const { bytes, inputs, outputs, operators } = exportModel({ y }, {
    metadata: { card: "a model", dataset: "cifar10" },
  });
  const model = decodeModel(bytes);
  assertEquals(model.irVersion, 8n);
  assertEquals(model.producerName, "robust-reps");
  const opsets = model.opsetImport.map(({ domain, version }) => [
    domain,
    version,
  ]);
  assertEquals(opsets, [["", BigInt(OPSET)]]);
  assertEquals(OPSET, 17);
  assertEquals(
    model.metadataProps.map(({ key, value }) => [key, value]),
    [["card", "a model"], ["dataset", "cifar10"]],
  );
  const { graph } = model;
  assertEquals(graph.node.map(({ opType }) => opType), [
    "Mul",
    "Add",
  ]);
  assertEquals(graph.input.map(({ name }) => name), ["x", "w"]);
  assertEquals(graph.output.map(({ name }) => name), ["y"]);
  const { elemType, shape } = graph.input[0].type.tensorType;
  assertEquals([elemType, shape.dim[0].dimValue], [1, 2n]);
  assertEquals(graph.initializer.length, 1);
  assertEquals(graph.initializer[0].dims, []);
  const raw = graph.initializer[0].rawData!;
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  assertEquals(view.getFloat32(0, true), 5);
  assertEquals(inputs, [
    { name: "x", dtype: "float32", shape: [2] },
    { name: "w", dtype: "float32", shape: [2] },
  ]);
  assertEquals(outputs, [{ name: "y", dtype: "float32", shape: [2] }]);
  assertEquals([...operators], [["Mul", 1], ["Add", 1]]);
});

Deno.test("exportModel() writes explicit pads for every window", () => {
  const { graph } = decodeModel(exportModel(network()).bytes);
  const windows = graph.node.filter(({ opType }) =>
    ["Conv", "ConvTranspose", "MaxPool"].includes(opType)
  );
  assert(windows.length >= 3);
  for (const { attribute, opType } of windows) {
    const pads = attribute.find(({ name }) => name === "pads");
    assertEquals(pads?.ints?.length, 4, opType);
  }
  const names = graph.node.flatMap(({ attribute }) =>
    attribute.map(({ name }) => name)
  );
  assert(!names.includes("auto_pad"));
});

Deno.test("exportModel() names every value once and uses known names", () => {
  const { graph } = decodeModel(exportModel(network()).bytes);
  const known = new Set([
    ...graph.input.map(({ name }) => name),
    ...graph.initializer.map(({ name }) => name),
  ]);
  assertEquals(known.size, graph.input.length + graph.initializer.length);
  for (const { input, output, opType } of graph.node) {
    for (const name of input) assert(known.has(name), `${opType} ${name}`);
    assert(!known.has(output[0]), `${output[0]} is defined twice`);
    known.add(output[0]);
  }
});

Deno.test("exportModel() leaves out what only gradients need", () => {
  const model = exportModel({ y: relu(input("x", [2])) });
  assertEquals([...model.operators], [["Relu", 1]]);
});

Deno.test("exportModel() keeps large constants in files beside", async () => {
  const x = input("x", [1, 64]);
  const value = new Random(0).normal([64, 64]);
  const small = new Random(1).normal([64]);
  const w = parameter("w", [64, 64]);
  const y = add(matmul(matmul(x, w), constant(value)), constant(small));
  const constants = { w: new Random(2).normal([64, 64]) };
  const inline = exportModel({ y }, { constants });
  const beside = exportModel({ y }, { constants, externalData: true });
  assertEquals(inline.external, []);
  const files = new Map(beside.external.map(({ path, data }) => [path, data]));
  assertEquals(files.size, 2);
  assert(beside.bytes.length < 3000);
  const initializers = decodeModel(inline.bytes).graph.initializer;
  for (const proto of decodeModel(beside.bytes).graph.initializer) {
    const same = initializers.find(({ name }) => name === proto.name)!;
    if (proto.dataLocation !== 1) {
      assertEquals(proto.rawData, same.rawData);
      continue;
    }
    const entries = Object.fromEntries(
      proto.externalData!.map(({ key, value }) => [key, value]),
    );
    const data = files.get(entries.location)!;
    assertEquals([entries.offset, entries.length], ["0", `${data.length}`]);
    assertEquals(data, same.rawData);
  }
  // compile() uses the external form: it must compute the same.
  const feeds = { x: new Random(3).normal([1, 64]) };
  const bound = await evaluate({ y }, feeds, { constants });
  const fed = await evaluate({ y }, { ...feeds, ...constants });
  assertAllClose(bound.y, fed.y, { tolerance: 1e-5 });
});

Deno.test("exportModel() takes views of larger arrays", async () => {
  const data = Float32Array.from({ length: 600 }, (_, i) => i);
  for (const [start, size] of [[1, 2], [7, 500]]) {
    const value = tensor(data.subarray(start, start + size));
    const { y } = await evaluate({ y: neg(constant(value)) });
    assertEquals([...y.data], Array.from(value.data, (x) => -x));
  }
});

Deno.test("exportModel() survives inputs named like its own nodes", async () => {
  const inputs = ["n0", "n1", "n2", "_n3"].map((name) => input(name, [1]));
  const sum = inputs.reduce((a, b) => add(a, b));
  const feeds = Object.fromEntries(
    inputs.map(({ name }, i) => [name, tensor([i + 1])]),
  );
  const found = await evaluate({ n4: sum, n5: inputs[0] }, feeds);
  assertEquals([...found.n4.data, ...found.n5.data], [10, 1]);
});

Deno.test("exportModel() gives one node under several names", async () => {
  const y = neg(input("x", [1]));
  const found = await evaluate({ a: y, b: y }, { x: tensor([2]) });
  assertEquals([...found.a.data, ...found.b.data], [-2, -2]);
});

Deno.test("exportModel() refuses names and constants that clash", () => {
  const x = input("x", [2]);
  const cases: readonly [() => unknown, string][] = [
    [
      () => exportModel({ y: add(x, input("x", [1])) }),
      'Cannot export two inputs named "x": use one node for both',
    ],
    [
      () => exportModel({ y: add(x, parameter("x", [2])) }),
      'Cannot export two inputs named "x": use one node for both',
    ],
    [
      () => exportModel({ x: neg(x) }),
      'Cannot export output "x": an input has this name; rename one',
    ],
    [
      () =>
        exportModel({ y: neg(parameter("w", [2])) }, {
          constants: { w: full([3], 0) },
        }),
      'Cannot bind parameter "w" [2] to a float32 tensor of shape [3]',
    ],
  ];
  for (const [call, message] of cases) {
    assertEquals(assertThrows(call, TypeError).message, message);
  }
});

Deno.test("exportModel() takes the same input twice", async () => {
  const y = add(input("x", [1]), input("x", [1]));
  assertEquals((await evaluate({ y }, { x: tensor([3]) })).y.data[0], 6);
});

Deno.test({
  name: "onnx.checker accepts every op, forward and gradient, and a network",
  ignore: !canCheck,
  async fn() {
    const folder = await Deno.makeTempDir({ prefix: "robust-reps" });
    try {
      const graphs = [
        ...OP_CASES.map((opCase) => valueAndGradient(opCase, 0).outputs),
        network(),
      ];
      const files = graphs.map((outputs, i) => {
        const file = `${folder}/${i}.onnx`;
        Deno.writeFileSync(file, exportModel(outputs).bytes);
        return file;
      });
      const { bytes, external } = exportModel({
        y: mul(input("x", [600]), constant(full([600], 2))),
      }, { externalData: true });
      Deno.writeFileSync(`${folder}/external.onnx`, bytes);
      assertEquals(external.length, 1);
      for (const { path, data } of external) {
        Deno.writeFileSync(`${folder}/${path}`, data);
      }
      files.push(`${folder}/external.onnx`);
      assertEquals(await check(files), `checked ${files.length}`);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test("a network's gradients run with parameters fed or bound", async () => {
  const outputs = network();
  const program = await compile(outputs, { threads: 1 });
  const feeds: Record<string, AnyTensor> = {};
  for (const { name, shape } of program.inputs) {
    feeds[name] = new Random(0, [name]).uniformTensor(shape, 0.1, 1);
  }
  try {
    const fed = await program.run(feeds);
    const { x, labels, theta, ...constants } = feeds;
    const bound = await evaluate(outputs, { x, labels, theta }, { constants });
    for (const [name, value] of Object.entries(fed)) {
      assertAllClose(bound[name], value, { tolerance: 1e-4, name });
    }
  } finally {
    await program.release();
  }
});
