import { createDefine, HttpError } from "fresh";

const define = createDefine();

export const handler = define.handlers({
  GET: ({ params }) => {
    if (params.id === "bad") throw new TypeError("bad");
    throw new HttpError(410, "gone");
  },
});
