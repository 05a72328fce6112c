/**
 * What the playground's page and its engine, a worker, say to each other.
 *
 * @module
 */

/** What a picture is optimised for. */
export type Mode = "invert" | "interpolate" | "visualize" | "add";

/** Where an optimisation starts, if not at a picture. */
export type Start = "noise" | "grey" | "picture";

/** Settings that may change while it runs. */
export interface Steering {
  /** Length of a step. */
  readonly stepSize: number;
  /** L2 radius around the start; 1000 leaves it unconstrained. */
  readonly radius: number;
}

/** One thing to do with one or two networks. */
export interface Task extends Steering {
  readonly mode: Mode;
  /** Keys of networks, loaded before. */
  readonly models: readonly string[];
  /** Pictures `[3, size, size]` in [0, 1]: the target, and another. */
  readonly pictures: readonly Float32Array<ArrayBuffer>[];
  readonly size: number;
  readonly start: Start;
  readonly seed: number;
  /** Feature to maximise. */
  readonly coordinate: number;
  /** Pictures between two, the two included. */
  readonly frames: number;
}

/** To the engine. */
export type Request =
  | { readonly type: "open"; readonly provider: "wasm" | "webgpu" | "auto" }
  | { readonly type: "load"; readonly key: string; readonly url: string }
  | { readonly type: "start"; readonly id: number; readonly task: Task }
  | { readonly type: "run"; readonly steps: number | null }
  | { readonly type: "pause" }
  | { readonly type: "steer"; readonly steering: Steering };

/** The most likely classes of a picture. */
export type Prediction = readonly {
  readonly name: string;
  readonly probability: number;
}[];

/** What a network's optimisation has come to. */
export interface Progress {
  readonly model: string;
  readonly step: number;
  /** Objective after each step since the last message, by picture. */
  readonly curve: readonly {
    readonly step: number;
    readonly losses: readonly number[];
  }[];
  /** RGBA of each picture, as it is now. */
  readonly pixels: readonly Uint8ClampedArray<ArrayBuffer>[];
  readonly predictions: readonly Prediction[];
  /** Place of the feature among all, 1 being the largest. */
  readonly rank: number | null;
  /** Length of the change from the start, by picture. */
  readonly moved: readonly number[];
}

/** From the engine. */
export type Reply =
  | {
    readonly type: "opened";
    readonly provider: "wasm" | "webgpu";
    readonly threads: number;
    readonly version: string;
    /** Largest relative deviation in the self-test. */
    readonly deviation: number;
  }
  | { readonly type: "refused"; readonly reason: string }
  | {
    readonly type: "loading";
    readonly key: string;
    readonly received: number;
    readonly total: number;
  }
  | {
    readonly type: "loaded";
    readonly key: string;
    readonly representationSize: number;
  }
  | { readonly type: "started" }
  | {
    readonly type: "progress";
    /** Of the task. */
    readonly id: number;
    readonly progress: readonly Progress[];
  }
  | {
    readonly type: "paused";
    readonly reason: "asked" | "done" | "largest";
  }
  | {
    readonly type: "rate";
    /** Images times steps per second, predictions included. */
    readonly rate: number;
  }
  | { readonly type: "failed"; readonly message: string };
