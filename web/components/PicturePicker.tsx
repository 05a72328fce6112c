import { useSignal } from "@preact/signals";
import { link } from "../link.ts";
import type { Sample } from "../samples.ts";

/** Samples to choose from, and a place for a picture of one's own. */
export function PicturePicker(
  { legend, name, samples, chosen, hidden, onPick, onFile }: {
    readonly legend: string;
    readonly name: string;
    readonly samples: readonly Sample[];
    readonly chosen: Sample;
    readonly hidden?: boolean;
    readonly onPick: (sample: Sample) => void;
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
