/**
 * Loads MPI when it is asked for.
 *
 * @module
 */
import type { Mpi } from "./mpi.ts";

export type { Mpi };

/** Options of `openMpi()`. */
export interface OpenMpiOptions {
  /** Path or name of the MPI library (default: `ROBUST_REPS_MPI`, else known names). */
  readonly library?: string;
}

/**
 * Joins the processes that mpirun or srun started: loads the MPI library and
 * initialises it, once per process.
 *
 * @throws {Error} If no launcher started this process, no library is found, or
 * the library is not that of the launcher
 */
export async function openMpi(options: OpenMpiOptions = {}): Promise<Mpi> {
  const { Mpi } = await import("./mpi.ts");
  return await Mpi.open(options);
}
