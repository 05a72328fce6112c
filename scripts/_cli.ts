/**
 * What every script shares: flags and `--help`, progress on stderr, Ctrl-C, and
 * errors as one sentence with an exit code. stdout stays for results.
 *
 * ```ts ignore
 * const FLAGS = {
 *   epsilon: { type: "number", default: 0.5, min: 0, help: "l2 radius" },
 *   ...COMMON_FLAGS,
 * } as const satisfies FlagTable;
 *
 * if (import.meta.main) {
 *   await runScript(import.meta, FLAGS, {}, async (flags, { signal }) => {
 *     console.log(await writeRun(await attack({ ...flags, signal })));
 *   });
 * }
 * ```
 *
 * @module
 */
import { type Communicator, endJob, type Launch, launchOf } from "../mod.ts";
import {
  beforeDashes,
  type FlagTable,
  help,
  type ParsedFlags,
  parseFlags,
  SCRIPT_FLAGS,
  type ScriptOptions,
  UsageError,
} from "./_flags.ts";
import { type Progress, Reporter, writeLine } from "./_progress.ts";

export * from "./_flags.ts";
export * from "./_progress.ts";

/** What a script knows of the ranks that it is one of. */
export interface Ranks {
  readonly communicator: Communicator;
  /** CPU threads of a rank where `--threads` does not say. */
  readonly threads: number;
}

/** What {@linkcode runScript} hands to a script. */
export interface ScriptContext {
  /** The command line, for the record. */
  readonly args: readonly string[];
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
  readonly progress: Progress;
  /** Prints a line on stderr unless `--quiet`. */
  readonly note: (text: string) => void;
  /** As `note`, about what this rank alone knows of. */
  readonly warn?: (text: string) => void;
  /** Prints a line of the result on stdout. */
  readonly print: (text: string) => void;
  /** With `--distributed`: the ranks that share the work. */
  readonly ranks?: Ranks;
}

/**
 * Runs a script: parses `Deno.args`, prints `--help`, and turns an error into
 * one sentence on stderr and an exit code: 2 for a {@linkcode UsageError}, 130
 * after Ctrl-C or SIGTERM, else 1. `--debug` prints stack and causes too.
 *
 * With `--distributed` the sentence names the rank, and an error that all ranks
 * have is told once.
 *
 * The first Ctrl-C aborts `signal`, the second exits at once; neither is seen
 * while `main` computes without awaiting.
 *
 * @param meta The script's `import.meta`
 * @param flags The script's flags; {@linkcode SCRIPT_FLAGS} are added
 * @param options What the script takes besides flags
 * @param main The work
 */
export async function runScript<const F extends FlagTable>(
  meta: ImportMeta,
  flags: F,
  options: ScriptOptions,
  main: (
    flags: ParsedFlags<F & typeof SCRIPT_FLAGS>,
    context: ScriptContext,
  ) => Promise<void> | void,
): Promise<void> {
  const table: F & typeof SCRIPT_FLAGS = { ...flags, ...SCRIPT_FLAGS };
  const given = beforeDashes(Deno.args);
  const debug = given.includes("--debug");
  const reporter = new Reporter({ quiet: given.includes("--quiet") });
  const controller = new AbortController();
  const launch = given.some((arg) => /^--distributed(=|$)/.test(arg))
    ? launchOf((name) => Deno.env.get(name))
    : null;

  const stop = (error: unknown): never => {
    reporter.clear();
    const speaker = launch && !(error instanceof UsageError)
      ? `${rankName(launch)}: `
      : "";
    writeLine(`error: ${speaker}${describeError(error, { debug })}`);
    const code = exitCode(error, controller.signal);
    if (launch) endRanks(code);
    Deno.exit(code);
  };
  const onSignal = (name: Deno.Signal) => () => {
    if (controller.signal.aborted) {
      reporter.clear();
      Deno.exit(130);
    }
    // All ranks get the signal; one says so.
    if ((launch?.rank ?? 0) === 0) {
      reporter.note(`${name}: stopping; once more to exit at once`);
    }
    controller.abort(new DOMException(`Stopped by ${name}`, "AbortError"));
  };
  const listeners = (["SIGINT", "SIGTERM"] as const)
    // Windows knows no SIGTERM.
    .filter((name) => name === "SIGINT" || Deno.build.os !== "windows")
    .map((name) => [name, onSignal(name)] as const);
  const onRejection = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    stop(event.reason);
  };
  const onError = (event: ErrorEvent) => {
    event.preventDefault();
    stop(event.error);
  };

  try {
    if (given.includes("--help") || given.includes("-h")) {
      console.log(help(meta.url, table, options));
      return;
    }
    const values = parseFlags(Deno.args, table, options);
    for (const [name, listener] of listeners) {
      Deno.addSignalListener(name, listener);
    }
    globalThis.addEventListener("unhandledrejection", onRejection);
    globalThis.addEventListener("error", onError);
    await main(values, {
      args: Deno.args,
      print: (text) => console.log(text),
      signal: controller.signal,
      progress: reporter,
      note: (text) => reporter.note(text),
    });
    reporter.clear();
  } catch (error) {
    if (launch) await turn(launch, error);
    stop(error);
  } finally {
    globalThis.removeEventListener("unhandledrejection", onRejection);
    globalThis.removeEventListener("error", onError);
    for (const [name, listener] of listeners) {
      Deno.removeSignalListener(name, listener);
    }
  }
}

/** A rank as messages name it. */
export function rankName({ rank, size }: Launch): string {
  const of = size === undefined ? "" : ` of ${size}`;
  return `rank ${rank}${of} on ${Deno.hostname()}`;
}

/**
 * Milliseconds that a rank waits before it tells an error, for each rank before
 * it: an error that all have is told once, as the first one ends the job.
 */
const TURN_MS = 500;
const LONGEST_TURN_MS = 10_000;
/** Milliseconds more where another rank may have caused the error. */
const PATIENCE_MS = 3000;

/** Milliseconds that launchers get to pass on what was printed. */
const FLUSH_MS = 200;

/** Ends the other ranks, once they cannot cut off what this one said. */
export function endRanks(code: number): void {
  pause(FLUSH_MS);
  endJob(code);
}

/** Waits without letting anything else run. */
export function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/** Waits until this rank may tell an error. */
async function turn({ rank }: Launch, error: unknown): Promise<void> {
  const isOthers = error instanceof Error && error.name === "MpiError";
  const own = Math.min(rank * TURN_MS, LONGEST_TURN_MS);
  const milliseconds = own + (isOthers ? PATIENCE_MS : 0);
  await new Promise((done) => setTimeout(done, milliseconds));
}

/**
 * An error as one sentence: first line only, raw file and permission errors
 * reworded. With `debug`, everything the error holds.
 */
export function describeError(
  error: unknown,
  options: { readonly debug?: boolean } = {},
): string {
  if (options.debug) {
    return error instanceof Error
      ? Deno.inspect(error, { colors: false })
      : `Thrown: ${Deno.inspect(error)}`;
  }
  if (!(error instanceof Error)) return firstLine(String(error));
  if (error instanceof AggregateError && !error.message && error.errors[0]) {
    return describeError(error.errors[0]);
  }
  const line = firstLine(error.message);
  if (error instanceof Deno.errors.NotCapable) {
    const [, kind, what, flag] = line.match(
      /^Requires (.+?) access(?: to (.+?))?, run again with the (--\S+) flag/,
    ) ?? [];
    return kind
      ? `Cannot go on without ${kind} access${
        what ? ` to ${what}` : ""
      }: run again with deno's ${flag} permission`
      : line;
  }
  if (/: no space left on the device$/.test(line)) {
    return `${line}${FREE_SPACE}`;
  }
  const system = line.match(
    /^(.+?) \(os error (\d+)\)(?:: (\w+) (?:'(.*)'|(.+)))?$/,
  );
  if (!system) return line || error.name;
  const [, reason, code, verb, path, what] = system;
  const advice = code === NO_SPACE ? FREE_SPACE : "";
  const target = path === undefined
    ? what
    : path.split("' -> '").map((part) => JSON.stringify(part)).join(" to ");
  return `Cannot ${
    [FILE_VERBS[verb] ?? verb ?? "read or write", target].filter(Boolean).join(
      " ",
    )
  }: ${reason[0].toLowerCase() + reason.slice(1)}${advice}`;
}

/** Deno's names of file operations -> what a reader calls them. */
const FILE_VERBS: Readonly<Record<string, string | undefined>> = {
  readfile: "read",
  writefile: "write",
  readdir: "list",
  mkdir: "create",
  stat: "open",
  lstat: "open",
};

/** `ENOSPC`: disk full. */
const NO_SPACE = "28";
const FREE_SPACE = "; free some space and run again";

function exitCode(error: unknown, signal: AbortSignal): number {
  if (error instanceof UsageError) return 2;
  const stopped = signal.aborted && (error === signal.reason ||
    (error instanceof Error && error.name === "AbortError"));
  return stopped ? 130 : 1;
}

function firstLine(text: string): string {
  return text.trim().split(/\r?\n/, 1)[0];
}
