/** The same under a name that a static copy can have. */
export { handler } from "./index.ts";
