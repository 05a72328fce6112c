/**
 * ImageNet, and Restricted ImageNet: nine groups of its classes (Tsipras et
 * al. 2019, "Robustness may be at odds with accuracy").
 *
 * @module
 */
import { dataFolder, foldersIn, isFile, isFolder } from "./_folder.ts";
import {
  type Dataset,
  NORMALIZATION,
  type OpenOptions,
  type SplitName,
} from "./dataset.ts";
import { openClassFolders, presentSplits } from "./image_folder.ts";

/** Classes in label order, each with its first and last ImageNet index. */
export const RESTRICTED_IMAGENET = [
  { name: "Dog", first: 151, last: 268 },
  { name: "Cat", first: 281, last: 285 },
  { name: "Frog", first: 30, last: 32 },
  { name: "Turtle", first: 33, last: 37 },
  { name: "Bird", first: 80, last: 100 },
  { name: "Primate", first: 365, last: 382 },
  { name: "Fish", first: 389, last: 397 },
  { name: "Crab", first: 118, last: 121 },
  { name: "Insect", first: 300, last: 319 },
] as const;

/** What the 1000 classes are: ImageNet index and name by wnid. */
type WordNet = ReadonlyMap<string, { index: number; name: string }>;

/** Reads `classes.tsv`: a header, then wnid, index and more by tabs. */
function parseClasses(text: string, path: string): WordNet {
  const [header, ...lines] = text.split(/\r?\n/).filter((line) => line.trim());
  const columns = header?.split("\t") ?? [];
  const [wnid, index, name] = ["wnid", "imagenet_index", "name"].map((column) =>
    columns.indexOf(column)
  );
  if (wnid < 0 || index < 0) {
    throw new SyntaxError(
      `Cannot read "${path}": its first line must name the columns ` +
        `wnid and imagenet_index`,
    );
  }
  return new Map(lines.map((line, i) => {
    const cells = line.split("\t");
    const value = Number(cells[index]);
    if (!cells[wnid] || !Number.isInteger(value) || value < 0 || value > 999) {
      throw new SyntaxError(
        `Cannot read "${path}": line ${i + 2} must hold a wnid and an index ` +
          `from 0 to 999`,
      );
    }
    return [cells[wnid], { index: value, name: cells[name] || cells[wnid] }];
  }));
}

/**
 * ImageNet index by wnid: from `classes.tsv`, else by sorting the folders if
 * there are 1000.
 */
export async function readWordNet(
  root: string,
  folders: readonly string[],
): Promise<WordNet> {
  const path = `${root}/classes.tsv`;
  if (await isFile(path)) {
    return parseClasses(await Deno.readTextFile(path), path);
  }
  const wnids = new Set<string>();
  for (const folder of folders) {
    for (const name of await foldersIn(folder)) {
      if (/^n\d{8}$/.test(name)) wnids.add(name);
    }
  }
  if (wnids.size !== 1000) {
    throw new Deno.errors.NotFound(
      `Cannot tell the ImageNet classes in "${root}": there is no ` +
        `classes.tsv, and the class folders number ${wnids.size}, not 1000`,
    );
  }
  return new Map(
    [...wnids].sort().map((wnid, index) => [wnid, { index, name: wnid }]),
  );
}

/** Folders that hold it in a folder of several data sets. */
const FOLDERS = [
  "restricted_imagenet",
  "restricted-imagenet",
  "restricted-tiny-imagenet",
];

/** The folder given, or the one in it. */
async function restrictedFolder(data: string | undefined): Promise<string> {
  const root = await dataFolder("restricted_imagenet", data);
  if ((await presentSplits(root)).length > 0) return root;
  for (const name of FOLDERS) {
    const inner = `${root}/${name}`;
    if (await isFolder(inner)) return inner;
  }
  return root;
}

/**
 * Opens ImageNet restricted to the nine groups. Where all groups occur, labels
 * follow {@linkcode RESTRICTED_IMAGENET}; where only some do, as in a subset
 * of the classes, labels count those that occur in any split present, in the
 * same order. `data` may also be a folder that holds it as
 * `restricted-tiny-imagenet`, `restricted_imagenet` or `restricted-imagenet`.
 */
export async function openRestrictedImagenet<S extends SplitName>(
  options: OpenOptions<S>,
): Promise<Dataset<S>> {
  const root = await restrictedFolder(options.data);
  const present = await presentSplits(root);
  const wordNet = await readWordNet(root, present);
  const groupOf = (wnid: string) => {
    const index = wordNet.get(wnid)?.index ?? -1;
    return RESTRICTED_IMAGENET.find((g) => index >= g.first && index <= g.last);
  };
  const occurring = new Set<string>();
  for (const folder of present) {
    for (const wnid of await foldersIn(folder)) {
      const group = groupOf(wnid);
      if (group) occurring.add(group.name);
    }
  }
  const classes = RESTRICTED_IMAGENET.map((group) => group.name)
    .filter((name) => occurring.has(name));
  return await openClassFolders({
    name: "restricted_imagenet",
    root,
    classes,
    labelOf(wnid) {
      const group = groupOf(wnid);
      return group && classes.indexOf(group.name);
    },
    normalization: NORMALIZATION.restrictedImagenet,
  }, options);
}

/** Opens ImageNet: labels are the usual indices, 0 to 999. */
export async function openImagenet<S extends SplitName>(
  options: OpenOptions<S>,
): Promise<Dataset<S>> {
  const root = await dataFolder("imagenet", options.data);
  const wordNet = await readWordNet(root, await presentSplits(root));
  if (wordNet.size !== 1000) {
    throw new SyntaxError(
      `Cannot open "${root}" as ImageNet: its classes.tsv names ` +
        `${wordNet.size} classes, not 1000; open it as image_folder instead`,
    );
  }
  const classes: string[] = [];
  for (const { index, name } of wordNet.values()) classes[index] = name;
  return await openClassFolders({
    name: "imagenet",
    root,
    classes,
    labelOf: (wnid) => wordNet.get(wnid)?.index,
    normalization: NORMALIZATION.imagenet,
  }, options);
}
