/**
 * What a build hands to an app.
 *
 * @module
 */
import type { ComponentType } from "preact";

/** A file under `routes/`. */
export interface RouteFile {
  /** Relative to it, without extension, such as "experiments/[name]". */
  readonly id: string;
  readonly module: Readonly<Record<string, unknown>>;
}

/** A component that is revived in the browser. */
export interface IslandInfo {
  readonly name: string;
  /** Path of its script. */
  readonly url: string;
}

/** Result of `Builder.build()`. */
export interface Snapshot {
  readonly root: string;
  readonly staticDir: string;
  readonly routes: readonly RouteFile[];
  readonly islands: ReadonlyMap<ComponentType, IslandInfo>;
  /** Path of the script that revives islands. */
  readonly client: string;
  /** Scripts by path, whose names hold their hash. */
  readonly assets: ReadonlyMap<string, Uint8Array<ArrayBuffer>>;
}
