/**
 * Damages files at random, reproducibly.
 *
 * @module
 */
import type { Random } from "../../core/mod.ts";

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
