/**
 * Residual networks (He et al. 2016), for small images and for ImageNet.
 *
 * @module
 */
import {
  add,
  fakeRelu,
  globalAveragePool,
  maxPool,
  type Node,
  relu,
} from "../core/mod.ts";
import { convBatchNorm, linear, normalize, type Scope } from "./layers.ts";
import type { ModelOptions, ModelOutputs } from "./mod.ts";

/** What distinguishes the residual networks. */
interface ResNetShape {
  /** Residual blocks in each of the four stages. */
  readonly blocks: readonly [number, number, number, number];
  /** 3 x 3 and 3 x 3 ("basic"), or 1 x 1, 3 x 3 and 1 x 1 ("bottleneck"). */
  readonly block: "basic" | "bottleneck";
}

/** ResNet-10: one block per stage; for demonstrations and tests. */
export function resnet10(
  scope: Scope,
  images: Node,
  options: ModelOptions,
): ModelOutputs {
  return resnet(scope, images, options, {
    blocks: [1, 1, 1, 1],
    block: "basic",
  });
}

/** ResNet-18: 11.7M parameters in ImageNet form at width 64. */
export function resnet18(
  scope: Scope,
  images: Node,
  options: ModelOptions,
): ModelOutputs {
  return resnet(scope, images, options, {
    blocks: [2, 2, 2, 2],
    block: "basic",
  });
}

/** ResNet-34: 21.8M parameters in ImageNet form at width 64. */
export function resnet34(
  scope: Scope,
  images: Node,
  options: ModelOptions,
): ModelOutputs {
  return resnet(scope, images, options, {
    blocks: [3, 4, 6, 3],
    block: "basic",
  });
}

/** ResNet-50: 25.6M parameters in ImageNet form at width 64. */
export function resnet50(
  scope: Scope,
  images: Node,
  options: ModelOptions,
): ModelOutputs {
  return resnet(scope, images, options, {
    blocks: [3, 4, 6, 3],
    block: "bottleneck",
  });
}

/**
 * @param images `[n, 3, h, w]` in [0, 1]
 * @returns Representation `[n, 8 * width]`, with bottlenecks `[n, 32 * width]`
 */
function resnet(
  scope: Scope,
  images: Node,
  options: ModelOptions,
  { blocks, block }: ResNetShape,
): ModelOutputs {
  const { form, width, classes } = options;
  const stem = form === "cifar"
    ? { kernel: 3, stride: 1 }
    : { kernel: 7, stride: 2 };
  let h = normalize(images, options);
  h = relu(convBatchNorm(scope.at("conv1"), scope.at("bn1"), h, width, stem));
  if (form === "imagenet") h = maxPool(h, { kernel: 3, stride: 2, padding: 1 });
  const residual = block === "basic" ? basicBlock : bottleneck;
  blocks.forEach((count, i) => {
    for (let j = 0; j < count; j++) {
      const isLast = i === 3 && j === count - 1;
      h = residual(scope.at(`layer${i + 1}`).at(j), h, {
        width: width * 2 ** i,
        stride: i > 0 && j === 0 ? 2 : 1,
        activation: isLast && options.fakeRelu ? fakeRelu : relu,
      });
    }
  });
  const representation = globalAveragePool(h);
  const logits = linear(scope.at("fc"), representation, classes);
  return { representation, logits };
}

interface BlockOptions {
  readonly width: number;
  readonly stride: number;
  /** Applied to the sum of the branch and the shortcut. */
  readonly activation: (x: Node) => Node;
}

function basicBlock(scope: Scope, x: Node, options: BlockOptions): Node {
  const { width, stride, activation } = options;
  const layer = (i: number, h: Node, stride: number) =>
    convBatchNorm(scope.at(`conv${i}`), scope.at(`bn${i}`), h, width, {
      kernel: 3,
      stride,
    });
  const branch = layer(2, relu(layer(1, x, stride)), 1);
  return activation(add(branch, shortcut(scope, x, width, stride)));
}

/** The stride is on the 3 x 3 convolution, as torchvision places it. */
function bottleneck(scope: Scope, x: Node, options: BlockOptions): Node {
  const { width, stride, activation } = options;
  const layer = (
    i: number,
    h: Node,
    outputs: number,
    geometry: { kernel: number; stride?: number },
  ) =>
    convBatchNorm(
      scope.at(`conv${i}`),
      scope.at(`bn${i}`),
      h,
      outputs,
      geometry,
    );
  let h = relu(layer(1, x, width, { kernel: 1 }));
  h = relu(layer(2, h, width, { kernel: 3, stride }));
  h = layer(3, h, width * 4, { kernel: 1 });
  return activation(add(h, shortcut(scope, x, width * 4, stride)));
}

/** The block's input, or its projection where the shape changes. */
function shortcut(
  scope: Scope,
  x: Node,
  outputs: number,
  stride: number,
): Node {
  if (stride === 1 && x.shape[1] === outputs) return x;
  const projection = scope.at("downsample");
  return convBatchNorm(projection.at(0), projection.at(1), x, outputs, {
    kernel: 1,
    stride,
  });
}
