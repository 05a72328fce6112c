/**
 * Robust representations in TypeScript: train networks against small l2
 * perturbations, then invert, interpolate, visualise and edit through their
 * representations by plain gradient steps on the input (Engstrom et al. 2019,
 * "Adversarial Robustness as a Prior for Learned Representations").
 *
 * ```ts
 * import {
 *   loadNetwork,
 *   matchRepresentation,
 *   optimizeInput,
 *   Random,
 *   readImage,
 *   stack,
 *   type Tensor,
 * } from "./mod.ts";
 *
 * // Noise becomes what the network takes for the picture.
 * async function invert(model: string, picture: string): Promise<Tensor> {
 *   const { network } = await loadNetwork(model); // such as "runs/cifar-l2"
 *   const target = stack([await readImage(picture)]); // [1, 3, 32, 32]
 *   const { representation } = await network.predict(target);
 *   const noise = new Random(0).uniformTensor(target.shape);
 *   const { images } = await optimizeInput(network, noise, {
 *     objective: matchRepresentation(representation),
 *     epsilon: 1000,
 *     stepSize: 0.1,
 *     steps: 500,
 *   });
 *   await network.release();
 *   return images; // [1, 3, 32, 32] in [0, 1]
 * }
 * ```
 *
 * @module
 */
export * from "./core/mod.ts";
export * from "./models/mod.ts";
export * from "./onnx/mod.ts";
export * from "./datasets/mod.ts";
export * from "./distributed/mod.ts";
export * from "./robust/mod.ts";
export * from "./robust/results.ts";
export * from "./robust/load.ts";
export * from "./robust/import.ts";
export {
  readBytes,
  readCheckpoint,
  updateCard,
  writeCheckpoint,
  writeFileAtomic,
} from "./models/files.ts";
