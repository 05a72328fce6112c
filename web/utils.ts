/**
 * What all routes share.
 *
 * @module
 */
import { createDefine, HttpError } from "fresh";
import type { Library } from "./library.ts";

/** Of a request. */
export interface State {
  library: Library;
}

export const define = createDefine<State>();

/** Status for what was thrown; the server's own faults go to its log. */
export function statusOf(error: unknown): number {
  const status = error instanceof HttpError ? error.status : 500;
  if (status >= 500) console.error(error);
  return status;
}
