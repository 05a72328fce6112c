import { define } from "../../../utils.ts";

/** The index of results; null while there are none. */
export const handler = define.handlers({
  GET: async (ctx) =>
    ctx.json((await ctx.state.library.results())?.index ?? null, {
      headers: { "cache-control": "no-cache" },
    }),
});
