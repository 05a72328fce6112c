/**
 * Names for sets of flags: how each shipped network is trained, and where the
 * paper and its reference code differ.
 *
 * @module
 */
import {
  beforeDashes,
  type Flag,
  type FlagTable,
  givenFlags,
  kebab,
  parseFlags,
} from "./_flags.ts";

/** Flags under a name. */
export interface Preset {
  /** What it is, for --help. */
  readonly about: string;
  /** The flags, as on a command line. */
  readonly args: string;
  /** More flags for images of these data sets. */
  readonly forDatasets?: Readonly<Record<string, string>>;
}

const CIFAR =
  "--dataset cifar10 --data data --schedule cyclic --learning-rate 0.2";

// Perturbations of twice the length of CIFAR-10's, as lengths grow with the root
// of the number of pixels: 0.5 * sqrt(64 * 64 / (32 * 32)) = 1.
const TINY =
  "--dataset restricted_imagenet --data data --size 64 --schedule cyclic " +
  "--learning-rate 0.2 --augmentation crop";

/**
 * How each network under models/weights is trained, and `paper` and `code`,
 * which set only what these differ in and go with other flags.
 */
export const TRAIN_PRESETS: Readonly<Record<string, Preset>> = {
  "cifar10-l2": {
    about: "robust network for CIFAR-10",
    args: `${CIFAR} --arch resnet18 --width 16 --epochs 16 --epsilon 0.5 ` +
      `--attack-steps 1 --step-size 1`,
  },
  "cifar10-standard": {
    about: "standard network for CIFAR-10",
    args: `${CIFAR} --arch resnet18 --width 16 --epochs 30 --epsilon 0`,
  },
  "cifar10-vgg": {
    about: "standard VGG16-style network for CIFAR-10",
    args: `${CIFAR} --arch vgg16_bn --width 16 --epochs 5 --epsilon 0`,
  },
  "cifar10-judge": {
    about: "independent judge for CIFAR-10",
    args: `${CIFAR} --arch resnet10 --width 16 --epochs 6 --epsilon 0 --seed 7`,
  },
  "cifar10-robust-judge": {
    about: "independent robust judge for CIFAR-10",
    args: `${CIFAR} --arch resnet10 --width 16 --epochs 6 --epsilon 0.5 ` +
      `--attack-steps 1 --step-size 1 --seed 7`,
  },
  "tiny-l2": {
    about: "robust network for Restricted Tiny ImageNet",
    args: `${TINY} --arch resnet18 --width 16 --epochs 25 --epsilon 1 ` +
      `--attack-steps 1 --step-size 2`,
  },
  "tiny-standard": {
    about: "standard network for Restricted Tiny ImageNet",
    args: `${TINY} --arch resnet18 --width 16 --epochs 15 --epsilon 0`,
  },
  "tiny-vgg": {
    about: "standard VGG16-style network for Restricted Tiny ImageNet",
    args: `${TINY} --arch vgg16_bn --width 16 --epochs 8 --epsilon 0`,
  },
  "tiny-judge": {
    about: "independent judge for Restricted Tiny ImageNet",
    args: `${TINY} --arch resnet10 --width 16 --epochs 10 --epsilon 0 --seed 7`,
  },
  "tiny-robust-judge": {
    about: "independent robust judge for Restricted Tiny ImageNet",
    args: `${TINY} --arch resnet10 --width 16 --epochs 8 --epsilon 1 ` +
      `--attack-steps 1 --step-size 2 --seed 7`,
  },
  paper: {
    about: "as the paper says: random start, weight decay 5e-4",
    args: "--random-start --weight-decay 5e-4",
  },
  code: {
    about: "as the reference code: no random start, weight decay 1e-4 on " +
      "ImageNet and Restricted ImageNet",
    args: "--no-random-start --weight-decay 5e-4",
    forDatasets: {
      imagenet: "--weight-decay 1e-4",
      restricted_imagenet: "--weight-decay 1e-4",
    },
  },
};

/** Where the evaluations of paper and reference code differ. */
export const EVALUATE_PRESETS: Readonly<Record<string, Preset>> = {
  paper: {
    about: "PGD-20 from a random point, as in the paper's training",
    args: "--attack pgd --attack-steps 20 --random-start",
  },
  code: {
    about: "PGD-20 from the image itself, as in the reference code",
    args: "--attack pgd --attack-steps 20 --no-random-start",
  },
};

/** The flag that names presets. */
export function presetFlag(presets: Readonly<Record<string, Preset>>) {
  return {
    type: "choice",
    choices: Object.keys(presets),
    multiple: true,
    help: "flags under a name, which flags given themselves replace",
  } as const;
}

/**
 * Arguments with the flags of presets in place of `--preset`: later presets
 * count before earlier ones, and what is given itself before all.
 *
 * @param args The command line, which `parseFlags()` accepts
 * @param names Presets in their order
 * @param flags The script's flags
 * @param note Receives a sentence for each value that replaces a preset's
 */
export function expandPresets(
  args: readonly string[],
  names: readonly string[],
  flags: FlagTable,
  presets: Readonly<Record<string, Preset>>,
  note: (text: string) => void,
): string[] {
  const own = withoutPreset(args);
  if (names.length === 0) return own;
  const words = (text: string) => text.split(/\s+/).filter((word) => word);
  const base = names.flatMap((name) => words(presets[name].args));
  const valuesOf = (args: readonly string[]) =>
    parseFlags(args, optionalTable(flags), { positional: ANY }) as Readonly<
      Record<string, unknown>
    >;
  const { dataset } = valuesOf([...base, ...own]);
  const more = names.flatMap((name) =>
    words(presets[name].forDatasets?.[String(dataset)] ?? "")
  );
  const all = [...base, ...more];
  const before = valuesOf(all);
  const after = valuesOf([...all, ...own]);
  const set = givenFlags(all, flags);
  for (const key of givenFlags(own, flags)) {
    const isSame = JSON.stringify(before[key]) === JSON.stringify(after[key]);
    if (!set.has(key) || isSame) continue;
    note(
      `--${kebab(key)} ${after[key]} in place of ${before[key]} of preset ` +
        names.join(", "),
    );
  }
  const inOrder = [...units(all), ...units(own)];
  const last = new Map(
    inOrder.map(({ words }, i) => [keyOf(words[0], flags), i]),
  );
  // Each flag once: this becomes the command on the card.
  return inOrder.filter(({ words }, i) => {
    const key = keyOf(words[0], flags);
    return key === undefined || last.get(key) === i || isMultiple(flags[key]);
  }).flatMap(({ words }) => words);
}

function isMultiple(flag: Flag): boolean {
  return flag.multiple === true;
}

/** Arguments in pieces: a flag with its value, or another argument. */
function units(args: readonly string[]): { words: readonly string[] }[] {
  const head = beforeDashes(args);
  const found: { words: string[] }[] = [];
  for (let i = 0; i < head.length; i++) {
    const words = [head[i]];
    const isFlag = /^--[^=]+$/.test(head[i]);
    const next = head[i + 1];
    // As parseFlags() reads them: a negative number is a value.
    if (isFlag && next !== undefined && !/^-(?![.\d])/.test(next)) {
      words.push(next);
      i++;
    }
    found.push({ words });
  }
  const rest = args.slice(head.length);
  return rest.length > 0 ? [...found, { words: rest }] : found;
}

function keyOf(word: string, flags: FlagTable): string | undefined {
  return [...givenFlags([word], flags)][0];
}

const ANY = { name: "argument", help: "" } as const;

/** A table in which nothing is required: a preset alone need not be whole. */
function optionalTable(flags: FlagTable): FlagTable {
  return Object.fromEntries(
    Object.entries(flags).map(([key, flag]) => [
      key,
      { ...flag, required: false },
    ]),
  );
}

/** Arguments without `--preset` and its value. */
function withoutPreset(args: readonly string[]): string[] {
  const head = beforeDashes(args);
  const kept: string[] = [];
  for (let i = 0; i < head.length; i++) {
    if (head[i] === "--preset") i++;
    else if (!head[i].startsWith("--preset=")) kept.push(head[i]);
  }
  return [...kept, ...args.slice(head.length)];
}
