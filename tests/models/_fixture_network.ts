/**
 * The small network of tests/fixtures, with this project's names.
 *
 * @module
 */
import {
  type AnyTensor,
  type NamedTensors,
  sizeOf,
  type Tensor,
  tensor,
} from "../../core/mod.ts";
import type { ModelSpec } from "../../models/mod.ts";
import { readTensors, underPrefix } from "../_fixtures.ts";

/** ResNet-18 in CIFAR form of width 8, as the reference library built it. */
export const FIXTURE_SPEC: ModelSpec = {
  architecture: "resnet18",
  form: "cifar",
  width: 8,
  classes: 10,
  mean: [0.4914, 0.4822, 0.4465],
  std: [0.2023, 0.1994, 0.201],
};

/** Tensors of the reference library under torchvision's names. */
export function renamed(
  tensors: Readonly<Record<string, AnyTensor>>,
): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(tensors)
      .filter(([, { dtype }]) => dtype === "float32")
      .map(([name, value]) => [
        name.replace("shortcut", "downsample").replace("linear", "fc"),
        value as Tensor,
      ]),
  );
}

/** Weights and running statistics of the network. */
export async function fixtureParameters(): Promise<Record<string, Tensor>> {
  const tensors = await readTensors("checkpoint_contents");
  return renamed(underPrefix(tensors, "state"));
}

/** A float32 tensor of a fixture file. */
export function floats(tensors: NamedTensors, name: string): Tensor {
  const value = tensors[name];
  if (value?.dtype !== "float32") {
    throw new TypeError(`Cannot read "${name}": no float32 tensor`);
  }
  return value as Tensor;
}

/** Integers of a fixture file, such as labels. */
export function integers(tensors: NamedTensors, name: string): number[] {
  return Array.from(tensors[name].data as BigInt64Array, Number);
}

/** Row `i` of a tensor `[n, ...]`, copied to `[...]`. */
export function rowOf({ data, shape }: AnyTensor, i: number): Tensor {
  const size = sizeOf(shape.slice(1));
  const row = Array.from(data.slice(i * size, (i + 1) * size), Number);
  return tensor(row, shape.slice(1));
}
