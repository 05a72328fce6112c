/**
 * The inversion step of a CIFAR ResNet-18 as one writes it with TensorFlow.js:
 * channels last, BatchNorm folded into the convolutions beforehand.
 *
 * @module
 */
// Types alone, and not in the import map: few need what it downloads.
// deno-lint-ignore no-import-prefix
import type * as TensorFlow from "npm:@tensorflow/tfjs-core@4.22.0";
import type { NamedTensors, Tensor } from "../../core/mod.ts";
import type { ModelSpec } from "../../models/mod.ts";

/** What the scripts of the packages define, as the page loads them. */
type Globals = typeof TensorFlow & {
  readonly wasm: {
    setWasmPaths(folder: string): void;
    setThreadsCount(threads: number): void;
    getThreadsCount(): number;
  };
};

const { tf } = globalThis as unknown as { readonly tf: Globals };

type Tensor1D = TensorFlow.Tensor1D;
type Tensor2D = TensorFlow.Tensor2D;
type Tensor4D = TensorFlow.Tensor4D;

const EPSILON = 1e-5;

/**
 * Starts the WASM backend, which takes at most half of the processors.
 *
 * @param folder Where its files lie
 */
export async function start(folder: string, threads: number): Promise<string> {
  tf.wasm.setWasmPaths(folder);
  tf.wasm.setThreadsCount(threads);
  await tf.setBackend("wasm");
  await tf.ready();
  return `TensorFlow.js ${tf.version_core} (wasm, ${tf.wasm.getThreadsCount()} threads)`;
}

interface Layer {
  readonly weight: Tensor4D;
  readonly bias: Tensor1D;
  readonly stride: number;
  readonly padding: number;
}

/** From images `[n, 32, 32, 3]` to their representations `[n, d]`. */
function buildNetwork(
  spec: ModelSpec,
  parameters: NamedTensors,
): (images: Tensor4D) => Tensor2D {
  const of = (name: string) => parameters[name] as Tensor;
  const layer = (
    conv: string,
    norm: string,
    stride: number,
    padding: number,
  ): Layer => {
    const { data, shape } = of(`${conv}.weight`);
    const scale = of(`${norm}.weight`).data.map((gamma, i) =>
      gamma / Math.sqrt(of(`${norm}.running_var`).data[i] + EPSILON)
    );
    const bias = of(`${norm}.bias`).data.map((beta, i) =>
      beta - of(`${norm}.running_mean`).data[i] * scale[i]
    );
    const weight = tf.tidy(() =>
      tf.mul(
        tf.transpose(tf.tensor(data, [...shape]), [2, 3, 1, 0]),
        tf.tensor1d(scale),
      ) as Tensor4D
    );
    return { weight, bias: tf.tensor1d(bias), stride, padding };
  };
  const stem = layer("conv1", "bn1", 1, 1);
  const blocks = Array.from({ length: 8 }, (_, i) => {
    const [stage, index] = [Math.floor(i / 2) + 1, i % 2];
    const name = `layer${stage}.${index}`;
    const stride = stage > 1 && index === 0 ? 2 : 1;
    return {
      first: layer(`${name}.conv1`, `${name}.bn1`, stride, 1),
      second: layer(`${name}.conv2`, `${name}.bn2`, 1, 1),
      shortcut: stride === 1
        ? null
        : layer(`${name}.downsample.0`, `${name}.downsample.1`, stride, 0),
    };
  });
  const mean = tf.tensor1d([...spec.mean]);
  const std = tf.tensor1d([...spec.std]);
  const conv = (x: Tensor4D, { weight, bias, stride, padding }: Layer) =>
    tf.add(tf.conv2d(x, weight, stride, padding), bias) as Tensor4D;
  return (images) => {
    let x = tf.div(tf.sub(images, mean), std) as Tensor4D;
    x = tf.relu(conv(x, stem));
    for (const { first, second, shortcut } of blocks) {
      const y = conv(tf.relu(conv(x, first)), second);
      x = tf.relu(tf.add(y, shortcut ? conv(x, shortcut) : x));
    }
    return tf.mean(x, [1, 2]) as Tensor2D;
  };
}

/** Makes steps of inversion, from images towards targets `[n, 3, h, w]`. */
export function invert(
  spec: ModelSpec,
  parameters: NamedTensors,
  { images, targets }: { readonly images: Tensor; readonly targets: Tensor },
): () => Promise<number[]> {
  const network = buildNetwork(spec, parameters);
  const channelsLast = ({ data, shape }: Tensor) =>
    tf.tidy(() =>
      tf.transpose(
        tf.tensor4d(data, [...shape] as [number, number, number, number]),
        [0, 2, 3, 1],
      )
    );
  const target = tf.tidy(() => network(channelsLast(targets)));
  const length = (x: TensorFlow.Tensor) => tf.sqrt(tf.sum(tf.square(x), 1));
  const size = tf.tidy(() => length(target));
  const distances = (x: Tensor4D) =>
    tf.div(length(tf.sub(network(x), target)), size);
  const gradient = tf.valueAndGrad((x) => tf.sum(distances(x as Tensor4D)));
  let current = channelsLast(images);
  return async () => {
    const [next, losses] = tf.tidy(() => {
      const { grad } = gradient(current);
      const norms = tf.sqrt(tf.sum(tf.square(grad), [1, 2, 3], true));
      const step = tf.div(grad, tf.maximum(norms, 1e-10));
      return [
        tf.clipByValue(tf.sub(current, step), 0, 1) as Tensor4D,
        distances(current),
      ];
    });
    const values = Array.from(await losses.data());
    tf.dispose([current, losses]);
    current = next;
    return values;
  };
}
