/**
 * A network with its weights on a device: keeps the programs made for it.
 *
 * @module
 */
import {
  input,
  type NamedTensors,
  type Node,
  rows,
  sameShape,
  show,
  sizeOf,
  type Tensor,
  tensor,
} from "../core/mod.ts";
import { buildModel, modelParameters, type ModelSpec } from "../models/mod.ts";
import {
  compile,
  type CompileOptions,
  copyNodes,
  DeviceTensor,
  hasOwnMemory,
  PackedWeights,
  type Program,
  type Provider,
  runCopies,
} from "../onnx/mod.ts";

/** Where and how programs run. */
export interface RunOptions {
  /** Execution provider (default "cpu"); see `chooseProvider()`. */
  readonly provider?: Provider;
  /** CPU threads (default: one per core). */
  readonly threads?: number;
  /** Which GPU on cuda (default 0). */
  readonly deviceId?: number;
  /** Writes ONNX Runtime's profiles to files beginning with this. */
  readonly profile?: string;
}

/** Programs kept at most; the one used longest ago goes first. */
const KEPT_PROGRAMS = 12;

/** Images per run where nothing else is asked for. */
export const DEFAULT_BATCH_SIZE = 64;

/**
 * A network with its weights, ready to run.
 *
 * @example
 * ```ts
 * import { initializeModel, type ModelSpec, Network, Random } from "../mod.ts";
 *
 * const spec: ModelSpec = {
 *   architecture: "resnet10",
 *   form: "cifar",
 *   width: 4,
 *   classes: 10,
 *   mean: [0.5, 0.5, 0.5],
 *   std: [0.25, 0.25, 0.25],
 * };
 * const random = new Random(0);
 * const network = new Network(spec, initializeModel(spec, random));
 * const images = random.uniformTensor([2, 3, 32, 32]);
 * const { logits } = await network.predict(images); // [2, 10]
 * await network.release();
 * ```
 */
export class Network {
  /** What was built. */
  readonly spec: ModelSpec;
  /** Weights and running statistics by torchvision's names. */
  readonly parameters: NamedTensors;
  /** Where programs run. */
  readonly options: RunOptions;
  readonly #programs = new Map<string, Promise<Program>>();
  /** Programs that copy: without weights, many, and not to push others out. */
  readonly #copies = new Map<string, Promise<Program>>();
  /** What its programs share. */
  readonly #packed = new PackedWeights();

  /**
   * Checks the weights; programs are made when first needed.
   *
   * @param spec Which network
   * @param parameters Its weights; tensors it does not know are ignored
   * @param options Where programs run
   * @throws {TypeError} If a parameter is missing or has the wrong shape
   */
  constructor(
    spec: ModelSpec,
    parameters: NamedTensors,
    options: RunOptions = {},
  ) {
    for (const [name, { node }] of modelParameters(spec)) {
      const found = Object.hasOwn(parameters, name) ? parameters[name] : null;
      if (!found || !sameShape(found.shape, node.shape)) {
        throw new TypeError(
          `Cannot load ${spec.architecture} of width ${spec.width}: parameter ` +
            `"${name}" ${show(node.shape)} is ` +
            (found ? `${show(found.shape)} in the checkpoint` : "missing"),
        );
      }
    }
    this.spec = spec;
    this.parameters = parameters;
    this.options = options;
  }

  /**
   * A program with this network's weights as constants, made when first asked
   * for and kept.
   *
   * @param key Names the program; equal keys must mean equal graphs
   * @param build Makes the nodes to compute, by output name
   * @param onDevice Outputs that stay in the provider's own memory, if it has
   * such memory
   * @throws {Error} If the provider cannot run the graph
   */
  async program(
    key: string,
    build: () => Readonly<Record<string, Node>>,
    { onDevice }: Pick<CompileOptions, "onDevice"> = {},
  ): Promise<Program> {
    return await kept(this.#programs, key, () =>
      compile(build(), {
        ...this.options,
        onDevice,
        constants: this.parameters,
        packed: this.#packed,
      }));
  }

  /**
   * Representation and logits of images.
   *
   * @param images `[n, 3, h, w]` in [0, 1]
   * @param options Images per run (default 64)
   * @returns Representation `[n, d]` and logits `[n, classes]`
   * @throws {TypeError} If `images` has another shape
   * @throws {RangeError} If the batch size is not an integer >= 1
   */
  async predict(
    images: Tensor,
    { batchSize = DEFAULT_BATCH_SIZE }: { readonly batchSize?: number } = {},
  ): Promise<{ representation: Tensor; logits: Tensor }> {
    checkImages(images);
    const [size, shape] = batchShape(images, batchSize);
    const program = await this.program(`predict ${shape}`, () => {
      const x = input("images", shape);
      const { representation, logits } = buildModel(this.spec, x);
      return { representation, logits };
    });
    const parts = [];
    for (const batch of batchesOf({ images }, size)) {
      const result = await program.run(batch.values);
      parts.push(trimmed(result, batch.count));
    }
    return joined(parts) as { representation: Tensor; logits: Tensor };
  }

  /**
   * Copies tensors to the memory of the device, where programs read them again
   * and again; `releaseDevice()` frees them. Without such memory it gives the
   * tensors as they are.
   *
   * @param tensors By name; those on the device already are copied as well
   */
  async hold(
    tensors: Readonly<Record<string, Tensor>>,
  ): Promise<Record<string, Tensor>> {
    return hasOwnMemory(this.options.provider ?? "cpu")
      ? await this.#copied(tensors, true)
      : { ...tensors };
  }

  /** Copies tensors to the host's memory, those that are not there already. */
  async fetch(
    tensors: Readonly<Record<string, Tensor>>,
  ): Promise<Record<string, Tensor>> {
    const held = Object.entries(tensors)
      .filter(([, value]) => value instanceof DeviceTensor);
    const found = held.length > 0
      ? await this.#copied(Object.fromEntries(held), false)
      : {};
    return { ...tensors, ...found };
  }

  async #copied(
    tensors: RowTensors,
    onDevice: boolean,
  ): Promise<Record<string, Tensor>> {
    const infos = Object.entries(tensors)
      .map(([name, { shape }]) => ({ name, shape }));
    const key = `${onDevice ? "hold" : "fetch"} ${JSON.stringify(infos)}`;
    const program = await kept(this.#copies, key, () => {
      const nodes = copyNodes(infos);
      return compile(nodes, {
        ...this.options,
        onDevice: onDevice ? Object.keys(nodes) : [],
      });
    });
    return await runCopies(program, tensors) as Record<string, Tensor>;
  }

  /** Frees all programs. */
  async release(): Promise<void> {
    for (const programs of [this.#programs, this.#copies]) {
      const all = [...programs.values()];
      programs.clear();
      for (const program of all) await (await program).release();
    }
    this.#packed.release();
  }
}

/**
 * A program of that key, made if there is none; the one used longest ago goes
 * when there are too many.
 */
async function kept(
  programs: Map<string, Promise<Program>>,
  key: string,
  make: () => Promise<Program>,
): Promise<Program> {
  const program = programs.get(key) ?? make();
  // Most recently used last.
  programs.delete(key);
  programs.set(key, program);
  if (programs.size > KEPT_PROGRAMS) {
    const [oldest, unused] = programs.entries().next().value!;
    programs.delete(oldest);
    await (await unused).release();
  }
  try {
    return await program;
  } catch (error) {
    programs.delete(key);
    throw error;
  }
}

/** @throws {TypeError} If these are not images, or none */
export function checkImages(images: Tensor): void {
  const { shape } = images;
  if (shape.length !== 4 || shape[0] < 1 || shape[1] !== 3) {
    throw new TypeError(
      `Cannot use a tensor of shape ${show(images.shape)} as images: need ` +
        `[n, 3, h, w] with n >= 1`,
    );
  }
}

/**
 * Size of the batches that `n` images are run in, and a batch's shape.
 *
 * @throws {RangeError} If the batch size is not an integer >= 1
 */
export function batchShape(
  images: Pick<Tensor, "shape">,
  batchSize: number,
): [number, number[]] {
  if (!(Number.isInteger(batchSize) && batchSize >= 1)) {
    throw new RangeError(
      `Cannot make batches as the batch size must be an integer >= 1: ` +
        `current value is ${batchSize}`,
    );
  }
  const size = Math.min(batchSize, images.shape[0]);
  return [size, [size, ...images.shape.slice(1)]];
}

/** Tensors that share their first axis: one row per image. */
export type RowTensors = Readonly<Record<string, Tensor>>;

/** Part of some tensors. */
export interface Batch {
  /** Rows `start` .. `start + count - 1`, the last one repeated to fill up. */
  readonly values: Record<string, Tensor>;
  readonly start: number;
  /** Rows that are not repetitions. */
  readonly count: number;
}

/**
 * Splits tensors into batches of one size: one session serves them all.
 *
 * @throws {TypeError} If the tensors differ in their number of rows
 */
export function* batchesOf(
  tensors: RowTensors,
  size: number,
): Generator<Batch> {
  const entries = Object.entries(tensors);
  const n = entries[0][1].shape[0];
  const odd = entries.find(([, value]) => value.shape[0] !== n);
  if (odd) {
    throw new TypeError(
      `Cannot use "${odd[0]}" of shape ${
        show(odd[1].shape)
      } with ${n} images: ` +
        `need one row per image`,
    );
  }
  for (let start = 0; start < n; start += size) {
    const count = Math.min(size, n - start);
    const values = Object.fromEntries(entries.map(([name, value]) => [
      name,
      filled(rows(value, start, start + count), size),
    ]));
    yield { values, start, count };
  }
}

/** Repeats the last row until there are `size`. */
function filled(value: Tensor, size: number): Tensor {
  const [count, ...rest] = value.shape;
  if (count === size) return value;
  const length = sizeOf(rest);
  const data = new Float32Array(size * length);
  data.set(value.data);
  const last = value.data.subarray((count - 1) * length);
  for (let i = count; i < size; i++) data.set(last, i * length);
  return tensor(data, [size, ...rest]);
}

/** The first `count` rows of each tensor. */
export function trimmed(
  values: Readonly<Record<string, unknown>>,
  count: number,
): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [
      name,
      rows(value as Tensor, 0, count),
    ]),
  );
}

/** Joins the rows of batches. */
export function joined(
  parts: readonly Readonly<Record<string, Tensor>>[],
): Record<string, Tensor> {
  return Object.fromEntries(
    Object.keys(parts[0]).map((name) => {
      const values = parts.map((part) => part[name]);
      const n = values.reduce((count, { shape }) => count + shape[0], 0);
      const rest = values[0].shape.slice(1);
      const data = new Float32Array(n * sizeOf(rest));
      let offset = 0;
      for (const value of values) {
        data.set(value.data, offset);
        offset += value.data.length;
      }
      return [name, tensor(data, [n, ...rest])];
    }),
  );
}
