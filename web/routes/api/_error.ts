import { HttpError } from "fresh";
import { secured } from "../../security.ts";
import { define, statusOf } from "../../utils.ts";

/** Errors of the API are JSON. */
export const handler = define.handlers((ctx) => {
  const error = ctx.error instanceof HttpError
    ? ctx.error.message
    : "Something went wrong on the server";
  return secured(ctx.json({ error }, { status: statusOf(ctx.error) }));
});
