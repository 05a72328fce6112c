/**
 * What the machine is doing, from Linux's /proc: CPU time of processes and of
 * everything, and peak memory. Elsewhere nothing is known and nothing is
 * held to be disturbed.
 *
 * @module
 */

/** Milliseconds per clock tick of /proc: `getconf CLK_TCK` is 100. */
const TICK_MS = 10;

/** CPU time of all processes together since boot, in ms; 0 if unknown. */
export function busyTime(): number {
  const line = readProc("stat").split("\n", 1)[0];
  const ticks = line.split(/\s+/).slice(1, 9).map(Number);
  if (ticks.length < 8) return 0;
  const [user, nice, system, _idle, _wait, irq, softIrq, steal] = ticks;
  return (user + nice + system + irq + softIrq + steal) * TICK_MS;
}

/** CPU time of a process and its threads in ms; 0 if unknown. */
export function processTime(pid: number): number {
  const text = readProc(`${pid}/stat`);
  // The name in parentheses may hold spaces; user and system time follow it.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return fields.length > 12
    ? (Number(fields[11]) + Number(fields[12])) * TICK_MS
    : 0;
}

/** Largest memory a process has had in RAM, in MB; NaN if unknown. */
export function peakMemory(pid: number): number {
  const [, kilobytes] = readProc(`${pid}/status`).match(/VmHWM:\s+(\d+)/) ?? [];
  return Number(kilobytes) / 1024;
}

function readProc(name: string): string {
  try {
    return Deno.readTextFileSync(`/proc/${name}`);
  } catch {
    return "";
  }
}

/** CPU time that others took while something ran. */
export class Watch {
  readonly #pids: readonly number[];
  readonly #started = performance.now();
  readonly #busy = busyTime();
  readonly #own: number;

  /** @param pids Processes that are not "others", besides this one */
  constructor(pids: readonly number[] = []) {
    this.#pids = [Deno.pid, ...pids];
    this.#own = this.#ownTime();
  }

  #ownTime(): number {
    return this.#pids.reduce((sum, pid) => sum + processTime(pid), 0);
  }

  /** Others' share since the start: 1 is one core, 0 none or unknown. */
  othersShare(): number {
    const wall = performance.now() - this.#started;
    const busy = busyTime() - this.#busy;
    // The two clocks differ by a few ticks.
    const others = busy - (this.#ownTime() - this.#own) - 3 * TICK_MS;
    return wall > 0 ? Math.max(0, others / wall) : 0;
  }
}

/**
 * Others' share of a core above which a measurement is disturbed: a twentieth of
 * the machine.
 */
export const DISTURBED = 0.05 * navigator.hardwareConcurrency;

/**
 * Waits until no other process computes.
 *
 * @param seconds Most time to wait
 * @returns Others' share of a core when last looked at
 */
export async function waitForIdle(seconds: number): Promise<number> {
  const end = performance.now() + seconds * 1000;
  while (true) {
    const watch = new Watch();
    await new Promise((resolve) => setTimeout(resolve, 200));
    const share = watch.othersShare();
    if (share <= DISTURBED || performance.now() > end) return share;
  }
}

/** What results depend on. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly os: string;
  /** Load averages over 1, 5 and 15 minutes. */
  readonly load: readonly number[];
  readonly deno: string;
}

/** Describes this machine. */
export function describeMachine(): Machine {
  const [, cpu] = readProc("cpuinfo").match(/model name\s*:\s*(.+)/) ?? [];
  return {
    cpu: cpu ?? "unknown",
    cores: navigator.hardwareConcurrency,
    os: `${Deno.build.os} ${Deno.build.arch}`,
    load: Deno.loadavg(),
    deno: Deno.version.deno,
  };
}
