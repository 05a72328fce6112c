/**
 * Loads MPI when it is asked for.
 *
 * @module
 */
import type { Mpi } from "./mpi.ts";

export type { Mpi };

/** Options of `openMpi()`. */
export interface OpenMpiOptions {
  /**
   * Path or name of the MPI library (default: `ROBUST_REPS_MPI`, else known
   * names).
   */
  readonly library?: string;
  /**
   * Seconds for all ranks to come (default: `ROBUST_REPS_JOIN_SECONDS`, else
   * 15). MPI waits for ever for one that has ended by then, and its wait cannot
   * be stopped: on Linux the process ends with SIGALRM.
   */
  readonly deadline?: number;
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
  const given = Deno.env.get("ROBUST_REPS_JOIN_SECONDS");
  const { deadline = Number(given ?? 15) } = options;
  setAlarm(deadline);
  try {
    return await Mpi.open(options);
  } finally {
    setAlarm(0);
  }
}

/** Ends the process in some seconds, unless 0 is set before. */
function setAlarm(seconds: number): void {
  if (Deno.build.os !== "linux") return;
  const { symbols } = Deno.dlopen("libc.so.6", {
    alarm: { parameters: ["u32"], result: "u32" },
  });
  symbols.alarm(Math.max(0, Math.ceil(seconds) || 0));
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

/**
 * Ends all processes of the job through MPICH's mpirun, which waits for ever
 * for one that ends before MPI has begun. Other launchers see to this.
 *
 * @param code Exit code of the job
 * @returns Whether mpirun was told
 */
export function endJob(code: number): boolean {
  const descriptor = Number(Deno.env.get(PMI_DESCRIPTOR));
  if (!(descriptor > 2) || Deno.build.os === "windows") return false;
  const libc = Deno.build.os === "darwin" ? "libSystem.dylib" : "libc.so.6";
  // PMI, version 1: lines of commands.
  const line = new TextEncoder().encode(`cmd=abort exitcode=${code}\n`);
  try {
    const { symbols } = Deno.dlopen(libc, {
      write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
    });
    const length = BigInt(line.length);
    return Number(symbols.write(descriptor, line, length)) === line.length;
  } catch {
    return false;
  }
}

/**
 * Whether the process that MPICH's mpirun started is gone, while this one, which
 * it started in turn, still runs: the former is the leader of a group of
 * processes. Unknown, and so false, under other launchers and on other systems
 * than Linux.
 */
export function isOrphaned(): boolean {
  const isHydra = Deno.env.get("HYDI_CONTROL_FD") !== undefined;
  if (!isHydra || Deno.build.os !== "linux") return false;
  const { symbols } = Deno.dlopen("libc.so.6", {
    getpgrp: { parameters: [], result: "i32" },
    kill: { parameters: ["i32", "i32"], result: "i32" },
  });
  // Signal 0 only asks; 1 is the system's first process, which may not be
  // asked.
  const leader = symbols.getpgrp();
  return leader > 1 && symbols.kill(leader, 0) !== 0;
}

/** Environment variable with the descriptor of the launcher's socket. */
export const PMI_DESCRIPTOR = "PMI_FD";
