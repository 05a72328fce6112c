/**
 * Progress on stderr: a bar on a terminal, else a line now and then.
 *
 * @module
 */
/** Progress of one piece of work. */
export interface ProgressTask {
  /** @param done How much of the total is done */
  update(done: number, text?: string): void;
  /** Ends the work and prints how long it took. */
  done(text?: string): void;
}

/** Where a script reports progress. */
export interface Progress {
  /**
   * @param label What the work is
   * @param total How much of it there is; 0 if unknown
   * @param from How much of it was done before, when resuming
   */
  start(label: string, total: number, from?: number): ProgressTask;
}

interface ReporterOptions {
  readonly quiet?: boolean;
  /** Whether stderr is a terminal, which gets a moving line. */
  readonly terminal?: boolean;
  /** Receives the text, default stderr. */
  readonly write?: (text: string) => void;
  /** Milliseconds, for tests. */
  readonly now?: () => number;
}

/** Milliseconds between two redraws of the line on a terminal. */
const REDRAW_MS = 100;
/** Milliseconds between two lines elsewhere, for example in a log file. */
const LOG_MS = 10_000;

/** Progress and notes on stderr. */
export class Reporter implements Progress {
  readonly #quiet: boolean;
  readonly #terminal: boolean;
  readonly #write: (text: string) => void;
  readonly #now: () => number;
  /** The moving line as drawn, empty if there is none. */
  #line = "";

  constructor(options: ReporterOptions = {}) {
    this.#quiet = options.quiet ?? false;
    this.#terminal = options.terminal ?? Deno.stderr.isTerminal();
    this.#write = options.write ?? writeStderr;
    this.#now = options.now ?? (() => performance.now());
  }

  /** Starts a piece of work. */
  start(label: string, total: number, from = 0): ProgressTask {
    const begun = this.#now();
    let drawn = this.#terminal ? -Infinity : begun;
    let current = from;
    let last = "";
    let ended = false;
    const interval = this.#terminal ? REDRAW_MS : LOG_MS;
    return {
      update: (done, text = "") => {
        [current, last] = [done, text];
        const now = this.#now();
        if (this.#quiet || ended || now - drawn < interval) return;
        drawn = now;
        const seconds = (now - begun) / 1000;
        this.#draw(progressLine({ label, total, from, done, seconds, text }));
      },
      done: (text = last) => {
        if (this.#quiet || ended) return;
        ended = true;
        const seconds = (this.#now() - begun) / 1000;
        this.clear();
        const parts = [`${label}: ${current}`, `in ${showTime(seconds)}`];
        if (text) parts.push(`- ${text}`);
        this.#write(`${parts.join(" ")}\n`);
      },
    };
  }

  /** Prints a line, above the moving one if there is one. */
  note(text: string): void {
    if (this.#quiet) return;
    const line = this.#line;
    this.clear();
    this.#write(`${text}\n`);
    if (line) this.#draw(line);
  }

  /** Removes the moving line. */
  clear(): void {
    if (this.#line) this.#write("\r\x1b[K");
    this.#line = "";
  }

  #draw(line: string): void {
    if (!this.#terminal) return this.#write(`${line}\n`);
    this.#line = line;
    // A line as wide as the terminal would wrap and never be erased.
    this.#write(`\r${line.slice(0, columns() - 1)}\x1b[K`);
  }
}

interface ProgressState {
  readonly label: string;
  readonly total: number;
  readonly from: number;
  readonly done: number;
  readonly seconds: number;
  readonly text: string;
}

function progressLine(state: ProgressState): string {
  const { label, total, from, done, seconds, text } = state;
  const rate = seconds > 0 ? (done - from) / seconds : 0;
  const parts = [`${label}: ${done}`];
  if (total > 0) {
    parts[0] += `/${total}`;
    parts.push(`${Math.floor(100 * Math.min(1, done / total))}%`);
  }
  if (rate > 0) {
    // Slow work reads better as seconds per item.
    parts.push(
      rate >= 1 ? `${rate.toFixed(1)}/s` : `${(1 / rate).toFixed(1)} s each`,
    );
    if (total > done) parts.push(`${showTime((total - done) / rate)} left`);
  }
  if (text) parts.push(`- ${text}`);
  return parts.join(" ");
}

function showTime(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (value: number) => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes}:${two(whole % 60)} min`
    : `${Math.floor(minutes / 60)}:${two(minutes % 60)} h`;
}

function columns(): number {
  try {
    return Deno.consoleSize().columns || 80;
  } catch {
    // stderr may be a terminal where stdin and stdout are not.
    return 80;
  }
}

/** Writes a line to stderr. */
export function writeLine(text: string): void {
  writeStderr(`${text}\n`);
}

function writeStderr(text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let sent = 0; sent < bytes.length;) {
      sent += Deno.stderr.writeSync(bytes.subarray(sent));
    }
  } catch {
    // Nowhere is left to say that stderr is closed.
  }
}
