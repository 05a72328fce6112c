import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  COMMON_FLAGS,
  describeError,
  type FlagTable,
  help,
  parseFlags,
  Reporter,
  UsageError,
} from "../../scripts/_cli.ts";

const FLAGS = {
  epsilon: {
    type: "number",
    default: 0.5,
    min: 0,
    aliases: ["eps"],
    help: "l2 radius",
  },
  stepSize: {
    type: "number",
    above: 0,
    max: 10,
    aliases: ["attack-lr"],
    help: "step size",
  },
  steps: { type: "integer", default: 7, help: "PGD steps" },
  checkpoint: { type: "path", required: true, help: "model to attack" },
  note: { type: "string", help: "any text" },
  targets: { type: "integer", multiple: true, help: "classes" },
  augment: {
    type: "boolean",
    default: true,
    aliases: ["data-aug"],
    help: "augment images",
  },
  model: {
    type: "choice",
    choices: ["resnet18", "resnet50", "vgg16"],
    default: "resnet18",
    help: "architecture",
  },
  ...COMMON_FLAGS,
} as const satisfies FlagTable;

function parse(...args: string[]) {
  return parseFlags(["--checkpoint", "a", ...args], FLAGS);
}

function refusal(...args: string[]): string {
  return assertThrows(() => parse(...args), UsageError).message;
}

Deno.test("parseFlags() gives defaults with their types", () => {
  const flags = parse();
  flags.epsilon satisfies number;
  flags.checkpoint satisfies string;
  flags.targets satisfies number[];
  flags.model satisfies "resnet18" | "resnet50" | "vgg16";
  // @ts-expect-error A flag without a default may be missing.
  flags.stepSize satisfies number;
  flags.stepSize satisfies number | undefined;
  assertEquals(flags, {
    epsilon: 0.5,
    stepSize: undefined,
    steps: 7,
    checkpoint: "a",
    note: undefined,
    targets: [],
    augment: true,
    model: "resnet18",
    seed: 0,
    device: "auto",
    threads: undefined,
    json: undefined,
    quiet: false,
    debug: false,
    help: false,
    _: [],
  });
});

Deno.test("parseFlags() reads values in every spelling", () => {
  assertEquals(parse("--epsilon", "1e-3").epsilon, 1e-3);
  assertEquals(parse("--eps=.25").epsilon, 0.25);
  assertEquals(parse("--attack-lr", "2").stepSize, 2);
  assertEquals(parse("--steps=10_000").steps, 10_000);
  assertEquals(parse("--steps", "1e4").steps, 10_000);
  assertEquals(parse("--steps", "-3").steps, -3);
  assertEquals(parse("--steps", "1", "--steps", "2").steps, 2);
  assertEquals(parse("--targets", "1", "--targets=-2").targets, [1, -2]);
  assertEquals(parse("--note=--a=b").note, "--a=b");
  assertEquals(parse("--note", "").note, "");
  assertEquals(parse("--note", "1e3").note, "1e3");
  assertEquals(parse("--json", "-").json, "-");
  assertEquals(parse("--model", "vgg16").model, "vgg16");
});

Deno.test("parseFlags() negates boolean flags under every name", () => {
  assertEquals(parse("--no-augment").augment, false);
  assertEquals(parse("--no-data-aug").augment, false);
  assertEquals(parse("--no-augment", "--augment").augment, true);
  assertEquals(parse("--augment", "--no-augment").augment, false);
  assertEquals(parse("--quiet", "--no-debug").quiet, true);
});

Deno.test("parseFlags() names the flag, the value and what was wanted", () => {
  const refused: [string[], string][] = [
    [["--epsilon", "-1"], "--epsilon must be >= 0: current value is -1"],
    [["--epsilon=-1"], "--epsilon must be >= 0: current value is -1"],
    [["--eps=-.5"], "--epsilon must be >= 0: current value is -.5"],
    [["--epsilon", "a"], '--epsilon must be a number: current value is "a"'],
    [["--epsilon="], '--epsilon must be a number: current value is ""'],
    [["--epsilon=NaN"], '--epsilon must be a number: current value is "NaN"'],
    [["--epsilon", "-inf"], 'be a number: current value is "-inf"'],
    [["--epsilon", "1e999"], "a number that a double can hold"],
    [["--step-size", "0"], "--step-size must be > 0: current value is 0"],
    [["--step-size", "11"], "--step-size must be <= 10: current value is 11"],
    [["--steps", "1.5"], "--steps must be an integer: current value is 1.5"],
    [["--threads", "0"], "--threads must be >= 1: current value is 0"],
    [["--epsilon"], "--epsilon needs a value: pass --epsilon <number>"],
    [["--epsilon", "--quiet"], "--epsilon needs a value"],
    [["--json="], "--json must be a path: current value is empty"],
    [["--quiet=yes"], "--quiet takes no value: pass --quiet alone"],
    [["--epsilom", "1"], "Unknown flag --epsilom: did you mean --epsilon?"],
    [["--stepSize", "1"], "Unknown flag --stepSize: did you mean --step-size?"],
    [["--attack_lr=1"], "Unknown flag --attack_lr: did you mean --attack-lr?"],
    [["--wholly-else"], "pass --help to list the flags"],
    [["--no-epsilon"], "Unknown flag --no-epsilon"],
    [["-x"], "Unknown flag -x"],
    [
      ["--model", "resnet19"],
      '--model must be resnet18, resnet50 or vgg16: current value is "resnet19"; did you mean resnet18?',
    ],
    [["--model", "VGG16"], "did you mean vgg16?"],
    [["cat.png"], 'Unexpected argument "cat.png": this script takes flags'],
  ];
  for (const [args, part] of refused) {
    assertStringIncludes(refusal(...args), part);
  }
});

Deno.test("parseFlags() names a missing required flag", () => {
  assertStringIncludes(
    assertThrows(() => parseFlags([], FLAGS), UsageError).message,
    "Missing flag --checkpoint, model to attack: pass --checkpoint <path>",
  );
});

Deno.test("parseFlags() counts positionals", () => {
  const options = {
    positional: { name: "image", help: "images to invert", min: 1, max: 2 },
  };
  const read = (...args: string[]) => parseFlags(args, COMMON_FLAGS, options)._;
  assertEquals(read("1", "--seed", "2", "a"), ["1", "a"]);
  assertEquals(read("--quiet", "true"), ["true"]);
  assertEquals(read("a", "--", "--seed"), ["a", "--seed"]);
  assertStringIncludes(
    assertThrows(() => read(), UsageError).message,
    "Missing argument <image>, images to invert: 0 given, at least 1 needed",
  );
  assertStringIncludes(
    assertThrows(() => read("a", "b", "c"), UsageError).message,
    'Unexpected argument "c": 3 given, at most 2 <image> allowed',
  );
});

Deno.test("parseFlags() refuses a table in which names collide", () => {
  const table = {
    eps: { type: "number", help: "a" },
    epsilon: { type: "number", aliases: ["eps"], help: "b" },
  } as const satisfies FlagTable;
  assertThrows(() => parseFlags([], table), TypeError, "two flags --eps");
});

Deno.test("help() aligns flags within 80 columns", () => {
  const text = help(import.meta.url, FLAGS, {
    summary: "A summary",
    positional: { name: "image", help: "images" },
  });
  assertStringIncludes(
    text,
    "deno run scripts/cli_test.ts [flags] [<image>...]",
  );
  assertMatch(
    text,
    /^ {2}--epsilon <number> +l2 radius \(default 0\.5; >= 0;/m,
  );
  assertStringIncludes(text, "--eps)");
  assertMatch(text, /^ {2}--\[no-\]augment +augment images/m);
  assertMatch(text, /^ {2}--device <auto\|cpu\|webgpu\|cuda>/m);
  assertMatch(
    text,
    /--model <name> +.*resnet18,\s+resnet50 or vgg16;\s+default/,
  );
  for (const line of text.split("\n")) assert(line.length <= 80, line);
});

Deno.test("describeError() rewords raw errors of files and permissions", () => {
  const cases: [unknown, string][] = [
    [new Error("First\n  second"), "First"],
    [new Error("Outer", { cause: new Error("inner") }), "Outer"],
    ["text", "text"],
    [new TypeError(), "TypeError"],
    [
      new Deno.errors.NotFound(
        "No such file or directory (os error 2): open 'a.png'",
      ),
      'Cannot open "a.png": no such file or directory',
    ],
    [
      new Deno.errors.PermissionDenied(
        "Permission denied (os error 13): mkdir '/x'",
      ),
      'Cannot create "/x": permission denied',
    ],
    [
      new Error("No space left on device (os error 28)"),
      "Cannot read or write: no space left on device; free some space and run again",
    ],
    [
      new Deno.errors.NotCapable(
        'Requires read access to "a", run again with the --allow-read flag',
      ),
      `Cannot go on without read access to "a": run again with deno's --allow-read permission`,
    ],
  ];
  for (const [error, text] of cases) assertEquals(describeError(error), text);
  const debug = describeError(
    new Error("Outer", { cause: new Error("inner") }),
    { debug: true },
  );
  assertStringIncludes(debug, "inner");
  assertStringIncludes(debug, "cli_test.ts");
});

function record(terminal: boolean, quiet = false) {
  let written = "";
  const clock = { ms: 0 };
  const reporter = new Reporter({
    terminal,
    quiet,
    write: (text) => written += text,
    now: () => clock.ms,
  });
  return { reporter, clock, text: () => written };
}

Deno.test("Reporter draws one line at most ten times a second on a terminal", () => {
  const { reporter, clock, text } = record(true);
  const task = reporter.start("train", 1000);
  for (let i = 1; i <= 100; i++) {
    clock.ms = i * 10;
    task.update(i, "loss 1.5");
  }
  assertEquals(text().match(/\r/g)?.length, 10);
  assertStringIncludes(
    text(),
    "\rtrain: 91/1000 9% 100.0/s 9.1 s left - loss 1.5\x1b[K",
  );
  reporter.note("hello");
  assertStringIncludes(text(), "\r\x1b[Khello\n\rtrain: 91/1000");
  task.done();
  assert(text().endsWith("\r\x1b[Ktrain: 100 in 1.0 s - loss 1.5\n"), text());
});

Deno.test("Reporter prints a line every ten seconds elsewhere", () => {
  const { reporter, clock, text } = record(false);
  const task = reporter.start("train", 100, 20);
  for (let i = 21; i <= 60; i++) {
    clock.ms = (i - 20) * 1000;
    task.update(i);
  }
  task.done("accuracy 0.5");
  assertEquals(text().split("\n"), [
    "train: 30/100 30% 1.0/s 1:10 min left",
    "train: 40/100 40% 1.0/s 1:00 min left",
    "train: 50/100 50% 1.0/s 50 s left",
    "train: 60/100 60% 1.0/s 40 s left",
    "train: 60 in 40 s - accuracy 0.5",
    "",
  ]);
});

Deno.test("Reporter prints nothing if quiet", () => {
  const { reporter, clock, text } = record(true, true);
  const task = reporter.start("train", 100);
  clock.ms = 60_000;
  task.update(50);
  reporter.note("hello");
  task.done();
  assertEquals(text(), "");
});

const SCRIPT = `/**
 * Adds numbers, as the paper does.
 *
 * A second paragraph.
 *
 * @module
 */
import { COMMON_FLAGS, runScript } from ${
  JSON.stringify(new URL("../../scripts/_cli.ts", import.meta.url).href)
};

const FLAGS = {
  how: { type: "string", default: "well", help: "how to end" },
  ...COMMON_FLAGS,
} as const;

await runScript(import.meta, FLAGS, {}, async (flags, { signal, note, progress }) => {
  note("a note");
  const task = progress.start("work", 1);
  task.update(1);
  task.done();
  switch (flags.how) {
    case "throw":
      throw new Error("Cannot go on: value is 3\\nand more", {
        cause: new Error("the cause"),
      });
    case "read":
      await Deno.readFile("/nowhere/at/all");
      break;
    case "full":
      await Deno.writeFile("/dev/full", new Uint8Array(10));
      break;
    case "net":
      await fetch("https://example.test");
      break;
    case "reject":
      Promise.reject(new Error("Unheeded"));
      await new Promise((resolve) => setTimeout(resolve, 1000));
      break;
    case "wait":
      console.log("waiting");
      await new Promise((_, reject) => {
        const timer = setTimeout(() => reject(new Error("Too late")), 20_000);
        signal.addEventListener("abort", () => {
          clearTimeout(timer);
          reject(signal.reason);
        });
      });
      break;
    case "stubborn":
      console.log("waiting");
      await new Promise((resolve) => setTimeout(resolve, 20_000));
      break;
  }
  console.log("result " + flags.seed);
});
`;

async function withScript<T>(use: (path: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/adds_script.ts`;
    await Deno.writeTextFile(path, SCRIPT);
    return await use(path);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function command(
  path: string,
  args: readonly string[],
  permissions = ["--allow-read", "--allow-write"],
): Deno.Command {
  const config = new URL("../../deno.json", import.meta.url).pathname;
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--no-check",
      `--config=${config}`,
      ...permissions,
      path,
      ...args,
    ],
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

async function runIt(path: string, ...args: string[]) {
  const { code, stdout, stderr } = await command(path, args).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

Deno.test("runScript() exits 0 with results on stdout only", async () => {
  await withScript(async (path) => {
    const loud = await runIt(path, "--seed", "5");
    assertEquals(loud.stdout, "result 5\n");
    assertMatch(loud.stderr, /^a note\nwork: 1 in [\d.]+ s\n$/);
    assertEquals(loud.code, 0);
    const quiet = await runIt(path, "--quiet");
    assertEquals(quiet, { code: 0, stdout: "result 0\n", stderr: "" });
  });
});

Deno.test("runScript() prints the module comment and the flags for --help", async () => {
  await withScript(async (path) => {
    const { code, stdout, stderr } = await runIt(path, "--help", "--bad");
    assertEquals([code, stderr], [0, ""]);
    assert(
      stdout.startsWith(
        "Adds numbers, as the paper does.\n\nA second paragraph.\n\nUsage: ",
      ),
      stdout,
    );
    assertMatch(stdout, /--how <string> +how to end \(default well\)/);
    assert(!stdout.includes("@module"));
  });
});

Deno.test("runScript() turns errors into one sentence and an exit code", async () => {
  await withScript(async (path) => {
    assertEquals(await runIt(path, "--quiet", "--sed", "1"), {
      code: 2,
      stdout: "",
      stderr: "error: Unknown flag --sed: did you mean --seed?\n",
    });
    const ends: [string, string | RegExp][] = [
      ["throw", "error: Cannot go on: value is 3\n"],
      [
        "read",
        'error: Cannot read "/nowhere/at/all": no such file or directory\n',
      ],
      [
        "net",
        /^error: Cannot go on without net access to "example.test(:443)?": .*--allow-net.*\n$/,
      ],
      ["reject", "error: Unheeded\n"],
    ];
    for (const [how, wanted] of ends) {
      const ended = await runIt(path, "--quiet", "--how", how);
      assertEquals([ended.code, ended.stdout], [1, ""], how);
      if (typeof wanted === "string") assertEquals(ended.stderr, wanted);
      else assertMatch(ended.stderr, wanted);
    }
  });
});

Deno.test("runScript() prints stack and cause for --debug", async () => {
  await withScript(async (path) => {
    const { code, stderr } = await runIt(path, "--how", "throw", "--debug");
    assertEquals(code, 1);
    for (const part of ["and more", "the cause", "adds_script.ts:"]) {
      assertStringIncludes(stderr, part);
    }
  });
});

Deno.test({
  name: "runScript() names a full disk (needs /dev/full)",
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    await withScript(async (path) => {
      // Deno opens files under /dev with all permissions only.
      const { code, stderr } = await command(path, ["--how", "full"], ["-A"])
        .output();
      assertEquals(code, 1);
      assertMatch(
        new TextDecoder().decode(stderr),
        /^error: Cannot write.*: no space left on device; .*$/m,
      );
    });
  },
});

async function interrupt(path: string, how: string, signals: Deno.Signal[]) {
  const child = command(path, ["--how", how]).spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  const stderr = new Response(child.stderr).text();
  for (const signal of signals) {
    child.kill(signal);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const { code } = await child.status;
  await reader.cancel();
  return { code, stderr: await stderr };
}

Deno.test({
  name: "runScript() exits 130 after SIGINT or SIGTERM",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    await withScript(async (path) => {
      for (const signal of ["SIGINT", "SIGTERM"] as const) {
        const { code, stderr } = await interrupt(path, "wait", [signal]);
        assertEquals(code, 130);
        assertStringIncludes(stderr, `error: Stopped by ${signal}\n`);
      }
      const twice = await interrupt(path, "stubborn", ["SIGINT", "SIGINT"]);
      assertEquals(twice.code, 130);
    });
  },
});
