/**
 * What all routes share.
 *
 * @module
 */
import { createDefine } from "fresh";
import type { Library } from "./library.ts";

/** Of a request. */
export interface State {
  library: Library;
}

export const define = createDefine<State>();
