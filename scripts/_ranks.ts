/**
 * Scripts on several ranks: `--distributed mpi` makes the processes that mpirun
 * or srun started do one piece of work together. Rank 0 reads the run, writes
 * and reports; the others are silent but for errors of their own.
 *
 * @module
 */
import {
  gpuOf,
  isOrphaned,
  launchOf,
  type Mpi,
  openMpi,
  PMI_DESCRIPTOR,
  prepareMpi,
} from "../mod.ts";
import {
  endRanks,
  type FlagTable,
  pause,
  type Progress,
  rankName,
  Reporter,
  type ScriptContext,
  UsageError,
  writeLine,
} from "./_cli.ts";

/** Flags of scripts that several ranks can share. */
export const RANK_FLAGS = {
  distributed: {
    type: "choice",
    choices: ["mpi"],
    help: "share the work with the other ranks that mpirun or srun started",
  },
  rankLogs: {
    type: "path",
    help: "folder for a log of each rank, rank-0.log and so on",
  },
} as const satisfies FlagTable;

interface RankFlags {
  readonly distributed?: "mpi";
  readonly rankLogs?: string;
  readonly quiet?: boolean;
}

/** Milliseconds between two looks at whether parent and ranks are there. */
const LOOK_MS = 500;
/**
 * Milliseconds that a rank asked to stop waits for the others, at least, and
 * how many times the longest wait before. Slurm asks the ranks that are left to
 * stop when one has died, and kills them half a minute later.
 */
const STOP_MS = 10_000;
const STOP_FACTOR = 2;
/** Milliseconds that ranks have to end together. */
const GOODBYE_MS = 5000;

/** Milliseconds that rank 0 has to tell how the others ended. */
const LAST_WORDS_MS = 1000;

const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));

/**
 * Wraps the work of a script so that with `--distributed` it is that of one
 * rank, with `ranks` in its context.
 */
export function onRanks<F extends RankFlags>(
  main: (flags: F, context: ScriptContext) => Promise<void>,
): (flags: F, context: ScriptContext) => Promise<void> {
  return async (flags, context) => {
    if (!flags.distributed) return await main(flags, context);
    const launch = launchOf((name) => Deno.env.get(name));
    if (!launch) {
      throw new UsageError(
        "Cannot use --distributed mpi as no launcher started this process: " +
          "begin the command with mpirun -n <ranks>, or srun within a Slurm " +
          "job",
      );
    }
    const name = rankName(launch);
    using guard = new Guard(name, context.signal);
    prepareMpi();
    const mpi = await openMpi();
    await guard.watch(mpi);
    using own = await rankContext(mpi, flags, context);
    try {
      await main(flags, own.context);
      await mpi.barrier();
      guard.end();
    } catch (error) {
      if (!(error instanceof Error && error.name === "AbortError")) throw error;
      // All stop after the same step, and rank 0 says so. One that was stopped
      // elsewhere may wait for others for ever.
      const isTogether = await Promise.race([
        mpi.barrier().then(() => true),
        sleep(GOODBYE_MS).then(() => false),
      ]);
      if (isTogether) guard.end();
      if (!isTogether || mpi.rank === 0) throw error;
      await sleep(LAST_WORDS_MS);
      Deno.exit(130);
    }
  };
}

/**
 * Waits for the end of the rank, tells it in the first sentence or, once a line
 * has come, in the second, and ends the job as `endJob()` does. Some shells
 * redirect to descriptors of one digit alone.
 */
const GUARD = `
trap "" INT TERM HUP
if read -r _; then shift; read -r _; fi
printf "%s\\n" "$1" >&2
sleep 0.2
end='printf "cmd=abort exitcode=137\\n" >&$PMI_FD'
case \${#PMI_FD} in
  0) ;;
  1) eval "$end" ;;
  *) bash -c "$end" ;;
esac
`;

/**
 * Sees to it that the end of a rank, however it comes, is told and ends the
 * job.
 *
 * A process that is killed can tell nothing, and MPICH's mpirun does not tell
 * which rank it was: a shell that waits for this process to end does. It is
 * killed along with the rank where the launcher ends the others.
 */
class Guard implements Disposable {
  readonly #name: string;
  readonly #shell: Deno.ChildProcess | null;
  readonly #parent = Deno.ppid;
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #signal: AbortSignal;
  #mpi: Mpi | null = null;
  /** When this rank was found to have been asked to stop. */
  #stopping: number | null = null;

  constructor(name: string, signal: AbortSignal) {
    this.#name = name;
    this.#signal = signal;
    this.#shell = this.#startShell();
    globalThis.addEventListener("unload", this.#onUnload);
    this.#timer = setInterval(() => {
      this.#checkParent();
      this.#checkOthers();
    }, LOOK_MS);
    this.#checkParent();
  }

  /** From now on all ranks are there, and the end of this one ends all. */
  async watch(mpi: Mpi): Promise<void> {
    this.#mpi = mpi;
    const writer = this.#shell?.stdin.getWriter();
    await writer?.write(new TextEncoder().encode("joined\n"));
  }

  /** Ends MPI: nothing is left that could go wrong. */
  end(): void {
    this.#mpi?.finalize();
    this.#mpi = null;
    this[Symbol.dispose]();
  }

  /** Lets go of the shell, but not of the other ranks. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    if (this.#mpi) return;
    globalThis.removeEventListener("unload", this.#onUnload);
    this.#dismiss();
  }

  readonly #onUnload = () => {
    this.#dismiss();
    if (!this.#mpi) return;
    // What happened was told before; the others must not wait for this rank.
    // MPICH's mpirun ends them without further words; MPI_Abort has some.
    if (Deno.env.get(PMI_DESCRIPTOR) !== undefined) pause(LAST_WORDS_MS);
    this.#mpi.abort(Deno.exitCode || 1);
  };

  #dismiss(): void {
    try {
      this.#shell?.kill("SIGKILL");
    } catch {
      // It has ended.
    }
  }

  #startShell(): Deno.ChildProcess | null {
    const sentences = [
      "ended before all ranks were there, killed or because another one did " +
      "not come in time",
      "killed or crashed, perhaps for lack of memory",
    ].map((what) => `error: ${this.#name}: ${what}; the job ends`);
    try {
      const shell = new Deno.Command("sh", {
        args: ["-c", GUARD, "sh", ...sentences],
        stdin: "piped",
        stdout: "null",
        stderr: "inherit",
      }).spawn();
      shell.unref();
      return shell;
    } catch {
      // No shell, or no permission to run it: the launcher's own words remain.
      return null;
    }
  }

  #checkParent(): void {
    // Either may end before this process can look for the first time.
    if (Deno.ppid === this.#parent && !isOrphaned()) return;
    this.#endJob("the process that started it was killed", 137);
  }

  /** A rank that was asked to stop must not wait for dead ones for ever. */
  #checkOthers(): void {
    if (!this.#signal.aborted || !this.#mpi) return;
    this.#stopping ??= performance.now();
    const { now, longest } = this.#mpi.waited;
    const since = Math.min(now, performance.now() - this.#stopping);
    if (since < Math.max(STOP_MS, STOP_FACTOR * longest)) return;
    this.#endJob(
      `asked to stop, and another rank has not answered for ` +
        `${Math.round(since / 1000)} s`,
      143,
    );
  }

  /** Ends the job with a reason. */
  #endJob(reason: string, code: number): never {
    writeLine(`error: ${this.#name}: ${reason}; the job ends`);
    endRanks(code);
    Deno.exit(code);
  }
}

/** The context of a rank: rank 0's is the user's, the others' are silent. */
async function rankContext(
  mpi: Mpi,
  { rankLogs, quiet }: RankFlags,
  context: ScriptContext,
): Promise<{ readonly context: ScriptContext } & Disposable> {
  const { rank } = mpi;
  const threads = await mpi.threads();
  const visible = Deno.env.get("CUDA_VISIBLE_DEVICES");
  Deno.env.set("CUDA_VISIBLE_DEVICES", gpuOf(mpi.localRank, visible));
  const log = rankLogs === undefined ? null : await openLog(rankLogs, rank);
  const silent: Progress = {
    start: () => ({ update() {}, done() {} }),
  };
  const listeners = [
    ...(rank === 0 ? [context] : []),
    ...(log ? [log.reporter] : []),
  ];
  const note = (text: string) => {
    for (const listener of listeners) listener.note(text);
  };
  if (rank === 0) {
    note(
      `${mpi.size} ranks by ${mpi.library}, ${threads} ` +
        `thread${threads > 1 ? "s" : ""} each`,
    );
  }
  return {
    context: {
      ...context,
      ranks: { communicator: mpi, threads },
      note,
      warn: (text) => {
        if (rank > 0 && !quiet) writeLine(`rank ${rank}: ${text}`);
        note(text);
      },
      print: rank === 0 ? context.print : () => {},
      progress: rank === 0 ? context.progress : log?.reporter ?? silent,
    },
    [Symbol.dispose]: () => log?.file.close(),
  };
}

async function openLog(folder: string, rank: number) {
  await Deno.mkdir(folder, { recursive: true });
  const path = `${folder}/rank-${rank}.log`;
  const file = await Deno.open(path, { create: true, append: true });
  const encoder = new TextEncoder();
  const write = (text: string) => {
    file.writeSync(encoder.encode(text));
  };
  return { file, reporter: new Reporter({ terminal: false, write }) };
}
