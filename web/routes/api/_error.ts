import { HttpError } from "fresh";
import { define } from "../../utils.ts";
import { secured } from "../../security.ts";

/** Errors of the API are JSON. */
export const handler = define.handlers((ctx) => {
  const { error } = ctx;
  const [status, message] = error instanceof HttpError
    ? [error.status, error.message]
    : [500, "Something went wrong on the server"];
  return secured(ctx.json({ error: message }, { status }));
});
