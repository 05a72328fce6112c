import { define } from "../../../utils.ts";
import { summaryOf } from "../../../views.ts";

/** All runs in short. */
export const handler = define.handlers({
  GET: async (ctx) =>
    ctx.json((await ctx.state.library.runs()).map(summaryOf), {
      headers: { "cache-control": "no-cache" },
    }),
});
