/**
 * Checkpoints of other projects with a card: what the tensors do not tell is
 * taken from the data set they were trained on.
 *
 * @module
 */
import {
  type Card,
  CARD_SCHEMA_VERSION,
  type CardAttack,
  type Checkpoint,
  type ImportedWeights,
  type ImportOptions,
  importWeights,
} from "../models/mod.ts";
import {
  CIFAR10_CLASSES,
  NORMALIZATION,
  RESTRICTED_IMAGENET,
  SHAPE_NAMES,
} from "../datasets/mod.ts";

/** How `importCheckpoint()` reads. */
export interface ImportCheckpointOptions extends ImportOptions {
  /** Data set trained on, by its name in the registry; told by the classes. */
  readonly dataset?: string;
  /** Per channel, where the file has none or another is wanted. */
  readonly mean?: readonly [number, number, number];
  /** Per channel, where the file has none or another is wanted. */
  readonly std?: readonly [number, number, number];
  /** What the network was trained against, which no file says (default null). */
  readonly attack?: CardAttack | null;
  /** SHA-256 of the file, for the card. */
  readonly sha256?: string;
}

/** A network of another project and what was found out about it. */
export interface ImportedCheckpoint {
  /** Weights by torchvision's names, and their card. */
  readonly checkpoint: Checkpoint;
  /** What was inferred or assumed, a sentence each. */
  readonly notes: readonly string[];
}

/** What a data set says about networks trained on it. */
interface KnownDataset {
  /** Names in the order of the logits; a number where only that is known. */
  readonly classes: readonly string[] | number;
  readonly form: Card["form"];
  readonly normalization:
    | { readonly mean: Card["mean"]; readonly std: Card["std"] }
    | null;
}

const KNOWN: Readonly<Record<string, KnownDataset>> = {
  cifar10: {
    classes: CIFAR10_CLASSES,
    form: "cifar",
    normalization: NORMALIZATION.cifar10,
  },
  restricted_imagenet: {
    classes: RESTRICTED_IMAGENET.map(({ name }) => name),
    form: "imagenet",
    normalization: NORMALIZATION.restrictedImagenet,
  },
  imagenet: {
    classes: 1000,
    form: "imagenet",
    normalization: NORMALIZATION.imagenet,
  },
  shapes: { classes: SHAPE_NAMES, form: "cifar", normalization: null },
};

/** Data sets that classes alone tell. */
const INFERRED = ["cifar10", "restricted_imagenet", "imagenet"];

/** Height and width of the images that each form is made for. */
const IMAGE_SIZES = { cifar: 32, imagenet: 224 } as const;

/**
 * Makes a checkpoint of another project's file, without executing anything
 * that the file says; see `importWeights()` for the formats.
 *
 * @param bytes The whole file, which is taken over: tensors share its memory
 *   and may be moved within it
 * @param source Its path, for errors and the card
 * @param options What the file does not tell
 * @returns The checkpoint, and what was inferred
 * @throws {SyntaxError} If the file is damaged or of no known format
 * @throws {TypeError} If it holds no known network or not the one asked for,
 *   or nothing tells the normalisation of its images
 */
export function importCheckpoint(
  bytes: Uint8Array,
  source: string,
  options: ImportCheckpointOptions = {},
): ImportedCheckpoint {
  const imported = importWeights(bytes, source, options);
  const fail: (what: string) => never = (what) => {
    throw new TypeError(`Cannot import "${source}": ${what}`);
  };
  const { spec, tensors, format, epoch, reported } = imported;
  const notes = [
    `It is ${spec.architecture} in ${spec.form} form, of width ${spec.width}, ` +
    `with ${spec.classes} classes` +
    (imported.prefix ? `; its names begin with "${imported.prefix}"` : ""),
  ];
  const { dataset, classes } = findDataset(imported, options, notes, fail);
  const { mean, std } = normalizationOf(
    imported,
    dataset,
    options,
    notes,
    fail,
  );
  const file = source.split(/[\\/]/).at(-1)!;
  const card: Card = {
    schemaVersion: CARD_SCHEMA_VERSION,
    architecture: spec.architecture,
    form: spec.form,
    width: spec.width,
    classes,
    dataset,
    imageSize: IMAGE_SIZES[spec.form],
    mean,
    std,
    attack: options.attack ?? null,
    epoch: epoch ?? 0,
    seed: 0,
    accuracies: {},
    extra: {
      imported: {
        file,
        format,
        ...(options.sha256 ? { sha256: options.sha256 } : {}),
        epoch,
        reported,
        notes,
      },
    },
  };
  return { checkpoint: { card, tensors }, notes };
}

function findDataset(
  { spec }: ImportedWeights,
  { dataset: asked }: ImportCheckpointOptions,
  notes: string[],
  fail: (what: string) => never,
): { dataset: string; classes: string[] } {
  const countOf = ({ classes }: KnownDataset) =>
    typeof classes === "number" ? classes : classes.length;
  const dataset = asked ??
    INFERRED.find((name) =>
      KNOWN[name].form === spec.form && countOf(KNOWN[name]) === spec.classes
    ) ?? "image_folder";
  const known = Object.hasOwn(KNOWN, dataset) ? KNOWN[dataset] : null;
  // A subset of its classes may be all that was trained on.
  const isSubset = dataset === "restricted_imagenet" && known !== null &&
    spec.classes < countOf(known);
  if (known && !isSubset && countOf(known) !== spec.classes) {
    fail(
      `it has ${spec.classes} classes and ${dataset} has ${countOf(known)}; ` +
        `pass another --dataset to deno task import`,
    );
  }
  const names = known && !isSubset && typeof known.classes !== "number"
    ? [...known.classes]
    : null;
  if (asked === undefined) {
    notes.push(
      known
        ? `By its classes and form the data set is ${dataset}`
        : `Its ${spec.classes} classes tell no data set: taken for ${dataset}`,
    );
  }
  if (!names) notes.push("Names of the classes are their numbers");
  return {
    dataset,
    classes: names ?? Array.from({ length: spec.classes }, (_, i) => `${i}`),
  };
}

function normalizationOf(
  { normalization }: ImportedWeights,
  dataset: string,
  { mean, std }: ImportCheckpointOptions,
  notes: string[],
  fail: (what: string) => never,
): { mean: Card["mean"]; std: Card["std"] } {
  if (mean && std) return { mean, std };
  if (normalization) {
    const [mean, std] = [normalization.mean, normalization.std];
    notes.push(`The file's mean is [${mean}] and its std [${std}]`);
    return { mean: triple(mean), std: triple(std) };
  }
  const known = Object.hasOwn(KNOWN, dataset)
    ? KNOWN[dataset].normalization
    : null;
  if (!known) {
    return fail(
      `it holds no mean and std of its images, and ${dataset} has none of its ` +
        `own; pass --mean and --std to deno task import`,
    );
  }
  notes.push(
    `The file holds no mean and std: taken are those of ${dataset}, ` +
      `[${known.mean}] and [${known.std}]`,
  );
  return known;
}

function triple([r, g, b]: readonly number[]): Card["mean"] {
  return [r, g, b];
}
