/**
 * States of training to and from bytes, so that a killed run loses nothing.
 *
 * @module
 */
import type { NamedTensors } from "../core/mod.ts";
import {
  decodeSafetensors,
  encodeSafetensors,
  type JsonObject,
  sha256,
  weightsHash,
} from "../models/mod.ts";
import type { TrainSettings, TrainState } from "./train.ts";

/** Version of the file. */
const SCHEMA_VERSION = 1;

/** A state and what it is a state of. */
export interface SavedTraining {
  /** How it was trained. */
  readonly settings: TrainSettings;
  /** What the images were: resuming needs the same. */
  readonly data: JsonObject;
  /** Where training is. */
  readonly state: TrainState;
}

const GROUPS = ["parameters", "velocity", "average"] as const;

/**
 * Writes a state as a safetensors file.
 *
 * @returns The bytes of the file
 */
export async function encodeTraining(
  { settings, data, state }: SavedTraining,
): Promise<Uint8Array<ArrayBuffer>> {
  const tensors: NamedTensors = Object.fromEntries(
    GROUPS.flatMap((group) =>
      Object.entries(state[group]).map(([name, value]) => [
        `${group}:${name}`,
        value,
      ])
    ),
  );
  const { epoch, step, sums, history } = state;
  const training = JSON.stringify({
    schemaVersion: SCHEMA_VERSION,
    settings,
    data,
    position: { epoch, step, sums, history },
  });
  const hash = await hashOf(training, tensors);
  return encodeSafetensors(tensors, { training, sha256: hash });
}

async function hashOf(text: string, tensors: NamedTensors): Promise<string> {
  const whole = `${await weightsHash(tensors)} ${text}`;
  return await sha256(new TextEncoder().encode(whole));
}

/**
 * Reads a state back, bit for bit.
 *
 * @param bytes The whole file
 * @param source Its name, for errors
 * @throws {SyntaxError} If the file is damaged or of another kind
 */
export async function decodeTraining(
  bytes: Uint8Array,
  source: string,
): Promise<SavedTraining> {
  const { tensors, metadata } = decodeSafetensors(bytes, source);
  const { training: text = "null", sha256: hash } = metadata;
  if (hash !== undefined && hash !== await hashOf(text, tensors)) {
    throw new SyntaxError(
      `Cannot read "${source}": its SHA-256 is not the one it was written ` +
        `with; the file is damaged`,
    );
  }
  const training = hash === undefined ? null : JSON.parse(text);
  if (training?.schemaVersion !== SCHEMA_VERSION) {
    throw new SyntaxError(
      `Cannot read "${source}": it is not a state of training that this ` +
        `version wrote`,
    );
  }
  const { settings, data, position } = training;
  const part = (group: string): NamedTensors =>
    Object.fromEntries(
      Object.entries(tensors).flatMap(([name, value]) =>
        name.startsWith(`${group}:`)
          ? [[name.slice(group.length + 1), value]]
          : []
      ),
    );
  const [parameters, velocity, average] = GROUPS.map(part);
  return {
    settings,
    data,
    state: { parameters, velocity, average, ...position },
  };
}
