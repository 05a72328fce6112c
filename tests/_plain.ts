/**
 * Runs graphs as the ONNX files that other programs would read: operators of
 * the standard alone, weights fed, so that no kernel of blocks is taken.
 *
 * @module
 */
import * as ort from "onnxruntime-node";
import {
  type NamedTensors,
  type Node,
  type Tensor,
  tensor,
} from "../core/mod.ts";
import { exportModel } from "../onnx/mod.ts";

/** Nodes to compute, by output name. */
export type Outputs = Readonly<Record<string, Node>>;

/**
 * Computes outputs of float32.
 *
 * @param feeds Inputs and parameters of float32; others are ignored
 */
export async function runPlain(
  outputs: Outputs,
  feeds: NamedTensors,
): Promise<Record<string, Tensor>> {
  const { bytes, inputs } = exportModel(outputs);
  const session = await ort.InferenceSession.create(bytes);
  const values = Object.fromEntries(inputs.map(({ name }) => {
    const { data, shape } = feeds[name] as Tensor;
    return [name, new ort.Tensor("float32", data, shape)];
  }));
  const found = await session.run(values);
  await session.release();
  return Object.fromEntries(
    Object.entries(found).map(([name, { data, dims }]) => [
      name,
      tensor(data as Float32Array, dims),
    ]),
  );
}
