/**
 * What training costs and comes to: accuracy against time, what each faster way
 * to train buys, and where the paper and its reference code train differently.
 *
 *   deno run -A bench/training_bench.ts --data data --group budgets,ways,guard
 *
 * Each row is a training in a process of its own, then an evaluation; --out
 * keeps both, so that a stopped bench goes on where it was.
 *
 * @module
 */
import { type EpochRecord, type Interval, readRun, type Run } from "../mod.ts";
import { runScript, UsageError } from "../scripts/_cli.ts";
import { formatTable, showNumber } from "./_statistics.ts";

/** Flags of this script. */
export const FLAGS = {
  data: { type: "path", required: true, help: "folder of the data sets" },
  group: {
    type: "string",
    default: "budgets,ways,guard,presets",
    help: "which tables to make, separated by commas",
  },
  out: {
    type: "path",
    default: "runs/training-bench",
    help: "folder of the networks and their numbers",
  },
  limit: {
    type: "integer",
    default: 2000,
    min: 1,
    help: "test images to evaluate on",
  },
  threads: { type: "integer", default: 2, min: 1, help: "CPU threads" },
} as const;

/** A training. */
interface Way {
  /** What the table calls it. */
  readonly name: string;
  /** Its flags, as on a command line, after those of its group. */
  readonly args: string;
}

/** Trainings that are compared. */
interface Group {
  /** Flags of all. */
  readonly args: string;
  /** Radius of the evaluation. */
  readonly epsilon: number;
  /** How it is measured (default "l2"). */
  readonly norm?: "l2" | "linf";
  readonly ways: readonly Way[];
}

const CIFAR = "--dataset cifar10 --arch resnet18 --width 16 --epsilon 0.5";
const CYCLIC = "--schedule cyclic --learning-rate 0.2";
const FGSM_RS = "--attack-steps 1 --step-size 1";
const PGD_3 = "--attack-steps 3 --step-size 0.4";

const GROUPS: Readonly<Record<string, Group>> = {
  budgets: {
    args: `${CIFAR} ${CYCLIC} ${FGSM_RS}`,
    epsilon: 0.5,
    ways: [1, 2, 4, 8].map((epochs) => ({
      name: epochs === 1 ? "1 epoch" : `${epochs} epochs`,
      args: `--epochs ${epochs}`,
    })),
  },
  ways: {
    args: `${CIFAR} --epochs 3`,
    epsilon: 0.5,
    ways: [
      {
        name: "cyclic learning rate, FGSM-RS",
        args: `${CYCLIC} ${FGSM_RS}`,
      },
      {
        name: "constant learning rate 0.1",
        args: `--schedule step --learning-rate 0.1 ${FGSM_RS}`,
      },
      {
        name: "batches of 256, learning rate 0.4",
        args:
          `--schedule cyclic --batch-size 256 --learning-rate 0.4 ${FGSM_RS}`,
      },
      {
        name: "batches of 64, learning rate 0.1",
        args:
          `--schedule cyclic --batch-size 64 --learning-rate 0.1 ${FGSM_RS}`,
      },
      {
        name: "FGSM without a random start",
        args: `${CYCLIC} ${FGSM_RS} --no-random-start`,
      },
      { name: "PGD-3", args: `${CYCLIC} ${PGD_3}` },
      {
        name: "PGD-3, fewer steps in the first 2 epochs",
        args: `${CYCLIC} ${PGD_3} --attack-steps-warmup 2`,
      },
    ],
  },
  // A radius at which a single step from the images themselves overfits.
  guard: {
    args: `--dataset cifar10 --arch resnet10 --width 8 --epochs 6 ` +
      `--norm linf --epsilon 0.0627 --no-random-start ${CYCLIC} ` +
      `--attack-steps 1 --step-size 0.0627`,
    epsilon: 0.0627,
    norm: "linf",
    ways: [
      { name: "FGSM, l-inf 16/255", args: "" },
      { name: "three steps after overfitting", args: "--guard-steps 3" },
    ],
  },
  presets: {
    args: `--dataset cifar10 --arch resnet10 --width 8 --epochs 4 ` +
      `--epsilon 0.5 ${CYCLIC} ${PGD_3}`,
    epsilon: 0.5,
    ways: [
      {
        name: "paper: random start, weight decay 5e-4",
        args: "--preset paper",
      },
      {
        name: "code, on CIFAR-10: no random start",
        args: "--preset code",
      },
      {
        name: "code, on ImageNet: weight decay 1e-4 as well",
        args: "--no-random-start --weight-decay 1e-4",
      },
    ],
  },
};

/**
 * Runs a script in a process of its own.
 *
 * @throws {Error} If it fails; it has then said why
 */
async function runProcess(
  script: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      import.meta.resolve(`../scripts/${script}.ts`),
      ...args,
    ],
    stdin: "null",
    stdout: "null",
    signal,
  }).output();
  signal.throwIfAborted();
  if (!success) throw new Error(`Cannot go on: scripts/${script}.ts failed`);
}

/** The record in a folder, or null: a script that failed leaves it empty. */
async function recordIn(folder: string): Promise<Run | null> {
  const isThere = await Deno.stat(`${folder}/run.json`)
    .then(() => true, () => false);
  return isThere ? await readRun(folder) : null;
}

/** Trains and evaluates, as far as this was not done before. */
async function measure(
  group: Group,
  way: Way,
  folder: string,
  options: { data: string; limit: number; threads: number },
  signal: AbortSignal,
): Promise<string[]> {
  const { data, limit, threads } = options;
  const common = ["--threads", `${threads}`, "--device", "cpu"];
  const words = `${group.args} ${way.args}`.trim().split(" ");
  await runProcess("train", [
    ...["--resume", "--data", data, "--out", folder],
    ...words,
    ...common,
  ], signal);
  const evaluation = `${folder}/evaluation-${limit}`;
  if (!await recordIn(evaluation)) {
    await runProcess("evaluate", [
      ...["--model", folder, "--data", data, "--limit", `${limit}`],
      ...["--epsilon", `${group.epsilon}`, "--attack-steps", "20"],
      ...["--norm", group.norm ?? "l2"],
      ...["--out", evaluation],
      ...common,
    ], signal);
  }
  return rowOf(way, (await recordIn(folder))!, (await recordIn(evaluation))!);
}

/** A training and its evaluation as a row of the table. */
function rowOf({ name }: Way, training: Run, evaluation: Run): string[] {
  const history = (training.history ?? []) as unknown as EpochRecord[];
  const seconds = history.reduce((total, epoch) => total + epoch.seconds, 0);
  const { clean, adversarial, cleanInterval, adversarialInterval } = evaluation
    .metrics as unknown as Record<string, number> & {
      readonly cleanInterval: Interval;
      readonly adversarialInterval: Interval;
    };
  const collapsed = history.filter(({ metrics }) => metrics?.overfitting === 1);
  const share = (value: number, { low, high }: Interval) =>
    `${(100 * value).toFixed(1)} (${(100 * low).toFixed(1)} to ` +
    `${(100 * high).toFixed(1)})`;
  return [
    name,
    showNumber(seconds / history.length),
    showNumber(seconds / 60),
    share(clean, cleanInterval),
    share(adversarial, adversarialInterval),
    collapsed.length === 0
      ? "no"
      : `epoch ${collapsed.map(({ epoch }) => epoch).join(", ")}`,
  ];
}

const HEADER = [
  ...["training", "seconds an epoch", "minutes", "clean %", "PGD-20 %"],
  "overfitting to its attack",
];

if (import.meta.main) {
  await runScript(import.meta, FLAGS, {}, async (flags, { note, signal }) => {
    const names = flags.group.split(",");
    const unknown = names.find((name) => !Object.hasOwn(GROUPS, name));
    if (unknown !== undefined) {
      throw new UsageError(
        `Cannot find group "${unknown}": there are ` +
          Object.keys(GROUPS).join(", "),
      );
    }
    for (const name of names) {
      const rows: string[][] = [];
      for (const [i, way] of GROUPS[name].ways.entries()) {
        note(`${name}: ${way.name}`);
        const folder = `${flags.out}/${name}-${i}`;
        rows.push(await measure(GROUPS[name], way, folder, flags, signal));
      }
      console.log(`${name}\n${formatTable(HEADER, rows)}\n`);
    }
  });
}
