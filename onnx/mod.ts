/**
 * From graphs to ONNX bytes and to running programs.
 *
 * @module
 */
export {
  BATCH_SYMBOL,
  type DynamicExportOptions,
  type DynamicModel,
  type DynamicValueInfo,
  exportDynamicModel,
} from "./dynamic.ts";
export { DeviceTensor, hasOwnMemory, releaseDevice } from "./device.ts";
export { copied, copyNodes, DeviceReader, runCopies } from "./device_reader.ts";
export {
  type ExportedModel,
  exportModel,
  type ExportOptions,
  type ExternalFile,
  OPSET,
  type ValueInfo,
} from "./export.ts";
export { allocateOverlaid, freeTensor } from "./memory.ts";
export {
  type Choice,
  chooseProvider,
  compile,
  type CompileOptions,
  compileStages,
  type Device,
  PackedWeights,
  Program,
  type Provider,
  runtimeVersion,
  Series,
  type Stages,
} from "./session.ts";
