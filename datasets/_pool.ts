/**
 * A few workers and a queue of jobs for them.
 *
 * @module
 */
import type { Job, Reply, ResultOf } from "./_worker.ts";

interface Pending {
  readonly job: Job;
  resolve(result: unknown): void;
  reject(reason: unknown): void;
}

/** Runs jobs in module workers, in the order they come. */
export class Pool implements Disposable {
  readonly #limit: number;
  readonly #idle: Worker[] = [];
  readonly #busy = new Map<Worker, Pending>();
  readonly #queue: Pending[] = [];
  #closed: { readonly reason: unknown } | undefined;

  /** @param workers Most workers to start; they start as jobs need them */
  constructor(workers: number) {
    this.#limit = Math.max(1, Math.floor(workers));
  }

  /** Number of workers at most. */
  get size(): number {
    return this.#limit;
  }

  /** Queues a job; rejects with its error or when the pool is closed. */
  run<J extends Job>(job: J): Promise<ResultOf<J>> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    // Several jobs are in flight at once and the first failure ends the work,
    // so the rejections of the others must not count as unhandled.
    promise.catch(() => {});
    if (this.#closed) reject(this.#closed.reason);
    else this.#queue.push({ job, resolve, reject });
    this.#next();
    return promise as Promise<ResultOf<J>>;
  }

  /** Ends all workers; jobs not done reject with `reason`. */
  close(
    reason: unknown = new Error("Cannot finish a job: its workers ended"),
  ): void {
    if (this.#closed) return;
    this.#closed = { reason };
    for (const worker of [...this.#idle, ...this.#busy.keys()]) {
      worker.terminate();
    }
    for (const { reject } of [...this.#busy.values(), ...this.#queue]) {
      reject(reason);
    }
    this.#idle.length = this.#queue.length = 0;
    this.#busy.clear();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #next(): void {
    while (this.#queue.length > 0) {
      const worker = this.#idle.pop() ??
        (this.#busy.size < this.#limit ? this.#start() : undefined);
      if (!worker) return;
      const pending = this.#queue.shift()!;
      this.#busy.set(worker, pending);
      worker.postMessage(pending.job);
    }
  }

  #start(): Worker {
    const url = new URL("./_worker.ts", import.meta.url);
    const worker = new Worker(url, { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      const pending = this.#busy.get(worker);
      this.#busy.delete(worker);
      this.#idle.push(worker);
      if (data.ok) pending?.resolve(data.result);
      else pending?.reject(new Error(data.message));
      this.#next();
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.close(
        new Error(`Cannot load images as a worker ended: ` + event.message),
      );
    };
    return worker;
  }
}
