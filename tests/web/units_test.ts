import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { Card, CardSanity, JsonObject } from "../../models/mod.ts";
import type { RunFile } from "../../robust/results.ts";
import { sanityOf } from "../../web/accuracies.ts";
import { figuresOf, frameAt } from "../../web/figure.ts";
import { hasWords } from "../../web/filter.ts";
import {
  bytes,
  duration,
  percent,
  quoted,
  shareInterval,
  short,
  time,
} from "../../web/format.ts";
import type { SiteRun } from "../../web/library.ts";
import { curveOf } from "../../web/pages.ts";
import { pairOf } from "../../web/playground/partners.ts";
import { policy, secured } from "../../web/security.ts";
import { TINY } from "./_site.ts";

function tile(
  path: string,
  row: string,
  column: string,
  name?: "step" | "lambda",
  value = 0,
): RunFile {
  return {
    path,
    kind: "tile",
    label: `${row}, ${column}`,
    tile: { row, column, ...(name ? { parameter: { name, value } } : {}) },
  };
}

Deno.test("figuresOf() gives tiles that differ in a parameter one slider", () => {
  const [figure, ...rest] = figuresOf({
    files: [
      { path: "figure.png", kind: "figure" },
      tile("r10", "robust", "dog", "step", 10),
      tile("r0", "robust", "dog", "step", 0),
      tile("last", "robust", "dog"),
      tile("t", "target", "dog"),
    ],
  });
  assertEquals(rest, []);
  assertEquals(figure.parameter, "step");
  assertEquals(figure.values, [0, 10]);
  assertEquals(figure.rows.map(({ label }) => label), ["target", "robust"]);
  const [{ frames }] = figure.rows[1].cells;
  assertEquals(frames.map(({ path }) => path), ["r0", "r10"]);
  assertEquals(frameAt(frames, 9).path, "r0");
  assertEquals(frameAt(frames, 10).path, "r10");
  assertEquals(frameAt(figure.rows[0].cells[0].frames, 10).path, "t");
});

Deno.test("figuresOf() makes a figure of each parameter", () => {
  const figures = figuresOf({
    files: [
      tile("a", "robust", "dog", "step", 1),
      tile("b", "robust", "dog", "lambda", 0.5),
      tile("c", "target", "dog"),
    ],
  });
  assertEquals(figures.map(({ parameter }) => parameter), ["step", "lambda"]);
  assertEquals(figures.map(({ rows }) => rows.length), [2, 1]);
});

Deno.test("figuresOf() reads columns from rows, and places from labels", () => {
  const [split] = figuresOf({
    files: [
      tile("a", "robust, dog to cat", "", "lambda", 0),
      tile("b", "standard, dog to cat", "", "lambda", 0),
    ],
  });
  assertEquals(split.columns, ["dog to cat"]);
  assertEquals(split.rows.map(({ label }) => label), ["standard", "robust"]);
  const [given] = figuresOf({
    files: [
      tile("a", "robust, dog to cat", "", "lambda", 1),
      tile("b", "target", "dog to cat"),
    ],
  });
  assertEquals(given.columns, ["dog to cat"]);
  assertEquals(given.rows.map(({ label }) => label), ["target", "robust"]);
  const [labelled] = figuresOf({
    files: [
      { path: "a", kind: "tile", label: "robust, disc.png" },
      { path: "b", kind: "tile", label: "robust 2" },
      { path: "c", kind: "tile" },
    ],
  });
  assertEquals(labelled.columns, ["disc.png", "2", "c"]);
  assertEquals(figuresOf({ files: [] }), []);
});

Deno.test("curveOf() takes whole curves only", () => {
  const interval = { mean: 1, low: 0, high: 2, n: 4 };
  const curve = { radius: [1], epsilon: 0.5, roles: { robust: [interval] } };
  assertEquals(curveOf(curve), curve);
  for (
    const wrong of [
      undefined,
      null,
      7,
      {},
      { ...curve, radius: ["1"] },
      { ...curve, roles: null },
      { ...curve, roles: { robust: [] } },
      { ...curve, roles: { robust: [{ mean: null }] } },
    ]
  ) assertEquals(curveOf(wrong), null);
});

Deno.test("numbers are written for people", () => {
  assertEquals([0.7512, 1, 0].map((x) => percent(x)), [
    "75.1%",
    "100.0%",
    "0.0%",
  ]);
  assertEquals([0, 1 / 3, 1234.5, 1e-5, NaN].map(short), [
    "0",
    "0.333",
    "1230",
    "1.0e-5",
    "–",
  ]);
  assertEquals([5, 8_734_000, 12e6, 999_600].map(bytes), [
    "5 B",
    "8.7 MB",
    "12 MB",
    "1.0 MB",
  ]);
  assertEquals([0.25, 5.04, 61, 3725, 7200].map(duration), [
    "250 ms",
    "5.0 s",
    "61 s",
    "1 h 2 min",
    "2 h",
  ]);
  assertEquals(time("2026-01-02T03:04:05.000Z"), "2 Jan 2026, 03:04");
  assertEquals(time("no time"), "no time");
  assertEquals(quoted("a b'c"), `'a b'\\''c'`);
});

Deno.test("shareInterval() is Wilson's", () => {
  const { low, high } = shareInterval(0.5, 100);
  assertAlmostEquals(low, 0.4038, 1e-4);
  assertAlmostEquals(high, 0.5962, 1e-4);
  assertEquals(shareInterval(1, 10).high, 1);
  assertEquals(shareInterval(0, 10).low, 0);
});

Deno.test("secured() admits the nonce of Fresh's own script", async () => {
  const page = new Response(`<script type="module" nonce="aB3+/=">1</script>`, {
    headers: { "content-type": "text/html; charset=utf-8" },
  });
  const { headers } = await secured(page);
  assertEquals(headers.get("content-security-policy"), policy("aB3+/="));
});

Deno.test("pairOf() prefers a partner of the same architecture", () => {
  const model = (key: string, architecture: string, epsilon: number) => ({
    ...{ key, label: key, architecture, epsilon, dataset: "cifar10" },
    ...{ imageSize: 32, classes: [], norm: null, clean: null, size: 0 },
  });
  const judge = model("judge", "resnet10", 0);
  const robust = model("robust", "resnet18", 0.5);
  const standard = model("standard", "resnet18", 0);
  const other = { ...standard, key: "other", dataset: "shapes" };
  assertEquals(pairOf([judge, other, robust, standard]), [robust, standard]);
  assertEquals(pairOf([judge, other, robust]), [robust, judge]);
  assertEquals(pairOf([other, robust]), [other, undefined]);
});

Deno.test("hasWords() finds all words in any order and case", () => {
  assert(hasWords("runs/robust CIFAR10", " cifar10 Robust "));
  assert(hasWords("anything", ""));
  assert(!hasWords("runs/robust", "robust standard"));
});

Deno.test("sanityOf() takes the card's checklist, else one that a run made", () => {
  const sanity: CardSanity = {
    ...{ images: 100, norm: "l2" as const, epsilon: 0.5, steps: 20 },
    checks: [{ name: "larger-epsilon", passed: true, detail: "59% to 31%" }],
  };
  const evaluated = (sha256: string, found: object): SiteRun => ({
    ...{ key: "a", root: "runs", folder: "runs/a", path: "runs/a" },
    modified: 0,
    run: {
      ...{ schemaVersion: 1, id: "a", command: "evaluate", flags: {}, seed: 0 },
      ...{ provider: "cpu", versions: {}, startedAt: "", seconds: 1 },
      ...{ argv: [], files: [], metrics: { sanity: found as JsonObject } },
      weights: [{ role: "model", path: "model.safetensors", sha256 }],
    },
  });
  const model = (card: Partial<Card>) => ({
    ...{ key: "m", path: "m.safetensors", size: 1, modified: 0 },
    card: { ...TINY, weightsSha256: "ours", ...card },
  });
  const runs = [
    evaluated("other", { ...sanity, images: 1 }),
    evaluated("ours", { images: 2 }),
    evaluated("ours", sanity),
  ];
  assertEquals(sanityOf(model({}), runs), sanity);
  assertEquals(sanityOf(model({}), runs.slice(0, 2)), null);
  const own = { ...sanity, images: 7 };
  assertEquals(sanityOf(model({ sanity: own }), runs), own);
});
