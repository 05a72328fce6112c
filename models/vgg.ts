/**
 * VGG networks (Simonyan and Zisserman 2015), with and without BatchNorm.
 *
 * Trained without dropout: the graph of a step holds no randomness.
 *
 * @module
 */
import {
  adaptiveAveragePool,
  fakeRelu,
  maxPool,
  type Node,
  relu,
  reshape,
  sizeOf,
} from "../core/mod.ts";
import {
  conv,
  convBatchNorm,
  linear,
  normalize,
  type Scope,
} from "./layers.ts";
import type { ModelOptions, ModelOutputs } from "./mod.ts";

/** Convolutions in each of the five stages. */
type Stages = readonly [number, number, number, number, number];

/** VGG-11 without BatchNorm. */
export function vgg11(
  scope: Scope,
  images: Node,
  options: ModelOptions,
): ModelOutputs {
  return vgg(scope, images, options, [1, 1, 2, 2, 2], false);
}

/** VGG-11 with BatchNorm. */
export function vgg11Bn(
  scope: Scope,
  images: Node,
  options: ModelOptions,
): ModelOutputs {
  return vgg(scope, images, options, [1, 1, 2, 2, 2], true);
}

/** VGG-16 without BatchNorm. */
export function vgg16(
  scope: Scope,
  images: Node,
  options: ModelOptions,
): ModelOutputs {
  return vgg(scope, images, options, [2, 2, 3, 3, 3], false);
}

/** VGG-16 with BatchNorm. */
export function vgg16Bn(
  scope: Scope,
  images: Node,
  options: ModelOptions,
): ModelOutputs {
  return vgg(scope, images, options, [2, 2, 3, 3, 3], true);
}

/**
 * @param images `[n, 3, h, w]` in [0, 1], at least 32 pixels on each side
 * @returns ImageNet form: the 64 * width (4096) activations behind the second
 * fully connected layer; CIFAR form, which has a single one: the 8 * width
 * pooled features
 */
function vgg(
  scope: Scope,
  images: Node,
  options: ModelOptions,
  stages: Stages,
  batchNorm: boolean,
): ModelOutputs {
  const { form, width, classes } = options;
  const last = options.fakeRelu ? fakeRelu : relu;
  const features = scope.at("features");
  let h = normalize(images, options);
  let index = 0; // torchvision numbers ReLUs and pools as well
  stages.forEach((count, stage) => {
    const outputs = width * Math.min(2 ** stage, 8);
    for (let i = 0; i < count; i++) {
      const isLast = form === "cifar" && stage === 4 && i === count - 1;
      h = batchNorm
        ? convBatchNorm(
          features.at(index),
          features.at(index + 1),
          h,
          outputs,
          {
            kernel: 3,
            bias: true,
          },
        )
        : conv(features.at(index), h, outputs, { kernel: 3 });
      h = (isLast ? last : relu)(h);
      index += batchNorm ? 3 : 2;
    }
    h = maxPool(h, { kernel: 2 });
    index += 1;
  });
  const classifier = scope.at("classifier");
  const flat = (x: Node) => reshape(x, [x.shape[0], sizeOf(x.shape.slice(1))]);
  if (form === "cifar") {
    const representation = flat(adaptiveAveragePool(h, [1, 1]));
    const logits = linear(classifier, representation, classes);
    return { representation, logits };
  }
  h = flat(adaptiveAveragePool(h, [7, 7]));
  h = relu(linear(classifier.at(0), h, 64 * width));
  const representation = last(linear(classifier.at(3), h, 64 * width));
  const logits = linear(classifier.at(6), representation, classes);
  return { representation, logits };
}
