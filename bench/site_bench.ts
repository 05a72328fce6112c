/**
 * The site under load: how long its pages take, with hundreds of runs, and
 * whether 200 requests at once are all answered.
 *
 *   deno run -A bench/site_bench.ts --runs 500
 *
 * @module
 */
import { join } from "node:path";
import { type FlagTable, parseFlags, runScript } from "../scripts/_cli.ts";
import { formatRun, type Run } from "../mod.ts";

const FLAGS = {
  runs: { type: "integer", default: 500, min: 1, help: "runs to list" },
  requests: {
    type: "integer",
    default: 200,
    min: 1,
    help: "requests at once",
  },
} as const satisfies FlagTable;

/** Writes folders of training runs. */
async function writeRuns(folder: string, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const run: Run = {
      schemaVersion: 1,
      id: `train-${i}`,
      command: "train",
      argv: ["--dataset", "cifar10", "--seed", `${i}`],
      flags: { dataset: "cifar10", epochs: 15, epsilon: 0.5 },
      seed: i,
      provider: "cpu",
      versions: { "robust-reps": "0.1.0" },
      weights: [],
      metrics: { epoch: 15 },
      history: Array.from({ length: 15 }, (_, epoch) => ({
        epoch: epoch + 1,
        loss: 1,
        accuracy: 0.5,
        learningRate: 0.1,
        seconds: 60,
        metrics: { clean: 0.6, adversarial: 0.4 },
      })),
      files: [],
      startedAt: new Date(1.7e12 + 1e6 * i).toISOString(),
      seconds: 900,
    };
    const path = join(folder, `run-${i}`);
    await Deno.mkdir(path, { recursive: true });
    await Deno.writeTextFile(join(path, "run.json"), formatRun(run));
  }
}

/** Starts the site as a user would; its address is what it prints. */
async function startSite(root: string) {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-P=web", "web/dev.ts", "--port", "0"],
      ...["--runs", join(root, "runs"), "--results", join(root, "results")],
    ],
    cwd: new URL("..", import.meta.url),
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value = "" } = await reader.read();
  reader.releaseLock();
  return { child, base: value.trim().replace(/\/$/, "") };
}

async function timed(address: string): Promise<number> {
  const start = performance.now();
  const response = await fetch(address);
  await response.arrayBuffer();
  if (!response.ok) throw new Error(`${address}: ${response.status}`);
  return performance.now() - start;
}

function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.round(q * (sorted.length - 1))];
}

await runScript(import.meta, FLAGS, {}, async (_, { print, note }) => {
  const { runs, requests } = parseFlags(Deno.args, FLAGS);
  const root = await Deno.makeTempDir();
  note(`Writing ${runs} runs`);
  await writeRuns(join(root, "runs"), runs);
  const { child, base } = await startSite(root);
  try {
    const pages = ["/", "/experiments", "/runs", "/models", "/playground"];
    for (const path of [...pages, "/api/runs"]) {
      const times: number[] = [];
      for (let i = 0; i < 10; i++) {
        times.push(await timed(base + path));
        // Longer than what was found on disk is taken for current.
        await new Promise((resolve) => setTimeout(resolve, 600));
      }
      const [median, worst] = [0.5, 1].map((q) => quantile(times, q));
      print(
        `${path}: median ${median.toFixed(1)} ms, worst ${worst.toFixed(1)} ms`,
      );
    }
    const start = performance.now();
    const all = await Promise.all(
      Array.from(
        { length: requests },
        (_, i) => timed(base + pages[i % pages.length]),
      ),
    );
    const seconds = (performance.now() - start) / 1000;
    print(
      `${requests} requests at once: all answered in ${seconds.toFixed(2)} s ` +
        `(${(requests / seconds).toFixed(0)} a second), median ` +
        `${quantile(all, 0.5).toFixed(0)} ms, worst ` +
        `${quantile(all, 1).toFixed(0)} ms`,
    );
  } finally {
    child.kill("SIGTERM");
    await child.status;
    await Deno.remove(root, { recursive: true });
  }
});
