/**
 * Findings about folders of data: each one sentence with what to do.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { examineData, type Progress } from "../../datasets/mod.ts";
import { assertSentence, run, writePicture } from "./_script.ts";

const folder = await Deno.makeTempDir({ prefix: "robust reps doctor-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

const size = { width: 16, height: 16 };
await writePicture(`${folder}/picture.png`, size);
const PICTURE = await Deno.readFile(`${folder}/picture.png`);

let count = 0;

/** Makes a folder of files; true stands for a picture. */
async function make(
  files: Readonly<Record<string, string | Uint8Array | true>>,
): Promise<string> {
  const root = `data ${count++}`;
  await Deno.mkdir(`${folder}/${root}`);
  for (const [name, content] of Object.entries(files)) {
    const path = `${folder}/${root}/${name}`;
    await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    if (name.endsWith("/")) continue;
    const bytes = content === true ? PICTURE : content;
    typeof bytes === "string"
      ? await Deno.writeTextFile(path, bytes)
      : await Deno.writeFile(path, bytes);
  }
  return root;
}

/** Pictures `<split>/<class>/0.png`. */
function pictures(splits: Readonly<Record<string, string>>) {
  return Object.fromEntries(
    Object.entries(splits).flatMap(([split, classes]) =>
      classes.split(" ").map((name) => [`${split}/${name}/0.png`, true])
    ),
  ) as Record<string, true>;
}

/** Lines that the script prints, and its exit code. */
async function examine(
  root: string,
  ...args: string[]
): Promise<{ lines: string[]; code: number }> {
  const { stdout, stderr, code } = await run(
    "doctor",
    ["--data", root, "--quiet", ...args],
    { cwd: folder },
  );
  assertEquals(stderr, "");
  return { lines: stdout.trimEnd().split("\n"), code };
}

/** Checks that findings are these, in order. */
async function assertFindings(
  root: string,
  wanted: readonly RegExp[],
  ...args: string[]
): Promise<void> {
  const { lines, code } = await examine(root, ...args);
  const problems = wanted.filter(({ source }) => source.startsWith("^problem"));
  assertEquals(lines.length, wanted.length, lines.join("\n"));
  lines.forEach((line, i) => assertMatch(line, wanted[i]));
  assertEquals(code, problems.length > 0 ? 1 : 0, lines.join("\n"));
  // What it is, then what to do.
  for (const line of lines.filter((line) => line.startsWith("problem"))) {
    assertMatch(line, /^problem: .+: .+[^.]$/);
  }
}

const NONE = /^No problem found$/;
const WNIDS = "n01440764 n02085620";

Deno.test("doctor finds nothing wrong with whole data", async () => {
  const both = { train: "cat dog", val: "cat dog" };
  const root = await make(pictures(both));
  await assertFindings(root, [NONE]);
  const { stderr } = await run("doctor", ["--data", root], { cwd: folder });
  assertMatch(stderr, /^Form: class folders$/m);
  assertMatch(stderr, /^train: 2 classes, 2 images$/m);
  assertMatch(stderr, /^Open it with --dataset image_folder$/m);
});

Deno.test("doctor says which split it decodes, and how far it is", async () => {
  const root = await make(pictures({ train: "ant bee", val: "ant bee" }));
  const states: Progress[] = [];
  await examineData(`${folder}/${root}/`, {
    onProgress: (state) => states.push(state),
  });
  assertEquals(states, [
    { stage: "decode train", done: 0, total: 2 },
    { stage: "decode train", done: 2, total: 2 },
    { stage: "decode val", done: 0, total: 2 },
    { stage: "decode val", done: 2, total: 2 },
  ]);
});

Deno.test("doctor writes what it found as JSON", async () => {
  const root = await make(pictures({ train: "cat dog", test: "cat" }));
  await examine(root, "--json", "found.json");
  const found = JSON.parse(await Deno.readTextFile(`${folder}/found.json`));
  assertEquals(found.problems, 1);
  assertEquals(found.dataset, "image_folder");
  assertEquals(found.splits, [
    { name: "train", classes: 2, images: 2 },
    { name: "test", classes: 1, images: 1 },
  ]);
  assertEquals(found.findings[0].kind, "problem");
});

Deno.test("doctor finds missing and misnamed splits", async () => {
  const val = await make(pictures({ val: "cat" }));
  const missing = /no folder "train" in "data \d+": the train split needs/;
  await assertFindings(val, [RegExp(`^problem: .*${missing.source}`)]);
  await assertFindings(
    val,
    [RegExp(`^note: .*${missing.source}`), NONE],
    ...["--split", "test"],
  );
  await assertFindings(await make(pictures({ train: "cat" })), [
    /^problem: There is no folder "test" or "val" in/,
  ]);
  await assertFindings(
    await make(pictures({ train: "cat", validation: "cat" })),
    [
      /^problem: .*validation" is not taken for a split: rename it to "val"/,
      /^problem: There is no folder "test" or "val"/,
    ],
  );
  await assertFindings(
    await make(pictures({ train: "a", test: "a", val: "a" })),
    [/^note: .*the test split is "test", "val" is not read$/, NONE],
  );
  const flat = await make({ "cat/0.png": true, "dog/0.png": true });
  await assertFindings(flat, [/^problem: .*no folder "train": put the class/]);
  await assertFindings(
    flat,
    [/^note: .*all its images are a test split$/, NONE],
    ...["--split", "test"],
  );
});

Deno.test("doctor finds data in other places than it is told", async () => {
  const root = await make(pictures({
    "inner/deep/train": "cat",
    "inner/deep/val": "cat",
  }));
  await assertFindings(root, [
    /^problem: The data are in "data \d+\/inner\/deep", not in .* that folder$/,
  ]);
  await assertFindings(await make(pictures({ "a/train": "x", "b/val": "x" })), [
    /^problem: The data are in ".*\/a", ".*\/b", .*: pass --data with one of/,
  ]);
  await assertFindings(await make({ "a/": true }), [
    /^problem: 1 class folder of "data \d+" holds no PNG or JPEG files \("a"\)/,
  ]);
  await assertFindings(await make({}), [
    /^problem: "data \d+" holds no data: it needs folders <split>\/<class>\//,
  ]);
  await assertFindings(await make({ "a.png": true, "b.png": true }), [
    /^problem: 2 images lie directly in "data \d+": sort images into/,
  ]);
  await assertFindings("nowhere", [/^problem: There is no folder "nowhere"/]);
  await assertFindings("picture.png", [
    /^problem: .* is a file: pass a folder/,
  ]);
});

Deno.test("doctor finds classes that differ, are empty or too deep", async () => {
  await assertFindings(
    await make(pictures({ train: "cat dog", val: "cat eel fox" })),
    [
      /^problem: 1 class of "train" has no images in "val" \("dog"\): add/,
      /^problem: 2 classes of "val" have no images in "train" \("eel", "fox"\)/,
    ],
  );
  await assertFindings(
    await make({
      ...pictures({ train: "cat dog", val: "cat dog" }),
      "train/ant/": true,
      "train/bee/images/0.png": true,
      "val/stray.png": true,
      "val/cat/other.webp": "x",
    }),
    [
      /^problem: 1 class folder of .*train" holds no PNG or JPEG .*\("ant"\)/,
      /^problem: 1 class folder of .* in a folder within \("bee"\): move/,
      /^problem: 1 file of kind .webp below .* is not read: convert/,
      /^problem: 1 image lies directly in "data \d+\/val", where no class is/,
    ],
  );
});

Deno.test("doctor finds wnids beside names, and what classes.tsv lacks", async () => {
  await assertFindings(
    await make(pictures({ train: WNIDS, val: "fish dog" })),
    [/^problem: "train" names its classes by wnid, such as "n01440764", and/],
  );
  await assertFindings(
    await make(pictures({ train: `${WNIDS} dog`, val: `${WNIDS} dog` })),
    [
      /^problem: Some classes of "train" are named by wnid .*\("dog"\): use one/,
      /^problem: Some classes of "val"/,
    ],
  );
  const both = pictures({ train: WNIDS, val: WNIDS });
  await assertFindings(await make(both), [
    /^note: The classes are 2 wnids without a classes.tsv: open .*image_folder/,
    NONE,
  ]);
  const header = "wnid\timagenet_index\tname\n";
  const row = "n01440764\t0\ttench\n";
  await assertFindings(await make({ ...both, "classes.tsv": header + row }), [
    /^problem: .*classes.tsv" does not list 1 class \("n02085620"\): add/,
  ]);
  await assertFindings(await make({ ...both, "classes.tsv": "wnid\n" }), [
    /^problem: .*its first line must name .*; correct it or remove it$/,
  ]);
  await assertFindings(
    await make({ ...both, "classes.tsv": `${header}${row}n02085620\t151\t\n` }),
    [NONE],
  );
});

Deno.test("doctor finds images that cannot be decoded", async () => {
  const broken = Object.fromEntries(
    Array.from({ length: 7 }, (_, i) => [`val/cat/${i + 1}.png`, "text"]),
  );
  const root = await make({
    ...pictures({ train: "cat", val: "cat" }),
    "train/cat/half.png": PICTURE.subarray(0, 60),
    "train/cat/nothing.jpg": "",
    ...broken,
  });
  const one = /^problem: Cannot decode ".*val\/cat\/\d.png" as it is neither/;
  await assertFindings(root, [
    /^problem: Cannot decode ".*half.png" as it ends too early: replace or rem/,
    /^problem: Cannot decode ".*nothing.jpg" as it is empty: give a PNG/,
    ...Array(5).fill(one),
    /^problem: 2 more images cannot be decoded: replace or remove them$/,
  ]);
  // The first image of each class is whole.
  await assertFindings(root, [NONE], "--limit", "1");
});

Deno.test("doctor finds files of CIFAR-10 that are missing, short or wrong", async () => {
  const whole = new Uint8Array(30_730_000);
  const files = Object.fromEntries(
    [1, 2, 3, 4, 5].map((i) => [`data_batch_${i}.bin`, whole]),
  );
  const root = await make({ ...files, "test_batch.bin": whole });
  await assertFindings(root, [NONE]);
  await Deno.writeFile(
    `${folder}/${root}/data_batch_2.bin`,
    whole.subarray(0, 100),
  );
  const wrong = new Uint8Array(whole.length);
  wrong[3073] = 10;
  await Deno.writeFile(`${folder}/${root}/data_batch_3.bin`, wrong);
  await Deno.remove(`${folder}/${root}/test_batch.bin`);
  await assertFindings(root, [
    /^problem: ".*data_batch_2.bin" has 100 bytes, not 30730000: download it/,
    /^problem: Image 1 of ".*data_batch_3.bin" has label 10, which is no class/,
    /^problem: There is no "test_batch.bin" in .*: download it again with "deno/,
  ]);
  await assertFindings(await make({ data_batch_1: "pickle" }), [
    /^problem: .* holds the Python version of CIFAR-10: download the binary/,
  ]);
  await Deno.remove(`${folder}/${root}`, { recursive: true });
});

Deno.test("doctor answers each mistake with one sentence", async () => {
  const rows: [string[], 1 | 2, RegExp][] = [
    [[], 2, /Missing flag --data, folder of data/],
    [["--data", ""], 2, /--data must be a path: current value is empty/],
    [["--data", "x", "y"], 2, /Unexpected argument "y"/],
    [["--data", "x", "--split", "val"], 2, /--split must be train or test/],
    [["--data", "x", "--limit", "0"], 2, /--limit must be >= 1/],
    [["--data", "x", "--json", "."], 2, /".": it is a folder; name a file/],
  ];
  for (const [args, code, wanted] of rows) {
    const ended = await run("doctor", [...args, "--quiet"], { cwd: folder });
    assertSentence(ended, code, wanted);
  }
  const help = await run("doctor", ["--help"], { cwd: folder });
  assertEquals(help.code, 0);
  assert(help.stdout.includes("--split <train|test>"), help.stdout);
});
