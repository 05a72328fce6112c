/**
 * What a launcher (mpirun, srun) says about a process, and which part of its
 * machine falls to a rank.
 *
 * @module
 */

/** What the launcher told a process, before MPI is there. */
export interface Launch {
  /** This process's rank. */
  readonly rank: number;
  /** Number of processes it started, if it says. */
  readonly size?: number;
  /** What it is called in messages. */
  readonly launcher: string;
}

/** Environment variables of launchers; the first that is set decides. */
const LAUNCHERS = [
  ["Open MPI's mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
  ["MVAPICH's launcher", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"],
  // Of MPICH's mpirun, Intel's, and srun --mpi=pmi2.
  ["mpirun", "PMI_RANK", "PMI_SIZE"],
  ["PALS", "PALS_RANKID", "PALS_SIZE"],
  // In a batch script without srun the process id is set but no step.
  ["srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"],
] as const;

/**
 * Reads what the launcher told this process.
 *
 * @param get Value of an environment variable
 * @returns Null without a launcher
 */
export function launchOf(
  get: (name: string) => string | undefined,
): Launch | null {
  for (const [launcher, rankName, sizeName] of LAUNCHERS) {
    const [rank, size] = [get(rankName), get(sizeName)];
    if (rank === undefined) continue;
    if (launcher === "srun" && size === undefined) continue;
    return {
      launcher,
      rank: Number(rank),
      ...(size === undefined ? {} : { size: Number(size) }),
    };
  }
  return null;
}

/**
 * Processors that a mask names, as `sched_getaffinity()` of Linux gives it.
 *
 * @param mask One bit per processor, the lowest first
 */
export function cpusOf(mask: Uint8Array): number[] {
  return Array.from({ length: 8 * mask.length }, (_, i) => i)
    .filter((cpu) => mask[cpu >> 3] & (1 << (cpu & 7)));
}

/**
 * Threads that a rank may use without taking others' processors: its share of
 * those it may run on. Launchers that bind ranks to cores of their own leave
 * each its cores; where all ranks may run anywhere they share alike.
 *
 * @param rank Index of the rank among those of its machine
 * @param processors Which ones each rank of the machine may run on
 * @param available Processors that the system lets a rank use at a time, which
 * may be fewer (quota of a container)
 * @returns At least 1
 */
export function threadsPerRank(
  rank: number,
  processors: readonly (readonly number[])[],
  available: number,
): number {
  const sharers = (cpu: number) =>
    processors.filter((cpus) => cpus.includes(cpu)).length;
  const mine = processors[rank];
  const share = mine.reduce((sum, cpu) => sum + 1 / sharers(cpu), 0);
  // A quota is the machine's: ranks share it as they share processors.
  const quota = available * (share / Math.max(1, mine.length));
  return Math.max(1, Math.floor(Math.min(share, quota) + 1e-9));
}

/**
 * GPU of a rank, as a value for `CUDA_VISIBLE_DEVICES`: the ranks of a machine
 * take its GPUs in turn.
 *
 * @param rank Index of the rank among those of its machine
 * @param visible The variable's value, if set: GPUs that may be used. Slurm
 * sets it to one GPU per rank, which each rank then keeps
 */
export function gpuOf(rank: number, visible: string | undefined): string {
  const names = visible?.split(",").map((name) => name.trim()).filter(Boolean);
  return names?.length ? names[rank % names.length] : String(rank);
}
