/**
 * Files of `routes/` as segments and routes.
 *
 * @module
 */
import type { Router } from "./app.ts";
import type {
  Context,
  HandlerFn,
  Layout,
  Method,
  RouteComponent,
  RouteConfig,
  RouteHandler,
} from "./context.ts";
import { renderComponent } from "./render.ts";
import type { RouteFile } from "./snapshot.ts";

interface Route<S> {
  readonly handler: RouteHandler<unknown, S>;
  readonly component?: RouteComponent<unknown, S>;
  readonly config?: RouteConfig;
}

/** Adds files: what others inherit first, then routes, static names first. */
export function applyFiles<S>(
  router: Router<S>,
  files: readonly RouteFile[],
): void {
  const isSpecial = ({ id }: RouteFile) => /(^|\/)_[^/]*$/.test(id);
  for (const file of files.filter(isSpecial)) addSpecial(router, file);
  const routes = files.filter((file) => !isSpecial(file));
  for (const file of routes.toSorted((a, b) => compare(a.id, b.id))) {
    const route = readRoute<S>(file);
    router.add("ALL", patternOf(file.id), [
      ...router.root.at(file.id.replace(/\/?[^/]*$/, "")).chain(),
      (ctx) => renderRoute(ctx, route),
    ]);
  }
}

function addSpecial<S>({ root }: Router<S>, file: RouteFile): void {
  const [, folder, name] = /^(.*?)\/?(_[^/]*)$/.exec(file.id)!;
  const segment = root.at(folder);
  const { default: exported, config } = file.module as {
    // deno-lint-ignore no-explicit-any
    default?: any;
    config?: RouteConfig;
  };
  const isRoot = folder === "";
  if (name === "_app" && isRoot) segment.app = exported;
  else if (name === "_layout") {
    segment.layout = { component: exported, config } as Layout<S>;
  } else if (name === "_middleware") {
    segment.middlewares.push(...[exported].flat());
  } else if (name === "_error" || name === "_500") {
    const route = readRoute<S>(file);
    segment.onError = (ctx, status) => renderRoute(ctx, route, status);
  } else if (name === "_404" && isRoot) {
    const route = readRoute<S>(file);
    segment.notFound = (ctx) => renderRoute(ctx, route, 404);
  } else throw new Error(`Unsupported: routes/${file.id}`);
}

function readRoute<S>({ id, module }: RouteFile): Route<S> {
  const { config, default: component } = module;
  const handler = module.handler ?? module.handlers ??
    (component && (() => ({ data: undefined })));
  if (handler) return { handler, component, config } as Route<S>;
  throw new Error(`Route "${id}" must export a handler or a component`);
}

/** Answers by a route's handler and component. */
async function renderRoute<S>(
  ctx: Context<S>,
  { handler, component, config = {} }: Route<S>,
  status = 200,
): Promise<Response> {
  if (config.skipAppWrapper) ctx.tree = { ...ctx.tree, app: null };
  if (config.skipInheritedLayouts) ctx.tree = { ...ctx.tree, layouts: [] };
  const method = ctx.req.method as Method;
  const fn: HandlerFn<unknown, S> | undefined = typeof handler === "function"
    ? handler
    : handler[method] ?? (method === "HEAD" ? handler.GET : undefined);
  if (!fn) return await ctx.next();
  const result = await fn(ctx);
  if (result instanceof Response) return result;
  const { data, headers } = result;
  const vnode = component
    ? await renderComponent(ctx, component, data, () => null)
    : null;
  if (vnode instanceof Response) return vnode;
  return await ctx.render(vnode, {
    status: result.status ?? status,
    ...(headers ? { headers } : {}),
  });
}

/** Path pattern of a file: `a/[id]` -> `/a/:id`. */
function patternOf(id: string): string {
  const parts = id.split("/").filter((part) => !/^\(.*\)$/.test(part));
  if (parts.at(-1) === "index") parts.pop();
  return parts.map((part) => {
    if (part.includes("][")) throw new SyntaxError(`Invalid route: "${id}"`);
    const optional = /^\[\[(\w+)\]\]$/.exec(part);
    if (optional) return `{/:${optional[1]}}?`;
    const pattern = part.replace(/^\[\.\.\.(\w+)\]$/, ":$1*");
    return `/${pattern.replace(/\[(\w+)\]/g, ":$1")}`;
  }).join("") || "/";
}

/** Static names first, then `[x]`, then `[...x]`. */
function compare(a: string, b: string): number {
  const ranks = (id: string) =>
    id.split("/").map((part) =>
      part.startsWith("[...") ? 2 : part.includes("[") ? 1 : 0
    );
  const [as, bs] = [ranks(a), ranks(b)];
  const i = as.findIndex((rank, i) => rank !== (bs[i] ?? 0));
  return i >= 0 ? as[i] - (bs[i] ?? 0) : a < b ? -1 : 1;
}
