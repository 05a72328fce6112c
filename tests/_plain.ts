/**
 * Runs graphs as the ONNX files that other programs would read: operators of
 * the standard alone, weights fed, so that no kernel of blocks is taken.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import * as ort from "onnxruntime-node";
import {
  type NamedTensors,
  type Node,
  Random,
  type Tensor,
  tensor,
  topologicalOrder,
} from "../core/mod.ts";
import { initializeModel, type ModelSpec } from "../models/mod.ts";
import { lower } from "../onnx/export.ts";
import { compile, exportModel } from "../onnx/mod.ts";
import { oneHot } from "../robust/objectives.ts";
import { assertAllClose } from "./_assert.ts";

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

/** How `assertSameAsPlain()` compiles and compares. */
export interface PlainOptions {
  /** Parameters that are known before the program runs. */
  readonly constants?: NamedTensors;
  /** Relative l2 distance that is allowed. */
  readonly tolerance: number;
}

/** Compares what a compiled program gives with the plain model. */
export async function assertSameAsPlain(
  outputs: Outputs,
  feeds: NamedTensors,
  { constants = {}, tolerance }: PlainOptions,
): Promise<void> {
  const program = await compile(outputs, { threads: 1, constants });
  try {
    const found = await program.run(feeds);
    await assertPlain(found, outputs, { ...feeds, ...constants }, tolerance);
  } finally {
    await program.release();
  }
}

/** Compares values with those of the plain model. */
export async function assertPlain(
  found: NamedTensors,
  outputs: Outputs,
  feeds: NamedTensors,
  tolerance: number,
): Promise<void> {
  const expected = await runPlain(outputs, feeds);
  assertEquals(Object.keys(found).sort(), Object.keys(expected).sort());
  for (const [name, value] of Object.entries(expected)) {
    assertAllClose(found[name] as Tensor, value, {
      tolerance,
      relative: "l2",
      name,
    });
  }
}

/** Counts nodes by operator, as `lower()` gives them. */
export function operatorsOf(
  outputs: Outputs,
  ...lowering: [block?: number, isPrepared?: (name: string) => boolean]
): Record<string, number> {
  const nodes = topologicalOrder(lower(Object.values(outputs), ...lowering));
  const counts: Record<string, number> = {};
  for (const { op } of nodes) {
    if (op) counts[op.type] = (counts[op.type] ?? 0) + 1;
  }
  return counts;
}

/** A small network for images of any size. */
export const SPEC: ModelSpec = {
  architecture: "resnet10",
  form: "cifar",
  width: 16,
  classes: 10,
  mean: [0.5, 0.5, 0.5],
  std: [0.25, 0.25, 0.25],
};

/** Images, labels and weights for `SPEC`. */
export function draw(batch: number, size: number) {
  const random = new Random(3);
  const shape = [batch, 3, size, size];
  const labels = Array.from({ length: batch }, (_, i) => i % 10);
  return {
    shape,
    images: random.uniformTensor(shape),
    labels: oneHot(labels, 10),
    parameters: initializeModel(SPEC, random),
  };
}
