/**
 * Throughput of batches as training gets them: unpacking and augmenting the
 * drawn data set, whose images lie in memory like those of CIFAR-10, and
 * decoding PNG files as folders hold them. With --data, instead: decoding and
 * transforming the files of a folder to 224 x 224, as for ImageNet.
 *
 *   deno run -A bench/data_bench.ts --data data/imagenet-samples \
 *     --images 560 --batch-size 32 --workers 2
 *
 * @module
 */
import { Random, tensor } from "../core/mod.ts";
import {
  type Augmentation,
  AUGMENTATIONS,
  batches,
  decodeImage,
  encodePng,
  imageFiles,
  listImages,
  openDataset,
  type Split,
} from "../datasets/mod.ts";
import { runScript } from "../scripts/_cli.ts";
import { formatTable, median, showNumber } from "./_statistics.ts";

/** Flags of this script. */
export const FLAGS = {
  images: {
    type: "integer",
    default: 5000,
    min: 1,
    help: "images in the data set",
  },
  batchSize: { type: "integer", default: 128, min: 1, help: "images a batch" },
  workers: { type: "integer", default: 1, min: 1, help: "worker threads" },
  rounds: { type: "integer", default: 5, min: 1, help: "epochs to time" },
  data: {
    type: "path",
    help: "folder of PNG and JPEG files; taken in turn up to --images",
  },
  size: {
    type: "integer",
    default: 224,
    min: 8,
    max: 1024,
    help: "height and width that files are transformed to",
  },
} as const;

/** What to measure. */
export interface DataBenchOptions {
  readonly images: number;
  readonly batchSize: number;
  readonly workers: number;
  readonly rounds: number;
  /** Folder of image files to measure instead of drawn images. */
  readonly data?: string;
  /** Height and width that files are transformed to. */
  readonly size?: number;
}

/** Throughput of one kind of work. */
export interface Throughput {
  readonly work: string;
  /** Median over the rounds. */
  readonly imagesPerSecond: number;
}

/** Measures all kinds of work; the first round of each is not counted. */
export async function dataBench(
  options: DataBenchOptions,
): Promise<Throughput[]> {
  const { images, rounds } = options;
  if (options.data !== undefined) {
    return await filesBench(options.data, options);
  }
  const { splits } = await openDataset("shapes", {
    splits: ["train"],
    limit: images,
  });
  const { train } = splits;
  const results: Throughput[] = [];
  for (const augmentation of AUGMENTATIONS) {
    results.push({
      work: `batches, augmentation ${augmentation}`,
      imagesPerSecond: await epochs(train, augmentation, options),
    });
  }
  const count = Math.min(images, 200);
  const image = async (i: number) =>
    tensor((await train.load([i])).data, train.imageShape);
  const files = await Promise.all(
    Array.from(
      { length: count },
      async (_, i) => encodePng(await image(i)),
    ),
  );
  results.push({
    work: "decode PNG, one thread",
    imagesPerSecond: await decoding(files, rounds),
  });
  return results;
}

/** Decoding files of a folder, and all that makes batches of them. */
async function filesBench(
  data: string,
  options: DataBenchOptions,
): Promise<Throughput[]> {
  const { images, rounds, size = 224 } = options;
  const paths = await listImages(data);
  if (paths.length === 0) {
    throw new Error(
      `Cannot time the images in "${data}": it holds no PNG or JPEG files`,
    );
  }
  const turns = Array.from(
    { length: images },
    (_, i) => paths[i % paths.length],
  );
  const split = imageFiles(turns, size);
  const results: Throughput[] = [{
    work: "decode, one thread",
    imagesPerSecond: await decoding(
      await Promise.all(paths.slice(0, 200).map((path) => Deno.readFile(path))),
      rounds,
    ),
  }];
  for (const augmentation of ["none", "standard"] as const) {
    results.push({
      work: `batches at ${size}, augmentation ${augmentation}`,
      imagesPerSecond: await epochs(split, augmentation, options),
    });
  }
  return results;
}

/** Images a second, decoded from bytes in memory. */
async function decoding(
  files: readonly Uint8Array[],
  rounds: number,
): Promise<number> {
  return await medianOf(rounds, async () => {
    const started = performance.now();
    for (const file of files) await decodeImage(file);
    return files.length / ((performance.now() - started) / 1000);
  });
}

/** Images a second in batches of an epoch. */
async function epochs(
  split: Split,
  augmentation: Augmentation,
  { batchSize, workers, rounds }: DataBenchOptions,
): Promise<number> {
  return await medianOf(rounds, async (epoch) => {
    let count = 0;
    let started = 0;
    const stream = batches(split, {
      batchSize,
      workers,
      augmentation,
      epoch,
      order: "shuffled",
      random: new Random(0),
    });
    for await (const { labels } of stream) {
      // The first batch also starts the workers.
      if (started > 0) count += labels.length;
      else started = performance.now();
    }
    return count / ((performance.now() - started) / 1000);
  });
}

async function medianOf(
  rounds: number,
  measure: (round: number) => Promise<number>,
): Promise<number> {
  await measure(0);
  const values: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    values.push(await measure(round));
  }
  return median(values);
}

if (import.meta.main) {
  await runScript(import.meta, FLAGS, {}, async (flags) => {
    if (flags.images <= flags.batchSize) {
      throw new RangeError(
        `Cannot time fewer than two batches: ${flags.images} images in ` +
          `batches of ${flags.batchSize}; raise --images`,
      );
    }
    const results = await dataBench(flags);
    console.log(formatTable(
      ["work", "images/s"],
      results.map(({ work, imagesPerSecond }) => [
        work,
        showNumber(imagesPerSecond),
      ]),
    ));
  });
}
