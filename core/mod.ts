/**
 * Symbolic tensors and their gradients: what other folders may use of core.
 *
 * Define nodes, differentiate them with `grad()`, and hand them to
 * `onnx/mod.ts` to run. Pure TypeScript without I/O: safe in a browser. Random
 * tensors are drawn in WebAssembly with SIMD, which a page's content security
 * policy must allow (`'wasm-unsafe-eval'`), as it must for ONNX Runtime.
 *
 * @module
 */
export * from "./tensor.ts";
export { broadcast, sameShape, show } from "./shape.ts";
export { Random } from "./random.ts";
export {
  apply,
  type Attribute,
  type Attributes,
  constant,
  defineOp,
  input,
  int64s,
  Node,
  type NodeKind,
  type Op,
  parameter,
  readInt64s,
  stopGradient,
  topologicalOrder,
  type VjpContext,
  withGradient,
} from "./graph.ts";
export { type ConvGeometry, convGeometry } from "./conv_geometry.ts";
export * from "./ops/mod.ts";
export * from "./functions.ts";
export { grad } from "./grad.ts";
export {
  beforeReshapes,
  expandOps,
  expressionKey,
  type Hoisted,
  hoistParameters,
  rebuilt,
  rewrite,
  simplify,
  type Viewed,
  viewParameters,
} from "./passes.ts";
