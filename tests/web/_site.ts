/**
 * A small site to test: results of every kind, runs whole, live and broken,
 * and two tiny networks.
 *
 * @module
 */
import { join } from "node:path";
import { Random, type Tensor, tensor } from "../../core/mod.ts";
import { encodePng } from "../../datasets/mod.ts";
import {
  type Card,
  encodeCheckpoint,
  initializeModel,
  type JsonObject,
  type ModelSpec,
} from "../../models/mod.ts";
import { specOf } from "../../robust/load.ts";
import {
  formatResultsIndex,
  formatRun,
  type ResultEntry,
  type ResultsIndex,
  type Run,
  type RunFile,
  type TilePlace,
} from "../../robust/results.ts";
import type { LibraryOptions } from "../../web/library.ts";

/** Text that must never become markup. */
export const HOSTILE = `<img src=x onerror="alert(1)">&"'`;

/** Steps of the inversion's trajectory. */
export const STEPS = [0, 1, 10, 100];

/** Radii of the constrained inversion. */
export const RADII = [0.25, 0.5, 1, 2, 4];

const SIZE = 32;

export const TINY: Card = {
  schemaVersion: 1,
  architecture: "resnet10",
  form: "cifar",
  width: 4,
  classes: ["disc", "ring", "square"],
  dataset: "shapes",
  imageSize: SIZE,
  mean: [0.5, 0.5, 0.5],
  std: [0.25, 0.25, 0.25],
  attack: null,
  epoch: 1,
  seed: 0,
  accuracies: {},
};

/** Weights of the tiny network of a seed. */
export function tinyParameters(seed: number) {
  const spec: ModelSpec = specOf(TINY);
  return initializeModel(spec, new Random(seed));
}

/** A picture of one colour with a darker square, so that places differ. */
function picture(hue: number, amount: number): Tensor {
  const data = new Float32Array(3 * SIZE * SIZE);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < SIZE; y++) {
      for (let x = 0; x < SIZE; x++) {
        const inside = Math.hypot(x - 16, y - 16) < 4 + 10 * amount;
        const base = 0.5 + 0.4 * Math.cos(hue + 2.1 * c);
        data[(c * SIZE + y) * SIZE + x] = inside ? base : 0.25 * base;
      }
    }
  }
  return tensor(data, [3, SIZE, SIZE]);
}

interface Tile {
  readonly place: TilePlace;
  readonly label?: string;
}

/** Writes a run's folder with a picture for each tile. */
export async function writeRunFolder(
  folder: string,
  fields: Partial<Run> & Pick<Run, "id" | "command">,
  tiles: readonly Tile[] = [],
): Promise<void> {
  await Deno.mkdir(join(folder, "tiles"), { recursive: true });
  const files: RunFile[] = [...fields.files ?? []];
  for (const [i, { place, label }] of tiles.entries()) {
    const path = `tiles/${i}.png`;
    const amount = tiles.length > 1 ? i / (tiles.length - 1) : 1;
    const png = await encodePng(picture(place.row.length, amount));
    await Deno.writeFile(join(folder, path), png);
    files.push({
      path,
      kind: "tile",
      label: label ?? `${place.row}, ${place.column}`,
      tile: place,
    });
  }
  const run: Run = {
    schemaVersion: 1,
    argv: ["--seed", "0", "--out", "results/some folder"],
    flags: {},
    seed: 0,
    provider: "cpu",
    versions: { "robust-reps": "0.1.0" },
    commit: null,
    weights: [],
    metrics: {},
    startedAt: "2026-01-02T03:04:05.000Z",
    seconds: 12.5,
    ...fields,
    files,
  };
  await Deno.writeTextFile(join(folder, "run.json"), formatRun(run));
}

function entry(
  id: string,
  fields: Partial<ResultEntry>,
): ResultEntry {
  return {
    id,
    paper: "Fig. 3",
    title: "Inversion",
    claim: "Robust representations can be inverted.",
    shows: true,
    note: "They can.",
    dataset: "shapes",
    command: `deno run -P scripts/invert.ts --model tiny-robust`,
    run: id,
    numbers: [],
    ...fields,
  };
}

export const ENTRIES: readonly ResultEntry[] = [
  entry("fig-3", {
    title: "Inverting representations",
    numbers: [
      {
        label: "judge agrees, robust",
        unit: "fraction",
        paper: null,
        ours: { mean: 0.75, low: 0.6, high: 0.88, n: 64 },
      },
      { label: "distance", unit: "number", paper: 0.1, ours: null },
    ],
  }),
  entry("fig-4", {
    paper: "Fig. 4, 5",
    title: "Inverting within a radius",
    shows: null,
    note: "",
  }),
  entry("fig-12", {
    paper: "Fig. 12",
    title: `Interpolation ${HOSTILE}`,
    claim: HOSTILE,
    note: HOSTILE,
    dataset: HOSTILE,
    command: `deno run ${HOSTILE}`,
    shows: false,
  }),
  entry("fig-7", { paper: "Fig. 7", title: "Features" }),
  entry("table-5", {
    paper: "Table 5",
    title: "Accuracy under attack",
    numbers: [{
      label: "robust",
      unit: "fraction",
      paper: 0.8191,
      ours: { mean: 0.7, low: 0.68, high: 0.72, n: 2000 },
    }],
  }),
  entry("lost", { title: "A result whose run is missing" }),
];

/** History of a training run. */
export function history(epochs: number): JsonObject[] {
  return Array.from({ length: epochs }, (_, i) => ({
    epoch: i + 1,
    loss: 2 / (i + 1),
    accuracy: 0.3 + 0.1 * i,
    learningRate: 0.2 - 0.02 * i,
    seconds: 10,
    metrics: { clean: 0.4 + 0.1 * i, adversarial: 0.2 + 0.1 * i },
  }));
}

/** Makes the site's folders below one. */
export async function makeSite(root: string): Promise<LibraryOptions> {
  const folders: LibraryOptions = {
    runs: join(root, "runs"),
    results: join(root, "results"),
    gallery: join(root, "gallery"),
    weights: join(root, "weights"),
  };
  for (const folder of Object.values(folders)) {
    await Deno.mkdir(folder, { recursive: true });
  }
  await writeResults(folders.results);
  await writeTraining(folders.runs);
  await writeWeights(folders.weights);
  return folders;
}

async function writeResults(folder: string): Promise<void> {
  const columns = ["disc.png", "ring.png"];
  const still = (row: string) =>
    columns.map((column) => ({ place: { row, column } }));
  const varied = (
    row: string,
    name: "step" | "radius" | "lambda" | "coordinate",
    values: readonly number[],
    columns: readonly string[],
  ) =>
    columns.flatMap((column) =>
      values.map((value) => ({
        place: { row, column, parameter: { name, value } },
        label: `${row}, ${name} ${value}`,
      }))
    );
  await writeRunFolder(join(folder, "fig-3"), {
    id: "invert-1",
    command: "invert",
    flags: { dataset: "shapes" },
    metrics: {
      robust: { distances: [0.1, 0.2] },
      standard: { distances: [0.05, 0.1] },
    },
  }, [
    ...still("target"),
    ...varied("standard", "step", STEPS, columns),
    ...varied("robust", "step", STEPS, columns),
  ]);
  const intervals = (from: number) =>
    RADII.map((radius) => {
      const mean = from / (1 + radius);
      return { mean, low: 0.9 * mean, high: 1.1 * mean, n: 16 };
    });
  await writeRunFolder(join(folder, "fig-4"), {
    id: "constrained_inversion-1",
    command: "constrained_inversion",
    metrics: {
      curve: {
        radius: RADII,
        epsilon: 0.5,
        roles: {
          robust: intervals(0.9),
          standard: intervals(0.4),
          untrained: intervals(0.6),
        },
      },
    } as JsonObject,
  }, [
    ...still("source"),
    ...still("target"),
    ...varied("standard", "radius", RADII, columns),
    ...varied("robust", "radius", RADII, columns),
  ]);
  const lambdas = [0, 0.25, 0.5, 0.75, 1];
  await writeRunFolder(
    join(folder, "fig-12"),
    {
      id: HOSTILE,
      command: "interpolate",
      argv: [HOSTILE],
    },
    ["pixel space", "standard", "robust"].flatMap((row) =>
      varied(row, "lambda", lambdas, [""])
    ).map(({ place }) => ({ place, label: HOSTILE })),
  );
  await writeRunFolder(join(folder, "fig-7"), {
    id: "visualize_features-1",
    command: "visualize_features",
  }, varied("robust", "coordinate", [3, 14, 159], ["noise", "grey"]));
  await writeRunFolder(join(folder, "table-5"), {
    id: "evaluate-1",
    command: "evaluate",
    metrics: { clean: 0.8, adversarial: 0.7 },
  });
  const index: ResultsIndex = {
    schemaVersion: 1,
    created: "2026-01-02T03:04:05.000Z",
    quick: true,
    seconds: 60,
    entries: ENTRIES,
  };
  const path = join(folder, "index.json");
  await Deno.writeTextFile(path, formatResultsIndex(index));
}

async function writeTraining(folder: string): Promise<void> {
  await writeRunFolder(join(folder, "robust"), {
    id: "train-robust",
    command: "train",
    flags: { dataset: "shapes", epochs: 4, epsilon: 0.5 },
    history: history(4),
    startedAt: "2026-02-01T00:00:00.000Z",
    files: [{ path: "model.safetensors", kind: "checkpoint" }],
  });
  const bytes = await encodeCheckpoint({
    card: { ...TINY, attack: null },
    tensors: tinyParameters(2),
  });
  await Deno.writeFile(join(folder, "robust/model.safetensors"), bytes);
  await writeRunFolder(join(folder, "live"), {
    id: "train-live",
    command: "train",
    flags: { dataset: "shapes", epochs: 5, epsilon: 0 },
    history: history(2),
    startedAt: "2026-02-02T00:00:00.000Z",
  });
  await Deno.mkdir(join(folder, "broken"));
  await Deno.writeTextFile(join(folder, "broken/run.json"), `{"id": `);
}

async function writeWeights(folder: string): Promise<void> {
  const robust: Card = {
    ...TINY,
    attack: {
      norm: "l2",
      epsilon: 0.5,
      stepSize: 0.2,
      steps: 3,
      randomStart: true,
    },
    accuracies: {
      clean: 0.8,
      adversarial: [
        { epsilon: 0.5, steps: 20, stepSize: 0.1, restarts: 1, accuracy: 0.6 },
      ],
      images: 1000,
    },
    command: `deno run -P scripts/train.ts ${HOSTILE}`,
    sanity: {
      images: 100,
      norm: "l2",
      epsilon: 0.5,
      steps: 20,
      checks: [
        { name: "larger epsilon never helps", passed: true, detail: "yes" },
        { name: HOSTILE, passed: false, detail: "0.1 against 0.2" },
      ],
    },
    training: {
      seconds: 3725,
      provider: "cpu",
      cpu: "a processor",
      threads: 2,
    },
    data: { name: "shapes", images: 10_000, preprocessing: "none" },
    extra: { note: HOSTILE },
  };
  for (
    const [i, [name, card]] of [["tiny-robust", robust], [
      "tiny-standard",
      TINY,
    ]].entries()
  ) {
    const bytes = await encodeCheckpoint({
      card: card as Card,
      tensors: tinyParameters(i),
    });
    await Deno.writeFile(join(folder, `${name}.safetensors`), bytes);
  }
  await Deno.writeTextFile(join(folder, "torn.safetensors"), "torn");
}
