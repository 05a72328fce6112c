import { sendJson } from "../../../files.ts";
import { modelFile } from "../../../link.ts";
import { GRAPHS } from "../../../graphs.ts";
import { define } from "../../../utils.ts";
import { modelSummary } from "../../../views.ts";

/** All networks: cards, and where their files are. */
export const handler = define.handlers({
  GET: async (ctx) => {
    const models = await ctx.state.library.models();
    const list = models.map((model) => ({
      key: model.key,
      ...(model.error ? { error: model.error } : {}),
      ...(model.card
        ? {
          ...modelSummary(model),
          card: model.card,
          weights: modelFile(model.key, "model.safetensors"),
          graphs: Object.keys(GRAPHS).map((name) => modelFile(model.key, name)),
        }
        : {}),
    }));
    return await sendJson(ctx.req, list);
  },
});
