import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Chart, type Series } from "../components/Chart.tsx";
import type { Mode, Progress, Start } from "../engine/protocol.ts";
import { bytes, percent, short } from "../format.ts";
import { link, modelFile } from "../link.ts";
import { EngineClient, type EngineState } from "../playground/client.ts";
import { pictureOf, pngOf } from "../playground/pictures.ts";
import type { Sample } from "../samples.ts";
import type { ModelSummary } from "../views.ts";

interface Props {
  readonly models: readonly ModelSummary[];
  readonly samples: readonly Sample[];
}

/** A picture that was chosen: where it is, and what it is called. */
interface Chosen {
  readonly label: string;
  readonly url: string;
}

type Wanted = "auto" | "webgpu" | "wasm";

const MODES: Readonly<Record<Mode, { name: string; text: string }>> = {
  invert: {
    name: "Invert",
    text: "Start from noise or another picture, and match the representation " +
      "of yours. What comes out is all that the network keeps of it.",
  },
  interpolate: {
    name: "Interpolate",
    text: "Match representations on the line between those of two pictures.",
  },
  visualize: {
    name: "Visualise a feature",
    text: "Make one coordinate of the representation as large as possible.",
  },
  add: {
    name: "Add a feature",
    text: "Raise one coordinate in your picture until it exceeds all others.",
  },
};

/** Frames of an interpolation, the two pictures included. */
const FRAMES = 7;

/** Inverts, interpolates, visualises and edits in the browser. */
export default function Playground({ models, samples }: Props) {
  const [robust, standard] = pairOf(models);
  const mode = useSignal<Mode>("invert");
  const first = useSignal<Chosen>(samples[0]);
  const second = useSignal<Chosen>(samples[1] ?? samples[0]);
  const left = useSignal(robust.key);
  const right = useSignal(standard?.key ?? "");
  const start = useSignal<Start>("noise");
  const seed = useSignal(0);
  const stepSize = useSignal(robust.imageSize <= 64 ? 0.1 : 1);
  const radius = useSignal(1000);
  const coordinate = useSignal(0);
  const frame = useSignal(Math.floor(FRAMES / 2));
  const wanted = useSignal<Wanted>("auto");
  const state = useSignal<EngineState>({ phase: "idle" });
  const results = useSignal<readonly Progress[]>([]);
  const curves = useSignal<Curves>({ steps: [], lines: {} });
  const message = useSignal("");
  const client = useRef<EngineClient | null>(null);

  useEffect(() => {
    const key = new URLSearchParams(location.search).get("model");
    const asked = models.find((model) => model.key === key);
    if (asked) {
      left.value = asked.key;
      const partner = models.find(({ key, dataset, epsilon }) =>
        key !== asked.key && dataset === asked.dataset &&
        (epsilon > 0) !== (asked.epsilon > 0)
      );
      right.value = partner?.key ?? "";
    }
    return () => client.current?.close();
  }, []);

  const chosen = [left.value, right.value].filter((key, i, all) =>
    key && all.indexOf(key) === i
  ).map((key) => models.find((model) => model.key === key)!);
  const size = chosen[0].imageSize;
  const mismatch = chosen.some(({ imageSize }) => imageSize !== size);
  const { phase } = state.value;
  const isBusy = phase === "opening" || phase === "loading";
  const isRunning = phase === "running";
  const isFeature = mode.value === "visualize" || mode.value === "add";
  const needsSecond = mode.value === "interpolate" ||
    (mode.value === "invert" || mode.value === "visualize") &&
      start.value === "picture";

  /** Whatever the task depends on has changed: it begins anew. */
  const reset = () => {
    client.current?.pause();
    results.value = [];
    curves.value = { steps: [], lines: {} };
    if (state.peek().phase !== "idle") {
      state.value = { ...state.peek(), phase: "idle" };
    }
  };

  const prepare = async (): Promise<EngineClient> => {
    client.current ??= new EngineClient(link("/vendor/"), {
      onState: (next) => state.value = next,
      onProgress: (progress) => {
        results.value = progress;
        curves.value = extended(curves.peek(), progress);
      },
    });
    const engine = client.current;
    await engine.open(wanted.value);
    for (const { key } of chosen) {
      await engine.load(key, link(modelFile(key, "model.safetensors")));
    }
    if (results.peek().length === 0 || !engine.hasTask) {
      curves.value = { steps: [], lines: {} };
      const urls = [first.value, second.value].map(({ url }) => url);
      const pictures = await Promise.all(
        urls.map((url) => pictureOf(link(url), size)),
      );
      await engine.start({
        mode: mode.value,
        models: chosen.map(({ key }) => key),
        pictures,
        size,
        start: start.value,
        seed: seed.value,
        coordinate: coordinate.value,
        frames: FRAMES,
        stepSize: stepSize.value,
        radius: radius.value,
      });
    }
    return engine;
  };
  const go = async (steps: number | null) => {
    message.value = "";
    try {
      (await prepare()).run(steps);
    } catch (error) {
      message.value = error instanceof Error ? error.message : String(error);
      state.value = { ...state.peek(), phase: "idle" };
    }
  };
  const steer = () =>
    client.current?.steer({ stepSize: stepSize.value, radius: radius.value });

  const take = async (target: typeof first, file: File | undefined) => {
    if (!file) return;
    const url = URL.createObjectURL(file);
    try {
      await pictureOf(url, size);
      target.value = { label: file.name, url };
      message.value = "";
      reset();
    } catch {
      URL.revokeObjectURL(url);
      message.value = `Cannot read "${file.name}" as a picture: choose a PNG ` +
        `or JPEG file`;
    }
  };
  const pick = (target: typeof first) => (sample: Chosen) => {
    target.value = sample;
    reset();
  };

  return (
    <div
      class="playground"
      data-phase={phase}
      data-provider={state.value.provider ?? ""}
      data-step={results.value[0]?.step ?? 0}
    >
      <fieldset class="modes">
        <legend class="visually-hidden">What to do</legend>
        {(Object.keys(MODES) as Mode[]).map((name) => (
          <label key={name} class={mode.value === name ? "on" : ""}>
            <input
              type="radio"
              name="mode"
              value={name}
              checked={mode.value === name}
              onChange={() => {
                mode.value = name;
                reset();
              }}
            />
            {MODES[name].name}
          </label>
        ))}
      </fieldset>
      <p class="mode-text">{MODES[mode.value].text}</p>

      <div class="bench">
        <div class="controls">
          <PicturePicker
            legend={mode.value === "interpolate" ? "First picture" : "Picture"}
            name="first"
            hidden={mode.value === "visualize"}
            samples={samples}
            chosen={first.value}
            onPick={pick(first)}
            onFile={(file) => take(first, file)}
          />
          {(mode.value === "invert" || mode.value === "visualize") && (
            <label class="field">
              <span>Start from</span>
              <select
                value={start.value}
                onChange={({ currentTarget }) => {
                  start.value = currentTarget.value as Start;
                  reset();
                }}
              >
                <option value="noise">noise</option>
                <option value="grey">grey</option>
                <option value="picture">another picture</option>
              </select>
            </label>
          )}
          {needsSecond && (
            <PicturePicker
              legend={mode.value === "interpolate"
                ? "Second picture"
                : "Start from this picture"}
              name="second"
              samples={samples}
              chosen={second.value}
              onPick={pick(second)}
              onFile={(file) => take(second, file)}
            />
          )}
          <fieldset class="fields">
            <legend>Networks</legend>
            <label class="field wide">
              <span>Network</span>
              <ModelSelect
                name="model"
                models={models}
                value={left}
                onPick={reset}
              />
            </label>
            <label class="field wide">
              <span>Beside it</span>
              <ModelSelect
                name="beside"
                models={models}
                value={right}
                onPick={reset}
                none
              />
            </label>
          </fieldset>
          <fieldset class="fields">
            <legend>Settings</legend>
            {isFeature && (
              <NumberField
                label="Feature"
                value={coordinate.value}
                min={0}
                max={(state.value.representationSize ?? 4096) - 1}
                step={1}
                onInput={(value) => {
                  coordinate.value = value;
                  reset();
                }}
              />
            )}
            <NumberField
              label="Step size"
              value={stepSize.value}
              min={0.001}
              max={100}
              step="any"
              onInput={(value) => {
                stepSize.value = value;
                steer();
              }}
            />
            <NumberField
              label="Radius (l2)"
              value={radius.value}
              min={0}
              max={1000}
              step="any"
              hint="1000: free"
              onInput={(value) => {
                radius.value = value;
                steer();
              }}
            />
            <NumberField
              label="Seed"
              value={seed.value}
              min={0}
              max={2 ** 31}
              step={1}
              onInput={(value) => {
                seed.value = value;
                reset();
              }}
            />
            <label class="field">
              <span>Compute on</span>
              <select
                name="provider"
                value={wanted.value}
                onChange={({ currentTarget }) => {
                  wanted.value = currentTarget.value as Wanted;
                  reset();
                  client.current?.close();
                  client.current = null;
                  state.value = { phase: "idle" };
                }}
              >
                <option value="auto">what is fastest</option>
                <option value="webgpu">WebGPU</option>
                <option value="wasm">WebAssembly</option>
              </select>
            </label>
          </fieldset>
        </div>

        <div class="stage">
          <div class="actions">
            {isRunning
              ? (
                <button
                  type="button"
                  class="button primary"
                  onClick={() => client.current?.pause()}
                >
                  Pause
                </button>
              )
              : (
                <button
                  type="button"
                  class="button primary"
                  disabled={isBusy || mismatch}
                  onClick={() => go(null)}
                >
                  {results.value.length > 0 ? "Go on" : "Start"}
                </button>
              )}
            <button
              type="button"
              class="button"
              disabled={isBusy || isRunning || mismatch}
              onClick={() => go(1)}
            >
              Step
            </button>
            <button
              type="button"
              class="button"
              disabled={isBusy || results.value.length === 0}
              onClick={reset}
            >
              Reset
            </button>
          </div>
          <Status state={state.value} message={message.value} />
          {mismatch && (
            <p class="notice bad">
              The two networks see pictures of different sizes; choose two of
              one data set.
            </p>
          )}
          <div class="outputs">
            {mode.value !== "visualize" && (
              <Output
                title={mode.value === "interpolate" ? "First" : "Picture"}
                picture={first.value}
                size={size}
              />
            )}
            {chosen.map((model) => (
              <Output
                key={model.key}
                title={model.epsilon > 0 ? "Robust" : "Standard"}
                role={model.epsilon > 0 ? "robust" : "standard"}
                size={size}
                progress={results.value.find((p) => p.model === model.key)}
                frame={mode.value === "interpolate" ? frame.value : 0}
                mode={mode.value}
                loss={lastOf(curves.value, model.key)}
              />
            ))}
            {mode.value === "interpolate" && (
              <Output title="Second" picture={second.value} size={size} />
            )}
          </div>
          {mode.value === "interpolate" && (
            <label class="slider">
              <span class="slider-name">λ</span>
              <input
                type="range"
                min={0}
                max={FRAMES - 1}
                value={frame.value}
                aria-valuetext={`λ ${short(frame.value / (FRAMES - 1))}`}
                onInput={({ currentTarget }) =>
                  frame.value = Number(currentTarget.value)}
              />
              <output>{short(frame.value / (FRAMES - 1))}</output>
            </label>
          )}
          {curves.value.steps.length > 1 && (
            <Chart
              title={isFeature
                ? "Value of the feature by step"
                : "Distance to the target’s representation by step"}
              x={{ label: "step", values: curves.value.steps }}
              y={{
                label: isFeature ? "R(x) at the feature" : "distance",
                format: short,
              }}
              series={linesOf(curves.value, chosen)}
              height={200}
            />
          )}
        </div>
      </div>
    </div>
  );
}

function PicturePicker(
  { legend, name, samples, chosen, hidden, onPick, onFile }: {
    readonly legend: string;
    readonly name: string;
    readonly samples: readonly Sample[];
    readonly chosen: Chosen;
    readonly hidden?: boolean;
    readonly onPick: (sample: Chosen) => void;
    readonly onFile: (file: File | undefined) => void;
  },
) {
  const over = useSignal(false);
  if (hidden) return null;
  const isOwn = !samples.some(({ url }) => url === chosen.url);
  return (
    <fieldset
      class={`pictures${over.value ? " over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        over.value = true;
      }}
      onDragLeave={() => over.value = false}
      onDrop={(event) => {
        event.preventDefault();
        over.value = false;
        onFile(event.dataTransfer?.files[0]);
      }}
    >
      <legend>{legend}</legend>
      <div class="thumbs">
        {[...(isOwn ? [chosen] : []), ...samples].map((sample) => (
          <label key={sample.url} title={sample.label}>
            <input
              type="radio"
              name={name}
              checked={sample.url === chosen.url}
              onChange={() =>
                onPick(sample)}
            />
            <img
              src={link(sample.url)}
              alt={sample.label}
              width="40"
              height="40"
            />
          </label>
        ))}
      </div>
      <label class="file">
        <input
          type="file"
          accept="image/*"
          onChange={({ currentTarget }) => onFile(currentTarget.files?.[0])}
        />
        <span>Choose a picture, or drop one here</span>
      </label>
    </fieldset>
  );
}

function ModelSelect(
  { name, models, value, none, onPick }: {
    readonly name: string;
    readonly models: readonly ModelSummary[];
    readonly value: { value: string };
    readonly none?: boolean;
    readonly onPick: () => void;
  },
) {
  return (
    <select
      name={name}
      value={value.value}
      onChange={({ currentTarget }) => {
        value.value = currentTarget.value;
        onPick();
      }}
    >
      {none && <option value="">none</option>}
      {models.map(({ key, label }) => (
        <option key={key} value={key}>{label}</option>
      ))}
    </select>
  );
}

function NumberField(
  { label, value, min, max, step, hint, onInput }: {
    readonly label: string;
    readonly value: number;
    readonly min: number;
    readonly max: number;
    readonly step: number | "any";
    readonly hint?: string;
    readonly onInput: (value: number) => void;
  },
) {
  return (
    <label class="field">
      <span>
        {label} {hint && <small>{hint}</small>}
      </span>
      <input
        type="number"
        value={value}
        min={min}
        max={max}
        step={step}
        onChange={({ currentTarget }) => {
          const { valueAsNumber, validity } = currentTarget;
          if (validity.valid && Number.isFinite(valueAsNumber)) {
            onInput(valueAsNumber);
          } else currentTarget.value = String(value);
        }}
      />
    </label>
  );
}

/** What computes, and how fast. */
function Status(
  { state, message }: { readonly state: EngineState; readonly message: string },
) {
  const { phase, provider, threads, deviation, note, rate, loading } = state;
  const where = provider === "webgpu"
    ? "WebGPU"
    : `WebAssembly, ${threads === 1 ? "1 thread" : `${threads} threads`}`;
  return (
    <div class="status">
      <p role="status">
        {phase === "opening"
          ? "Opening the engine and testing it …"
          : loading
          ? `Loading the network: ${bytes(loading.received)}${
            loading.total ? ` of ${bytes(loading.total)}` : ""
          }`
          : provider
          ? (
            <>
              <span class="tag good">self-test passed</span> on {where}
              <span class="muted">
                {` (off by ${deviation!.toExponential(0)})`}
              </span>
            </>
          )
          : "Nothing is computed yet."}
      </p>
      {rate !== undefined && (
        <p class="rate">
          <strong>{short(rate)}</strong> images/s
        </p>
      )}
      {note && <p class="notice">{note}</p>}
      {message && <p class="notice bad" role="alert">{message}</p>}
    </div>
  );
}

function Output(
  { title, role = "", picture, size, progress, frame = 0, mode, loss }: {
    readonly title: string;
    readonly role?: string;
    readonly picture?: Chosen;
    readonly size: number;
    readonly progress?: Progress;
    readonly frame?: number;
    readonly mode?: Mode;
    readonly loss?: number;
  },
) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const pixels = progress?.pixels[frame];
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    if (pixels) context.putImageData(new ImageData(pixels, size, size), 0, 0);
    else context.clearRect(0, 0, size, size);
  }, [pixels, size]);
  const isFeature = mode === "visualize" || mode === "add";
  return (
    <figure class={`output ${role}`}>
      <figcaption>{title}</figcaption>
      {picture ? <img src={link(picture.url)} alt={picture.label} /> : (
        <canvas
          ref={canvas}
          width={size}
          height={size}
          role="img"
          aria-label={`${title}: the picture so far`}
        />
      )}
      {picture ? <p class="muted">{picture.label}</p> : progress
        ? (
          <>
            <dl>
              <dt>Step</dt>
              <dd>{progress.step}</dd>
              <dt>{isFeature ? "Feature" : "Distance"}</dt>
              <dd data-loss={loss}>{loss === undefined ? "–" : short(loss)}</dd>
              <dt>Moved</dt>
              <dd>{short(progress.moved)}</dd>
              {progress.rank !== null && (
                <>
                  <dt>Rank</dt>
                  <dd>{progress.rank}</dd>
                </>
              )}
            </dl>
            <ol class="classes">
              {progress.predictions[frame].map(({ name, probability }) => (
                <li key={name}>
                  <span>{name}</span>
                  <meter min={0} max={1} value={probability}>
                    {percent(probability, 0)}
                  </meter>
                  <span class="num">{percent(probability, 0)}</span>
                </li>
              ))}
            </ol>
            <button
              type="button"
              class="button small"
              onClick={() => save(canvas.current!, `${title}-${progress.step}`)}
            >
              Save PNG
            </button>
          </>
        )
        : <p class="muted">not started</p>}
    </figure>
  );
}

async function save(canvas: HTMLCanvasElement, name: string): Promise<void> {
  const url = URL.createObjectURL(await pngOf(canvas));
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.download = `${name.toLowerCase()}.png`;
  anchor.click();
  URL.revokeObjectURL(url);
}

/** Objective by step, for each network. */
interface Curves {
  readonly steps: readonly number[];
  readonly lines: Readonly<Record<string, readonly (number | null)[]>>;
}

/** Adds what networks report; a chart needs one list of steps. */
function extended(curves: Curves, progress: readonly Progress[]): Curves {
  const steps = [...curves.steps];
  const lines: Record<string, (number | null)[]> = {};
  for (const { curve } of progress) {
    for (const { step } of curve) {
      if (step > (steps.at(-1) ?? -1)) steps.push(step);
    }
  }
  const at = new Map(steps.map((step, i) => [step, i]));
  for (const { model, curve } of progress) {
    const line = steps.map((_, i) => curves.lines[model]?.[i] ?? null);
    for (const { step, losses } of curve) {
      const mean = losses.reduce((a, b) => a + b, 0) / losses.length;
      line[at.get(step)!] = mean;
    }
    lines[model] = line;
  }
  return { steps, lines };
}

function lastOf({ lines }: Curves, model: string): number | undefined {
  return lines[model]?.findLast((value) => value !== null) ?? undefined;
}

function linesOf(
  { lines }: Curves,
  models: readonly ModelSummary[],
): Series[] {
  const roles = models.map(({ epsilon }) =>
    epsilon > 0 ? "robust" : "standard"
  );
  const isSame = roles[0] === roles[1];
  return models.filter(({ key }) => lines[key]).map(({ key }, i) => ({
    label: isSame ? key : roles[i],
    colour: isSame ? `run-${i}` : roles[i],
    values: lines[key],
  }));
}

/** A robust network and a standard one of the same data, if there are. */
function pairOf(
  models: readonly ModelSummary[],
): [ModelSummary, ModelSummary | undefined] {
  for (const robust of models.filter(({ epsilon }) => epsilon > 0)) {
    const standard = models.find(({ epsilon, dataset, imageSize }) =>
      epsilon === 0 && dataset === robust.dataset &&
      imageSize === robust.imageSize
    );
    if (standard) return [robust, standard];
  }
  return [models[0], undefined];
}
