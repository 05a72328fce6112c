/**
 * What goes wrong for users: each mistake gives one sentence that says what to
 * do, the right exit code, and leaves files as they were.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { decodeSafetensors, encodeSafetensors } from "../../models/mod.ts";
import { readCheckpoint } from "../../models/files.ts";
import {
  assertSentence,
  filesBelow,
  recordOf,
  run,
  SMALL,
  succeed,
  writeClasses,
  writePicture,
} from "./_script.ts";

const folder = await Deno.makeTempDir({ prefix: "robust-reps-errors-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

let files: Promise<void> | undefined;

/** Makes everything that the tables below name, once. */
function prepare(): Promise<void> {
  return files ??= (async () => {
    const quick = ["--epochs", "1", "--eval-images", "0"];
    const out = `${folder}/run`;
    await succeed("train", [...SMALL, ...quick, "--out", out]);
    const model = await Deno.readFile(`${out}/model.safetensors`);
    const state = await Deno.readFile(`${out}/training.safetensors`);
    const write = async (path: string, content: Uint8Array | string) => {
      const full = `${folder}/${path}`;
      const parent = full.slice(0, full.lastIndexOf("/"));
      await Deno.mkdir(parent, { recursive: true });
      typeof content === "string"
        ? await Deno.writeTextFile(full, content)
        : await Deno.writeFile(full, content);
    };
    const flipped = (bytes: Uint8Array) =>
      bytes.with(bytes.length - 100, bytes[bytes.length - 100] ^ 1);
    await write("cut.safetensors", model.subarray(0, 20_000));
    await write("cut header.safetensors", model.subarray(0, 500));
    await write("tiny.safetensors", model.subarray(0, 4));
    await write("empty.safetensors", "");
    await write("flipped.safetensors", flipped(model));
    await write("foreign.safetensors", encodeSafetensors({}, { a: "b" }));
    const changed = (from: RegExp, to: string) => withCard(model, from, to);
    await write("unknown arch.safetensors", changed(/resnet10/, "resnet11"));
    await write("other classes.safetensors", changed(/"classes":\[/, '$&"a",'));
    // Two folders, as rows run side by side.
    await write("state only/training.safetensors", state);
    await write("state kept/training.safetensors", state);
    await write("a file", "hello");
    await write("text.png", "hello");
    await write("half.png", (await pictureBytes()).subarray(0, 60));
    await write("archive/cifar-10-binary.tar.gz", "no archive");
    await write("short/test_batch.bin", new Uint8Array(100));
    await Deno.mkdir(`${folder}/empty`);
    for (const name of ["a", "b"]) {
      await Deno.mkdir(`${folder}/no images/test/${name}`, { recursive: true });
      await write(`only broken/test/${name}/1.png`, "no picture");
    }
    await writeClasses(`${folder}/six/test`, [..."abcdef"], 1);
    // Runs that --resume cannot go on with.
    const record = await Deno.readTextFile(`${out}/run.json`);
    const started = record.replace('"epoch": 1', '"epoch": 0');
    await write("damaged/run.json", started);
    await write("damaged/training.safetensors", flipped(state));
    await write("cut/run.json", started);
    await write("cut/training.safetensors", state.subarray(0, 20_000));
    await write("swapped/run.json", started);
    await write("swapped/training.safetensors", model);
    await write("stateless/run.json", started);
    await write("evaluation/run.json", record.replace('"train"', '"evaluate"'));
    await write("newer/run.json", record.replace(/"schemaVersion": 1/, "$&0"));
  })();
}

async function pictureBytes(): Promise<Uint8Array> {
  const size = { width: 32, height: 32 };
  return await Deno.readFile(await writePicture(`${folder}/whole.png`, size));
}

function withCard(model: Uint8Array, from: RegExp, to: string): Uint8Array {
  const { tensors, metadata } = decodeSafetensors(model, "model");
  const card = metadata.card.replace(from, to);
  return encodeSafetensors(tensors, { ...metadata, card });
}

/** Arguments, exit code, and what the sentence must say. */
type Row = readonly [args: string, code: 1 | 2, wanted: RegExp];

const EVALUATE: readonly Row[] = [
  ["", 2, /Missing flag --model, .*: pass --model/],
  ["--modle run", 2, /Unknown flag --modle: did you mean --model\?/],
  ["--model run extra", 2, /Unexpected argument "extra"/],
  ["--model nothing", 2, /Unknown model "nothing": pass the folder of a/],
  ["--model no/such/folder", 1, /"no\/such\/folder": no such file .*; pass/],
  ["--model a|file/x", 1, /"a file\/x": no such file or folder; pass/],
  ["--model empty", 1, /"empty": the folder holds no model.safetensors; pass/],
  ["--model state|only", 1, /the folder holds no model.safetensors; pass/],
  ["--model run/run.json", 1, /nor of safetensors; pass the folder of/],
  ["--model run/training.safetensors", 1, /the state that training resumes/],
  [
    "--model a|file",
    1,
    /neither a file of torch.save\(\) nor of safete.*; pass/,
  ],
  ["--model cut.safetensors", 1, /it is truncated or damaged; pass/],
  ["--model cut|header.safetensors", 1, /Cannot read checkpoint .*; pass/],
  ["--model tiny.safetensors", 1, /nor of safetensors; pass the folder of/],
  ["--model empty.safetensors", 1, /the file is empty; pass/],
  [
    "--model flipped.safetensors",
    1,
    /the file is damaged: the SHA-256.*; pass/,
  ],
  ["--model foreign.safetensors", 1, /robust-reps did not write it; pass/],
  ["--model unknown|arch.safetensors", 1, /"resnet11" is none of resnet10, /],
  [
    "--model other|classes.safetensors",
    1,
    /card and weights of "other classes.* do not belong together: pass another/,
  ],
  ["--model run --threads 9999", 2, /--threads must be <= 1024/],
  ["--model run --limit 0", 2, /--limit must be >= 1: current value is 0/],
  [
    "--model run --epsilon -1",
    2,
    /--epsilon must be >= 0: current value is -1/,
  ],
  ["--model run --epsilon nan", 2, /--epsilon must be a number/],
  ["--model run --attack-steps 0", 2, /--attack-steps must be >= 1/],
  ["--model run --step-size 0", 2, /--step-size must be > 0/],
  ["--model run --batch-size 0", 2, /--batch-size must be >= 1/],
  ["--model run --threads 0", 2, /--threads must be >= 1/],
  ["--model run --seed -1", 2, /--seed must be >= 0/],
  ["--model run --norm l1", 2, /--norm must be l2, linf, 2 or inf/],
  ["--model run --device gpu", 2, /--device must be auto, cpu, webgpu or cuda/],
  [
    "--model run --dataset cifar",
    2,
    /--dataset must be .*did you mean cifar10/,
  ],
  ["--model run --dataset cifar10", 2, /Missing flag --data, .* of cifar10/],
  [
    "--model run --dataset cifar10 --data nowhere",
    1,
    /Cannot find CIFAR-10 in "nowhere": .*; pass --data with the folder/,
  ],
  [
    "--model run --dataset cifar10 --data six",
    1,
    /Cannot find CIFAR-10 in "six": .*; pass --data/,
  ],
  [
    "--model run --dataset cifar10 --data archive",
    1,
    /compressed data are damaged or end too early; download it again/,
  ],
  [
    "--model run --dataset cifar10 --data short",
    1,
    /"test_batch.bin" in "short": it has 100 bytes.*; download it again/,
  ],
  [
    "--model run --dataset restricted_imagenet --data six",
    1,
    /Cannot tell the ImageNet classes in "six": .*; pass --data/,
  ],
  [
    "--model run --dataset image_folder --data no|images",
    1,
    /holds no class folders of PNG or JPEG files; pass --data/,
  ],
  [
    "--model run --dataset image_folder --data only|broken",
    1,
    /none of its 2 images, such as .*, can be decoded; check the files/,
  ],
  [
    "--model run --dataset image_folder --data six",
    1,
    /the model has 10 classes, the data set 6; pass another --dataset or --mod/,
  ],
  ["--model run --out run", 1, /already holds a run of "train".*another --out/],
  ["--model run --out a|file", 1, /it is a file; pass another --out/],
  ["--model run --json empty", 2, /"empty": it is a folder; name a file/],
];

const PICTURES: readonly Row[] = [
  [
    "invert --model run --dataset cifar10",
    2,
    /No picture is named: name one, or pass --data <path> for test images of/,
  ],
  [
    "invert --model run --ood a.png",
    2,
    /Cannot invert named pictures and --ood at once: leave one out/,
  ],
  ["invert --model run --target no.png", 1, /image "no.png": there is no such/],
  [
    "invert --model run text.png",
    1,
    /"text.png" as it is neither PNG nor JPEG/,
  ],
  ["invert --model run half.png", 1, /Cannot decode "half.png" as /],
  ["invert --model run empty", 1, /Cannot read "empty": .*directory/],
  [
    "invert --model run whole.png --from no.png",
    1,
    /image "no.png": there is no such file; check the path/,
  ],
  ["invert --model run whole.png --eps -1", 2, /--epsilon must be >= 0/],
  ["invert --model run whole.png --steps -1", 2, /--steps must be >= 0/],
  ["invert --model nothing whole.png", 2, /Unknown model "nothing"/],
  [
    "invert --model run whole.png --out run",
    1,
    /already holds a run of "train"/,
  ],
  [
    "interpolate --model run whole.png",
    2,
    /Need two pictures to interpolate between: 1 given/,
  ],
  [
    "interpolate --model run whole.png whole.png whole.png",
    2,
    /3 given, at most 2 <image> allowed/,
  ],
  [
    "interpolate --model run whole.png whole.png --frames 1",
    2,
    /--frames must be >= 2: current value is 1/,
  ],
  [
    "interpolate --model run --standard nothing whole.png whole.png",
    2,
    /Unknown model "nothing"/,
  ],
  ["interpolate --model run whole.png no.png", 1, /"no.png": there is no such/],
  ["match_representation --model run whole.png", 2, /x1 and x2: 1 given/],
  [
    "visualize_features --model run --regularized --epsilon 1",
    2,
    /Cannot use --epsilon with --regularized: .*; leave one out/,
  ],
  [
    "visualize_features --model run --regularized whole.png",
    2,
    /Cannot use pictures with --regularized/,
  ],
  ["constrained_inversion --model run whole.png", 2, /and target: 1 given/],
  ["headline --model run whole.png", 2, /at least two pictures: 1 given/],
  [
    "visualize_features --model run --coordinate 999 --images 0",
    2,
    /no coordinate 999: the representation has 16, 0 to 15/,
  ],
  [
    "maximizing_inputs --model run --dataset cifar10",
    2,
    /Missing flag --data, folder or archive of test images/,
  ],
  [
    "manipulate_features --model run whole.png --stop never",
    2,
    /--stop must be exceed or clamp/,
  ],
  [
    "constrained_inversion --model run --radius -1",
    2,
    /--radius must be > 0: current value is -1/,
  ],
  ["reproduce", 2, /Missing flag --data, folder of the data sets/],
  ["reproduce --data . --models six", 2, /Nothing to make: no networks are/],
  ["reproduce --data . --models six --only x", 2, /--only takes fig-1, fig-2/],
  ["demo --limit 5", 2, /--limit must be >= 10/],
  ["demo --out a|file", 1, /it is a file; pass another --out/],
  ["demo --out run", 1, /already holds a run of "train".*; pass another --out/],
  ["download", 2, /Missing argument <dataset>/],
  ["download cifar100", 2, /"cifar100": known are cifar10/],
  ["download cifar10 --out a|file", 1, /"a file": it is a file; pass another/],
];

const TRAIN: readonly Row[] = [
  ["", 2, /Missing flag --out, folder of the run: pass --out <path>/],
  ["--out a|file", 1, /it is a file; pass another --out/],
  ["--out run", 1, /already holds a run of "train".*pass --resume or another/],
  ["--out six", 1, /already holds a file, such as "test"; pass --resume or/],
  ["--out NEW --dataset mnist", 2, /--dataset must be shapes, cifar10, /],
  ["--out NEW --dataset cifar10", 2, /Missing flag --data, .* of cifar10/],
  ["--out NEW --arch resnet9", 2, /--arch must be resnet10.*did you mean/],
  ["--out NEW --device tpu", 2, /--device must be auto, cpu, webgpu or cuda/],
  ["--out NEW --eps -0.5", 2, /--epsilon must be >= 0: current value is -0.5/],
  ["--out NEW --epochs 0", 2, /--epochs must be >= 1/],
  ["--out NEW --limit 0", 2, /--limit must be >= 1/],
  ["--out NEW --momentum 1", 2, /--momentum must be < 1: current value/],
  ["--out NEW --size 17", 2, /size 17: give a multiple of 4 from 16 to 64/],
  ["--out NEW --limit 8", 1, /8 images in batches of 16: lower the batch size/],
  [
    "--out NEW --dataset image_folder --data six",
    1,
    /Cannot open the train split in "six": .*; pass --data/,
  ],
  [
    "--out NEW --guard-steps 3 --eval-images 0",
    2,
    /Cannot guard .* without test images: pass --eval-images above 0/,
  ],
  ["--out NEW --guard-steps 2", 2, /guardSteps must be more than the attack's/],
  [
    "--out NEW --guard-steps 2 --epsilon 0",
    2,
    /guardSteps must be more than the attack's steps: .* no steps/,
  ],
  ["--out NEW --resume --adv-train 2", 2, /--adv-train must be <= 1/],
];

const RESUME: readonly Row[] = [
  ["--out nowhere", 1, /"nowhere": it holds no run; pass the flags to train/],
  ["--out damaged", 1, /SHA-256 is not .*; the file is damaged; train into/],
  ["--out cut", 1, /it is truncated or damaged; train into another --out/],
  ["--out swapped", 1, /it is not a state of training .*; train into another/],
  ["--out stateless", 1, /its training.safetensors is missing; train into/],
  [
    "--out state|only",
    1,
    /it was trained on 64 images of shapes.*pass the same/,
  ],
  [
    "--out state|kept --limit 64",
    1,
    /made with other settings; pass the flags/,
  ],
  ["--out evaluation", 1, /it holds a run of "evaluate"; pass another --out/],
  ["--out newer", 1, /"newer\/run.json": .*version/],
  ["--out run --epochs 9", 2, /with --epochs 9: it was started with 1; leave/],
];

/** Folders for rows that need one of their own. */
let made = 0;

/** Arguments of a row: "|" stands for a space within one, NEW for a folder. */
function split(args: string): string[] {
  return args.split(" ").filter((arg) => arg !== "")
    .map((arg) => arg === "NEW" ? `new/${made++}` : arg.replaceAll("|", " "));
}

/** Runs the rows of a table, some at a time, from within the folder. */
async function assertRows(
  rows: readonly Row[],
  before: (args: readonly string[]) => readonly string[],
): Promise<void> {
  await prepare();
  const queue = [...rows];
  const worker = async () => {
    for (let row = queue.shift(); row; row = queue.shift()) {
      const [text, code, wanted] = row;
      const [script, ...args] = before(split(text));
      const ended = await run(script, [...args, "--quiet"], { cwd: folder });
      try {
        assertSentence(ended, code, wanted);
      } catch (error) {
        throw new Error(`Wrong answer to: ${script} ${text}`, { cause: error });
      }
    }
  };
  await Promise.all([worker(), worker()]);
}

Deno.test("evaluate answers each mistake with one sentence", async () => {
  await assertRows(EVALUATE, (args) => ["evaluate", "--device=cpu", ...args]);
});

Deno.test("other experiments answer each mistake with one sentence", async () => {
  await assertRows(PICTURES, (args) => args);
});

Deno.test("train answers each mistake with one sentence and leaves nothing", async () => {
  await assertRows(TRAIN, (args) => ["train", ...SMALL, ...args]);
  // The folder is made, but nothing keeps it from being used.
  assertEquals(await filesBelow(`${folder}/new`), []);
});

Deno.test("train --resume answers each mistake with one sentence", async () => {
  await prepare();
  const before = await contents();
  await assertRows(RESUME, (args) => ["train", "--resume", ...args]);
  assertEquals(await contents(), before);
});

/** Every file that mistakes could have spoiled, and its bytes. */
async function contents(): Promise<Map<string, Uint8Array>> {
  const found = new Map<string, Uint8Array>();
  for (const path of await filesBelow(folder)) {
    found.set(path, await Deno.readFile(`${folder}/${path}`));
  }
  return found;
}

Deno.test("evaluate names a device that is not there", async () => {
  await prepare();
  const args = ["--model", "run", "--device", "cuda", "--limit", "4"];
  const ended = await run("evaluate", [...args, "--quiet"], { cwd: folder });
  // Where there is one, nothing is wrong.
  if (ended.code === 0) return;
  assertSentence(ended, 1, /Cannot run on cuda: .*or pass --device cpu$/);
});

Deno.test("scripts print a stack with --debug only", async () => {
  await prepare();
  const { code, stderr } = await run("evaluate", [
    ...["--model", "cut.safetensors", "--debug", "--quiet"],
  ], { cwd: folder });
  assertEquals(code, 1);
  assertMatch(stderr, /at .*safetensors\.ts:\d+/);
});

Deno.test("download answers a server's refusal and a wrong file", async () => {
  await prepare();
  await using server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    ({ url }) =>
      url.endsWith("/wrong")
        ? new Response("something else")
        : new Response("", { status: 404 }),
  );
  const base = `http://127.0.0.1:${server.addr.port}`;
  const ask = (path: string) =>
    run("download", [
      ...["cifar10", "--quiet", "--out", "downloads"],
      ...["--url", `${base}/${path}`],
    ], { cwd: folder });
  assertSentence(await ask("none"), 1, /the server answered 404/);
  assertSentence(await ask("wrong"), 1, /Cannot keep the download .*md5 is/);
  assertEquals(await filesBelow(`${folder}/downloads`), []);
});

/** Mounts a disk of some bytes; false where that is not allowed. */
async function mount(disk: string, ...options: string[]): Promise<boolean> {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return false;
  const args = ["-t", "tmpfs", "-o", options.join(), "tmpfs", disk];
  try {
    return (await new Deno.Command("mount", { args, stderr: "null" }).output())
      .success;
  } catch {
    // There is no such program.
    return false;
  }
}

async function unmount(disk: string): Promise<void> {
  await new Deno.Command("umount", { args: [disk] }).output();
}

const probe = await Deno.makeTempDir({ dir: folder });
const canMount = await mount(probe, "size=4096");
if (canMount) await unmount(probe);

Deno.test({
  name: "train on a full disk keeps what it saved (needs root, to mount one)",
  ignore: !canMount,
  fn: async () => {
    await prepare();
    const training = [...SMALL, "--eval-images", "0", "--quiet"];
    const whole = `${folder}/whole run`;
    await succeed("train", [...training, "--out", whole]);
    const weights = async (out: string) =>
      (await readCheckpoint(`${out}/model.safetensors`)).card;
    const { size: model } = await Deno.stat(`${whole}/model.safetensors`);
    const { size: state } = await Deno.stat(`${whole}/training.safetensors`);
    const pages = (bytes: number) => Math.ceil(bytes / 4096) * 4096;
    const full =
      /no space left on (the )?device; free some space and run again$/;

    const disk = await Deno.makeTempDir({ dir: folder });
    const out = `${disk}/run`;
    const args = [...training, "--out", out];
    // No room for anything.
    await mount(disk, "size=4096");
    try {
      assertSentence(await run("train", args), 1, full);
    } finally {
      await unmount(disk);
    }
    // Room for the files of the first epoch, not for a second state beside.
    const room = pages(state) + pages(model) + 4 * 4096;
    await mount(disk, `size=${room}`);
    try {
      assertSentence(await run("train", args), 1, full);
      const names = ["model.safetensors", "run.json", "training.safetensors"];
      assertEquals(await filesBelow(out), names);
      assertEquals((await weights(out)).epoch, 1);
      assertEquals((await recordOf(out)).metrics.epoch, 1);
      await mount(disk, "remount", "size=4m");
      await succeed("train", ["--resume", "--quiet", "--out", out]);
      const { weightsSha256 } = await weights(whole);
      assertEquals((await weights(out)).weightsSha256, weightsSha256);
    } finally {
      await unmount(disk);
    }
  },
});
