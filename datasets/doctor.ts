/**
 * What is wrong with a folder of data, and what to do about it.
 *
 * @module
 */
import {
  decodeFiles,
  foldersIn,
  imagesIn,
  isFile,
  isFolder,
  SPLIT_FOLDERS,
  withoutSlash,
} from "./_folder.ts";
import { CIFAR10_CLASSES, CIFAR10_FILES } from "./cifar10.ts";
import { sharedBytes, type SplitName, type TaskOptions } from "./dataset.ts";
import { readWordNet } from "./restricted_imagenet.ts";

/** One thing found, as one sentence that says what to do. */
export interface Finding {
  /** A problem stops or spoils an experiment; a note does not. */
  readonly kind: "problem" | "note";
  /** What it is and what to do. */
  readonly message: string;
}

/** A split as it was found. */
export interface ExaminedSplit {
  /** Name of its folder, or of the split where there are no folders. */
  readonly name: string;
  /** Classes with at least one image. */
  readonly classes: number;
  /** Images, readable or not. */
  readonly images: number;
}

/** Result of `examineData()`. */
export interface Examination {
  /** What the folder holds. */
  readonly form: string;
  /** Data set to open it as; null if nothing can. */
  readonly dataset: string | null;
  /** Splits that are there. */
  readonly splits: readonly ExaminedSplit[];
  /** Problems first. */
  readonly findings: readonly Finding[];
}

/** Options of `examineData()`. */
export interface ExamineOptions extends TaskOptions {
  /** Splits that must be there (default: both). */
  readonly splits?: readonly SplitName[];
  /** Images to decode of each class folder (default: all). */
  readonly limit?: number;
}

/** Findings of one kind that are told one by one. */
const TOLD = 5;

/** Kinds of image files that are not read. */
const OTHER_IMAGES = /\.(webp|gif|bmp|tiff?|heic|avif|jxl|jp2|ppm)$/i;

/** What people name splits, and what to name them. */
const MISNAMED: Readonly<Record<string, string>> = {
  training: "train",
  validation: "val",
  valid: "val",
  dev: "val",
  testing: "test",
};

const WNID = /^n\d{8}$/;

/**
 * Examines a folder of data: form, splits, classes, and that each image can be
 * decoded.
 *
 * @param path Folder, or archive of CIFAR-10
 * @throws {Error} If the system refuses to read it
 *
 * @example
 * ```ts
 * import { examineData } from "./mod.ts";
 * const { findings } = await examineData("no such folder");
 * console.log(findings[0].kind); // "problem"
 * ```
 */
export async function examineData(
  path: string,
  options: ExamineOptions = {},
): Promise<Examination> {
  const doctor = new Doctor(withoutSlash(path), options);
  const examined = await doctor.examine();
  const findings = [...doctor.findings].sort((a, b) =>
    Number(a.kind === "note") - Number(b.kind === "note")
  );
  return { ...examined, findings };
}

/** A class folder of a split. */
interface ClassFolder {
  readonly name: string;
  readonly images: readonly string[];
}

interface SplitFolder {
  /** Name of the folder: train, val or test. */
  readonly name: string;
  readonly classes: readonly ClassFolder[];
}

/** The first few names, quoted, and how many more there are. */
function some(names: readonly string[]): string {
  const told = names.slice(0, TOLD).map((name) => `"${name}"`).join(", ");
  const more = names.length - TOLD;
  return more > 0 ? `${told} and ${more} more` : told;
}

function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

class Doctor {
  readonly findings: Finding[] = [];
  readonly #root: string;
  readonly #options: ExamineOptions;

  constructor(root: string, options: ExamineOptions) {
    this.#root = root;
    this.#options = options;
  }

  async examine(): Promise<Omit<Examination, "findings">> {
    const root = this.#root;
    const nothing = { dataset: null, splits: [] };
    if (await isFile(root)) {
      const form = "file";
      if (/cifar-10-binary\.tar\.gz$/.test(root)) {
        return { ...nothing, form: "CIFAR-10 archive", dataset: "cifar10" };
      }
      this.#problem(`"${root}" is a file: pass a folder of data`);
      return { ...nothing, form };
    }
    if (!await isFolder(root)) {
      this.#problem(`There is no folder "${root}": check the path`);
      return { ...nothing, form: "nothing" };
    }
    if (await this.#isBinaryCifar()) return await this.#binaryCifar();
    const names = Object.values(SPLIT_FOLDERS).flat();
    const found: string[] = [];
    for (const name of names) {
      if (await isFolder(`${root}/${name}`)) found.push(name);
    }
    if (found.length > 0) return await this.#classFolders(found);
    return await this.#withoutSplits();
  }

  #problem(message: string): void {
    this.findings.push({ kind: "problem", message });
  }

  #note(message: string): void {
    this.findings.push({ kind: "note", message });
  }

  // The official binary files of CIFAR-10.

  async #isBinaryCifar(): Promise<boolean> {
    for (const { file } of CIFAR10_FILES) {
      if (await isFile(`${this.#root}/${file}`)) return true;
    }
    return false;
  }

  async #binaryCifar(): Promise<Omit<Examination, "findings">> {
    const images = new Map<SplitName, number>();
    const needed = this.#options.splits ?? ["train", "test"];
    const again = `download it again with "deno task download cifar10"`;
    for (const { split, file, bytes, records } of CIFAR10_FILES) {
      const path = `${this.#root}/${file}`;
      if (!await isFile(path)) {
        const text = `There is no "${file}" in "${this.#root}", which the ` +
          `${split} split needs: ${again}`;
        needed.includes(split) ? this.#problem(text) : this.#note(text);
        continue;
      }
      const content = await Deno.readFile(path);
      images.set(split, (images.get(split) ?? 0) + records);
      if (content.length !== bytes) {
        this.#problem(
          `"${path}" has ${content.length} bytes, not ${bytes}: ${again}`,
        );
        continue;
      }
      const record = bytes / records;
      for (let i = 0; i < records; i++) {
        if (content[i * record] < CIFAR10_CLASSES.length) continue;
        this.#problem(
          `Image ${i} of "${path}" has label ${content[i * record]}, which ` +
            `is no class: ${again}`,
        );
        break;
      }
    }
    const classes = CIFAR10_CLASSES.length;
    return {
      form: "official binary files of CIFAR-10",
      dataset: "cifar10",
      splits: Array.from(images, ([name, count]) => ({
        name,
        classes,
        images: count,
      })),
    };
  }

  // Folders without train, val or test.

  async #withoutSplits(): Promise<Omit<Examination, "findings">> {
    const root = this.#root;
    const nothing = { dataset: null, splits: [] };
    if (await isFile(`${root}/data_batch_1`)) {
      this.#problem(
        `"${root}" holds the Python version of CIFAR-10: download the binary ` +
          `version with "deno task download cifar10"`,
      );
      return { ...nothing, form: "Python files of CIFAR-10" };
    }
    const nested = await this.#nested(root, 3);
    if (nested.length > 0) {
      this.#problem(
        `The data are in ${some(nested)}, not in "${root}" itself: pass ` +
          `--data with ${nested.length > 1 ? "one of them" : "that folder"}`,
      );
      return { ...nothing, form: "folder of data folders" };
    }
    for await (const { name } of Deno.readDir(root)) {
      if (/\.(tar|tgz|tar\.gz|zip)$/.test(name)) {
        const isCifar = name === "cifar-10-binary.tar.gz";
        if (isCifar) {
          return { ...nothing, form: "CIFAR-10 archive", dataset: "cifar10" };
        }
        this.#note(`"${root}/${name}" is an archive: unpack it first`);
      }
    }
    const folders = await foldersIn(root);
    const before = this.findings.length;
    const misnamed = await this.#misnamed(folders);
    const classes = misnamed ? [] : await this.#classesIn(root);
    const images = classes.reduce((sum, one) => sum + one.images.length, 0);
    if (images === 0) {
      // What is wrong with the folders there says more.
      if (this.findings.length === before) {
        const loose = await imagesIn(root);
        this.#problem(
          loose.length > 0
            ? `${plural(loose.length, "image lies", "images lie")} directly ` +
              `in "${root}": sort images into <split>/<class>/, such as ` +
              `"${root}/train/cat/1.png"`
            : `"${root}" holds no data: it needs folders ` +
              `<split>/<class>/ of PNG or JPEG files, such as ` +
              `"${root}/train/cat/1.png"`,
        );
      }
      return { ...nothing, form: "no data" };
    }
    if (this.#needs("train")) {
      this.#problem(
        `"${root}" has class folders but no folder "train": put the ` +
          `class folders into "${root}/train" and test images into ` +
          `"${root}/val", or test only`,
      );
    } else {
      this.#note(`"${root}" has no splits: all its images are a test split`);
    }
    return await this.#examined([{ name: "test", classes }]);
  }

  #needs(split: SplitName): boolean {
    return (this.#options.splits ?? ["train", "test"]).includes(split);
  }

  /** Folders below this one that have splits or files of CIFAR-10. */
  async #nested(path: string, depth: number): Promise<string[]> {
    if (depth === 0) return [];
    const inner = (await foldersIn(path)).map((name) => `${path}/${name}`);
    const found: string[] = [];
    for (const folder of inner) {
      if (await this.#hasData(folder)) found.push(folder);
    }
    for (let i = 0; found.length === 0 && i < inner.length; i++) {
      found.push(...await this.#nested(inner[i], depth - 1));
    }
    return found;
  }

  async #hasData(folder: string): Promise<boolean> {
    for (const split of Object.values(SPLIT_FOLDERS).flat()) {
      const path = `${folder}/${split}`;
      if (await isFolder(path) && (await foldersIn(path)).length > 0) {
        return true;
      }
    }
    return await isFile(`${folder}/${CIFAR10_FILES[0].file}`);
  }

  /** Tells of folders that are named almost as splits are. */
  async #misnamed(folders: readonly string[]): Promise<boolean> {
    let found = false;
    for (const name of folders) {
      const lower = name.toLowerCase();
      const right = Object.hasOwn(MISNAMED, lower) ? MISNAMED[lower] : lower;
      const isSplit = Object.values(SPLIT_FOLDERS).flat().includes(right);
      // Not so where the file system does not tell cases apart.
      const isThere = await isFolder(`${this.#root}/${right}`);
      if (!isSplit || name === right || isThere) continue;
      this.#problem(
        `The folder "${this.#root}/${name}" is not taken for a split: ` +
          `rename it to "${right}"`,
      );
      found = true;
    }
    return found;
  }

  // Folders <split>/<class>/.

  async #classFolders(
    found: readonly string[],
  ): Promise<Omit<Examination, "findings">> {
    const root = this.#root;
    await this.#misnamed(await foldersIn(root));
    const used: string[] = [];
    for (const [split, names] of Object.entries(SPLIT_FOLDERS)) {
      const [name, ...ignored] = names.filter((name) => found.includes(name));
      if (name) {
        used.push(name);
        for (const other of ignored) {
          this.#note(
            `"${root}" holds both "${name}" and "${other}": the ${split} ` +
              `split is "${name}", "${other}" is not read`,
          );
        }
        continue;
      }
      const text = `There is no folder ${
        names.map((one) => `"${one}"`).join(" or ")
      } in "${root}": the ${split} split needs class folders there`;
      this.#needs(split as SplitName) ? this.#problem(text) : this.#note(text);
    }
    const splits: SplitFolder[] = [];
    for (const name of used) {
      const classes = await this.#classesIn(`${root}/${name}`);
      await this.#looseImages(name);
      splits.push({ name, classes });
    }
    this.#compareClasses(splits);
    return await this.#examined(splits);
  }

  async #classesIn(folder: string): Promise<ClassFolder[]> {
    const classes: ClassFolder[] = [];
    const empty: string[] = [];
    const deep: string[] = [];
    const others = new Map<string, number>();
    for (const name of await foldersIn(folder)) {
      this.#options.signal?.throwIfAborted();
      const path = `${folder}/${name}`;
      const images = await imagesIn(path);
      for await (const { name: file } of Deno.readDir(path)) {
        const [kind] = OTHER_IMAGES.exec(file) ?? [];
        if (kind) others.set(kind, (others.get(kind) ?? 0) + 1);
      }
      const inner = images.length > 0 ? [] : await foldersIn(path);
      const first = inner.length > 0
        ? (await imagesIn(`${path}/${inner[0]}`)).length
        : 0;
      if (images.length > 0) classes.push({ name, images });
      else (first > 0 ? deep : empty).push(name);
    }
    if (empty.length > 0) {
      this.#problem(
        `${
          plural(empty.length, "class folder", "class folders")
        } of "${folder}" ` +
          `${empty.length === 1 ? "holds" : "hold"} no PNG or JPEG files ` +
          `(${some(empty)}): add images or remove ` +
          `${empty.length === 1 ? "it" : "them"}`,
      );
    }
    if (deep.length > 0) {
      this.#problem(
        `${plural(deep.length, "class folder", "class folders")} of ` +
          `"${folder}" ${deep.length === 1 ? "keeps" : "keep"} images in a ` +
          `folder within (${some(deep)}): move them up by one folder`,
      );
    }
    for (const [kind, count] of others) {
      this.#problem(
        `${plural(count, "file")} of kind ${kind} below "${folder}" ` +
          `${count === 1 ? "is" : "are"} not read: convert to PNG or JPEG`,
      );
    }
    return classes;
  }

  async #looseImages(split: string): Promise<void> {
    const folder = `${this.#root}/${split}`;
    const loose = await imagesIn(folder);
    if (loose.length === 0) return;
    this.#problem(
      `${plural(loose.length, "image lies", "images lie")} directly in ` +
        `"${folder}", where no class is known: move each into a folder named ` +
        `by its class`,
    );
  }

  #compareClasses(splits: readonly SplitFolder[]): void {
    const names = splits.map(({ name, classes }) => ({
      split: name,
      names: classes.map((one) => one.name),
    }));
    const wnids = names.map((one) => ({
      ...one,
      count: one.names.filter((name) => WNID.test(name)).length,
    }));
    for (const { split, names, count } of wnids) {
      if (count > 0 && count < names.length) {
        this.#problem(
          `Some classes of "${split}" are named by wnid and some are not (` +
            `${some(names.filter((name) => !WNID.test(name)))}): use one way`,
        );
      }
    }
    const [a, b] = wnids;
    if (!b || a.names.length === 0 || b.names.length === 0) return;
    const pure = wnids.every(({ names, count }) =>
      count === 0 || count === names.length
    );
    if (pure && (a.count > 0) !== (b.count > 0)) {
      const [by, other] = a.count > 0 ? [a, b] : [b, a];
      this.#problem(
        `"${by.split}" names its classes by wnid, such as "${by.names[0]}", ` +
          `and "${other.split}" otherwise, such as "${other.names[0]}": ` +
          `rename the folders of one`,
      );
      return;
    }
    for (const [one, other] of [[a, b], [b, a]]) {
      const missing = one.names.filter((name) => !other.names.includes(name));
      if (missing.length === 0) continue;
      this.#problem(
        `${plural(missing.length, "class", "classes")} of "${one.split}" ` +
          `${missing.length === 1 ? "has" : "have"} no images in ` +
          `"${other.split}" (${some(missing)}): add images there or remove ` +
          `${missing.length === 1 ? "it" : "them"}`,
      );
    }
  }

  /** Decodes images, and tells what the folders can be opened as. */
  async #examined(
    splits: readonly SplitFolder[],
  ): Promise<Omit<Examination, "findings">> {
    const names = new Set(
      splits.flatMap(({ classes }) => classes.map((one) => one.name)),
    );
    const dataset = await this.#datasetOf(names);
    for (const split of splits) await this.#decode(split);
    return {
      form: "class folders",
      dataset: names.size > 0 ? dataset : null,
      splits: splits.map(({ name, classes }) => ({
        name,
        classes: classes.length,
        images: classes.reduce((sum, { images }) => sum + images.length, 0),
      })),
    };
  }

  async #datasetOf(names: ReadonlySet<string>): Promise<string> {
    const all: readonly string[] = CIFAR10_CLASSES;
    const ours = all.filter((name) => names.has(name));
    if (ours.length === all.length && names.size === all.length) {
      return "cifar10";
    }
    if (ours.length >= 5 && ours.length === names.size) {
      const missing = all.filter((name) => !names.has(name));
      this.#note(
        `The classes are those of CIFAR-10 without ${some(missing)}: add ` +
          `them, or open the folder as image_folder`,
      );
    }
    const wnids = [...names].filter((name) => WNID.test(name));
    const path = `${this.#root}/classes.tsv`;
    const isListed = await isFile(path);
    if (wnids.length === 0 || wnids.length < names.size) {
      return "image_folder";
    }
    if (!isListed && wnids.length !== 1000) {
      this.#note(
        `The classes are ${wnids.length} wnids without a classes.tsv: open ` +
          `the folder as image_folder, or list wnid and imagenet_index there`,
      );
      return "image_folder";
    }
    if (isListed) {
      try {
        const known = await readWordNet(this.#root, []);
        const unknown = wnids.filter((name) => !known.has(name));
        if (unknown.length > 0) {
          this.#problem(
            `"${path}" does not list ${
              plural(unknown.length, "class", "classes")
            } (${some(unknown)}): add their wnid and imagenet_index`,
          );
        }
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        this.#problem(`${error.message}; correct it or remove it`);
        return "image_folder";
      }
    }
    return wnids.length === 1000
      ? "imagenet or restricted_imagenet"
      : "restricted_imagenet";
  }

  /** Reports images of a split that cannot be decoded. */
  async #decode({ name, classes }: SplitFolder): Promise<void> {
    const { limit, signal, onProgress } = this.#options;
    const paths = classes.flatMap(({ images }) => images.slice(0, limit));
    const messages: string[] = [];
    await decodeFiles(paths, {
      stage: `decode ${name}`,
      size: SIZE,
      chunk: CHUNK,
      out: (start, end) => sharedBytes((end - start) * 3 * SIZE * SIZE),
      onFailure: (_, message) => messages.push(message),
      onProgress,
      signal,
    });
    messages.sort();
    for (const message of messages.slice(0, TOLD)) {
      this.#problem(
        /: (convert|make|give) /.test(message)
          ? message
          : `${message}: replace or remove it`,
      );
    }
    const more = messages.length - TOLD;
    if (more > 0) {
      this.#problem(
        `${plural(more, "more image")} cannot be decoded: replace or remove ` +
          `${more === 1 ? "it" : "them"}`,
      );
    }
  }
}

/** Images that a worker decodes at a time. */
const CHUNK = 50;

/** Decoded images are thrown away: as small as can be. */
const SIZE = 8;
