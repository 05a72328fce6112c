/**
 * Makes a checkpoint of another project's file: of PyTorch's, zip or legacy,
 * such as those of the reference library, or of a foreign safetensors file.
 * Nothing in the file is executed.
 *
 *   deno task import resnet50_l2_eps3.pt --out models/robust.safetensors \
 *     --dataset imagenet --epsilon 3 --attack-steps 7 --step-size 0.5
 *
 * A checkpoint of this project, such as a folder of a training run, is copied
 * with its card: with --half into a file of half the size, which is how networks
 * are shipped.
 *
 *   deno task import runs/cifar10-l2 --half \
 *     --out models/weights/cifar10-l2.safetensors
 *
 * Architecture, width, classes and data set are told from the tensors, as is
 * the normalisation of the images if the file holds it. Other scripts load
 * PyTorch's files as they are, where all can be told, such as
 * --model resnet50_l2_eps3.pt; safetensors files of others need an import.
 *
 * @module
 */
import {
  type Architecture,
  ARCHITECTURES,
  type CardAttack,
  type Checkpoint,
  DATASETS,
  decodeCheckpoint,
  decodeMetadata,
  findModel,
  importBytes,
  readBytes,
  readCheckpoint,
  writeCheckpoint,
} from "../mod.ts";
import {
  COMMON_FLAGS,
  type FlagTable,
  givenFlags,
  kebab,
  type ParsedFlags,
  type Positional,
  runScript,
  SCRIPT_FLAGS,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import { checkFile, normOf, quoted, Recorder, versions } from "./_run.ts";

const FLAGS = {
  out: { type: "path", required: true, help: "the .safetensors file to write" },
  arch: {
    type: "choice",
    choices: ARCHITECTURES,
    help: "the network it must be; told from the tensors if not given",
  },
  dataset: {
    type: "choice",
    choices: DATASETS,
    help: "data set trained on; told from the classes if not given",
  },
  prefix: {
    type: "string",
    help: "what the names of the network's tensors begin with",
  },
  mean: {
    type: "string",
    help: "of the images' channels, such as 0.5,0.5,0.5",
  },
  std: { type: "string", help: "of the images' channels, such as 0.2,0.2,0.2" },
  epsilon: {
    type: "number",
    default: 0,
    min: 0,
    aliases: ["eps"],
    help: "radius it was trained against, which no file says; 0: standard",
  },
  norm: {
    type: "choice",
    choices: ["l2", "linf", "2", "inf"],
    default: "l2",
    aliases: ["constraint"],
    help: "how perturbations were measured in training",
  },
  attackSteps: { type: "integer", min: 1, help: "PGD steps in training" },
  stepSize: {
    type: "number",
    above: 0,
    aliases: ["attack-lr"],
    help: "length of a PGD step in training",
  },
  randomStart: {
    type: "boolean",
    help: "whether PGD started at a random point of the ball",
  },
  half: { type: "boolean", help: "store the weights as float16" },
  json: COMMON_FLAGS.json,
  ...SCRIPT_FLAGS,
} as const satisfies FlagTable;

const POSITIONAL = {
  name: "file",
  help: "file of torch.save() or of safetensors, or folder of a training run",
  min: 1,
  max: 1,
} as const satisfies Positional;

type Flags = ParsedFlags<typeof FLAGS>;

/** The attack of training, of which a card holds all or nothing. */
function attackOf(flags: Flags, args: readonly string[]): CardAttack | null {
  const { epsilon, attackSteps: steps, stepSize, randomStart } = flags;
  if (epsilon === 0) {
    const given = givenFlags(args, FLAGS);
    for (const key of ["attackSteps", "stepSize", "randomStart"]) {
      if (given.has(key)) {
        throw new UsageError(
          `Missing flag --epsilon, ${FLAGS.epsilon.help}: the flags of its ` +
            `attack need it`,
        );
      }
    }
    return null;
  }
  if (steps === undefined || stepSize === undefined) {
    throw new UsageError(
      `--epsilon ${epsilon} needs the rest of the attack in training: pass ` +
        `--attack-steps <integer> and --step-size <number>`,
    );
  }
  return { norm: normOf(flags.norm), epsilon, stepSize, steps, randomStart };
}

type Rgb = readonly [number, number, number];

/** Three numbers of a flag. */
function channels(name: "mean" | "std", text: string): Rgb {
  const values = text.split(/[\s,]+/).filter((part) => part !== "").map(Number);
  const fits = name === "mean" ? Number.isFinite : (x: number) => x > 0;
  const [r, g, b, ...more] = values;
  if (b === undefined || more.length > 0 || !values.every(fits)) {
    throw new UsageError(
      `--${name} must be three numbers${name === "std" ? " > 0" : ""} with ` +
        `commas: current value is "${text}"`,
    );
  }
  return [r, g, b];
}

function normalizationOf({ mean, std }: Flags): { mean?: Rgb; std?: Rgb } {
  if (mean === undefined && std === undefined) return {};
  if (mean === undefined || std === undefined) {
    const [given, missing] = std === undefined
      ? ["mean", "std"]
      : ["std", "mean"];
    throw new UsageError(`--${given} needs --${missing}: pass both or neither`);
  }
  return { mean: channels("mean", mean), std: channels("std", std) };
}

/** Most bytes of a shipped network. */
const SHIPPED_BYTES = 12e6;

/** Reads a file, or the checkpoint in the folder of a training run. */
async function readSource(
  source: string,
): Promise<{ path: string; bytes: Uint8Array }> {
  const info = await Deno.stat(source).catch(() => null);
  const path = info?.isDirectory ? await findModel(source) : source;
  return { path, bytes: await readBytes(path) };
}

/** Whether a file is a checkpoint of this project, which has a card. */
function isOwn(bytes: Uint8Array, path: string): boolean {
  try {
    return decodeMetadata(bytes, path).card !== undefined;
  } catch {
    return false; // What is wrong with it, its import says.
  }
}

/** Copies a checkpoint of this project. */
async function copyOwn(
  { card, tensors }: Checkpoint,
  flags: Flags,
  { args, note, print }: ScriptContext,
): Promise<void> {
  const kept = ["out", "half", ...Object.keys(SCRIPT_FLAGS)];
  for (const key of givenFlags(args, FLAGS)) {
    if (kept.includes(key)) continue;
    throw new UsageError(
      `Cannot copy "${flags._[0]}" with --${
        kebab(key)
      }: it has a card, which ` +
        `is kept; leave the flag out`,
    );
  }
  await checkFile(flags.out, { isNew: true });
  await writeCheckpoint(flags.out, { card, tensors }, { float16: flags.half });
  const { size } = await Deno.stat(flags.out);
  note(`Copied with its card: ${(size / 1e6).toFixed(1)} MB`);
  if (flags.half && size > SHIPPED_BYTES) {
    note(`Shipped networks have at most ${SHIPPED_BYTES / 1e6} MB`);
  }
  print(flags.out);
}

async function main(flags: Flags, context: ScriptContext): Promise<void> {
  const { args, note, print } = context;
  const [file] = flags._;
  const { path, bytes } = await readSource(file);
  if (isOwn(bytes, path)) {
    const own = await decodeCheckpoint(bytes, path);
    return await copyOwn(own, flags, context);
  }
  const attack = attackOf(flags, args);
  const normalization = normalizationOf(flags);
  const recorder = await Recorder.open("import", flags, null, context);
  await checkFile(flags.out, { isNew: true });
  const { checkpoint, notes } = importBytes(bytes, path, {
    ...(flags.arch ? { architecture: flags.arch as Architecture } : {}),
    ...(flags.dataset ? { dataset: flags.dataset } : {}),
    ...(flags.prefix !== undefined ? { prefix: flags.prefix } : {}),
    ...normalization,
    attack,
  });
  for (const sentence of notes) note(sentence);
  if (!attack) {
    note("Its card says standard training, as no --epsilon is given");
  }
  const { tensors } = checkpoint;
  const card: Checkpoint["card"] = {
    ...checkpoint.card,
    command: ["import", ...args].map(quoted).join(" "),
    versions: await versions(),
    created: new Date().toISOString(),
  };
  await writeCheckpoint(flags.out, { card, tensors }, { float16: flags.half });
  if (flags.json) {
    const { architecture, form, width, dataset, epoch, extra } = card;
    await recorder.write({
      provider: "none",
      weights: [{
        role: "imported",
        path: flags.out,
        sha256: (await readCheckpoint(flags.out)).card.weightsSha256!,
      }],
      metrics: {
        architecture,
        form,
        width,
        classes: card.classes.length,
        dataset,
        mean: card.mean,
        std: card.std,
        epoch,
        ...extra,
      },
    }, flags.json);
  }
  print(flags.out);
}

if (import.meta.main) {
  await runScript(import.meta, FLAGS, { positional: POSITIONAL }, main);
}
