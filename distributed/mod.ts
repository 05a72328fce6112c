/**
 * Ranks: processes, on one machine or many, that do one piece of work
 * together. What the rest of the project knows of them is a `Communicator`;
 * MPI is behind it and is loaded only when asked for.
 *
 * @module
 */
export {
  broadcastJson,
  type Communicator,
  gatherJson,
} from "./communicator.ts";
export {
  cpusOf,
  gpuOf,
  type Launch,
  launchOf,
  threadsPerRank,
} from "./launch.ts";
export {
  endJob,
  isOrphaned,
  type Mpi,
  openMpi,
  type OpenMpiOptions,
  PMI_DESCRIPTOR,
  prepareMpi,
} from "./open.ts";
export { shareOf, spread } from "./spread.ts";
