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

/** What MPI libraries read, and what suits Deno; users' own values count. */
const VARIABLES = {
  // Errors are told in our words, and once.
  MPIR_CVAR_SUPPRESS_ABORT_MESSAGE: "1",
  // No backtraces of ranks that lose another one; V8 needs these signals.
  UCX_HANDLE_ERRORS: "none",
  UCX_ERROR_SIGNALS: "",
} as const;

const SIGABRT = 6;

/**
 * Sets up the process for `openMpi()`, to be called before it by programs whose
 * ranks report their own end.
 *
 * Libraries abort a rank that finds another one gone. Such ranks must not seem
 * to be the first to end, so on Linux an abort waits for six seconds, within
 * which the launcher ends the job.
 */
export function prepareMpi(): void {
  for (const [name, value] of Object.entries(VARIABLES)) {
    if (Deno.env.get(name) === undefined) Deno.env.set(name, value);
  }
  if (Deno.build.os !== "linux") return;
  const { symbols } = Deno.dlopen("libc.so.6", {
    // The handler of a signal is called with its number: sleep(6).
    sleep: { type: "pointer" },
    signal: { parameters: ["i32", "pointer"], result: "pointer" },
  });
  symbols.signal(SIGABRT, symbols.sleep);
}
