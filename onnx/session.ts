/**
 * Running graphs on ONNX Runtime: the only file that calls onnxruntime-node and
 * onnxruntime-web, both loaded when first needed. `web/vendor.ts` copies the
 * latter's files for browsers.
 *
 * @module
 */
import type * as ort from "onnxruntime-web";
import {
  type AnyTensor,
  expressionKey,
  hoistParameters,
  input,
  type NamedTensors,
  neg,
  type Node,
  sameShape,
  type Shape,
  show,
  sizeOf,
  viewParameters,
} from "../core/mod.ts";
import { blockedWeights, PROBE_SHAPE, probeGraph } from "./blocked.ts";
import {
  exportModel,
  type ExternalFile,
  lower,
  type ValueInfo,
} from "./export.ts";
import { DeviceTensor, hasOwnMemory } from "./device.ts";
import { allocateTensors, freeTensor } from "./memory.ts";
import { useTiledKernels } from "./tiled.ts";

/** Execution providers of ONNX Runtime that programs run on. */
export type Provider = "cpu" | "webgpu" | "cuda";

/** Options of `compile()`. */
export interface CompileOptions {
  /** Where to run (default "cpu"); see `chooseProvider()`. */
  readonly provider?: Provider;
  /** Values for parameters: constant from now on, and faster than feeding. */
  readonly constants?: NamedTensors;
  /** Shares packed weights with other programs of the same constants. */
  readonly packed?: PackedWeights;
  /** CPU threads (default: one per core). */
  readonly threads?: number;
  /**
   * Which GPU on cuda, of those that `CUDA_VISIBLE_DEVICES` shows (default 0).
   */
  readonly deviceId?: number;
  /** Allow TensorFloat-32 on cuda, about 1e-3 off per layer (default false). */
  readonly allowTf32?: boolean;
  /**
   * Where tensors of the CPU provider lie during a run: "own" keeps them for
   * the next run, whatever else allocates memory meanwhile; "shared" gives them
   * back after it, to programs that run in turn (default "own").
   */
  readonly memory?: "own" | "shared";
  /**
   * Outputs that stay in the provider's own memory, as `DeviceTensor`, if it has
   * such memory (webgpu).
   */
  readonly onDevice?: readonly string[];
  /** Refuse to run any node on the CPU next to another provider. */
  readonly noFallback?: boolean;
  /** Writes ONNX Runtime's profile to files beginning with this. */
  readonly profile?: string;
}

/**
 * Weights in the order that the CPU provider's kernels read, by what they are
 * computed from: programs of one network read the same ones.
 */
export class PackedWeights {
  readonly #values = new Map<string, AnyTensor>();

  /** @ignore For compile(). */
  get(key: string): AnyTensor | undefined {
    return this.#values.get(key);
  }

  /** @ignore For compile(). */
  set(key: string, value: AnyTensor): void {
    this.#values.set(key, value);
  }

  /** Frees them; programs that read them must have been released. */
  release(): void {
    for (const value of this.#values.values()) freeTensor(value);
    this.#values.clear();
  }
}

/**
 * Whether `InferenceSession.run()` writes into the tensors it is given:
 * onnxruntime-web returns those as they were, without what it computed.
 */
const WRITES_INTO_TENSORS = "Deno" in globalThis;

/** The functions of ONNX Runtime that both packages share. */
type Runtime = Pick<typeof ort, "InferenceSession" | "Tensor" | "env">;

let runtime: Promise<Runtime> | undefined;

/** Loads the package for this host: native under Deno, WASM in a browser. */
function loadRuntime(): Promise<Runtime> {
  const load = async (): Promise<Runtime> => {
    keepsFreedMemory = keepFreedMemory();
    const loaded = "Deno" in globalThis
      ? await import("onnxruntime-node") as unknown as Runtime
      : await import("onnxruntime-web");
    // Failures arrive as exceptions; logs would mix with progress.
    loaded.env.logLevel = "fatal";
    return loaded;
  };
  return runtime ??= load();
}

/**
 * Whether the C library serves tensors well. ONNX Runtime then needs no plan of
 * its own for them, nor programs that run in turn an arena each, and a quarter
 * to a third less memory.
 */
let keepsFreedMemory = false;

/**
 * Lets glibc keep the memory that it is given back. By default it returns each
 * large tensor to the system and gets it anew, zeroed page by page, at the next
 * step: 12 % of a step of training.
 *
 * @returns Whether it does
 */
function keepFreedMemory(): boolean {
  if (!("Deno" in globalThis) || Deno.build.os !== "linux") return false;
  // malloc.h
  const M_TRIM_THRESHOLD = -1, M_MMAP_MAX = -4;
  try {
    const { symbols } = Deno.dlopen("libc.so.6", {
      mallopt: { parameters: ["i32", "i32"], result: "i32" },
    });
    const set = (parameter: number, value: number) =>
      symbols.mallopt(parameter, value) === 1;
    return set(M_MMAP_MAX, 0) && set(M_TRIM_THRESHOLD, 2 ** 31 - 1);
  } catch {
    // Another C library: it has its own ways.
    return false;
  }
}

/**
 * A graph ready to run on one provider, for the shapes it was defined with.
 *
 * A session costs up to seconds to make (shaders, packed weights) and memory
 * until it is released: make one per shape, keep it.
 */
export class Program {
  /** What `run()` needs. */
  readonly inputs: readonly ValueInfo[];
  /** What `run()` gives. */
  readonly outputs: readonly ValueInfo[];
  /** Where it runs. */
  readonly provider: Provider;
  readonly #runtime: Runtime;
  readonly #session: ort.InferenceSession;
  /** Inputs that are the same at every run. */
  readonly #bound: Readonly<Record<string, ort.Tensor>>;
  readonly #owned: PackedWeights | null;
  readonly #onDevice: ReadonlySet<string>;
  /** Outputs as the graph has them. */
  readonly #results: readonly ValueInfo[];

  /** @ignore Use compile(). */
  constructor(
    runtime: Runtime,
    session: ort.InferenceSession,
    inputs: readonly ValueInfo[],
    outputs: readonly ValueInfo[],
    provider: Provider,
    { bound = {}, owned = null, onDevice = [], views = {} }: {
      readonly bound?: NamedTensors;
      readonly owned?: PackedWeights | null;
      readonly onDevice?: readonly string[];
      readonly views?: Readonly<Record<string, Shape>>;
    } = {},
  ) {
    this.#owned = owned;
    this.#onDevice = new Set(onDevice);
    this.#runtime = runtime;
    this.#session = session;
    const isBound = ({ name }: ValueInfo) => Object.hasOwn(bound, name);
    this.inputs = inputs.filter((info) => !isBound(info));
    this.#results = outputs;
    this.outputs = outputs.map((info) => ({
      ...info,
      shape: views[info.name] ?? info.shape,
    }));
    this.provider = provider;
    this.#bound = Object.fromEntries(
      inputs.filter(isBound)
        .map((info) => [info.name, this.#wrap(info, bound[info.name], "feed")]),
    );
  }

  /**
   * Computes the outputs.
   *
   * @param feeds Tensors for all inputs; others are ignored
   * @param target Tensors that outputs are written to instead of new ones;
   * programs with outputs on a device do without
   * @returns Tensors by output name
   * @throws {TypeError} If a tensor is missing or has the wrong shape
   */
  async run(
    feeds: NamedTensors,
    target: NamedTensors = {},
  ): Promise<Record<string, AnyTensor>> {
    // Bound to memory of a device, a session writes nothing in place.
    const into = this.#onDevice.size > 0 ? {} : target;
    const values: Record<string, ort.Tensor> = { ...this.#bound };
    for (const info of this.inputs) {
      values[info.name] = this.#wrap(info, feeds[info.name], "feed");
    }
    const fetches: Record<string, ort.Tensor | null> = {};
    for (const [i, info] of this.outputs.entries()) {
      const { shape } = this.#results[i];
      const given = info.name in into
        ? this.#wrap(info, into[info.name], "write", shape)
        : null;
      fetches[info.name] = WRITES_INTO_TENSORS ? given : null;
    }
    const results = await this.#session.run(values, fetches);
    return Object.fromEntries(this.outputs.map(({ name, dtype, shape }) => {
      if (this.#onDevice.has(name)) {
        return [name, new DeviceTensor(results[name], shape)];
      }
      const data = results[name].data as never;
      const found = { dtype, shape, data } as AnyTensor;
      const written = into[name];
      if (!written) return [name, found];
      // The native package writes into it and returns a copy all the same.
      if (!WRITES_INTO_TENSORS) written.data.set(data);
      else if (found.data.buffer !== written.data.buffer) freeTensor(found);
      return [name, written];
    }));
  }

  /** Tensors for `into` of `run()`, to be used again and again. */
  allocateOutputs(): Record<string, AnyTensor> {
    // Nothing would be written into them.
    return this.#onDevice.size > 0 ? {} : allocateTensors(this.outputs);
  }

  /** Frees the session; the program cannot run afterwards. */
  async release(): Promise<void> {
    await this.#session.release();
    this.#owned?.release();
  }

  #wrap(
    info: ValueInfo,
    value: AnyTensor | undefined,
    verb: string,
    shape: Shape = info.shape,
  ): ort.Tensor {
    const fits = value?.dtype === info.dtype &&
      sameShape(value.shape, info.shape);
    if (!fits) {
      const found = value ? `${value.dtype} ${show(value.shape)}` : "nothing";
      throw new TypeError(
        `Cannot ${verb} "${info.name}": need ${info.dtype} ` +
          `${show(info.shape)}, found ${found}`,
      );
    }
    if (value instanceof DeviceTensor) return value.held as ort.Tensor;
    return new this.#runtime.Tensor(
      value.dtype,
      value.data as never,
      shape,
    );
  }
}

/**
 * Makes a program from nodes.
 *
 * @param outputs Nodes to compute, by output name
 * @param options Where and how it runs, and values for parameters
 * @throws {Error} If the provider cannot run the graph
 *
 * @example
 * ```ts
 * import { grad, input, mul, sum, tensor } from "../core/mod.ts";
 * import { compile } from "./mod.ts";
 * const x = input("x", [3]);
 * const [slope] = grad(sum(mul(x, x)), [x]);
 * const program = await compile({ slope });
 * const result = await program.run({ x: tensor([1, 2, 3]) });
 * console.log(result.slope.data); // 2, 4, 6
 * await program.release();
 * ```
 */
export async function compile(
  outputs: Readonly<Record<string, Node>>,
  options: CompileOptions = {},
): Promise<Program> {
  const { constants = {}, provider = "cpu" } = options;
  const block = await blockFor(provider);
  const isConstant = (name: string) => Object.hasOwn(constants, name);
  if (!block) {
    return await load(tailored(outputs, provider, isConstant), options);
  }
  const { prepared, rest, views } = stagesOf(
    outputs,
    block,
    isConstant,
  );
  const asViewed = (name: string, value: AnyTensor) => ({
    ...value,
    shape: views[name] ?? value.shape,
  } as AnyTensor);
  if (Object.keys(prepared).length === 0) return await load(rest, options);
  // Packed here, weights are not packed anew in every run, as they would be
  // by operators that ONNX Runtime does not fold.
  const packed = options.packed ?? new PackedWeights();
  const isPacked = blockedWeights(Object.values(rest));
  const known = new Map<Node, string>();
  const keys = new Map<string, string>();
  const missing: Record<string, Node> = {};
  const others: Record<string, Node> = {};
  for (const [name, node] of Object.entries(prepared)) {
    if (!isPacked.has(name)) {
      others[name] = node;
      continue;
    }
    const key = expressionKey(node, known);
    keys.set(name, key);
    if (!packed.get(key)) missing[name] = node;
  }
  const values = await prepare(missing, others, options);
  for (const name of Object.keys(missing)) {
    packed.set(keys.get(name)!, values[name]);
  }
  const bound = Object.fromEntries(
    Array.from(keys, ([name, key]) => [name, asViewed(name, packed.get(key)!)]),
  );
  const own = Object.keys(others)
    .map((name) => [name, asViewed(name, values[name])] as const);
  const program = await load(
    rest,
    { ...options, constants: { ...constants, ...Object.fromEntries(own) } },
    { bound, owned: options.packed ? null : packed },
  );
  for (const [, tensor] of own) freeTensor(tensor);
  return program;
}

/** Bytes that are prepared in one run, as far as there are several values. */
const PREPARED_BYTES = 2 ** 25;

/**
 * Computes what depends on constants alone, each group in its own memory. A few
 * at a time: the native package returns a copy of whatever it computes.
 */
async function prepare(
  kept: Readonly<Record<string, Node>>,
  passing: Readonly<Record<string, Node>>,
  options: CompileOptions,
): Promise<Record<string, AnyTensor>> {
  const values: Record<string, AnyTensor> = {};
  for (const group of [kept, passing]) {
    for (const nodes of parts(group)) {
      const program = await load(nodes, { ...options, constants: {} });
      const outputs = program.allocateOutputs();
      await program.run(options.constants ?? {}, outputs);
      await program.release();
      Object.assign(values, outputs);
    }
  }
  return values;
}

/** Nodes by name in parts of about `PREPARED_BYTES`. */
function parts(
  nodes: Readonly<Record<string, Node>>,
): Record<string, Node>[] {
  const found: Record<string, Node>[] = [];
  let room = 0;
  for (const [name, node] of Object.entries(nodes)) {
    if (room <= 0) {
      found.push({});
      room = PREPARED_BYTES;
    }
    found.at(-1)![name] = node;
    room -= 4 * sizeOf(node.shape);
  }
  return found;
}

/** Makes a program from nodes as they are. */
async function load(
  outputs: Readonly<Record<string, Node>>,
  options: CompileOptions,
  binding: {
    /** Values for parameters that are fed at every run. */
    readonly bound?: NamedTensors;
    /** Freed with the program. */
    readonly owned?: PackedWeights | null;
    /** Shapes that outputs are given in, where they are not the graph's. */
    readonly views?: Readonly<Record<string, Shape>>;
  } = {},
): Promise<Program> {
  const { constants, provider = "cpu" } = options;
  const onDevice = hasOwnMemory(provider)
    ? Object.keys(outputs).filter((name) => options.onDevice?.includes(name))
    : [];
  const model = exportModel(outputs, { constants, externalData: true });
  const session = await createSession(
    model.bytes,
    { ...options, provider, onDevice },
    model.external,
  );
  return new Program(
    await loadRuntime(),
    session,
    model.inputs,
    model.outputs,
    provider,
    { ...binding, onDevice },
  );
}

/** A graph as a provider computes it best; that of the CPU: see `lower()`. */
function tailored(
  outputs: Readonly<Record<string, Node>>,
  provider: Provider,
  isPrepared?: (name: string) => boolean,
): Readonly<Record<string, Node>> {
  if (provider !== "webgpu") return outputs;
  const nodes = useTiledKernels(Object.values(outputs), isPrepared);
  return Object.fromEntries(
    Object.keys(outputs).map((name, i) => [name, nodes[i]]),
  );
}

/** A graph in two parts. */
interface GraphStages {
  /** What depends on some parameters alone, by name. */
  readonly prepared: Readonly<Record<string, Node>>;
  /** The rest. */
  readonly rest: Readonly<Record<string, Node>>;
  /** Shapes that the rest reads the former in, where they are not its own. */
  readonly views: Readonly<Record<string, Shape>>;
}

function stagesOf(
  outputs: Readonly<Record<string, Node>>,
  block: number | undefined,
  isPrepared: (name: string) => boolean = () => true,
): GraphStages {
  const lowered = lower(Object.values(outputs), block, isPrepared);
  const { prepared, outputs: rest } = hoistParameters(lowered, isPrepared);
  // Kernels for blocks run on host memory alone: in that of a device, a tensor
  // keeps its shape.
  const { outputs: viewing, shapes } = viewParameters(
    rest,
    (name) => block !== undefined && Object.hasOwn(prepared, name),
  );
  const names = Object.keys(outputs);
  return {
    prepared,
    rest: Object.fromEntries(names.map((name, i) => [name, viewing[i]])),
    views: shapes,
  };
}

/** Programs that give all of their outputs, one after the other. */
export class Series {
  /** What `run()` needs. */
  readonly inputs: readonly ValueInfo[];
  /** What `run()` gives. */
  readonly outputs: readonly ValueInfo[];
  readonly #programs: readonly Program[];

  /** @ignore Use compileStages(). */
  constructor(programs: readonly Program[]) {
    const inputs = programs.flatMap((program) => program.inputs);
    this.inputs = [
      ...new Map(inputs.map((info) => [info.name, info])).values(),
    ];
    this.outputs = programs.flatMap(({ outputs }) => outputs);
    this.#programs = programs;
  }

  /** As that of a `Program`. */
  async run(
    feeds: NamedTensors,
    into: NamedTensors = {},
  ): Promise<Record<string, AnyTensor>> {
    const values: Record<string, AnyTensor> = {};
    for (const program of this.#programs) {
      Object.assign(values, await program.run(feeds, into));
    }
    return values;
  }

  /** Tensors for `into` of `run()`, to be used again and again. */
  allocateOutputs(): Record<string, AnyTensor> {
    return allocateTensors(this.outputs);
  }

  /** Frees the programs. */
  async release(): Promise<void> {
    for (const program of this.#programs) await program.release();
  }
}

/** Programs made from one graph, see `compileStages()`. */
export interface Stages {
  /**
   * From parameters to what `step` needs of them; on the device if an output of
   * `step` is.
   */
  readonly prepare: Series;
  /** The rest: reads inputs, and outputs of `prepare`. */
  readonly step: Program;
}

/**
 * Makes programs of two kinds from a graph whose parameters change now and
 * then: what depends on them alone, such as folding BatchNorm and packing
 * weights, is computed once for many steps.
 *
 * @param outputs Nodes to compute, by output name
 * @throws {Error} If the provider cannot run the graph
 */
export async function compileStages(
  outputs: Readonly<Record<string, Node>>,
  options: CompileOptions = {},
): Promise<Stages> {
  const { provider = "cpu" } = options;
  const block = await blockFor(provider);
  const graph = tailored(outputs, provider);
  const { prepared, rest, views } = stagesOf(graph, block);
  const programs: Program[] = [];
  // In a device's memory, nothing is copied that would be better made in parts.
  const isOne = hasOwnMemory(provider) && Object.keys(prepared).length > 0;
  const groups = isOne ? [prepared] : parts(prepared);
  for (const nodes of groups) {
    const onDevice = options.onDevice ? Object.keys(nodes) : undefined;
    programs.push(await load(nodes, { ...options, onDevice }, { views }));
  }
  return {
    prepare: new Series(programs),
    step: await load(rest, options),
  };
}

let block: Promise<number | undefined> | undefined;

/** Channels in a block of the provider's own kernels, if it has them. */
async function blockFor(provider: Provider): Promise<number | undefined> {
  if (provider !== "cpu" || !("Deno" in globalThis)) return undefined;
  return await (block ??= probeBlock());
}

/**
 * Asks the CPU provider how it lays out blocked activations: 8 channels with
 * AVX2, 16 with AVX-512, and not at all on some processors.
 */
async function probeBlock(): Promise<number | undefined> {
  const x = input("x", PROBE_SHAPE);
  const { bytes } = exportModel({ y: probeGraph(x) });
  try {
    const { Tensor } = await loadRuntime();
    const session = await createSession(bytes, { provider: "cpu", threads: 1 });
    // Each element's value is its channel.
    const data = Float32Array.from({ length: 128 }, (_, i) => i >> 1);
    const { y } = await session.run({ x: new Tensor(data, PROBE_SHAPE) });
    await session.release();
    const lane = (y.data as Float32Array).indexOf(0, 1);
    return lane > 1 ? lane : undefined;
  } catch {
    return undefined;
  }
}

/** Loads a model for a provider; errors name the provider. */
async function createSession(
  bytes: Uint8Array,
  options: CompileOptions & { readonly provider: Provider },
  externalData: readonly ExternalFile[] = [],
): Promise<ort.InferenceSession> {
  const { provider, threads, allowTf32, noFallback, profile } = options;
  const { onDevice = [] } = options;
  const { memory = "own" } = options;
  // cuBLAS and cuDNN read this when they load; the binding has no option.
  if (provider === "cuda") {
    Deno.env.set("NVIDIA_TF32_OVERRIDE", allowTf32 ? "1" : "0");
  }
  const { InferenceSession, env } = await loadRuntime();
  if (!("Deno" in globalThis) && threads) env.wasm.numThreads = threads;
  try {
    return await InferenceSession.create(bytes, {
      executionProviders: [executionProvider(provider, options)],
      ...(threads ? { intraOpNumThreads: threads } : {}),
      ...(onDevice.length > 0
        ? {
          preferredOutputLocation: Object.fromEntries(
            onDevice.map((name) => [name, "gpu-buffer"] as const),
          ),
        }
        : {}),
      ...(externalData.length > 0 ? { externalData: [...externalData] } : {}),
      extra: {
        session: {
          // Threads that wait for work would slow the next program down.
          force_spinning_stop: "1",
          ...(noFallback && provider !== "cpu"
            ? { disable_cpu_ep_fallback: "1" }
            : {}),
        },
      },
      // A profile's records lie between tensors in malloc's memory, so that
      // freed ones do not join and new ones cost page faults.
      enableCpuMemArena: !keepsFreedMemory || memory === "own" ||
        profile !== undefined,
      // Planned as one block, tensors take a quarter more.
      enableMemPattern: !keepsFreedMemory,
      ...(profile ? { enableProfiling: true, profileFilePrefix: profile } : {}),
      logSeverityLevel: 4,
    });
  } catch (cause) {
    const [line] = String((cause as Error)?.message ?? cause).split("\n");
    // Without the place in ONNX Runtime's source.
    const reason = line.replace(/^\/\S+:\d+ .* was false\. /, "");
    throw new Error(
      `Cannot run on ${provider}: ${explain(provider, reason)}`,
      { cause },
    );
  }
}

/** A provider as ONNX Runtime is asked for it. */
function executionProvider(
  provider: Provider,
  { deviceId = 0 }: CompileOptions,
): ort.InferenceSession.ExecutionProviderConfig {
  switch (provider) {
    case "cuda":
      // onnxruntime-node knows this option, which onnxruntime-web's types lack.
      return { name: "cuda", deviceId } as { readonly name: string };
    case "cpu":
      return "Deno" in globalThis ? "cpu" : "wasm";
    default:
      return provider;
  }
}

/** What a user can do about a provider's refusal. */
function explain(provider: Provider, reason: string): string {
  if (reason.includes("fallback to CPU EP")) {
    return `it has no kernel for some node, and noFallback is set`;
  }
  switch (provider) {
    case "cuda":
      return `ONNX Runtime could not load its CUDA provider (${reason}); ` +
        `install CUDA 12, cuDNN 9 and libonnxruntime_providers_cuda.so as in ` +
        `docs/devices.md, or pass --device cpu`;
    case "webgpu":
      return `no WebGPU adapter could run the graph (${reason}); ` +
        `update the graphics driver or pass --device cpu`;
    default:
      return reason;
  }
}

/** An identity model, to ask a provider whether it runs at all. */
async function probe(provider: Provider): Promise<void> {
  const model = exportModel({ y: neg(input("x", [1])) });
  const session = await createSession(model.bytes, { provider });
  await session.release();
}

/** A device as a user names it. */
export type Device = Provider | "auto";

/** A provider and why it was chosen. */
export interface Choice {
  /** Where to run. */
  readonly provider: Provider;
  /** Why, as part of a sentence. */
  readonly reason: string;
}

/**
 * Turns a user's device into a provider that works. "auto" takes cuda if its
 * library is there and loads, else webgpu if a hardware adapter answers, else
 * cpu.
 *
 * @throws {Error} If a provider asked for by name cannot run: there is no
 * silent fallback
 */
export async function chooseProvider(device: Device): Promise<Choice> {
  if (device === "auto") return await (automatic ??= chooseAutomatically());
  if (device !== "cpu") await probe(device);
  return { provider: device, reason: "asked for" };
}

let automatic: Promise<Choice> | undefined;

async function chooseAutomatically(): Promise<Choice> {
  const found = ["no CUDA library", "no hardware WebGPU adapter found"];
  const cuda = await cudaLibrary();
  if (cuda) {
    try {
      await probe("cuda");
      return { provider: "cuda", reason: `${cuda} loads` };
    } catch {
      // Without a usable driver the library alone does not help.
      found[0] = `${cuda} does not load`;
    }
  }
  const adapter = await hardwareAdapter();
  if (adapter) {
    try {
      await probe("webgpu");
      return { provider: "webgpu", reason: `adapter "${adapter}" answers` };
    } catch {
      found[1] = `adapter "${adapter}" runs no graph of ONNX Runtime`;
    }
  }
  return { provider: "cpu", reason: found.join(" and ") };
}

/** Path of the CUDA provider's library beside the binding, if it is there. */
async function cudaLibrary(): Promise<string | null> {
  if (!("Deno" in globalThis) || Deno.build.os === "darwin") return null;
  try {
    const entry = import.meta.resolve("onnxruntime-node");
    const arch = Deno.build.arch === "aarch64" ? "arm64" : "x64";
    const [folder, file] = Deno.build.os === "windows"
      ? [`win32/${arch}`, "onnxruntime_providers_cuda.dll"]
      : [`linux/${arch}`, "libonnxruntime_providers_cuda.so"];
    const path = new URL(`../bin/napi-v6/${folder}/${file}`, entry);
    await Deno.stat(path);
    return path.pathname;
  } catch {
    return null;
  }
}

/**
 * Vulkan drivers look for a Wayland display and complain on stderr where no
 * runtime folder is named, as in containers; no display is needed here.
 */
function quietWayland(): void {
  if (!("Deno" in globalThis) || Deno.build.os !== "linux") return;
  if (!Deno.env.get("XDG_RUNTIME_DIR")) Deno.env.set("XDG_RUNTIME_DIR", "/tmp");
}

interface AdapterInfo {
  readonly vendor?: string;
  readonly architecture?: string;
  readonly description?: string;
  readonly device?: string;
  readonly isFallbackAdapter?: boolean;
}

/** Name of the WebGPU adapter, or null if there is none but software. */
async function hardwareAdapter(): Promise<string | null> {
  const { gpu } = navigator as unknown as {
    gpu?: { requestAdapter(): Promise<{ info: AdapterInfo } | null> };
  };
  quietWayland();
  try {
    const info = (await gpu?.requestAdapter())?.info;
    if (!info || info.isFallbackAdapter) return null;
    const { vendor, architecture, device, description } = info;
    const name = description || device || `${vendor} ${architecture}`;
    return /swiftshader|llvmpipe|software|basic render/i.test(name)
      ? null
      : name;
  } catch {
    return null;
  }
}

/** Version of the ONNX Runtime package that runs here. */
export async function runtimeVersion(): Promise<string> {
  const { env } = await loadRuntime();
  const { versions } = env as { versions: Record<string, string | undefined> };
  return versions.node ?? versions.web ?? versions.common ?? "unknown";
}
