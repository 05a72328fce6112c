/**
 * What of the list of runs is the same on the server and in the browser.
 *
 * @module
 */

/** Runs compared at most. */
export const MOST_COMPARED = 12;

/** Whether a text has all words of a query, in whatever order and case. */
export function hasWords(text: string, query: string): boolean {
  const content = text.toLowerCase();
  return query.toLowerCase().split(/\s+/).every((word) =>
    content.includes(word)
  );
}
