import { page } from "fresh";
import { Head } from "fresh/runtime";
import { Empty } from "../../components/Empty.tsx";
import { duration, time } from "../../format.ts";
import RunCurves from "../../islands/RunCurves.tsx";
import RunFilter from "../../islands/RunFilter.tsx";
import type { SiteRun } from "../../library.ts";
import { curveRun } from "../../training.ts";
import { define } from "../../utils.ts";
import { summaryOf } from "../../views.ts";

/** Runs compared at most. */
const MOST = 12;

/** Training runs shown when none is chosen. */
const LATEST = 2;

export const handler = define.handlers({
  GET: async ({ state, url }) => {
    const runs = await state.library.runs();
    const text = url.searchParams.get("q")?.slice(0, 200) ?? "";
    const command = url.searchParams.get("command") ?? "";
    const chosen = new Set(url.searchParams.getAll("compare").slice(0, MOST));
    const compared = chosen.size > 0
      ? runs.filter(({ key }) => chosen.has(key))
      : runs.filter(isTraining).slice(0, LATEST);
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const all = runs.map(summaryOf);
    const shown = all.filter((run) => {
      const content = Object.values(run).join(" ").toLowerCase();
      return words.every((word) => content.includes(word)) &&
        (!command || run.command === command);
    });
    return page({
      runs: shown,
      total: all.length,
      commands: [...new Set(all.map((run) => run.command))].sort(),
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

export default define.page<typeof handler>(({ data }) => {
  const { runs, total, commands, text, command, chosen, compared } = data;
  const title = (
    <Head>
      <title>Runs · robust-reps</title>
    </Head>
  );
  if (total === 0) {
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
      <section aria-labelledby="all">
        <h2 id="all">All runs</h2>
        <RunFilter
          commands={commands}
          text={text}
          command={command}
          total={total}
          shown={runs.length}
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
                {runs.map((run) => (
                  <tr
                    key={run.key}
                    data-run={run.key}
                    data-command={run.command}
                    class={run.state}
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
                        <time dateTime={run.startedAt}>
                          {time(run.startedAt)}
                        </time>
                      )}
                    </td>
                    <td class="num nowrap">
                      {run.seconds > 0 ? duration(run.seconds) : ""}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <p class="after-table">
            <button type="submit" class="button">Compare training runs</button>
          </p>
        </form>
      </section>
    </>
  );
});
