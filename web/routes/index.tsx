import { page } from "fresh";
import { Empty } from "../components/Empty.tsx";
import { ResultCards } from "../components/ResultCards.tsx";
import Figure from "../islands/Figure.tsx";
import { WholeFigure } from "../components/WholeFigure.tsx";
import { firstPageOf, resultsOf } from "../pages.ts";
import { define } from "../utils.ts";

export const handler = define.handlers({
  GET: async ({ state: { library } }) => {
    const results = await resultsOf(library);
    return page({ results, ...await firstPageOf(library, results) });
  },
});

export default define.page<typeof handler>(
  ({ data: { results: { entries, error }, teaser, headline } }) => (
    <>
      <section class="hero">
        <h1>What a network trained against small perturbations sees</h1>
        <p class="lead">
          Train an image classifier so that no small change of a picture fools
          it, and its representation becomes something that plain gradient steps
          on the picture can invert, interpolate, visualise and edit. This
          project rebuilds every figure and table of the paper that found this,
          and puts its own numbers beside the paper’s. The playground does the
          same with a picture of yours, in your browser.
        </p>
        <p class="actions">
          <a class="button primary" href="/playground">
            Open the playground
          </a>
          <a class="button" href="/experiments">See all results</a>
        </p>
      </section>
      {teaser && (
        <section aria-labelledby="teaser" class="band">
          <h2 id="teaser">{teaser.title}</h2>
          <p>{teaser.text}</p>
          <Figure
            figure={teaser.figure}
            run={teaser.run}
            command={teaser.command}
            compact
          />
        </section>
      )}
      {headline && <WholeFigure {...headline} caption={headline.alt} />}
      {error && <p class="notice bad" role="alert">{error}</p>}
      {entries.length > 0
        ? (
          <section aria-labelledby="results">
            <h2 id="results">Results</h2>
            <ResultCards entries={entries} />
          </section>
        )
        : !error && (
          <Empty title="No results yet" command="deno task demo">
            <p>
              The demo trains a standard and a robust network and compares them,
              in a few minutes and without a download;{" "}
              <code>deno task reproduce</code> makes every figure and table.
            </p>
          </Empty>
        )}
    </>
  ),
);
