/**
 * What ranks can do together. Every call is collective: all ranks make the
 * same calls in the same order, and each promise is kept when the rank's part
 * is done.
 *
 * @module
 */

/** One rank's view of a group of ranks. */
export interface Communicator {
  /** This rank, 0 .. `size - 1`. Rank 0 reads, writes and reports. */
  readonly rank: number;
  /** Number of ranks. */
  readonly size: number;
  /**
   * Adds up values over the ranks, in place. All ranks get the same bits. The
   * values must stay untouched until the promise is kept.
   *
   * @param values As many on every rank
   */
  sum(values: Float32Array): Promise<void>;
  /**
   * Collects the bytes of all ranks on rank 0.
   *
   * @param bytes Any number, differing between ranks
   * @returns Those of each rank in order on rank 0; null elsewhere
   */
  gather(bytes: Uint8Array): Promise<Uint8Array[] | null>;
  /**
   * Gives the bytes of rank 0 to all.
   *
   * @param bytes Read on rank 0 only
   */
  broadcast(bytes: Uint8Array | null): Promise<Uint8Array>;
  /** Waits until all ranks have come here. */
  barrier(): Promise<void>;
  /**
   * Moves what is under way along: to be called now and then by work that
   * keeps the event loop waiting.
   */
  progress(): void;
}

/** As `gather()`, of values that JSON can hold. */
export async function gatherJson<T>(
  communicator: Communicator,
  value: T,
): Promise<T[] | null> {
  const parts = await communicator.gather(encoded(value));
  return parts && parts.map((bytes) => decoded<T>(bytes));
}

/** As `broadcast()`, of a value that JSON can hold. */
export async function broadcastJson<T>(
  communicator: Communicator,
  value: T | null,
): Promise<T> {
  return decoded<T>(await communicator.broadcast(encoded(value)));
}

function encoded(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function decoded<T>(bytes: Uint8Array): T {
  return JSON.parse(new TextDecoder().decode(bytes)) as T;
}
