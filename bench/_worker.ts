/**
 * Our contestant: prepares a workload, says so, and makes one timed step for
 * each line of stdin, answering with its milliseconds.
 *
 * @module
 */
import { type Provider, runtimeVersion } from "../onnx/mod.ts";
import type { RunOptions } from "../robust/mod.ts";
import { invert, predict, type Prepared, train } from "./_steps.ts";
import { findWorkloads, type Workload } from "./_workloads.ts";

/** Makes a workload ready to run. */
export async function prepare(
  workload: Workload,
  options: RunOptions,
): Promise<Prepared> {
  switch (workload.kind) {
    case "train":
      return await train(workload, options);
    case "predict":
      return await predict(workload, options);
    default:
      return await invert(workload, options);
  }
}

/** Lines of stdin. */
async function* lines(): AsyncGenerator<string> {
  let rest = "";
  for await (
    const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())
  ) {
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}

if (import.meta.main) {
  const [id, provider, threads] = Deno.args;
  const [workload] = findWorkloads(id);
  const { step } = await prepare(workload, {
    provider: provider as Provider,
    threads: Number(threads),
  });
  const version = `ONNX Runtime ${await runtimeVersion()}`;
  console.log(JSON.stringify({ version, candidate: provider }));
  for await (const _ of lines()) console.log(await step());
  Deno.exit();
}
