/**
 * The part of Fresh that runs on both sides.
 *
 * @module
 */
import type { ComponentChildren } from "preact";

/** An answer other than 200, rendered by the nearest error route. */
export class HttpError extends Error {
  readonly status: number;

  constructor(status: number, message?: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "HttpError";
    this.status = status;
  }
}

/** Puts its children into `<head>` on the server, replacing a `<title>`. */
export function Head(_props: { children?: ComponentChildren }): null {
  return null;
}
