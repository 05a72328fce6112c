/**
 * Damages files at random, reproducibly, and makes some that mutations of
 * sound ones never get to.
 *
 * @module
 */
import type { Random } from "../../core/mod.ts";
import { counting, ops, Raw, shared, SHARED_KINDS } from "./_torch_file.ts";

/** Values that lengths, counts and indices go wrong at. */
const EXTREMES = [0, 1, 0x7f, 0x80, 0xff, 0x7fffffff, 0x80000000, 0xffffffff];

/** Operations of pickles, which random bytes seldom are. */
const OPERATIONS = Array.from(
  "(.012FGIJKLMNQRTUXabcdehijloqrstu)}]\x80\x81\x85\x86\x87\x88\x89\x8a\x8b" +
    "\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96",
  (letter) => letter.charCodeAt(0),
);

/**
 * One to four changes at random places: bytes, 32-bit numbers, operations,
 * and parts that are cut, repeated or moved.
 *
 * @param bytes What is damaged; a copy is returned
 * @param random Decides
 * @param options.within How far from the start to look (default: all of it)
 */
export function mutated(
  bytes: Uint8Array,
  random: Random,
  { within = bytes.length }: { readonly within?: number } = {},
): Uint8Array<ArrayBuffer> {
  let result = bytes.slice();
  const below = (limit: number) => random.integer(limit);
  const place = () => below(Math.max(1, Math.min(within, result.length)));
  for (let i = below(4); i >= 0; i--) {
    const at = place();
    switch (below(7)) {
      case 0:
        result[at] ^= 1 << below(8);
        break;
      case 1:
        result[at] = below(256);
        break;
      case 2:
        result[at] = OPERATIONS[below(OPERATIONS.length)];
        break;
      case 3: {
        const value = EXTREMES[below(EXTREMES.length)];
        const raw = new Uint8Array(Uint32Array.of(value).buffer);
        result.set(raw.subarray(0, Math.max(0, result.length - at)), at);
        break;
      }
      case 4:
        result = spliced(result, at, at, [
          OPERATIONS[below(OPERATIONS.length)],
        ]);
        break;
      case 5: {
        const part = result.slice(at, at + below(64));
        const to = below(2) === 0 ? at : place();
        result = spliced(result, to, to, part);
        break;
      }
      default:
        result = spliced(result, at, at + below(64), []);
    }
  }
  return below(10) === 0 ? result.slice(0, below(result.length + 1)) : result;
}

function spliced(
  bytes: Uint8Array,
  start: number,
  end: number,
  part: ArrayLike<number>,
): Uint8Array<ArrayBuffer> {
  const rest = bytes.subarray(Math.min(end, bytes.length));
  const result = new Uint8Array(start + part.length + rest.length);
  result.set(bytes.subarray(0, start));
  result.set(part, start);
  result.set(rest, start + part.length);
  return result;
}

/** A text of up to 255 letters. */
const text = (value: string) => ops(0x8c, value.length, value);

/**
 * A dictionary for `torchZip()` and `torchLegacy()` where containers that hold
 * one another again and again are in the place of one part of a tensor, of a
 * scalar or of an object.
 */
export function entangled(random: Random): Map<unknown, unknown> {
  const kind = SHARED_KINDS[random.integer(SHARED_KINDS.length)];
  const { bytes } = shared(1 + random.integer(200), kind);
  const parts: Readonly<Record<string, Uint8Array>> = {
    name: text("v"),
    kind: text("storage"),
    type: ops("ctorch\nFloatStorage\n"),
    key: text("0"),
    location: text("cpu"),
    count: ops("K", 1),
    offset: ops("K", 0),
    shape: ops("K", 1, 0x85),
    stride: ops("K", 1, 0x85),
    hooks: ops("N"),
    dtype: text("f4"),
    content: text("abcd"),
    module: text("a"),
    state: ops("N"),
    key2: text("s"),
  };
  const names = Object.keys(parts);
  const hit = names[random.integer(names.length)];
  const at = (name: string) => name === hit ? bytes : parts[name];
  const raw = (...names: readonly Uint8Array[]) => new Raw(ops(...names));
  return new Map<unknown, unknown>([
    ["w", counting([1])],
    [
      raw(at("name")),
      raw(
        ops("ctorch._utils\n_rebuild_tensor_v2\n(("),
        ...["kind", "type", "key", "location", "count"].map(at),
        ops("tQ"),
        ...["offset", "shape", "stride"].map(at),
        ops(0x89),
        at("hooks"),
        ops("tR"),
      ),
    ],
    [
      raw(at("key2")),
      raw(
        ops("cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n"),
        ...[at("dtype"), ops(0x85, "R"), at("content"), ops("tR")],
      ),
    ],
    [
      "object",
      raw(at("module"), text("B"), ops(0x93, ")R"), at("state"), ops("b")),
    ],
  ]);
}
