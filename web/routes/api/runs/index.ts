import { sendJson } from "../../../files.ts";
import { define } from "../../../utils.ts";
import { summaryOf } from "../../../views.ts";

/** All runs in short. */
export const handler = define.handlers({
  GET: async (ctx) =>
    sendJson(ctx.req, (await ctx.state.library.runs()).map(summaryOf)),
});
