import Counter from "../islands/Counter.tsx";

export default () => (
  // deno-lint-ignore no-explicit-any
  <Counter count={(() => 1) as any} />
);
