import { sendJson } from "../../../files.ts";
import { openResults } from "../../../pages.ts";
import { define } from "../../../utils.ts";

/** The index of results; null while there are none. */
export const handler = define.handlers({
  GET: async (ctx) =>
    sendJson(ctx.req, (await openResults(ctx.state.library))?.index ?? null),
});
