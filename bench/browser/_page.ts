/**
 * What the page of the browser benchmark does: both sides from the same weights
 * and images, their losses compared, their steps timed in turn.
 *
 * @module
 */
import { Random } from "../../core/mod.ts";
import { initializeModel, type ModelSpec } from "../../models/mod.ts";
import { runtimeVersion } from "../../onnx/mod.ts";
import * as ours from "./_ours.ts";
import * as tensorflow from "./_tensorflow.ts";

/** What the page is asked for. */
export interface PageOptions {
  readonly width: number;
  readonly batchSize: number;
  readonly threads: number;
  readonly rounds: number;
}

/** What the page found. */
export interface PageResult {
  readonly versions: readonly [string, string];
  /** Milliseconds per step of each round. */
  readonly ours: readonly number[];
  readonly tensorflow: readonly number[];
  /** Largest relative difference of the first steps' losses. */
  readonly difference: number;
}

/** Steps whose losses are compared before anything is timed. */
const COMPARED = 2;

async function measure(options: PageOptions): Promise<PageResult> {
  const { width, batchSize, threads, rounds } = options;
  const spec: ModelSpec = {
    ...{ architecture: "resnet18", form: "cifar", width, classes: 10 },
    ...{ mean: [0.49, 0.48, 0.45], std: [0.25, 0.24, 0.26] },
  };
  const random = new Random(0);
  const parameters = initializeModel(spec, random);
  const shape = [batchSize, 3, 32, 32];
  const images = random.stream("images").uniformTensor(shape, 0, 1);
  const targets = random.stream("targets").uniformTensor(shape, 0, 1);
  const other = await tensorflow.start("/files/", threads);
  const sides = {
    ours: await ours.invert(spec, parameters, { images, targets }, { threads }),
    tensorflow: tensorflow.invert(spec, parameters, { images, targets }),
  };
  let difference = 0;
  for (let i = 0; i < COMPARED; i++) {
    const [mine, theirs] = [await sides.ours(), await sides.tensorflow()];
    mine.forEach((loss, j) => {
      const error = Math.abs(loss - theirs[j]) / Math.abs(loss);
      difference = Math.max(difference, error);
    });
  }
  const timed = async (step: () => Promise<unknown>) => {
    const started = performance.now();
    await step();
    return performance.now() - started;
  };
  const times: Record<keyof typeof sides, number[]> = {
    ours: [],
    tensorflow: [],
  };
  for (let i = 0; i < rounds; i++) {
    times.ours.push(await timed(sides.ours));
    times.tensorflow.push(await timed(sides.tensorflow));
  }
  const versions = [
    `onnxruntime-web ${await runtimeVersion()} (wasm)`,
    other,
  ] as const;
  return { versions, difference, ...times };
}

Object.assign(globalThis, { measure });
