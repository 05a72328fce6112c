import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { hasWords } from "../filter.ts";

interface Props {
  readonly commands: readonly string[];
  /** What the address asks for: without JavaScript the server filters. */
  readonly text: string;
  readonly command: string;
  readonly total: number;
  readonly shown: number;
}

/** Filters the rows of the table of runs as one types. */
export default function RunFilter(props: Props) {
  const text = useSignal(props.text);
  const command = useSignal(props.command);
  const shown = useSignal(props.shown);

  useEffect(() => {
    let count = 0;
    for (const row of document.querySelectorAll<HTMLElement>("tr[data-run]")) {
      const fits = hasWords(row.textContent!, text.value) &&
        (!command.value || row.dataset.command === command.value);
      row.hidden = !fits;
      if (fits) count++;
    }
    shown.value = count;
  }, [text.value, command.value]);

  return (
    <form class="filter" method="get" action="" role="search">
      <label>
        <span>Filter</span>
        <input
          type="search"
          name="q"
          value={text.value}
          placeholder="name, data set, number …"
          onInput={({ currentTarget }) => text.value = currentTarget.value}
        />
      </label>
      <label>
        <span>Kind</span>
        <select
          name="command"
          value={command.value}
          onChange={({ currentTarget }) => command.value = currentTarget.value}
        >
          <option value="">all</option>
          {props.commands.map((name) => (
            <option key={name} value={name} selected={name === command.value}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <noscript>
        <button type="submit" class="button small">Filter</button>
      </noscript>
      <p class="muted" role="status">
        {shown.value} of {props.total}
      </p>
    </form>
  );
}
