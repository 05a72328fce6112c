/**
 * Any folder of labelled images: `{train,val|test}/<class>/<image>`.
 *
 * @module
 */
import {
  checkSize,
  dataFolder,
  foldersIn,
  isFolder,
  listFiles,
  naturalSize,
  openFiles,
  openSplits,
  SPLIT_FOLDERS,
  splitFolder,
} from "./_folder.ts";
import {
  type Dataset,
  makeDataset,
  makeSplit,
  NORMALIZATION,
  type OpenOptions,
  type Rgb,
  type Split,
  type SplitName,
} from "./dataset.ts";

/**
 * Opens a folder of class folders. Classes are the folders' names, sorted,
 * over all splits present, so that labels do not depend on which one is
 * opened. A folder of class folders without splits opens as a test split.
 */
export async function openImageFolder<S extends SplitName>(
  options: OpenOptions<S>,
): Promise<Dataset<S>> {
  const root = await dataFolder("image_folder", options.data);
  const present = await presentSplits(root);
  const flat = present.length === 0 &&
    options.splits.every((s) => s === "test");
  const names = new Set<string>();
  for (const folder of flat ? [root] : present) {
    for (const name of await foldersIn(folder)) names.add(name);
  }
  const classes = [...names].sort();
  return await openClassFolders({
    name: "image_folder",
    classes,
    labelOf: (name) => classes.indexOf(name),
    normalization: NORMALIZATION.imagenet,
    folderOf: flat ? () => Promise.resolve(root) : undefined,
    root,
  }, options);
}

/**
 * Image files as a split without labels (all are 0), decoded when needed.
 *
 * @param paths PNG and JPEG files
 * @param size Height and width of the images in pixels
 * @throws {RangeError} If the size is not an integer from 8 to 1024
 */
export function imageFiles(paths: readonly string[], size: number): Split {
  return makeSplit({
    name: "test",
    imageShape: [3, checkSize(size), size],
    labels: new Uint32Array(paths.length),
    source: { kind: "files", paths },
  });
}

/** Folders of all splits that exist. */
export async function presentSplits(root: string): Promise<string[]> {
  const paths: string[] = [];
  for (const name of Object.values(SPLIT_FOLDERS).flat()) {
    if (await isFolder(`${root}/${name}`)) paths.push(`${root}/${name}`);
  }
  return paths;
}

/** A data set of class folders, as its loader describes it. */
export interface ClassFolders {
  readonly name: string;
  readonly root: string;
  readonly classes: readonly string[];
  /** Label of a class folder; undefined leaves it out. */
  readonly labelOf: (folder: string) => number | undefined;
  readonly normalization: { readonly mean: Rgb; readonly std: Rgb };
  /** Folder of a split, where it is not simply named. */
  readonly folderOf?: (split: SplitName) => Promise<string>;
}

/** Opens the splits asked for of a data set of class folders. */
export async function openClassFolders<S extends SplitName>(
  folders: ClassFolders,
  options: OpenOptions<S>,
): Promise<Dataset<S>> {
  const { name, root, classes, labelOf, normalization } = folders;
  const { folderOf = (split: SplitName) => splitFolder(root, split) } = folders;
  let size = options.size === undefined ? undefined : checkSize(options.size);
  const splits = await openSplits(options.splits, async (split) => {
    const files = await listFiles(await folderOf(split), labelOf);
    size ??= await naturalSize(files);
    return await openFiles(split, files, { ...options, size });
  });
  return makeDataset({
    name,
    classes,
    size: size ?? 224,
    normalization,
    splits,
  });
}
