import { HttpError } from "fresh";
import { runFile, sendFile } from "../../../../files.ts";
import { define } from "../../../../utils.ts";

/** A run's record as it is. */
export const handler = define.handlers({
  GET: async (ctx) => {
    const run = await ctx.state.library.run(ctx.params.id);
    if (!run?.run) throw new HttpError(404, "No such run");
    return await sendFile(ctx.req, await runFile(run, "run.json"));
  },
});
