/** Whether a claim of the paper shows here. */
export function Verdict({ shows }: { readonly shows: boolean | null }) {
  const [kind, text] = shows === null
    ? ["open", "Cannot be told here"]
    : shows
    ? ["good", "Shows here"]
    : ["bad", "Does not show here"];
  return <span class={`verdict ${kind}`}>{text}</span>;
}
