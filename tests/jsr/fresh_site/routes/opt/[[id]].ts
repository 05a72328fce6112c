import { createDefine } from "fresh";

const define = createDefine();

export const handler = define.handlers((ctx) =>
  ctx.text(`${ctx.req.method} ${ctx.params.id}`)
);
