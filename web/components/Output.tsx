import { useEffect, useRef } from "preact/hooks";
import type { Mode, Progress } from "../engine/protocol.ts";
import { percent, short } from "../format.ts";
import { link } from "../link.ts";
import { pngOf } from "../playground/pictures.ts";
import type { Sample } from "../samples.ts";

/** A picture that is given, or what a network has made so far. */
export function Output(
  { title, role = "", picture, size, progress, frame = 0, mode, loss }: {
    readonly title: string;
    readonly role?: string;
    readonly picture?: Sample;
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
              <dd>{short(progress.moved[frame])}</dd>
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
