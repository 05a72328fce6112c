/**
 * All primitives, by family.
 *
 * @module
 */
export * from "./movement.ts";
export * from "./elementwise.ts";
export * from "./reduction.ts";
export * from "./linear.ts";
export * from "./convolution.ts";
export * from "./pooling.ts";
export * from "./sampling.ts";
