import type { ReadonlySignal, Signal } from "@preact/signals";

interface Props {
  count: Signal<number>;
  twice?: ReadonlySignal<number>;
  odd?: unknown[];
}

export default function Counter({ count, twice, odd }: Props) {
  return (
    <button type="button" class="counter" onClick={() => count.value++}>
      {count} {twice} {odd && `${Object.is(odd[0], -0)} ${odd[1]} ${odd[2]}`}
    </button>
  );
}
