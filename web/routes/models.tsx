import { dirname } from "node:path";
import type { CardSanity } from "../../models/mod.ts";
import { page } from "fresh";
import { Head } from "fresh/runtime";
import { Empty } from "../components/Empty.tsx";
import { IntervalBar } from "../components/NumbersTable.tsx";
import { accuraciesOf, type Accuracy, sanityOf } from "../accuracies.ts";
import { bytes, duration, percent, quoted, short, time } from "../format.ts";
import { GRAPHS } from "../graphs.ts";
import type { SiteModel } from "../library.ts";
import { modelFile, runPage } from "../link.ts";
import { define } from "../utils.ts";

export const handler = define.handlers({
  GET: async ({ state: { library } }) => {
    const models = await library.models();
    const runs = await library.runs();
    return page(models.map((model) => ({
      model,
      accuracies: accuraciesOf(model, runs),
      sanity: sanityOf(model, runs),
    })));
  },
});

export default define.page<typeof handler>(({ data: models }) => (
  <>
    <Head>
      <title>Models · robust-reps</title>
    </Head>
    <h1>Models</h1>
    <p class="lead">
      The networks behind the results: how accurate they are, on clean and on
      attacked pictures, where they come from, and their files.
    </p>
    {models.length === 0
      ? (
        <Empty title="No models yet" command="deno task demo">
          <p>The demo trains a standard and a robust one:</p>
        </Empty>
      )
      : models.map((view) => <ModelCard key={view.model.key} {...view} />)}
  </>
));

function ModelCard(
  { model, accuracies, sanity }: {
    readonly model: SiteModel;
    readonly accuracies: readonly Accuracy[];
    readonly sanity: CardSanity | null;
  },
) {
  const { key, card, error, size, run } = model;
  if (!card) {
    return (
      <section class="model" aria-labelledby={`m-${key}`}>
        <h2 id={`m-${key}`}>{key}</h2>
        <p class="notice bad">{error}</p>
      </section>
    );
  }
  const { attack } = card;
  const name = run ? dirname(model.path) : key;
  const evaluation = `deno task evaluate --model ${quoted(name)}`;
  const { training, data, extra = {} } = card;
  return (
    <section class="model" aria-labelledby={`m-${key}`}>
      <header>
        <h2 id={`m-${key}`}>{key}</h2>
        <span class={`tag ${attack ? "robust" : "standard"}`}>
          {attack
            ? `robust, ${attack.norm} ε ${short(attack.epsilon)}`
            : "standard"}
        </span>
      </header>
      <div class="model-columns">
        <div>
          <h3>Accuracy</h3>
          {accuracies.length === 0
            ? (
              <p class="muted">
                Not measured yet: <code>{evaluation}</code>
              </p>
            )
            : (
              <div
                class="scroll"
                tabIndex={0}
                role="region"
                aria-label={`Accuracy of ${key}`}
              >
                <table class="numbers">
                  <caption>On test images, with 95% intervals</caption>
                  <tbody>
                    {accuracies.map((
                      { name, share, interval, images, run },
                    ) => (
                      <tr key={name}>
                        <th scope="row">
                          {run ? <a href={runPage(run)}>{name}</a> : name}
                        </th>
                        <td class="num strong">{percent(share)}</td>
                        <td>
                          {interval && (
                            <IntervalBar
                              value={{ mean: share, ...interval }}
                              unit="fraction"
                            />
                          )}
                        </td>
                        <td class="num muted">
                          {images && `n ${images.toLocaleString("en")}`}
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            )}
          {sanity && <Sanity sanity={sanity} />}
          {!sanity && attack && (
            <>
              <h3>Sanity checks</h3>
              <p class="muted">
                Not made yet: <code>{evaluation} --sanity</code>
              </p>
            </>
          )}
        </div>
        <div>
          <h3>Provenance</h3>
          <dl class="facts">
            <dt>Network</dt>
            <dd>{card.architecture}, width {card.width}, {card.form} form</dd>
            <dt>Data</dt>
            <dd>
              {card.dataset}, {card.imageSize} x {card.imageSize},{" "}
              {card.classes.length} classes
            </dd>
            <dt>Training</dt>
            <dd>
              {card.epoch} {card.epoch === 1 ? "epoch" : "epochs"}, seed{" "}
              {card.seed}
              {attack &&
                `, attack of ${attack.steps} ${
                  attack.steps === 1 ? "step" : "steps"
                } of ${short(attack.stepSize)}`}
            </dd>
            {training && (
              <>
                <dt>Took</dt>
                <dd>
                  {`${duration(training.seconds)} on ${training.provider}, ` +
                    `${training.cpu}, threads: ${training.threads}` +
                    (training.preset ? `, preset ${training.preset}` : "")}
                </dd>
              </>
            )}
            {data && (
              <>
                <dt>Images</dt>
                <dd>
                  {`${data.images.toLocaleString("en")}, ${data.preprocessing}`}
                </dd>
              </>
            )}
            {card.created && (
              <>
                <dt>Made</dt>
                <dd>{time(card.created)} UTC</dd>
              </>
            )}
            {run && (
              <>
                <dt>Run</dt>
                <dd>
                  <a href={runPage(run)}>{run}</a>
                </dd>
              </>
            )}
            {card.weightsSha256 && (
              <>
                <dt>Weights</dt>
                <dd>
                  SHA-256 <code>{card.weightsSha256.slice(0, 16)}…</code>
                </dd>
              </>
            )}
            {Object.entries(extra).filter(([, value]) =>
              ["string", "number", "boolean"].includes(typeof value)
            ).map(([name, value]) => (
              <>
                <dt>{name}</dt>
                <dd>{String(value)}</dd>
              </>
            ))}
          </dl>
          {card.command && (
            <pre
              tabIndex={0}
              aria-label="Training command"
            ><code>{card.command}</code></pre>
          )}
        </div>
      </div>
      <h3>Files</h3>
      <p class="links">
        <a href={modelFile(key, "model.safetensors")} download>
          Weights ({bytes(size)})
        </a>
        {Object.entries(GRAPHS).map(([file, what]) => (
          <a key={file} href={modelFile(key, file)} download>
            ONNX: {what}
          </a>
        ))}
        <a href={`/playground?model=${encodeURIComponent(key)}`}>
          Try it in the playground
        </a>
      </p>
    </section>
  );
}

/** The checklist of whether the measured robustness can be believed. */
function Sanity({ sanity }: { readonly sanity: CardSanity }) {
  const { checks, images, norm, epsilon, steps } = sanity;
  const count = images.toLocaleString("en");
  return (
    <>
      <h3>Sanity checks</h3>
      <p class="muted">
        {`PGD-${steps}, ${norm} ε ${short(epsilon)}, ${count} images`}
      </p>
      <ul class="checks">
        {checks.map(({ name, passed, detail }) => (
          <li key={name} class={passed ? "good" : "bad"}>
            <span aria-hidden="true">{passed ? "✓" : "✗"}</span>
            <span class="visually-hidden">
              {passed ? "Passed:" : "Failed:"}
            </span>{" "}
            {name}
            {detail && <span class="muted">{detail}</span>}
          </li>
        ))}
      </ul>
    </>
  );
}
