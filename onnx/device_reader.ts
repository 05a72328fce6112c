/**
 * Copies of what is in the memory of a device.
 *
 * @module
 */
import {
  type AnyTensor,
  apply,
  defineOp,
  input,
  type NamedTensors,
  type Node,
} from "../core/mod.ts";
import type { ValueInfo } from "./export.ts";
import { compile, type Program, type Provider } from "./session.ts";

const Identity = defineOp({ type: "Identity", shape: ([x]) => x.shape });

/** A copy of a node, in the memory that the program's outputs are in. */
export function copied(x: Node): Node {
  return apply(Identity, [x]);
}

/** An output may not have the name of an input. */
const READ = "read:";

/**
 * Copies of inputs as nodes: to the memory that the program's outputs are in.
 *
 * @param infos Names and shapes of the inputs
 */
export function copyNodes(
  infos: readonly Pick<ValueInfo, "name" | "shape">[],
): Record<string, Node> {
  return Object.fromEntries(infos.map(({ name, shape }) => [
    READ + name,
    copied(input(name, shape)),
  ]));
}

/** Runs a program of `copyNodes()`; results have the names of its inputs. */
export async function runCopies(
  program: Program,
  tensors: NamedTensors,
): Promise<Record<string, AnyTensor>> {
  const found = await program.run(tensors);
  return Object.fromEntries(
    Object.entries(found).map(([name, value]) => [
      name.slice(READ.length),
      value,
    ]),
  );
}

/**
 * Copies tensors from a device's memory, again and again. onnxruntime-node
 * cannot by itself: a program reads them, whose outputs are on the host.
 */
export class DeviceReader {
  readonly #program: Program;

  private constructor(program: Program) {
    this.#program = program;
  }

  /**
   * Makes a reader.
   *
   * @param infos Names and shapes of what is to be read
   */
  static async create(
    infos: readonly ValueInfo[],
    provider: Provider,
  ): Promise<DeviceReader> {
    const program = await compile(copyNodes(infos), { provider });
    return new DeviceReader(program);
  }

  /**
   * Copies tensors of the names it was made for.
   *
   * @returns New tensors in the host's memory
   */
  async read(tensors: NamedTensors): Promise<Record<string, AnyTensor>> {
    return await runCopies(this.#program, tensors);
  }

  /** Frees the program. */
  async release(): Promise<void> {
    await this.#program.release();
  }
}
