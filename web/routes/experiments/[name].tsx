import { signal } from "@preact/signals";
import { HttpError, page } from "fresh";
import { Head } from "fresh/runtime";
import { FileList } from "../../components/FileList.tsx";
import { NumbersTable } from "../../components/NumbersTable.tsx";
import { Origin } from "../../components/Origin.tsx";
import { Recipe } from "../../components/Recipe.tsx";
import { Verdict } from "../../components/Verdict.tsx";
import { WholeFigure } from "../../components/WholeFigure.tsx";
import Figure from "../../islands/Figure.tsx";
import RadiusCurve from "../../islands/RadiusCurve.tsx";
import { resultOf } from "../../pages.ts";
import { define } from "../../utils.ts";

export const handler = define.handlers({
  GET: async ({ state, params }) => {
    const result = await resultOf(state.library, params.name);
    if (!result) throw new HttpError(404, "No such result");
    return page(result);
  },
});

export default define.page<typeof handler>(({ data }) => {
  const { entry, run, error, figures, picture, curve, files } = data;
  // One signal for curve and pictures: the radius at hand.
  const radius = signal(curve?.radius.at(-1) ?? 0);
  return (
    <article>
      <Head>
        <title>{entry.title} · robust-reps</title>
      </Head>
      <p class="kicker">{entry.paper} · {entry.dataset}</p>
      <h1>{entry.title}</h1>
      <div class="claims">
        <section>
          <h2>The paper claims</h2>
          <p>{entry.claim}</p>
        </section>
        <section>
          <h2>
            Here <Verdict shows={entry.shows ?? null} />
          </h2>
          <p>{entry.note || "No note was made."}</p>
        </section>
      </div>
      {entry.numbers.length > 0 && (
        <NumbersTable
          numbers={entry.numbers}
          caption="The paper’s numbers beside ours"
        />
      )}
      {error && <p class="notice bad" role="alert">{error}</p>}
      {curve && <RadiusCurve curve={curve} radius={radius} />}
      {run && figures.map((figure) => (
        <Figure
          key={figure.parameter ?? ""}
          figure={figure}
          run={run}
          command={entry.command}
          {...(figure.parameter === "radius" && curve
            ? { position: radius }
            : {})}
        />
      ))}
      {figures.length > 0 && picture && (
        <details class="whole">
          <summary>The figure as one image</summary>
          <WholeFigure src={picture} alt={entry.title} />
        </details>
      )}
      {figures.length === 0 && picture && (
        <WholeFigure src={picture} alt={entry.title} />
      )}
      <section aria-labelledby="recipe">
        <h2 id="recipe">Recipe</h2>
        <Recipe command={entry.command} {...(run ? { run } : {})} />
        {run && <FileList run={run} files={files} />}
        <Origin {...data.origin} />
      </section>
      <nav class="pager" aria-label="Results">
        {data.previous && (
          <a rel="prev" href={`/experiments/${data.previous.id}`}>
            ← {data.previous.title}
          </a>
        )}
        {data.next && (
          <a rel="next" href={`/experiments/${data.next.id}`}>
            {data.next.title} →
          </a>
        )}
      </nav>
    </article>
  );
});
