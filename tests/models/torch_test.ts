/**
 * Files of torch.save(), as PyTorch 1.13 wrote them, and as nobody should.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { type AnyTensor, Random } from "../../core/mod.ts";
import {
  decodeTorch,
  isTorchFile,
  numberOf,
  TorchTensor,
} from "../../models/torch.ts";
import { crc32, readZip } from "../../models/zip.ts";
import { readBytes, readDescription } from "../_fixtures.ts";
import { entangled, mutated } from "./_mutate.ts";
import {
  Call,
  counting,
  LEGACY_HEAD,
  ops,
  shared,
  torchEntries,
  torchLegacy,
  torchParts,
  torchZip,
  zipOf,
} from "./_torch_file.ts";

type Named = ReadonlyMap<string, TorchTensor>;

const fail = (what: string): never => {
  throw new SyntaxError(what);
};

function named(bytes: Uint8Array): Named {
  return decodeTorch(bytes, "file.pt").value as Named;
}

interface Odd {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly stride: readonly number[];
  readonly storage_offset: number;
  readonly values: readonly number[];
}

const ODD_TYPES: Readonly<Record<string, AnyTensor["dtype"]>> = {
  "torch.float32": "float32",
  "torch.float64": "float32",
  "torch.float16": "float32",
  "torch.bfloat16": "float32",
  "torch.int64": "int64",
  "torch.int32": "int64",
  "torch.uint8": "uint8",
  "torch.bool": "bool",
};

for (const format of ["zip", "legacy"] as const) {
  Deno.test(`decodeTorch() reads odd tensors of the ${format} form`, async () => {
    const { odd_tensors: odd } = await readDescription<
      { readonly odd_tensors: Readonly<Record<string, Odd>> }
    >("checkpoint_contents");
    const bytes = await readBytes(`odd_tensors_${format}.pt`);
    const file = decodeTorch(bytes, "odd");
    assertEquals(file.format, format);
    const tensors = file.value as Named;
    assertEquals([...tensors.keys()], Object.keys(odd));
    for (const [name, tensor] of tensors) {
      const { dtype, shape, stride, storage_offset, values } = odd[name];
      assertEquals(tensor.shape, shape, name);
      assertEquals(tensor.stride, stride, name);
      assertEquals(tensor.offset, storage_offset, name);
      const read = tensor.read(name);
      assertEquals(read.dtype, ODD_TYPES[dtype], name);
      const wanted = dtype === "torch.float64"
        ? values.map(Math.fround)
        : values;
      assertEquals(Array.from(read.data as ArrayLike<unknown>, Number), wanted);
    }
  });
}

Deno.test("decodeTorch() reads what the writer of these tests wrote", () => {
  const half = Uint16Array.of(0x3c00, 0xc000, 0x3800, 0x7bff);
  const value = {
    half: {
      data: half,
      storage: "HalfStorage",
      shape: [2, 2],
      stride: [1, 2],
    },
    plain: counting([2, 3]),
    opaque: new Call("a.B", [1], { c: null }),
  };
  for (const bytes of [torchZip(value), torchLegacy(value)]) {
    assert(isTorchFile(bytes));
    const tensors = named(bytes);
    assertEquals(
      [...tensors.get("half")!.read("half").data as Float32Array],
      [1, 0.5, -2, 65504],
    );
    assertEquals(
      [...tensors.get("plain")!.read("plain").data as Float32Array],
      [0, 1, 2, 3, 4, 5],
    );
  }
});

Deno.test("decodeTorch() reads every protocol from 2 to 5 in both forms", () => {
  const value = { plain: counting([2, 3]), opaque: new Call("a.B", [1]) };
  for (const protocol of [2, 3, 4, 5]) {
    const files = {
      zip: torchZip(value, protocol),
      legacy: torchLegacy(value, protocol),
    };
    for (const [format, bytes] of Object.entries(files)) {
      assert(isTorchFile(bytes), `${format} ${protocol}`);
      assertEquals(decodeTorch(bytes, "file.pt").format, format);
      assertEquals(
        [...named(bytes).get("plain")!.read("plain").data as Float32Array],
        [0, 1, 2, 3, 4, 5],
      );
    }
  }
});

Deno.test("decodeTorch() aligns the storages of the legacy form in place", () => {
  const wide = Float64Array.of(1, 2, 3), long = BigInt64Array.of(1n, -2n);
  const value = (pad: string) => ({
    [`byte${pad}`]: {
      data: Uint8Array.of(1, 2, 3),
      storage: "ByteStorage",
      shape: [3],
    },
    float: counting([2, 3], 1),
    wide: { data: wide, storage: "DoubleStorage", shape: [3] },
    other: counting([5], 9),
    long: { data: long, storage: "LongStorage", shape: [2] },
  });
  for (let pad = 0; pad < 8; pad++) {
    const file = torchLegacy(value("x".repeat(pad)));
    // The file itself may begin anywhere in its buffer.
    const buffer = new ArrayBuffer(file.length + pad);
    const bytes = new Uint8Array(buffer, pad);
    bytes.set(file);
    const tensors = named(bytes);
    const elements = (name: string) =>
      Array.from(tensors.get(name)!.read(name).data as Float32Array, Number);
    assertEquals(elements("wide"), [1, 2, 3]);
    assertEquals(elements("other"), [9, 10, 11, 12, 13]);
    assertEquals(elements(`byte${"x".repeat(pad)}`), [1, 2, 3]);
    assertEquals(elements("long"), [1, -2]);
    assertEquals(elements("float"), [1, 2, 3, 4, 5, 6]);
    for (const name of ["float", "other", "long"]) {
      const { data } = tensors.get(name)!.read(name);
      assert(data.buffer === buffer, `${name} is a copy`);
    }
  }
});

Deno.test("numberOf() reads numbers, tensors of one element and numpy scalars", async () => {
  const { value } = decodeTorch(
    await readBytes("checkpoint_legacy_cuda.pt"),
    "cuda",
  );
  const top = value as ReadonlyMap<string, unknown>;
  assertEquals(numberOf(top.get("epoch")), 3);
  assertEquals(numberOf(top.get("adv_prec1")), 43.75);
  const optimizer = top.get("optimizer") as ReadonlyMap<string, unknown>;
  const [group] = optimizer.get("param_groups") as ReadonlyMap<
    string,
    unknown
  >[];
  assertEquals(numberOf(group.get("lr")), 0.05);
  assertEquals(numberOf(top.get("model")), null);
  assertEquals(numberOf("3"), null);
});

Deno.test("numberOf() takes no list that holds itself for a type's name", () => {
  const dtype = new Call("numpy.dtype", [shared(60)]);
  const scalar = new Call("numpy.core.multiarray.scalar", [dtype, "abcd"]);
  const { value } = decodeTorch(torchZip({ epoch: scalar }), "file.pt");
  const top = value as ReadonlyMap<string, unknown>;
  assertEquals(numberOf(top.get("epoch")), null);
});

Deno.test("crc32() is that of zip archives", () => {
  assertEquals(crc32(ops("123456789")), 0xcbf43926);
  assertEquals(crc32(ops("1234567812345678!")), 0xcb0515ab);
  assertEquals(crc32(new Uint8Array()), 0);
});

const NET = { w: counting([4, 4]) };
const { pickle, storages } = torchParts(NET);
const ENTRIES = torchEntries(pickle, storages);

/** An archive whose storages reach into one another. */
const OVERLAPPING = zipOf(
  torchEntries(pickle, Array.from({ length: 10 }, () => storages[0])),
  { sizeOf: (size) => size === storages[0].length ? 10 * size : size },
);

/** What each wrong file is answered by. */
const WRONG: readonly (readonly [string, Uint8Array, RegExp])[] = [
  ["nothing", ops(), /the file is truncated/],
  ["text", ops("hello"), /its pickle is damaged: it recalls value 101 before/],
  ["other pickle", ops(0x80, 2, "N."), /does not begin as torch.save\(\) does/],
  ["zip head", ops("PK", 3, 4), /lacks the directory at its end.*truncated/],
  ["cut zip", zipOf(ENTRIES).subarray(0, 300), /truncated/],
  ["cut legacy", torchLegacy(NET).subarray(0, -1), /truncated/],
  ["cut pickle", torchLegacy(NET).subarray(0, 100), /truncated/],
  ["other zip", zipOf({ "a.txt": ops("a") }), /0 files "data.pkl" and not 1/],
  [
    "two archives",
    zipOf({ "a/data.pkl": pickle, "b/data.pkl": pickle }),
    /2 files "data.pkl" and not 1/,
  ],
  [
    "TorchScript",
    zipOf({ ...ENTRIES, "archive/constants.pkl": ops(0x80, 2, ").") }),
    /TorchScript program: save the model's state_dict/,
  ],
  [
    "big-endian zip",
    zipOf({ ...ENTRIES, "archive/byteorder": ops("big") }),
    /big-endian/,
  ],
  ["deflated zip", zipOf(ENTRIES, { method: 8 }), /compressed.*pack it again/],
  ["encrypted zip", zipOf(ENTRIES, { flags: 1 }), /is encrypted/],
  ["zip of more", zipOf(ENTRIES, { count: 60000 }), /directory .* is damaged/],
  [
    "zip of huge files",
    zipOf(ENTRIES, { sizeOf: () => 0xfffffff0 }),
    /its files hold more than the archive/,
  ],
  [
    "zip of a file beyond its end",
    zipOf({ "a/data.pkl": pickle }, { sizeOf: (size) => size + 100 }),
    /"a\/data.pkl" lies beyond the end/,
  ],
  ["zip of files that overlap", OVERLAPPING, /hold more than the archive/],
  ["no storage", zipOf(torchEntries(pickle, [])), /lacks "archive\/data\/0"/],
  [
    "short storage",
    zipOf(torchEntries(pickle, [storages[0].subarray(4)])),
    /has 60 bytes and its pickle says 64/,
  ],
  [
    "stride beyond",
    torchZip({ w: { ...counting([4, 4]), stride: [5, 1] } }),
    /shape \[4,4\] needs element 18 of storage "0", which has 16/,
  ],
  [
    "huge by stride 0",
    torchZip({ w: { ...counting([1]), shape: [1e9, 1e9], stride: [0, 0] } }),
    /repeats the 1 elements of storage "0" too often/,
  ],
  [
    "negative stride",
    torchZip({ w: { ...counting([4]), stride: [-1] } }),
    /offset, size or stride is malformed/,
  ],
  [
    "absurd storage",
    torchLegacy({ w: { ...counting([4]), claimed: 2 ** 31 - 1 } }),
    /hold 2147483647 elements, more than the file/,
  ],
  [
    "complex elements",
    torchZip({ w: { ...counting([4]), storage: "ComplexFloatStorage" } }),
    /elements are of "torch.ComplexFloatStorage", which is not supported/,
  ],
  [
    "unlisted storage",
    ops(...LEGACY_HEAD, 0x80, 2, "N.", 0x80, 2, "](X", 1, 0, 0, 0, "7e."),
    /lists a storage "7" of which it has no use/,
  ],
  [
    "unlisted storage of a number",
    ops(...LEGACY_HEAD, 0x80, 2, "N.", 0x80, 2, "](K", 7, "e."),
    /lists a storage "7" of which it has no use/,
  ],
  [
    "storage of a list that holds itself",
    torchZip({ w: { ...counting([4]), key: shared(60) } }),
    /the key of a storage is a list, no text or integer/,
  ],
  [
    "legacy storage of a list that holds itself",
    torchLegacy({ w: { ...counting([4]), key: shared(60) } }),
    /the key of a storage is a list, no text or integer/,
  ],
  [
    "list of storages that holds itself",
    ops(
      ...[...LEGACY_HEAD, 0x80, 2, "N.", 0x80, 2, "](", shared(60).bytes],
      "e.",
    ),
    /the key of a storage is a list, no text or integer/,
  ],
  [
    "version of a list that holds itself",
    ops(
      ...[...LEGACY_HEAD[0], 0x80, 2, shared(60).bytes, "."],
    ),
    /its stream is of version a list, not 1001/,
  ],
  [
    "no list of storages",
    ops(...LEGACY_HEAD, 0x80, 2, "N.", 0x80, 2, "N."),
    /lacks the list of its storages/,
  ],
];

Deno.test("decodeTorch() says what is wrong with a file in one sentence", () => {
  for (const [what, bytes, wanted] of WRONG) {
    const start = performance.now();
    const error = assertThrows(
      () => named(bytes).forEach((tensor, name) => tensor.read(name)),
      SyntaxError,
      'Cannot read "file.pt" as PyTorch\'s: ',
      what,
    );
    assert(performance.now() - start < 2000, `${what} takes long`);
    assert(wanted.test(error.message), `${what}: ${error.message}`);
    assert(!error.message.includes("\n"));
  }
});

Deno.test("decodeTorch() finds a changed element by its checksum", () => {
  const bytes = zipOf(ENTRIES);
  const at = bytes.length - 300;
  const value = named(bytes.with(at, bytes[at] ^ 1));
  assertThrows(
    () => value.get("w")!.read("w"),
    SyntaxError,
    'the checksum of "archive/data/0" in its zip archive is wrong',
  );
});

Deno.test("read() refuses tensors that unfold to far more than the file", () => {
  // Each is as large as the one storage of 4 MB, transposed.
  const { data } = counting([1000, 1000]);
  const views = Array.from({ length: 20 }, (_, i) => [
    `${i}`,
    { data, storage: "FloatStorage", shape: [1000, 1000], stride: [1, 1000] },
  ]);
  const tensors = named(torchZip(Object.fromEntries(views)));
  assertThrows(
    () => tensors.forEach((tensor, name) => tensor.read(name)),
    SyntaxError,
    "unfold to far more than the file holds",
  );
});

Deno.test("decodeTorch() answers files damaged at random cleanly and at once", async () => {
  const zip = await readBytes("odd_tensors_zip.pt");
  const legacy = await readBytes("odd_tensors_legacy.pt");
  const files = Object.fromEntries(
    Array.from(readZip(zip, fail), ([name, file]) => [name, file.read()]),
  );
  const name = "odd_tensors_zip/data.pkl";
  const makers: Readonly<Record<string, (random: Random) => Uint8Array>> = {
    legacy: (random) => mutated(legacy, random),
    zip: (random) => mutated(zip, random),
    entangled: (random) =>
      [torchZip, torchLegacy][random.integer(2)](entangled(random)),
    // With a checksum that is right, the pickle is read.
    pickle: (random) =>
      zipOf({ ...files, [name]: mutated(files[name], random) }),
  };
  let read = 0, refused = 0;
  for (const [maker, make] of Object.entries(makers)) {
    for (let i = 0; i < 1000; i++) {
      const bytes = make(new Random(0).stream(maker, i));
      const start = performance.now();
      try {
        const value = decodeTorch(bytes, "file.pt").value;
        if (value instanceof Map) {
          for (const tensor of value.values()) {
            if (tensor instanceof TorchTensor) tensor.read("tensor");
            numberOf(tensor);
          }
        }
        read++;
      } catch (error) {
        const isClean = error instanceof SyntaxError &&
          /^Cannot read "file.pt" as PyTorch's: [^\n]{1,400}$/
            .test(error.message);
        if (!isClean) throw new Error(`${maker} ${i}`, { cause: error });
        refused++;
      }
      assert(performance.now() - start < 2000, `${maker} ${i} takes long`);
    }
  }
  assert(read > 50 && refused > 1000, `${read} read, ${refused} refused`);
});
