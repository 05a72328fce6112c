import { useSignal } from "@preact/signals";
import Counter from "./Counter.tsx";

/** An island within an island is a plain component. */
export default function Holder() {
  return <Counter count={useSignal(7)} />;
}
