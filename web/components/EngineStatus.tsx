import { bytes, short } from "../format.ts";
import type { EngineState } from "../playground/client.ts";

/** What computes, and how fast. */
export function EngineStatus(
  { state, message }: { readonly state: EngineState; readonly message: string },
) {
  const { phase, provider, threads, deviation, note, rate, loading } = state;
  const where = provider === "webgpu"
    ? "WebGPU"
    : `WebAssembly, ${threads === 1 ? "1 thread" : `${threads} threads`}`;
  return (
    <div class="status">
      <p role="status">
        {phase === "opening"
          ? "Opening the engine and testing it …"
          : loading
          ? `Loading the network: ${bytes(loading.received)}${
            loading.total ? ` of ${bytes(loading.total)}` : ""
          }`
          : provider
          ? (
            <>
              <span class="tag good">self-test passed</span> on {where}
              <span class="muted">
                {` (off by ${deviation!.toExponential(0)})`}
              </span>
            </>
          )
          : "Nothing is computed yet."}
      </p>
      {rate !== undefined && (
        <p class="rate">
          <strong>{short(rate)}</strong> images/s
        </p>
      )}
      {note && <p class="notice">{note}</p>}
      {message && <p class="notice bad" role="alert">{message}</p>}
    </div>
  );
}
