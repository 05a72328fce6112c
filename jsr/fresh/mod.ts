/**
 * Stand-in for the part of Fresh 2 that `web/` uses, over preact,
 * preact-render-to-string, @preact/signals, devalue and esbuild: upstream's
 * names and semantics, and an error for whatever it lacks.
 *
 * @module
 */
export { App, type ListenOptions } from "./app.ts";
export { type Context as FreshContext, createDefine, page } from "./context.ts";
export type * from "./context.ts";
export { HttpError } from "./runtime.ts";
export { staticFiles } from "./static_files.ts";
