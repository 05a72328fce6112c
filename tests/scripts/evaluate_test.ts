/**
 * Attacks, checks and cards of the evaluation script.
 */
import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { tensor } from "../../core/mod.ts";
import type { Card } from "../../models/mod.ts";
import {
  readCheckpoint,
  updateCard,
  writeCheckpoint,
} from "../../models/files.ts";
import { wilsonInterval } from "../../robust/statistics.ts";
import { attackName, cardRadii } from "../../scripts/_cards.ts";
import {
  assertSentence,
  recordOf,
  run,
  SMALL,
  succeed,
  writeClasses,
} from "./_script.ts";

const folder = await Deno.makeTempDir({ prefix: "robust-reps-evaluate-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

const QUICK = ["--device", "cpu", "--threads", "1"] as const;

let trained: Promise<string> | undefined;

/** A run that learned a little. */
function network(): Promise<string> {
  return trained ??= (async () => {
    const out = `${folder}/run`;
    await succeed("train", [
      ...[...SMALL, "--width", "4", "--limit", "512", "--epochs", "6"],
      ...["--batch-size", "32", "--schedule", "cyclic", "--lr", "0.2"],
      ...["--epsilon", "1", "--step-size", "0.7", "--out", out],
    ]);
    return out;
  })();
}

/** The network in float16, as a shipped one. */
async function shipped(name: string): Promise<string> {
  const out = `${folder}/${name}.safetensors`;
  await succeed("import", [await network(), "--half", "--out", out]);
  return out;
}

Deno.test("evaluate --attack autoattack prints each attack and records intervals", async () => {
  const json = `${folder}/auto.json`;
  const stdout = await succeed("evaluate", [
    ...["--model", await network(), ...QUICK, "--limit", "40"],
    ...["--attack", "autoattack", "--attack-steps", "5", "--queries", "20"],
    ...["--json", json],
  ]);
  assertMatch(
    stdout,
    /^Clean accuracy: [\d.]+%\nAfter apgd-ce: [\d.]+% \(\d+ of \d+ images broken\)\nAfter apgd-t: .*\nAfter square: .*\nAdversarial accuracy: [\d.]+% \(l2, epsilon 0.5, APGD-CE-5 \+ APGD-T-5 \+ Square-20 \(AutoAttack without FAB\)\)\nImages: 40\n$/,
  );
  const { metrics } = await recordOf(json);
  const { clean, cleanInterval, adversarial, attacks } = metrics;
  const { low, high, n } = wilsonInterval(Math.round(40 * Number(clean)), 40);
  assertEquals(cleanInterval, { low, high, n });
  assert(Number(adversarial) <= Number(clean));
  assertEquals((attacks as { name: string }[]).map(({ name }) => name), [
    "apgd-ce",
    "apgd-t",
    "square",
  ]);
});

Deno.test("evaluate --attack takes a single attack and a norm", async () => {
  for (const attack of ["apgd-ce", "apgd-t", "square"]) {
    const stdout = await succeed("evaluate", [
      ...["--model", await network(), ...QUICK, "--limit", "20"],
      ...["--attack", attack, "--attack-steps", "3", "--queries", "5"],
      ...["--norm", "linf", "--epsilon", "0.05"],
    ]);
    const name = attack === "square" ? "Square-5" : `${attack.toUpperCase()}-3`;
    assertStringIncludes(stdout, `(linf, epsilon 0.05, ${name})`);
  }
});

Deno.test("evaluate --attack decodes large images when it needs them, but for damaged ones", async () => {
  const data = `${folder}/large`;
  await writeClasses(`${data}/test`, [..."abcdefghij"], 2);
  await Deno.writeTextFile(`${data}/test/c/1.png`, "no picture");
  const { code, stdout, stderr } = await run("evaluate", [
    ...["--model", await network(), ...QUICK, "--dataset", "image_folder"],
    ...["--data", data, "--size", "72", "--attack", "autoattack"],
    ...["--attack-steps", "1", "--queries", "2"],
  ]);
  assertEquals(code, 0, stderr);
  assertMatch(stdout, /^Images: 19$/m);
  assertMatch(stderr, /Left out 1 of 20 images of the test split/);
});

Deno.test("evaluate --preset sets what paper and code differ in, and says what replaces it", async () => {
  for (
    const [preset, isRandom] of [["paper", true], ["code", false]] as const
  ) {
    const json = `${folder}/preset.json`;
    const { code, stderr } = await run("evaluate", [
      ...["--model", await network(), ...QUICK, "--limit", "10"],
      ...["--preset", preset, "--attack-steps", "2", "--json", json],
    ]);
    assertEquals(code, 0, stderr);
    assertMatch(
      stderr,
      new RegExp(`^--attack-steps 2 in place of 20 of preset ${preset}$`, "m"),
    );
    const { metrics } = await recordOf(json);
    const { steps, randomStart } = metrics.attack as Record<string, unknown>;
    assertEquals([steps, randomStart], [2, isRandom]);
  }
});

Deno.test("evaluate --sanity prints a line per check; --strict fails where one does", async () => {
  const json = `${folder}/sanity.json`;
  const args = [...QUICK, "--sanity", "--limit", "30", "--queries", "50"];
  const honest = await run("evaluate", [
    ...["--model", await network(), ...args, "--attack-steps", "8"],
    ...["--json", json],
  ]);
  assertEquals(honest.code, 0, honest.stderr);
  const lines = honest.stdout.trim().split("\n");
  const checks = lines.filter((line) => /^(pass|FAIL) [a-z-]+: /.test(line));
  assertEquals(checks.length, 8);
  assertMatch(honest.stdout, /^Checks: \d of 8 pass\nImages: 30$/m);
  const { metrics } = await recordOf(json);
  const { sanity } = metrics as { sanity?: { checks: unknown[] } };
  assertEquals(sanity?.checks.length, 8);

  const { card, tensors } = await readCheckpoint(
    `${await network()}/model.safetensors`,
  );
  const masked = `${folder}/masked.safetensors`;
  await writeCheckpoint(masked, {
    card,
    tensors: Object.fromEntries(
      Object.entries(tensors).map(([name, value]) => [
        name,
        name.startsWith("fc.")
          ? tensor((value.data as Float32Array).map((x) => 1e5 * x), [
            ...value.shape,
          ])
          : value,
      ]),
    ),
  });
  for (const strict of [false, true]) {
    const { code, stdout, stderr } = await run("evaluate", [
      ...["--model", masked, ...args, "--attack-steps", "8", "--quiet"],
      ...(strict ? ["--strict"] : []),
    ]);
    assertEquals(code, strict ? 1 : 0, stderr);
    assertMatch(stdout, /^FAIL gradients: zero for /m);
    if (strict) {
      assertMatch(
        stderr,
        /^error: Cannot believe the measured robustness: failed .*gradients/m,
      );
    }
  }
});

/** Accuracies of a card, by attack and epsilon. */
function entries({ accuracies }: Card): [string | undefined, number][] {
  return (accuracies.adversarial ?? []).map(({ attack, epsilon }) => [
    attack,
    epsilon,
  ]);
}

const PLANNED: [string, number][] = ["PGD-20", "PGD-100"].flatMap((attack) =>
  [0.25, 0.5, 1].map((epsilon): [string, number] => [attack, epsilon])
);

Deno.test("evaluate --cards measures in place, and keeps weights and the rest of the card", async () => {
  const path = await shipped("whole");
  const before = await readCheckpoint(path);
  const { size } = await Deno.stat(path);
  const args = ["--cards", "--model", path, ...QUICK, "--limit", "30"];
  const { code, stdout, stderr } = await run("evaluate", args);
  assertEquals(code, 0, stderr);
  assertMatch(
    stdout,
    /^ {2}PGD-20 at epsilon 0.5: [\d.]+% \(95%: [\d.]+% to [\d.]+%, 30 images\)$/m,
  );
  assertMatch(stdout, /^ {2}sanity: \d of 8 checks pass$/m);
  const { card, tensors } = await readCheckpoint(path);
  assertEquals(tensors, before.tensors);
  const growth = (await Deno.stat(path)).size - size;
  assert(growth > 0 && growth < 10_000, `${growth} bytes more`);
  assertEquals(entries(card), PLANNED);
  const { accuracies, sanity, evaluation, ...rest } = card;
  const { accuracies: _, ...kept } = before.card;
  assertEquals(rest, kept);
  assertEquals(card.training!.threads, 1);
  assertEquals(card.data!.images, 512);
  assertEquals(accuracies.images, 30);
  assertEquals(accuracies.cleanInterval!.n, 30);
  for (const { accuracy, interval } of accuracies.adversarial!) {
    assert(interval!.low <= accuracy && accuracy <= interval!.high);
    assert(accuracy <= accuracies.clean!);
  }
  assertEquals(sanity!.checks.length, 8);
  assertEquals([evaluation!.complete, evaluation!.limit], [true, 30]);

  // One attack more leaves the others as they are.
  await succeed("evaluate", [
    ...[...args, "--attack", "apgd-ce", "--attack-steps", "4"],
  ]);
  const more = (await readCheckpoint(path)).card;
  assertEquals(entries(more), [...PLANNED, ["APGD-CE-4", 1]]);
  assertEquals(more.sanity, sanity);
  assertEquals(more.evaluation, evaluation);
});

Deno.test("evaluate --cards goes on where it was stopped", async () => {
  const path = await shipped("stopped");
  const args = ["--cards", "--model", path, ...QUICK, "--limit", "20"];
  await succeed("evaluate", args);
  const whole = (await readCheckpoint(path)).card;
  await updateCard(path, ({ sanity: _, ...card }) => ({
    ...card,
    accuracies: {
      ...card.accuracies,
      adversarial: card.accuracies.adversarial!.slice(0, 4),
    },
    evaluation: { ...card.evaluation!, complete: false },
  }));
  const { code, stdout, stderr } = await run("evaluate", args);
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /^Going on with the card of /m);
  assert(!stdout.includes("PGD-20"), stdout);
  assertStringIncludes(stdout, "PGD-100 at epsilon 1:");
  const { card } = await readCheckpoint(path);
  assertEquals(
    { ...card, evaluation: { ...card.evaluation, measured: "" } },
    { ...whole, evaluation: { ...whole.evaluation, measured: "" } },
  );
});

Deno.test("cardRadii() grows with the root of the number of pixels", () => {
  const robust = {
    norm: "l2",
    epsilon: 1,
    stepSize: 1,
    steps: 1,
    randomStart: true,
  } as const;
  assertEquals(cardRadii({ attack: robust, imageSize: 64 }), {
    norm: "l2",
    radii: [0.5, 1, 2],
  });
  assertEquals(cardRadii({ attack: null, imageSize: 32 }).radii, [
    0.25,
    0.5,
    1,
  ]);
  const linf = { ...robust, norm: "linf" } as const;
  assertEquals(cardRadii({ attack: linf, imageSize: 64 }), {
    norm: "linf",
    radii: [2 / 255, 4 / 255, 8 / 255],
  });
});

Deno.test("attackName() says what is left out of AutoAttack", () => {
  const settings = { steps: 100, queries: 5000 };
  assertEquals(attackName(["pgd"], settings), "PGD-100");
  assertEquals(
    attackName(["apgd-ce", "apgd-t", "square"], settings),
    "APGD-CE-100 + APGD-T-100 + Square-5000 (AutoAttack without FAB)",
  );
});

Deno.test("evaluate answers what excludes another with one sentence", async () => {
  const rows: [string[], RegExp][] = [
    [["--model", "x", "--strict"], /--strict needs --sanity or --cards: pass/],
    [["--model", "x", "--sanity", "--eps", "0"], /needs an epsilon > 0/],
    [
      ["--model", "x", "--sanity", "--attack", "square"],
      /--sanity checks PGD: leave out --attack square/,
    ],
    [["--cards", "--eps", "1"], /as its card says: leave out --epsilon/],
    [["--cards", "--queries", "9"], /with --queries needs --attack: pass it/],
    [
      ["--model", "x", "--attack", "square", "--restarts", "2"],
      /--restarts does not count with --attack square: leave it out/,
    ],
    [
      ["--model", "x", "--sanity", "--step-size", "2"],
      /--step-size does not count with --sanity: leave it out/,
    ],
    [["--model", "x", "--attack", "fab"], /--attack must be pgd, apgd-ce,/],
  ];
  for (const [args, wanted] of rows) {
    assertSentence(await run("evaluate", args), 2, wanted);
  }
});
