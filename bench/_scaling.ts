/**
 * A model of training on many GPUs: how long a step takes, and where more GPUs
 * stop helping. A simulation of every message of every rank checks it.
 *
 * Sums over ranks are modelled as MPI libraries make them: within a node to its
 * first rank along a tree, between nodes by halving and doubling (Rabenseifner
 * 2004; Thakur et al. 2005), and back along the tree. A message of `n` bytes
 * takes `latency + n / bandwidth`.
 *
 * @module
 */
import { Random } from "../core/mod.ts";

/** What messages cost. */
export interface Link {
  /** Seconds before the first byte arrives. */
  readonly latency: number;
  /** Bytes per second. */
  readonly bandwidth: number;
}

/** Machines and what connects them. */
export interface Cluster {
  readonly gpusPerNode: number;
  /** Between processes of a node, by way of its memory. */
  readonly node: Link;
  /** Between nodes, for each. */
  readonly network: Link;
  /** Between a GPU and the memory of its node. */
  readonly host: Link;
  /** Deviation of a rank's computing time from step to step, over its mean. */
  readonly jitter: number;
}

/** What a step computes and sums. */
export interface Work {
  /** Seconds per image on one GPU. */
  readonly secondsPerImage: number;
  /** Seconds of a step whatever its images: launches, update of weights. */
  readonly secondsPerStep: number;
  /** Bytes of the gradients. */
  readonly bytes: number;
}

const take = ({ latency, bandwidth }: Link, bytes: number) =>
  latency + bytes / bandwidth;

/** Seconds that adding up the bytes of two messages takes a processor. */
const ADDING = { latency: 0, bandwidth: 10e9 } as const;

/** Seconds of one sum over ranks that all begin at once. */
export function sumSeconds(
  ranks: number,
  bytes: number,
  { gpusPerNode, node, network }: Cluster,
): number {
  if (ranks === 1) return 0;
  const local = Math.min(ranks, gpusPerNode);
  const nodes = Math.ceil(ranks / gpusPerNode);
  const levels = Math.ceil(Math.log2(local));
  const up = levels * (take(node, bytes) + take(ADDING, bytes));
  const down = levels * take(node, bytes);
  const rounds = Math.ceil(Math.log2(nodes));
  const part = bytes * (1 - 1 / nodes);
  const between = nodes === 1
    ? 0
    : 2 * (rounds * network.latency + part / network.bandwidth) +
      take(ADDING, part);
  return up + between + down;
}

/** How a step of some ranks goes. */
export interface Prediction {
  readonly ranks: number;
  readonly imagesPerRank: number;
  /** Seconds of a rank's own work. */
  readonly compute: number;
  /** Seconds that the slowest rank takes longer than the mean. */
  readonly wait: number;
  /** Seconds of copies and sums. */
  readonly sum: number;
  readonly step: number;
  readonly imagesPerSecond: number;
  /** Images per second over as many times those of one rank alone. */
  readonly efficiency: number;
}

/**
 * Predicts a step: work, waiting for the slowest rank, then the sum, of which
 * nothing is hidden behind the gradient (it is one program).
 *
 * @param alone Images per step of the one rank that is the measure of
 * efficiency (default: as many per rank)
 */
export function predict(
  ranks: number,
  imagesPerRank: number,
  work: Work,
  cluster: Cluster,
  alone = imagesPerRank,
): Prediction {
  const compute = imagesPerRank * work.secondsPerImage + work.secondsPerStep;
  const wait = cluster.jitter * compute * expectedMaximum(ranks);
  const copies = ranks > 1 ? 2 * take(cluster.host, work.bytes) : 0;
  const sum = copies + sumSeconds(ranks, work.bytes, cluster);
  const step = compute + wait + sum;
  const imagesPerSecond = ranks * imagesPerRank / step;
  const single = alone * work.secondsPerImage + work.secondsPerStep;
  return {
    ...{ ranks, imagesPerRank, compute, wait, sum, step, imagesPerSecond },
    efficiency: imagesPerSecond / (ranks * alone / single),
  };
}

/** Mean of the largest of `n` standard normal values (Blom 1958). */
export function expectedMaximum(n: number): number {
  return n === 1 ? 0 : normalQuantile((n - 0.375) / (n + 0.25));
}

/** Inverse of the normal distribution, by bisection. */
function normalQuantile(p: number): number {
  let [low, high] = [-10, 10];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (normalDistribution(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Abramowitz and Stegun 1964, 7.1.26: within 1.5e-7. */
function normalDistribution(x: number): number {
  const t = 1 / (1 + 0.3275911 * Math.abs(x) / Math.SQRT2);
  const terms = [
    1.061405429,
    -1.453152027,
    1.421413741,
    -0.284496736,
    0.254829592,
  ];
  const polynomial = terms.reduce((sum, term) => (sum + term) * t, 0);
  const tail = polynomial * Math.exp(-x * x / 2) / 2;
  return x > 0 ? 1 - tail : tail;
}

/**
 * Mean seconds of a step, simulated: each rank has a clock of its own, each
 * message makes its receiver wait for its sender.
 *
 * @param steps How many are simulated
 */
export function simulate(
  ranks: number,
  imagesPerRank: number,
  work: Work,
  cluster: Cluster,
  { steps, random }: { readonly steps: number; readonly random: Random },
): number {
  const compute = imagesPerRank * work.secondsPerImage + work.secondsPerStep;
  let clocks = Float64Array.from({ length: ranks }, () => 0);
  for (let step = 0; step < steps; step++) {
    const noise = random.normal([ranks]).data;
    clocks = clocks.map((clock, rank) =>
      clock + compute * Math.max(0, 1 + cluster.jitter * noise[rank])
    );
    if (ranks === 1) continue;
    const copy = take(cluster.host, work.bytes);
    clocks = clocks.map((clock) => clock + copy);
    simulateSum(clocks, work.bytes, cluster);
    clocks = clocks.map((clock) => clock + copy);
  }
  return Math.max(...clocks) / steps;
}

/** Moves the clocks through one sum. */
function simulateSum(
  clocks: Float64Array,
  bytes: number,
  { gpusPerNode, node, network }: Cluster,
): void {
  const ranks = clocks.length;
  const leaders: number[] = [];
  for (let first = 0; first < ranks; first += gpusPerNode) leaders.push(first);
  // Up the tree of each node: `first` receives from `first + distance`.
  const local = Math.min(ranks, gpusPerNode);
  for (let distance = 1; distance < local; distance *= 2) {
    for (const leader of leaders) {
      for (let i = 0; i + distance < local; i += 2 * distance) {
        const [to, from] = [leader + i, leader + i + distance];
        if (from >= ranks) continue;
        const arrival = Math.max(clocks[to], clocks[from]) + take(node, bytes);
        clocks[to] = arrival + take(ADDING, bytes);
      }
    }
  }
  // Halving, then doubling, between nodes.
  const exchange = (distance: number, size: number, adds: boolean) => {
    const before = leaders.map((leader) => clocks[leader]);
    leaders.forEach((leader, i) => {
      const partner = i ^ distance;
      if (partner >= leaders.length) return;
      clocks[leader] = Math.max(before[i], before[partner]) +
        take(network, size) + (adds ? take(ADDING, size) : 0);
    });
  };
  const distances: number[] = [];
  for (let distance = 1; distance < leaders.length; distance *= 2) {
    distances.push(distance);
  }
  distances.forEach((distance, i) =>
    exchange(distance, bytes / 2 ** (i + 1), true)
  );
  distances.toReversed().forEach((distance, i) =>
    exchange(distance, bytes / 2 ** (distances.length - i), false)
  );
  // Down the trees.
  const top = 2 ** Math.ceil(Math.log2(local));
  for (let distance = top / 2; distance >= 1; distance /= 2) {
    for (const leader of leaders) {
      for (let i = 0; i + distance < local; i += 2 * distance) {
        const [from, to] = [leader + i, leader + i + distance];
        if (to >= ranks) continue;
        clocks[to] = Math.max(clocks[to], clocks[from]) + take(node, bytes);
        // The sender is busy as long.
        clocks[from] = clocks[to];
      }
    }
  }
}

/**
 * Adversarial training of ResNet-50 on ImageNet (224 x 224, PGD of 7 steps):
 * 4.1e9 multiplications and additions a pass, twice that with the gradient of
 * the input, three times with all; 8e12 operations a second are 40 % of the
 * float32 peak of an A100 without TensorFloat-32.
 */
export const RESNET50_ATTACKED: Work = {
  secondsPerImage: 2 * 4.1e9 * (7 * 2 + 3) / 8e12,
  secondsPerStep: 0.02,
  bytes: 4 * 25.56e6,
};

/** The same without an attack. */
export const RESNET50_STANDARD: Work = {
  ...RESNET50_ATTACKED,
  secondsPerImage: 2 * 4.1e9 * 3 / 8e12,
};

/** Nodes of 8 GPUs on one 100 Gbit/s port each. */
export const CLUSTER: Cluster = {
  gpusPerNode: 8,
  node: { latency: 2e-6, bandwidth: 8e9 },
  network: { latency: 5e-6, bandwidth: 11e9 },
  host: { latency: 1e-5, bandwidth: 12e9 },
  jitter: 0.02,
};

/** A row for each number of GPUs. */
function table(
  work: Work,
  counts: readonly number[],
  imagesPerRank: (ranks: number) => number,
): string {
  const head = [
    "| GPUs | images/GPU | batch | work ms | wait ms | sum ms | images/s | " +
    "efficiency | simulated | 110 epochs |",
    "| ---: | ---------: | ----: | ------: | ------: | -----: | -------: | " +
    "---------: | --------: | ---------: |",
  ];
  const alone = imagesPerRank(1);
  const rows = counts.map((ranks) => {
    const images = imagesPerRank(ranks);
    const found = predict(ranks, images, work, CLUSTER, alone);
    const options = { steps: 200, random: new Random(0) };
    const simulated = simulate(ranks, images, work, CLUSTER, options);
    const ms = (seconds: number) => (1000 * seconds).toFixed(0);
    const hours = 110 * 1_281_167 / found.imagesPerSecond / 3600;
    return "| " + [
      ranks,
      images,
      ranks * images,
      ...[found.compute, found.wait, found.sum].map(ms),
      found.imagesPerSecond.toFixed(0),
      found.efficiency.toFixed(2),
      (found.efficiency * found.step / simulated).toFixed(2),
      hours < 48 ? `${hours.toFixed(1)} h` : `${(hours / 24).toFixed(1)} days`,
    ].join(" | ") + " |";
  });
  return [...head, ...rows].join("\n");
}

if (import.meta.main) {
  const counts = [1, 8, 16, 32, 64, 128, 256, 512];
  console.log("Attacked, 32 images per GPU\n");
  console.log(table(RESNET50_ATTACKED, counts, () => 32));
  console.log("\nStandard, 32 images per GPU\n");
  console.log(table(RESNET50_STANDARD, counts, () => 32));
  console.log("\nAttacked, batches of 256 images\n");
  const few = counts.filter((count) => count <= 256);
  console.log(table(RESNET50_ATTACKED, few, (ranks) => 256 / ranks));
}
