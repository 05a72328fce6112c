/**
 * What handlers, middlewares and components are given, and their types.
 *
 * @module
 */
import { type ComponentChildren, isValidElement, type VNode } from "preact";
import { renderTree } from "./render.ts";
import type { Snapshot } from "./snapshot.ts";

export interface Config {
  root: string;
  basePath: string;
  mode: "development" | "production";
}

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD";

export type Middleware<S> = (ctx: Context<S>) => Response | Promise<Response>;

/** Data for a route's component. */
export interface PageResponse<D> {
  data: D;
  status?: number;
  headers?: HeadersInit;
}

/** Hands data from a handler to its route's component. */
export function page<D = undefined>(
  data?: D,
  init: Omit<PageResponse<D>, "data"> = {},
): PageResponse<D> {
  return { data: data as D, ...init };
}

export type HandlerFn<D, S> = (
  ctx: Context<S>,
) => Response | PageResponse<D> | Promise<Response | PageResponse<D>>;

export type RouteHandler<D, S> =
  | HandlerFn<D, S>
  | { [M in Method]?: HandlerFn<D, S> };

/** What a route or layout exports as `config`. */
export interface RouteConfig {
  skipInheritedLayouts?: boolean;
  skipAppWrapper?: boolean;
}

/** Props of the components of routes, layouts and the app. */
export interface PageProps<D = unknown, S = unknown> extends
  Readonly<
    Pick<
      Context<S>,
      | ("params" | "url" | "req" | "state" | "error" | "route" | "config")
      | ("info" | "isPartial")
    >
  > {
  readonly data: D;
  readonly Component: () => ComponentChildren;
}

export type RouteComponent<D, S> = (
  props: PageProps<D, S>,
) => ComponentChildren | Response | Promise<ComponentChildren | Response>;

export interface Layout<S> {
  component: RouteComponent<unknown, S>;
  config?: RouteConfig;
}

type DataOf<H> = H extends (...args: never[]) => infer R
  ? Extract<Awaited<R>, PageResponse<unknown>> extends PageResponse<infer D> ? D
  : undefined
  : { [M in keyof H]: DataOf<H[M]> }[keyof H];

/** Helpers that only infer types. */
export interface Define<S> {
  handlers<H extends RouteHandler<unknown, S>>(handlers: H): H;
  page<H = never>(
    component: RouteComponent<[H] extends [never] ? undefined : DataOf<H>, S>,
  ): typeof component;
  layout(component: RouteComponent<unknown, S>): typeof component;
  middleware<M extends Middleware<S> | Middleware<S>[]>(middleware: M): M;
}

/** Makes the helpers for an app whose state is of type `S`. */
export function createDefine<S>(): Define<S> {
  const same = <T>(value: T) => value;
  return { handlers: same, page: same, layout: same, middleware: same };
}

/** A request, and what it is answered with. */
export class Context<S> {
  declare readonly req: Request;
  declare readonly url: URL;
  declare readonly info: Deno.ServeHandlerInfo;
  declare readonly params: Record<string, string>;
  declare readonly route: string | null;
  declare readonly config: Config;
  declare next: () => Promise<Response>;
  /** @ignore */
  declare readonly snapshot: Snapshot | null;
  readonly state: S = {} as S;
  /** What was thrown, in error routes. */
  error: unknown = null;
  readonly isPartial: boolean = false;
  /** @ignore What is around a page; layouts from the outside in. */
  tree: { app: RouteComponent<unknown, S> | null; layouts: Layout<S>[] } = {
    app: null,
    layouts: [],
  };

  /** @ignore */
  constructor(init: Partial<Context<S>>) {
    Object.assign(this, init);
  }

  /** Sends the browser elsewhere; never to another host by `//`. */
  redirect(pathOrUrl: string, status = 302): Response {
    const [, path, rest] = /^([^?#]*)(.*)$/s.exec(pathOrUrl)!;
    const location = path.startsWith("/")
      ? path.replace(/\/+/g, "/") + rest
      : pathOrUrl;
    return new Response(null, { status, headers: { location } });
  }

  /** Renders inside layouts and app. */
  async render(vnode: VNode | null, init?: ResponseInit): Promise<Response> {
    if (vnode !== null && !isValidElement(vnode)) {
      throw new Error("Non-JSX element passed to: ctx.render()");
    }
    const html = await renderTree(this, vnode);
    return html instanceof Response ? html : this.html(html, init);
  }

  text(content: string, init?: ResponseInit): Response {
    return new Response(content, init);
  }

  html(content: string, init: ResponseInit = {}): Response {
    const headers = new Headers(init.headers);
    headers.set("content-type", "text/html; charset=utf-8");
    return new Response(content, { ...init, headers });
  }

  json(content: unknown, init?: ResponseInit): Response {
    return Response.json(content, init);
  }
}
