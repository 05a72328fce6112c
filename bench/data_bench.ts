/**
 * Throughput of batches as training gets them: unpacking and augmenting the
 * drawn data set, whose images lie in memory like those of CIFAR-10, and
 * decoding PNG files as folders hold them.
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
  openDataset,
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
} as const;

/** What to measure. */
export interface DataBenchOptions {
  readonly images: number;
  readonly batchSize: number;
  readonly workers: number;
  readonly rounds: number;
}

/** Throughput of one kind of work. */
export interface Throughput {
  readonly work: string;
  /** Median over the rounds. */
  readonly imagesPerSecond: number;
}

/** Measures all kinds of work; the first round of each is not counted. */
export async function dataBench(
  { images, batchSize, workers, rounds }: DataBenchOptions,
): Promise<Throughput[]> {
  const { splits } = await openDataset("shapes", {
    splits: ["train"],
    limit: images,
  });
  const { train } = splits;
  const epoch = async (augmentation: Augmentation, epoch: number) => {
    let count = 0;
    let started = 0;
    const stream = batches(train, {
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
  };
  const results: Throughput[] = [];
  for (const augmentation of AUGMENTATIONS) {
    results.push({
      work: `batches, augmentation ${augmentation}`,
      imagesPerSecond: await medianOf(
        rounds,
        (round) => epoch(augmentation, round),
      ),
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
    imagesPerSecond: await medianOf(rounds, async () => {
      const started = performance.now();
      for (const file of files) await decodeImage(file);
      return count / ((performance.now() - started) / 1000);
    }),
  });
  return results;
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
