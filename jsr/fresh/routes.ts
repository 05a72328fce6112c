/**
 * Files of `routes/`: what each is for, and answers by them.
 *
 * @module
 */
import { h } from "preact";
import type {
  Context,
  Method,
  RouteComponent,
  RouteHandler,
} from "./context.ts";
import { propsOf } from "./render.ts";
import { unsupported } from "./unsupported.ts";

/** A file's exports. */
// deno-lint-ignore no-explicit-any
export type Module = Readonly<Record<string, any>>;

/** A file that answers requests. */
export interface Route<S> {
  /** Relative to `routes/`, without extension, such as "runs/[id]". */
  readonly id: string;
  readonly handler: RouteHandler<unknown, S>;
  readonly component?: RouteComponent<unknown, S>;
}

/** Files by what they are for. */
export interface Routes<S> {
  /** What is around every page. */
  readonly app: RouteComponent<unknown, S>;
  /** From the root down. */
  readonly errors: readonly Route<S>[];
  /** Those with addresses, in the order in which they are tried. */
  readonly pages: readonly (Route<S> & { readonly pattern: URLPattern })[];
}

/** Sorts files by what they are for. */
export function sortRoutes<S>(
  files: readonly { readonly id: string; readonly module: Module }[],
): Routes<S> {
  let app: Routes<S>["app"] | undefined;
  const errors: Route<S>[] = [];
  const pages: Routes<S>["pages"][number][] = [];
  for (const { id, module } of files) {
    const route = readRoute<S>(id, module);
    if (id === "_app") app = route.component;
    else if (/(^|\/)_error$/.test(id)) errors.push(route);
    else pages.push({ ...route, pattern: patternOf(id) });
  }
  if (!app || !errors.some(({ id }) => id === "_error")) {
    unsupported("routes without _app and _error");
  }
  // Static names first, then `[x]`, then `[...x]`.
  const rank = ({ id }: Route<S>) =>
    id.replaceAll("[...", "~~").replaceAll("[", "~");
  return {
    app,
    errors: errors.sort((a, b) => a.id.length - b.id.length),
    pages: pages.sort((a, b) => rank(a) < rank(b) ? -1 : 1),
  };
}

function readRoute<S>(id: string, module: Module): Route<S> {
  const { config, default: component } = module;
  const handler = module.handler ?? module.handlers ??
    (component && (() => ({ data: undefined })));
  if (!handler) {
    throw new Error(`Route "${id}" must export a handler or a component`);
  }
  if (config) unsupported(`config of routes/${id}`);
  if (component?.constructor.name === "AsyncFunction") {
    unsupported(`async component of routes/${id}`);
  }
  return { id, handler, component };
}

/** Path pattern of a file: `a/[id]` -> `/a/:id`. */
function patternOf(id: string): URLPattern {
  const parts = id.split("/").map((part) => {
    const [, rest, name] = /^\[(\.{3})?(\w+)\]$/.exec(part) ?? [];
    if (name) return `/:${name}${rest ? "*" : ""}`;
    // Groups, optional names and files for other uses.
    if (/^_|[^\w.-]/.test(part)) unsupported(`routes/${id}`);
    return `/${part}`;
  });
  if (parts.at(-1) === "/index") parts.pop();
  const path = parts.join("");
  // Static paths match with a slash at the end, too.
  return new URLPattern({
    pathname: path.includes(":") ? path : `${path}{/}?`,
  });
}

/** The route of an address and its parameters. */
export function matchRoute<S>(
  { pages }: Routes<S>,
  url: URL,
): { route?: Route<S>; params: Record<string, string> } {
  const params: Record<string, string> = {};
  for (const route of pages) {
    const groups = route.pattern.exec(url)?.pathname.groups;
    if (!groups) continue;
    try {
      for (const [name, value] of Object.entries(groups)) {
        params[name] = decodeURI(value ?? "");
      }
      return { route, params };
    } catch {
      // Escapes that are no UTF-8 name nothing; upstream throws.
    }
  }
  return { params };
}

/** Answers by a file's handler and component. */
export async function answer<S>(
  ctx: Context<S>,
  { handler, component }: Route<S>,
  status = 200,
): Promise<Response> {
  const method = ctx.req.method as Method;
  const fn = typeof handler === "function"
    ? handler
    : handler[method] ?? (method === "HEAD" ? handler.GET : undefined);
  if (!fn) return await ctx.next();
  const result = await fn(ctx);
  if (result instanceof Response) return result;
  const { data, headers } = result;
  return await ctx.render(component ? h(component, propsOf(ctx, data)) : null, {
    status: result.status ?? status,
    headers,
  });
}
