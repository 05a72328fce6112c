/**
 * What each rank of `mpi_test.ts` runs: every call of a communicator, with
 * results that only the right answer gives. Prints one line of JSON.
 */
import {
  broadcastJson,
  gatherJson,
  openMpi,
  spread,
} from "../../distributed/mod.ts";

const mpi = await openMpi();
const { rank, size } = mpi;

// Several sums at once, larger than what one message holds.
const buckets = [1, 1000, 3_000_000].map((length, bucket) =>
  Float32Array.from({ length }, (_, i) => (i % 7) + bucket + rank)
);
let turns = 0;
const timer = setInterval(() => turns++, 0);
await Promise.all(buckets.map((values) => mpi.sum(values)));
const shift = size * (size - 1) / 2;
const isSummed = buckets.every((values, bucket) =>
  values.every((value, i) => value === size * ((i % 7) + bucket) + shift)
);

const parts = await mpi.gather(new Uint8Array(1000 * rank).fill(rank));
const isGathered = rank > 0
  ? parts === null
  : parts!.every((part, i) =>
    part.length === 1000 * i && part.every((byte) => byte === i)
  );

const sent = rank === 0 ? Uint8Array.of(1, 2, 3) : null;
const isBroadcast = (await mpi.broadcast(sent)).join() === "1,2,3";
const empty = await mpi.broadcast(rank === 0 ? new Uint8Array(0) : null);
const json = await broadcastJson(mpi, rank === 0 ? { a: [1, null] } : null);
const ranks = await gatherJson(mpi, { rank });
const squares = await spread(
  [1, 2, 3, 4, 5],
  mpi,
  (x) => Promise.resolve(x * x),
);
// A rank that is late: the event loop of the others must go on.
if (rank === size - 1) await new Promise((done) => setTimeout(done, 300));
await mpi.barrier();
clearInterval(timer);

const threads = await mpi.threads();
const line = JSON.stringify({
  ...{ rank, size, isSummed, isGathered, isBroadcast },
  empty: empty.length,
  ...{ json, ranks, squares, threads },
  lives: turns > 10,
  local: [mpi.localRank, mpi.localSize],
});
console.log(line);
mpi.finalize();
