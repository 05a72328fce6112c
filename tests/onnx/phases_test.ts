/**
 * Gradients of strided convolutions by phases are those of plain ONNX, and are
 * taken where they can be.
 */
import { assertEquals } from "@std/assert";
import {
  add,
  convTranspose2d,
  input,
  type NamedTensors,
  type Node,
  parameter,
  Random,
  relu,
} from "../../core/mod.ts";
import { lower } from "../../onnx/export.ts";
import { assertSameAsPlain, operatorsOf, type Outputs } from "../_plain.ts";

interface GradientOptions {
  /** Of the images. */
  readonly size: readonly [number, number];
  readonly kernel: number;
  readonly stride: number;
  readonly padding?: number;
  readonly images?: number;
  /** Of the convolution's output, and of its input. */
  readonly channels?: readonly [number, number];
  /** Tells inputs of one graph apart. */
  readonly name?: string;
}

/** Gradient of a convolution's input. */
function gradient(options: GradientOptions): Node {
  const { size, kernel, stride, padding = 0, images = 2, name = "" } = options;
  const [outputs, c] = options.channels ?? [16, 32];
  const positions = size.map((length) =>
    Math.floor((length + 2 * padding - kernel) / stride) + 1
  );
  const g = input(`g${name}`, [images, outputs, ...positions]);
  const w = parameter(`w${name}`, [outputs, c, kernel, kernel]);
  return convTranspose2d(g, w, { stride, padding, size });
}

const even = gradient({ size: [8, 8], kernel: 3, stride: 2, padding: 1 });
const point = gradient({ size: [8, 8], kernel: 1, stride: 2, name: "1" });
const other = gradient({ size: [8, 8], kernel: 1, stride: 2, name: "2" });
const wide = gradient({ size: [8, 8], kernel: 4, stride: 4, name: "4" });
const odd = { size: [7, 7], kernel: 3, stride: 2, padding: 1 } as const;

/** Graphs, and how many gradients stay as they are. */
const GRAPHS: Readonly<Record<string, readonly [Outputs, number]>> = {
  "3 by 2": [{ y: even }, 0],
  "3 by 2, wider than high": [
    { y: gradient({ size: [6, 10], kernel: 3, stride: 2, padding: 1 }) },
    0,
  ],
  "3 by 2, one image": [
    { y: gradient({ ...odd, size: [4, 4], images: 1 }) },
    0,
  ],
  "4 by 2": [
    { y: gradient({ size: [8, 8], kernel: 4, stride: 2, padding: 1 }) },
    0,
  ],
  "2 by 2": [{ y: gradient({ size: [6, 6], kernel: 2, stride: 2 }) }, 0],
  "5 by 3": [
    { y: gradient({ size: [9, 9], kernel: 5, stride: 3, padding: 2 }) },
    0,
  ],
  "1 by 2, zeros between": [{ y: relu(point) }, 0],
  "3 by 2 and 1 by 2": [{ y: relu(add(even, point)) }, 0],
  "1 by 2 and 3 by 2": [{ y: add(point, even) }, 0],
  "1 by 2 twice": [{ y: add(point, other) }, 0],
  "3 by 2 and 4 by 4": [{ y: add(even, wide) }, 0],
  "a term that is used elsewhere": [{ y: add(even, point), z: relu(even) }, 0],
  "3 by 2 of an odd size": [{ y: gradient(odd) }, 1],
  "3 by 2, one side odd": [{ y: gradient({ ...odd, size: [8, 7] }) }, 1],
  "2 by 3, some phases without a tap": [
    { y: gradient({ size: [9, 9], kernel: 2, stride: 3 }) },
    1,
  ],
  "3 by 3, a phase that begins late": [
    { y: gradient({ size: [9, 9], kernel: 3, stride: 3, padding: 1 }) },
    1,
  ],
  "channels that fill no block": [
    { y: gradient({ ...odd, size: [8, 8], channels: [16, 20] }) },
    1,
  ],
  "an image": [
    {
      y: gradient({
        ...{ size: [8, 8], kernel: 3, stride: 1, padding: 1 },
        channels: [32, 3],
      }),
    },
    0,
  ],
  "an image, 7 by 2": [
    {
      y: gradient({
        ...{ size: [12, 10], kernel: 7, stride: 2, padding: 3 },
        channels: [16, 3],
      }),
    },
    0,
  ],
  "an image of odd size": [
    {
      y: gradient({
        ...{ size: [11, 11], kernel: 7, stride: 2, padding: 3 },
        channels: [16, 3],
      }),
    },
    1,
  ],
  "five channels by 2": [
    {
      y: gradient({
        ...{ size: [8, 8], kernel: 3, stride: 2, padding: 1 },
        channels: [16, 5],
      }),
    },
    1,
  ],
};

for (const [name, [outputs, left]] of Object.entries(GRAPHS)) {
  Deno.test(`the gradient of a convolution by phases: ${name}`, async () => {
    const plain = lower(Object.values(outputs));
    for (const block of [8, 16]) {
      const { ConvTranspose = 0 } = operatorsOf(outputs, block);
      assertEquals(ConvTranspose, left);
      const shapes = lower(Object.values(outputs), block);
      assertEquals(
        shapes.map(({ shape }) => shape),
        plain.map(({ shape }) => shape),
      );
    }
    const random = new Random(7);
    const drawn: Record<string, NamedTensors[string]> = {};
    const visit = ({ name, kind, shape, inputs }: Node) => {
      if (kind === "input" || kind === "parameter") {
        drawn[name] ??= random.stream(name).normal(shape);
      }
      inputs.forEach(visit);
    };
    Object.values(outputs).forEach(visit);
    // Weights that vary, and weights that are known before.
    await assertSameAsPlain(outputs, drawn, { tolerance: 1e-6 });
    const constants = Object.fromEntries(
      Object.entries(drawn).filter(([name]) => name.startsWith("w")),
    );
    await assertSameAsPlain(outputs, drawn, { constants, tolerance: 1e-6 });
  });
}
