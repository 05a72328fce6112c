import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  type AnyTensor,
  type NamedTensors,
  Random,
  tensor,
  tensorOf,
} from "../../core/mod.ts";
import { sha256 } from "../../models/checkpoint.ts";
import {
  decodeMetadata,
  decodeSafetensors,
  encodeSafetensors,
} from "../../models/safetensors.ts";

const FIXTURE = new URL(
  "../fixtures/checkpoint_contents.safetensors",
  import.meta.url,
);

/** A file of a given header text and data, valid or not. */
function file(
  header: string,
  data: ArrayLike<number> = [],
): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return bytes;
}

/** A file of one tensor "x" of shape `[n]`. */
function fileOf(dtype: string, array: ArrayBufferView, n: number) {
  const raw = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  return file(
    JSON.stringify({
      x: { dtype, shape: [n], data_offsets: [0, raw.length] },
    }),
    raw,
  );
}

function decodeX(bytes: Uint8Array): AnyTensor {
  return decodeSafetensors(bytes, "a").tensors.x;
}

/** Decodes and returns the one clean error it gives, or null. */
function problemOf(bytes: Uint8Array): string | null {
  try {
    decodeSafetensors(bytes, "a.safetensors");
    return null;
  } catch (error) {
    assertInstanceOf(error, SyntaxError);
    assertMatch(error.message, /^Cannot read checkpoint "a\.safetensors": ./);
    assert(!error.message.includes("\n"), error.message);
    return error.message;
  }
}

const EXAMPLE: NamedTensors = {
  weight: tensor([1, -2.5, 3e-40, -0, Infinity, NaN], [2, 3]),
  scalar: tensor([7], []),
  empty: tensor([], [0, 4]),
  count: tensorOf("int64", BigInt64Array.of(-(2n ** 63n), 5n), [2]),
  bytes: tensorOf("uint8", Uint8Array.of(0, 127, 255), [3]),
  mask: tensorOf("bool", Uint8Array.of(1, 0, 1), [3, 1]),
};

Deno.test("encodeSafetensors() round-trips every dtype and metadata", () => {
  const metadata: Record<string, string> = {
    card: '{"a":"\u00e9\\n"}',
    "": "empty key",
  };
  const bytes = encodeSafetensors(EXAMPLE, metadata);
  const read = decodeSafetensors(bytes, "a");
  assertEquals({ ...read.metadata }, metadata);
  assertEquals({ ...read.tensors }, { ...EXAMPLE });
});

Deno.test("encodeSafetensors() writes equal bytes for equal content", () => {
  const reversed = Object.fromEntries(Object.entries(EXAMPLE).reverse());
  assertEquals(
    encodeSafetensors(reversed, { b: "1", a: "2" }),
    encodeSafetensors(EXAMPLE, { a: "2", b: "1" }),
  );
});

Deno.test("encodeSafetensors() of nothing is a valid file", () => {
  const { tensors, metadata } = decodeSafetensors(encodeSafetensors({}), "a");
  assertEquals([Object.keys(tensors), Object.keys(metadata)], [[], []]);
});

Deno.test("encodeSafetensors() refuses malformed tensors and metadata", () => {
  const wrong = { ...tensor([1]), shape: [2] };
  assertThrows(
    () => encodeSafetensors({ "a b": wrong }),
    TypeError,
    'Cannot write tensor "a b" of shape [2]: it has 1 elements and needs 2',
  );
  assertThrows(
    () => encodeSafetensors({ __metadata__: tensor([1]) }),
    TypeError,
    "the format reserves that name",
  );
  assertThrows(
    () => encodeSafetensors({}, { n: 1 as unknown as string }),
    TypeError,
    'Cannot write metadata "n": it must be text and is of type number',
  );
});

Deno.test("decodeSafetensors() reads the values numpy reads", async () => {
  // python3: struct for the header, numpy.frombuffer for the elements
  const bytes = await Deno.readFile(FIXTURE);
  const { tensors } = decodeSafetensors(bytes, "fixture");
  assertEquals(Object.keys(tensors).length, 122);
  const expected = {
    "state/conv1.weight": {
      shape: [8, 3, 3, 3],
      first: [-0.03247525170445442, -0.12742987275123596, 0.15476073324680328],
      sum: -0.20630888680170756,
    },
    "state/linear.bias": {
      shape: [10],
      first: [-0.05326433107256889, 0.12055834382772446, -0.08561387658119202],
      sum: -0.19236795930191875,
    },
    "state/bn1.running_var": {
      shape: [8],
      first: [0.914351761341095, 0.3712902367115021, 0.8128170967102051],
      sum: 5.499139219522476,
    },
  };
  for (const [name, { shape, first, sum }] of Object.entries(expected)) {
    const { dtype, data, shape: found } = tensors[name];
    assert(dtype === "float32");
    assertEquals(found, shape);
    assertEquals([...(data as Float32Array).subarray(0, 3)], first);
    const total = (data as Float32Array).reduce((a, b) => a + b, 0);
    assertAlmostEquals(total, sum, 1e-12);
  }
  assertEquals(
    tensors["state/bn1.num_batches_tracked"],
    tensorOf("int64", BigInt64Array.of(12n), []),
  );
});

Deno.test("decodeSafetensors() reads data at any alignment", async () => {
  const whole = await Deno.readFile(FIXTURE);
  const expected = decodeSafetensors(whole, "a").tensors;
  for (const shift of [1, 2, 3, 4, 5, 7]) {
    // Both a header of odd length and a view at an odd offset.
    const length = new DataView(whole.buffer).getUint32(0, true);
    const header = new TextDecoder().decode(whole.subarray(8, 8 + length));
    const padded = file(
      header + " ".repeat(shift),
      whole.subarray(8 + length),
    );
    const moved = new Uint8Array(padded.length + shift).subarray(shift);
    moved.set(padded);
    assertEquals(decodeSafetensors(padded, "a").tensors, expected);
    assertEquals(decodeSafetensors(moved, "a").tensors, expected);
  }
});

Deno.test("decodeSafetensors() widens F64, BF16 and I32", () => {
  assertEquals(
    decodeX(fileOf("F64", Float64Array.of(0.1, -1e-300, Infinity), 3)),
    tensor([Math.fround(0.1), -0, Infinity]),
  );
  // numpy: (uint32(bits) << 16).view(float32)
  assertEquals(
    decodeX(fileOf("BF16", Uint16Array.of(0x3f80, 0xc049, 1, 0xff80), 4)),
    tensor([1, -3.140625, 2 ** -133, -Infinity]),
  );
  assertEquals(
    decodeX(fileOf("I32", Int32Array.of(-(2 ** 31), 5), 2)),
    tensorOf("int64", BigInt64Array.of(-(2n ** 31n), 5n), [2]),
  );
});

Deno.test("decodeSafetensors() widens every F16 as numpy does", async () => {
  const { data } = decodeX(
    fileOf("F16", Uint16Array.from({ length: 65536 }, (_, i) => i), 65536),
  );
  const numbers = Float32Array.from(data as Float32Array)
    .filter((value) => !Number.isNaN(value));
  assertEquals(numbers.length, 65536 - 2 * 1023);
  // numpy: h = arange(65536, dtype=uint16).view(float16)
  //        sha256(h.astype(float32)[~isnan(h)])
  assertEquals(
    await sha256(new Uint8Array(numbers.buffer)),
    "680bbc22915f61aa1bbfc7265bc3882a6aa42d299bfd2c571807196e5544de2e",
  );
});

Deno.test("encodeSafetensors() rounds to F16 as numpy does", async () => {
  // numpy: x = arange(0, 2**32, 65521).astype(uint32).view(float32)
  //        y = x.astype(float16); ok = ~isnan(x) & (isfinite(y) | isinf(x))
  //        sha256(y[ok])
  const words = Uint32Array.from(
    { length: Math.ceil(2 ** 32 / 65521) },
    (_, i) => i * 65521,
  );
  const kept = new Float32Array(words.buffer)
    .filter((x) => Math.abs(x) < 65520 || Math.abs(x) === Infinity);
  assertEquals(kept.length, 36617);
  const bytes = encodeSafetensors({ x: tensor(kept) }, {}, { float16: true });
  assertEquals(
    await sha256(bytes.subarray(bytes.length - 2 * kept.length)),
    "5094c933c894ac21c786082143df478ab939c36e0c82b12d7e2afaf1645a219c",
  );
});

Deno.test("encodeSafetensors() rounds ties to even F16, subnormals too", () => {
  const unit = 2 ** -24; // least float16
  const cases: [number, number][] = [
    [unit / 2, 0],
    [-unit / 2, -0],
    [unit / 2 + 2 ** -40, unit],
    [unit * 1.5, unit * 2],
    [unit * 2.5, unit * 2],
    [2 ** -14 - unit / 2, 2 ** -14], // largest subnormal's tie
    [1 + 2 ** -11, 1],
    [1 + 3 * 2 ** -11, 1 + 2 ** -9],
    [65519, 65504],
    [-Infinity, -Infinity],
    [NaN, NaN],
    [-0, -0],
  ];
  const values = tensor(cases.map(([value]) => value));
  const bytes = encodeSafetensors({ x: values }, {}, { float16: true });
  assertEquals(decodeX(bytes), tensor(cases.map(([, rounded]) => rounded)));
});

Deno.test("encodeSafetensors() refuses values beyond F16", () => {
  const bias = tensor([0, -65520]);
  assertThrows(
    () => encodeSafetensors({ "fc.bias": bias }, {}, { float16: true }),
    RangeError,
    'Cannot store tensor "fc.bias" as float16: -65520 at index 1 is beyond ' +
      "65504; store float32",
  );
});

Deno.test("decodeSafetensors() takes names of Object.prototype literally", () => {
  const names = ["__proto__", "constructor", "toString", "hasOwnProperty"];
  const tensors: Record<string, AnyTensor> = Object.create(null);
  names.forEach((name, i) => tensors[name] = tensor([i]));
  const metadata: Record<string, string> = Object.create(null);
  metadata.__proto__ = "text";
  const read = decodeSafetensors(encodeSafetensors(tensors, metadata), "a");
  assertEquals(Object.keys(read.tensors).sort(), names.toSorted());
  assertEquals(read.tensors.__proto__, tensor([0]));
  assertEquals(read.metadata.__proto__, "text");
  assertEquals(Object.getPrototypeOf(read.tensors), null);
  assertEquals(({} as Record<string, unknown>).shape, undefined);
  assertEquals(decodeSafetensors(file("{}"), "a").tensors.toString, undefined);
});

Deno.test("decodeSafetensors() says what is wrong in one sentence", () => {
  const entry = (changes: object, name = "x") =>
    JSON.stringify({
      [name]: { dtype: "U8", shape: [2], data_offsets: [0, 2], ...changes },
    });
  const u8 = '{"dtype":"U8","shape":[1],"data_offsets":';
  const huge = new Uint8Array(20).fill(0xff);
  const cases: [Uint8Array, string][] = [
    [new Uint8Array(), "the file is empty"],
    [new Uint8Array(5), "has 5 bytes, too few for the header length"],
    [huge, "claims a header of 18446744073709551615 bytes, more than the"],
    [file("{}").subarray(0, 9), "header of 2 bytes but only 1 follow"],
    [file("\xff").with(8, 0xff), "the header is not valid UTF-8"],
    [file("\ufeff{}"), "the header is not valid JSON"],
    [file("{"), "the header is not valid JSON"],
    [file(""), "the header is not valid JSON"],
    [file("[1]"), "the header must be a JSON object and is [1]"],
    [file("null"), "the header must be a JSON object and is null"],
    [file('{"__metadata__":3}'), "the metadata must be a JSON object and is 3"],
    [file('{"__metadata__":{"a":3}}'), 'metadata "a" must be text and is 3'],
    [file('{"x":3}'), 'the entry of tensor "x" must be an object and is 3'],
    [file('{"x":{}}'), 'tensor "x" has dtype nothing, which must be one of'],
    [file(entry({ dtype: "F8_E4M3" })), 'has dtype "F8_E4M3", which must be'],
    [file(entry({ dtype: "toString" })), 'has dtype "toString"'],
    [file(entry({ shape: "2" })), 'has shape "2", which must list integers'],
    [file(entry({ shape: [-1] })), "has shape [-1], which must list integers"],
    [file(entry({ shape: [1.5] })), "has shape [1.5]"],
    [file(entry({ data_offsets: [0] })), "offsets [0], which must be two"],
    [file(entry({ data_offsets: [2, 0] })), "offsets [2,0], which must be two"],
    [file(entry({ data_offsets: [-1, 1] })), "has offsets [-1,1]"],
    [
      file(entry({}), [1]),
      "ends at byte 2 of the data but the file has only 1",
    ],
    [file(entry({ shape: [3] }), [1, 2]), "[3] and dtype U8 needs 3 bytes but"],
    [file(entry({ dtype: "F32" }), [1, 2]), "needs 8 bytes but its offsets sp"],
    [
      file(entry({ shape: [2 ** 40, 2 ** 40] }), [1, 2]),
      "bytes but its offset",
    ],
    [file(entry({}), [1, 2, 3]), "1 bytes after the last tensor belong to no"],
    [file("{}", [1]), "1 bytes after the last tensor belong to no tensor"],
    [
      file(`{"a":${u8}[0,1]},"b":${u8}[0,1]}}`, [1]),
      'tensors "a" and "b" overlap at byte 0',
    ],
    [
      file(`{"a":${u8}[0,1]},"b":${u8}[2,3]}}`, [1, 2, 3]),
      'bytes 1 to 2 of the data, before tensor "b", belong to no tensor',
    ],
    [
      file(`{"a":${u8}[0,1]},"\\u0061" :${u8}[1,2]}}`, [1, 2]),
      'the header has "a" twice',
    ],
    [
      file(`{"a":{"dtype":"F32",${u8.slice(1)}[0,1]}}`, [1]),
      'the header has "dtype" twice',
    ],
    [file(entry({ dtype: "BOOL" }), [1, 2]), "BOOL holds 2 at index 1, which"],
    [
      fileOf("F64", Float64Array.of(1, 1e39), 2),
      'tensor "x" holds 1e+39 at index 1, too large for float32',
    ],
    [file(entry({ dtype: "?" }, "a\nb")), 'tensor "a\\nb" has dtype "?"'],
    [
      file(`{"x":{"dtype":"U8","shape":${"[".repeat(1e5)}${"]".repeat(1e5)}}}`),
      'tensor "x" has shape ',
    ],
  ];
  for (const [bytes, expected] of cases) {
    const problem = problemOf(bytes);
    assert(problem, `accepted where expected: ${expected}`);
    assertStringIncludes(problem, expected);
    assert(problem.length < 300, problem);
  }
});

Deno.test("decodeSafetensors() refuses a file cut anywhere", async () => {
  for (
    const bytes of [encodeSafetensors(EXAMPLE), await Deno.readFile(FIXTURE)]
  ) {
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header: Record<string, { data_offsets: number[] }> = JSON.parse(
      new TextDecoder().decode(bytes.subarray(8, 8 + length)),
    );
    const cuts = new Set([0, 1, 7, 8, 9, 8 + length - 1, 8 + length]);
    for (const { data_offsets } of Object.values(header)) {
      for (const offset of data_offsets) {
        for (const near of [-1, 0, 1]) cuts.add(8 + length + offset + near);
      }
    }
    const random = new Random(0, ["cuts"]);
    for (let i = 0; i < 300; i++) cuts.add(random.integer(bytes.length));
    for (const cut of cuts) {
      if (cut < bytes.length) {
        assert(problemOf(bytes.subarray(0, cut)), `accepted at ${cut} bytes`);
      }
    }
  }
});

Deno.test("decodeSafetensors() gives a clean error for damaged headers", () => {
  const original = encodeSafetensors(EXAMPLE, { card: "{}" });
  const length = Number(new DataView(original.buffer).getBigUint64(0, true));
  const random = new Random(0, ["mutations"]);
  const digits = new TextEncoder().encode('0123456789-.eE"[]{},:');
  let refused = 0;
  for (let i = 0; i < 5000; i++) {
    const bytes = original.slice();
    const changes = 1 + random.integer(3);
    for (let k = 0; k < changes; k++) {
      const at = random.integer(8 + length);
      bytes[at] = random.integer(2)
        ? random.integer(256)
        : digits[random.integer(digits.length)];
    }
    if (problemOf(bytes)) refused++;
  }
  // Names, texts and padding may change without harm; the rest may not.
  assert(refused > 2500, `only ${refused} of 5000 refused`);
});

Deno.test("decodeMetadata() reads the texts of a file's beginning alone", () => {
  const bytes = encodeSafetensors({ w: tensor([1, 2]) }, { card: "{}" });
  const start = bytes.subarray(0, bytes.length - 8);
  assertEquals({ ...decodeMetadata(start, "a") }, { card: "{}" });
  assertEquals({ ...decodeMetadata(encodeSafetensors({}), "a") }, {});
  assertThrows(
    () => decodeMetadata(bytes.subarray(0, 20), "a"),
    SyntaxError,
    'Cannot read checkpoint "a": it claims a header of',
  );
});
