import { createDefine, page } from "fresh";

const define = createDefine<{ seen?: string }>();

export const handler = define.handlers({
  GET: (ctx) =>
    page({ seen: ctx.state.seen }, { status: 201, headers: { "x-page": "1" } }),
});

export default define.page<typeof handler>(({ data }) => <p>{data.seen}</p>);
