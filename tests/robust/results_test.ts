import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { Random } from "../../core/mod.ts";
import {
  createRunFolder,
  currentCommit,
  listRuns,
  readRun,
  writeRun,
} from "../../robust/results.ts";
import {
  formatRun,
  parseRun,
  type Run,
  RUN_SCHEMA_VERSION,
} from "../../robust/run.ts";

const RUN: Run = {
  schemaVersion: RUN_SCHEMA_VERSION,
  id: "invert-1",
  command: "invert",
  argv: ["--steps", "10"],
  flags: { steps: 10, ood: false, images: [1, 2] },
  seed: 0,
  provider: "cpu",
  versions: { deno: "2.9.0" },
  commit: null,
  weights: [{ role: "robust", path: "a.safetensors", sha256: "0".repeat(64) }],
  metrics: { distance: { mean: 0.25 } },
  history: [{ step: 0, loss: 1 }],
  files: [
    {
      path: "tiles/0.png",
      kind: "tile",
      label: "target",
      tile: {
        row: "robust",
        column: "a.png",
        parameter: { name: "step", value: 10 },
      },
    },
    { path: "figure.png", kind: "figure", sha256: "f".repeat(64) },
  ],
  startedAt: "2026-01-02T03:04:05.000Z",
  seconds: 1.5,
};

/** Runs a test in a folder that is removed afterwards. */
async function inFolder(body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function namesIn(folder: string): Promise<string[]> {
  const names = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  return names.sort();
}

Deno.test("writeRun() and readRun() agree, by folder and by file", () =>
  inFolder(async (folder) => {
    const path = await writeRun(folder, RUN);
    assertEquals(path, `${folder}/run.json`);
    assertEquals(await readRun(folder), RUN);
    assertEquals(await readRun(path), RUN);
    assertEquals(await namesIn(folder), ["run.json"]);
  }));

Deno.test("formatRun() stores numbers JSON lacks as null", () => {
  const run = { ...RUN, metrics: { loss: NaN, distance: Infinity } };
  assertEquals(parseRun(formatRun(run), "a").metrics, {
    loss: null,
    distance: null,
  });
});

Deno.test("formatRun() refuses a malformed run", () => {
  assertThrows(
    () => formatRun({ ...RUN, seconds: NaN }),
    TypeError,
    "Cannot write run: the run's seconds must be a number >= 0 and is null",
  );
});

Deno.test("parseRun() says what is wrong in one sentence", () => {
  const [weights] = RUN.weights;
  const file = (path: unknown) => ({ ...RUN, files: [{ path, kind: "tile" }] });
  const cases: [unknown, string][] = [
    [[], "the run must be an object and is []"],
    [{}, "the run's schemaVersion is missing"],
    [{ ...RUN, schemaVersion: 2 }, "schema version 2 and this code reads up"],
    [{ ...RUN, id: 3 }, "the run's id must be text that is not empty and is 3"],
    [{ ...RUN, command: undefined }, "the run's command is missing"],
    [
      { ...RUN, argv: "a" },
      `the run's argv must be a list of texts and is "a"`,
    ],
    [{ ...RUN, flags: null }, "the run's flags must be an object and is null"],
    [{ ...RUN, seed: -1 }, "the run's seed must be an integer >= 0 and is -1"],
    [{ ...RUN, versions: { a: 1 } }, `versions["a"] must be text`],
    [{ ...RUN, commit: 1 }, "the run's commit must be text"],
    [
      { ...RUN, weights: [{ ...weights, sha256: "x" }] },
      `the run's weights[0]'s sha256 must be 64 hexadecimal digits and is "x"`,
    ],
    [{ ...RUN, history: [1] }, "the run's history[0] must be"],
    [
      { ...RUN, files: [{ path: "a", kind: "b" }] },
      `kind must be "figure", "t`,
    ],
    [file("../a"), `must be a path inside the run's folder, without ".."`],
    [file("a/../../b"), "must be a path inside the run's folder"],
    [file("/etc/passwd"), "must be a path inside the run's folder"],
    [file("c:/a"), "must be a path inside the run's folder"],
    [file("a\\b"), "must be a path inside the run's folder"],
    [file("."), "must be a path inside the run's folder"],
    [file(""), "must be a path inside the run's folder"],
    [{ ...RUN, startedAt: "now" }, "startedAt must be an ISO 8601 time"],
    [{ ...RUN, seconds: -1 }, "seconds must be a number >= 0 and is -1"],
  ];
  for (const [value, expected] of cases) {
    const error = assertThrows(
      () => parseRun(JSON.stringify(value), "a/run.json"),
      SyntaxError,
      expected,
    );
    assertMatch(error.message, /^Cannot read run "a\/run\.json": [^\n]+$/);
  }
  for (
    const [text, expected] of [["", "the file is empty"], ["{", "is not valid"]]
  ) {
    assertThrows(() => parseRun(text, "a"), SyntaxError, expected);
  }
});

Deno.test("parseRun() gives a clean error for random damage", () => {
  const bytes = new TextEncoder().encode(formatRun(RUN));
  const random = new Random(0, ["damage"]);
  for (let i = 0; i < 2000; i++) {
    const damaged = bytes.slice(
      0,
      random.integer(3) ? bytes.length : random.integer(bytes.length),
    );
    damaged[random.integer(bytes.length)] = 32 + random.integer(95);
    try {
      parseRun(new TextDecoder().decode(damaged), "a");
    } catch (error) {
      assertInstanceOf(error, SyntaxError);
      assertMatch(error.message, /^Cannot read run "a": /);
    }
  }
});

Deno.test("readRun() names the file it cannot open", () =>
  inFolder(async (folder) => {
    await assertRejects(
      () => readRun(folder),
      Error,
      `Cannot read run "${folder}/run.json": no such file or folder`,
    );
    await assertRejects(
      () => readRun(`${folder}/none`),
      Error,
      `Cannot read run "${folder}/none": no such file or folder`,
    );
  }));

Deno.test("createRunFolder() makes a folder and takes an empty one", () =>
  inFolder(async (folder) => {
    const out = `${folder}/a/b`;
    assertEquals(await createRunFolder(out, { command: "invert" }), null);
    assertEquals(await createRunFolder(out, { command: "invert" }), null);
    // What a killed writeRun() left behind is nothing to protect.
    await Deno.writeTextFile(`${out}/.run.json.0123456789abcdef.part`, "");
    assertEquals(await createRunFolder(out, { command: "invert" }), null);
  }));

Deno.test("createRunFolder() refuses a folder in use and says by what", () =>
  inFolder(async (folder) => {
    const refused = async (expected: string) => {
      const error = await assertRejects(
        () => createRunFolder(folder, { command: "invert" }),
        Error,
        expected,
      );
      assertStringIncludes(error.message, "pass --resume or another --out");
    };
    await Deno.writeTextFile(`${folder}/notes.txt`, "");
    await refused(
      `Cannot start "invert" in "${folder}": it already holds a file, such ` +
        `as "notes.txt"`,
    );
    await Deno.writeTextFile(`${folder}/run.json`, "");
    await refused("it already holds a run.json that cannot be read");
    await writeRun(folder, RUN);
    await refused(`a run of "invert" from 2026-01-02T03:04:05.000Z`);
    await assertRejects(
      () => createRunFolder(`${folder}/notes.txt`, { command: "invert" }),
      Error,
      `Cannot use "${folder}/notes.txt" as the folder of a run: it is a file`,
    );
  }));

Deno.test("createRunFolder() with resume returns the run so far", () =>
  inFolder(async (folder) => {
    const options = { command: "invert", resume: true };
    assertEquals(await createRunFolder(folder, options), null);
    await Deno.writeTextFile(`${folder}/last.safetensors`, "");
    assertEquals(await createRunFolder(folder, options), null);
    for (const text of ["", '{"schemaVer']) {
      await Deno.writeTextFile(`${folder}/run.json`, text);
      assertEquals(await createRunFolder(folder, options), null);
    }
    await writeRun(folder, RUN);
    assertEquals(await createRunFolder(folder, options), RUN);
    await assertRejects(
      () => createRunFolder(folder, { command: "train", resume: true }),
      Error,
      `with "train": it holds a run of "invert"; pass another --out`,
    );
    const newer = JSON.stringify({ ...RUN, schemaVersion: 9 });
    await Deno.writeTextFile(`${folder}/run.json`, newer);
    await assertRejects(
      () => createRunFolder(folder, options),
      SyntaxError,
      "the run has schema version 9",
    );
  }));

Deno.test("createRunFolder() with overwrite removes what the run wrote", () =>
  inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/tiles`);
    for (const name of ["tiles/0.png", "figure.png", "notes.txt"]) {
      await Deno.writeTextFile(`${folder}/${name}`, "");
    }
    await writeRun(folder, RUN);
    const options = { command: "invert", overwrite: true };
    assertEquals(await createRunFolder(folder, options), null);
    assertEquals(await namesIn(folder), ["notes.txt", "tiles"]);
    assertEquals(await namesIn(`${folder}/tiles`), []);
  }));

Deno.test("listRuns() lists newest first and reports broken ones", () =>
  inFolder(async (root) => {
    const put = async (path: string, startedAt: string) => {
      await Deno.mkdir(`${root}/${path}`, { recursive: true });
      await writeRun(`${root}/${path}`, { ...RUN, id: path, startedAt });
    };
    await put("old", "2026-01-01T00:00:00Z");
    await put("a/b/c/d", "2026-01-03T00:00:00Z");
    await put("a/b/c/d/too-deep", "2026-01-05T00:00:00Z");
    await put(".hidden", "2026-01-05T00:00:00Z");
    await put("a", "2026-01-02T00:00:00Z");
    for (const [name, text] of [["empty", ""], ["cut", '{"id'], ["odd", "3"]]) {
      await Deno.mkdir(`${root}/${name}`);
      await Deno.writeTextFile(`${root}/${name}/run.json`, text);
    }
    await Deno.mkdir(`${root}/folder/run.json`, { recursive: true });
    const listed = await listRuns(root);
    assertEquals(
      listed.map(({ path, run }) => run ? run.id : path.slice(root.length + 1)),
      [
        "a/b/c/d",
        "a",
        "old",
        "cut/run.json",
        "empty/run.json",
        "folder/run.json",
        "odd/run.json",
      ],
    );
    for (const { error } of listed.slice(3)) {
      assertMatch(error ?? "", /^Cannot read run ".*": .+$/);
    }
    assertEquals(await listRuns(`${root}/none`), []);
  }));

Deno.test("currentCommit() reads loose, packed and detached heads", () =>
  inFolder(async (root) => {
    const git = `${root}/.git`;
    const [loose, packed, detached] = ["a", "b", "c"].map((c) => c.repeat(40));
    assertEquals(await currentCommit(root), null);
    await Deno.mkdir(`${git}/refs/heads`, { recursive: true });
    assertEquals(await currentCommit(root), null);
    await Deno.writeTextFile(`${git}/HEAD`, "ref: refs/heads/main\n");
    assertEquals(await currentCommit(root), null); // no commit yet
    await Deno.writeTextFile(
      `${git}/packed-refs`,
      `# pack-refs with: peeled fully-peeled sorted\n` +
        `${detached} refs/heads/main2\n${packed} refs/heads/main\n` +
        `${detached} refs/tags/v1\n^${loose}\n`,
    );
    assertEquals(await currentCommit(root), packed);
    await Deno.writeTextFile(`${git}/refs/heads/main`, `${loose}\n`);
    assertEquals(await currentCommit(root), loose);
    await Deno.writeTextFile(`${git}/HEAD`, `${detached}\n`);
    assertEquals(await currentCommit(root), detached);
    for (const head of ["ref: refs/../config", "", "ref: refs/heads/none"]) {
      await Deno.writeTextFile(`${git}/HEAD`, head);
      assertEquals(await currentCommit(root), null);
    }
  }));

Deno.test({
  name: "currentCommit() is null without permission to read",
  permissions: { read: false },
  fn: async () => assert(await currentCommit(".") === null),
});
