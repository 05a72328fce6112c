/**
 * Files of `routes/` as segments and routes.
 *
 * @module
 */
import type { Router } from "./app.ts";
import type {
  Context,
  HandlerFn,
  Method,
  Middleware,
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

/** Adds all files: what others inherit first, then routes, static names first. */
export function applyFiles<S>(
  router: Router<S>,
  files: readonly RouteFile[],
): void {
  const special = ({ id }: RouteFile) => /(^|\/)_[^/]*$/.test(id);
  for (const file of files.filter(special)) addSpecial(router, file);
  const routes = files.filter((file) => !special(file));
  for (const file of routes.toSorted((a, b) => compare(a.id, b.id))) {
    const route = readRoute<S>(file);
    const folder = file.id.split("/").slice(0, -1).join("/");
    router.add("ALL", patternOf(file.id), [
      ...router.root.at(folder).chain(),
      (ctx) => renderRoute(ctx, route),
    ]);
  }
}

function addSpecial<S>({ root }: Router<S>, file: RouteFile): void {
  const { id, module } = file;
  const parts = id.split("/");
  const name = parts.pop()!;
  const segment = root.at(parts.join("/"));
  const isRoot = parts.length === 0;
  const component = module.default as RouteComponent<unknown, S>;
  if (name === "_app" && isRoot) segment.app = component;
  else if (name === "_layout") {
    const config = module.config as RouteConfig | undefined;
    segment.layout = { component, ...(config ? { config } : {}) };
  } else if (name === "_middleware") {
    segment.middlewares.push(...[module.default as Middleware<S>].flat());
  } else if (name === "_error" || name === "_500") {
    const route = readRoute<S>(file);
    segment.onError = (ctx, status) => renderRoute(ctx, route, status);
  } else if (name === "_404" && isRoot) {
    const route = readRoute<S>(file);
    segment.notFound = (ctx) => renderRoute(ctx, route, 404);
  } else throw new Error(`Unsupported file: routes/${id}`);
}

function readRoute<S>({ id, module }: RouteFile): Route<S> {
  const { config, default: component } = module;
  const handler = module.handler ?? module.handlers;
  if (!handler && !component) {
    throw new Error(
      `Route "${id}" must export a handler or a default component`,
    );
  }
  return {
    handler: handler ?? (() => ({ data: undefined })),
    ...(component ? { component } : {}),
    ...(config ? { config } : {}),
  } as Route<S>;
}

/** Answers by a route's handler and component. */
async function renderRoute<S>(
  ctx: Context<S>,
  { handler, component, config = {} }: Route<S>,
  status = 200,
): Promise<Response> {
  const { app, layouts } = ctx.tree;
  ctx.tree = {
    app: config.skipAppWrapper ? null : app,
    layouts: config.skipInheritedLayouts ? [] : layouts,
  };
  let fn: HandlerFn<unknown, S> | undefined;
  if (typeof handler === "function") fn = handler;
  else {
    const method = ctx.req.method as Method;
    fn = handler[method] ?? (method === "HEAD" ? handler.GET : undefined);
  }
  if (!fn) return await ctx.next();
  const result = await fn(ctx);
  if (result instanceof Response) return result;
  const vnode = component
    ? await renderComponent(ctx, component, result.data, () => null)
    : null;
  if (vnode instanceof Response) return vnode;
  return await ctx.render(vnode, {
    status: result.status ?? status,
    ...(result.headers ? { headers: result.headers } : {}),
  });
}

/** Path pattern of a file: `a/[id]` -> `/a/:id`. */
function patternOf(id: string): string {
  const parts = id.split("/").filter((part) => !/^\(.*\)$/.test(part));
  if (parts.at(-1) === "index") parts.pop();
  const pattern = parts.map((part) => {
    const rest = /^\[\.\.\.(\w+)\]$/.exec(part);
    if (rest) return `/:${rest[1]}*`;
    const optional = /^\[\[(\w+)\]\]$/.exec(part);
    if (optional) return `{/:${optional[1]}}?`;
    if (part.includes("][")) {
      throw new SyntaxError(`Invalid route pattern: "${id}"`);
    }
    return `/${part.replace(/\[(\w+)\]/g, ":$1")}`;
  }).join("");
  return pattern || "/";
}

/** Static names first, then `[x]`, then `[...x]`. */
function compare(a: string, b: string): number {
  const rank = (part = "") =>
    part.startsWith("[...") ? 2 : part.includes("[") ? 1 : 0;
  const [as, bs] = [a.split("/"), b.split("/")];
  for (let i = 0; i < Math.max(as.length, bs.length); i++) {
    const order = rank(as[i]) - rank(bs[i]);
    if (order !== 0) return order;
  }
  return a < b ? -1 : 1;
}
