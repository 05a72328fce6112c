/**
 * Labelled images: opening data sets, batching and augmenting them, and
 * reading and writing image files.
 *
 * | name | data | images |
 * | --- | --- | --- |
 * | `shapes` | none: drawn by code | 32 x 32, 10 classes |
 * | `cifar10` | binary folder, its archive, or class folders | 32 x 32, 10 classes |
 * | `restricted_imagenet` | `{train,val}/<wnid>/` | 224 x 224, up to 9 classes |
 * | `imagenet` | `{train,val}/<wnid>/` | 224 x 224, 1000 classes |
 * | `image_folder` | `{train,val}/<class>/` | 224 x 224, or small as they are |
 *
 * @module
 */
import { openCifar10 } from "./cifar10.ts";
import type { Dataset, OpenOptions, SplitName } from "./dataset.ts";
import { openImageFolder } from "./image_folder.ts";
import { openImagenet, openRestrictedImagenet } from "./restricted_imagenet.ts";
import { openShapes } from "./shapes_split.ts";

export { type Augmentation, AUGMENTATIONS } from "./augment.ts";
export {
  type Batch,
  batchCount,
  batches,
  type BatchOptions,
} from "./batches.ts";
export { CIFAR10_CLASSES } from "./cifar10.ts";
export {
  balancedSplit,
  classesInTurn,
  type Dataset,
  type ImageShape,
  NORMALIZATION,
  type OpenOptions,
  type Progress,
  type Rgb,
  selectImages,
  type Source,
  type Split,
  type SplitName,
  type TaskOptions,
} from "./dataset.ts";
export { CIFAR10_ARCHIVE, download, type DownloadOptions } from "./download.ts";
export {
  centreCrop,
  decodeImage,
  type DecodeOptions,
  encodePng,
  fitImage,
  readImage,
  resize,
  type Size,
} from "./image.ts";
export {
  type Examination,
  examineData,
  type ExaminedSplit,
  type ExamineOptions,
  type Finding,
} from "./doctor.ts";
export { kaleidoscope } from "./kaleidoscope.ts";
export { listImages } from "./_folder.ts";
export { imageFiles } from "./image_folder.ts";
export { montage, type MontageOptions, type MontageRow } from "./montage.ts";
export { RESTRICTED_IMAGENET } from "./restricted_imagenet.ts";
export {
  type DrawnShape,
  drawShape,
  SHAPE_NAMES,
  shapePattern,
  SHAPES,
} from "./shapes.ts";

type Open = <S extends SplitName>(
  options: OpenOptions<S>,
) => Promise<Dataset<S>>;

const REGISTRY: Readonly<Record<string, Open>> = {
  shapes: openShapes,
  cifar10: openCifar10,
  restricted_imagenet: openRestrictedImagenet,
  imagenet: openImagenet,
  image_folder: openImageFolder,
};

const ALIASES: Readonly<Record<string, string>> = {
  "restricted-imagenet": "restricted_imagenet",
  "image-folder": "image_folder",
  folder: "image_folder",
};

/** Names {@linkcode openDataset} knows. */
export const DATASETS: readonly string[] = Object.keys(REGISTRY);

/**
 * Opens a data set.
 *
 * Images up to 64 x 64 are read into memory, shared with workers; larger ones
 * are decoded when needed. Images that cannot be decoded while opening are
 * left out, with a warning each.
 *
 * @param name One of {@linkcode DATASETS}
 * @param options Where it is and which splits to open
 * @throws {RangeError} If the name is unknown, or limit or size out of range
 * @throws {TypeError} If the data set needs a folder and none is given
 * @throws {Deno.errors.NotFound} If the folder or a split is missing
 * @throws {SyntaxError} If a file of it is damaged
 *
 * @example
 * ```ts
 * import { openDataset } from "./mod.ts";
 * const { classes, splits } = await openDataset("shapes", {
 *   splits: ["test"],
 *   limit: 10,
 * });
 * const images = await splits.test.load([0, 1]); // [2, 3, 32, 32]
 * ```
 */
export async function openDataset<S extends SplitName>(
  name: string,
  options: OpenOptions<S>,
): Promise<Dataset<S>> {
  const key = Object.hasOwn(ALIASES, name) ? ALIASES[name] : name;
  if (!Object.hasOwn(REGISTRY, key)) {
    throw new RangeError(
      `Cannot open data set "${name}": known ones are ${DATASETS.join(", ")}`,
    );
  }
  return await REGISTRY[key](options);
}
