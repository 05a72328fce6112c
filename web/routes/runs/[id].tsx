import { HttpError, page } from "fresh";
import { Head } from "fresh/runtime";
import { FileList } from "../../components/FileList.tsx";
import { Recipe } from "../../components/Recipe.tsx";
import { WholeFigure } from "../../components/WholeFigure.tsx";
import { figuresOf } from "../../figure.ts";
import { duration, time } from "../../format.ts";
import Figure from "../../islands/Figure.tsx";
import RunCurves from "../../islands/RunCurves.tsx";
import { runFile } from "../../link.ts";
import { commandOf, figureFile } from "../../pages.ts";
import { curveRun } from "../../training.ts";
import { define } from "../../utils.ts";
import { summaryOf } from "../../views.ts";

export const handler = define.handlers({
  GET: async ({ state, params }) => {
    const run = await state.library.run(params.id);
    if (!run) throw new HttpError(404, "No such run");
    return page({ item: run, summary: summaryOf(run) });
  },
});

export default define.page<typeof handler>(({ data: { item, summary } }) => {
  const { key, run, error } = item;
  const title = (
    <Head>
      <title>{key} · robust-reps</title>
    </Head>
  );
  if (!run) {
    return (
      <article>
        {title}
        <p class="kicker">Run</p>
        <h1>{key}</h1>
        <p class="notice bad" role="alert">{error}</p>
        <p>
          The record of this run cannot be read, so that nothing is known of it.
          Other runs are not affected. Look at the file, restore it, or remove
          the folder.
        </p>
      </article>
    );
  }
  const figures = figuresOf(run);
  const whole = figureFile(item);
  const command = commandOf(item);
  return (
    <article>
      {title}
      <p class="kicker">
        Run of {run.command}
        {summary.state !== "finished" && (
          <span class={`tag ${summary.state}`}>{summary.state}</span>
        )}
      </p>
      <h1>{key}</h1>
      {summary.numbers && <p class="lead">{summary.numbers}</p>}
      {run.command === "train" && <RunCurves runs={[curveRun(item)]} />}
      {figures.map((figure) => (
        <Figure
          key={figure.parameter ?? ""}
          figure={figure}
          run={key}
          command={command}
        />
      ))}
      {figures.length === 0 && whole && (
        <WholeFigure src={runFile(key, whole)} alt="Figure of this run" />
      )}
      <section aria-labelledby="recipe">
        <h2 id="recipe">Recipe</h2>
        <Recipe command={command} run={key} />
        <dl class="facts">
          <dt>Started</dt>
          <dd>
            <time dateTime={run.startedAt}>{time(run.startedAt)} UTC</time>
          </dd>
          <dt>Took</dt>
          <dd>{duration(run.seconds)}</dd>
          <dt>Ran on</dt>
          <dd>{run.provider}</dd>
          <dt>Seed</dt>
          <dd>{run.seed}</dd>
          <dt>Code</dt>
          <dd>
            {run.commit ? <code>{run.commit.slice(0, 12)}</code> : "unknown"}
          </dd>
          <dt>Versions</dt>
          <dd>
            {Object.entries(run.versions).map(([name, version]) =>
              `${name} ${version}`
            ).join(", ")}
          </dd>
          {run.weights.map(({ role, path, sha256 }) => (
            <>
              <dt>Weights, {role}</dt>
              <dd>
                {path}, SHA-256 <code>{sha256.slice(0, 16)}…</code>
              </dd>
            </>
          ))}
        </dl>
        <FileList run={key} files={run.files} />
        <details>
          <summary>Metrics</summary>
          <pre tabIndex={0} aria-label="Metrics"><code>{
            JSON.stringify(run.metrics, null, 2)
          }</code></pre>
        </details>
      </section>
    </article>
  );
});
