import type { Middleware } from "fresh";

type State = { seen?: string };

const mark = (name: string): Middleware<State> => async (ctx) => {
  ctx.state.seen = (ctx.state.seen ?? "") + name;
  const response = await ctx.next();
  response.headers.append("x-after", name);
  return response;
};

export default [mark("a"), mark("b")];
