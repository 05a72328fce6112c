/**
 * Communicators over MPI: what `_rank.ts` finds on two and three ranks, and
 * what is said where there is no launcher, no library, or the wrong one.
 *
 * @module
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import { LAUNCHERS, type MpiLauncher, onLauncher } from "../_mpi.ts";

const RANK = fileURLToPath(new URL("./_rank.ts", import.meta.url));
const DENO = [Deno.execPath(), "run", "-A", "--no-check", "--quiet"];

async function outputOf(command: Deno.Command) {
  const { code, stdout, stderr } = await command.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

function ranksWork(launcher: MpiLauncher, size: number): () => Promise<void> {
  return async () => {
    const command = onLauncher(launcher, size, [...DENO, RANK]);
    const { code, stdout, stderr } = await outputOf(command);
    assertEquals(code, 0, stderr);
    const found = stdout.trim().split("\n").map((line) => JSON.parse(line))
      .sort((a, b) => a.rank - b.rank);
    assertEquals(found.length, size);
    for (const [rank, { threads, ...result }] of found.entries()) {
      const isFirst = rank === 0;
      const ranks = Array.from({ length: size }, (_, i) => ({ rank: i }));
      assertEquals(result, {
        rank,
        size,
        isSummed: true,
        isGathered: true,
        isBroadcast: true,
        empty: 0,
        json: { a: [1, null] },
        ranks: isFirst ? ranks : null,
        squares: isFirst ? [1, 4, 9, 16, 25] : null,
        lives: true,
        local: [rank, size],
      });
      const processors = navigator.hardwareConcurrency;
      assert(threads >= 1 && threads <= processors);
    }
  };
}

const NEEDED = "MPICH (needs mpich)";
const names = LAUNCHERS.length > 0
  ? LAUNCHERS
  : [{ name: NEEDED, command: "", args: [] }];

for (const launcher of names) {
  for (const size of [2, 3]) {
    Deno.test({
      name: `openMpi() joins ${size} ranks of ${launcher.name}`,
      ignore: LAUNCHERS.length === 0,
      fn: ranksWork(launcher, size),
    });
  }
}

Deno.test("openMpi() says when no launcher started the process", async () => {
  const [deno, ...args] = DENO;
  const command = new Deno.Command(deno, {
    args: [...args, RANK],
    env: { NO_COLOR: "1" },
  });
  const { code, stderr } = await outputOf(command);
  assertEquals(code, 1);
  assertStringIncludes(
    stderr,
    "Cannot use MPI as no launcher started this process: begin the command " +
      "with mpirun -n <ranks>, or srun within a Slurm job",
  );
});

Deno.test("openMpi() says when there is no library", async () => {
  const [deno, ...args] = DENO;
  const run = async (library: Record<string, string>) =>
    await outputOf(
      new Deno.Command(deno, {
        args: [...args, RANK],
        env: { NO_COLOR: "1", PMI_RANK: "0", PMI_SIZE: "2", ...library },
      }),
    );
  const { stderr } = await run({ ROBUST_REPS_MPI: "/nowhere/libmpi.so" });
  assertStringIncludes(
    stderr,
    'Cannot load the MPI library "/nowhere/libmpi.so" that ROBUST_REPS_MPI ' +
      "names: give the path of a libmpi or libmpich",
  );
});

Deno.test({
  name: "openMpi() says when the library is not the launcher's (needs mpich)",
  ignore: !LAUNCHERS.some(({ name }) => name === "MPICH"),
  async fn() {
    const [deno, ...args] = DENO;
    // What Open MPI's launcher sets; MPICH's library then finds one process.
    const { stderr } = await outputOf(
      new Deno.Command(deno, {
        args: [...args, RANK],
        env: {
          NO_COLOR: "1",
          OMPI_COMM_WORLD_RANK: "0",
          OMPI_COMM_WORLD_SIZE: "2",
          ROBUST_REPS_MPI: "libmpich.so.12",
        },
      }),
    );
    assertStringIncludes(
      stderr,
      "Cannot use MPI as Open MPI's mpirun started 2 processes and " +
        "libmpich.so.12 finds 1",
    );
  },
});
