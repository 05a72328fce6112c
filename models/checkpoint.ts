/**
 * Checkpoints: the parameters of a model and a card that says what they are,
 * to and from the bytes of a safetensors file.
 *
 * @module
 */
import type { NamedTensors } from "../core/mod.ts";
import {
  checkRecord,
  checkVersion,
  count,
  isoTime,
  type JsonObject,
  listOf,
  mapOf,
  nonNegative,
  nullable,
  object,
  optional,
  type Rule,
  rule,
  sha256Text,
  text,
} from "./json.ts";
import {
  concatenated,
  decodeSafetensors,
  encodeSafetensors,
  type SafetensorsOptions,
  safetensorsParts,
} from "./safetensors.ts";

/** Version of `Card` this code writes; older ones are read, newer refused. */
export const CARD_SCHEMA_VERSION = 1;

/** The attack a model was trained against. */
export interface CardAttack {
  /** How perturbations are measured. */
  readonly norm: "l2" | "linf";
  /** Radius in [0, 1] pixel units: over one whole image for l2. */
  readonly epsilon: number;
  /** Length of one step, in the units of `epsilon`. */
  readonly stepSize: number;
  /** Steps per image. */
  readonly steps: number;
  /** Whether it starts at a random point of the ball. */
  readonly randomStart: boolean;
}

/** A share of images: its 95% interval (Wilson's score) and their number. */
export interface CardInterval {
  /** Lower end, 0 to 1. */
  readonly low: number;
  /** Upper end, 0 to 1. */
  readonly high: number;
  /** Number of images. */
  readonly n: number;
}

/** Accuracy under one attack, in the norm of the card's attack, else l2. */
export interface AdversarialAccuracy {
  /** Name of the attack, such as "PGD-20"; PGD if left out. */
  readonly attack?: string;
  /** Radius in [0, 1] pixel units: over one whole image for l2. */
  readonly epsilon: number;
  /** Steps of each run. */
  readonly steps: number;
  /** Length of one step, in the units of `epsilon`. */
  readonly stepSize: number;
  /** Runs per image; it counts as correct if it withstands all. */
  readonly restarts: number;
  /** Fraction of images classified correctly, 0 to 1. */
  readonly accuracy: number;
  /** Where it lies with 95% confidence. */
  readonly interval?: CardInterval;
}

/** How long training took, and on what. */
export interface CardTraining {
  /** Time of all steps, without evaluation, in seconds. */
  readonly seconds: number;
  /** Execution provider, such as "cpu". */
  readonly provider: string;
  /** Model of the processor. */
  readonly cpu: string;
  /** Threads that the network ran on. */
  readonly threads: number;
  /** Name of the preset its flags came from. */
  readonly preset?: string;
}

/** The images of training. */
export interface CardData {
  /** Name in the registry of datasets. */
  readonly name: string;
  /** Number of training images. */
  readonly images: number;
  /** What was done to them before the network, in words. */
  readonly preprocessing: string;
}

/** The checklist of whether the measured robustness can be believed. */
export interface CardSanity {
  /** Images that it was made with. */
  readonly images: number;
  /** How perturbations were measured. */
  readonly norm: "l2" | "linf";
  /** Radius of the ball in [0, 1] pixel units. */
  readonly epsilon: number;
  /** Steps of PGD. */
  readonly steps: number;
  /** Each check, whether it passed, and its numbers in words. */
  readonly checks: readonly {
    readonly name: string;
    readonly passed: boolean;
    readonly detail: string;
  }[];
}

/** How the accuracies of a card were measured. */
export interface CardEvaluation {
  /** Whether all that was planned is measured; if not, it can be continued. */
  readonly complete: boolean;
  /** Images it was limited to; null: all of the test split. */
  readonly limit: number | null;
  /** Execution provider, such as "cpu". */
  readonly provider: string;
  /** Model of the processor. */
  readonly cpu: string;
  /** What was done to the images before the network, in words. */
  readonly preprocessing: string;
  /** ISO 8601 time of the last measurement. */
  readonly measured: string;
}

/** What a checkpoint's parameters are and how they came about. */
export interface Card {
  /** Version of this record, at most {@linkcode CARD_SCHEMA_VERSION}. */
  readonly schemaVersion: number;
  /** Name in the registry of models, such as "resnet18". */
  readonly architecture: string;
  /** Stem and pooling: for 32 x 32 or for 224 x 224 images. */
  readonly form: "cifar" | "imagenet";
  /** Channels of the first stage; 64 is the published architecture. */
  readonly width: number;
  /** Names of the classes in the order of the logits. */
  readonly classes: readonly string[];
  /** Name in the registry of datasets. */
  readonly dataset: string;
  /** Height and width of the images, in pixels. */
  readonly imageSize: number;
  /** Per channel, in [0, 1] pixel units; subtracted inside the model. */
  readonly mean: readonly [number, number, number];
  /** Per channel, in [0, 1] pixel units; divided by inside the model. */
  readonly std: readonly [number, number, number];
  /** `null` for standard training. */
  readonly attack: CardAttack | null;
  /** Epochs completed. */
  readonly epoch: number;
  /** Seed of initial weights, order, augmentation and attack. */
  readonly seed: number;
  /** On the test split; empty if never evaluated. */
  readonly accuracies: {
    /** Fraction of images classified correctly, 0 to 1. */
    readonly clean?: number;
    /** Where it lies with 95% confidence. */
    readonly cleanInterval?: CardInterval;
    /** One entry per attack. */
    readonly adversarial?: readonly AdversarialAccuracy[];
    /** Number of images the accuracies are measured on. */
    readonly images?: number;
  };
  /** The checklist's result. */
  readonly sanity?: CardSanity;
  /** How the accuracies were measured. */
  readonly evaluation?: CardEvaluation;
  /** How long training took, and on what. */
  readonly training?: CardTraining;
  /** The images of training. */
  readonly data?: CardData;
  /** Command line that made the checkpoint. */
  readonly command?: string;
  /** Versions by package. */
  readonly versions?: Readonly<Record<string, string>>;
  /** ISO 8601 time. */
  readonly created?: string;
  /** `weightsHash()` of the parameters as stored; set when encoding. */
  readonly weightsSha256?: string;
  /** Anything else. Unknown keys of the card itself are kept, too. */
  readonly extra?: JsonObject;
}

/** Parameters and buffers by name, and what they are. */
export interface Checkpoint {
  /** What the parameters are. */
  readonly card: Card;
  /** Parameters and buffers by torchvision's names. */
  readonly tensors: NamedTensors;
}

/**
 * Writes a checkpoint as a safetensors file with the card in its metadata,
 * under the key "card". The card's `weightsSha256` is computed, not taken.
 *
 * @param checkpoint Parameters and their card
 * @param options `float16` halves the file; the hash is of the rounded values
 * @returns The bytes of the file
 * @throws {TypeError} If the card or a tensor is malformed
 * @throws {RangeError} If a value is too large for float16
 */
export async function encodeCheckpoint(
  checkpoint: Checkpoint,
  options: SafetensorsOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  return concatenated(await checkpointParts(checkpoint, options));
}

/** Computes the SHA-256 of bytes, as 64 hexadecimal digits. */
type HashBytes = (bytes: Uint8Array) => string | Promise<string>;

/**
 * The parts of what `encodeCheckpoint()` returns, in their order; those of the
 * tensors share their memory.
 *
 * @param hashBytes Another `sha256()`, such as one that needs less memory
 */
export async function checkpointParts(
  checkpoint: Checkpoint,
  options: SafetensorsOptions = {},
  hashBytes: HashBytes = sha256,
): Promise<Uint8Array[]> {
  const { card, tensors } = checkpoint;
  const problem = checkRecord(CARD_RULES)(card, "the card");
  if (problem) throw new TypeError(`Cannot write checkpoint: ${problem}`);
  // The hash is of what a reader will see.
  const stored = options.float16
    ? decodeSafetensors(encodeSafetensors(tensors, {}, options), "memory")
      .tensors
    : tensors;
  const weightsSha256 = await weightsHashBy(hashBytes, stored);
  const text = JSON.stringify({ ...card, weightsSha256 });
  return safetensorsParts(tensors, { card: text }, options);
}

/**
 * Reads a checkpoint, checking the file, the card and the hash.
 *
 * @param bytes The whole file; tensors may share its memory
 * @param source Its name, for errors
 * @returns Parameters by name, and their card
 * @throws {SyntaxError} If the bytes are not a checkpoint, whole and unchanged
 */
export async function decodeCheckpoint(
  bytes: Uint8Array,
  source: string,
): Promise<Checkpoint> {
  const { tensors, metadata } = decodeSafetensors(bytes, source);
  const fail = (what: string): never => {
    throw new SyntaxError(`Cannot read checkpoint "${source}": ${what}`);
  };
  if (metadata.card === undefined) {
    fail(
      `its metadata has no "card"` +
        (metadata.training === undefined
          ? `, so robust-reps did not write it`
          : `: it is the state that training resumes from, not the network`),
    );
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(metadata.card);
  } catch {
    fail("its card is not valid JSON");
  }
  const problem = checkVersion(parsed, "the card", CARD_SCHEMA_VERSION) ??
    checkRecord({ ...CARD_RULES, weightsSha256: sha256Text })(
      parsed,
      "the card",
    );
  if (problem) fail(problem);
  const card = parsed as Card;
  const hash = await weightsHash(tensors);
  if (hash !== card.weightsSha256) {
    fail(
      `the file is damaged: the SHA-256 of its weights is ${hash} but its ` +
        `card says ${card.weightsSha256}`,
    );
  }
  return { card, tensors };
}

/**
 * SHA-256 that names a set of weights: of lines of name, dtype, shape and
 * SHA-256 of the little-endian elements, sorted by name.
 *
 * @returns 64 hexadecimal digits
 * @throws {Error} If the page is not a secure context, which lacks hashing
 */
export async function weightsHash(tensors: NamedTensors): Promise<string> {
  return await weightsHashBy(sha256, tensors);
}

async function weightsHashBy(
  hashBytes: HashBytes,
  tensors: NamedTensors,
): Promise<string> {
  const lines = [];
  for (const name of Object.keys(tensors).sort()) {
    const { dtype, shape, data } = tensors[name];
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    // JSON keeps a line break in a name from imitating another tensor's line.
    const key = JSON.stringify(name);
    lines.push(`${key} ${dtype} [${shape}] ${await hashBytes(bytes)}\n`);
  }
  return await sha256(new TextEncoder().encode(lines.join("")));
}

/**
 * SHA-256 of bytes, such as a file's.
 *
 * @returns 64 hexadecimal digits
 * @throws {Error} If the page is not a secure context, which lacks hashing
 */
export async function sha256(bytes: Uint8Array): Promise<string> {
  if (!globalThis.crypto?.subtle) {
    throw new Error(
      "Cannot compute a SHA-256 as this page is not a secure context: " +
        "serve it from https or localhost",
    );
  }
  // Shared memory cannot be hashed in place.
  const own = bytes.buffer instanceof ArrayBuffer
    ? bytes as Uint8Array<ArrayBuffer>
    : bytes.slice();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", own));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

const positive = rule(
  (value) => Number.isFinite(value) && Number(value) > 0,
  "a number > 0",
);

const positiveCount = rule(
  (value) => Number.isSafeInteger(value) && Number(value) > 0,
  "an integer > 0",
);

const fraction = rule(
  (value) => Number.isFinite(value) && Number(value) >= 0 && Number(value) <= 1,
  "a fraction from 0 to 1",
);

/** Three values, one per colour channel. */
function channels(passes: (value: unknown) => boolean, wanted: string): Rule {
  return rule(
    (value) =>
      Array.isArray(value) && value.length === 3 && value.every(passes),
    wanted,
  );
}

const bool = rule((value) => typeof value === "boolean", "true or false");

const norm = rule(
  (value) => value === "l2" || value === "linf",
  `"l2" or "linf"`,
);

const interval = checkRecord({ low: fraction, high: fraction, n: count });

const CARD_RULES: Readonly<Record<string, Rule>> = {
  schemaVersion: positiveCount,
  architecture: text,
  form: rule(
    (value) => value === "cifar" || value === "imagenet",
    `"cifar" or "imagenet"`,
  ),
  width: positive,
  classes: rule(
    (value) =>
      Array.isArray(value) && value.length > 0 &&
      value.every((name) => typeof name === "string" && name.length > 0),
    "a list of class names, at least one",
  ),
  dataset: text,
  imageSize: positiveCount,
  mean: channels(Number.isFinite, "three numbers"),
  std: channels(
    (value) => Number.isFinite(value) && Number(value) > 0,
    "three numbers > 0",
  ),
  attack: nullable(checkRecord({
    norm,
    epsilon: nonNegative,
    stepSize: nonNegative,
    steps: count,
    randomStart: bool,
  })),
  epoch: count,
  seed: count,
  accuracies: checkRecord({
    clean: optional(fraction),
    cleanInterval: optional(interval),
    adversarial: optional(listOf(
      checkRecord({
        attack: optional(text),
        epsilon: nonNegative,
        steps: count,
        stepSize: nonNegative,
        restarts: count,
        accuracy: fraction,
        interval: optional(interval),
      }),
      "a list",
    )),
    images: optional(count),
  }),
  sanity: optional(checkRecord({
    images: count,
    norm,
    epsilon: nonNegative,
    steps: count,
    checks: listOf(
      checkRecord({ name: text, passed: bool, detail: text }),
      "a list",
    ),
  })),
  evaluation: optional(checkRecord({
    complete: bool,
    limit: nullable(count),
    provider: text,
    cpu: text,
    preprocessing: text,
    measured: isoTime,
  })),
  training: optional(checkRecord({
    seconds: nonNegative,
    provider: text,
    cpu: text,
    threads: count,
    preset: optional(text),
  })),
  data: optional(checkRecord({
    name: text,
    images: count,
    preprocessing: text,
  })),
  command: optional(text),
  versions: optional(mapOf(text, "an object of texts")),
  created: optional(isoTime),
  weightsSha256: optional(sha256Text),
  extra: optional(object("an object")),
};
