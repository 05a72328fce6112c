/**
 * CIFAR-10 (Krizhevsky 2009), in each of the forms it is found in.
 *
 * @module
 */
import {
  checkSize,
  isFile,
  isFolder,
  openSplits,
  requireData,
  SPLIT_FOLDERS,
} from "./_folder.ts";
import {
  balancedSubset,
  type Dataset,
  makeDataset,
  makeSplit,
  NORMALIZATION,
  type OpenOptions,
  sharedBytes,
  type Split,
  type SplitName,
} from "./dataset.ts";
import { openClassFolders } from "./image_folder.ts";
import { readTar } from "./tar.ts";

/** Names of the classes, in label order. */
export const CIFAR10_CLASSES = [
  "airplane",
  "automobile",
  "bird",
  "cat",
  "deer",
  "dog",
  "frog",
  "horse",
  "ship",
  "truck",
] as const;

const SIZE = 32;
const PIXELS = 3 * SIZE * SIZE;
const RECORD = 1 + PIXELS;
const RECORDS = 10_000;

/** Files of each split in the official binary version. */
const FILES: Readonly<Record<SplitName, readonly string[]>> = {
  train: [1, 2, 3, 4, 5].map((i) => `data_batch_${i}.bin`),
  test: ["test_batch.bin"],
};

/** Official binary files: of which split, how long, with how many images. */
export const CIFAR10_FILES = (["train", "test"] as const).flatMap((split) =>
  FILES[split].map((file) => ({
    split,
    file,
    bytes: RECORDS * RECORD,
    records: RECORDS,
  }))
);

const ARCHIVES = ["cifar-10-binary.tar.gz"];
const FOLDERS = ["cifar-10-batches-bin", "cifar10", "cifar-10"];

type Form =
  | { readonly kind: "binary"; readonly path: string }
  | { readonly kind: "archive"; readonly path: string }
  | { readonly kind: "folders"; readonly path: string };

/** Finds the data in a folder or the folders it may hold. */
async function findForm(path: string): Promise<Form | undefined> {
  if (await isFile(path)) return { kind: "archive", path };
  for (const file of Object.values(FILES).flat()) {
    if (await isFile(`${path}/${file}`)) return { kind: "binary", path };
  }
  for (const name of Object.values(SPLIT_FOLDERS).flat()) {
    for (const label of CIFAR10_CLASSES) {
      if (await isFolder(`${path}/${name}/${label}`)) {
        return { kind: "folders", path };
      }
    }
  }
  for (const name of FOLDERS) {
    if (!await isFolder(`${path}/${name}`)) continue;
    const form = await findForm(`${path}/${name}`);
    if (form) return form;
  }
  for (const name of ARCHIVES) {
    if (await isFile(`${path}/${name}`)) {
      return { kind: "archive", path: `${path}/${name}` };
    }
  }
  return undefined;
}

/**
 * Opens CIFAR-10. `data` may be the official `cifar-10-batches-bin` folder,
 * the archive `cifar-10-binary.tar.gz`, class folders
 * `{train,test}/<class>/<image>`, or a folder that holds one of these.
 *
 * @throws {Deno.errors.NotFound} If there is none of these
 * @throws {SyntaxError} If a file is damaged or of the wrong length
 */
export async function openCifar10<S extends SplitName>(
  options: OpenOptions<S>,
): Promise<Dataset<S>> {
  const size = checkSize(options.size ?? SIZE);
  const data = requireData("cifar10", options.data);
  const form = await findForm(data);
  if (!form) {
    throw new Deno.errors.NotFound(
      `Cannot find CIFAR-10 in "${data}": looked for data_batch_1.bin, ` +
        `train/airplane, ${FOLDERS.join(", ")} and ${ARCHIVES[0]}`,
    );
  }
  if (form.kind === "folders") {
    return await openClassFolders({
      name: "cifar10",
      root: form.path,
      classes: CIFAR10_CLASSES,
      labelOf(name) {
        const label = (CIFAR10_CLASSES as readonly string[]).indexOf(name);
        return label < 0 ? undefined : label;
      },
      normalization: NORMALIZATION.cifar10,
    }, { ...options, size });
  }
  if (size !== SIZE) {
    throw new RangeError(
      `Cannot open the binary CIFAR-10 in size ${size}: its images are 32 x 32`,
    );
  }
  const files = form.kind === "archive"
    ? await readArchive(form.path, options)
    : undefined;
  const splits = await openSplits(options.splits, async (name) => {
    const parts: Uint8Array[] = [];
    for (const [i, file] of FILES[name].entries()) {
      options.signal?.throwIfAborted();
      const bytes = files
        ? files.get(file)
        : await readIfPresent(`${form.path}/${file}`);
      if (!bytes) {
        throw new Deno.errors.NotFound(
          `Cannot open the ${name} split of CIFAR-10: there is no "${file}" ` +
            `in "${form.path}"`,
        );
      }
      parts.push(bytes);
      const [done, total] = [i + 1, FILES[name].length];
      if (!files) options.onProgress?.({ stage: `read ${name}`, done, total });
    }
    return parseSplit(name, parts, { ...options, path: form.path });
  });
  return makeDataset({
    name: "cifar10",
    classes: CIFAR10_CLASSES,
    size: SIZE,
    normalization: NORMALIZATION.cifar10,
    splits,
  });
}

async function readIfPresent(path: string): Promise<Uint8Array | undefined> {
  return await isFile(path) ? await Deno.readFile(path) : undefined;
}

/** Batches of a split to images and labels. */
function parseSplit(
  name: SplitName,
  parts: readonly Uint8Array[],
  { path, limit }: { readonly path: string; readonly limit?: number },
): Split {
  for (const [i, part] of parts.entries()) {
    if (part.length !== RECORDS * RECORD) {
      throw new SyntaxError(
        `Cannot read "${FILES[name][i]}" in "${path}": it has ${part.length} ` +
          `bytes, not ${RECORDS * RECORD}; download it again`,
      );
    }
  }
  const record = (i: number) => {
    const start = i % RECORDS * RECORD;
    return parts[Math.floor(i / RECORDS)].subarray(start, start + RECORD);
  };
  const all = Uint32Array.from(
    { length: parts.length * RECORDS },
    (_, i) => record(i)[0],
  );
  const wrong = all.findIndex((label) => label >= CIFAR10_CLASSES.length);
  if (wrong >= 0) {
    throw new SyntaxError(
      `Cannot read "${
        FILES[name][Math.floor(wrong / RECORDS)]
      }" in "${path}": ` +
        `image ${wrong % RECORDS} has label ${all[wrong]}; download it again`,
    );
  }
  const kept = balancedSubset(all, limit);
  const pixels = sharedBytes(kept.length * PIXELS);
  kept.forEach((from, to) => pixels.set(record(from).subarray(1), to * PIXELS));
  return makeSplit({
    name,
    imageShape: [3, SIZE, SIZE],
    labels: Uint32Array.from(kept, (i) => all[i]),
    source: { kind: "packed", pixels },
  });
}

/** Batches of the splits asked for, from the compressed archive. */
async function readArchive(
  path: string,
  { splits, onProgress, signal }: OpenOptions,
): Promise<Map<string, Uint8Array>> {
  const wanted = new Set(splits.flatMap((name) => FILES[name]));
  const base = (entry: string) => entry.slice(entry.lastIndexOf("/") + 1);
  const found = new Map<string, Uint8Array>();
  const file = await Deno.open(path);
  const { size: total } = await file.stat();
  let done = 0, reported = 0;
  const counted = file.readable.pipeThrough(
    new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
      transform(bytes, controller) {
        done += bytes.length;
        if (performance.now() - reported > 200 || done === total) {
          reported = performance.now();
          onProgress?.({ stage: "read archive", done, total });
        }
        controller.enqueue(bytes);
      },
    }),
    { signal },
  ).pipeThrough(new DecompressionStream("gzip"));
  try {
    for await (const entry of readTar(counted, (p) => wanted.has(base(p)))) {
      found.set(base(entry.path), entry.bytes);
    }
  } catch (error) {
    signal?.throwIfAborted();
    // The gzip stream throws TypeError for damaged or missing data.
    if (!(error instanceof SyntaxError || error instanceof TypeError)) {
      throw error;
    }
    const reason = error instanceof SyntaxError
      ? error.message
      : "its compressed data are damaged or end too early";
    throw new SyntaxError(
      `Cannot read "${path}" as ${reason}; download it again`,
    );
  }
  return found;
}
