/**
 * What is measured: sizes and operation counts of the workloads that
 * bench/README.md defines.
 *
 * @module
 */
import type { ModelSpec } from "../models/mod.ts";

/** What one step of a workload does. */
export type WorkloadKind = "invert" | "train" | "predict" | "start";

/** One thing to measure. */
export interface Workload {
  readonly id: string;
  readonly kind: WorkloadKind;
  readonly spec: ModelSpec;
  /** Images per step. */
  readonly batchSize: number;
  /** Height and width of the images. */
  readonly imageSize: number;
  /** 10^9 multiplications and additions of convolutions per step, nominal. */
  readonly gflop: number;
}

const NORMALIZATION = { mean: [0.49, 0.48, 0.45], std: [0.25, 0.24, 0.26] };

function cifar(width: number): ModelSpec {
  return {
    architecture: "resnet18",
    form: "cifar",
    width,
    classes: 10,
    ...NORMALIZATION,
  };
}

const IMAGENET: ModelSpec = {
  architecture: "resnet50",
  form: "imagenet",
  width: 64,
  classes: 1000,
  ...NORMALIZATION,
};

function workload(
  id: string,
  kind: WorkloadKind,
  spec: ModelSpec,
  batchSize: number,
  gflop: number,
): Workload {
  const imageSize = spec.form === "cifar" ? 32 : 224;
  return { id, kind, spec, batchSize, imageSize, gflop };
}

/** All workloads, in the order they are measured. */
export const WORKLOADS: readonly Workload[] = [
  workload("W1", "invert", cifar(64), 32, 71.093),
  workload("W1-w16", "invert", cifar(16), 32, 4.486),
  workload("W1-w16-b8", "invert", cifar(16), 8, 1.121),
  workload("W2", "invert", IMAGENET, 4, 65.394),
  workload("W2-b10", "invert", IMAGENET, 10, 163.485),
  workload("W3", "train", cifar(64), 32, 604.181),
  workload("W3-w16", "train", cifar(16), 32, 38.101),
  workload("W4", "predict", cifar(64), 100, 111.084),
  workload("W5", "start", cifar(64), 32, 71.093),
];

/** Workloads measured where `--workloads` does not say which. */
export const DEFAULT_WORKLOADS = "W1,W1-w16,W1-w16-b8,W3,W3-w16,W4,W5";

/**
 * Finds workloads by their ids; `-b` and a number at the end of one is another
 * batch size.
 *
 * @param ids Separated by commas
 * @throws {RangeError} If an id is unknown or there is none
 */
export function findWorkloads(ids: string): Workload[] {
  return ids.split(",").map((text) => {
    const id = text.trim();
    const found = byId(id) ?? resized(id);
    if (!found) {
      throw new RangeError(
        `Cannot measure workload "${id}": choose from ` +
          WORKLOADS.map((workload) => workload.id).join(", ") +
          `, or one of them with another batch size, such as W1-b128`,
      );
    }
    return found;
  });
}

function byId(id: string): Workload | undefined {
  return WORKLOADS.find((workload) => workload.id === id);
}

/** A workload with another batch size. */
function resized(id: string): Workload | undefined {
  const [, base, size] = /^(.+)-b([1-9]\d{0,4})$/.exec(id) ?? [];
  const workload = base === undefined ? undefined : byId(base);
  if (!workload) return undefined;
  const batchSize = Number(size);
  const gflop = workload.gflop * batchSize / workload.batchSize;
  return { ...workload, id, batchSize, gflop };
}
