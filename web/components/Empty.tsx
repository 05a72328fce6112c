import type { ComponentChildren } from "preact";

/** What a page shows while there is nothing to show. */
export function Empty(
  { title, command, children }: {
    readonly title: string;
    readonly command?: string;
    readonly children?: ComponentChildren;
  },
) {
  return (
    <section class="empty">
      <h2>{title}</h2>
      {children}
      {command && (
        <pre tabIndex={0} aria-label="Command"><code>{command}</code></pre>
      )}
    </section>
  );
}
