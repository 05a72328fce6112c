/**
 * Networks whose answers are known: linear ones, made of a ResNet's weights.
 *
 * @module
 */
import {
  full,
  type NamedTensors,
  Random,
  sizeOf,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import {
  initializeModel,
  modelParameters,
  type ModelSpec,
} from "../../models/mod.ts";
import { Network } from "../../robust/network.ts";
import { train } from "../../robust/train.ts";
import { noisySplit } from "./_split.ts";

/** Height and width of the images of `linearNetwork()`. */
export const LINEAR_SIDE = 16;

/** Pixels of each channel that its logits read. */
const READ = [[0, 0], [0, 8], [8, 0], [8, 8]] as const;

/**
 * A network whose logits are linear in the pixels, inside [0, 1]: the mean of
 * four pixels of each channel, times a matrix.
 *
 * @param matrix One row of three weights per class
 */
export function linearNetwork(
  matrix: readonly (readonly [number, number, number])[],
): Network {
  const spec: ModelSpec = {
    architecture: "resnet10",
    form: "cifar",
    width: 3,
    classes: matrix.length,
    mean: [0, 0, 0],
    std: [1, 1, 1],
  };
  const parameters: NamedTensors = Object.fromEntries(
    Array.from(modelParameters(spec), ([name, { node }]) => {
      const value = full(node.shape, 0);
      const identity = name.startsWith("conv1") ||
        name.includes("downsample.0");
      const norm = name.startsWith("bn1") || name.includes("downsample.1");
      if (identity) {
        const [, inputs, height, width] = node.shape;
        for (let c = 0; c < 3; c++) {
          const middle = Math.floor(height / 2) * width + Math.floor(width / 2);
          value.data[(c * inputs + c) * height * width + middle] = 1;
        }
      }
      if (name.endsWith("running_var")) value.data.fill(1);
      // Undoes the number that BatchNorm adds to the variance.
      if (norm && name.endsWith("weight")) value.data.fill(Math.sqrt(1 + 1e-5));
      if (name === "fc.weight") {
        matrix.forEach((row, j) => value.data.set(row, j * node.shape[1]));
      }
      return [name, value];
    }),
  );
  return new Network(spec, parameters, { threads: 1 });
}

/** Images that stay inside [0, 1] under perturbations of length 0.2. */
export function linearImages(count: number, seed: number): Tensor {
  return new Random(seed).uniformTensor(
    [count, 3, LINEAR_SIDE, LINEAR_SIDE],
    0.3,
    0.7,
  );
}

/** Logits of a linear network, computed without it. */
export function linearLogits(
  images: Tensor,
  matrix: readonly (readonly number[])[],
): number[][] {
  const plane = LINEAR_SIDE ** 2;
  return Array.from({ length: images.shape[0] }, (_, i) => {
    const means = [0, 1, 2].map((c) =>
      READ.reduce(
        (sum, [y, x]) =>
          sum + images.data[(3 * i + c) * plane + y * LINEAR_SIDE + x] / 4,
        0,
      )
    );
    return matrix.map((row) => row.reduce((s, w, c) => s + w * means[c], 0));
  });
}

/**
 * Length of the shortest perturbation that changes each image's class: the
 * least of margin / ||w|| (l2), or margin / ||w||_1 (linf).
 */
export function linearDistances(
  images: Tensor,
  matrix: readonly (readonly number[])[],
  norm: "l2" | "linf",
): { labels: number[]; distances: number[] } {
  const logits = linearLogits(images, matrix);
  const labels = logits.map((row) => row.indexOf(Math.max(...row)));
  const distances = logits.map((row, i) =>
    Math.min(...row.flatMap((value, j) => {
      if (j === labels[i]) return [];
      const w = matrix[j].map((x, c) => x - matrix[labels[i]][c]);
      // Each of four pixels of a channel has a quarter of its weight.
      const length = norm === "l2"
        ? Math.sqrt(w.reduce((sum, x) => sum + 4 * (x / 4) ** 2, 0))
        : w.reduce((sum, x) => sum + Math.abs(x), 0);
      return [(row[labels[i]] - value) / length];
    }))
  );
  return { labels, distances };
}

/**
 * A tiny network trained to tell brightness, and images of it.
 *
 * @param epsilon Of adversarial training (l2); 0 is standard training
 */
export async function trainedNetwork(
  { classes = 5, epsilon = 0, epochs = 12 } = {},
): Promise<{ network: Network; split: ReturnType<typeof noisySplit> }> {
  const split = noisySplit({ size: 40, side: 16, classes, seed: 1 });
  const spec: ModelSpec = {
    architecture: "resnet10",
    form: "cifar",
    width: 4,
    classes,
    mean: [0.5, 0.5, 0.5],
    std: [0.25, 0.25, 0.25],
  };
  const { parameters } = await train(
    {
      spec,
      attack: epsilon === 0 ? null : {
        norm: "l2",
        epsilon,
        stepSize: epsilon / 3,
        steps: 4,
        randomStart: true,
      },
      epochs,
      batchSize: 20,
      learningRate: 0.05,
      schedule: { kind: "cyclic" },
      momentum: 0.9,
      weightDecay: 5e-4,
      epsilonWarmup: 0,
      ema: 0,
      augmentation: "none",
      seed: 0,
    },
    split,
    { threads: 1 },
  );
  return { network: new Network(spec, parameters, { threads: 1 }), split };
}

/** A network's copy whose logits are so large that softmax is exactly 0 or 1. */
export function masked(network: Network, scale = 1e4): Network {
  const { spec, parameters } = network;
  const scaled = Object.fromEntries(
    Object.entries(parameters).map(([name, value]) => [
      name,
      name.startsWith("fc.")
        ? tensor((value.data as Float32Array).map((x) => x * scale), [
          ...value.shape,
        ])
        : value,
    ]),
  );
  return new Network(spec, scaled, network.options);
}

/** Untrained weights. */
export function untrained(spec: ModelSpec, seed = 0): Network {
  return new Network(spec, initializeModel(spec, new Random(seed)), {
    threads: 1,
  });
}

/** Length of each image's perturbation. */
export function lengths(
  a: Tensor,
  b: Tensor,
  norm: "l2" | "linf",
): number[] {
  const length = sizeOf(a.shape.slice(1));
  return Array.from({ length: a.shape[0] }, (_, i) => {
    let sum = 0, most = 0;
    for (let k = i * length; k < (i + 1) * length; k++) {
      const change = Math.abs(a.data[k] - b.data[k]);
      sum += change ** 2;
      most = Math.max(most, change);
    }
    return norm === "l2" ? Math.sqrt(sum) : most;
  });
}
