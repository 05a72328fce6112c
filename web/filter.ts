/**
 * The filter of the list of runs, on the server and in the browser.
 *
 * @module
 */

/** Whether a text has all words of a query, in whatever order and case. */
export function hasWords(text: string, query: string): boolean {
  const content = text.toLowerCase();
  return query.toLowerCase().split(/\s+/).every((word) =>
    content.includes(word)
  );
}
