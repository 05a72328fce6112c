import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Chart } from "../components/Chart.tsx";
import { EngineStatus } from "../components/EngineStatus.tsx";
import { ModelSelect } from "../components/ModelSelect.tsx";
import { NumberField } from "../components/NumberField.tsx";
import { Output } from "../components/Output.tsx";
import { PicturePicker } from "../components/PicturePicker.tsx";
import type { Mode, Progress, Start } from "../engine/protocol.ts";
import { short } from "../format.ts";
import { link, modelFile } from "../link.ts";
import { EngineClient, type EngineState } from "../playground/client.ts";
import {
  type Curves,
  extended,
  lastOf,
  linesOf,
  NO_CURVES,
} from "../playground/curves.ts";
import { pairOf, partnerOf } from "../playground/partners.ts";
import { pictureOf } from "../playground/pictures.ts";
import type { Sample } from "../samples.ts";
import type { ModelSummary } from "../views.ts";

interface Props {
  readonly models: readonly ModelSummary[];
  readonly samples: readonly Sample[];
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
  const first = useSignal<Sample>(samples[0]);
  const second = useSignal<Sample>(samples[1] ?? samples[0]);
  const left = useSignal(robust.key);
  const right = useSignal(standard?.key ?? "");
  const start = useSignal<Start>("noise");
  const seed = useSignal(0);
  const stepSize = useSignal(usualStep(robust));
  const radius = useSignal(1000);
  const coordinate = useSignal(0);
  const frame = useSignal(Math.floor(FRAMES / 2));
  const wanted = useSignal<Wanted>("auto");
  const state = useSignal<EngineState>({ phase: "idle" });
  const results = useSignal<readonly Progress[]>([]);
  const curves = useSignal<Curves>(NO_CURVES);
  const message = useSignal("");
  const client = useRef<EngineClient | null>(null);

  useEffect(() => {
    const key = new URLSearchParams(location.search).get("model");
    const asked = models.find((model) => model.key === key);
    if (asked) {
      left.value = asked.key;
      stepSize.value = usualStep(asked);
      right.value = partnerOf(asked, models)?.key ?? "";
    }
    // The self-test runs at once, so that a start need not wait for it.
    guarded(connect);
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
    client.current?.stop();
    results.value = [];
    curves.value = NO_CURVES;
  };

  const connect = async (): Promise<EngineClient> => {
    client.current ??= new EngineClient(link("/vendor/"), {
      onState: (next) => state.value = next,
      onProgress: (progress) => {
        results.value = progress;
        curves.value = extended(curves.peek(), progress);
      },
    });
    const engine = client.current;
    await engine.open(wanted.value);
    return engine;
  };
  const prepare = async (): Promise<EngineClient> => {
    const engine = await connect();
    for (const { key } of chosen) {
      await engine.load(key, link(modelFile(key, "model.safetensors")));
    }
    if (!engine.hasTask) {
      curves.value = NO_CURVES;
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
  const guarded = async (work: () => Promise<unknown>) => {
    message.value = "";
    try {
      await work();
    } catch (error) {
      message.value = error instanceof Error ? error.message : String(error);
      state.value = { ...state.peek(), phase: "idle" };
    }
  };
  const go = (steps: number | null) =>
    guarded(async () => (await prepare()).run(steps));
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
  const pick = (target: typeof first) => (sample: Sample) => {
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
                disabled={phase === "loading"}
                onPick={reset}
              />
            </label>
            <label class="field wide">
              <span>Beside it</span>
              <ModelSelect
                name="beside"
                models={models}
                value={right}
                disabled={phase === "loading"}
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
                  guarded(connect);
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
          <EngineStatus state={state.value} message={message.value} />
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

/** A step that shows in the picture, and does not tear it. */
function usualStep({ imageSize }: ModelSummary): number {
  return imageSize <= 64 ? 0.1 : 1;
}
