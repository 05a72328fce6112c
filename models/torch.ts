/**
 * Files that PyTorch's `torch.save()` wrote, in both of its forms: the zip
 * archive, and the legacy stream of before version 1.6. Nothing in them is
 * executed: pickles become plain containers, see `pickle.ts`.
 *
 * @module
 */
import { type AnyTensor, type Shape, sizeOf } from "../core/mod.ts";
import {
  decodeElements,
  type Fail,
  ITEM_SIZES,
  quote,
  type StoredType,
} from "./elements.ts";
import { Global, Opaque, unpickle } from "./pickle.ts";
import { isZip, readZip, type ZipFile } from "./zip.ts";

/** What `torch.save()` wrote. */
export interface TorchFile {
  /** Which of the two forms it has. */
  readonly format: "zip" | "legacy";
  /**
   * The object saved, as `unpickle()` describes it, with
   * {@linkcode TorchTensor}s for tensors. May contain itself.
   */
  readonly value: unknown;
}

/** Elements that tensors of a file share. */
class Storage {
  /** Makes its bytes known; where they are is known after the pickle. */
  locate: () => Uint8Array = () => new Uint8Array();
  #bytes: Uint8Array | undefined;

  /**
   * @param key Names it within the file
   * @param type How its elements are stored; null where tensors tell
   * @param size Its length in bytes
   */
  constructor(
    readonly key: string,
    readonly type: StoredType | null,
    readonly size: number,
  ) {}

  get bytes(): Uint8Array {
    return this.#bytes ??= this.locate();
  }
}

/** What all tensors of a file share. */
interface FileContext {
  readonly fail: Fail;
  /** Bytes that tensors may still be copied to. */
  copies: number;
}

/**
 * Copies may hold this many times the bytes of the file: an honest file of
 * transposed float16 needs 3.
 */
const COPIES_PER_BYTE = 4;

/** A tensor may repeat elements of its storage, by a stride of 0, so often. */
const MAX_REPEATED = 1 << 16;

const MAX_AXES = 8;

/** A tensor of a file: a view of a storage, whose elements are read later. */
export class TorchTensor {
  readonly #storage: Storage;
  readonly #context: FileContext;

  constructor(
    storage: Storage,
    /** How the elements are stored. */
    readonly type: StoredType,
    /** Sizes of the axes. */
    readonly shape: Shape,
    /** Distance along each axis, in elements. */
    readonly stride: readonly number[],
    /** First element within the storage. */
    readonly offset: number,
    context: FileContext,
  ) {
    this.#storage = storage;
    this.#context = context;
  }

  /**
   * Reads the elements; they share the file's memory where they lie in order,
   * aligned and as float32, int64, uint8 or bool.
   *
   * @param name What the tensor is, for errors
   * @returns Row-major, float32 for every floating type, int64 for integers
   * @throws {SyntaxError} If the elements are damaged or unfold to far more
   *   than the file holds
   */
  read(name: string): AnyTensor {
    const { type, shape, stride, offset } = this;
    const context = this.#context;
    const item = ITEM_SIZES[type];
    const count = sizeOf(shape);
    const { bytes } = this.#storage;
    const isInPlace = isRowMajor(shape, stride);
    const widened = type.startsWith("I") ? 8 : type.includes("F") ? 4 : 1;
    context.copies -= count * (widened + (isInPlace ? 0 : item));
    if (context.copies < 0) {
      context.fail(
        `tensor ${quote(name)} [${shape}]: its tensors unfold to far more ` +
          `than the file holds`,
      );
    }
    const start = offset * item;
    const raw = isInPlace
      ? bytes.subarray(start, start + count * item)
      : gather(bytes.subarray(start), item, shape, stride);
    return decodeElements(type, raw, { shape, name, fail: context.fail });
  }
}

/** Whether the elements follow one another in the storage. */
function isRowMajor(shape: Shape, stride: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && stride[axis] !== expected) {
      return sizeOf(shape) < 1;
    }
    expected *= shape[axis];
  }
  return true;
}

/** Copies elements into row-major order. */
function gather(
  bytes: Uint8Array,
  item: number,
  shape: Shape,
  stride: readonly number[],
): Uint8Array {
  const result = new Uint8Array(sizeOf(shape) * item);
  const index = shape.map(() => 0);
  let from = 0;
  for (let at = 0; at < result.length; at += item) {
    for (let i = 0; i < item; i++) result[at + i] = bytes[from * item + i];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += stride[axis];
      if (++index[axis] < shape[axis]) break;
      from -= stride[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return result;
}

/** What the legacy stream begins with: a pickle of this integer. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;
const LEGACY_VERSION = 1001;

/** How a pickle of that integer goes on behind its protocol. */
const LEGACY_START = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9];

/**
 * Whether bytes begin like a file of `torch.save()`, in either form; any zip
 * archive does.
 */
export function isTorchFile(bytes: Uint8Array): boolean {
  if (isZip(bytes)) return true;
  // From protocol 4 on, the length of a frame may come first.
  const start = bytes[2] === 0x95 ? 11 : 2;
  return bytes[0] === 0x80 &&
    LEGACY_START.every((byte, i) => bytes[start + i] === byte);
}

/**
 * Reads a file of `torch.save()`, see `isTorchFile()`. Only the containers are read at once, the
 * elements of a tensor when asked for.
 *
 * @param bytes The whole file, which is taken over: tensors share its memory,
 *   and those of the legacy form are moved within it to be aligned
 * @param source Its name, for errors
 * @throws {SyntaxError} If the bytes are no such file, or are damaged
 */
export function decodeTorch(bytes: Uint8Array, source: string): TorchFile {
  const fail: Fail = (what) => {
    throw new SyntaxError(`Cannot read "${source}" as PyTorch's: ${what}`);
  };
  const context = { fail, copies: COPIES_PER_BYTE * bytes.length + (1 << 20) };
  if (isZip(bytes)) {
    return { format: "zip", value: decodeZip(bytes, context) };
  }
  return { format: "legacy", value: decodeLegacy(bytes, context) };
}

function decodeZip(bytes: Uint8Array, context: FileContext): unknown {
  const { fail } = context;
  const files = readZip(bytes, fail);
  const pickles = [...files.keys()].filter((name) =>
    /^[^/]*\/?data\.pkl$/.test(name)
  );
  if (pickles.length !== 1) {
    fail(`its zip archive has ${pickles.length} files "data.pkl" and not 1`);
  }
  const prefix = pickles[0].slice(0, -"data.pkl".length);
  const isScript = [...files.keys()].some((name) =>
    name === `${prefix}constants.pkl` || name.startsWith(`${prefix}code/`)
  );
  if (isScript) {
    fail(
      "it is a TorchScript program: save the model's state_dict() with " +
        "torch.save() instead",
    );
  }
  const order = files.get(`${prefix}byteorder`);
  if (order && new TextDecoder().decode(order.read()) !== "little") {
    fail("its numbers are big-endian, which is not supported");
  }
  const storages = new Map<string, Storage>();
  const locate = (storage: Storage) => {
    const name = `${prefix}data/${storage.key}`;
    const file: ZipFile | undefined = files.get(name);
    if (!file) return fail(`its zip archive lacks ${quote(name)}`);
    if (file.size !== storage.size) {
      fail(
        `${quote(name)} has ${file.size} bytes and its pickle says ` +
          `${storage.size}`,
      );
    }
    return file.read();
  };
  const { value } = unpickle(files.get(pickles[0])!.read(), {
    fail,
    construct: (name, args) => construct(name, args, context),
    persistent: (id) => {
      const storage = readStorage(id, storages, bytes.length, fail);
      if (storage instanceof Storage) storage.locate = () => locate(storage);
      return storage;
    },
  });
  return value;
}

function decodeLegacy(bytes: Uint8Array, context: FileContext): unknown {
  const { fail } = context;
  const storages = new Map<string, Storage>();
  let at = 0;
  const next = (): unknown => {
    const { value, end } = unpickle(bytes, {
      start: at,
      fail,
      construct: (name, args) => construct(name, args, context),
      persistent: (id) => readStorage(id, storages, bytes.length, fail),
    });
    at = end;
    return value;
  };
  if (next() !== LEGACY_MAGIC) fail("it does not begin as torch.save() does");
  const version = next();
  if (version !== LEGACY_VERSION) {
    fail(`its stream is of version ${printed(version)}, not ${LEGACY_VERSION}`);
  }
  const system = next();
  if (system instanceof Map && system.get("little_endian") === false) {
    fail("its numbers are big-endian, which is not supported");
  }
  const value = next();
  const keys = next();
  if (!Array.isArray(keys)) return fail("it lacks the list of its storages");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const located = new Set<Storage>();
  for (const key of keys) {
    const name = keyOf(key, fail);
    const storage = storages.get(name);
    if (!storage || located.has(storage)) {
      return fail(`it lists a storage ${quote(name)} of which it has no use`);
    }
    located.add(storage);
    const item = ITEM_SIZES[storage.type ?? "U8"];
    const start = at + 8;
    if (start + storage.size > bytes.length) {
      fail(
        `the elements of its tensors end after ${bytes.length} bytes: the ` +
          `file is truncated`,
      );
    }
    const count = view.getBigInt64(at, true);
    if (Number(count) * item !== storage.size) {
      fail(
        `storage ${quote(storage.key)} has ${count} elements and its pickle ` +
          `says ${storage.size / item}`,
      );
    }
    storage.locate = () => aligned(bytes, start, storage);
    at = start + storage.size;
  }
  for (const storage of storages.values()) {
    if (!located.has(storage)) {
      fail(`the elements of storage ${quote(storage.key)} are missing`);
    }
  }
  return value;
}

/**
 * A storage's bytes where its elements are aligned, so that tensors need no
 * copy: over the number of its elements, of eight bytes, which has been read.
 */
function aligned(
  bytes: Uint8Array,
  start: number,
  { size, type }: Storage,
): Uint8Array {
  const item = type ? ITEM_SIZES[type] : 8;
  const moved = start - (bytes.byteOffset + start) % item;
  if (moved < start) bytes.copyWithin(moved, start, start + size);
  return bytes.subarray(moved, moved + size);
}

/** Types of elements by the names of PyTorch's storages. */
const STORAGES: Readonly<Record<string, StoredType>> = {
  "torch.FloatStorage": "F32",
  "torch.DoubleStorage": "F64",
  "torch.HalfStorage": "F16",
  "torch.BFloat16Storage": "BF16",
  "torch.LongStorage": "I64",
  "torch.IntStorage": "I32",
  "torch.ShortStorage": "I16",
  "torch.CharStorage": "I8",
  "torch.ByteStorage": "U8",
  "torch.BoolStorage": "BOOL",
};

/** Types of elements by the names of PyTorch's dtypes. */
const DTYPES: Readonly<Record<string, StoredType>> = {
  "torch.float32": "F32",
  "torch.float64": "F64",
  "torch.float16": "F16",
  "torch.bfloat16": "BF16",
  "torch.int64": "I64",
  "torch.int32": "I32",
  "torch.int16": "I16",
  "torch.int8": "I8",
  "torch.uint8": "U8",
  "torch.bool": "BOOL",
};

/**
 * The storage behind a persistent id: `("storage", type, key, location, number
 * of elements)`, in the legacy stream followed by a view of it or `None`.
 * Source code, which streams of whole modules hold, becomes its class.
 */
function readStorage(
  id: unknown,
  storages: Map<string, Storage>,
  fileSize: number,
  fail: Fail,
): unknown {
  const [kind, type, key, , count, view] = Array.isArray(id) ? id : [];
  if (kind === "module") return type;
  if (kind !== "storage" || !(type instanceof Global)) {
    return fail(`it refers to ${printed(kind)}, which is no storage`);
  }
  const name = keyOf(key, fail);
  const isUntyped = /^torch(\.storage)?\.UntypedStorage$/.test(type.name);
  if (!isUntyped && !Object.hasOwn(STORAGES, type.name)) {
    fail(`its elements are of ${quote(type.name)}, which is not supported`);
  }
  const stored = isUntyped ? null : STORAGES[type.name];
  const item = ITEM_SIZES[stored ?? "U8"];
  if (!isCount(count) || count * item > fileSize) {
    return fail(
      `storage ${quote(name)} is to hold ${printed(count)} elements, ` +
        `more than the file`,
    );
  }
  if (view !== undefined && view !== null) {
    fail(
      "it holds views of storages, which only old versions of PyTorch wrote",
    );
  }
  const storage = storages.get(name) ?? new Storage(name, stored, count * item);
  if (storage.size !== count * item || storage.type !== stored) {
    fail(`it describes storage ${quote(name)} in two ways`);
  }
  storages.set(name, storage);
  return storage;
}

/**
 * The name of a storage. Lists, which would print as well, may hold themselves
 * so often that their text has no end.
 */
function keyOf(key: unknown, fail: Fail): string {
  if (typeof key === "string") return key;
  if (Number.isSafeInteger(key)) return `${key}`;
  return fail(`the key of a storage is ${printed(key)}, no text or integer`);
}

/** Makes tensors and plain containers, of all that a pickle may call. */
function construct(
  name: string,
  args: readonly unknown[],
  context: FileContext,
): unknown {
  switch (name) {
    case "collections.OrderedDict":
      return args.length === 0 ? new Map() : undefined;
    case "collections.defaultdict":
      return args.length <= 1 ? new Map() : undefined;
    case "torch.Size":
      return Array.isArray(args[0]) ? args[0] : undefined;
    case "torch._utils._rebuild_parameter":
    case "torch._utils._rebuild_parameter_with_state":
      return args[0] instanceof TorchTensor ? args[0] : undefined;
    case "torch._utils._rebuild_tensor":
    case "torch._utils._rebuild_tensor_v2":
      return rebuildTensor(args, null, context);
    case "torch._utils._rebuild_tensor_v3":
      return rebuildTensor(args, args[6], context);
    default:
      return undefined;
  }
}

/** `(storage, offset, size, stride, ...)` as a tensor, checked. */
function rebuildTensor(
  [storage, offset, size, stride]: readonly unknown[],
  dtype: unknown,
  context: FileContext,
): TorchTensor {
  const { fail } = context;
  if (!(storage instanceof Storage)) return fail("a tensor has no storage");
  const named = dtype instanceof Global && Object.hasOwn(DTYPES, dtype.name)
    ? DTYPES[dtype.name]
    : null;
  const type = storage.type ?? named;
  if (!type) {
    return fail(
      `its elements are of ${
        dtype instanceof Global ? quote(dtype.name) : "an unknown type"
      }, which is not supported`,
    );
  }
  const isList = (value: unknown): value is number[] =>
    Array.isArray(value) && value.length <= MAX_AXES && value.every(isCount);
  if (
    !isCount(offset) || !isList(size) || !isList(stride) ||
    size.length !== stride.length
  ) {
    return fail("a tensor's offset, size or stride is malformed");
  }
  const count = sizeOf(size);
  const last = size.reduce(
    (at, n, axis) => at + (n - 1) * stride[axis],
    offset,
  );
  const held = Math.floor(storage.size / ITEM_SIZES[type]);
  if (count > 0 && last >= held) {
    fail(
      `a tensor of shape [${size}] needs element ${last} of storage ` +
        `${quote(storage.key)}, which has ${held}`,
    );
  }
  if (count > Math.max(held, MAX_REPEATED)) {
    fail(
      `a tensor of shape [${size}] repeats the ${held} elements of storage ` +
        `${quote(storage.key)} too often`,
    );
  }
  return new TorchTensor(
    storage,
    type,
    [...size],
    [...stride],
    offset,
    context,
  );
}

/**
 * A single number: itself, a tensor's only element, or a numpy scalar's.
 *
 * @returns `null` if the value is nothing of that kind, or damaged
 */
export function numberOf(value: unknown): number | null {
  if (typeof value === "number" || typeof value === "bigint") {
    return Number(value);
  }
  if (value instanceof TorchTensor) {
    return sizeOf(value.shape) === 1 ? Number(value.read("").data[0]) : null;
  }
  const isScalar = value instanceof Opaque &&
    /^numpy\.(core|_core)\.multiarray\.scalar$/.test(value.name);
  if (!isScalar) return null;
  const [dtype, content] = value.args;
  const kind = dtype instanceof Opaque ? dtype.args[0] : null;
  const raw = rawBytes(content);
  if (!raw || typeof kind !== "string") return null;
  if (Number(kind.slice(1)) !== raw.length) return null;
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  if (kind === "f8") return view.getFloat64(0, true);
  if (kind === "f4") return view.getFloat32(0, true);
  if (kind === "i8") return Number(view.getBigInt64(0, true));
  return kind === "i4" ? view.getInt32(0, true) : null;
}

/** Bytes of a numpy scalar; protocol 2 spells them as Latin-1 text. */
function rawBytes(content: unknown): Uint8Array | null {
  if (content instanceof Uint8Array) return content;
  const isText = content instanceof Opaque && content.name === "_codecs.encode";
  const text = isText ? content.args[0] : content;
  if (typeof text !== "string" || text.length > 16) return null;
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

/** Prints a value of a pickle for an error, of an object only that it is one. */
function printed(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object" && value !== null) return "an object";
  return quote(String(value)).slice(1, -1);
}
