/**
 * What every experiment does around its work: choose a device, load models,
 * keep the record of the run.
 *
 * @module
 */
import { dirname, sep as SEPARATOR } from "node:path";
import config from "../deno.json" with { type: "json" };
import type { JsonObject, NamedTensors } from "../mod.ts";
import {
  type Card,
  chooseProvider,
  createRunFolder,
  currentCommit,
  type Dataset,
  type Device,
  formatRun,
  type LoadedNetwork,
  loadNetwork,
  MODEL_FILE,
  openDataset,
  type Provider,
  type Run,
  RUN_SCHEMA_VERSION,
  type RunFile,
  runtimeVersion,
  type RunWeights,
  type SplitName,
  type TILE_PARAMETERS,
  type TilePlace,
  weightsHash,
  writeFileAtomic,
  writeRun,
} from "../mod.ts";
import {
  encodePng,
  montage,
  type Progress as DatasetProgress,
  type Tensor,
} from "../mod.ts";
import {
  type FlagTable,
  type ParsedFlags,
  parseFlags,
  type Progress,
  type ProgressTask,
  type Ranks,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import { unstack } from "./_images.ts";
import { removePreview } from "./_preview.ts";

/** Flags that decide where programs run. */
export interface DeviceFlags {
  readonly device: Device;
  readonly threads?: number;
}

/** Provider that the user was told of: scripts may call one another. */
let announced: Provider | null = null;

/**
 * Chooses the provider and says once on stderr which one and why. Ranks leave
 * each other's processors alone unless `--threads` says otherwise.
 */
export async function openDevice(
  { device, threads: given }: DeviceFlags,
  note: (text: string) => void,
  ranks?: Ranks,
): Promise<{ provider: Provider; threads?: number }> {
  const { provider, reason } = await chooseProvider(device);
  const threads = given ?? ranks?.threads;
  if (announced !== provider) note(`Running on ${provider}: ${reason}`);
  announced = provider;
  return { provider, ...(threads ? { threads } : {}) };
}

/** Loads a model; a name that nothing has is a mistake in the command line. */
export async function openModel(
  source: string,
  options: { readonly provider: Provider; readonly threads?: number },
): Promise<LoadedNetwork> {
  try {
    return await loadNetwork(source, options);
  } catch (error) {
    if (
      error instanceof SyntaxError &&
      /^Cannot read checkpoint/.test(error.message)
    ) {
      const isForeign = /robust-reps did not write it$/.test(error.message);
      throw new SyntaxError(
        `${error.message}; pass ` +
          (isForeign
            ? "what deno task import makes of it"
            : `the folder of a training run or its ${MODEL_FILE}, whole`),
        { cause: error },
      );
    }
    if (error instanceof TypeError && /^Cannot load/.test(error.message)) {
      throw new TypeError(
        `${error.message}; card and weights of "${source}" do not belong ` +
          `together: pass another --model`,
        { cause: error },
      );
    }
    throw usageOf(error);
  }
}

/** An error about a value as a mistake in the command line. */
export function usageOf(error: unknown): unknown {
  return error instanceof RangeError ? new UsageError(error.message) : error;
}

/** Opens a data set as the flags say. */
export async function openData<S extends SplitName>(
  name: string,
  flags: {
    readonly data?: string;
    readonly splits: readonly S[];
    readonly limit?: number;
    readonly size?: number;
  },
  { signal, progress, note }: ScriptContext,
): Promise<Dataset<S>> {
  const { data } = flags;
  try {
    return await openDataset(name, {
      ...flags,
      signal,
      onWarning: note,
      ...datasetProgress(progress),
    });
  } catch (error) {
    if (error instanceof TypeError && data === undefined) {
      throw new UsageError(
        `Missing flag --data, folder or archive of ${name}: pass --data <path>`,
      );
    }
    if (error instanceof Deno.errors.NotFound && data !== undefined) {
      throw new Deno.errors.NotFound(
        `${error.message}; pass --data with the folder of ${name}`,
        { cause: error },
      );
    }
    throw usageOf(error);
  }
}

/** Flag of the size that images are read at. */
export const SIZE_FLAG = {
  size: {
    type: "integer",
    min: 8,
    max: 1024,
    help: "height and width of the images; the model's own if not given",
  },
} as const satisfies FlagTable;

/** Flags of experiments that compare a robust network to a standard one. */
export const MODEL_FLAGS = {
  model: {
    type: "string",
    required: true,
    help:
      "robust network: run folder, .safetensors or .pt file, or shipped name",
  },
  standard: {
    type: "string",
    help: "standard network to put beside it",
  },
  ...SIZE_FLAG,
} as const satisfies FlagTable;

/** A network and what it is in an experiment. */
export interface RoledNetwork {
  readonly role: "robust" | "standard";
  readonly model: LoadedNetwork;
}

/**
 * Opens the networks of an experiment; they must see images of one size,
 * unless the flags ask for one.
 */
export async function openModels(
  flags: {
    readonly model: string;
    readonly standard?: string;
    readonly size?: number;
  },
  options: { readonly provider: Provider; readonly threads?: number },
): Promise<RoledNetwork[]> {
  const robust = await openModel(flags.model, options);
  if (flags.standard === undefined) return [{ role: "robust", model: robust }];
  const standard = await openModel(flags.standard, options);
  const isSame = standard.card.imageSize === robust.card.imageSize;
  if (flags.size === undefined && !isSame) {
    throw new Error(
      `Cannot compare "${flags.model}" with "${flags.standard}": their images ` +
        `are of ${robust.card.imageSize} and ${standard.card.imageSize} pixels; ` +
        `pass --size`,
    );
  }
  return [
    { role: "standard", model: standard },
    { role: "robust", model: robust },
  ];
}

/** Length of a step of the paper: 1 for ImageNet, 0.1 for CIFAR. */
export function stepSizeFor({ imageSize }: Pick<Card, "imageSize">): number {
  return imageSize <= 64 ? 0.1 : 1;
}

/** The reference library writes 2 and inf. */
export function normOf(norm: "l2" | "linf" | "2" | "inf"): "l2" | "linf" {
  return norm === "l2" || norm === "2" ? "l2" : "linf";
}

/** What running a script from another one needs of it. */
export interface Script {
  /** Its table of flags. */
  readonly FLAGS: FlagTable;
  /** Its work. */
  main(flags: ParsedFlags<FlagTable>, context: ScriptContext): Promise<void>;
}

/** Runs a script as the command line would; its results are not printed. */
export async function callScript(
  script: Script,
  argv: readonly string[],
  context: ScriptContext,
): Promise<void> {
  const positional = { name: "file", help: "" };
  const parsed = parseFlags(argv, script.FLAGS, { positional });
  await script.main(parsed, { ...context, args: argv, print: () => {} });
}

/** A fraction for people. */
export function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)}%`;
}

/** A checkpoint as a run's record names it. */
export async function weightsOf(
  role: string,
  { path, card, network }: {
    readonly path: string;
    readonly card: Card;
    readonly network: { readonly parameters: NamedTensors };
  },
): Promise<RunWeights> {
  const sha256 = card.weightsSha256 ?? await weightsHash(network.parameters);
  // Records travel: where the project lies on this machine says nothing.
  const isShipped = path.startsWith(REPOSITORY + SEPARATOR);
  const shown = isShipped
    ? path.slice(REPOSITORY.length + 1).replaceAll("\\", "/")
    : path;
  return { role, path: shown, sha256 };
}

/** Versions of what computes. */
export async function versions(): Promise<Record<string, string>> {
  return {
    "robust-reps": config.version,
    deno: Deno.version.deno,
    "onnxruntime-node": await runtimeVersion(),
  };
}

/** What a script knows of its run at its end. */
export interface RunResult {
  readonly provider: string;
  readonly weights?: readonly RunWeights[];
  readonly metrics: JsonObject;
  readonly history?: readonly JsonObject[];
}

/** Keeps the record of a run, and writes its files into one folder. */
export class Recorder {
  readonly #command: string;
  #flags: JsonObject;
  readonly #startedAt = new Date();
  readonly #files: RunFile[] = [];
  /** Seconds of earlier parts of a resumed run. */
  readonly #secondsBefore: number;
  /** The command line, of a resumed run that which started it. */
  readonly args: readonly string[];
  /** Folder of the run; null if it writes no files. */
  readonly folder: string | null;
  /** The record that is continued, if there is one. */
  readonly previous: Run | null;

  private constructor(
    command: string,
    args: readonly string[],
    flags: JsonObject,
    folder: string | null,
    previous: Run | null,
  ) {
    this.#command = command;
    this.args = previous?.argv ?? args;
    this.#flags = flags;
    this.folder = folder;
    this.previous = previous;
    this.#secondsBefore = previous?.seconds ?? 0;
    if (previous) this.#startedAt = new Date(previous.startedAt);
  }

  /**
   * @param command Name of the script
   * @param flags Every flag's value
   * @param out Folder for files, which must not hold another run; left out:
   * the next free one of results/COMMAND, results/COMMAND-2, ...; null: none
   * @param options.args The command line
   * @param options.resume Continue the run that the folder holds; left out by
   * scripts that cannot
   */
  static async open(
    command: string,
    flags: Readonly<Record<string, unknown>>,
    out: string | null | undefined,
    { args, resume }: {
      readonly args: readonly string[];
      readonly resume?: boolean;
    },
  ): Promise<Recorder> {
    // Asked first: hours of work should not end in a path that is none.
    if (typeof flags.json === "string") await checkFile(flags.json);
    const folder = out === undefined
      ? await freeFolder(command)
      : out && (out.replace(/[\\/]+$/, "") || out);
    const resumable = resume !== undefined;
    if (folder) await removePreview(folder);
    const previous = folder
      ? await createRunFolder(folder, { command, resume, resumable })
      : null;
    return new Recorder(command, args, recorded(flags), folder, previous);
  }

  /** Replaces the flags on record, such as by those of a resumed run. */
  setFlags(flags: Readonly<Record<string, unknown>>): void {
    this.#flags = recorded(flags);
  }

  /** Files written so far. */
  get files(): readonly RunFile[] {
    return this.#files;
  }

  /** Takes in the files of a run in a folder of this one. */
  include(folder: string, files: readonly RunFile[]): void {
    for (const file of files) {
      this.#files.push({ ...file, path: `${folder}/${file.path}` });
    }
  }

  /** Removes the record of a run that came to nothing. */
  async discard(): Promise<void> {
    if (!this.folder || this.previous || this.#files.length > 0) return;
    await Deno.remove(`${this.folder}/run.json`).catch(() => {});
  }

  /** Writes a file of the run. */
  async file(
    path: string,
    content: Uint8Array | string,
    kind: RunFile["kind"],
    label?: string,
    tile?: TilePlace,
  ): Promise<string> {
    if (!this.folder) throw new TypeError(`Cannot write "${path}": no folder`);
    const full = `${this.folder}/${path}`;
    const folder = full.slice(0, full.lastIndexOf("/"));
    await Deno.mkdir(folder, { recursive: true });
    await writeFileAtomic(full, content);
    if (!this.#files.some((file) => file.path === path)) {
      this.#files.push({
        path,
        kind,
        ...(label ? { label } : {}),
        ...(tile ? { tile } : {}),
      });
    }
    return full;
  }

  /** Writes an image `[3, h, w]` as a PNG tile of the run. */
  async tile(
    name: string,
    image: Tensor,
    label: string,
    place?: TilePlace,
  ): Promise<string> {
    const png = await encodePng(image);
    return await this.file(`${name}.png`, png, "tile", label, place);
  }

  /**
   * Writes a labelled montage and each of its tiles.
   *
   * @param rows Images from the first column on. Where `pictures` names them,
   * they stand there without the column's meaning, and each is a row of its
   * own among the tiles
   * @param columns Their names
   * @param parameter What changes from column to column, and its value in each
   * @returns Path of the montage
   */
  async figure(
    title: string,
    rows: readonly {
      readonly label: string;
      readonly images: Tensor;
      readonly captions?: readonly string[];
      readonly pictures?: readonly string[];
    }[],
    columns?: readonly string[],
    parameter?: {
      readonly name: (typeof TILE_PARAMETERS)[number];
      readonly values: readonly number[];
    },
  ): Promise<string> {
    for (const { label, images, pictures } of rows) {
      for (const [i, image] of unstack(images).entries()) {
        const picture = pictures?.[i];
        if (picture) {
          await this.tile(
            `tiles/${picture}-${label}`,
            image,
            `${picture}, ${label}`,
            { row: picture, column: label },
          );
          continue;
        }
        const column = columns?.[i] ?? String(i + 1);
        const text = columns ? `${label}, ${column}` : `${label} ${column}`;
        const { name, values } = parameter ?? {};
        await this.tile(`tiles/${label}-${i + 1}`, image, text, {
          row: label,
          column: name ? "" : column,
          ...(name ? { parameter: { name, value: values![i] } } : {}),
        });
      }
    }
    const image = await montage({
      title,
      rows: rows.map(({ pictures, ...row }) => ({
        ...(pictures ? { captions: pictures } : {}),
        ...row,
      })),
      ...(columns ? { columns } : {}),
    });
    return await this.file(
      "figure.png",
      await encodePng(image),
      "figure",
      title,
    );
  }

  /** Writes `run.json`, if there is a folder, and the file of `--json`. */
  async write(result: RunResult, json?: string): Promise<Run> {
    const stamp = this.#startedAt.toISOString();
    const session = (Date.now() - this.#opened) / 1000;
    const run: Run = {
      schemaVersion: RUN_SCHEMA_VERSION,
      id: `${this.#command}-${stamp.replace(/[^0-9]/g, "")}`,
      command: this.#command,
      argv: this.args,
      flags: this.#flags,
      seed: Number(this.#flags.seed ?? 0),
      provider: result.provider,
      versions: await versions(),
      commit: await currentCommit(REPOSITORY),
      weights: result.weights ?? [],
      metrics: result.metrics,
      ...(result.history ? { history: result.history } : {}),
      files: this.#files,
      startedAt: stamp,
      seconds: this.#secondsBefore + session,
    };
    if (this.folder) await writeRun(this.folder, run);
    if (json) await writeFileAtomic(json, formatRun(run));
    return run;
  }

  readonly #opened = Date.now();
}

/** Folder of the project. */
export const REPOSITORY = dirname(import.meta.dirname!);

/** Flags without those that were not given or only change what is printed. */
function recorded(flags: Readonly<Record<string, unknown>>): JsonObject {
  const { help: _help, quiet: _quiet, debug: _debug, ...kept } = flags;
  return JSON.parse(JSON.stringify(kept)) as JsonObject;
}

/** Shows a data set's progress, stage by stage. */
export function datasetProgress(progress: Progress): {
  onProgress: (state: DatasetProgress) => void;
} {
  let stage = "";
  let task: ProgressTask | null = null;
  return {
    onProgress: (state) => {
      if (state.stage !== stage) {
        task?.done();
        task = progress.start(state.stage, state.total);
        stage = state.stage;
      }
      task!.update(state.done);
      if (state.done >= state.total) {
        task!.done();
        task = null;
        stage = "";
      }
    },
  };
}

/**
 * Makes sure that a file can be written where the user wants it, before any
 * work.
 *
 * @param path The file; its folder is made
 * @param options `isNew`: refuses to replace a file
 */
export async function checkFile(
  path: string,
  { isNew = false }: { readonly isNew?: boolean } = {},
): Promise<void> {
  const info = await Deno.stat(path).catch(() => null);
  if (info?.isDirectory) {
    throw new UsageError(`Cannot write "${path}": it is a folder; name a file`);
  }
  if (info && isNew) {
    throw new Error(
      `Cannot write "${path}": there is a file already; remove it or pass ` +
        `another --out`,
    );
  }
  try {
    await Deno.mkdir(dirname(path), { recursive: true });
  } catch (error) {
    const inFile = error instanceof Deno.errors.AlreadyExists ||
      error instanceof Deno.errors.NotADirectory;
    if (!inFile) throw error;
    throw new Error(
      `Cannot write "${path}": a folder of it is a file; pass another path`,
    );
  }
}

/** An argument as a shell reads it. */
export function quoted(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument)
    ? argument
    : `'${argument.replaceAll("'", "'\\''")}'`;
}

/** The first of results/COMMAND, results/COMMAND-2, ... without files. */
async function freeFolder(command: string): Promise<string> {
  for (let i = 1;; i++) {
    const folder = `results/${command}${i > 1 ? `-${i}` : ""}`;
    try {
      const entries = await Array.fromAsync(Deno.readDir(folder));
      if (entries.length === 0) return folder;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return folder;
      throw error;
    }
  }
}
