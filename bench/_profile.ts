/**
 * Where our side of a workload spends its steps, by ONNX Runtime's own profile
 * of its sessions.
 *
 * @module
 */
import type { Provider } from "../onnx/mod.ts";
import { formatTable, median, showNumber } from "./_statistics.ts";
import { prepare } from "./_worker.ts";
import { findWorkloads } from "./_workloads.ts";

/** What one operator takes. */
export interface ProfileRow {
  /** ONNX operator, or ONNX Runtime's own in its place. */
  readonly operator: string;
  /** Execution provider of ONNX Runtime. */
  readonly provider: string;
  /** Nodes of it that run per step. */
  readonly count: number;
  /** Milliseconds per step: the sum over nodes of their medians. */
  readonly ms: number;
}

/** An event of ONNX Runtime's profile, as far as it is read here. */
export interface ProfileEvent {
  readonly cat?: string;
  readonly name: string;
  /** Microseconds. */
  readonly dur: number;
  readonly args?: { readonly op_name?: string; readonly provider?: string };
}

/** A kernel's time. */
interface KernelEvent extends ProfileEvent {
  readonly operator: string;
  readonly provider: string;
}

/**
 * Kernels of a profile: on WebGPU what its programs took on the device, named
 * `node&operator&program`; else what nodes took, which on a device would be the
 * time to hand them over.
 */
function kernelsOf(events: readonly ProfileEvent[]): KernelEvent[] {
  const programs = events.filter(({ cat }) => cat === "Api");
  if (programs.length > 0) {
    return programs.map((event) => {
      const [, type, program] = event.name.split("&");
      const operator = type === program ? type : `${type}: ${program}`;
      return { ...event, operator, provider: "WebGpu" };
    });
  }
  return events
    .filter(({ cat, name }) => cat === "Node" && name.endsWith("_kernel_time"))
    .map((event) => {
      const { op_name: operator = "?", provider = "?" } = event.args ?? {};
      const name = provider.replace("ExecutionProvider", "");
      return { ...event, operator, provider: name };
    });
}

/**
 * Sums the kernels of profiles by operator, the slowest first. Sessions that
 * ran less often than once a step prepare something and do not count.
 *
 * @param profiles Events of each session
 * @param steps Steps that were made
 */
export function sumByOperator(
  profiles: readonly (readonly ProfileEvent[])[],
  steps: number,
): ProfileRow[] {
  const rows = new Map<string, ProfileRow>();
  for (const events of profiles) {
    const runs = events.filter(({ name }) => name === "model_run").length;
    if (runs < steps) continue;
    const nodes = Map.groupBy(kernelsOf(events), ({ name }) => name);
    for (const times of nodes.values()) {
      const [{ operator, provider }] = times;
      const key = `${operator} ${provider}`;
      const { count, ms } = rows.get(key) ?? { count: 0, ms: 0 };
      rows.set(key, {
        operator,
        provider,
        count: count + times.length / steps,
        ms: ms + median(times.map(({ dur }) => dur / 1000)) *
            (times.length / steps),
      });
    }
  }
  return [...rows.values()].sort((a, b) => b.ms - a.ms);
}

/** Operators below this share of the time are shown as one. */
const SHOWN_SHARE = 0.005;

/** Rows of a profile as a Markdown table. */
export function showProfile(rows: readonly ProfileRow[]): string {
  const total = rows.reduce((sum, { ms }) => sum + ms, 0);
  const isShown = ({ ms }: ProfileRow) => ms >= SHOWN_SHARE * total;
  const rest = rows.filter((row) => !isShown(row));
  const sum = (of: "ms" | "count") =>
    rest.reduce((sum, row) => sum + row[of], 0);
  const others = { operator: `${rest.length} others`, provider: "" };
  const shown = [
    ...rows.filter(isShown),
    ...(rest.length > 0
      ? [{ ...others, count: sum("count"), ms: sum("ms") }]
      : []),
  ];
  return formatTable(
    ["operator", "provider", "nodes a step", "ms a step", "share"],
    shown.map(({ operator, provider, count, ms }) => [
      operator,
      provider,
      count.toFixed(0),
      showNumber(ms),
      `${(100 * ms / total).toFixed(1)} %`,
    ]),
  );
}

/** A device's kernels take the same time at every step. */
const STEPS = { cpu: 24, cuda: 6, webgpu: 6 };

// As a program: makes steps and prints the profile's rows as JSON.
if (import.meta.main) {
  const [id, provider, threads] = Deno.args;
  const [workload] = findWorkloads(id);
  const steps = STEPS[provider as Provider];
  const folder = await Deno.makeTempDir();
  try {
    const { step, release, extraSteps = 0 } = await prepare(workload, {
      provider: provider as Provider,
      threads: Number(threads),
      profile: `${folder}/session`,
    });
    for (let i = 0; i < steps; i++) await step();
    await release();
    const profiles: ProfileEvent[][] = [];
    for await (const { name } of Deno.readDir(folder)) {
      profiles.push(JSON.parse(await Deno.readTextFile(`${folder}/${name}`)));
    }
    console.log(JSON.stringify(sumByOperator(profiles, steps + extraSteps)));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  Deno.exit();
}
