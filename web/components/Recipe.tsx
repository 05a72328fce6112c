import { runPage, runRecord } from "../link.ts";

/** The command that makes something again, and the record of its run. */
export function Recipe(
  { command, run }: { readonly command: string; readonly run?: string },
) {
  return (
    <div class="recipe">
      <p class="recipe-label">Made by</p>
      <pre tabIndex={0} aria-label="Command"><code>{command}</code></pre>
      {run && (
        <p class="links">
          <a href={runPage(run)}>The run</a>
          <a href={runRecord(run)}>run.json</a>
        </p>
      )}
    </div>
  );
}
