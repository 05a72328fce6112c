import { createDefine, HttpError } from "fresh";

const define = createDefine();

export const handler = define.handlers((ctx) => {
  const { error } = ctx;
  if (!(error instanceof HttpError)) throw new HttpError(502, "worse");
  return ctx.json({ error: error.message }, { status: error.status });
});
