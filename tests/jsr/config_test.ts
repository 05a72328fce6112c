import { assert, assertEquals, assertThrows } from "@std/assert";
import { JSR_IMPORTS, toJsr } from "../../jsr/sync.ts";

interface Config {
  imports: Record<string, string>;
}

async function readConfig(name: string): Promise<Config> {
  const url = new URL(`../../${name}`, import.meta.url);
  return JSON.parse(await Deno.readTextFile(url));
}

Deno.test("deno.jsr.json differs from deno.json in the JSR packages only (else run: deno run -R -W jsr/sync.ts)", async () => {
  const local = await readConfig("deno.json");
  const jsr = await readConfig("deno.jsr.json");
  for (const [name, target] of Object.entries(JSR_IMPORTS)) {
    if (!(name in local.imports)) continue;
    assert(local.imports[name].startsWith("./jsr/"), name);
    assertEquals(jsr.imports[name], target);
    delete local.imports[name];
    delete jsr.imports[name];
  }
  assertEquals(jsr, local);
});

Deno.test("toJsr() maps stand-ins and keeps the rest", () => {
  const text = `{ "imports": { "@std/assert": "./jsr/x.ts", "a": "npm:a" } }`;
  assertEquals(
    toJsr(text),
    `{ "imports": { "@std/assert": "jsr:@std/assert@^1.0.0", "a": "npm:a" } }`,
  );
});

Deno.test("toJsr() refuses a stand-in it cannot map", () => {
  assertThrows(
    () => toJsr(`{ "imports": { "x": "./jsr/x.ts" } }`),
    SyntaxError,
    `Cannot map "x"`,
  );
});
