/**
 * The site as a Fresh app.
 *
 * @module
 */
import { App, staticFiles } from "fresh";
import { Library } from "./library.ts";
import { secured } from "./security.ts";
import type { State } from "./utils.ts";

/** The site over the runs, results and networks of a library. */
export function createApp(library: Library): App<State> {
  return new App<State>()
    .use(async (ctx) => {
      ctx.state.library = library;
      return await secured(await ctx.next());
    })
    .use(staticFiles())
    .fsRoutes();
}

/** The site over the folders of this project. */
export const app = createApp(
  new Library({
    runs: "runs",
    results: "results",
    gallery: "docs/gallery",
    weights: "models/weights",
  }),
);
