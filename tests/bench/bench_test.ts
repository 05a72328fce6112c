import { assertEquals, assertThrows } from "@std/assert";
import { showProfile, sumByOperator } from "../../bench/_profile.ts";
import {
  formatTable,
  median,
  type Pair,
  pairwiseRatio,
  showNumber,
} from "../../bench/_statistics.ts";
import { findWorkloads, WORKLOADS } from "../../bench/_workloads.ts";
import { parseOptions, type Result, showResults } from "../../bench/bench.ts";
import { UsageError } from "../../scripts/_cli.ts";

Deno.test("median() is the middle value, or the mean of two", () => {
  assertEquals(median([3, 1, 2]), 2);
  assertEquals(median([4, 1, 2, 3]), 2.5);
  assertEquals(median([10, 9, 100]), 10);
});

Deno.test("median() refuses no values", () => {
  assertThrows(() => median([]), RangeError, "median of no values");
});

Deno.test("median() leaves its argument as it is", () => {
  const values = [3, 1, 2];
  median(values);
  assertEquals(values, [3, 1, 2]);
});

Deno.test("pairwiseRatio() takes ratios within pairs, then their median", () => {
  // The ratio of the medians would be 4 / 2 = 2.
  const pairs = [
    { ours: 1, torch: 1.5 },
    { ours: 2, torch: 6 },
    { ours: 10, torch: 4 },
  ];
  assertEquals(pairwiseRatio(pairs, "torch", "ours"), {
    median: 1.5,
    pairs: [1.5, 3, 0.4],
  });
});

Deno.test("pairwiseRatio() skips pairs that lack a side", () => {
  const pairs: Pair[] = [{ ours: 1 }, { ours: 2, torch: 8 }];
  assertEquals(pairwiseRatio(pairs, "torch", "ours").pairs, [4]);
  assertThrows(
    () => pairwiseRatio(pairs, "tuned", "ours"),
    RangeError,
    'Cannot compare "tuned" with "ours"',
  );
});

Deno.test("showNumber() keeps about three digits", () => {
  const shown = [1234.5, 99.96, 12.34, 0.456, NaN].map(showNumber);
  assertEquals(shown, ["1235", "100.0", "12.3", "0.46", "-"]);
});

Deno.test("formatTable() aligns columns", () => {
  assertEquals(
    formatTable(["name", "ms"], [["W1", "12.5"], ["W1-w16", "3"]]),
    [
      "| name   |   ms |",
      "| ------ | ---: |",
      "| W1     | 12.5 |",
      "| W1-w16 |    3 |",
    ].join("\n"),
  );
});

Deno.test("formatTable() refuses rows of another length", () => {
  assertThrows(
    () => formatTable(["name", "ms"], [["W1"]]),
    TypeError,
    "a row of 1 cells",
  );
});

Deno.test("findWorkloads() finds ids and refuses others", () => {
  const found = findWorkloads("W3, W1-w16-b8");
  assertEquals(found.map(({ id }) => id), ["W3", "W1-w16-b8"]);
  assertThrows(
    () => findWorkloads("W1,W9"),
    RangeError,
    'Cannot measure workload "W9": choose from W1, ',
  );
  for (const id of ["-b4", "W9-b4", "W1-b", "W1-b0"]) {
    assertThrows(() => findWorkloads(id), RangeError, id);
  }
  const [known, larger] = findWorkloads("W1,W1-b64");
  assertEquals(larger, {
    ...known,
    id: "W1-b64",
    batchSize: 64,
    gflop: 2 * known.gflop,
  });
});

Deno.test("WORKLOADS have ids of their own", () => {
  const ids = new Set(WORKLOADS.map(({ id }) => id));
  assertEquals(ids.size, WORKLOADS.length);
});

Deno.test("parseOptions() reads the command line", () => {
  const options = parseOptions(["--workloads", "W1,W3", "--pairs", "2"]);
  assertEquals(options.workloads.map(({ id }) => id), ["W1", "W3"]);
  assertEquals(options.pairs, 2);
  assertEquals(options.against, "torch");
  assertEquals(options.device, "cpu");
});

Deno.test("parseOptions() refuses mistakes", () => {
  for (
    const args of [
      ["--workloads", "W9"],
      ["--pairs", "0"],
      ["--threads", "two"],
      ["--against", "numpy"],
      ["--device", "tpu"],
      ["--speed", "1"],
    ]
  ) assertThrows(() => parseOptions(args), UsageError);
});

const OURS = { median: 500, min: 480, memory: 300.4 };

Deno.test("showResults() shows a comparison", () => {
  const result: Result = {
    workload: "W1",
    batchSize: 32,
    gflop: 71,
    sides: {
      ours: OURS,
      eager: { median: 700, min: 650, memory: 400 },
      tuned: { median: 550, min: 540, memory: 350 },
    },
    ratios: {
      eager: { median: 1.4, pairs: [1.4] },
      tuned: { median: 1.1, pairs: [1.1] },
    },
    pairs: [{ ours: 500, eager: 700, tuned: 550 }],
    discarded: [],
    disturbed: false,
  };
  assertEquals(cells(showResults([result])), [
    ...["W1", "500 (480)", "700", "550", "1.40", "1.10", "64.0", "142"],
    "300 / 400 / 350",
  ]);
});

Deno.test("showResults() shows our side alone, and marks disturbed ones", () => {
  const result: Result = {
    workload: "W5",
    batchSize: 32,
    gflop: 71,
    sides: { ours: OURS },
    ratios: {},
    pairs: [{ ours: 500 }],
    discarded: [],
    disturbed: true,
  };
  assertEquals(cells(showResults([result])), [
    ...["W5 *", "500 (480)", "-", "-", "-", "-", "-", "-"],
    "300 / - / -",
  ]);
});

/** Cells of a table's first row. */
function cells(table: string): string[] {
  const row = table.split("\n")[2];
  return row.split("|").slice(1, -1).map((cell) => cell.trim());
}

function kernel(name: string, op_name: string, dur: number) {
  const args = { op_name, provider: "CPUExecutionProvider" };
  return { cat: "Node", name: `${name}_kernel_time`, dur, args };
}

const RUN = { cat: "Session", name: "model_run", dur: 9000 };

Deno.test("sumByOperator() sums medians of nodes by operator", () => {
  const step = [
    ...[RUN, kernel("a", "Conv", 2000), kernel("b", "Conv", 1000)],
    kernel("c", "Mul", 4000),
    { cat: "Node", name: "c_fence_before", dur: 7000 },
  ];
  const slow = [
    ...[RUN, kernel("a", "Conv", 90000), kernel("b", "Conv", 1000)],
    kernel("c", "Mul", 4000),
  ];
  assertEquals(sumByOperator([[...step, ...slow, ...step]], 3), [
    { operator: "Mul", provider: "CPU", count: 1, ms: 4 },
    { operator: "Conv", provider: "CPU", count: 2, ms: 3 },
  ]);
});

Deno.test("sumByOperator() counts runs per step and leaves preparation out", () => {
  const attack = [RUN, kernel("a", "Conv", 1000)];
  const preparation = [RUN, kernel("p", "Transpose", 5000)];
  assertEquals(
    sumByOperator([preparation, Array(14).fill(attack).flat()], 2),
    [{ operator: "Conv", provider: "CPU", count: 7, ms: 7 }],
  );
});

Deno.test("sumByOperator() takes a device's own times where there are any", () => {
  const program = (name: string, dur: number) => ({ cat: "Api", name, dur });
  const step = [
    ...[RUN, kernel("a", "Conv", 50), kernel("b", "Relu", 40)],
    program("a&Conv&Transpose", 100),
    program("a&Conv&Conv2dMM", 3000),
    program("b&Relu&Relu", 200),
  ];
  assertEquals(sumByOperator([[...step, ...step]], 2), [
    { operator: "Conv: Conv2dMM", provider: "WebGpu", count: 1, ms: 3 },
    { operator: "Relu", provider: "WebGpu", count: 1, ms: 0.2 },
    { operator: "Conv: Transpose", provider: "WebGpu", count: 1, ms: 0.1 },
  ]);
});

Deno.test("showProfile() joins what takes little", () => {
  const row = (operator: string, ms: number) =>
    ({ operator, provider: "CPU", count: 2, ms }) as const;
  const text = showProfile([row("Conv", 99.8), row("A", 0.1), row("B", 0.1)]);
  assertEquals(
    text.split("\n").slice(2).map((line) =>
      line.split("|").map((cell) => cell.trim()).slice(1, -1)
    ),
    [
      ["Conv", "CPU", "2", "99.8", "99.8 %"],
      ["2 others", "", "4", "0.20", "0.2 %"],
    ],
  );
});
