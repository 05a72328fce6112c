import { basename, dirname } from "node:path";
import { HttpError } from "fresh";
import { insideOf, sendBytes, sendFile } from "../../../../files.ts";
import { graphOf, GRAPHS } from "../../../../graphs.ts";
import { define } from "../../../../utils.ts";

/** A network's weights, or it as an ONNX graph. */
export const handler = define.handlers({
  GET: async (ctx) => {
    const { name, file } = ctx.params;
    const model = await ctx.state.library.model(name);
    if (!model?.card) throw new HttpError(404, "No such model");
    if (file === "model.safetensors") {
      const { path } = model;
      const real = await insideOf(dirname(path), basename(path));
      return await sendFile(ctx.req, real, { name: `${name}.safetensors` });
    }
    if (!Object.hasOwn(GRAPHS, file)) throw new HttpError(404, "No such file");
    const bytes = await graphOf(model, GRAPHS[file]);
    return sendBytes(ctx.req, bytes, {
      name: `${name}-${file}`,
      etag: `${model.modified.toString(36)}-${file}`,
    });
  },
});
