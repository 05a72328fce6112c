/**
 * Independent pieces of work over ranks.
 *
 * @module
 */
import { type Communicator, gatherJson } from "./communicator.ts";

/**
 * The items that fall to a rank: every `size`-th, so that ranks get alike
 * mixtures of long and short ones.
 *
 * @param items The same on every rank
 * @returns Each of the rank's items with its index
 */
export function shareOf<T>(
  items: readonly T[],
  { rank, size }: Pick<Communicator, "rank" | "size">,
): { readonly item: T; readonly index: number }[] {
  return items
    .map((item, index) => ({ item, index }))
    .filter(({ index }) => index % size === rank);
}

/**
 * Does pieces of work, each on one rank, and collects what they result in.
 *
 * @param items The same on every rank
 * @param communicator The ranks; null does everything here
 * @param work Does one item; what it resolves to must survive JSON. If it
 * rejects, so does the promise on that rank, and the others wait: end the job
 * then, or have the work resolve to its failure
 * @returns Results in the order of the items on rank 0; null elsewhere
 *
 * @example
 * ```ts
 * import { spread } from "./mod.ts";
 * const squares = await spread([1, 2, 3], null, (x) => Promise.resolve(x * x));
 * console.log(squares); // [1, 4, 9]
 * ```
 */
export async function spread<T, R>(
  items: readonly T[],
  communicator: Communicator | null,
  work: (item: T, index: number) => Promise<R>,
): Promise<R[] | null> {
  const group = communicator ?? { rank: 0, size: 1 };
  const mine: R[] = [];
  for (const { item, index } of shareOf(items, group)) {
    mine.push(await work(item, index));
  }
  if (!communicator) return mine;
  const parts = await gatherJson(communicator, mine);
  return parts &&
    items.map((_, i) => parts[i % group.size][Math.floor(i / group.size)]);
}
