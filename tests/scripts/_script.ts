/**
 * Runs scripts as a user would, and trains the smallest network for them.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import { Image } from "imagescript";
import { parseRun, type Run } from "../../robust/run.ts";

/** Folder of the repository. */
export const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** A training of seconds: 4 steps an epoch. */
export const SMALL: readonly string[] = [
  ...["--arch", "resnet10", "--width", "2", "--limit", "64"],
  ...["--batch-size", "16", "--epochs", "2", "--attack-steps", "2"],
  ...["--eval-images", "16", "--eval-steps", "2", "--threads", "1"],
  ...["--device", "cpu"],
];

/** How a script ended. */
export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface ScriptOptions {
  /** Working folder (default: the repository). */
  readonly cwd?: string;
  /** Deno's flags for permissions (default: those of deno.json). */
  readonly permissions?: readonly string[];
}

/** Scripts with permissions of their own in deno.json. */
const OWN_PERMISSIONS = { download: true, doctor: true };

/** The command line of a script; asking for a permission would end it. */
export function commandLine(
  script: string,
  args: readonly string[],
  { permissions }: ScriptOptions = {},
): string[] {
  const granted = permissions ??
    [script in OWN_PERMISSIONS ? `-P=${script}` : "-P"];
  return [
    ...[Deno.execPath(), "run", "--quiet", "--no-prompt", "--no-check"],
    ...[...granted, `--config=${ROOT}deno.json`],
    ...[`${ROOT}scripts/${script}.ts`, ...args],
  ];
}

/** The command of a script. */
export function command(
  script: string,
  args: readonly string[],
  options: ScriptOptions = {},
): Deno.Command {
  const { cwd = ROOT } = options;
  const [deno, ...line] = commandLine(script, args, options);
  return new Deno.Command(deno, {
    args: line,
    cwd,
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** Runs a script to its end. */
export async function run(
  script: string,
  args: readonly string[],
  options?: ScriptOptions,
): Promise<Ended> {
  const { code, stdout, stderr } = await command(script, args, options)
    .output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** Runs a script that must succeed; returns what it printed on stdout. */
export async function succeed(
  script: string,
  args: readonly string[],
  options?: ScriptOptions,
): Promise<string> {
  const { code, stdout, stderr } = await run(script, args, options);
  assertEquals(code, 0, `${script} ${args.join(" ")} failed:\n${stderr}`);
  return stdout;
}

/** Checks for one sentence and nothing else on both streams. */
export function assertSentence(
  ended: Ended,
  code: number,
  wanted: RegExp,
): void {
  const { stdout, stderr } = ended;
  assertEquals(stdout, "");
  const [line, ...rest] = stderr.split("\n");
  assertEquals(rest, [""], stderr);
  assert(line.startsWith("error: "), line);
  assertMatch(line, wanted);
  // No stack, no name of an error's class.
  assert(!/\bat .*:\d+:\d+|\bError\b/.test(line), line);
  assertEquals(ended.code, code, line);
}

/** Reads the record in a run's folder, or a file of `--json`. */
export async function recordOf(path: string): Promise<Run> {
  const file = path.endsWith(".json") ? path : `${path}/run.json`;
  return parseRun(await Deno.readTextFile(file), file);
}

/** Paths of all files below a folder, relative to it, sorted. */
export async function filesBelow(folder: string): Promise<string[]> {
  const paths: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (!isDirectory) paths.push(name);
    else {
      const inner = await filesBelow(`${folder}/${name}`);
      paths.push(...inner.map((path) => `${name}/${path}`));
    }
  }
  return paths.sort();
}

/** Whether a file or folder is there. */
export async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

/** Writes a picture of a soft gradient, opaque or not, as PNG or JPEG. */
export async function writePicture(
  path: string,
  { width, height, alpha = 255, hue = 0 }: {
    readonly width: number;
    readonly height: number;
    readonly alpha?: number;
    readonly hue?: number;
  },
): Promise<string> {
  const picture = new Image(width, height).fill((x: number, y: number) =>
    Image.rgbaToColor(
      Math.round(255 * x / width),
      Math.round(255 * y / height),
      hue,
      alpha,
    )
  );
  const isJpeg = path.endsWith(".jpg");
  const bytes = isJpeg ? await picture.encodeJPEG(90) : await picture.encode();
  await Deno.writeFile(path, bytes);
  return path;
}

/** Class folders of small pictures below a folder of a split. */
export async function writeClasses(
  folder: string,
  classes: readonly string[],
  count: number,
): Promise<void> {
  for (const [label, name] of classes.entries()) {
    await Deno.mkdir(`${folder}/${name}`, { recursive: true });
    for (let i = 0; i < count; i++) {
      await writePicture(`${folder}/${name}/${i}.png`, {
        width: 16,
        height: 16,
        hue: 40 * label + i,
      });
    }
  }
}
