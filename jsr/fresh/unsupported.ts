/**
 * What the stand-in lacks of Fresh.
 *
 * @module
 */

/** Ends whatever needs it. */
export function unsupported(what: string): never {
  throw new Error(`Unsupported by the stand-in for Fresh: ${what}`);
}

/** Makes whoever reads upstream's properties that a class lacks fail. */
export function leaveOut(
  { name, prototype }: { readonly name: string; readonly prototype: object },
  properties: readonly string[],
): void {
  for (const property of properties) {
    const get = () => unsupported(`${name}.${property}`);
    Object.defineProperty(prototype, property, { get });
  }
}
