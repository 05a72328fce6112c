/**
 * Exported files as other programs see them: Python's checker and reference
 * evaluator, and the WebAssembly build of ONNX Runtime.
 */
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertMatch,
} from "@std/assert";
import * as ort from "onnxruntime-web/wasm";
import {
  type AnyTensor,
  grad,
  input,
  type NamedTensors,
  type Node,
  Random,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import { buildModel, type Card, encodeNpy } from "../../models/mod.ts";
import { decodeModel } from "../../onnx/proto.ts";
import {
  crossEntropyObjective,
  EXPORT_KINDS,
  EXPORT_OBJECTIVES,
  type ExportKind,
  type ExportObjective,
  matchRepresentation,
  oneHot,
  pgdStep,
} from "../../robust/mod.ts";
import { type LoadedNetwork, loadNetwork, specOf } from "../../robust/load.ts";
import { assertAllClose, evaluate } from "../_assert.ts";
import {
  assertSentence,
  filesBelow,
  recordOf,
  run,
  SMALL,
  succeed,
} from "./_script.ts";

const folder = await Deno.makeTempDir({ prefix: "robust reps export-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

ort.env.wasm.numThreads = 1;

/** What is computed here without the file, and its exports. */
interface Exported {
  readonly what: ExportKind;
  readonly objective: ExportObjective;
  readonly norm: "l2" | "linf";
}

const differentiates = (what: ExportKind) =>
  what === "input-gradient" || what === "pgd-step";

const EXPORTS: readonly Exported[] = [
  ...EXPORT_KINDS.flatMap((what) =>
    EXPORT_OBJECTIVES
      .filter((_, i) => i === 0 || differentiates(what))
      .map((objective) => ({ what, objective, norm: "l2" } as const))
  ),
  { what: "pgd-step", objective: "cross-entropy", norm: "linf" },
];

const feedOf = ({ objective }: Exported) =>
  objective === "cross-entropy" ? "labels" : "target";

/** Inputs of each kind, in the order that the help says. */
const INPUTS: Readonly<Record<ExportKind, (one: Exported) => string[]>> = {
  forward: () => ["images"],
  representation: () => ["images"],
  "input-gradient": (one) => ["images", feedOf(one)],
  "pgd-step": (one) => ["images", feedOf(one), "center", "epsilon", "stepSize"],
};

const fileOf = ({ what, objective, norm }: Exported) =>
  `${folder}/${what} ${objective} ${norm}.onnx`;

let prepared: Promise<LoadedNetwork> | undefined;

/** Trains a network and exports it in every way, once. */
function prepare(): Promise<LoadedNetwork> {
  return prepared ??= (async () => {
    const quick = ["--epochs", "1", "--eval-images", "0"];
    await succeed("train", [...SMALL, ...quick, "--out", `${folder}/run`]);
    for (const one of EXPORTS) {
      await succeed("export", [
        ...["--model", `${folder}/run`, "--out", fileOf(one)],
        ...["--what", one.what, "--objective", one.objective],
        ...["--norm", one.norm, "--json", `${fileOf(one)}.json`],
      ]);
    }
    return await loadNetwork(`${folder}/run`);
  })();
}

/** Inputs of every export, of which each takes those it needs. */
function feedsOf(n: number, { card }: LoadedNetwork): Record<string, Tensor> {
  const size = card.imageSize;
  const random = new Random(n);
  const center = random.uniformTensor([n, 3, size, size], 0.1, 0.9);
  const classes = card.classes.length;
  return {
    center,
    images: tensor(center.data.map((x) => x + 0.01), center.shape),
    labels: oneHot(Array.from({ length: n }, (_, i) => i % classes), classes),
    target: random.uniformTensor([n, 8 * card.width]),
    epsilon: tensor([0.5], []),
    stepSize: tensor([0.3], []),
  };
}

/** What a file must compute, from a static graph. */
async function expected(
  { what, objective, norm }: Exported,
  feeds: Readonly<Record<string, Tensor>>,
  { card, network }: LoadedNetwork,
): Promise<Record<string, AnyTensor>> {
  const { images, labels, target } = feeds;
  const { loss } = objective === "cross-entropy"
    ? crossEntropyObjective([], card.classes.length)
    : matchRepresentation(target);
  const fed = objective === "cross-entropy" ? { labels } : { target };
  const shapes = Object.fromEntries(
    Object.entries(fed).map(([name, value]) => [name, value.shape]),
  );
  const fakeRelu = objective === "match-representation";
  const x = input("images", images.shape);
  const build = (): Record<string, Node> => {
    if (what === "pgd-step") {
      const settings = { norm, loss, feeds: shapes, fakeRelu };
      return { ...pgdStep(specOf(card), images.shape, settings) };
    }
    const model = buildModel(specOf(card), x, { fakeRelu });
    const { representation, logits } = model;
    if (what === "representation") return { representation };
    if (what === "forward") return { representation, logits };
    const nodes = Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [name, input(name, shape)]),
    );
    const losses = loss(model, nodes);
    return { gradient: grad(losses, [x])[0], losses };
  };
  return await evaluate(build(), feeds, { constants: network.parameters });
}

/** Signs of gradients near zero differ between runtimes. */
const toleranceOf = ({ norm }: Exported) => norm === "linf" ? 0.2 : 1e-4;

for (const one of EXPORTS) {
  const name = `${one.what}, ${one.objective}, ${one.norm}`;
  Deno.test(`export writes a file that WebAssembly runs alike: ${name}`, async () => {
    const loaded = await prepare();
    const bytes = await Deno.readFile(fileOf(one));
    const session = await ort.InferenceSession.create(bytes);
    for (const n of [1, 3, 8]) {
      const feeds = feedsOf(n, loaded);
      const wanted = await expected(one, feeds, loaded);
      assertEquals([...session.outputNames], Object.keys(wanted));
      const found = await session.run(Object.fromEntries(
        session.inputNames.map((input) => {
          const { data, shape } = feeds[input];
          return [input, new ort.Tensor("float32", data, shape)];
        }),
      ));
      for (const [output, value] of Object.entries(wanted)) {
        const { data, dims: shape } = found[output];
        const tensor = { dtype: "float32", data, shape } as AnyTensor;
        const tolerance = toleranceOf(one);
        assertAllClose(tensor, value, { tolerance, name: `${n} ${output}` });
      }
    }
    await session.release();
  });
}

Deno.test("export keeps weights, card and meanings in the file", async () => {
  const { card } = await prepare();
  const files = await filesBelow(folder);
  assertEquals(
    files.filter((path) => !/^run\/|\.onnx(\.json)?$/.test(path)),
    [],
  );
  for (const one of EXPORTS) {
    const { graph, metadataProps, opsetImport } = decodeModel(
      await Deno.readFile(fileOf(one)),
    );
    assertEquals(opsetImport.map(({ domain }) => domain), [""]);
    for (const { domain } of graph.node) assertEquals(domain ?? "", "");
    for (const { dataLocation = 0, rawData } of graph.initializer) {
      assertEquals(dataLocation, 0);
      assert(rawData);
    }
    const metadata = Object.fromEntries(
      metadataProps.map(({ key, value }) => [key, value]),
    );
    assertEquals(metadata.what, one.what);
    const kept = JSON.parse(metadata.card) as Card;
    assertEquals(kept, JSON.parse(JSON.stringify(card)));
    const described = Object.keys(JSON.parse(metadata.meanings)).sort();
    const inputs = graph.input.map(({ name }) => name);
    assertEquals(inputs, INPUTS[one.what](one));
    const named = [...inputs, ...graph.output.map(({ name }) => name)];
    assertEquals(described, named.sort());
    const record = await recordOf(`${fileOf(one)}.json`);
    assertEquals(record.command, "export");
    assertEquals(record.metrics.opset, 17);
    assertEquals(record.weights[0].sha256, card.weightsSha256);
  }
});

Deno.test("export reads images of another size", async () => {
  await prepare();
  const out = `${folder}/run/larger.onnx`;
  const args = ["--model", `${folder}/run`, "--size", "48", "--out", out];
  assertMatch(
    await succeed("export", args),
    /^Inputs: images \[n, 3, 48, 48\]\nOutputs: representation \[n, 16\], logits/,
  );
});

Deno.test("export answers each mistake with one sentence", async () => {
  await prepare();
  const rows: [string[], 1 | 2, RegExp][] = [
    [["--out", "a.onnx"], 2, /Missing flag --model/],
    [["--model", "run"], 2, /Missing flag --out, .onnx file to write/],
    [["--model", "run", "--out", "a.pb"], 2, /name a .onnx file with --out/],
    [
      ["--model", "run", "--out", "a.onnx", "--what", "gradient"],
      2,
      /--what must be forward, representation, input-gradient or pgd-step/,
    ],
    [
      ["--model", "run", "--out", "a.onnx", "--objective", "match"],
      2,
      /--objective must be .* did you mean match-representation/,
    ],
    [["--model", "none", "--out", "a.onnx"], 2, /Unknown model "none"/],
    [["--model", "run", "--out", "a.onnx", "--size", "4"], 2, /--size must be/],
    [["--model", "run", "--out", "a.onnx", "b"], 2, /Unexpected argument "b"/],
  ];
  for (const [args, code, wanted] of rows) {
    const ended = await run("export", [...args, "--quiet"], { cwd: folder });
    assertSentence(ended, code, wanted);
  }
});

/** Another Python than Debian's: say which in the variable PYTHON. */
const PYTHON = Deno.env.get("PYTHON") ?? "/usr/bin/python3";

const CHECK = `
import json, os, sys, onnx
import numpy as np
try:
    from onnx.reference import ReferenceEvaluator
except ImportError:
    ReferenceEvaluator = None
worst = 0.0
for path in sys.argv[1:]:
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    shapes = lambda infos: {i.name: [d.dim_param or d.dim_value
        for d in i.type.tensor_type.shape.dim] for i in infos}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert shapes(inferred.graph.output) == shapes(model.graph.output)
    assert all("n" == s[0] for s in shapes(model.graph.output).values())
    folder = path + ".values/"
    if ReferenceEvaluator is None or not os.path.isdir(folder):
        continue
    load = lambda name: np.load(folder + name + ".npy")
    names = [i.name for i in model.graph.input]
    found = ReferenceEvaluator(model).run(None, {n: load(n) for n in names})
    for info, value in zip(model.graph.output, found):
        wanted = load("expected-" + info.name)
        assert value.shape == wanted.shape and value.dtype == wanted.dtype
        worst = max(worst, abs(value - wanted).max() / abs(wanted).max())
print(json.dumps({"version": onnx.__version__, "worst": float(worst),
    "evaluated": ReferenceEvaluator is not None}))
`;

interface Checked {
  readonly version: string;
  readonly worst: number;
  readonly evaluated: boolean;
}

/** What Python says of files; null where it has no onnx. */
async function check(files: readonly string[]): Promise<Checked | null> {
  const output = await new Deno.Command(PYTHON, {
    args: ["-c", CHECK, ...files],
  }).output().catch(() => null);
  if (!output) return null;
  const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) =>
    new TextDecoder().decode(bytes)
  );
  if (/No module named '(onnx|numpy)'/.test(stderr)) return null;
  assertEquals(output.code, 0, stderr);
  return JSON.parse(stdout.trim().split("\n").at(-1)!);
}

const known = await check([]);
if (!known) {
  console.log(`A test is ignored: ${PYTHON} has no onnx package`);
} else if (!known.evaluated) {
  console.log(
    `onnx ${known.version} of ${PYTHON} has no ReferenceEvaluator: exported ` +
      `files are checked, and run in WebAssembly alone`,
  );
}

Deno.test({
  name: "export writes what Python's onnx checks, and evaluates alike",
  ignore: !known,
  fn: async () => {
    const loaded = await prepare();
    // The projection to linf takes signs, which differ near zero.
    const exports = EXPORTS.filter(({ norm }) => norm === "l2");
    // A step holds the gradient; the evaluator takes half a minute for one.
    const evaluated = exports.filter(({ what, objective }) =>
      what === "forward" ||
      (what === "pgd-step" && objective === "match-representation")
    );
    for (const one of evaluated) {
      const values = `${fileOf(one)}.values`;
      await Deno.mkdir(values);
      const feeds = feedsOf(2, loaded);
      const write = (tensors: NamedTensors, prefix = "") =>
        Promise.all(
          Object.entries(tensors).map(([name, value]) =>
            Deno.writeFile(`${values}/${prefix}${name}.npy`, encodeNpy(value))
          ),
        );
      await write(feeds);
      await write(await expected(one, feeds, loaded), "expected-");
    }
    const checked = await check(exports.map(fileOf));
    assertAlmostEquals(checked!.worst, 0, 1e-4);
  },
});
