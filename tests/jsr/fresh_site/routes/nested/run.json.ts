import { createDefine } from "fresh";

export const handler = createDefine().handlers((ctx) =>
  ctx.json({ method: ctx.req.method })
);
