/**
 * Our contestant: prepares a workload, says so, and makes one timed step for
 * each line of stdin, answering with its milliseconds.
 *
 * @module
 */
import { type Provider, runtimeVersion } from "../onnx/mod.ts";
import { invert, predict, type Step, train } from "./_steps.ts";
import { findWorkloads, type Workload } from "./_workloads.ts";

/** Makes one step and gives its milliseconds. */
type TimedStep = () => Promise<number>;

function timed(step: Step): TimedStep {
  return async () => {
    const started = performance.now();
    await step();
    return performance.now() - started;
  };
}

async function prepare(
  workload: Workload,
  options: { readonly provider: Provider; readonly threads: number },
): Promise<TimedStep> {
  switch (workload.kind) {
    case "train": {
      const step = await train(workload, options);
      return async () => (await step()).ms;
    }
    case "predict":
      return timed(await predict(workload, options));
    default:
      return timed(await invert(workload, options));
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
  const step = await prepare(workload, {
    provider: provider as Provider,
    threads: Number(threads),
  });
  const version = `ONNX Runtime ${await runtimeVersion()}`;
  console.log(JSON.stringify({ version, candidate: provider }));
  for await (const _ of lines()) console.log(await step());
  Deno.exit();
}
