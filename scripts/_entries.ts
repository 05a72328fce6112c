/**
 * The figures and tables of the paper: how each is made here, what it claims,
 * and what would show it.
 *
 * @module
 */
import {
  type Interval,
  type ResultEntry,
  type ResultNumber,
  type Run,
  wilsonInterval,
} from "../mod.ts";
import { robustName } from "./_experiment.ts";

/** Networks and images that everything is made with. */
export interface Setting {
  /** Part of entries' names, such as "cifar10". */
  readonly name: string;
  /** Data set in the registry. */
  readonly dataset: string;
  /** In words. */
  readonly images: string;
  /** Folder below that of --data; "" for itself. */
  readonly folder: string;
  /** Folder of images of classes outside the data set, below --data's. */
  readonly ood: string;
  /** Shipped networks. */
  readonly models: {
    readonly robust: string;
    readonly standard: string;
    readonly vgg: string;
    readonly judge: string;
    readonly robustJudge: string;
  };
  /** Radius of the perturbations in training and tables. */
  readonly epsilon: number;
  /** Steps of a full run here, of one for images of 32 x 32. */
  readonly stepShare: number;
}

/** All settings; those are used whose networks and images are there. */
export const SETTINGS: readonly Setting[] = [
  {
    name: "cifar10",
    dataset: "cifar10",
    images: "CIFAR-10, 32 x 32",
    folder: "",
    ood: "restricted-tiny-imagenet/ood",
    models: {
      robust: "cifar10-l2",
      standard: "cifar10-standard",
      vgg: "cifar10-vgg",
      judge: "cifar10-judge",
      robustJudge: "cifar10-robust-judge",
    },
    epsilon: 0.5,
    stepShare: 1,
  },
  {
    name: "tiny",
    dataset: "restricted_imagenet",
    images: "Restricted Tiny ImageNet, 64 x 64",
    folder: "restricted-tiny-imagenet",
    ood: "restricted-tiny-imagenet/ood",
    models: {
      robust: "tiny-l2",
      standard: "tiny-standard",
      vgg: "tiny-vgg",
      judge: "tiny-judge",
      robustJudge: "tiny-robust-judge",
    },
    epsilon: 1,
    // A step costs four times as much: a full run stays within 90 minutes.
    stepShare: 0.5,
  },
];

/** Metrics of a run by network, then by claim. */
export type ClaimsOf = (role: string, name: string) => Interval | null;

/** What an entry's arguments depend on. */
interface EntryOptions {
  readonly quick: boolean;
  readonly setting: Setting;
}

/** One figure or table. */
export interface Entry {
  /** Its name without the setting's. */
  readonly id: string;
  readonly paper: string;
  readonly title: string;
  readonly claim: string;
  /** The script that makes it. */
  readonly script: string;
  /** Arguments beside models, images and --out. */
  readonly args: (options: EntryOptions) => readonly string[];
  /** Which networks its script is given. */
  readonly models?: readonly ("robust" | "standard" | "vgg")[];
  /** Its numbers. */
  readonly numbers: (claims: ClaimsOf, setting: Setting) => ResultNumber[];
  /** Whether the claim shows. */
  readonly shows: (claims: ClaimsOf) => boolean | null;
  /** When it does, in words (default: "the intervals are apart"). */
  readonly criterion?: string;
}

/** Whether one mean is above another, intervals apart. */
function above(a: Interval | null, b: Interval | null): boolean | null {
  return a && b ? a.low > b.high : null;
}

function both(...conditions: readonly (boolean | null)[]): boolean | null {
  if (conditions.includes(false)) return false;
  return conditions.includes(null) ? null : true;
}

/**
 * A judge's claim, the robust judge's if there is one: a standard judge is
 * itself fooled by what standard networks have in common (Ilyas et al. 2019).
 */
function seen(
  claims: ClaimsOf,
  role: string,
  name: string,
): Interval | null {
  return claims(role, robustName(name)) ?? claims(role, name);
}

const NETWORKS = ["robust", "standard", "untrained"] as const;

/** A claim of each network as numbers of an entry. */
function rowsOf(
  claims: ClaimsOf,
  names: Readonly<Record<string, [string, ResultNumber["unit"]]>>,
  roles: readonly string[] = NETWORKS,
): ResultNumber[] {
  return Object.entries(names).flatMap(([name, [label, unit]]) =>
    [name, robustName(name)].flatMap((key) =>
      roles.flatMap((role) => {
        const ours = claims(role, key);
        const what = key === name ? label : `${label} (robust judge)`;
        return ours
          ? [{ label: `${what}, ${role}`, unit, paper: null, ours }]
          : [];
      })
    )
  );
}

const INVERSION = {
  distance: ["normalised distance reached", "number"],
  judge: ["judge sees the target's class", "fraction"],
  ssim: ["SSIM to the target", "number"],
  pixelDistance: ["l2 distance to the target", "number"],
  rank: ["rank of the target", "number"],
} as const satisfies Record<string, [string, ResultNumber["unit"]]>;

/** Images: many for the numbers, few for the quick run. */
function count({ quick }: EntryOptions): string[] {
  return ["--images", quick ? "16" : "64"];
}

function steps(
  { quick, setting }: EntryOptions,
  full: number,
  few: number,
): string[] {
  return ["--steps", `${quick ? few : full * setting.stepShare}`];
}

/** Accuracies of a network that was trained elsewhere. */
interface Reference {
  /** Which network, at which radius. */
  readonly network: string;
  readonly clean: number | null;
  readonly adversarial: number | null;
}

const NO_REFERENCE: Reference = { network: "", clean: null, adversarial: null };

/** The paper's networks for Restricted ImageNet, at its radius of 3. */
function ofPaper(name: string, clean: number, adversarial: number): Reference {
  const network = `${name}, 224 x 224, epsilon 3`;
  return { network, clean, adversarial };
}

/** Those that the reference library gives for CIFAR-10, at 0.5. */
function ofLibrary(clean: number, adversarial: number): Reference {
  const network = "the reference library's ResNet-50, epsilon 0.5";
  return { network, clean, adversarial };
}

/**
 * A row of Table 4.
 *
 * @param paper What networks reach elsewhere, clean and under PGD, by setting
 */
function table(
  role: "robust" | "standard" | "vgg",
  paper: Readonly<Record<string, Reference>>,
): Entry {
  const names = { robust: "robust", standard: "standard", vgg: "VGG" };
  return {
    id: `table-4-${role}`,
    paper: "Table 4",
    title: `Accuracy of the ${names[role]} network`,
    claim: role === "robust"
      ? "The robust network keeps most of its accuracy under attack"
      : "A standard network loses its accuracy under attack",
    script: "evaluate",
    models: [role],
    args: ({ quick, setting }) => [
      ...(quick ? ["--limit", "400"] : []),
      ...["--epsilon", `${setting.epsilon}`, "--attack-steps", "20"],
    ],
    numbers: (claims, setting) => {
      const { network, clean, adversarial } = paper[setting.name] ??
        NO_REFERENCE;
      const beside = network && ` (beside it: ${network})`;
      return [
        {
          ...{
            label: `clean accuracy${beside}`,
            unit: "fraction",
            paper: clean,
          },
          ours: claims("evaluated", "clean"),
        },
        {
          ...{
            label: `under PGD-20${beside}`,
            unit: "fraction",
            paper: adversarial,
          },
          ours: claims("evaluated", "adversarial"),
        },
      ];
    },
    criterion: role === "robust"
      ? "more than half of the accuracy is left"
      : "less than a fifth of the accuracy is left",
    shows: (claims) => {
      const adversarial = claims("evaluated", "adversarial");
      const clean = claims("evaluated", "clean");
      if (!adversarial || !clean) return null;
      return role === "robust"
        ? adversarial.low > clean.mean / 2
        : adversarial.high < clean.low / 5;
    },
  };
}

/** In the paper's order. */
export const ENTRIES: readonly Entry[] = [
  {
    id: "fig-1",
    paper: "Fig. 1",
    title: "The paper in one picture",
    claim: "Robust representations can be inverted, interpolated, visualised " +
      "and edited by gradient steps on the input",
    script: "headline",
    args: (options) => steps(options, 600, 100),
    numbers: () => [],
    shows: () => null,
  },
  {
    id: "fig-2",
    paper: "Fig. 2, eq. 1",
    title: "Pictures that represent others",
    claim: "A standard network maps pictures that look nothing alike to " +
      "nearly the same representation",
    script: "match_representation",
    args: (options) => [
      ...count(options),
      ...steps(options, 600, 100),
      ...["--trajectory", options.quick ? "4" : "8"],
    ],
    numbers: (claims) =>
      rowsOf(claims, {
        distance: INVERSION.distance,
        judge: INVERSION.judge,
        judgeStart: ["judge sees the start's class", "fraction"],
        ssimToStart: ["SSIM to the start", "number"],
      }),
    shows: (claims) =>
      both(
        above(
          seen(claims, "standard", "judgeStart"),
          seen(claims, "robust", "judgeStart"),
        ),
        above(
          seen(claims, "robust", "judge"),
          seen(claims, "standard", "judge"),
        ),
      ),
  },
  {
    id: "fig-3-images",
    paper: "Fig. 3, 13a, 16, eq. 4",
    title: "Inversions from other images",
    claim: "Inversions with the robust network look like the target; with " +
      "the standard one like the start",
    script: "invert",
    args: (options) => [
      ...["--from", "images", ...count(options)],
      ...steps(options, 600, 120),
      ...["--trajectory", options.quick ? "5" : "8"],
    ],
    numbers: (claims) => rowsOf(claims, INVERSION),
    shows: (claims) =>
      above(seen(claims, "robust", "judge"), seen(claims, "standard", "judge")),
  },
  {
    id: "fig-3-noise",
    paper: "Fig. 13b, 15",
    title: "Inversions from noise",
    claim: "Inversions with the robust network look like the target; with " +
      "the standard one like noise",
    script: "invert",
    args: (options) => [
      ...count(options),
      ...steps(options, 600, 120),
      ...["--trajectory", options.quick ? "5" : "8"],
    ],
    numbers: (claims) => rowsOf(claims, INVERSION),
    shows: (claims) =>
      above(seen(claims, "robust", "judge"), seen(claims, "standard", "judge")),
  },
  {
    id: "fig-4",
    paper: "Fig. 4 and 5",
    title: "Inversions within a ball",
    claim: "The robust network's representation of a target is not matched " +
      "until the radius is much larger than what it was trained against",
    script: "constrained_inversion",
    args: (options) => [
      ...count(options),
      ...steps(options, 120, 40),
      ...(options.quick
        ? [0.5, 1, 2, 4, 16, 64].flatMap((
          k,
        ) => ["--radius", `${k * options.setting.epsilon}`])
        : []),
    ],
    numbers: (claims) =>
      rowsOf(claims, {
        atTwiceEpsilon: [
          "normalised distance within twice the radius trained against",
          "number",
        ],
        distance: ["normalised distance within the largest radius", "number"],
        judge: ["judge sees the target's class there", "fraction"],
        ssim: ["SSIM to the target there", "number"],
        pixelDistance: ["l2 distance to the target there", "number"],
        rank: ["rank of the target there", "number"],
      }),
    shows: (claims) =>
      above(
        claims("robust", "atTwiceEpsilon"),
        claims("standard", "atTwiceEpsilon"),
      ),
  },
  {
    id: "fig-6",
    paper: "Fig. 6 and 14",
    title: "Inversions of images unlike the training images",
    claim: "Robust representations keep what images outside the training " +
      "distribution look like",
    script: "invert",
    args: (options) => [
      ...["--ood", ...count(options)],
      ...steps(options, 600, 100),
      ...["--trajectory", options.quick ? "4" : "8"],
    ],
    numbers: (claims) => rowsOf(claims, INVERSION),
    shows: (claims) =>
      above(claims("robust", "ssim"), claims("standard", "ssim")),
  },
  {
    id: "fig-7",
    paper: "Fig. 7 and 19 to 22",
    title: "Features of the representation",
    claim: "A robust feature shows the same pattern from wherever the " +
      "optimisation starts; a standard one noise",
    script: "visualize_features",
    models: ["robust", "standard", "vgg"],
    args: (options) => [
      ...[
        "--features",
        options.quick ? "16" : "32",
        "--images",
        options.quick ? "1" : "2",
      ],
      ...steps(options, 200, 80),
    ],
    numbers: (claims) =>
      rowsOf(claims, {
        agreement: ["cosine of one feature's images", "number"],
        shuffledAgreement: ["cosine of different features' images", "number"],
        sameClass: ["one feature's images seen as one class", "fraction"],
        shuffledSameClass: [
          "different features' images seen as one class",
          "fraction",
        ],
      }, [...NETWORKS, "vgg"]),
    shows: (claims) =>
      both(
        above(
          seen(claims, "robust", "sameClass"),
          seen(claims, "robust", "shuffledSameClass"),
        ),
        above(
          seen(claims, "robust", "sameClass"),
          seen(claims, "standard", "sameClass"),
        ),
      ),
  },
  {
    id: "fig-8",
    paper: "Fig. 8",
    title: "Maximising inputs and test images",
    claim: "What maximises a robust feature looks like the test images that " +
      "activate it most",
    script: "maximizing_inputs",
    args: (options) => [
      ...["--features", options.quick ? "16" : "32", "--columns", "4"],
      ...steps(options, 300, 80),
    ],
    numbers: (claims) =>
      rowsOf(claims, {
        judgeMost: [
          "most activating images of the class the judge sees",
          "fraction",
        ],
        judgeLeast: ["least activating images of that class", "fraction"],
      }),
    shows: (claims) =>
      above(
        seen(claims, "robust", "judgeMost"),
        seen(claims, "robust", "judgeLeast"),
      ),
  },
  {
    id: "fig-9",
    paper: "Fig. 9 and 10",
    title: "The regularised baseline",
    claim: "Regularised visualisations of standard networks look pleasant " +
      "but show no consistent meaning",
    script: "visualize_features",
    models: ["robust", "standard", "vgg"],
    args: (options) => [
      ...["--regularized", "--features", options.quick ? "8" : "32"],
      ...steps(options, 300, 80),
    ],
    numbers: (claims) =>
      rowsOf(claims, {
        sameClass: ["one feature's images seen as one class", "fraction"],
        shuffledSameClass: [
          "different features' images seen as one class",
          "fraction",
        ],
      }, [...NETWORKS, "vgg"]),
    shows: (claims) =>
      above(
        seen(claims, "robust", "sameClass"),
        seen(claims, "standard", "sameClass"),
      ),
  },
  {
    id: "fig-11",
    paper: "Fig. 11 and 23, section 4.2.1",
    title: "Features added to pictures",
    claim: "Ascending a robust feature adds a pattern that means something",
    script: "manipulate_features",
    args: (options) => [
      ...count(options),
      ...["--features", options.quick ? "4" : "8"],
      ...steps(options, 300, 100),
    ],
    numbers: (claims) =>
      rowsOf(claims, {
        arrived: ["pictures that have the feature", "fraction"],
        judgeFeature: ["judge sees the feature's class", "fraction"],
        judgeFeatureBefore: ["judge saw it before", "fraction"],
        change: ["l2 length of the change", "number"],
        ssimToSource: ["SSIM to the picture before", "number"],
      }),
    shows: (claims) =>
      above(
        seen(claims, "robust", "judgeFeature"),
        seen(claims, "robust", "judgeFeatureBefore"),
      ),
  },
  {
    id: "fig-12",
    paper: "Fig. 12, 17 and 18, eq. 6",
    title: "Interpolation between pictures",
    claim: "Between two pictures the robust network's way is plausible " +
      "throughout; plain mixes and the standard network's are double exposures",
    script: "interpolate",
    args: (options) => [
      ...count(options),
      ...["--frames", options.quick ? "7" : "10"],
      ...steps(options, 200, 50),
    ],
    numbers: (claims) =>
      rowsOf(claims, {
        monotonicity: ["monotonicity of the judge's class", "number"],
        confidence: ["judge's confidence half way", "fraction"],
        distance: INVERSION.distance,
      }, ["pixels", ...NETWORKS]),
    shows: (claims) =>
      above(
        seen(claims, "robust", "confidence"),
        seen(claims, "pixels", "confidence"),
      ),
  },
  table("robust", {
    cifar10: ofLibrary(0.9083, 0.7017),
    tiny: ofPaper("ResNet-50", 0.9239, 0.8191),
  }),
  table("standard", {
    cifar10: ofLibrary(0.9525, 0.0028),
    tiny: ofPaper("ResNet-50", 0.9801, 0.0474),
  }),
  table("vgg", { tiny: ofPaper("VGG16", 0.9822, 0.0217) }),
];

/** An entry as it came out. */
export function resultOf(
  entry: Entry,
  setting: Setting,
  made: { readonly command: string; readonly run: Run },
): ResultEntry {
  const claims = claimsOf(made.run);
  const shows = entry.shows(claims);
  const id = idOf(entry, setting);
  const { criterion = "the intervals are apart, in this order" } = entry;
  return {
    id,
    paper: entry.paper,
    title: entry.title,
    claim: entry.claim,
    shows,
    note: shows === null
      ? "Look at the pictures"
      : shows
      ? `Shows here: ${criterion}`
      : `Does not show here, which would be: ${criterion}`,
    dataset: setting.images,
    command: made.command,
    run: id,
    numbers: entry.numbers(claims, setting),
  };
}

/** Name of an entry in a setting. */
export function idOf({ id }: Entry, { name }: Setting): string {
  return `${id}-${name}`;
}

/** Reads claims out of a run's metrics. */
function claimsOf({ metrics }: Run): ClaimsOf {
  return (role, name) => {
    if (role === "evaluated") return accuracyOf(metrics, name);
    const { claims } = (metrics[role] ?? {}) as unknown as {
      readonly claims?: Readonly<Record<string, Interval>>;
    };
    return claims?.[name] ?? null;
  };
}

/** An accuracy with its 95% interval (Wilson 1927). */
function accuracyOf(metrics: Run["metrics"], name: string): Interval | null {
  const [share, n] = [metrics[name], metrics.images];
  if (typeof share !== "number" || typeof n !== "number") return null;
  return wilsonInterval(Math.round(share * n), n);
}
