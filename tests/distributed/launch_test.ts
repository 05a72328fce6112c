/**
 * What launchers say, and how ranks share a machine and a list of work.
 *
 * @module
 */
import { assertEquals, assertRejects } from "@std/assert";
import {
  cpusOf,
  gpuOf,
  launchOf,
  shareOf,
  spread,
  threadsPerRank,
} from "../../distributed/mod.ts";
import { onRanks } from "../_ranks.ts";

Deno.test("launchOf() reads what each launcher sets", () => {
  const read = (env: Readonly<Record<string, string>>) =>
    launchOf((name) => env[name]);
  assertEquals(read({}), null);
  assertEquals(read({ PMI_RANK: "1", PMI_SIZE: "4" }), {
    launcher: "mpirun",
    rank: 1,
    size: 4,
  });
  assertEquals(
    read({ OMPI_COMM_WORLD_RANK: "0", OMPI_COMM_WORLD_SIZE: "2" }),
    { launcher: "Open MPI's mpirun", rank: 0, size: 2 },
  );
  assertEquals(read({ SLURM_PROCID: "3", SLURM_STEP_NUM_TASKS: "8" }), {
    launcher: "srun",
    rank: 3,
    size: 8,
  });
  // A batch script that forgot srun.
  assertEquals(read({ SLURM_PROCID: "0", SLURM_NTASKS: "8" }), null);
});

Deno.test("cpusOf() reads a mask of processors", () => {
  assertEquals(cpusOf(Uint8Array.of(0b1000_0011, 0b1)), [0, 1, 7, 8]);
});

Deno.test("threadsPerRank() gives each rank its share of the processors", () => {
  const all = [0, 1, 2, 3, 4, 5, 6, 7];
  // All may run anywhere.
  assertEquals(threadsPerRank(0, [all, all], 8), 4);
  assertEquals(threadsPerRank(2, [all, all, all], 8), 2);
  // Bound to cores of their own, of which the system tells.
  assertEquals(threadsPerRank(1, [[0, 1], [2, 3, 4, 5]], 4), 4);
  // A container's quota of 2 of 8 processors.
  assertEquals(threadsPerRank(0, [all, all], 2), 1);
  // More ranks than processors.
  assertEquals(threadsPerRank(0, [[0], [0], [0]], 1), 1);
  assertEquals(threadsPerRank(0, [[0, 1, 2]], 3), 3);
});

Deno.test("gpuOf() takes the GPUs of a machine in turn", () => {
  assertEquals([0, 1].map((rank) => gpuOf(rank, undefined)), ["0", "1"]);
  assertEquals([0, 1, 2].map((rank) => gpuOf(rank, "4,6")), ["4", "6", "4"]);
  // Slurm with a GPU bound to each task.
  assertEquals(gpuOf(3, "2"), "2");
});

Deno.test("shareOf() gives each item to one rank", () => {
  const items = ["a", "b", "c", "d", "e"];
  const shares = [0, 1, 2].map((rank) => shareOf(items, { rank, size: 3 }));
  assertEquals(shares[1], [{ item: "b", index: 1 }, { item: "e", index: 4 }]);
  const indices = shares.flat().map(({ index }) => index).sort();
  assertEquals(indices, [0, 1, 2, 3, 4]);
});

Deno.test("spread() collects results in the order of the items", async () => {
  const items = [5, 3, 8, 1, 9];
  const work = (x: number, i: number) => Promise.resolve({ x, i });
  const alone = await spread(items, null, work);
  assertEquals(alone, items.map((x, i) => ({ x, i })));
  for (const size of [1, 2, 4, 7]) {
    const seen: number[] = [];
    const results = await onRanks(
      size,
      (communicator) =>
        spread(items, communicator, (x, i) => {
          seen.push(i);
          return work(x, i);
        }),
    );
    assertEquals(results[0], alone);
    assertEquals(results.slice(1), Array(size - 1).fill(null));
    assertEquals(seen.sort(), [0, 1, 2, 3, 4]);
  }
});

Deno.test("spread() rejects with the failure of its rank's work", async () => {
  await assertRejects(
    () => spread([1], null, () => Promise.reject(new Error("no"))),
    Error,
    "no",
  );
});
