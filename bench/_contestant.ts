/**
 * Processes that take part in a measurement: one computes while the others
 * are stopped.
 *
 * @module
 */
import { DISTURBED, peakMemory, Watch } from "./_machine.ts";
import { median } from "./_statistics.ts";

/** A program and its arguments. */
export interface CommandLine {
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** What a process says about itself before its first step. */
export interface Facts {
  /** Library and version. */
  readonly version?: string;
  /** Settings it runs with. */
  readonly candidate?: string;
  /** Best time of each setting that was tried, in ms. */
  readonly tried?: Readonly<Record<string, number>>;
}

/** One measurement of one contestant. */
export interface Turn {
  /** Milliseconds per step: the median over the turn's steps. */
  readonly ms: number;
  /** What other processes used meanwhile; 1 is one core. */
  readonly othersShare: number;
}

/** Whether other processes computed during a turn. */
export function isDisturbed({ othersShare }: Turn): boolean {
  return othersShare > DISTURBED;
}

/** One side of a comparison. */
export interface Contestant {
  readonly name: string;
  readonly facts: Facts;
  /** Peak memory so far, in MB. */
  readonly memory: number;
  measure(): Promise<Turn>;
  close(): Promise<void>;
}

/** Short steps are repeated until a turn has taken this long. */
const TURN_MS = 1200;

/**
 * Starts a process that makes one timed step for each line it is sent, warms
 * it up and stops it until its turn.
 *
 * @throws {Error} If the process ends early; the reason is its last line
 */
export async function startStepper(
  name: string,
  command: CommandLine,
): Promise<Contestant> {
  const child = new Child(command);
  const facts: Facts = JSON.parse(await child.read());
  const step = async () => {
    await child.send("\n");
    return Number(await child.read());
  };
  const turn = async () => {
    const times: number[] = [];
    const started = performance.now();
    do times.push(await step()); while (
      performance.now() - started < TURN_MS
    );
    return median(times);
  };
  await turn();
  child.stop();
  return {
    name,
    facts,
    get memory() {
      return peakMemory(child.pid);
    },
    async measure() {
      child.resume();
      const watch = new Watch([child.pid]);
      const ms = await turn();
      const othersShare = watch.othersShare();
      child.stop();
      return { ms, othersShare };
    },
    close: () => child.kill(),
  };
}

/**
 * A contestant whose every turn is a process from its start to the first line
 * it prints. One turn warms the disk's cache.
 */
export async function startStarter(
  name: string,
  command: CommandLine,
): Promise<Contestant> {
  let facts: Facts = {};
  let memory = NaN;
  const measure = async () => {
    const started = performance.now();
    const child = new Child(command);
    const watch = new Watch([child.pid]);
    try {
      const line = await child.read();
      const ms = performance.now() - started;
      const othersShare = watch.othersShare();
      facts = JSON.parse(line);
      memory = Math.max(peakMemory(child.pid), memory || 0);
      return { ms, othersShare };
    } finally {
      await child.kill();
    }
  };
  await measure();
  return {
    name,
    get facts() {
      return facts;
    },
    get memory() {
      return memory;
    },
    measure,
    close: () => Promise.resolve(),
  };
}

/** A process that is talked to in lines. */
class Child {
  readonly #process: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reader: ReadableStreamDefaultReader<string>;
  readonly #errors: Promise<string>;
  readonly #name: string;
  #buffer = "";

  constructor({ program, args, env }: CommandLine) {
    this.#name = program;
    this.#process = new Deno.Command(program, {
      args: [...args],
      env: { ...env, NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#writer = this.#process.stdin.getWriter();
    this.#reader = this.#process.stdout
      .pipeThrough(new TextDecoderStream()).getReader();
    // A stopped process would outlive this one for ever.
    globalThis.addEventListener("unload", this.#end);
    this.#errors = new Response(this.#process.stderr).text();
  }

  get pid(): number {
    return this.#process.pid;
  }

  async send(text: string): Promise<void> {
    await this.#writer.write(new TextEncoder().encode(text));
  }

  async read(): Promise<string> {
    while (!this.#buffer.includes("\n")) {
      const { done, value } = await this.#reader.read();
      if (done) {
        const lines = (await this.#errors).trim().split("\n");
        const reason = lines.findLast((line) => /error/i.test(line)) ??
          lines.at(-1);
        throw new Error(`Cannot measure with ${this.#name}: ${reason}`);
      }
      this.#buffer += value;
    }
    const end = this.#buffer.indexOf("\n");
    const line = this.#buffer.slice(0, end);
    this.#buffer = this.#buffer.slice(end + 1);
    return line;
  }

  // Idle threads of OpenMP and ONNX Runtime spin for a while: stopped ones
  // cannot.
  stop(): void {
    this.#process.kill("SIGSTOP");
  }

  resume(): void {
    this.#process.kill("SIGCONT");
  }

  readonly #end = () => {
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
  };

  async kill(): Promise<void> {
    globalThis.removeEventListener("unload", this.#end);
    this.#end();
    await this.#process.status;
    await Promise.allSettled([this.#reader.cancel(), this.#writer.abort()]);
  }
}
