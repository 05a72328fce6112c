/**
 * The best of iterates that lie in a device's memory, kept there.
 *
 * @module
 */
import {
  greater,
  input,
  mul,
  type Node,
  perImage,
  type Tensor,
  tensor,
  where,
} from "../core/mod.ts";
import { releaseDevice } from "../onnx/mod.ts";
import type { Network } from "./network.ts";

/** Best images so far and their losses. */
export interface Best {
  /** `[n, 3, h, w]` */
  readonly images: Tensor;
  /** `[n]` */
  readonly losses: Tensor;
}

/**
 * Images that beat others, as nodes: NaN never does. Inputs `images`, `losses`,
 * `bestImages`, `bestLosses`, and `sense`, 1 if a greater loss is better and -1
 * if a smaller one is. Outputs `nextImages` and `nextLosses`.
 */
function better(shape: readonly number[]): Record<string, Node> {
  const [n] = shape;
  const [images, best] = [input("images", shape), input("bestImages", shape)];
  const [losses, bestLosses] = [input("losses", [n]), input("bestLosses", [n])];
  const sense = input("sense", []);
  const isBetter = greater(mul(losses, sense), mul(bestLosses, sense));
  return {
    nextImages: where(perImage(isBetter, images), images, best),
    nextLosses: where(isBetter, losses, bestLosses),
  };
}

/** Keeps the best of iterates in the memory of a network's device. */
export class BestOnDevice {
  readonly #network: Network;
  readonly #sense: Tensor;
  #best: Record<string, Tensor> | undefined;

  private constructor(
    network: Network,
    sense: 1 | -1,
    best: Record<string, Tensor> | undefined,
  ) {
    this.#network = network;
    this.#sense = tensor([sense], []);
    this.#best = best;
  }

  /**
   * @param sense 1 if a greater loss is better, -1 if a smaller one is
   * @param sofar What there is to beat
   */
  static async create(
    network: Network,
    sense: 1 | -1,
    sofar: Best | undefined,
  ): Promise<BestOnDevice> {
    const best = sofar && await network.hold({ ...sofar });
    return new BestOnDevice(network, sense, best);
  }

  /** Keeps the images whose loss improves strictly; copies what it keeps. */
  async consider(images: Tensor, losses: Tensor): Promise<void> {
    const known = this.#best;
    if (!known) {
      this.#best = await this.#network.hold({ images, losses });
      return;
    }
    const program = await this.#network.program(
      `better ${images.shape}`,
      () => better(images.shape),
      { onDevice: ["nextImages", "nextLosses"] },
    );
    const { nextImages, nextLosses } = await program.run({
      ...{ images, losses, sense: this.#sense },
      ...{ bestImages: known.images, bestLosses: known.losses },
    }) as Record<string, Tensor>;
    this.#best = { images: nextImages, losses: nextLosses };
    releaseDevice(known);
  }

  /** A copy on the host; undefined if there was nothing. */
  async result(): Promise<Best | undefined> {
    return this.#best &&
      await this.#network.fetch(this.#best) as unknown as Best;
  }

  /** Frees what it keeps. */
  release(): void {
    if (this.#best) releaseDevice(this.#best);
  }
}
