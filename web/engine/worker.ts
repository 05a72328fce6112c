/**
 * The engine's thread: takes requests, optimises between them.
 *
 * @module
 */
import { chooseProvider, runtimeVersion } from "../../onnx/mod.ts";
import { Engine } from "./engine.ts";
import type { Progress, Reply, Request } from "./protocol.ts";
import { selfTest } from "./self_test.ts";

/** How long a part takes at most before pictures are shown, in ms. */
const PART_MS = 120;

/** More threads than this do not pay for small pictures. */
const MOST_THREADS = 8;

interface Scope {
  onmessage: ((event: MessageEvent<Request>) => void) | null;
  postMessage(reply: Reply, transfer?: Transferable[]): void;
}
const scope = globalThis as unknown as Scope;

let engine: Engine;
/** Grows with each request that ends what is running. */
let generation = 0;
/** Of the task at hand. */
let id = 0;
/** Whether to stop once the feature is the largest (paper, 4.2.1). */
let stopsAtLargest = false;

/** Steps of the task, and ms they took; the first part makes the programs. */
let measured: { steps: number; ms: number } | null = null;

/** Requests are carried out one after the other. */
let queue = Promise.resolve();

scope.onmessage = ({ data }) => {
  switch (data.type) {
    case "pause":
      generation++;
      return;
    case "steer":
      engine.steer(data.steering);
      return;
    case "start":
      generation++;
  }
  const own = generation;
  queue = queue.then(() => handle(data, own)).catch((error) => {
    const [message] = String(error?.message ?? error).split("\n");
    const type = data.type === "open" ? "refused" : "failed";
    scope.postMessage(
      type === "refused" ? { type, reason: message } : { type, message },
    );
  });
};

async function handle(request: Request, own: number): Promise<void> {
  switch (request.type) {
    case "open":
      return await open(request.provider);
    case "load":
      return await load(request.key, request.url);
    case "start":
      measured = null;
      id = request.id;
      stopsAtLargest = request.task.mode === "add";
      send(await engine.start(request.task));
      return scope.postMessage({ type: "started" });
    case "run":
      return await run(request.steps, own);
  }
}

async function open(wanted: "wasm" | "webgpu" | "auto"): Promise<void> {
  let provider: "cpu" | "webgpu" = wanted === "wasm" ? "cpu" : "webgpu";
  if (wanted === "auto") {
    const choice = await chooseProvider("auto");
    if (choice.provider !== "webgpu") {
      throw new Error("this browser offers no WebGPU on a graphics card");
    }
    provider = "webgpu";
  }
  const threads = globalThis.crossOriginIsolated
    ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1)
    : 1;
  const options = { provider, threads };
  const deviation = await selfTest(options);
  engine = new Engine(options);
  scope.postMessage({
    type: "opened",
    provider: provider === "cpu" ? "wasm" : "webgpu",
    threads,
    version: await runtimeVersion(),
    deviation,
  });
}

async function load(key: string, url: string): Promise<void> {
  const response = await fetch(url);
  if (!response.ok || !response.body) {
    throw new Error(
      `Cannot load "${key}": the server answers ${response.status}`,
    );
  }
  const total = Number(response.headers.get("content-length") ?? 0);
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let received = 0;
  for (const reader = response.body.getReader();;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    scope.postMessage({ type: "loading", key, received, total });
  }
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  const representationSize = await engine.load(key, bytes);
  scope.postMessage({ type: "loaded", key, representationSize });
}

/**
 * Steps in parts, between which requests are heard.
 *
 * @param left Steps to do; null: until it is paused
 * @param own Ends as soon as there is a newer generation
 */
async function run(left: number | null, own: number): Promise<void> {
  let part = 1;
  let reason: "asked" | "done" | "largest" = "asked";
  while (generation === own) {
    const steps = left === null ? part : Math.min(part, left);
    if (steps === 0) {
      reason = "done";
      break;
    }
    const start = performance.now();
    const progress = await engine.advance(steps);
    const took = performance.now() - start;
    if (left !== null) left -= steps;
    send(progress);
    measure(steps, took);
    if (stopsAtLargest && progress.every(({ rank }) => rank === 1)) {
      reason = "largest";
      break;
    }
    part = Math.max(1, Math.min(2 * part, Math.round(part * PART_MS / took)));
    // Lets messages in.
    await new Promise((resolve) => setTimeout(resolve));
  }
  scope.postMessage({ type: "paused", reason });
}

/** Reports how fast it goes. */
function measure(steps: number, ms: number): void {
  if (!measured) measured = { steps: 0, ms: 0 };
  else {
    measured.steps += steps;
    measured.ms += ms;
    const rate = 1000 * measured.steps * engine.count / measured.ms;
    scope.postMessage({ type: "rate", rate });
  }
}

function send(progress: readonly Progress[]): void {
  const transfer = progress.flatMap(({ pixels }) =>
    pixels.map(({ buffer }) => buffer)
  );
  scope.postMessage({ type: "progress", id, progress }, transfer);
}
