/**
 * Checkpoints of other projects: finds the network in a file of PyTorch or a
 * foreign safetensors file, tells its architecture from the tensors, and gives
 * them this project's names.
 *
 * @module
 */
import {
  type AnyTensor,
  type NamedTensors,
  type Shape,
  show,
  sizeOf,
} from "../core/mod.ts";
import { quote } from "./elements.ts";
import {
  type Architecture,
  ARCHITECTURES,
  modelParameters,
  type ModelSpec,
} from "./mod.ts";
import { Opaque } from "./pickle.ts";
import { decodeSafetensors } from "./safetensors.ts";
import { decodeTorch, isTorchFile, numberOf, TorchTensor } from "./torch.ts";

/** How `importWeights()` reads. */
export interface ImportOptions {
  /** Which network it must be; told from the tensors if left out. */
  readonly architecture?: Architecture;
  /**
   * What the names of the network's tensors begin with, such as
   * "state_dict.module.", with or without the last dot; found if left out.
   */
  readonly prefix?: string;
}

/** A network of another project. */
export interface ImportedWeights {
  /** What the network is, but for the normalisation of its images. */
  readonly spec: Omit<ModelSpec, "mean" | "std">;
  /** Mean and standard deviation the file holds, `null` if it holds none. */
  readonly normalization: Pick<ModelSpec, "mean" | "std"> | null;
  /** Weights and running statistics, float32, by torchvision's names. */
  readonly tensors: NamedTensors;
  /** Which format the file has. */
  readonly format: "torch zip" | "torch legacy" | "safetensors";
  /** What the names of the network's tensors begin with in the file. */
  readonly prefix: string;
  /** Epochs completed; `null` if the file does not say. */
  readonly epoch: number | null;
  /** Other numbers beside the weights, such as "adv_prec1". */
  readonly reported: Readonly<Record<string, number>>;
}

/** A tensor whose elements are read when needed. */
interface Found {
  readonly shape: Shape;
  readonly read: (name: string) => AnyTensor;
}

/** Values in the file's containers, each time one is met. */
const MAX_VALUES = 1_000_000;
/** How deep tensors may be in containers and modules. */
const MAX_DEPTH = 24;
/** How long their names may be, one and all, and lists that are looked into. */
const MAX_NAME = 1000, MAX_NAMES = 1 << 25, MAX_LIST = 64;

/**
 * Finds a network in a file of another project, without executing anything
 * that the file says.
 *
 * @param bytes The whole file: `torch.save()`'s, zip or legacy, of a state
 *   dictionary, of one inside others, or of a module; or safetensors. It is
 *   taken over: tensors share its memory and may be moved within it
 * @param source Its name, for errors
 * @param options What cannot be told from the file
 * @throws {SyntaxError} If the file is damaged or of no known format
 * @throws {TypeError} If it holds no known network, or not the one asked for:
 *   names the tensor, the shape found and the shape wanted
 *
 * @example
 * ```ts
 * import { importWeights } from "./import.ts";
 * const file = new URL("../tests/fixtures/checkpoint_zip.pt", import.meta.url);
 * const bytes = new Uint8Array(await (await fetch(file)).arrayBuffer());
 * const { spec, tensors } = importWeights(bytes, "checkpoint_zip.pt");
 * console.log(spec.architecture, tensors["fc.weight"].shape); // [10, 64]
 * ```
 */
export function importWeights(
  bytes: Uint8Array,
  source: string,
  options: ImportOptions = {},
): ImportedWeights {
  const fail: (what: string) => never = (what) => {
    throw new TypeError(`Cannot import "${source}": ${what}`);
  };
  const file = readFile(bytes, source);
  if (file.found.size === 0) {
    fail(
      `it holds no tensors${
        file.classes.length > 0
          ? ` but objects such as ${quote(file.classes[0])}`
          : ""
      }; save the model's state_dict()`,
    );
  }
  const prefix = options.prefix === undefined
    ? findPrefix(file.found, fail)
    : options.prefix.replace(/[^.]$/, "$&.");
  const own = ownTensors(file.found, prefix);
  if (own.size === 0) {
    const [first] = file.found.keys();
    fail(
      `no tensor has a name that begins with ${
        quote(prefix)
      }: names are such ` +
        `as ${quote(first)}`,
    );
  }
  const { spec, shapes } = findSpec(own, prefix, options.architecture, fail);

  const tensors: Record<string, AnyTensor> = {};
  for (const [name, wanted] of shapes) {
    const { name: original, tensor } = own.get(name)!;
    if (String(tensor.shape) !== String(wanted)) {
      fail(
        `tensor ${quote(original)} is ${show(tensor.shape)} and ` +
          `${described(spec)} wants ${show(wanted)}`,
      );
    }
    const value = tensor.read(original);
    if (value.dtype !== "float32") {
      fail(`tensor ${quote(original)} is of ${value.dtype}, not floating`);
    }
    const data = value.data as Float32Array;
    const wrong = data.findIndex((x) => !Number.isFinite(x));
    if (wrong >= 0) {
      fail(
        `tensor ${quote(original)} holds ${data[wrong]} at index ${wrong}: ` +
          `the training has diverged or the file is damaged`,
      );
    }
    tensors[name] = value;
  }
  const { format, epoch, reported } = file;
  const normalization = findNormalization(file.found, prefix, fail);
  return { spec, normalization, tensors, format, prefix, epoch, reported };
}

/** What a file holds, whatever its format. */
interface Contents {
  readonly format: ImportedWeights["format"];
  /** Tensors by their path through dictionaries and modules. */
  readonly found: ReadonlyMap<string, Found>;
  /** Classes of objects that were not made. */
  readonly classes: readonly string[];
  readonly epoch: number | null;
  readonly reported: Readonly<Record<string, number>>;
}

/**
 * Tells by its first bytes what wrote a checkpoint.
 *
 * @param bytes The whole file, or its beginning
 * @param source Its name, for errors
 * @throws {SyntaxError} If it is empty or of neither format
 */
export function checkpointFormat(
  bytes: Uint8Array,
  source: string,
): "torch" | "safetensors" {
  if (isTorchFile(bytes)) return "torch";
  // A length of eight bytes, and then the brace of the header.
  if (bytes[8] === 0x7b) return "safetensors";
  throw new SyntaxError(
    `Cannot read checkpoint "${source}": ` +
      (bytes.length === 0
        ? "the file is empty"
        : "it is neither a file of torch.save() nor of safetensors"),
  );
}

function readFile(bytes: Uint8Array, source: string): Contents {
  const found = new Map<string, Found>();
  if (checkpointFormat(bytes, source) === "torch") {
    const { format, value } = decodeTorch(bytes, source);
    const collector = new Collector(found, source);
    collector.collect(value, "", MAX_DEPTH);
    const { epoch = null, ...reported } = numbersOf(value);
    const isCount = Number.isSafeInteger(epoch) && Number(epoch) >= 0;
    return {
      format: `torch ${format}`,
      found,
      classes: collector.classes,
      epoch: isCount ? epoch : null,
      reported,
    };
  }
  const { tensors } = decodeSafetensors(bytes, source);
  for (const [name, tensor] of Object.entries(tensors)) {
    found.set(name, { shape: tensor.shape, read: () => tensor });
  }
  const nothing = { classes: [], epoch: null, reported: {} };
  return { format: "safetensors", found, ...nothing };
}

/** Collects the tensors of dictionaries, lists and modules, by their path. */
class Collector {
  /** Classes of objects met; the first few. */
  readonly classes: string[] = [];
  readonly #found: Map<string, Found>;
  readonly #source: string;
  #visits = 0;
  /** Letters of the names found. */
  #letters = 0;

  constructor(found: Map<string, Found>, source: string) {
    this.#found = found;
    this.#source = source;
  }

  /** Walks values that may contain themselves, down to some depth. */
  collect(value: unknown, path: string, depth: number): void {
    const map = value instanceof Opaque ? value.items : value;
    this.#visits += 1 + (map instanceof Map ? map.size : 0);
    if (this.#visits > MAX_VALUES) {
      throw new SyntaxError(
        `Cannot import "${this.#source}": its containers hold more than ` +
          `${MAX_VALUES} values`,
      );
    }
    if (value instanceof TorchTensor) {
      this.#letters += path.length;
      if (this.#letters > MAX_NAMES) {
        throw new SyntaxError(
          `Cannot import "${this.#source}": the names of its tensors have ` +
            `more than ${MAX_NAMES} letters`,
        );
      }
      this.#found.set(path.slice(0, -1), {
        shape: value.shape,
        read: (name) => value.read(name),
      });
      return;
    }
    if (value instanceof Opaque && this.classes.length < 10) {
      this.classes.push(value.name);
    }
    if (depth === 0) return;
    for (const [key, inner, isPart] of membersOf(value)) {
      if (typeof inner !== "object" || inner === null) continue;
      if (path.length + key.length > MAX_NAME) continue;
      this.collect(inner, isPart ? `${path}${key}.` : path, depth - 1);
    }
  }
}

/** What a module's attributes hold tensors and other modules in. */
const MODULE_PARTS = ["_parameters", "_buffers", "_modules"];

/** Entries of a container, and whether the key is part of names. */
function* membersOf(
  value: unknown,
): Generator<[key: string, inner: unknown, isPart: boolean]> {
  if (value instanceof Opaque) {
    yield* membersOf(value.items);
    const state = value.state;
    if (!(state instanceof Map)) return;
    for (const part of MODULE_PARTS) {
      if (state.has(part)) yield [part, state.get(part), false];
    }
  } else if (value instanceof Map) {
    for (const [key, inner] of value) {
      // An optimizer's state goes by numbers.
      if (typeof key === "string") yield [key, inner, true];
    }
  } else if (Array.isArray(value) && value.length <= MAX_LIST) {
    for (const [i, inner] of value.entries()) yield [String(i), inner, true];
  }
}

/** Numbers that a dictionary holds beside what they are about. */
function numbersOf(value: unknown): Record<string, number> {
  const numbers: Record<string, number> = {};
  const map = value instanceof Opaque ? value.items : value;
  if (!(map instanceof Map)) return numbers;
  for (const [key, inner] of map) {
    // A state dictionary's own counters have dots in their names.
    if (typeof key !== "string" || !/^\w{1,40}$/.test(key)) continue;
    const number = numberOf(inner);
    if (number !== null && Number.isFinite(number)) numbers[key] = number;
    if (Object.keys(numbers).length >= 32) break;
  }
  return numbers;
}

/** Networks that can be imported, for the end of a sentence. */
function listKnown(): string {
  return `known are ${ARCHITECTURES.join(", ")}`;
}

/** Copies of a network that the reference library's attacker refers to. */
const IS_COPY = /(^|\.)attacker\./;

/** What the names of the one network's tensors begin with. */
function findPrefix(
  found: ReadonlyMap<string, Found>,
  fail: (what: string) => never,
): string {
  const all = new Set<string>();
  for (const name of found.keys()) {
    const match = /^(|.*\.)(?:layer1\.0\.conv1|features\.0)\.weight$/s
      .exec(name);
    if (match) all.add(match[1]);
  }
  const originals = [...all].filter((prefix) => !IS_COPY.test(prefix));
  const candidates = originals.length > 0 ? originals : [...all];
  if (candidates.length === 0) {
    const [first] = found.keys();
    fail(
      `its tensors, such as ${quote(first)}, are those of no known network; ` +
        listKnown(),
    );
  }
  if (candidates.length > 1) {
    const names = candidates.slice(0, 4).map(quote).join(", ");
    fail(
      `it holds several networks: pass --prefix to deno task import, one of ` +
        names,
    );
  }
  return candidates[0];
}

/** A tensor and its name in the file. */
interface Own {
  readonly name: string;
  readonly tensor: Found;
}

/** The network's tensors by torchvision's names. */
function ownTensors(
  found: ReadonlyMap<string, Found>,
  prefix: string,
): Map<string, Own> {
  const own = new Map<string, Own>();
  for (const [name, tensor] of found) {
    if (!name.startsWith(prefix)) continue;
    const inner = name.slice(prefix.length);
    if (isExtra(inner)) continue;
    const renamed = inner.replace(/\bshortcut\.([01])\./, "downsample.$1.")
      .replace(/^linear\./, "fc.");
    own.set(renamed, { name, tensor });
  }
  return own;
}

/** Names a normaliser's mean or standard deviation. */
const MEAN = /^(.*\.)?((?:new_|image_)?mean|mu)$/s;
const STD_OF: Readonly<Record<string, string>> = {
  mean: "std",
  new_mean: "new_std",
  image_mean: "image_std",
  mu: "sigma",
};

/** Whether a tensor is none of the network's weights. */
function isExtra(name: string): boolean {
  return /(^|\.)num_batches_tracked$/.test(name) || IS_COPY.test(name) ||
    /(^|\.)(?:(?:new_|image_)?(?:mean|std)|mu|sigma)$/.test(name);
}

/** Mean and standard deviation, from the normaliser nearest to the network. */
function findNormalization(
  found: ReadonlyMap<string, Found>,
  prefix: string,
  fail: (what: string) => never,
): ImportedWeights["normalization"] {
  let best: { names: readonly [string, string]; shared: number } | null = null;
  for (const name of found.keys()) {
    const match = MEAN.exec(name);
    if (!match || (IS_COPY.test(name) && !IS_COPY.test(prefix))) continue;
    const names = [name, `${match[1] ?? ""}${STD_OF[match[2]]}`] as const;
    const isPair = names.every((n) => {
      const tensor = found.get(n);
      return tensor !== undefined && sizeOf(tensor.shape) === 3;
    });
    if (!isPair) continue;
    let shared = 0;
    while (shared < prefix.length && name[shared] === prefix[shared]) shared++;
    if (!best || shared > best.shared) best = { names, shared };
  }
  if (!best) return null;
  const [mean, std] = best.names.map((name) => {
    const { data } = found.get(name)!.read(name);
    return Array.from(data as ArrayLike<unknown>, (x) => shortest(Number(x)));
  });
  if (![...mean, ...std].every(Number.isFinite) || std.some((x) => x <= 0)) {
    fail(`its normalisation is mean [${mean}] and std [${std}]`);
  }
  return { mean, std };
}

/** The decimal of fewest digits that float32 rounds to the same value. */
function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === Math.fround(value)) return rounded;
  }
  return value;
}

type Spec = ImportedWeights["spec"];

/** A network that could be the one of the file. */
interface Candidate {
  readonly spec: Spec;
  readonly names: ReadonlySet<string>;
  /** Tensors missing or left over. */
  readonly distance: number;
}

/** The network whose tensors have the names of those found. */
function findSpec(
  own: ReadonlyMap<string, Own>,
  prefix: string,
  architecture: Architecture | undefined,
  fail: (what: string) => never,
): { spec: Spec; shapes: ReadonlyMap<string, Shape> } {
  const candidates = (architecture ? [architecture] : ARCHITECTURES)
    .flatMap((name) => [candidate(name, "cifar"), candidate(name, "imagenet")]);
  const stem = own.get("conv1.weight");
  const kernel = stem?.tensor.shape[2];

  function candidate(
    architecture: Architecture,
    form: Spec["form"],
  ): Candidate {
    const spec = { architecture, form, width: 1, classes: 1 };
    const names = new Set(shapesOf(spec).keys());
    const common = [...names].filter((name) => own.has(name)).length;
    return { spec, names, distance: names.size + own.size - 2 * common };
  }

  const isResidual = own.has("layer1.0.conv1.weight");
  // Both forms of a residual network have the same names: the stem tells.
  const fits = ({ spec }: Candidate) =>
    /^resnet/.test(spec.architecture)
      ? isResidual && (spec.form === "cifar") === (kernel === 3)
      : !isResidual;
  // An architecture that was asked for may be of the other kind.
  const fitting = candidates.filter(fits);
  const [nearest] = (fitting.length > 0 ? fitting : candidates)
    .toSorted((a, b) => a.distance - b.distance);
  const { architecture: name, form } = nearest.spec;
  const missing = [...nearest.names].find((n) => !own.has(n));
  const more = [...own.keys()].find((n) => !nearest.names.has(n));
  const [asked, known] = architecture
    ? ["", ""]
    : ["the nearest known network, ", `; ${listKnown()}`];
  if (missing !== undefined) {
    fail(
      `tensor ${quote(prefix + missing)} of ${asked}${name} in ${form} form ` +
        `is missing` + (more === undefined
          ? ""
          : `, while it has no place for ${quote(own.get(more)!.name)}`) +
        known,
    );
  }
  if (more !== undefined) {
    const { name: original, tensor } = own.get(more)!;
    fail(
      `tensor ${quote(original)} ${show(tensor.shape)} has no place in ` +
        `${asked}${name} in ${form} form${known}`,
    );
  }
  const first = own.get("conv1.weight") ?? own.get("features.0.weight")!;
  if (/^resnet/.test(name) && kernel !== 3 && kernel !== 7) {
    fail(
      `tensor ${quote(first.name)} is ${show(first.tensor.shape)}: the first ` +
        `convolution must be 3 x 3 or 7 x 7`,
    );
  }
  const last = own.get("fc.bias") ?? own.get("classifier.bias") ??
    own.get("classifier.6.bias")!;
  const width = first.tensor.shape[0] ?? 0, classes = last.tensor.shape[0] ?? 0;
  for (const [what, size] of [[first, width], [last, classes]] as const) {
    if (size < 1) {
      fail(`tensor ${quote(what.name)} is ${show(what.tensor.shape)}`);
    }
  }
  // Wide and grouped networks have the names of those they are made from.
  const [first1, first2] = ["conv1", "conv2"].map((conv) =>
    own.get(`layer1.0.${conv}.weight`)?.tensor.shape ?? []
  );
  if (first1[0] >= 2 * width || first2[1] < first2[0]) {
    fail(
      `it is a wide or grouped ResNet, which is not supported; ` +
        listKnown(),
    );
  }
  const spec = { architecture: name, form, width, classes };
  return { spec, shapes: shapesOf(spec) };
}

/** Names and shapes of a network's parameters. */
function shapesOf(spec: Spec): Map<string, Shape> {
  const full: ModelSpec = { ...spec, mean: [0, 0, 0], std: [1, 1, 1] };
  return new Map(
    Array.from(modelParameters(full), ([name, { node }]) => [name, node.shape]),
  );
}

function described({ architecture, form, width, classes }: Spec): string {
  return `${architecture} in ${form} form of width ${width} with ${classes} ` +
    `classes`;
}
