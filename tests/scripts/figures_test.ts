/**
 * Each figure of the paper end to end on the smallest networks: what is made,
 * what is on record, and laws that hold whatever the weights are.
 */
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertMatch,
} from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import type { Tensor } from "../../core/mod.ts";
import { CIFAR10_CLASSES, readImage } from "../../datasets/mod.ts";
import type { Run } from "../../robust/run.ts";
import { parseResultsIndex } from "../../robust/results_index.ts";
import { pairNames } from "../../scripts/_experiment.ts";
import { LAUNCHERS, onLauncher } from "../_mpi.ts";
import {
  commandLine,
  exists,
  filesBelow,
  recordOf,
  run,
  SMALL,
  succeed,
  writePicture,
} from "./_script.ts";

const folder = await Deno.makeTempDir({ prefix: "robust reps figures " });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

interface Claim {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
  readonly n: number;
}

let networks: Promise<string> | undefined;

/** Folder of networks under the names that reproduce looks for. */
function prepared(): Promise<string> {
  return networks ??= (async () => {
    const models = `${folder}/models`;
    const once = ["--epochs", "1", "--eval-images", "0"];
    const names = ["cifar10-l2", "cifar10-standard", "cifar10-judge"];
    for (const [seed, name] of names.entries()) {
      const epsilon = seed === 0 ? "0.5" : "0";
      await succeed("train", [
        ...[...SMALL, ...once, "--seed", `${seed}`, "--epsilon", epsilon],
        ...["--out", `${models}/${name}`],
      ]);
    }
    return models;
  })();
}

/** Runs an experiment on test images of the embedded data set. */
async function made(script: string, ...args: string[]): Promise<[string, Run]> {
  const models = await prepared();
  const out = await Deno.makeTempDir({ dir: folder, prefix: script });
  const stdout = await succeed(script, [
    ...["--model", `${models}/cifar10-l2`],
    ...["--standard", `${models}/cifar10-standard`, "--untrained"],
    ...["--judge", `${models}/cifar10-judge`, "--gallery", "20"],
    ...["--device", "cpu", "--threads", "1", "--out", out, ...args],
  ]);
  assertMatch(stdout, /figure\.png\n$/);
  const record = await recordOf(out);
  assertEquals(record.command, script);
  const roles = record.weights.map(({ role }) => role);
  assertEquals(roles, ["standard", "robust", "judge"]);
  // Every file is on record, and every picture whole.
  const files = (await filesBelow(out)).filter((path) => path !== "run.json");
  assertEquals(record.files.map(({ path }) => path).toSorted(), files);
  for (const { path, kind } of record.files) {
    if (!path.endsWith(".png")) continue;
    const { shape } = await readImage(`${out}/${path}`);
    if (kind === "tile") assertEquals(shape, [3, 32, 32], path);
  }
  return [out, record];
}

const ROLES = ["untrained", "standard", "robust"];

function claimOf({ metrics }: Run, role: string, name: string): Claim {
  const { claims } = metrics[role] as unknown as {
    claims: Record<string, Claim>;
  };
  const claim = claims[name];
  assert(claim, `${role} has no ${name}: ${Object.keys(claims)}`);
  assert(claim.low <= claim.mean && claim.mean <= claim.high);
  return claim;
}

Deno.test("invert --ood inverts patterns, judged by what the judge sees in them", async () => {
  const [, record] = await made("invert", "--ood", "--images=3", "--steps=3");
  for (const role of ROLES) {
    assertEquals(claimOf(record, role, "judge").n, 3);
    assertEquals(claimOf(record, role, "ssim").n, 3);
  }
});

Deno.test("invert --ood takes half of its targets from --ood-data", async () => {
  const pictures = `${folder}/unknown/class`;
  await Deno.mkdir(pictures, { recursive: true });
  await writePicture(`${pictures}/a.png`, { width: 40, height: 30 });
  const [, record] = await made(
    "invert",
    ...["--ood", "--ood-data", `${folder}/unknown`, "--images=2", "--steps=1"],
  );
  const columns = record.files.flatMap(({ tile }) =>
    tile?.row === "target" ? [tile.column] : []
  );
  assertEquals(columns, ["pattern 1", "class"]);
});

Deno.test("invert starts from test images of other classes and keeps its way", async () => {
  const [, record] = await made(
    "invert",
    ...["--from=images", "--images=4", "--columns=2", "--steps=8"],
    "--trajectory=2",
  );
  const rowOf = (row: string) =>
    record.files.flatMap(({ tile }) =>
      tile?.row === row && !tile.parameter ? [tile.column] : []
    );
  assertEquals(rowOf("target").length, 2);
  const steps = record.files.flatMap(({ tile }) =>
    tile?.row === "robust" && tile.parameter ? [tile.parameter.value] : []
  );
  assertEquals(steps.toSorted((a, b) => a - b), [0, 0, 2, 2, 8, 8]);
  const { rank } = (record.metrics.robust as unknown as {
    values: Record<string, number[]>;
  }).values;
  assertEquals(rank.length, 4);
  assert(rank.every((r) => Number.isInteger(r) && r >= 1 && r <= 20));
});

Deno.test("within no radius nothing moves, and a picture matched to itself stays", async () => {
  const models = await prepared();
  const out = `${folder}/self`;
  await succeed("constrained_inversion", [
    ...["--model", `${models}/cifar10-l2`, "--out", out, "--device=cpu"],
    ...["--judge", `${models}/cifar10-judge`, "--gallery=20", "--threads=1"],
    ...["--images=2", "--steps=2", "--radius=0.000001"],
  ]);
  const record = await recordOf(out);
  // Within no radius nothing moves: all of the distance is left.
  const moved = claimOf(record, "robust", "distance");
  assert(moved.mean > 0.01);
  const match = `${folder}/matched`;
  const png = await writePicture(`${folder}/same.png`, {
    width: 32,
    height: 32,
  });
  await succeed("match_representation", [
    ...["--model", `${models}/cifar10-l2`, "--out", match, "--steps=3"],
    ...["--judge", `${models}/cifar10-judge`, "--device=cpu", png, png],
  ]);
  const same = await recordOf(match);
  assertAlmostEquals(claimOf(same, "robust", "pixelDistance").mean, 0, 1e-6);
  assertAlmostEquals(claimOf(same, "robust", "distance").mean, 0, 1e-6);
  assertEquals(claimOf(same, "robust", "judge").mean, 1);
});

function distance({ data: a }: Tensor, { data: b }: Tensor): number {
  return Math.hypot(...a.map((x, i) => x - b[i]));
}

Deno.test("constrained_inversion gets no farther as the ball grows", async () => {
  const [out, record] = await made(
    "constrained_inversion",
    ...["--images=3", "--steps=6", "--columns=1"],
    ...["--radius=2", "--radius=0.25", "--radius=8"],
  );
  const curve = record.metrics.curve as unknown as {
    radius: number[];
    epsilon: number;
    roles: Record<string, Claim[]>;
  };
  assertEquals(curve.radius, [0.25, 2, 8]);
  assertEquals(curve.epsilon, 0.5);
  assertEquals(Object.keys(curve.roles), ROLES);
  for (const points of Object.values(curve.roles)) {
    const means = points.map(({ mean }) => mean);
    assertEquals(means, means.toSorted((a, b) => b - a));
  }
  const svg = record.files.find(({ path }) => path === "curve.svg");
  assertEquals(svg?.kind, "figure");
  const radii = record.files.flatMap(({ tile }) =>
    tile?.row.startsWith("robust") ? [tile.parameter?.value] : []
  );
  assertEquals(radii, [0.25, 2, 8]);
  const given = record.files.filter(({ tile }) => tile && !tile.parameter);
  assertEquals(given.map(({ tile }) => tile?.row), ["source", "target"]);
  // Within the smallest ball pictures are still near the source.
  const near = record.files.find(({ tile }) => tile?.row.startsWith("robust"));
  const [start, end, picture] = await Promise.all(
    [...given, near!].map(({ path }) => readImage(`${out}/${path}`)),
  );
  assert(distance(picture, start) < distance(picture, end) / 4);
});

Deno.test("constrained_inversion takes the paper's radii, scaled to the image", async () => {
  const [, record] = await made(
    "constrained_inversion",
    ...["--images=1", "--steps=1"],
  );
  const { radius, roles } = record.metrics.curve as unknown as {
    readonly radius: number[];
    readonly roles: { readonly robust: { readonly mean: number }[] };
  };
  // And twice the radius that the network was trained against.
  assertEquals(radius.length, 10);
  assertAlmostEquals(radius[0], 2 * 32 / 224);
  assertAlmostEquals(radius[9], 512 * 32 / 224);
  const { mean } = claimOf(record, "robust", "atTwiceEpsilon");
  assertEquals(mean, roles.robust[radius.indexOf(1)].mean);
});

Deno.test("interpolate judges several pairs, pixel mixes too", async () => {
  const [, record] = await made(
    "interpolate",
    ...["--images=3", "--columns=2", "--frames=3", "--steps=2"],
  );
  for (const role of ["pixels", ...ROLES]) {
    const { mean } = claimOf(record, role, "monotonicity");
    assert(mean >= -1 && mean <= 1);
    assertEquals(claimOf(record, role, "confidence").n, 3);
  }
  const lambdas = record.files.flatMap(({ tile }) =>
    tile?.row.startsWith("pixels") ? [tile.parameter?.value] : []
  );
  assertEquals(lambdas, [0, 0.5, 1, 0, 0.5, 1]);
});

Deno.test("visualize_features raises each coordinate from each start", async () => {
  const [, before] = await made(
    "visualize_features",
    ...["--coordinate=3", "--coordinate=5", "--images=1", "--steps=0"],
  );
  const [, after] = await made(
    "visualize_features",
    ...["--coordinate=3", "--coordinate=5", "--images=1", "--steps=20"],
  );
  const values = ({ metrics }: Run) =>
    (metrics.robust as { activations: number[] }).activations;
  // Noise, grey and one test image; two coordinates.
  assertEquals(values(after).length, 6);
  values(after).forEach((value, i) => assert(value > values(before)[i]));
  const { mean } = claimOf(after, "robust", "agreement");
  assert(mean <= 1 + 1e-9);
});

Deno.test("visualize_features --regularized makes pictures of frequencies", async () => {
  const [, record] = await made(
    "visualize_features",
    ...["--regularized", "--features=2", "--steps=3"],
  );
  const rows = new Set(record.files.map(({ tile }) => tile?.row));
  assert(rows.has("robust, start 1") && rows.has("standard, start 2"));
});

Deno.test("maximizing_inputs shows the test images in order of activation", async () => {
  const [out, record] = await made(
    "maximizing_inputs",
    ...["--coordinate=2", "--steps=3", "--top=2"],
  );
  const columns = record.files.flatMap(({ tile }) =>
    tile?.row === "robust, feature 2" ? [tile.column] : []
  );
  assertEquals(columns, [
    "maximising",
    "most 1",
    "most 2",
    "least 1",
    "least 2",
  ]);
  // As represent says, without this script.
  const tiles = ["most 1", "most 2", "least 2", "least 1"].map((column) =>
    record.files.find(({ tile }) =>
      tile?.row === "robust, feature 2" && tile.column === column
    )!.path
  );
  const npy = `${folder}/order.npy`;
  await succeed("represent", [
    ...["--model", `${await prepared()}/cifar10-l2`, "--device=cpu"],
    ...["--what=representation", "--out", npy],
    ...tiles.map((path) => `${out}/${path}`),
  ]);
  const bytes = await Deno.readFile(npy);
  const header = 10 + new DataView(bytes.buffer).getUint16(8, true);
  const data = new Float32Array(bytes.buffer.slice(header));
  const values = [0, 1, 2, 3].map((i) => data[16 * i + 2]);
  assertEquals(values, values.toSorted((a, b) => b - a));
});

Deno.test("manipulate_features says who arrived, by either rule", async () => {
  for (const stop of ["exceed", "clamp"]) {
    const [, record] = await made(
      "manipulate_features",
      ...["--features=2", "--images=2", "--steps=3", "--stop", stop],
    );
    for (const role of ROLES) {
      assertEquals(claimOf(record, role, "arrived").n, 4);
      assert(claimOf(record, role, "change").mean < 3 * 0.1 + 1e-4);
    }
  }
});

Deno.test("--robust-judge says under its own name what it sees", async () => {
  const models = await prepared();
  const out = `${folder}/two judges`;
  await succeed("invert", [
    ...["--model", `${models}/cifar10-l2`, "--out", out, "--device=cpu"],
    ...["--judge", `${models}/cifar10-judge`, "--threads=1", "--gallery=20"],
    ...["--robust-judge", `${models}/cifar10-judge`],
    ...["--images=3", "--steps=3"],
  ]);
  const record = await recordOf(out);
  const roles = record.weights.map(({ role }) => role);
  assertEquals(roles, ["robust", "judge", "robustJudge"]);
  // One network in both parts sees the same.
  for (
    const [name, own] of [["judge", "robustJudge"], ["rank", "robustRank"]]
  ) {
    const claim = claimOf(record, "robust", name);
    assertEquals(claimOf(record, "robust", own), claim);
  }
});

Deno.test("headline has a row for each property and network", async () => {
  const [, record] = await made("headline", "--images=3", "--steps=2");
  const { rows } = record.metrics as { rows: string[] };
  assertEquals(rows.length, 1 + 4 * 3);
});

Deno.test("--preset code and paper set what differs, and flags win", async () => {
  const small = ["--images=1", "--features=1"];
  const flagsOf = async (...args: string[]) => {
    const [, { flags }] = await made("manipulate_features", ...small, ...args);
    return [flags.stop, flags.steps, flags.fakeRelu, flags.keep];
  };
  assertEquals(
    await flagsOf("--preset=code", "--steps=2"),
    ["clamp", 2, true, "best"],
  );
  const [, { flags }] = await made(
    "manipulate_features",
    ...[...small, "--preset=code", "--steps=2"],
  );
  assertEquals(flags.stepSize, 0.1);
  assertEquals(
    await flagsOf("--preset=paper", "--steps=2", "--fake-relu"),
    ["exceed", 2, true, "last"],
  );
});

/** A folder of the classes of CIFAR-10, two test images each. */
async function cifar(): Promise<string> {
  const data = `${folder}/data`;
  for (const [label, name] of CIFAR10_CLASSES.entries()) {
    const images = `${data}/cifar10/test/${name}`;
    await Deno.mkdir(images, { recursive: true });
    for (const i of [0, 1]) {
      const hue = 25 * label + i;
      await writePicture(`${images}/${i}.png`, { width: 32, height: 32, hue });
    }
  }
  return data;
}

async function reproduce(out: string, data: string, ...args: string[]) {
  return await run("reproduce", [
    ...["--data", data, "--models", await prepared(), "--quick"],
    ...["--out", out, "--device=cpu", "--threads=1", ...args],
  ]);
}

Deno.test("reproduce makes figures and an index, and goes on where it was", async () => {
  const data = await cifar();
  const out = `${folder}/reproduction`;
  const only = ["--only=table-4-robust", "--only=fig-2-cifar10"];
  const { code, stdout, stderr } = await reproduce(out, data, only[0]);
  assertEquals(code, 0, stderr);
  assertMatch(stdout, /table-4-robust-cifar10 .*\n.*index\.json\n$/);
  const indexOf = async () =>
    parseResultsIndex(await Deno.readTextFile(`${out}/index.json`), out);
  const [entry] = (await indexOf()).entries;
  const table = await recordOf(`${out}/${entry.run}`);
  const [clean] = entry.numbers;
  assertMatch(clean.label, /^clean accuracy .*reference library's ResNet-50/);
  assertEquals(clean.ours?.mean, table.metrics.clean);
  assertEquals(clean.paper, 0.9083);
  assertEquals(clean.ours?.n, 20);

  // Interrupted in the second figure: what it left is made anew.
  await Deno.mkdir(`${out}/fig-2-cifar10/tiles`, { recursive: true });
  await Deno.writeTextFile(`${out}/fig-2-cifar10/tiles/half.png`, "half");
  const second = await reproduce(out, data, ...only);
  assertEquals(second.code, 0, second.stderr);
  assertMatch(second.stderr, /Made before: .*table-4-robust-cifar10/);
  assertMatch(second.stderr, /Made anew: .*fig-2-cifar10/);
  const ids = (await indexOf()).entries.map(({ id }) => id);
  assertEquals(ids, ["fig-2-cifar10", "table-4-robust-cifar10"]);
  const { startedAt } = await recordOf(`${out}/${entry.run}`);
  assertEquals(startedAt, table.startedAt);
  const files = await filesBelow(`${out}/fig-2-cifar10`);
  assert(!files.includes("tiles/half.png"));

  // Nothing of a quick run stays in the index of a full one.
  const full = `${folder}/full`;
  await Deno.mkdir(full);
  await Deno.copyFile(`${out}/index.json`, `${full}/index.json`);
  await succeed("reproduce", [
    ...["--data", data, "--models", await prepared(), "--out", full],
    ...["--device=cpu", "--threads=1", "--only=table-4-standard-cifar10"],
  ]);
  const index = parseResultsIndex(
    await Deno.readTextFile(`${full}/index.json`),
    full,
  );
  assertEquals(index.quick, false);
  assertEquals(index.entries.map(({ id }) => id), [
    "table-4-standard-cifar10",
  ]);

  // The command of the index, as typed, makes the same numbers.
  const [fig] = (await indexOf()).entries;
  const words = fig.command.match(/'[^']*'|\S+/g)!.slice(3)
    .map((word) => word.replaceAll("'", ""));
  const again = `${folder}/again`;
  await succeed("match_representation", [
    ...[...words, "--out", again, "--threads=1"],
  ]);
  const metricsOf = async (path: string) => (await recordOf(path)).metrics;
  assertEquals(await metricsOf(again), await metricsOf(`${out}/${fig.run}`));
});

Deno.test({
  name: "reproduce on 2 ranks makes the index of one (needs mpich)",
  ignore: LAUNCHERS.length === 0,
  fn: async () => {
    const data = await cifar();
    const only = ["--only=table-4-robust", "--only=table-4-standard"];
    const indexOf = async (out: string) => {
      const path = `${out}/index.json`;
      const { entries } = parseResultsIndex(
        await Deno.readTextFile(path),
        path,
      );
      return entries;
    };
    const one = `${folder}/one rank`;
    const { code, stderr } = await reproduce(one, data, ...only);
    assertEquals(code, 0, stderr);
    const two = `${folder}/two ranks`;
    const line = commandLine("reproduce", [
      ...["--data", data, "--models", await prepared(), "--quick", ...only],
      ...["--out", two, "--device=cpu", "--threads=1", "--distributed=mpi"],
    ]);
    const ended = await onLauncher(LAUNCHERS[0], 2, line).output();
    assertEquals(ended.code, 0, new TextDecoder().decode(ended.stderr));
    assertEquals(await indexOf(two), await indexOf(one));
    assertEquals((await indexOf(two)).length, 2);
  },
});

Deno.test("reproduce without its data says so and leaves no record", async () => {
  const out = `${folder}/no data`;
  const { code, stderr } = await reproduce(out, folder, "--only=fig-2");
  assertEquals(code, 1);
  assertMatch(stderr, /error: .*cifar10.*\n$/);
  assert(!await exists(`${out}/index.json`));
});

for (
  const script of [
    ...["match_representation", "constrained_inversion", "visualize_features"],
    ...["maximizing_inputs", "manipulate_features", "headline", "reproduce"],
  ]
) {
  Deno.test(`${script} has a task and prints --help`, async () => {
    const tasks = config.tasks as Record<string, { command: string }>;
    const { command } = tasks[script.replaceAll("_", "-")];
    assertEquals(command, `deno run -P scripts/${script}.ts`);
    const help = await succeed(script, ["--help"]);
    for (const flag of ["--seed", "--json", "--device", "--threads", "--out"]) {
      assert(help.includes(flag), `${flag} in:\n${help}`);
    }
  });
}

Deno.test("parseResultsIndex() says what is wrong in one sentence", () => {
  const index = {
    schemaVersion: 1,
    created: "2026-01-01T00:00:00Z",
    quick: true,
    seconds: 1,
    entries: [],
  };
  const text = (change: object) => JSON.stringify({ ...index, ...change });
  assertEquals(parseResultsIndex(text({}), "a").entries, []);
  const rows: [string, RegExp][] = [
    ["{", /Cannot read results "a": it is not valid JSON/],
    [
      text({ schemaVersion: 2 }),
      /schema version 2 and this code reads up to 1/,
    ],
    [text({ entries: 3 }), /entries must be a list and is 3/],
    [
      text({ entries: [{ id: "../x" }] }),
      /id must be up to 64 small letters, digits and dashes and is "..\/x"/,
    ],
  ];
  for (const [json, wanted] of rows) {
    try {
      parseResultsIndex(json, "a");
    } catch (error) {
      assert(error instanceof SyntaxError);
      assertMatch(error.message, wanted);
      continue;
    }
    throw new Error(`Not refused: ${json}`);
  }
});

Deno.test("pairNames() tells equal pairs apart", () => {
  assertEquals(
    pairNames(["dog", "cat", "dog", "dog"], ["cat", "dog", "cat", "cat"]),
    ["dog to cat", "cat to dog", "dog to cat (2)", "dog to cat (3)"],
  );
});
