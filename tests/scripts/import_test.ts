/**
 * The import script as users run it, and what it answers to mistakes.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import { readCheckpoint } from "../../models/files.ts";
import { counting, torchZip } from "../models/_torch_file.ts";
import {
  exists,
  filesBelow,
  recordOf,
  run,
  SMALL,
  succeed,
} from "./_script.ts";

const folder = await Deno.makeTempDir({ prefix: "robust-reps-import-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

const fixture = (name: string) =>
  fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

Deno.test("import writes a checkpoint that evaluate takes, as it takes the file itself", async () => {
  const out = `${folder}/new/net.safetensors`;
  const attack = ["--eps", "0.5", "--attack-steps", "7", "--step-size", "0.1"];
  const stdout = await succeed("import", [
    ...[fixture("checkpoint_legacy.pt"), "--out", out, ...attack],
    ...["--json", `${folder}/import.json`],
  ]);
  assertEquals(stdout.trim(), out);
  const { card } = await readCheckpoint(out);
  assertEquals(card.attack, {
    norm: "l2",
    epsilon: 0.5,
    stepSize: 0.1,
    steps: 7,
    randomStart: false,
  });
  assertMatch(card.command ?? "", /^import .*checkpoint_legacy\.pt --out /);
  const record = await recordOf(`${folder}/import.json`);
  assertEquals(record.metrics.architecture, "resnet18");
  assertEquals(record.weights[0].sha256, card.weightsSha256);
  const evaluated = [];
  for (const model of [out, fixture("checkpoint_zip.pt")]) {
    const json = `${folder}/evaluate.json`;
    await succeed("evaluate", [
      ...["--model", model, "--dataset", "shapes", "--limit", "20", "--quiet"],
      ...["--epsilon", "0", "--device", "cpu", "--json", json],
    ]);
    const { metrics, weights } = await recordOf(json);
    evaluated.push([metrics, weights[0].sha256]);
  }
  assertEquals(evaluated[0], evaluated[1]);
});

Deno.test("import --half ships a run: half the size, its card, its accuracy within noise", async () => {
  const out = `${folder}/trained`;
  await succeed("train", [
    ...[...SMALL, "--epochs", "4", "--limit", "256", "--lr", "0.05"],
    ...["--schedule", "cyclic", "--eval-images", "0", "--out", out],
  ]);
  const half = `${folder}/shipped/net.safetensors`;
  const { code, stderr } = await run("import", [out, "--half", "--out", half]);
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /Copied with its card: \d+\.\d MB/);
  const path = `${out}/model.safetensors`;
  const [before, after] = [
    await readCheckpoint(path),
    await readCheckpoint(half),
  ];
  const { weightsSha256: _, ...card } = before.card;
  const { weightsSha256: sha256, ...kept } = after.card;
  assertEquals(kept, card);
  assert(sha256 !== before.card.weightsSha256);
  const sizes = [path, half].map((file) => Deno.statSync(file).size);
  assert(sizes[1] < 0.65 * sizes[0], `${sizes}`);
  const found = [];
  for (const model of [path, half]) {
    const json = `${folder}/half.json`;
    await succeed("evaluate", [
      ...["--model", model, "--limit", "100", "--quiet", "--json", json],
      ...["--attack-steps", "5", "--device", "cpu", "--threads", "1"],
    ]);
    found.push((await recordOf(json)).metrics);
  }
  for (const name of ["clean", "adversarial", "cleanLoss"]) {
    const gap = Math.abs(Number(found[0][name]) - Number(found[1][name]));
    assert(gap <= 0.02, `${name}: ${gap}`);
  }
  const again = await run("import", [out, "--eps", "1", "--out", `${out}/b`]);
  assertEquals(again.code, 2);
  assertMatch(again.stderr, /with --epsilon: it has a card, which is kept/);
});

Deno.test("import says what it inferred and assumed", async () => {
  const { code, stderr } = await run("import", [
    ...[fixture("torchvision_style.pt"), "--out", `${folder}/b.safetensors`],
  ]);
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /resnet18 in cifar form, of width 8, with 10 classes/);
  assertMatch(stderr, /By its classes and form the data set is cifar10/);
  assertMatch(stderr, /holds no mean and std: taken are those of cifar10/);
  assertMatch(stderr, /card says standard training, as no --epsilon is given/);
});

/** Arguments, exit code, and what the sentence must say. */
type Row = readonly [args: string, code: 1 | 2, wanted: RegExp];

const MISTAKES: readonly Row[] = [
  ["", 2, /Missing argument <file>, .*1 needed/],
  ["net.pt", 2, /Missing flag --out, .*: pass --out <path>/],
  ["net.pt other.pt --out a", 2, /2 given, at most 1 <file> allowed/],
  ["no.pt --out NEW", 1, /Cannot read checkpoint "no.pt": no such file/],
  [
    "empty --out NEW",
    1,
    /"empty": the folder holds no model.safetensors; pass the folder of a/,
  ],
  ["text.pt --out NEW", 1, /neither a file of torch.save\(\) nor of safetens/],
  [
    "none.pt --out NEW",
    1,
    /Cannot read checkpoint "none.pt": the file is empty/,
  ],
  ["cut.pt --out NEW", 1, /lacks the directory at its end.*truncated/],
  ["cut-legacy.pt --out NEW", 1, /the file is truncated/],
  ["other.pt --out NEW", 1, /such as "weight", are those of no known network/],
  ["net.pt --out NEW --arch resnet50", 1, /of resnet50 in cifar .* is missing/],
  ["net.pt --out NEW --arch resnet51", 2, /--arch must be .*did you mean resn/],
  [
    "net.pt --out NEW --dataset shapes --prefix x.",
    1,
    /name that begins with "x."/,
  ],
  [
    "net.pt --out NEW --dataset imagenet",
    1,
    /10 classes and imagenet has 1000/,
  ],
  ["net.pt --out NEW --dataset mnist", 2, /--dataset must be shapes, cifar10/],
  ["net.pt --out NEW --mean 0.5,0.5,0.5", 2, /--mean needs --std/],
  [
    "net.pt --out NEW --mean 1,2 --std 1,1,1",
    2,
    /--mean must be three numbers/,
  ],
  ["net.pt --out NEW --mean 1,1,1 --std 0,1,1", 2, /--std must be .* > 0 with/],
  ["net.pt --out NEW --eps 1", 2, /needs the rest of the attack.*--step-size/],
  ["net.pt --out NEW --attack-steps 7", 2, /Missing flag --epsilon/],
  ["net.pt --out NEW --eps -1", 2, /--epsilon must be >= 0/],
  ["net.pt --out net.pt", 1, /"net.pt": there is a file already; remove it or/],
  ["net.pt --out empty", 2, /"empty": it is a folder; name a file/],
  ["net.pt --out text.pt/a", 1, /"text.pt\/a": .*a file; pass another path/],
  ["net.pt --out NEW --json empty", 2, /"empty": it is a folder; name a file/],
  ["net.pt --ou NEW", 2, /Unknown flag --ou: did you mean --out\?/],
];

Deno.test("import answers each mistake with one sentence and writes nothing", async () => {
  const home = `${folder}/mistakes`;
  await Deno.mkdir(`${home}/empty`, { recursive: true });
  const zip = await Deno.readFile(fixture("torchvision_style.pt"));
  const legacy = await Deno.readFile(fixture("checkpoint_legacy.pt"));
  await Deno.writeFile(`${home}/net.pt`, zip);
  await Deno.writeFile(`${home}/cut.pt`, zip.subarray(0, 200_000));
  await Deno.writeFile(`${home}/cut-legacy.pt`, legacy.subarray(0, 200_000));
  await Deno.writeFile(`${home}/none.pt`, new Uint8Array());
  await Deno.writeTextFile(`${home}/text.pt`, "some text");
  await Deno.writeFile(
    `${home}/other.pt`,
    torchZip({ weight: counting([2, 2]) }),
  );
  const before = await filesBelow(home);
  const queue = [...MISTAKES];
  const worker = async () => {
    for (let row = queue.shift(); row; row = queue.shift()) {
      const [text, code, wanted] = row;
      const args = text.split(" ").filter((arg) => arg !== "")
        .map((arg) => arg === "NEW" ? "new.safetensors" : arg);
      const ended = await run("import", [...args, "--quiet"], { cwd: home });
      const [line, ...rest] = ended.stderr.split("\n");
      assertEquals([ended.stdout, ...rest], ["", ""], text);
      assertMatch(line, /^error: [A-Z-]/);
      assertMatch(line, wanted);
      assert(!/\bat .*:\d+:\d+|\bError\b/.test(line), line);
      assertEquals(ended.code, code, line);
    }
  };
  await Promise.all([worker(), worker()]);
  assertEquals(await filesBelow(home), before);
  assert(!await exists(`${home}/new.safetensors`));
});
