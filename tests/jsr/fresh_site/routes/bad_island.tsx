import Counter from "../islands/Counter.tsx";

const BAD: Record<string, unknown> = {
  function: () => 1,
  array: new Float32Array(1),
  jsx: <p />,
};

export default ({ url }: { url: URL }) => (
  // deno-lint-ignore no-explicit-any
  <Counter count={BAD[url.search.slice(1)] as any} />
);
