/**
 * Writes `deno.jsr.json`: `deno.json` with the stand-ins of this folder mapped
 * to the JSR packages they stand for. Run it after a change to `deno.json`:
 *
 * ```sh
 * deno run -R -W jsr/sync.ts
 * ```
 *
 * @module
 */

/** Import map name -> the package a stand-in stands for. */
export const JSR_IMPORTS: Readonly<Record<string, string>> = {
  "@std/assert": "jsr:@std/assert@^1.0.0",
  "@std/cli/parse-args": "jsr:@std/cli@^1.0.0/parse-args",
  "fresh": "jsr:@fresh/core@^2.3.0",
  "fresh/dev": "jsr:@fresh/core@^2.3.0/dev",
  "fresh/runtime": "jsr:@fresh/core@^2.3.0/runtime",
};

/**
 * Maps stand-ins to JSR and keeps every other character.
 *
 * @param text Content of `deno.json`
 * @returns Content of `deno.jsr.json`
 * @throws {SyntaxError} If a stand-in has no entry in {@linkcode JSR_IMPORTS}
 */
export function toJsr(text: string): string {
  return text.replace(
    /"([^"\n]+)": "\.\/jsr\/[^"\n]*"/g,
    (_, name: string) => {
      if (!Object.hasOwn(JSR_IMPORTS, name)) {
        throw new SyntaxError(
          `Cannot map "${name}" to JSR: add it to JSR_IMPORTS in jsr/sync.ts`,
        );
      }
      return `${JSON.stringify(name)}: ${JSON.stringify(JSR_IMPORTS[name])}`;
    },
  );
}

if (import.meta.main) {
  const root = new URL("../", import.meta.url);
  const text = await Deno.readTextFile(new URL("deno.json", root));
  await Deno.writeTextFile(new URL("deno.jsr.json", root), toJsr(text));
}
