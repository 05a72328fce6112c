import { HttpError } from "fresh";
import { runFile, sendFile } from "../../../../../files.ts";
import { define } from "../../../../../utils.ts";

/** A file of a run. */
export const handler = define.handlers({
  GET: async (ctx) => {
    const run = await ctx.state.library.run(ctx.params.id);
    if (!run) throw new HttpError(404, "No such run");
    return await sendFile(ctx.req, await runFile(run, pathOf(ctx.url)));
  },
});

/** Parts are decoded one by one: an escaped slash is none. */
function pathOf({ pathname }: URL): string {
  const [, rest] = /^\/api\/runs\/[^/]+\/files\/(.*)$/.exec(pathname)!;
  return rest.split("/").map(decodeURIComponent).join("/");
}
