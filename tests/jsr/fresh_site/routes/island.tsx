import { computed, signal } from "@preact/signals";
import Counter from "../islands/Counter.tsx";
import Holder from "../islands/Holder.tsx";

export default () => {
  const count = signal(3);
  return (
    <main>
      <Counter
        count={count}
        twice={computed(() => 2 * count.value)}
        odd={[
          -0,
          NaN,
          12n,
          undefined,
          new Date(5),
          new Map([["<", new Set([1])]]),
        ]}
      />
      <Counter count={count} />
      <Holder />
    </main>
  );
};
