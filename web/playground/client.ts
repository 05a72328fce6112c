/**
 * The page's end of the engine: starts workers, and falls back from WebGPU to
 * WebAssembly.
 *
 * @module
 */
import type {
  Progress,
  Reply,
  Request,
  Steering,
  Task,
} from "../engine/protocol.ts";

/** What the engine is at. */
export interface EngineState {
  readonly phase: "idle" | "opening" | "loading" | "paused" | "running";
  readonly provider?: "wasm" | "webgpu";
  readonly threads?: number;
  /** Of the self-test. */
  readonly deviation?: number;
  /** Why it is not on what was asked for. */
  readonly note?: string;
  /** Images times steps per second. */
  readonly rate?: number;
  readonly loading?: { readonly received: number; readonly total: number };
  readonly representationSize?: number;
}

/** Who is told. */
export interface Listeners {
  readonly onState: (state: EngineState) => void;
  readonly onProgress: (progress: readonly Progress[]) => void;
}

/** How long a self-test may take: shaders are compiled first. */
const OPEN_MS = 150_000;

/** Runs an engine in a worker. */
export class EngineClient {
  readonly #folder: string;
  readonly #listeners: Listeners;
  #worker: Worker | null = null;
  #state: EngineState = { phase: "idle" };
  readonly #loaded = new Set<string>();
  /** Why WebGPU is not tried again. */
  #broken: string | null = null;
  #opening: Promise<void> | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Tasks are told apart: a late message of the last one is dropped. */
  #tasks = 0;
  #task: number | null = null;
  #waiting: {
    readonly type: Reply["type"];
    readonly resolve: (reply: Reply) => void;
    readonly reject: (error: Error) => void;
  } | null = null;

  /** @param folder Address of the folder with the engine's scripts */
  constructor(folder: string, listeners: Listeners) {
    this.#folder = folder;
    this.#listeners = listeners;
  }

  /** Whether there is something to go on with. */
  get hasTask(): boolean {
    return this.#task !== null;
  }

  /** Opens an engine, unless there is one. */
  open(wanted: "auto" | "webgpu" | "wasm"): Promise<void> {
    this.#opening ??= this.#open(wanted).catch((error) => {
      this.close();
      throw error;
    });
    return this.#opening;
  }

  async #open(wanted: "auto" | "webgpu" | "wasm"): Promise<void> {
    this.#set({ phase: "opening" });
    if (wanted === "wasm") return await this.#try("engine-wasm.js", wanted);
    if (this.#broken === null) {
      try {
        return await this.#try("engine-webgpu.js", wanted);
      } catch (error) {
        this.#broken = (error as Error).message;
        this.#worker?.terminate();
      }
    }
    const note = `Computing on WebAssembly, not WebGPU: ${this.#broken}.`;
    await this.#try("engine-wasm.js", "wasm", note);
  }

  /** Loads a network, unless it is. */
  async load(key: string, url: string): Promise<void> {
    if (this.#loaded.has(key)) return;
    this.#set({ ...this.#state, phase: "loading" });
    const reply = await this.#ask({ type: "load", key, url }, "loaded");
    if (reply.type !== "loaded") return;
    this.#loaded.add(key);
    const { loading: _, ...rest } = this.#state;
    const { representationSize } = reply;
    this.#set({ ...rest, phase: "paused", representationSize });
  }

  async start(task: Task): Promise<void> {
    const id = ++this.#tasks;
    this.#task = id;
    await this.#ask({ type: "start", id, task }, "started");
  }

  /** Goes on for some steps, or until it is paused. */
  run(steps: number | null): void {
    this.#set({ ...this.#state, phase: "running" });
    this.#send({ type: "run", steps });
  }

  pause(): void {
    this.#send({ type: "pause" });
  }

  /** Ends the task. */
  stop(): void {
    this.pause();
    this.#task = null;
  }

  steer(steering: Steering): void {
    this.#send({ type: "steer", steering });
  }

  /** Ends the worker and all it holds. */
  close(): void {
    this.#worker?.terminate();
    this.#worker = null;
    this.#opening = null;
    clearTimeout(this.#timer);
    this.#loaded.clear();
    this.#task = null;
    this.#waiting = null;
  }

  async #try(
    script: string,
    provider: "auto" | "webgpu" | "wasm",
    note?: string,
  ): Promise<void> {
    const url = new URL(this.#folder + script, location.href);
    const worker = new Worker(url, { type: "module" });
    this.#worker = worker;
    worker.onmessage = ({ data }) => this.#hear(data);
    worker.onerror = (event) =>
      this.#fail(event.message || "its script cannot be loaded");
    this.#timer = setTimeout(() => this.#fail("it does not answer"), OPEN_MS);
    const reply = await this.#ask({ type: "open", provider }, "opened")
      .finally(() => clearTimeout(this.#timer));
    if (reply.type !== "opened") return;
    const { threads, deviation } = reply;
    this.#set({
      phase: "paused",
      provider: reply.provider,
      threads,
      deviation,
      ...(note ? { note } : {}),
    });
  }

  #hear(reply: Reply): void {
    switch (reply.type) {
      case "refused":
      case "failed":
        return this.#fail(
          reply.type === "refused" ? reply.reason : reply.message,
        );
      case "loading":
        return this.#set({ ...this.#state, loading: reply });
      case "progress":
        if (reply.id !== this.#task) return;
        return this.#listeners.onProgress(reply.progress);
      case "rate":
        return this.#set({ ...this.#state, rate: reply.rate });
      case "paused":
        return this.#set({ ...this.#state, phase: "paused" });
    }
    if (this.#waiting?.type === reply.type) {
      const { resolve } = this.#waiting;
      this.#waiting = null;
      resolve(reply);
    }
  }

  #fail(message: string): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    this.#task = null;
    if (waiting) return waiting.reject(new Error(message));
    // A device may be lost at any time.
    if (this.#state.provider === "webgpu") {
      this.#broken = message;
      this.close();
    }
    this.#set({
      ...this.#state,
      phase: "paused",
      note: `The computation stopped: ${message}. Start begins anew.`,
    });
  }

  #ask(request: Request, type: Reply["type"]): Promise<Reply> {
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    this.#waiting = { type, resolve, reject };
    this.#send(request);
    return promise;
  }

  #send(request: Request): void {
    this.#worker?.postMessage(request);
  }

  #set(state: EngineState): void {
    this.#state = state;
    this.#listeners.onState(state);
  }
}
