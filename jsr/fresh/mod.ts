/**
 * Stand-in for the part of Fresh 2 that `web/` uses, over preact,
 * preact-render-to-string, @preact/signals, devalue and esbuild: upstream's
 * names and semantics, and an error for whatever it lacks.
 *
 * @module
 */
export { App, type ListenOptions } from "./app.ts";
export {
  type Config,
  Context,
  type Context as FreshContext,
  createDefine,
  type Define,
  HttpError,
  page,
  type PageProps,
  type PageResponse,
} from "./context.ts";
export type {
  HandlerByMethod,
  HandlerFn,
  Method,
  Middleware,
  RouteComponent,
  RouteConfig,
  RouteHandler,
} from "./context.ts";
export { staticFiles } from "./static_files.ts";
