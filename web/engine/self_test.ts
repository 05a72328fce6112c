/**
 * Whether a provider computes what it should: three steps of inversion of a
 * tiny network, against values of the CPU provider under Deno.
 *
 * @module
 */
import { Random } from "../../core/mod.ts";
import { initializeModel, type ModelSpec } from "../../models/mod.ts";
import {
  matchRepresentation,
  Network,
  optimizeInput,
  type RunOptions,
} from "../../robust/mod.ts";

/** Strided convolutions, shortcuts and pooling, as in all that are shipped. */
const SPEC: ModelSpec = {
  architecture: "resnet10",
  form: "cifar",
  width: 4,
  classes: 3,
  mean: [0.5, 0.5, 0.5],
  std: [0.25, 0.25, 0.25],
};

/** Distances before each step and after the last, of two images in turn. */
export const KNOWN: readonly number[] = [
  0.5019240,
  0.5067207,
  0.3544481,
  0.3073678,
  0.3427769,
  0.2854471,
  0.3063409,
  0.3770778,
];

/** More than this apart, relative to the value, is wrong. */
export const TOLERANCE = 1e-3;

/** Computes what {@linkcode KNOWN} holds. */
export async function computeKnown(options: RunOptions): Promise<number[]> {
  const random = new Random(0);
  const network = new Network(SPEC, initializeModel(SPEC, random), options);
  const shape = [2, 3, 16, 16];
  const target = random.stream("target").uniformTensor(shape);
  const start = random.stream("start").uniformTensor(shape);
  const { representation } = await network.predict(target);
  const found: number[] = [];
  await optimizeInput(network, start, {
    objective: matchRepresentation(representation),
    epsilon: 2,
    stepSize: 0.5,
    steps: 3,
    onStep: ({ losses }) => {
      found.push(...losses.data);
    },
  });
  await network.release();
  return found;
}

/**
 * Runs the self-test.
 *
 * @returns Largest relative deviation
 * @throws {Error} If it is larger than {@linkcode TOLERANCE}
 */
export async function selfTest(options: RunOptions): Promise<number> {
  const found = await computeKnown(options);
  let worst = found.length === KNOWN.length ? 0 : Infinity;
  for (const [i, value] of KNOWN.entries()) {
    const deviation = Math.abs(found[i] - value) / value;
    // NaN is the worst of all.
    worst = deviation <= worst ? worst : deviation;
  }
  if (!(worst <= TOLERANCE)) {
    throw new Error(
      `its numbers are wrong: the self-test is off by ${
        worst.toExponential(1)
      }`,
    );
  }
  return worst;
}
