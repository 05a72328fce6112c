/**
 * The paper's method: optimise inputs within a ball, train against such
 * inputs, evaluate, and keep records of runs.
 *
 * Browser-safe but for what trains and evaluates on data sets; records on
 * disk are in `results.ts`.
 *
 * @module
 */
export {
  EXPORT_KINDS,
  EXPORT_OBJECTIVES,
  type ExportKind,
  exportNetwork,
  type ExportObjective,
  type NetworkExportOptions,
} from "./export.ts";
export { type Ball, BALLS, type Norm, NORMS } from "./ball.ts";
export {
  coordinateObjective,
  crossEntropyObjective,
  matchRepresentation,
  type Objective,
  oneHot,
} from "./objectives.ts";
export { DEFAULT_BATCH_SIZE, Network, type RunOptions } from "./network.ts";
export {
  optimizeInput,
  type OptimizeOptions,
  type OptimizeResult,
  type PgdSettings,
  type PgdStep,
  pgdStep,
} from "./pgd.ts";
export {
  learningRateAt,
  type LearningRateWarmup,
  learningRateWarmupAt,
  type Schedule,
  warmupAt,
} from "./schedule.ts";
export { trainingStep } from "./training_graphs.ts";
export { sgd, type SgdSettings, type SgdUpdate } from "./sgd.ts";
export {
  checkTrainSettings,
  type EpochRecord,
  initialState,
  stateParameters,
  train,
  type TrainingAttack,
  type TrainOptions,
  type TrainSettings,
  type TrainState,
  type TrainStep,
} from "./train.ts";
export {
  evaluate,
  type EvaluateOptions,
  type Evaluation,
  type EvaluationAttack,
  predictions,
} from "./evaluate.ts";
export { bootstrapInterval } from "./statistics.ts";
export {
  decodeTraining,
  encodeTraining,
  type SavedTraining,
} from "./training_state.ts";
