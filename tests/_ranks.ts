/**
 * Ranks within one process: communicators that meet in memory, so that tests
 * of what ranks do together need no MPI.
 */
import type { Communicator } from "../distributed/mod.ts";

/** What the ranks have brought to one collective call. */
interface Meeting {
  readonly brought: unknown[];
  count: number;
  readonly all: PromiseWithResolvers<readonly unknown[]>;
}

/** Communicators of `size` ranks that belong together. */
export function ranks(size: number): Communicator[] {
  const meetings: Meeting[] = [];
  return Array.from({ length: size }, (_, rank) => {
    let calls = 0;
    const meet = async <T>(value: T): Promise<readonly T[]> => {
      const meeting = meetings[calls++] ??= {
        brought: Array(size),
        count: 0,
        all: Promise.withResolvers(),
      };
      meeting.brought[rank] = value;
      if (++meeting.count === size) meeting.all.resolve(meeting.brought);
      return await meeting.all.promise as readonly T[];
    };
    return {
      rank,
      size,
      async sum(values: Float32Array) {
        values.set(pairwiseSum(await meet(values.slice())));
      },
      async gather(bytes: Uint8Array) {
        const all = await meet(bytes.slice());
        return rank === 0 ? [...all] : null;
      },
      async broadcast(bytes: Uint8Array | null) {
        return (await meet(bytes?.slice() ?? null))[0]!;
      },
      async barrier() {
        await meet(null);
      },
      progress() {},
    };
  });
}

/** Sums in the order of recursive doubling, as MPI libraries do. */
function pairwiseSum(all: readonly Float32Array[]): Float32Array {
  if (all.length === 1) return all[0];
  const half = Math.ceil(all.length / 2);
  const left = pairwiseSum(all.slice(0, half));
  const right = pairwiseSum(all.slice(half));
  return left.map((value, i) => value + right[i]);
}

/** Does something as each of `size` ranks at once; the results in order. */
export async function onRanks<T>(
  size: number,
  work: (communicator: Communicator) => Promise<T>,
): Promise<T[]> {
  return await Promise.all(ranks(size).map(work));
}
