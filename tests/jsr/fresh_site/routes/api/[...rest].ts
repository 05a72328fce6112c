import { createDefine } from "fresh";

const define = createDefine();

export const handler = define.handlers({
  GET: (ctx) => ctx.json(ctx.params),
  PUT: (ctx) => ctx.json("put"),
});
