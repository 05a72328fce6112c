import type { EntryView } from "../pages.ts";
import { Verdict } from "./Verdict.tsx";

/** All results, each with a picture and its verdict. */
export function ResultCards(
  { entries, level = 3 }: {
    readonly entries: readonly EntryView[];
    /** Of the headings. */
    readonly level?: 2 | 3;
  },
) {
  const Heading = `h${level}` as const;
  return (
    <ul class="cards">
      {entries.map((entry) => (
        <li key={entry.id} class="card">
          {entry.picture
            ? (
              <div class="card-picture">
                <img src={entry.picture} alt="" loading="lazy" />
              </div>
            )
            : (
              <div class="card-picture none" aria-hidden="true">
                {entry.paper}
              </div>
            )}
          <div class="card-text">
            <p class="kicker">{entry.paper} · {entry.dataset}</p>
            <Heading class="card-title">
              <a href={`/experiments/${entry.id}`}>{entry.title}</a>
            </Heading>
            <p>{entry.claim}</p>
            <Verdict shows={entry.shows} />
          </div>
        </li>
      ))}
    </ul>
  );
}
