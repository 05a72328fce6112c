/**
 * Writes the representations and logits of images to a file, for use as
 * embeddings: search, clustering, linear probes.
 *
 *   deno task represent --model runs/cifar-l2 --out frogs.safetensors frogs/
 *   deno task represent --model runs/cifar-l2 --out one.npy a.png b.jpg
 *   mpirun -n 4 deno task represent --distributed mpi --model runs/cifar-l2 ...
 *
 * Images are PNG and JPEG files of any size, resized and cropped as test
 * images are, or a tensor `x` of a .safetensors file. Row i of the results is
 * image i; the metadata of a .safetensors file holds the names, as JSON, under
 * "files": paths, or x.safetensors#0 for row 0 of a tensor. A .npy file holds one tensor and no metadata.
 *
 * Similarity search between two folders, in Python:
 *
 *   deno task represent --model M --out a.safetensors holiday-2023/
 *   deno task represent --model M --out b.safetensors holiday-2024/
 *
 *   import json
 *   from safetensors import safe_open
 *   def read(path):
 *       with safe_open(path, "np") as f:
 *           r = f.get_tensor("representation")
 *           return json.loads(f.metadata()["files"]), r
 *   a, x = read("a.safetensors")
 *   b, y = read("b.safetensors")
 *   distances = ((x[:, None] - y[None]) ** 2).sum(-1) ** 0.5
 *   for name, row in zip(a, distances):
 *       print(name, "is most like", b[row.argmin()])
 *
 * @module
 */
import {
  batches,
  type Communicator,
  decodeSafetensors,
  encodeNpy,
  encodeSafetensors,
  imageFiles,
  listImages,
  type Network,
  Random,
  rows,
  show,
  sizeOf,
  type Tensor,
  tensor,
  writeFileAtomic,
} from "../mod.ts";
import {
  COMMON_FLAGS,
  type FlagTable,
  type ParsedFlags,
  runScript,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import { onRanks, RANK_FLAGS } from "./_ranks.ts";
import {
  checkFile,
  openDevice,
  openModel,
  Recorder,
  SIZE_FLAG,
  weightsOf,
} from "./_run.ts";

/** Flags of this script. */
export const FLAGS = {
  model: {
    type: "string",
    required: true,
    help: "run folder, .safetensors or .pt file, or shipped name",
  },
  out: {
    type: "path",
    required: true,
    help: "file to write, .safetensors or .npy",
  },
  inputs: {
    type: "path",
    help: "safetensors file with images x [n, 3, h, w] in [0, 1]",
  },
  what: {
    type: "choice",
    choices: ["representation", "logits"],
    help: "which tensor; both if not given, representation in a .npy file",
  },
  ...SIZE_FLAG,
  batchSize: { type: "integer", default: 64, min: 1, help: "images per run" },
  ...RANK_FLAGS,
  ...COMMON_FLAGS,
} as const satisfies FlagTable;

type Flags = ParsedFlags<typeof FLAGS>;

/** Some images and what they are called. */
interface NamedImages {
  /** Index of the first of the batch, whether it could be read or not. */
  readonly start: number;
  /** `[n, 3, h, w]` */
  readonly images: Tensor;
  readonly names: readonly string[];
}

/** What a network makes of images. */
export interface Representations {
  /** `[n, d]` */
  readonly representation: Tensor;
  /** `[n, classes]` */
  readonly logits: Tensor;
  /** Name of each image, `[n]`. */
  readonly names: readonly string[];
}

/** What a network makes of a batch. */
interface Part extends Representations {
  /** Index of the first of its images. */
  readonly start: number;
}

/**
 * Represents images that come in parts.
 *
 * @param network What represents them
 * @param parts Images and their names; on several ranks this rank's share
 * @param communicator Where the parts of all ranks are put together
 * @param onProgress Receives the number of images done, by this rank
 * @returns Null on ranks other than 0
 */
export async function represent(
  network: Network,
  parts: AsyncIterable<NamedImages>,
  { batchSize, communicator, onProgress }: {
    readonly batchSize?: number;
    readonly communicator?: Communicator;
    readonly onProgress?: (done: number) => void;
  } = {},
): Promise<Representations | null> {
  const mine: Part[] = [];
  let done = 0;
  for await (const { start, images, names } of parts) {
    mine.push({
      start,
      names,
      ...await network.predict(images, { batchSize }),
    });
    done += names.length;
    onProgress?.(done);
  }
  const found = communicator ? await gatherParts(communicator, mine) : mine;
  if (!found) return null;
  const names = found.flatMap((part) => part.names);
  if (found.length === 0) throw new Error("Cannot represent images: none left");
  return {
    representation: joinRows(found.map((part) => part.representation)),
    logits: joinRows(found.map((part) => part.logits)),
    names,
  };
}

/** The parts of all ranks in order on rank 0; null elsewhere. */
async function gatherParts(
  communicator: Communicator,
  mine: readonly Part[],
): Promise<Part[] | null> {
  const tensors = Object.fromEntries(
    mine.flatMap(({ start, representation, logits }) => [
      [`representation ${start}`, representation],
      [`logits ${start}`, logits],
    ]),
  );
  const index = mine.map(({ start, names }) => ({ start, names }));
  const bytes = encodeSafetensors(tensors, { index: JSON.stringify(index) });
  const all = await communicator.gather(bytes);
  return all && all.flatMap((bytes, rank) => {
    const source = `what rank ${rank} sent`;
    const { tensors, metadata } = decodeSafetensors(bytes, source);
    return (JSON.parse(metadata.index) as typeof index).map((part) => ({
      ...part,
      representation: tensors[`representation ${part.start}`] as Tensor,
      logits: tensors[`logits ${part.start}`] as Tensor,
    }));
  }).sort((a, b) => a.start - b.start);
}

function joinRows(parts: readonly Tensor[]): Tensor {
  const [, ...shape] = parts[0].shape;
  const n = parts.reduce((total, part) => total + part.shape[0], 0);
  const data = new Float32Array(n * sizeOf(shape));
  let offset = 0;
  for (const part of parts) {
    data.set(part.data, offset);
    offset += part.data.length;
  }
  return tensor(data, [n, ...shape]);
}

/** Paths of images: a folder stands for all below it. */
async function findImages(
  places: readonly string[],
): Promise<{ paths: string[]; named: Set<string> }> {
  const paths: string[] = [];
  const named = new Set<string>();
  for (const place of places) {
    const info = await Deno.stat(place).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      throw new Deno.errors.NotFound(
        `Cannot read image "${place}": there is no such file or folder`,
      );
    });
    if (!info.isDirectory) {
      paths.push(place);
      named.add(place);
      continue;
    }
    const found = await listImages(place.replace(/(?<=.)[\\/]+$/, ""));
    if (found.length === 0) {
      throw new Error(
        `Cannot represent the images in "${place}": it holds no PNG or JPEG ` +
          `files; pass another folder`,
      );
    }
    paths.push(...found);
  }
  return { paths, named };
}

/** Images of files, decoded in workers while earlier ones are represented. */
async function* fromFiles(
  { paths, named }: { paths: readonly string[]; named: ReadonlySet<string> },
  size: number,
  { batchSize }: Pick<Flags, "batchSize">,
  { note, warn = note, signal, ranks }: ScriptContext,
): AsyncGenerator<NamedImages> {
  const split = imageFiles(paths, size);
  const step = Math.min(batchSize, paths.length);
  const stream = batches(split, {
    batchSize: step,
    random: new Random(0),
    start: ranks?.communicator.rank ?? 0,
    stride: ranks?.communicator.size ?? 1,
    ...(ranks ? { workers: ranks.threads } : {}),
    signal,
    onWarning(message) {
      // What the user named must be there; of a folder the rest will do.
      const path = [...named].find((path) => message.includes(`"${path}"`));
      if (path !== undefined) throw new Error(message);
      warn(message);
    },
  });
  for await (const { images, indices } of stream) {
    yield {
      start: step * Math.floor(indices[0] / step),
      images,
      names: Array.from(indices, (i) => paths[i]),
    };
  }
}

/** Images of a tensor file. */
async function fromTensors(path: string): Promise<Tensor> {
  const { tensors } = decodeSafetensors(await Deno.readFile(path), path);
  const x = Object.hasOwn(tensors, "x") ? tensors.x : null;
  const [n, channels] = x?.shape ?? [];
  const isImages = x?.dtype === "float32" && x.shape.length === 4 &&
    channels === 3 && n >= 1;
  if (!isImages) {
    const found = x ? `${x.dtype} ${show(x.shape)}` : "nothing of this name";
    throw new TypeError(
      `Cannot read images from "${path}": need x of float32 [n, 3, h, w], ` +
        `found ${found}`,
    );
  }
  const { data } = x as Tensor;
  if (!data.every((value) => value >= 0 && value <= 1)) {
    throw new RangeError(
      `Cannot read images from "${path}": all values of x must be in [0, 1]; ` +
        `divide bytes by 255, and leave normalisation to the network`,
    );
  }
  return x as Tensor;
}

/** Parts of a tensor, named by its file and their index. */
async function* slices(
  x: Tensor,
  path: string,
  { batchSize }: Pick<Flags, "batchSize">,
  { signal, ranks }: ScriptContext,
): AsyncGenerator<NamedImages> {
  const [n] = x.shape;
  const { rank, size } = ranks?.communicator ?? { rank: 0, size: 1 };
  const stride = batchSize * size;
  for (let start = batchSize * rank; start < n; start += stride) {
    signal.throwIfAborted();
    const end = Math.min(n, start + batchSize);
    yield {
      start,
      images: rows(x, start, end),
      names: Array.from(
        { length: end - start },
        (_, i) => `${path}#${start + i}`,
      ),
    };
  }
}

function formatOf(out: string): "safetensors" | "npy" {
  const format = /\.(safetensors|npy)$/i.exec(out)?.[1].toLowerCase();
  if (!format) {
    throw new UsageError(
      `Cannot write "${out}": name a .safetensors or .npy file with --out`,
    );
  }
  return format as "safetensors" | "npy";
}

/** Writes the file; the work of this script. */
export async function main(flags: Flags, context: ScriptContext) {
  const { args, progress, note, print, ranks } = context;
  const { inputs, out, size } = flags;
  const format = formatOf(out);
  if ((inputs === undefined) === (flags._.length === 0)) {
    throw new UsageError(
      inputs === undefined
        ? "No image to represent: pass image files, folders or --inputs"
        : `Unexpected argument "${flags._[0]}": --inputs gives the images`,
    );
  }
  if (inputs !== undefined && size !== undefined) {
    throw new UsageError("--size does not apply to --inputs: leave it out");
  }
  await checkFile(out);
  const recorder = await Recorder.open("represent", flags, null, { args });
  const x = inputs === undefined ? null : await fromTensors(inputs);
  const files = x ? null : await findImages(flags._);
  const device = await openDevice(flags, note, ranks);
  const model = await openModel(flags.model, device);
  const { card, network } = model;
  const imageSize = size ?? card.imageSize;
  const count = x ? x.shape[0] : files!.paths.length;
  const share = Math.ceil(count / (ranks?.communicator.size ?? 1));
  const task = progress.start("represent", share);
  try {
    const parts = x
      ? slices(x, inputs!, flags, context)
      : fromFiles(files!, imageSize, flags, context);
    const all = await represent(network, parts, {
      batchSize: flags.batchSize,
      communicator: ranks?.communicator,
      onProgress: (done) => task.update(done),
    });
    task.done();
    if (!all) return;
    const { representation, logits, names } = all;
    const both = { representation, logits };
    const weights = await weightsOf("representing", model);
    const shape = x ? x.shape.slice(2) : [imageSize, imageSize];
    const metadata = {
      files: JSON.stringify(names),
      model: weights.path,
      weightsSha256: weights.sha256,
      imageSize: shape.join(" x "),
      classes: JSON.stringify(card.classes),
    };
    const what = flags.what ??
      (format === "npy" ? "representation" : undefined);
    await writeFileAtomic(
      out,
      format === "npy"
        ? encodeNpy(both[what!])
        : encodeSafetensors(what ? { [what]: both[what] } : both, metadata),
    );
    const skipped = count - names.length;
    await recorder.write({
      provider: device.provider,
      weights: [weights],
      metrics: {
        images: names.length,
        skipped,
        representation: representation.shape[1],
        logits: logits.shape[1],
        out,
        ...(x ? {} : { files: names }),
      },
    }, flags.json);
    const written = what ? [what] : ["representation", "logits"] as const;
    for (const name of written) print(`${name}: ${show(both[name].shape)}`);
    print(out);
  } finally {
    await network.release();
  }
}

if (import.meta.main) {
  const positional = {
    name: "image",
    help: "PNG or JPEG file, or folder of them at any depth",
  };
  await runScript(import.meta, FLAGS, { positional }, onRanks(main));
}
