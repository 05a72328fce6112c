/**
 * Writes files as `torch.save()` does, of the values that tests need; damaged
 * ones, too.
 *
 * @module
 */
import { sizeOf } from "../../core/mod.ts";
import { crc32 } from "../../models/zip.ts";

/** A tensor to be written. */
export interface SavedTensor {
  /** Elements of its storage, in whichever type. */
  readonly data: ArrayBufferView;
  /** Name of the storage's class, such as "FloatStorage". */
  readonly storage: string;
  readonly shape: readonly number[];
  /** Row-major if left out. */
  readonly stride?: readonly number[];
  readonly offset?: number;
  /** Number of elements claimed, if not those of `data`. */
  readonly claimed?: number;
  /** Names its storage, which is a text otherwise. */
  readonly key?: unknown;
}

/** A float32 tensor counting up from some value. */
export function counting(
  shape: readonly number[],
  first = 0,
): SavedTensor {
  const data = Float32Array.from(
    { length: sizeOf(shape) },
    (_, i) => first + i,
  );
  return { data, storage: "FloatStorage", shape };
}

/** Part of a file: a byte, ASCII text, or bytes. */
export type Part = number | string | Uint8Array;

/** Joins the parts of a file. */
export function ops(...parts: readonly Part[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(
    parts.flatMap((part) =>
      typeof part === "number"
        ? [part]
        : typeof part === "string"
        ? Array.from(part, (letter) => letter.charCodeAt(0))
        : Array.from(part)
    ),
  );
}

/** Four bytes, little-endian. */
function uint32(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

/** A call to be written: `name(...args)`, and the state it is given. */
export class Call {
  constructor(
    readonly name: string,
    readonly args: readonly unknown[],
    readonly state?: unknown,
  ) {}
}

/** Operations of a pickle, to be written as they are. */
export class Raw {
  constructor(readonly bytes: Uint8Array) {}
}

/** Containers that `shared()` makes. */
export const SHARED_KINDS = ["list", "tuple", "dictionary"] as const;

/**
 * A container that holds one of its kind twice, which holds another twice, and
 * so on: few bytes that no walk or text gets to the end of.
 *
 * @param depth How many there are; at most 255
 * @param kind What they are
 */
export function shared(
  depth: number,
  kind: (typeof SHARED_KINDS)[number] = "list",
): Raw {
  const around = (i: number) => {
    const held = ops("h", i);
    if (kind === "tuple") return ops(held, held, 0x86);
    return kind === "list"
      ? ops("]", held, "a", held, "a")
      : ops("}", 0x8c, 1, "a", held, "s", 0x8c, 1, "b", held, "s");
  };
  const levels = Array.from(
    { length: depth },
    (_, i) => ops("0", around(i), "q", i + 1),
  );
  return new Raw(ops("]q", 0, ...levels));
}

/** Pickles values, and lists the storages of their tensors. */
class Pickler {
  readonly storages: SavedTensor[] = [];
  readonly #isLegacy: boolean;
  readonly #protocol: number;

  constructor(isLegacy: boolean, protocol: number) {
    this.#isLegacy = isLegacy;
    this.#protocol = protocol;
  }

  /** A whole pickle of a value. */
  pickle(value: unknown): Uint8Array {
    return framed(this.#protocol, this.write(value), ".");
  }

  write(value: unknown): Uint8Array {
    if (value === null) return ops("N");
    if (typeof value === "boolean") return ops(value ? 0x88 : 0x89);
    if (typeof value === "number") {
      if (Number.isInteger(value) && Math.abs(value) < 2 ** 31) {
        return ops("J", uint32(value));
      }
      const view = new DataView(new ArrayBuffer(8));
      view.setFloat64(0, value);
      return ops("G", new Uint8Array(view.buffer));
    }
    if (typeof value === "string") {
      const bytes = new TextEncoder().encode(value);
      if (this.#protocol >= 4 && bytes.length < 256) {
        return ops(0x8c, bytes.length, bytes, 0x94);
      }
      return ops("X", uint32(bytes.length), bytes);
    }
    if (value instanceof Raw) return value.bytes;
    if (value instanceof Call) {
      const state = value.state === undefined
        ? []
        : [this.write(value.state), "b"];
      return ops(
        this.#global(value.name),
        this.#tuple(value.args),
        "R",
        ...state,
      );
    }
    if (Array.isArray(value)) {
      return ops("](", ...value.map((item) => this.write(item)), "e");
    }
    if (value instanceof Map || isPlain(value)) {
      const entries = value instanceof Map ? [...value] : Object.entries(value);
      return ops("}(", ...entries.flat().map((item) => this.write(item)), "u");
    }
    return this.#tensor(value as SavedTensor);
  }

  #global(name: string): Uint8Array {
    const dot = name.lastIndexOf(".");
    const [module, own] = [name.slice(0, dot), name.slice(dot + 1)];
    return this.#protocol >= 4
      ? ops(this.write(module), this.write(own), 0x93, 0x94)
      : ops("c", module, "\n", own, "\n");
  }

  #tuple(items: readonly unknown[]): Uint8Array {
    return ops("(", ...items.map((item) => this.write(item)), "t");
  }

  #tensor({ data, storage, shape, stride, offset = 0, ...rest }: SavedTensor) {
    const known = this.storages.findIndex((other) => other.data === data);
    const key = known < 0 ? this.storages.length : known;
    if (known < 0) this.storages.push({ data, storage, shape });
    const count = rest.claimed ?? lengthOf(data);
    return ops(
      this.#global("torch._utils._rebuild_tensor_v2"),
      ...["(", "(", this.write("storage"), this.#global(`torch.${storage}`)],
      ...[
        this.write(rest.key ?? `${key}`),
        this.write("cpu"),
        this.write(count),
      ],
      // The legacy form names the view of the storage, which is none.
      ...[this.#isLegacy ? "NtQ" : "tQ"],
      this.write(offset),
      this.#tuple(shape),
      this.#tuple(stride ?? rowMajor(shape)),
      ...[0x89, this.#global("collections.OrderedDict"), ")R", "tR"],
    );
  }
}

function isPlain(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !("storage" in value);
}

/** A pickle of operations, which is in a frame from protocol 4 on. */
function framed(protocol: number, ...parts: readonly Part[]): Uint8Array {
  const body = ops(...parts);
  const frame = protocol < 4 ? [] : [0x95, uint32(body.length), uint32(0)];
  return ops(0x80, protocol, ...frame, body);
}

function lengthOf(data: ArrayBufferView): number {
  return "length" in data ? Number(data.length) : data.byteLength;
}

function rowMajor(shape: readonly number[]): number[] {
  return shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
}

function bytesOf(data: ArrayBufferView): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** What `torch.save(value)` pickles, and the storages beside it. */
export function torchParts(
  value: unknown,
  protocol = 2,
): { pickle: Uint8Array; storages: readonly Uint8Array[] } {
  const pickler = new Pickler(false, protocol);
  const pickle = pickler.pickle(value);
  return {
    pickle,
    storages: pickler.storages.map(({ data }) => bytesOf(data)),
  };
}

/** A file of `torch.save(value)`, in the zip form. */
export function torchZip(
  value: unknown,
  protocol = 2,
): Uint8Array<ArrayBuffer> {
  const { pickle, storages } = torchParts(value, protocol);
  return zipOf(torchEntries(pickle, storages));
}

/** Files of the zip form. */
export function torchEntries(
  pickle: Uint8Array,
  storages: readonly Uint8Array[],
): Record<string, Uint8Array> {
  return {
    "archive/data.pkl": pickle,
    ...Object.fromEntries(
      storages.map((bytes, i) => [`archive/data/${i}`, bytes]),
    ),
    "archive/version": ops("3\n"),
  };
}

/** A file of `torch.save(value)`, in the legacy form. */
export function torchLegacy(
  value: unknown,
  protocol = 2,
): Uint8Array<ArrayBuffer> {
  const pickler = new Pickler(true, protocol);
  const object = pickler.pickle(value);
  const keys = pickler.storages.map((_, i) => `${i}`);
  return ops(
    ...legacyHead(protocol),
    object,
    new Pickler(true, protocol).pickle(keys),
    ...pickler.storages.flatMap(({ data }) => [
      uint32(lengthOf(data)),
      uint32(0),
      bytesOf(data),
    ]),
  );
}

/** Magic number, version and system of the legacy form, a pickle each. */
function legacyHead(protocol: number): Uint8Array[] {
  const magic = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
  return [
    framed(protocol, 0x8a, magic.length, ...magic, "."),
    framed(protocol, "M", 0xe9, 3, "."),
    new Pickler(true, protocol).pickle({ little_endian: true }),
  ];
}

/** What the legacy form of protocol 2 begins with. */
export const LEGACY_HEAD = legacyHead(2);

/** How a zip archive departs from a sound one. */
export interface ZipFaults {
  /** Compression method claimed (default 0: none). */
  readonly method?: number;
  /** Flags claimed. */
  readonly flags?: number;
  /** Size claimed of each file, by its true one. */
  readonly sizeOf?: (size: number) => number;
  /** Number of files claimed. */
  readonly count?: number;
}

/** A zip archive of stored files. */
export function zipOf(
  files: Readonly<Record<string, Uint8Array>>,
  { method = 0, flags = 0, sizeOf = (size) => size, count }: ZipFaults = {},
): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [], directory: Uint8Array[] = [];
  let offset = 0;
  const add = (part: Uint8Array) => {
    parts.push(part);
    offset += part.length;
  };
  for (const [name, content] of Object.entries(files)) {
    const text = new TextEncoder().encode(name);
    const fields = new Uint8Array(26);
    const view = new DataView(fields.buffer);
    view.setUint16(2, flags, true);
    view.setUint16(4, method, true);
    view.setUint32(10, crc32(content), true);
    view.setUint32(14, sizeOf(content.length), true);
    view.setUint32(18, sizeOf(content.length), true);
    view.setUint16(22, text.length, true);
    directory.push(
      ops(
        "PK",
        1,
        2,
        0,
        0,
        fields,
        ...new Uint8Array(10),
        uint32(offset),
        text,
      ),
    );
    add(ops("PK", 3, 4, fields, text));
    add(content);
  }
  const start = offset;
  directory.forEach(add);
  const total = count ?? directory.length;
  const end = new Uint8Array(18);
  const view = new DataView(end.buffer);
  view.setUint16(4, total, true);
  view.setUint16(6, total, true);
  view.setUint32(8, offset - start, true);
  view.setUint32(12, start, true);
  add(ops("PK", 5, 6, end));
  const bytes = new Uint8Array(offset);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
