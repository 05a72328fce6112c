/**
 * Measures the project against PyTorch: steps of both in turn, in processes of
 * their own, one computing at a time. bench/README.md defines the workloads.
 *
 * @module
 */
import { parseFlags, runScript, UsageError } from "../scripts/_cli.ts";
import {
  type CommandLine,
  type Contestant,
  type Facts,
  isDisturbed,
  startStarter,
  startStepper,
} from "./_contestant.ts";
import { describeMachine, DISTURBED, waitForIdle } from "./_machine.ts";
import {
  formatTable,
  median,
  type Pair,
  pairwiseRatio,
  type Ratio,
  showNumber,
} from "./_statistics.ts";
import { type ProfileRow, showProfile } from "./_profile.ts";
import {
  DEFAULT_WORKLOADS,
  findWorkloads,
  type Workload,
} from "./_workloads.ts";

/** Flags of this script. */
export const FLAGS = {
  workloads: {
    type: "string",
    default: DEFAULT_WORKLOADS,
    help: "what to measure, separated by commas",
  },
  pairs: {
    type: "integer",
    default: 5,
    min: 1,
    help: "undisturbed rounds of all contestants per workload",
  },
  threads: { type: "integer", default: 2, min: 1, help: "CPU threads" },
  against: {
    type: "choice",
    choices: ["torch", "none"],
    default: "torch",
    help: "what to compare with",
  },
  device: {
    type: "choice",
    choices: ["cpu", "webgpu", "cuda"],
    default: "cpu",
    help: "where we compute; PyTorch uses cuda for webgpu if it can",
  },
  tf32: {
    type: "boolean",
    help: "let PyTorch round to TensorFloat-32 on cuda, as we never do",
  },
  python: {
    type: "path",
    default: "/usr/bin/python3",
    help: "Python with torch",
  },
  wait: {
    type: "number",
    default: 10,
    min: 0,
    help: "seconds to wait, at most, for an idle machine before a round",
  },
  profile: {
    type: "boolean",
    help: "also show where our steps spend their time, by operator",
  },
  json: { type: "path", help: "also write all results here" },
  verbose: { type: "boolean", help: "print every turn on stderr" },
} as const;

/** What a run of the benchmark needs to know. */
export interface BenchOptions {
  readonly workloads: readonly Workload[];
  readonly pairs: number;
  readonly threads: number;
  readonly against: "torch" | "none";
  readonly device: "cpu" | "webgpu" | "cuda";
  /** Whether PyTorch may use TensorFloat-32 on cuda. */
  readonly tf32: boolean;
  readonly python: string;
  /** Seconds to wait for an idle machine before a round. */
  readonly wait: number;
  readonly profile: boolean;
  readonly json?: string;
  readonly verbose: boolean;
}

/**
 * Reads the command line.
 *
 * @throws {UsageError} If a flag or a workload is unknown or out of range
 */
export function parseOptions(args: readonly string[]): BenchOptions {
  return checkOptions(parseFlags(args, FLAGS));
}

function checkOptions(
  flags: Omit<BenchOptions, "workloads"> & { readonly workloads: string },
): BenchOptions {
  try {
    return { ...flags, workloads: findWorkloads(flags.workloads) };
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(error.message) : error;
  }
}

/** Times of one contestant. */
export interface Side extends Facts {
  /** Median of the rounds, ms per step. */
  readonly median: number;
  /** Least of them. */
  readonly min: number;
  /** Peak memory of the process, in MB. */
  readonly memory: number;
}

/** Result of one workload. */
export interface Result {
  readonly workload: string;
  readonly batchSize: number;
  readonly gflop: number;
  /** By contestant: "ours", "eager", "tuned". */
  readonly sides: Readonly<Record<string, Side>>;
  /** PyTorch's time over ours, by its name. */
  readonly ratios: Readonly<Record<string, Ratio>>;
  /** Times of the rounds that count, ms per step. */
  readonly pairs: readonly Pair[];
  /** Rounds left out because other processes computed. */
  readonly discarded: readonly Pair[];
  /** Whether no round was undisturbed, so that `pairs` are disturbed ones. */
  readonly disturbed: boolean;
  /** Where our step spends its time, if asked for. */
  readonly profile?: readonly ProfileRow[];
}

function pathOf(name: string): string {
  return new URL(name, import.meta.url).pathname;
}

/** Command line of one of our programs for a workload. */
function ourCommand(
  script: string,
  workload: Workload,
  { threads, device }: Pick<BenchOptions, "threads" | "device">,
): CommandLine {
  return {
    program: Deno.execPath(),
    args: [
      ...["run", "--allow-all", "--frozen=false", pathOf(script)],
      ...[workload.id, device, String(threads)],
    ],
  };
}

/** Profiles a workload in a process of its own: profiling slows steps down. */
async function profileOf(
  workload: Workload,
  options: BenchOptions,
): Promise<ProfileRow[]> {
  const { program, args } = ourCommand("_profile.ts", workload, options);
  const { success, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    env: { NO_COLOR: "1" },
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  if (!success) {
    throw new Error(
      `Cannot profile ${workload.id}: ${text(stderr).split("\n").at(-1)}`,
    );
  }
  return JSON.parse(text(stdout));
}

/** Command lines of a workload's contestants, ours first. */
function commandLines(
  workload: Workload,
  { threads, device, tf32, python, against }: BenchOptions,
): Record<string, CommandLine> {
  const script = workload.kind === "start" ? "_first_step.ts" : "_worker.ts";
  const ours = ourCommand(script, workload, { threads, device });
  if (against === "none") return { ours };
  const torch = (side: string) => ({
    program: python,
    args: [
      pathOf("torch_peer.py"),
      JSON.stringify({
        side,
        kind: workload.kind,
        arch: workload.spec.architecture,
        width: workload.spec.width,
        classes: workload.spec.classes,
        batchSize: workload.batchSize,
        imageSize: workload.imageSize,
        threads,
        tf32,
        device: device === "webgpu" ? "auto" : device,
      }),
    ],
    env: { OMP_NUM_THREADS: String(threads) },
  });
  return { ours, eager: torch("eager"), tuned: torch("tuned") };
}

interface Report {
  readonly note: (text: string) => void;
  readonly signal?: AbortSignal;
}

/** Measures one workload. */
async function measure(
  workload: Workload,
  options: BenchOptions,
  { note, signal }: Report,
): Promise<Result> {
  const start = workload.kind === "start" ? startStarter : startStepper;
  const contestants: Contestant[] = [];
  const pairs: Pair[] = [];
  const discarded: Pair[] = [];
  try {
    for (
      const [name, command] of Object.entries(commandLines(workload, options))
    ) {
      note(`${workload.id}: preparing ${name}`);
      contestants.push(await start(name, command));
    }
    // Twice as many attempts as rounds wanted, and then what there is.
    for (let i = 0; i < 2 * options.pairs; i++) {
      if (pairs.length === options.pairs) break;
      signal?.throwIfAborted();
      const idle = await waitForIdle(options.wait);
      // Who goes first changes, so that nobody always follows the same.
      const order = contestants.map((_, j) =>
        contestants[(i + j) % contestants.length]
      );
      const pair: Record<string, number> = {};
      let disturbed = false;
      for (const contestant of order) {
        const turn = await contestant.measure();
        pair[contestant.name] = turn.ms;
        disturbed ||= isDisturbed(turn);
        if (options.verbose) {
          const share = (100 * turn.othersShare).toFixed(0);
          note(
            `${workload.id} ${contestant.name}: ${showNumber(turn.ms)} ms, ` +
              `others ${share} % of a core`,
          );
        }
      }
      if (disturbed) {
        note(
          `${workload.id}: round left out as other processes compute ` +
            `(${(100 * idle).toFixed(0)} % of a core before it)`,
        );
      }
      (disturbed ? discarded : pairs).push(pair);
    }
    const counted = pairs.length > 0 ? pairs : discarded;
    const sides = contestants.map(({ name, facts, memory }) => {
      const times = counted.map((pair) => pair[name]);
      const side: Side = {
        ...facts,
        median: median(times),
        min: Math.min(...times),
        memory,
      };
      return [name, side] as const;
    });
    return {
      workload: workload.id,
      batchSize: workload.batchSize,
      gflop: workload.gflop,
      sides: Object.fromEntries(sides),
      ratios: Object.fromEntries(
        contestants.slice(1).map(({ name }) => [
          name,
          pairwiseRatio(counted, name, "ours"),
        ]),
      ),
      pairs: counted,
      discarded: pairs.length > 0 ? discarded : [],
      disturbed: pairs.length === 0,
    };
  } finally {
    for (const contestant of contestants) await contestant.close();
  }
}

const HEADER = [
  "workload",
  "ours ms (min)",
  "eager ms",
  "tuned ms",
  "eager/ours",
  "tuned/ours",
  "images/s",
  "GFLOP/s",
  "MB ours/eager/tuned",
];

/**
 * Results as a Markdown table. A workload marked with `*` had no undisturbed
 * round.
 */
export function showResults(results: readonly Result[]): string {
  const rows = results.map((result) => {
    const { ours, eager, tuned } = result.sides;
    const sides = [ours, eager, tuned];
    const time = (side?: Side) => side ? showNumber(side.median) : "-";
    const ratio = (name: string) =>
      name in result.ratios ? result.ratios[name].median.toFixed(2) : "-";
    const perSecond = (count: number) =>
      showNumber(count / (ours.median / 1000));
    return [
      result.workload + (result.disturbed ? " *" : ""),
      `${showNumber(ours.median)} (${showNumber(ours.min)})`,
      time(eager),
      time(tuned),
      ratio("eager"),
      ratio("tuned"),
      result.workload === "W5" ? "-" : perSecond(result.batchSize),
      result.workload === "W5" ? "-" : perSecond(result.gflop),
      sides.map((side) => side ? Math.round(side.memory) : "-").join(" / "),
    ];
  });
  return formatTable(HEADER, rows);
}

/** Whether a Python can import torch. */
async function hasTorch(python: string): Promise<boolean> {
  try {
    const { success } = await new Deno.Command(python, {
      args: ["-c", "import torch"],
      stdout: "null",
      stderr: "null",
    }).output();
    return success;
  } catch {
    return false;
  }
}

/** Measures all workloads asked for. */
export async function bench(
  given: BenchOptions,
  report: Report,
): Promise<Result[]> {
  let options = given;
  if (options.against === "torch" && !await hasTorch(options.python)) {
    report.note(
      `${options.python} cannot import torch, so only our side is measured: ` +
        `install python3-torch and libopenblas0-pthread or pass --python`,
    );
    options = { ...options, against: "none" };
  }
  const share = await waitForIdle(options.wait);
  if (share > DISTURBED) {
    report.note(
      `Warning: other processes use ${(100 * share).toFixed(0)} % of a core; ` +
        `rounds they disturb are left out, and marked * if there are no others`,
    );
  }
  const results: Result[] = [];
  for (const workload of options.workloads) {
    const result = await measure(workload, options, report);
    if (options.profile) report.note(`${workload.id}: profiling`);
    results.push(
      options.profile
        ? { ...result, profile: await profileOf(workload, options) }
        : result,
    );
  }
  return results;
}

if (import.meta.main) {
  await runScript(import.meta, FLAGS, {}, async (flags, context) => {
    const options = checkOptions(flags);
    const machine = describeMachine();
    const results = await bench(options, context);
    console.log(`${showResults(results)}\n`);
    for (const { workload, profile } of results) {
      if (profile) {
        console.log(`${workload}, by operator:\n${showProfile(profile)}\n`);
      }
    }
    for (const { workload, sides } of results) {
      if (sides.tuned) {
        console.log(`${workload} tuned: ${sides.tuned.candidate}`);
      }
    }
    if (options.against === "torch" && !results.some((r) => r.sides.eager)) {
      console.log("PyTorch was not found: only our side is measured");
    }
    const versions = new Set(
      results.flatMap(({ sides }) =>
        Object.values(sides).map(({ version }) => version ?? "")
      ),
    );
    console.log(
      `${[...versions].filter(Boolean).join(", ")}; ${machine.cpu}, ` +
        `${options.threads} threads, ${options.device}`,
    );
    if (options.json) {
      const { threads, device } = options;
      const record = { machine, threads, device, results };
      await Deno.writeTextFile(
        options.json,
        `${JSON.stringify(record, null, 2)}\n`,
      );
    }
  });
}
