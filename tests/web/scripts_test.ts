import { join } from "node:path";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { ROOT } from "../scripts/_script.ts";

/** A script of the site, as `deno task` runs it. */
function command(name: string, args: readonly string[]): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "--quiet", "--no-prompt", "--no-check", "-P=web"],
      ...[`web/${name}.ts`, ...args],
    ],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

async function run(name: string, args: readonly string[]) {
  const { code, stdout, stderr } = await command(name, args).output();
  const [out, err] = [stdout, stderr].map((b) => new TextDecoder().decode(b));
  return { code, out, err };
}

Deno.test("deno task web serves this machine, says where, and ends at Ctrl-C", async () => {
  const child = command("dev", ["--port", "0"]).spawn();
  const errors = new Response(child.stderr).text();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value } = await reader.read();
  assertMatch(value!, /^http:\/\/127\.0\.0\.1:\d+\/\n$/);
  const response = await fetch(`${value!.trim()}runs`);
  assertEquals(response.status, 200);
  await response.body?.cancel();
  const { port } = new URL(value!.trim());
  const other = await run("dev", ["--port", port]);
  assertEquals(other.code, 2);
  assertMatch(
    other.err,
    /error: Cannot listen on port \d+: it is in use; pass/,
  );
  child.kill("SIGINT");
  const [{ code }] = await Promise.all([child.status, reader.cancel()]);
  assertEquals(code, 0);
  assertMatch(await errors, /SIGINT: stopping/);
});

Deno.test("mistakes in the command line are one sentence", async () => {
  const cases: [string, string[], RegExp][] = [
    ["dev", ["--port", "70000"], /--port must be <= 65535/],
    ["dev", ["--host", "256.1.1.1"], /no such address; pass another --host/],
    ["build_site", [], /Missing flag --out/],
    ["build_site", ["--out", join(ROOT, "web")], /the folder is not empty/],
  ];
  for (const [name, args, message] of cases) {
    const { code, out, err } = await run(name, args);
    assertEquals([code, out], [2, ""], `${name} ${args}`);
    assertMatch(err, message);
    assert(!err.includes("    at "), err);
  }
});

Deno.test("deno task build-site writes pages with relative addresses", async () => {
  const root = await Deno.makeTempDir();
  try {
    const out = join(root, "site");
    const folders = ["--runs", root, "--results", root];
    const { code, out: printed } = await run("build_site", [
      ...["--out", out],
      ...folders,
    ]);
    assertEquals(code, 0);
    assertEquals(printed.trim(), join(out, "index.html"));
    for (
      const page of ["", "experiments/", "runs/", "models/", "playground/"]
    ) {
      const html = await Deno.readTextFile(join(out, `${page}index.html`));
      assert(!/ (href|src)="\//.test(html), page);
      assertMatch(html, /http-equiv="content-security-policy"/);
    }
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
