/**
 * Revives the islands of a page.
 *
 * @module
 */
import { signal } from "@preact/signals";
import { parse } from "devalue";
import { type ComponentType, h, render } from "preact";

type Props = Record<string, unknown>;

const state = document.getElementById("fresh-state")!.textContent!;
// Signals given to two islands are one object here, too.
const props: Props[] = parse(state, {
  Signal: ([value]: [unknown]) => signal(value),
});

for (const element of document.querySelectorAll("[data-island]")) {
  const [file, index] = element.getAttribute("data-island")!.split(":");
  // Relative to this script, wherever a static copy of the site lies.
  const url = new URL(file, import.meta.url).href;
  import(url).then((module: { default: ComponentType<Props> }) => {
    render(h(module.default, props[Number(index)]), element);
    element.setAttribute("data-ready", "");
  });
}
