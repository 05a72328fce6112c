import { page } from "fresh";
import { Head } from "fresh/runtime";
import { Empty } from "../../components/Empty.tsx";
import { Origin } from "../../components/Origin.tsx";
import { ResultCards } from "../../components/ResultCards.tsx";
import { resultsOf } from "../../pages.ts";
import { define } from "../../utils.ts";

export const handler = define.handlers({
  GET: async ({ state }) => page(await resultsOf(state.library)),
});

export default define.page<typeof handler>(
  ({ data: { entries, error, ...origin } }) => (
    <>
      <Head>
        <title>Experiments · robust-reps</title>
      </Head>
      <h1>Experiments</h1>
      <p class="lead">
        One page for each figure and table of the paper: what it claims, what
        came out here, and the command that makes it again.
      </p>
      {error && <p class="notice bad" role="alert">{error}</p>}
      {entries.length > 0
        ? (
          <>
            <Origin {...origin} />
            <ResultCards entries={entries} level={2} />
          </>
        )
        : !error && (
          <Empty title="No results yet" command="deno task reproduce --quick">
            <p>This makes every figure and table with few pictures:</p>
          </Empty>
        )}
    </>
  ),
);
