/**
 * The inversion step of a CIFAR ResNet-18 as the playground makes it: the graph
 * that `robust/` defines, on onnxruntime-web.
 *
 * @module
 */
import { type NamedTensors, type Tensor, tensor } from "../../core/mod.ts";
import type { ModelSpec } from "../../models/mod.ts";
import {
  matchRepresentation,
  Network,
  pgdStep,
  type RunOptions,
} from "../../robust/mod.ts";

/** Makes steps of inversion, from images towards targets `[n, 3, h, w]`. */
export async function invert(
  spec: ModelSpec,
  parameters: NamedTensors,
  { images, targets }: { readonly images: Tensor; readonly targets: Tensor },
  options: RunOptions,
): Promise<() => Promise<number[]>> {
  const network = new Network(spec, parameters, options);
  const { representation } = await network.predict(targets);
  const { loss, feeds } = matchRepresentation(representation);
  const program = await network.program(
    "step",
    () =>
      pgdStep(spec, images.shape, {
        norm: "l2",
        loss,
        feeds: { target: representation.shape },
        // The other side passes gradients through the last ReLU as usual.
        fakeRelu: false,
      }),
  );
  let current = images;
  return async () => {
    const { next, losses } = await program.run({
      ...feeds,
      center: images,
      epsilon: tensor([1000], []),
      stepSize: tensor([-1], []),
      images: current,
    });
    current = next as Tensor;
    return Array.from((losses as Tensor).data);
  };
}
