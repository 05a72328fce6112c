/**
 * From a checkpoint to the end of the first step of an inversion, as scripts
 * do it; prints when each part of it ended.
 *
 * @module
 */
import {
  loadNetwork,
  matchRepresentation,
  optimizeInput,
  Random,
} from "../mod.ts";

if (import.meta.main) {
  const [source, count, threads] = Deno.args;
  const ended: Record<string, number> = {};
  const mark = (what: string) => {
    ended[what] = performance.timeOrigin + performance.now();
  };
  mark("modules loaded");
  const { network, card } = await loadNetwork(source, {
    ...(threads ? { threads: Number(threads) } : {}),
  });
  mark("checkpoint read");
  const { imageSize } = card;
  const shape = [Number(count), 3, imageSize, imageSize];
  const images = new Random(0).uniformTensor(shape);
  const { representation } = await network.predict(images);
  mark("targets represented");
  await optimizeInput(network, images, {
    objective: matchRepresentation(representation),
    epsilon: 1000,
    stepSize: 1,
    // A step's losses are known when it is done.
    steps: 2,
    onStep: ({ step }) => {
      if (step === 0) mark("first step done");
    },
  });
  console.log(JSON.stringify(ended));
  // Waits to be ended, so that its memory can still be read.
  await new Promise((resolve) => setTimeout(resolve, 60_000));
}
