/**
 * How training scales on this machine: W3 and W3-w16 on one and two ranks of
 * one thread each, with the same images per rank.
 *
 *   deno run -A bench/scale_bench.ts
 *   deno run -A bench/scale_bench.ts --workloads W3-w16 --ranks 1,2,4 \
 *     --steps 20 --rounds 3 --json out.json
 *
 * Efficiency is images per second of n ranks over n times those of one rank;
 * the prediction is that of `_scaling.ts` from the times of one rank's step and
 * of the sum on its own, which leaves out what ranks of one machine take from
 * each other (memory, caches).
 * Rounds take turns between the numbers of ranks, and medians count. "No
 * ranks" is `train()` without a communicator, whose step is one program. Stop
 * everything else first: the load of the machine is printed before and after.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { median } from "./_statistics.ts";
import type { RankReport } from "./_scale_rank.ts";

/** Medians of one workload on one number of ranks. */
export interface ScaleRow {
  readonly workload: string;
  /** 0: without a communicator. */
  readonly ranks: number;
  readonly imagesPerSecond: number;
  readonly stepMs: number;
  readonly reduceMs: number;
  readonly sumMs: number;
  readonly bytes: number;
  /** Over as many times one rank. */
  readonly efficiency: number;
  /** What the model says: a step of one rank, then the sum, nothing hidden. */
  readonly predicted: number;
}

const RANK = new URL("./_scale_rank.ts", import.meta.url).pathname;

async function measure(
  mpirun: string,
  ranks: number,
  args: readonly string[],
): Promise<RankReport> {
  const deno = [Deno.execPath(), "run", "-A", "--quiet", RANK, ...args];
  const [command, ...rest] = ranks > 0
    ? [...mpirun.split(" "), "-n", String(ranks), ...deno]
    : deno;
  const { code, stdout, stderr } = await new Deno.Command(command, {
    args: rest,
    stdin: "null",
  }).output();
  if (code !== 0) {
    throw new Error(
      `Cannot measure ${ranks} ranks: ${new TextDecoder().decode(stderr)}`,
    );
  }
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** Rows of a table from the reports of each number of ranks. */
export function scaleRows(
  workload: string,
  reports: ReadonlyMap<number, readonly RankReport[]>,
): ScaleRow[] {
  const rows = Array.from(reports, ([ranks, found]) => {
    const all = (name: "stepMs" | "reduceMs") =>
      median(found.flatMap((report) => report[name]));
    const stepMs = all("stepMs");
    return {
      workload,
      ranks,
      imagesPerSecond: 1000 * found[0].images / stepMs,
      stepMs,
      reduceMs: all("reduceMs"),
      sumMs: median(found.map(({ sumMs }) => sumMs)),
      bytes: found[0].bytes,
    };
  });
  const one = rows.find(({ ranks }) => ranks === 1);
  const { imagesPerSecond = NaN, stepMs = NaN } = one ?? {};
  return rows.map((row) => ({
    ...row,
    efficiency: row.imagesPerSecond /
      (Math.max(1, row.ranks) * imagesPerSecond),
    predicted: stepMs / (stepMs + row.sumMs),
  }));
}

/** A table as Markdown. */
export function scaleTable(rows: readonly ScaleRow[]): string {
  const head = [
    "| workload | ranks | images/s | efficiency | predicted | step ms | until " +
    "sums ms | sum alone ms | MB |",
    "| -------- | ----: | -------: | ---------: | --------: | ------: | ----" +
    "--------: | -----------: | -: |",
  ];
  const lines = rows.map((row) =>
    "| " + [
      row.workload,
      row.ranks || "none",
      row.imagesPerSecond.toFixed(2),
      row.efficiency.toFixed(2),
      row.ranks ? row.predicted.toFixed(2) : "-",
      row.stepMs.toFixed(0),
      row.ranks ? row.reduceMs.toFixed(1) : "-",
      row.ranks ? row.sumMs.toFixed(1) : "-",
      (row.bytes / 1e6).toFixed(1),
    ].join(" | ") + " |"
  );
  return [...head, ...lines].join("\n");
}

if (import.meta.main) {
  const flags = parseArgs(Deno.args, {
    string: [
      "workloads",
      "ranks",
      "steps",
      "rounds",
      "batch-size",
      "mpirun",
      "json",
    ],
    default: {
      workloads: "W3-w16,W3",
      ranks: "0,1,2",
      steps: "5",
      rounds: "2",
      "batch-size": "32",
      mpirun: "mpirun",
    },
  });
  const load = () => Deno.loadavg().map((x) => x.toFixed(2)).join(" ");
  console.error(`Load before: ${load()}`);
  const rows: ScaleRow[] = [];
  for (const workload of flags.workloads.split(",")) {
    const counts = flags.ranks.split(",").map(Number);
    const reports = new Map<number, RankReport[]>(
      counts.map((count) => [count, []]),
    );
    for (let round = 0; round < Number(flags.rounds); round++) {
      for (const count of round % 2 ? counts.toReversed() : counts) {
        const args = [workload, flags["batch-size"], flags.steps];
        const report = await measure(flags.mpirun, count, args);
        reports.get(count)!.push(report);
        console.error(
          `${workload}, ${count} ranks: ${report.stepMs.map(Math.round)} ms`,
        );
      }
    }
    rows.push(...scaleRows(workload, reports));
  }
  console.error(`Load after: ${load()}`);
  console.log(scaleTable(rows));
  if (flags.json) {
    await Deno.writeTextFile(flags.json, JSON.stringify(rows, null, 2));
  }
}
