/**
 * Reads files of npm packages that are not modules: WebAssembly and fonts.
 * Needs read permission for the package's folder, in Deno's cache or in
 * `node_modules`.
 *
 * Neither a WebAssembly import nor a `bytes` import would need it, but the
 * former fails below a dynamic import and the latter is not yet stable (Deno
 * 2.9).
 *
 * @module
 */
// Importing a file of the package makes `import.meta.resolve()` give the
// place of the package on disk instead of an `npm:` address.
import "dejavu-fonts-ttf/package.json" with { type: "json" };
import "imagescript/package.json" with { type: "json" };

const ROOTS = {
  "dejavu-fonts-ttf": import.meta.resolve("dejavu-fonts-ttf/package.json"),
  imagescript: import.meta.resolve("imagescript/package.json"),
};

/** Contents of a file of a package. */
export function readPackageFile(
  name: keyof typeof ROOTS,
  path: string,
): Promise<Uint8Array<ArrayBuffer>> {
  return Deno.readFile(new URL(path, ROOTS[name]));
}
