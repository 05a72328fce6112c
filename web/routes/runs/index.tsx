import { page } from "fresh";
import { Head } from "fresh/runtime";
import { Empty } from "../../components/Empty.tsx";
import { hasWords, MOST_COMPARED } from "../../filter.ts";
import { duration, time } from "../../format.ts";
import RunCurves from "../../islands/RunCurves.tsx";
import RunFilter from "../../islands/RunFilter.tsx";
import type { SiteRun } from "../../library.ts";
import { curveRun } from "../../training.ts";
import { define } from "../../utils.ts";
import { type RunSummary, summaryOf } from "../../views.ts";

/** Training runs shown when none is chosen. */
const LATEST = 2;

export const handler = define.handlers({
  GET: async ({ state, url }) => {
    const runs = await state.library.runs();
    const text = url.searchParams.get("q")?.slice(0, 200) ?? "";
    const command = url.searchParams.get("command") ?? "";
    const chosen = new Set(
      url.searchParams.getAll("compare").slice(0, MOST_COMPARED),
    );
    const compared = chosen.size > 0
      ? runs.filter(({ key }) => chosen.has(key))
      : runs.filter(isTraining).slice(0, LATEST);
    const rows = runs.map(summaryOf).map((run) => ({
      ...run,
      fits: hasWords(textOf(run), text) &&
        (!command || run.command === command),
    }));
    return page({
      rows,
      commands: [...new Set(rows.map((run) => run.command))].sort(),
      text,
      command,
      chosen,
      compared: compared.filter(isTraining).map(curveRun),
    });
  },
});

function isTraining({ run }: SiteRun): boolean {
  return run?.command === "train";
}

/** What a row says of a run. */
function textOf(run: RunSummary): string {
  const { key, state, folder, dataset, error, numbers } = run;
  return [
    ...[key, state === "finished" ? "" : state, folder, dataset],
    ...[error ?? numbers, startOf(run), lengthOf(run)],
  ].join(" ");
}

function startOf({ startedAt }: RunSummary): string {
  return startedAt && time(startedAt);
}

function lengthOf({ seconds }: RunSummary): string {
  return seconds > 0 ? duration(seconds) : "";
}

export default define.page<typeof handler>(({ data }) => {
  const { rows, commands, text, command, chosen, compared } = data;
  const title = (
    <Head>
      <title>Runs · robust-reps</title>
    </Head>
  );
  if (rows.length === 0) {
    return (
      <>
        {title}
        <h1>Runs</h1>
        <Empty title="No runs yet" command="deno task demo">
          <p>
            Every script leaves a record of what it did; the demo makes eight in
            a few minutes:
          </p>
        </Empty>
      </>
    );
  }
  return (
    <>
      {title}
      <h1>Runs</h1>
      {compared.length > 0 && (
        <section aria-labelledby="curves">
          <h2 id="curves">
            {chosen.size > 0 ? "Compared" : "Latest training"}
          </h2>
          <RunCurves runs={compared} followsAddress />
        </section>
      )}
      {chosen.size > 0 && compared.length === 0 && (
        <p class="notice">
          There is nothing to compare: the runs asked for are no training runs,
          or not here anymore.
        </p>
      )}
      <section aria-labelledby="all">
        <h2 id="all">All runs</h2>
        <RunFilter
          commands={commands}
          text={text}
          command={command}
          total={rows.length}
          shown={rows.filter(({ fits }) => fits).length}
        />
        <form method="get" action="">
          <div
            class="scroll"
            tabIndex={0}
            role="region"
            aria-label="Table of runs"
          >
            <table class="runs">
              <thead>
                <tr>
                  <th scope="col">
                    <span class="visually-hidden">Compare</span>
                  </th>
                  <th scope="col">Run</th>
                  <th scope="col">Data</th>
                  <th scope="col">Numbers</th>
                  <th scope="col">Started (UTC)</th>
                  <th scope="col" class="num">Took</th>
                </tr>
              </thead>
              <tbody>
                {rows.map((run) => (
                  <tr
                    key={run.key}
                    data-run={run.key}
                    data-command={run.command}
                    class={run.state}
                    hidden={!run.fits}
                  >
                    <td>
                      {run.command === "train" && (
                        <input
                          type="checkbox"
                          name="compare"
                          value={run.key}
                          checked={chosen.has(run.key)}
                          aria-label={`Compare ${run.key}`}
                        />
                      )}
                    </td>
                    <th scope="row">
                      <a href={run.page}>{run.key}</a>
                      {run.state !== "finished" && (
                        <span class={`tag ${run.state}`}>{run.state}</span>
                      )}
                      <small>{run.folder}</small>
                    </th>
                    <td>{run.dataset ?? ""}</td>
                    <td>{run.error ?? run.numbers}</td>
                    <td class="nowrap">
                      {run.startedAt && (
                        <time dateTime={run.startedAt}>{startOf(run)}</time>
                      )}
                    </td>
                    <td class="num nowrap">{lengthOf(run)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          {commands.includes("train") && (
            <p class="after-table">
              <button type="submit" class="button">
                Compare training runs
              </button>
            </p>
          )}
        </form>
      </section>
    </>
  );
});
