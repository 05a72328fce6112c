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
  addFeature,
  coordinateObjective,
  crossEntropyObjective,
  type FeatureStop,
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
  attackStepsAt,
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
export {
  type AffineRange,
  fourierBasis,
  type Parameterization,
  randomAffine,
  type RandomTransform,
} from "./regularized.ts";
export {
  kendallTau,
  pixelDistances,
  retrievalRanks,
  rowDistances,
  softmaxRows,
  ssim,
} from "./similarity.ts";
export { apgd, type ApgdSettings, apgdStep } from "./apgd.ts";
export { square, type SquareSettings } from "./square.ts";
export { type AttackOptions, type AttackResult } from "./slots.ts";
export {
  dlrObjective,
  marginObjective,
  targetedDlrObjective,
} from "./margin.ts";
export {
  AUTOATTACK,
  ENSEMBLE_ATTACKS,
  type EnsembleAttack,
  type EnsembleEvaluation,
  ensembleNote,
  type EnsembleOptions,
  type EnsembleSettings,
  evaluateEnsemble,
} from "./ensemble.ts";
export {
  checkSanity,
  SANITY_CHECKS,
  type SanityCheck,
  type SanityOptions,
  type SanityReport,
} from "./sanity.ts";
export {
  bootstrapInterval,
  crossedInterval,
  wilsonInterval,
} from "./statistics.ts";
export {
  decodeTraining,
  encodeTraining,
  type SavedTraining,
} from "./training_state.ts";
