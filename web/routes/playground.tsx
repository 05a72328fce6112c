import { page } from "fresh";
import { Head } from "fresh/runtime";
import { Empty } from "../components/Empty.tsx";
import Playground from "../islands/Playground.tsx";
import { samplesOf } from "../samples.ts";
import { define } from "../utils.ts";
import { modelSummary } from "../views.ts";

export const handler = define.handlers({
  GET: async ({ state: { library } }) => {
    const models = (await library.models()).filter(({ card }) => card);
    return page({
      models: models.map(modelSummary),
      samples: await samplesOf(library),
    });
  },
});

export default define.page<typeof handler>(({ data: { models, samples } }) => (
  <>
    <Head>
      <title>Playground · robust-reps</title>
    </Head>
    <h1>Playground</h1>
    <p class="lead">
      Take a picture and let gradient steps change it until a network sees in it
      what you ask for. Everything is computed here, in your browser, by the
      very graphs of the experiments; no picture leaves your machine.
    </p>
    <noscript>
      <p class="notice">
        The playground computes in the browser and needs JavaScript; all other
        pages work without.
      </p>
    </noscript>
    {models.length === 0
      ? (
        <Empty title="No models yet" command="deno task demo">
          <p>The demo trains a standard and a robust network:</p>
        </Empty>
      )
      : <Playground models={models} samples={samples} />}
  </>
));
