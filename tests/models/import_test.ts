/**
 * Networks of other projects: found, named, and equal to what PyTorch computes.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  type AnyTensor,
  input,
  type NamedTensors,
  Random,
  sizeOf,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import {
  ARCHITECTURES,
  buildModel,
  checkpointFormat,
  encodeSafetensors,
  importWeights,
  initializeModel,
  type ModelSpec,
} from "../../models/mod.ts";
import { assertAllClose, evaluate } from "../_assert.ts";
import { readBytes, readTensors } from "../_fixtures.ts";
import { FIXTURE_SPEC, fixtureParameters, floats } from "./_fixture_network.ts";
import { entangled, mutated } from "./_mutate.ts";
import {
  Call,
  counting,
  ops,
  type SavedTensor,
  shared,
  torchEntries,
  torchLegacy,
  torchParts,
  torchZip,
  zipOf,
} from "./_torch_file.ts";

const FILES: Readonly<Record<string, { format: string; prefix: string }>> = {
  "checkpoint_legacy.pt": {
    format: "torch legacy",
    prefix: "model.module.model.",
  },
  "checkpoint_legacy_cuda.pt": {
    format: "torch legacy",
    prefix: "model.module.model.",
  },
  "checkpoint_zip.pt": { format: "torch zip", prefix: "model.module.model." },
  "torchvision_style.pt": { format: "torch zip", prefix: "" },
};

for (const [file, { format, prefix }] of Object.entries(FILES)) {
  Deno.test(`importWeights() reads ${file} exactly`, async () => {
    const imported = importWeights(await readBytes(file), file);
    const { architecture, form, width, classes, mean, std } = FIXTURE_SPEC;
    assertEquals(imported.spec, { architecture, form, width, classes });
    assertEquals(imported.format, format);
    assertEquals(imported.prefix, prefix);
    const isWrapped = prefix !== "";
    assertEquals(imported.normalization, isWrapped ? { mean, std } : null);
    assertEquals(imported.epoch, isWrapped ? 3 : null);
    assertEquals(imported.reported, isWrapped ? { adv_prec1: 43.75 } : {});
    assertEquals({ ...imported.tensors }, await fixtureParameters());
  });
}

Deno.test("importWeights() gives PyTorch's logits and representation", async () => {
  const expected = await readTensors("cifar_eval");
  const x = floats(expected, "x");
  const file = "checkpoint_legacy_cuda.pt";
  const { spec, normalization, tensors } = importWeights(
    await readBytes(file),
    file,
  );
  const images = input("x", x.shape);
  const { logits, representation } = buildModel(
    { ...spec, ...normalization! },
    images,
  );
  const found = await evaluate({ logits, representation }, { x }, {
    constants: tensors as Record<string, Tensor>,
  });
  for (const name of ["logits", "representation"]) {
    const close = { tolerance: 2e-6, relative: "l2", name } as const;
    assertAllClose(found[name], expected[name], close);
  }
});

/** A small network of random weights. */
function network(spec: Partial<ModelSpec> = {}): {
  spec: ModelSpec;
  tensors: NamedTensors;
} {
  const full: ModelSpec = {
    architecture: "resnet10",
    form: "cifar",
    width: 1,
    classes: 3,
    mean: [0, 0, 0],
    std: [1, 1, 1],
    ...spec,
  };
  return { spec: full, tensors: initializeModel(full, new Random(0)) };
}

/** Tensors as `torch.save()` is given them, with other names. */
function saved(
  tensors: NamedTensors,
  rename: (name: string) => string = (name) => name,
): Record<string, SavedTensor> {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, { data, shape }]) => [
      rename(name),
      { data, shape, storage: "FloatStorage" },
    ]),
  );
}

for (const architecture of ARCHITECTURES) {
  for (const form of ["cifar", "imagenet"] as const) {
    Deno.test(`importWeights() recognises ${architecture} in ${form} form`, () => {
      const { tensors } = network({ architecture, form, width: 2, classes: 7 });
      const { spec, tensors: found } = importWeights(
        encodeSafetensors(tensors),
        "foreign.safetensors",
      );
      assertEquals(spec, { architecture, form, width: 2, classes: 7 });
      assertEquals(Object.keys(found).sort(), Object.keys(tensors).sort());
    });
  }
}

Deno.test("importWeights() finds the network within wrappers", () => {
  const { tensors } = network();
  const state = saved(tensors);
  const library = saved(
    tensors,
    (name) => name.replace("downsample", "shortcut").replace(/^fc/, "linear"),
  );
  const prefixed = (prefix: string) =>
    saved(tensors, (name) => `${prefix}${name}`);
  const normalizer = {
    "module.normalizer.new_mean": triple(0.1, 0.2, 0.3),
    "module.normalizer.new_std": triple(0.4, 0.5, 0.6),
  };
  const module = moduleOf(state);
  const rows: [unknown, string, boolean?][] = [
    [state, ""],
    [library, ""],
    [prefixed("module."), "module."],
    [{ state_dict: state, epoch: 1 }, "state_dict."],
    [{ model: prefixed("module.model.") }, "model.module.model."],
    [
      {
        model: {
          ...prefixed("module.model."),
          ...prefixed("module.attacker.model."),
          ...normalizer,
        },
      },
      "model.module.model.",
      true,
    ],
    [prefixed("attacker.model."), "attacker.model."],
    [{ net: prefixed("1."), normalize: { mean: 1 } }, "net.1."],
    [[1, state, { optimizer: { state: new Map([[0, state]]) } }], "1."],
    [module, ""],
    [{ model: module }, "model."],
  ];
  for (const [value, prefix, isNormalized] of rows) {
    for (const bytes of [torchZip(value), torchLegacy(value)]) {
      const found = importWeights(bytes, "file.pt");
      assertEquals(found.prefix, prefix);
      assertEquals(
        found.normalization,
        isNormalized ? { mean: [0.1, 0.2, 0.3], std: [0.4, 0.5, 0.6] } : null,
      );
      assertEquals({ ...found.tensors }, { ...tensors });
    }
  }
});

Deno.test("checkpointFormat() tells formats by their first bytes", () => {
  const { tensors } = network();
  const rows: [string, Uint8Array][] = [
    ["torch", torchZip({})],
    ["torch", torchLegacy({})],
    ["torch", torchLegacy({}, 5)],
    ["safetensors", encodeSafetensors(tensors)],
  ];
  for (const [format, bytes] of rows) {
    assertEquals(checkpointFormat(bytes, "a"), format);
  }
  const wrong: [Uint8Array, string][] = [
    [ops(), "the file is empty"],
    [ops("hello"), "it is neither a file of torch.save() nor of safetensors"],
    [ops("<!DOCTYPE html>"), "it is neither a file of torch.save() nor of"],
    [ops(0x80, 2, "N."), "it is neither a file of torch.save() nor of"],
  ];
  for (const [bytes, what] of wrong) {
    const sentence = `Cannot read checkpoint "a": ${what}`;
    assertThrows(() => checkpointFormat(bytes, "a"), SyntaxError, sentence);
    assertThrows(() => importWeights(bytes, "a"), SyntaxError, sentence);
  }
});

/** A module of modules as PyTorch pickles it whole, of tensors by path. */
function moduleOf(state: Readonly<Record<string, SavedTensor>>): Call {
  const parts = new Map<string, Record<string, SavedTensor>>();
  for (const [path, value] of Object.entries(state)) {
    const dot = path.lastIndexOf(".");
    const name = path.slice(0, dot);
    const own = parts.get(name) ?? {};
    parts.set(name, { ...own, [path.slice(dot + 1)]: value });
  }
  const modules = Array.from(parts, ([name, own]) => [
    name,
    new Call("torch.nn.Module", [], { _parameters: own, training: false }),
  ]);
  return new Call("torchvision.models.ResNet", [], {
    _parameters: {},
    _modules: Object.fromEntries(modules),
  });
}

function triple(...values: number[]): SavedTensor {
  const data = Float32Array.from(values);
  return { data, storage: "FloatStorage", shape: [3, 1, 1] };
}

Deno.test("importWeights() names the normaliser of either kind", () => {
  const { tensors } = network();
  const [mean, std] = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]];
  for (const [first, second] of [["mu", "sigma"], ["norm.mean", "norm.std"]]) {
    const bytes = torchZip({
      ...saved(tensors, (name) => `model.${name}`),
      [first]: triple(...mean),
      [second]: triple(...std),
    });
    assertEquals(importWeights(bytes, "a").normalization, { mean, std });
  }
});

Deno.test("importWeights() widens float16 and float64 weights", () => {
  const { tensors } = network();
  const state = saved(tensors);
  const { data, shape } = tensors["fc.weight"];
  const bytes = torchZip({
    ...state,
    "fc.weight": {
      data: Float64Array.from(data as Float32Array),
      storage: "DoubleStorage",
      shape,
    },
    "bn1.weight": {
      data: Uint16Array.of(0x3800),
      storage: "HalfStorage",
      shape: [1],
    },
  });
  const found = importWeights(bytes, "a").tensors;
  assertEquals(found["fc.weight"], tensors["fc.weight"]);
  assertEquals(found["bn1.weight"], tensor([0.5]));
});

Deno.test("importWeights() names the tensor that does not fit", () => {
  const { tensors } = network();
  const without = (name: string) => {
    const { [name]: _, ...rest } = tensors as Record<string, AnyTensor>;
    return rest;
  };
  const bytes = (found: NamedTensors) => encodeSafetensors(found);
  const large = network({ architecture: "resnet50", width: 8 }).tensors;
  const bottleneck = (...shapes: number[][]) => ({
    ...large,
    ...Object.fromEntries(
      shapes.map((shape, i) => [
        `layer1.0.conv${i + 1}.weight`,
        tensor(new Float32Array(sizeOf(shape)), shape),
      ]),
    ),
  });
  const rows: [Uint8Array, RegExp, Parameters<typeof importWeights>[2]?][] = [
    [
      bytes({ ...tensors, "fc.weight": tensor(new Float32Array(6), [3, 2]) }),
      /tensor "fc.weight" is \[3, 2\] and resnet10 in cifar form of width 1 with 3 classes wants \[3, 8\]/,
    ],
    [
      bytes(without("layer3.0.bn2.bias")),
      /tensor "layer3.0.bn2.bias" of the nearest known network, resnet10 .* is missing; known are resnet10, /,
    ],
    [
      bytes({ ...tensors, "layer5.weight": tensor([1]) }),
      /tensor "layer5.weight" \[1\] has no place in the nearest known network, resnet10 in cifar form; known are resnet10, /,
    ],
    [
      bytes(tensors),
      /tensor "layer1.1.conv1.weight" of resnet18 in cifar form is missing/,
      { architecture: "resnet18" },
    ],
    [
      bytes(tensors),
      /tensor "features.0.weight" of vgg11 .* no place for "bn1.bias"/,
      { architecture: "vgg11" },
    ],
    [
      bytes({ ...tensors, "bn1.bias": tensor([NaN]) }),
      /tensor "bn1.bias" holds NaN at index 0/,
    ],
    // As torchvision's wide_resnet50_2() and resnext50_32x4d() begin.
    [
      bytes(bottleneck([16, 8, 1, 1], [16, 16, 3, 3])),
      /it is a wide or grouped ResNet, which is not supported; known are resn/,
    ],
    [
      bytes(bottleneck([8, 8, 1, 1], [8, 1, 3, 3])),
      /it is a wide or grouped ResNet, which is not supported; known are resn/,
    ],
    [bytes({ w: tensor([1]) }), /tensors, such as "w", are those of no known/],
    [
      bytes(tensors),
      /no tensor has a name that begins with "a.": names are such as "bn1.b/,
      { prefix: "a." },
    ],
    [
      torchZip({ student: saved(tensors), teacher: saved(tensors) }),
      /several networks: pass --prefix to deno task import, one of "student.", "teacher."/,
    ],
    [torchZip({ epoch: 3 }), /holds no tensors; save the model's state_dict/],
    [
      torchZip(new Call("timm.Model", [])),
      /holds no tensors but objects such as "timm.Model"; save the model's/,
    ],
  ];
  for (const [file, wanted, options] of rows) {
    const error = assertThrows(
      () => importWeights(file, "file.pt", options),
      TypeError,
      'Cannot import "file.pt": ',
    );
    assert(wanted.test(error.message), error.message);
  }
  const both = torchZip({ student: saved(tensors), teacher: saved(tensors) });
  for (const prefix of ["teacher.", "teacher"]) {
    const found = importWeights(both, "a", { prefix });
    assertEquals(found.prefix, "teacher.");
    assertEquals({ ...found.tensors }, { ...tensors });
  }
});

Deno.test("importWeights() ends on containers that hold themselves", () => {
  const text = (letter: string) => ["X", 1, 0, 0, 0, letter] as const;
  const cyclic = torchEntries(
    Uint8Array.from(
      [0x80, 2, "}q", 0, ...text("a"), "h", 0, "s", ...text("b"), "h", 0, "s."]
        .flatMap((part) =>
          typeof part === "number"
            ? [part]
            : Array.from(part, (letter) => letter.charCodeAt(0))
        ),
    ),
    [],
  );
  assertThrows(
    () => importWeights(zipOf(cyclic), "a"),
    SyntaxError,
    "its containers hold more than 1000000 values",
  );
});

Deno.test("importWeights() ends on one large dictionary that occurs often", () => {
  const bytes: number[] = [0x80, 2, ...ops("}q", 0, "(")];
  for (let i = 0; i < 60_000; i++) {
    bytes.push(...ops("J", i & 255, i >> 8, 0, 0, "N"));
  }
  bytes.push(...ops("u0}("));
  for (let i = 0; i < 20_000; i++) { // under as many names
    const name = i.toString(36).padStart(3, "0");
    bytes.push(...ops(0x8c, 3, name, "h", 0));
  }
  bytes.push(...ops("u."));
  const pickle = Uint8Array.from(bytes);
  const start = performance.now();
  assertThrows(
    () => importWeights(zipOf(torchEntries(pickle, [])), "a"),
    SyntaxError,
    "its containers hold more than 1000000 values",
  );
  assert(performance.now() - start < 5000);
});

/** A text of a pickle. */
const text = (value: string) =>
  ops(
    ...["X", value.length & 255, value.length >> 8 & 255],
    ...[value.length >> 16, 0, value],
  );

/** 900 tensors in a dictionary that another holds under 1100 long names. */
function longNames(): Uint8Array {
  const { pickle, storages } = torchParts(counting([1]));
  const inner = Array.from(
    { length: 900 },
    (_, i) => ops(text(`${i}`), "h", 0),
  );
  const outer = Array.from(
    { length: 1100 },
    (_, i) => ops(text(`${i}`.padEnd(900, "x")), "h", 1),
  );
  const bytes = ops(
    ...[pickle.subarray(0, -1), "q", 0, "0}q", 1, "(", ...inner, "u0}("],
    ...[...outer, "u."],
  );
  return zipOf(torchEntries(bytes, storages));
}

Deno.test("importWeights() reads a file of transposed float16 alone", () => {
  const { tensors } = network({ width: 16 });
  const state = Object.fromEntries(
    Object.entries(tensors).map(([name, { shape }]) => {
      const data = new Uint16Array(sizeOf(shape)).fill(0x3c00);
      const stride = shape.map((_, axis) => sizeOf(shape.slice(0, axis)));
      return [name, { data, storage: "HalfStorage", shape, stride }];
    }),
  );
  const { tensors: found } = importWeights(torchZip(state), "a");
  for (const { data } of Object.values(found)) {
    assert((data as Float32Array).every((x) => x === 1));
  }
});

/**
 * Fails unless the answer is a network or one clean sentence, at once.
 *
 * @returns The sentence, empty if there is a network
 */
function assertClean(what: string, bytes: Uint8Array): string {
  const start = performance.now();
  let message = "";
  try {
    importWeights(bytes, "file.pt");
  } catch (error) {
    const isClean =
      (error instanceof SyntaxError || error instanceof TypeError) &&
      /^Cannot (read|read checkpoint|import) "file.pt"[^\n]{1,400}$/
        .test(error.message);
    if (!isClean) throw new Error(what, { cause: error });
    message = error.message;
  }
  assert(performance.now() - start < 3000, `${what} takes long`);
  return message;
}

Deno.test("importWeights() answers networks damaged at random cleanly", () => {
  const { tensors } = network();
  const value = { model: saved(tensors, (name) => `module.${name}`), epoch: 3 };
  const { pickle, storages } = torchParts(value);
  const legacy = torchLegacy(value);
  for (let i = 0; i < 150; i++) {
    const random = new Random(0).stream("network", i);
    const bytes = i % 2 === 0
      ? zipOf(torchEntries(mutated(pickle, random), storages))
      : mutated(legacy, random, { within: pickle.length });
    assertClean(`input ${i}`, bytes);
  }
});

Deno.test("importWeights() answers entangled containers cleanly", () => {
  for (let i = 0; i < 60; i++) {
    const value = entangled(new Random(0).stream("entangled", i));
    assertClean(`input ${i}`, (i % 2 === 0 ? torchZip : torchLegacy)(value));
  }
});

/** A tensor whose storage has that key. */
const keyed = (key: unknown) => ({ w: { ...counting([1]), key } });

/** A dictionary whose epoch is a numpy scalar of that type. */
const scalarOf = (type: unknown) => ({
  epoch: new Call("numpy.core.multiarray.scalar", [
    new Call("numpy.dtype", [type]),
    "abcd",
  ]),
});

/** A thousand objects of classes whose names begin with one long text. */
function longGlobals(): Uint8Array {
  const objects = Array.from(
    { length: 1000 },
    (_, i) => ops(text(`${i}`), "h", 0, text("b"), 0x93, ")R"),
  );
  const module = text("a".repeat(1_000_000));
  const bytes = ops(0x80, 2, module, "q", 0, "0}(", ...objects, "u.");
  return zipOf(torchEntries(bytes, []));
}

/** An archive whose storages reach into one another. */
function overlappingFiles(): Uint8Array {
  const { pickle, storages } = torchParts({ w: counting([100]) });
  const all = Array.from({ length: 10 }, () => storages[0]);
  return zipOf(torchEntries(pickle, all), {
    sizeOf: (size) => size === storages[0].length ? 10 * size : size,
  });
}

/** Failures found, by reading where mutations found none: what, and now. */
const FOUND: readonly (readonly [string, () => Uint8Array, RegExp])[] = [
  [
    "key of a storage that is lists within lists: without end",
    () => torchZip(keyed(shared(60))),
    /the key of a storage is a list, no text or integer/,
  ],
  [
    "the same in a legacy file",
    () => torchLegacy(keyed(shared(60))),
    /the key of a storage is a list, no text or integer/,
  ],
  [
    "type of a scalar that is lists within lists: without end",
    () => torchZip(scalarOf(shared(60))),
    /it holds no tensors/,
  ],
  [
    "one long text in the names of many globals: memory for each",
    longGlobals,
    /the name of a global has more than 1024 letters/,
  ],
  [
    "files that overlap: checksums of them all for each",
    overlappingFiles,
    /its files hold more than the archive/,
  ],
  [
    "one dictionary under many long names: memory for each",
    longNames,
    /the names of its tensors have more than 33554432 letters/,
  ],
  [
    "legacy file of protocol 4: not recognised",
    () => torchLegacy({}, 4),
    /it holds no tensors/,
  ],
];

Deno.test("importWeights() answers what was found cleanly and at once", () => {
  for (const [what, make, wanted] of FOUND) {
    const message = assertClean(what, make());
    assert(wanted.test(message), `${what}: ${message}`);
  }
});
