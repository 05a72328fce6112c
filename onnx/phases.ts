/**
 * Gradients of strided convolutions' inputs as convolutions without a stride.
 *
 * A row of the input is reached by those taps of the kernel alone that fit how
 * far it lies behind a multiple of the stride: its phase. The taps of a phase are
 * a kernel of their own, without a multiplication by the zeros that a stride
 * leaves, and the results of all phases are put in turn (the sub-pixel
 * convolution of Shi et al. 2016, backwards).
 *
 * @module
 */
import {
  add,
  concat,
  convGeometry,
  gather,
  int64s,
  type Node,
  pad,
  reshape,
  sizeOf,
  transpose,
} from "../core/mod.ts";

/** What reaches the rows, or columns, of one phase. */
export interface Phase {
  /** Taps of the kernel, the one that reads the first position first. */
  readonly taps: readonly number[];
  /** Zeros before the first position and after the last. */
  readonly padding: readonly [number, number];
}

/**
 * Phases of a ConvTranspose, along rows as along columns. Either all have taps,
 * or the first alone.
 *
 * @returns Null for all other nodes, and where phases have unequal numbers of
 * positions
 */
export function phasesOf(
  { op, inputs: [g], attributes, shape }: Node,
): Phase[] | null {
  if (op?.type !== "ConvTranspose" || op.domain) return null;
  const { kernel, stride, padding } = convGeometry(attributes);
  const isEven = [2, 3].every((i) => shape[i] === g.shape[i] * stride);
  const phases = Array.from({ length: stride }, (_, offset): Phase => {
    const first = (offset + padding) % stride;
    const reach = Math.floor((offset + padding) / stride);
    const count = Math.max(0, Math.ceil((kernel - first) / stride));
    return {
      taps: countdown(count).map((i) => first + i * stride),
      padding: [count - 1 - reach, reach],
    };
  });
  const used = phases.map(({ taps }) => taps.length > 0);
  const isJoined = used.every(Boolean) || used.lastIndexOf(true) === 0;
  const isPadded = phases.every(({ padding: [before] }, i) =>
    !used[i] || before >= 0
  );
  return isEven && isJoined && isPadded ? phases : null;
}

/** length - 1 .. 0 */
export function countdown(length: number): number[] {
  return Array.from({ length }, (_, i) => length - 1 - i);
}

/** A gradient by phases, each `[n, c, h, w]` of as many positions. */
export type Phases =
  | {
    readonly kind: "all";
    /** By phase of the row, then of the column. */
    readonly grid: readonly (readonly Node[])[];
  }
  | {
    readonly kind: "first";
    /** That of the first row and column; the others are zero. */
    readonly first: Node;
    readonly stride: number;
  };

/** Computes each phase. */
export function computePhases(
  phases: readonly Phase[],
  compute: (row: Phase, column: Phase) => Node,
): Phases {
  const [first] = phases;
  return phases.every(({ taps }) => taps.length > 0)
    ? {
      kind: "all",
      grid: phases.map((row) => phases.map((column) => compute(row, column))),
    }
    : { kind: "first", first: compute(first, first), stride: phases.length };
}

/** Sum of two gradients of one stride, phase by phase; null of two strides. */
export function addPhases(a: Phases, b: Phases): Phases | null {
  if (strideOf(a) !== strideOf(b)) return null;
  if (a.kind === "first") {
    return b.kind === "first"
      ? { ...a, first: add(a.first, b.first) }
      : addPhases(b, a);
  }
  const grid = a.grid.map((row, i) =>
    row.map((x, j) => {
      if (b.kind === "all") return add(x, b.grid[i][j]);
      return i === 0 && j === 0 ? add(x, b.first) : x;
    })
  );
  return { kind: "all", grid };
}

function strideOf(phases: Phases): number {
  return phases.kind === "all" ? phases.grid.length : phases.stride;
}

/**
 * Puts rows and columns of all phases in turn.
 *
 * @param phases In blocks of channels, `[n, c / b, h, w, b]` in memory
 * @returns `[n, c, stride * h, stride * w]`, in blocks
 */
export function joinPhases(phases: Phases, block: number): Node {
  return phases.kind === "all"
    ? inTurn(phases.grid, block)
    : withZeros(phases.first, phases.stride, block);
}

function inTurn(
  grid: readonly (readonly Node[])[],
  block: number,
): Node {
  const [n, c, h, w] = grid[0][0].shape;
  const stride = grid.length;
  const lines = grid.map((row) => {
    const pixels = row.map((x) =>
      reshape(x, [n * c / block * h * w, 1, block])
    );
    const line = [n * c / block * h, 1, stride * w * block];
    return reshape(concat(pixels, 1), line);
  });
  return reshape(concat(lines, 1), [n, c, stride * h, stride * w]);
}

/** Puts zeros after each row and column. */
function withZeros(x: Node, stride: number, block: number): Node {
  const [n, c, h, w] = x.shape;
  const extended = (x: Node, length: number) => {
    const rows = reshape(x, [sizeOf(x.shape) / length, length]);
    return pad(rows, [0, 0], [0, (stride - 1) * length]);
  };
  const lines = extended(extended(x, block), stride * w * block);
  return reshape(lines, [n, c, stride * h, stride * w]);
}

/**
 * One kernel for all phases of all channels, `[outputs, k, t, t]`: outputs are
 * row, column and channel, in the order of DepthToSpace, and zeros from
 * `stride ** 2 * c` on.
 *
 * @param w Weights of the convolution, `[k, c, kernel, kernel]`
 * @param phases All with taps
 * @returns The kernel, and zeros before and after rows and columns
 */
export function jointKernel(
  w: Node,
  phases: readonly Phase[],
  outputs: number,
): { readonly kernel: Node; readonly padding: readonly [number, number] } {
  const before = Math.max(...phases.map(({ padding: [before] }) => before));
  const after = Math.max(...phases.map(({ padding: [, after] }) => after));
  const kernels = phases.flatMap((row) =>
    phases.map((column) => {
      const rows = gather(w, int64s(row.taps), 2);
      const taps = gather(rows, int64s(column.taps), 3);
      // Each reads as much as all together.
      return pad(
        taps,
        [0, 0, before - row.padding[0], before - column.padding[0]],
        [0, 0, after - row.padding[1], after - column.padding[1]],
      );
    })
  );
  const joint = transpose(concat(kernels, 1), [1, 0, 2, 3]);
  const zeros = outputs - joint.shape[0];
  return {
    kernel: pad(joint, [0, 0, 0, 0], [zeros, 0, 0, 0]),
    padding: [before, after],
  };
}
