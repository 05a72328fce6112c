/**
 * Scripts on several ranks of MPI: the same results as on one, one sentence and
 * a quick end when a rank fails, and runs that go on on any number of ranks.
 *
 * @module
 */
import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import type { NamedTensors } from "../../core/mod.ts";
import { decodeSafetensors } from "../../models/mod.ts";
import { readCheckpoint } from "../../models/files.ts";
import { decodeTraining, type TrainState } from "../../robust/mod.ts";
import { assertAllClose } from "../_assert.ts";
import { LAUNCHERS, MPICH, onLauncher } from "../_mpi.ts";
import {
  assertSentence,
  commandLine,
  type Ended,
  exists,
  recordOf,
  run,
  writeClasses,
  writePicture,
} from "./_script.ts";

const ignore = LAUNCHERS.length === 0;
const NEED = "(needs mpich)";
const MPI = ["--distributed", "mpi"];

/** Four steps in all, of 64 images. */
const SMALL: readonly string[] = [
  ...["--arch", "resnet10", "--width", "4", "--limit", "128"],
  ...["--batch-size", "64", "--epochs", "2", "--attack-steps", "2"],
  ...["--eval-images", "32", "--eval-steps", "2", "--threads", "1"],
  ...["--device", "cpu", "--lr", "0.02", "--schedule", "cyclic"],
];

const folder = await Deno.makeTempDir({ prefix: "robust-reps-ranks-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Runs a script on some ranks, of one MPI or the first there is. */
async function runOn(
  size: number,
  script: string,
  args: readonly string[],
  launcher = LAUNCHERS[0],
): Promise<Ended> {
  const line = commandLine(script, [...args, ...MPI]);
  const { code, stdout, stderr } = await onLauncher(launcher, size, line)
    .output();
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

async function stateOf(out: string): Promise<TrainState> {
  const path = `${out}/training.safetensors`;
  return (await decodeTraining(await Deno.readFile(path), path)).state;
}

function assertNear(found: NamedTensors, expected: NamedTensors): void {
  assertEquals(Object.keys(found).sort(), Object.keys(expected).sort());
  for (const [name, value] of Object.entries(expected)) {
    assertAllClose(found[name], value, { tolerance: 1e-4, name });
  }
}

/** Lines that name an error. */
function errorsOf({ stderr }: Pick<Ended, "stderr">): string[] {
  return stderr.split("\n").filter((line) => line.startsWith("error: "));
}

let whole: Promise<TrainState> | undefined;

/** What one process makes of four ghost batches a step. */
function alone(): Promise<TrainState> {
  return whole ??= (async () => {
    const out = `${folder}/alone`;
    const ghosts = ["--ghost-batch", "16", "--out", out];
    const ended = await run("train", [...SMALL, ...ghosts]);
    assertEquals(ended.code, 0, ended.stderr);
    return await stateOf(out);
  })();
}

for (
  const launcher of ignore ? [{ name: NEED, command: "", args: [] }] : LAUNCHERS
) {
  Deno.test({
    name: `train on 4 ranks of ${launcher.name} is train in 4 ghost batches`,
    ignore,
    async fn() {
      const expected = await alone();
      const out = `${folder}/four-${launcher.name}`;
      const logs = `${folder}/logs-${launcher.name}`;
      const args = [...SMALL, "--out", out, "--rank-logs", logs];
      const ended = await runOn(4, "train", args, launcher);
      assertEquals(ended.code, 0, ended.stderr);
      const state = await stateOf(out);
      assertNear(state.parameters, expected.parameters);
      assertNear(state.velocity, expected.velocity);
      for (const [i, { loss, metrics }] of expected.history.entries()) {
        assert(Math.abs(state.history[i].loss - loss) < 1e-5);
        assertEquals(state.history[i].metrics, metrics);
      }
      // Rank 0 alone reports; the logs have all.
      assertEquals(ended.stdout, `${out}/model.safetensors\n`);
      assertEquals(ended.stderr.match(/^Epoch 1: /gm)?.length, 1);
      for (const rank of [0, 1, 2, 3]) {
        const log = await Deno.readTextFile(`${logs}/rank-${rank}.log`);
        assertStringIncludes(log, "Epoch 2: ");
      }
    },
  });
}

Deno.test({
  name: `train stopped on 2 ranks ends on 1 in the same network ${NEED}`,
  ignore,
  async fn() {
    const expected = await alone();
    const out = `${folder}/stopped`;
    const args = [...SMALL, "--ghost-batch", "16", "--out", out];
    const line = commandLine("train", [...args, ...MPI]);
    const child = onLauncher(LAUNCHERS[0], 2, line).spawn();
    // Once a first state is there, at the end of an epoch.
    const ended = child.output();
    await until(() => exists(`${out}/training.safetensors`));
    try {
      child.kill("SIGTERM");
    } catch {
      // It was quicker, which is no error.
    }
    const { code, stderr } = await ended;
    if (code !== 0) {
      assertEquals(errorsOf({ stderr: text(stderr) }).length, 1, text(stderr));
      assertMatch(
        text(stderr),
        /^error: rank \d of 2 on \S+: Stopped by SIGT/m,
      );
    }
    const resumed = await run("train", ["--resume", "--out", out]);
    assertEquals(resumed.code, 0, resumed.stderr);
    assertNear((await stateOf(out)).parameters, expected.parameters);
  },
});

/** Waits for something to come true, or for half a minute. */
async function until(isTrue: () => Promise<boolean>): Promise<void> {
  const start = performance.now();
  while (!(await isTrue()) && performance.now() - start < 30_000) {
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** Words of a file below /proc; none if its process has ended. */
async function wordsOf(pid: string, file: string): Promise<string[]> {
  try {
    return (await Deno.readTextFile(`/proc/${pid}/${file}`)).split(/[\0\s]+/);
  } catch {
    return [];
  }
}

/** Process of a rank that has begun to look after itself, if there is one. */
async function processOf(rank: number, out: string): Promise<number | null> {
  const entries = await Array.fromAsync(Deno.readDir("/proc"));
  const pids = entries.map(({ name }) => name)
    .filter((name) => /^\d+$/.test(name));
  for (const pid of pids) {
    const words = await wordsOf(pid, "cmdline");
    if (!words.includes("run") || !words.includes(out)) continue;
    const variables = await wordsOf(pid, "environ");
    if (!variables.includes(`PMI_RANK=${rank}`)) continue;
    // Its guard is a child of its own.
    for (const other of pids) {
      const [, , , parent] = await wordsOf(other, "stat");
      if (parent === pid) return Number(pid);
    }
  }
  return null;
}

/** Seconds within which a failure ends the whole job. */
const BOUND = 30;

Deno.test({
  name: `train ends and names the rank when one is killed (needs mpich, Linux)`,
  ignore: !MPICH || Deno.build.os !== "linux",
  async fn() {
    const out = `${folder}/killed`;
    const endless = SMALL.map((word, i) =>
      SMALL[i - 1] === "--epochs" ? "2000" : word
    );
    const args = [...endless, "--eval-images", "0", "--out", out, ...MPI];
    // At the start, then after ever more steps, each time from where the last
    // run had come.
    for (const [i, delay] of [0, 200, 700, 1500].entries()) {
      const rank = i % 2;
      const isThere = await exists(`${out}/training.safetensors`);
      const flags = await exists(`${out}/run.json`)
        ? ["--resume", "--out", out, ...MPI]
        : args;
      const line = commandLine("train", flags);
      const child = onLauncher(MPICH!, 2, line).spawn();
      const ended = child.output();
      await until(async () => await processOf(rank, out) !== null);
      if (i > 0) {
        await until(() => exists(`${out}/training.safetensors`));
      }
      await new Promise((done) => setTimeout(done, delay));
      const killed = performance.now();
      Deno.kill((await processOf(rank, out))!, "SIGKILL");
      const { code, stderr } = await ended;
      const seconds = (performance.now() - killed) / 1000;
      assert(code !== 0);
      assert(seconds < BOUND, `${seconds} s`);
      const errors = errorsOf({ stderr: text(stderr) });
      assertEquals(errors.length, 1, text(stderr));
      assertMatch(errors[0], new RegExp(`^error: rank ${rank} of 2 on \\S+: `));
      // Whatever was written is whole.
      if (isThere || await exists(`${out}/training.safetensors`)) {
        await stateOf(out);
        await readCheckpoint(`${out}/model.safetensors`);
      }
    }
  },
});

Deno.test({
  // As Slurm does where one has died.
  name: `train asked to stop does not wait for a rank that never answers ` +
    `(needs mpich, Linux)`,
  ignore: !MPICH || Deno.build.os !== "linux",
  async fn() {
    const out = `${folder}/silent`;
    const args = [...SMALL, "--epochs", "2000", "--eval-images", "0"];
    const line = commandLine("train", [...args, "--out", out, ...MPI]);
    const child = onLauncher(MPICH!, 2, line).spawn();
    const ended = child.output();
    await until(() => exists(`${out}/training.safetensors`));
    const [asked, silent] = await Promise.all(
      [0, 1].map((rank) => processOf(rank, out)),
    );
    Deno.kill(silent!, "SIGSTOP");
    const begun = performance.now();
    try {
      Deno.kill(asked!, "SIGTERM");
      const { code, stderr } = await ended;
      assert(code !== 0);
      assert((performance.now() - begun) / 1000 < BOUND);
      const errors = errorsOf({ stderr: text(stderr) });
      assertMatch(
        errors[0],
        /^error: rank 0 of 2 on \S+: asked to stop, and another rank has not /,
      );
      await stateOf(out);
    } finally {
      try {
        Deno.kill(silent!, "SIGKILL");
      } catch {
        // It ended with the job.
      }
    }
  },
});

Deno.test({
  name: `train ends and names the rank whose data cannot be read ${NEED}`,
  ignore: !MPICH,
  async fn() {
    const data = `${folder}/pictures`;
    for (const split of ["train", "val"]) {
      await writeClasses(`${data}/${split}`, ["a", "b"], 4);
    }
    const args = [
      ...[...SMALL, "--dataset", "image_folder", "--size", "16"],
      ...["--batch-size", "4", "--out", `${folder}/unread`, ...MPI],
    ];
    const lines = [data, `${folder}/nowhere`].map((data) =>
      commandLine("train", [...args, "--data", data])
    );
    const begun = performance.now();
    const { code, stderr } = await onLauncher(MPICH!, 2, ...lines).output();
    assert((performance.now() - begun) / 1000 < BOUND);
    assertEquals(code, 1);
    const errors = errorsOf({ stderr: text(stderr) });
    assertEquals(errors.length, 1, text(stderr));
    assertMatch(errors[0], /^error: rank 1 of 2 on \S+: Cannot .*nowhere/);
  },
});

Deno.test({
  name: `an error that all ranks have is told once ${NEED}`,
  ignore,
  async fn() {
    const out = `${folder}/odd`;
    const uneven = await runOn(3, "train", [...SMALL, "--out", out]);
    assertEquals(errorsOf(uneven), [
      "error: Cannot train on 3 ranks in batches of 64 images: choose a batch " +
      "size that 3 divides",
    ]);
    assertEquals(uneven.code, 2);
    const unknown = await runOn(2, "train", ["--out", out, "--ranks", "2"]);
    assertEquals(errorsOf(unknown).length, 1, unknown.stderr);
    assertEquals(unknown.code, 2);
  },
});

Deno.test("train scales the learning rate with the batch and warms it up", async () => {
  const out = `${folder}/scaled`;
  const ended = await run("train", [
    ...[...SMALL, "--epsilon", "0", "--eval-images", "0", "--out", out],
    ...["--schedule", "step", "--lr-batch", "16", "--lr-warmup", "1"],
  ]);
  assertEquals(ended.code, 0, ended.stderr);
  const { history } = await stateOf(out);
  const rates = history.map(({ learningRate }) => learningRate);
  // Batches of 64: four times 0.02, from 0.02; then the last of two steps.
  assert(Math.abs(rates[0] - 0.08 * (0.25 + 0.75 * 0.75)) < 1e-9);
  assert(Math.abs(rates[1] - 0.08) < 1e-9);
});

Deno.test("--distributed without a launcher is an error", async () => {
  for (const script of ["train", "evaluate", "represent"]) {
    const out = `${folder}/none.npy`;
    const flags = script === "evaluate" ? [] : ["--out", out];
    const model = script === "train" ? [] : ["--model", "m"];
    const words = script === "represent" ? ["a.png"] : [];
    const ended = await run(script, [...flags, ...model, ...words, ...MPI]);
    assertSentence(
      ended,
      2,
      /^error: Cannot use --distributed mpi as no launcher started this process: begin the command with mpirun -n <ranks>, or srun within a Slurm job$/,
    );
  }
});

Deno.test({
  name: `evaluate and represent on ranks write what one process writes ${NEED}`,
  ignore,
  async fn() {
    await alone();
    const model = ["--model", `${folder}/alone`, "--threads", "1"];
    const accuracy = [
      ...["--limit", "50", "--batch-size", "16", "--attack-steps", "2"],
      "--random-start",
    ];
    const pictures = `${folder}/some`;
    await Deno.mkdir(pictures);
    for (let i = 0; i < 7; i++) {
      const path = `${pictures}/${i}.png`;
      await writePicture(path, { width: 20, height: 24, hue: 30 * i });
    }
    await Deno.writeTextFile(`${pictures}/3.png`, "no picture");
    const results = [];
    for (const size of [1, 3]) {
      const json = `${folder}/accuracy-${size}.json`;
      const file = `${folder}/rows-${size}.safetensors`;
      const start = (script: string, args: readonly string[]) =>
        size === 1 ? run(script, args) : runOn(size, script, args);
      const first = await start("evaluate", [
        ...[...model, ...accuracy, "--json", json],
      ]);
      assertEquals(first.code, 0, first.stderr);
      const second = await start("represent", [
        ...[...model, "--batch-size", "2", "--out", file, pictures],
      ]);
      assertEquals(second.code, 0, second.stderr);
      assertStringIncludes(second.stderr, "3.png");
      const bytes = await Deno.readFile(file);
      const { metrics } = await recordOf(json);
      results.push({
        accuracy: first.stdout,
        metrics,
        rows: second.stdout.replace(file, ""),
        contents: decodeSafetensors(bytes, file),
      });
    }
    assertEquals(results[1], results[0]);
    assertEquals(results[0].contents.tensors.representation.shape, [6, 32]);
  },
});
