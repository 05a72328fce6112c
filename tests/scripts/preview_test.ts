/**
 * The picture of work in progress.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  decodeImage,
  encodePng,
  full,
  montage,
  readImage,
  type Tensor,
} from "../../mod.ts";
import type { Progress } from "../../scripts/_cli.ts";
import {
  Preview,
  PREVIEW_FILE,
  removePreview,
} from "../../scripts/_preview.ts";
import {
  command,
  exists,
  filesBelow,
  recordOf,
  SMALL,
  succeed,
  writePicture,
} from "./_script.ts";

const folder = await Deno.makeTempDir({ prefix: "robust reps é-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

/** Remembers what was reported, each as a text. */
function recorder(): { progress: Progress; seen: string[] } {
  const seen: string[] = [];
  return {
    seen,
    progress: {
      start: (label, total) => ({
        update: (done) => void seen.push(`${label} ${done}/${total}`),
        done: () => void seen.push(`${label} done`),
      }),
    },
  };
}

/** Four images of 8 x 8 pixels, each of one grey. */
function greys(...values: number[]): Tensor {
  const { data } = full([values.length, 3, 8, 8], 0);
  data.forEach((_, i) => data[i] = values[Math.floor(i / (3 * 8 * 8))]);
  return { dtype: "float32", shape: [values.length, 3, 8, 8], data };
}

/** Waits for a condition; fails after a minute. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 60_000; !await holds();) {
    assert(Date.now() < end, "It did not happen within a minute");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const TITLE = "Greys";
const COLUMNS = ["a", "b", "c", "d"];

/** What a preview of two rows shows. */
async function picture(target: Tensor, row: Tensor): Promise<Tensor> {
  const rows = [
    { label: "target", images: target },
    { label: "robust", images: row },
  ];
  const figure = await montage({ title: TITLE, columns: COLUMNS, rows });
  return await decodeImage(await encodePng(figure));
}

Deno.test("Preview shows batches not yet begun as their start", async () => {
  const out = await Deno.makeTempDir({ dir: folder });
  const notes: string[] = [];
  const { progress, seen } = recorder();
  const target = greys(0.1, 0.2, 0.3, 0.4), start = greys(1, 1, 1, 1);
  const preview = await Preview.open(out, {
    title: TITLE,
    columns: COLUMNS,
    rows: [
      { label: "target", images: target },
      { label: "robust", images: start },
    ],
    previewEvery: 1e-9,
    note: (text) => notes.push(text),
  });
  const path = `${out}/${PREVIEW_FILE}`;
  assertEquals(notes, [`Work in progress: ${path}`]);
  assertEquals(await readImage(path), await picture(target, start));

  const { onStep, done } = preview.follow("robust", progress, {
    task: "invert",
    steps: 5,
    batchSize: 3,
  });
  assertEquals(seen, []);
  const losses = full([3], 0);
  const images = greys(0, 0.5, 0);
  const wanted = await picture(target, greys(0, 0.5, 0, 1));
  const shows = async (wanted: Tensor) => {
    const { data } = await readImage(path);
    return data.every((value, i) => value === wanted.data[i]);
  };
  await until(() => {
    onStep({ step: 2, restart: 0, start: 0, images, losses });
    return shows(wanted);
  });
  assertEquals(seen.at(-1), "invert (robust) 2/10");
  onStep({ step: 1, restart: 0, start: 3, images: greys(0.2), losses });
  assertEquals(seen.at(-1), "invert (robust) 6/10");
  done(start);
  assertEquals(seen.at(-1), "invert (robust) done");
  // The rows given are the caller's own.
  assertEquals(start, greys(1, 1, 1, 1));
  await preview.close();
  assertEquals(await filesBelow(out), []);
});

Deno.test("Preview goes on without a picture where none can be written", async () => {
  const out = await Deno.makeTempDir({ dir: folder });
  await Deno.mkdir(`${out}/${PREVIEW_FILE}/full`, { recursive: true });
  const notes: string[] = [];
  const { progress, seen } = recorder();
  const preview = await Preview.open(out, {
    title: TITLE,
    columns: COLUMNS,
    rows: [{ label: "robust", images: greys(1, 1, 1, 1) }],
    previewEvery: 1e-9,
    note: (text) => notes.push(text),
  });
  assertEquals(notes.length, 1);
  assertMatch(notes[0], /^No more preview\.png, as it cannot be written: /);
  const { onStep } = preview.follow("robust", progress, {
    task: "invert",
    steps: 1,
    batchSize: 4,
  });
  const images = greys(0, 0, 0, 0), losses = full([4], 0);
  onStep({ step: 1, restart: 0, start: 0, images, losses });
  assertEquals(seen, ["invert (robust) 1/1"]);
  await preview.close();
  assertEquals(notes.length, 1);
});

Deno.test("removePreview() leaves folders alone that hold more", async () => {
  const out = await Deno.makeTempDir({ dir: folder });
  await Deno.writeTextFile(`${out}/${PREVIEW_FILE}`, "");
  await Deno.writeTextFile(`${out}/notes.txt`, "");
  await removePreview(out);
  assertEquals(await filesBelow(out), ["notes.txt", PREVIEW_FILE]);
  await Deno.remove(`${out}/notes.txt`);
  await removePreview(out);
  assertEquals(await filesBelow(out), []);
  await removePreview(`${out}/missing`);
});

interface Setting {
  readonly model: string;
  readonly pictures: readonly string[];
}

let setting: Promise<Setting> | undefined;

function prepared(): Promise<Setting> {
  return setting ??= (async () => {
    const model = `${folder}/network`;
    const once = ["--epochs", "1", "--eval-images", "0", "--limit", "16"];
    await succeed("train", [...SMALL, ...once, "--out", model]);
    const pictures = [];
    for (const hue of [0, 200]) {
      const size = { width: 32, height: 32 };
      pictures.push(
        await writePicture(`${folder}/${hue}.png`, { ...size, hue }),
      );
    }
    return { model, pictures };
  })();
}

for (const script of ["invert", "interpolate"] as const) {
  Deno.test({
    name: `${script} shows work in progress and keeps it when interrupted`,
    // Needs SIGINT.
    ignore: Deno.build.os === "windows",
    fn: async () => {
      const { model, pictures } = await prepared();
      const out = `${folder}/${script}`;
      const preview = `${out}/${PREVIEW_FILE}`;
      const args = [
        ...["--model", model, "--device", "cpu", "--threads", "1"],
        ...["--out", out, "--preview-every", "0.05", ...pictures],
      ];
      const child = command(script, [...args, "--steps", "1000000"]).spawn();
      const read = async () => {
        const { data } = await readImage(preview);
        return data;
      };
      await until(() => exists(preview));
      const first = await read();
      // No moment at which it is not a whole picture.
      await until(async () => (await read()).some((x, i) => x !== first[i]));
      child.kill("SIGINT");
      const { code, stderr } = await child.output();
      const text = new TextDecoder().decode(stderr);
      assertEquals(code, 130, text);
      assertEquals(text.split(`Work in progress: ${preview}\n`).length, 2);
      assertEquals(await filesBelow(out), [PREVIEW_FILE]);

      const { shape } = await readImage(preview);
      await succeed(script, [...args, "--steps", "2"]);
      const files = await filesBelow(out);
      assert(!files.includes(PREVIEW_FILE), files.join());
      const figure = await readImage(`${out}/figure.png`);
      assertEquals(figure.shape, shape);
      assertEquals((await recordOf(out)).flags.previewEvery, 0.05);
    },
  });
}

Deno.test("invert --preview-every 0 writes no picture of work in progress", async () => {
  const { model, pictures } = await prepared();
  const out = `${folder}/without`;
  const child = command("invert", [
    ...["--model", model, "--device", "cpu", "--threads", "1", ...pictures],
    ...["--out", out, "--preview-every", "0", "--steps", "1"],
  ]);
  const { code, stderr } = await child.output();
  const text = new TextDecoder().decode(stderr);
  assertEquals(code, 0, text);
  assert(!text.includes(PREVIEW_FILE), text);
});
