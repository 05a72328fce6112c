/**
 * W5: what a user's shortest script does, up to the end of the first step.
 *
 * @module
 */
import type { Provider } from "../onnx/mod.ts";
import { invert } from "./_steps.ts";
import { findWorkloads } from "./_workloads.ts";

if (import.meta.main) {
  const [id, provider, threads] = Deno.args;
  const [workload] = findWorkloads(id);
  const { step } = await invert(workload, {
    provider: provider as Provider,
    threads: Number(threads),
  });
  console.log(JSON.stringify({ ms: await step(), candidate: provider }));
  // Waits to be ended, so that its memory can still be read.
  await new Promise((resolve) => setTimeout(resolve, 60_000));
}
