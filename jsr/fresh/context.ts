/**
 * What handlers, middlewares and components are given, and their types.
 *
 * @module
 */
import type { ComponentChildren, VNode } from "preact";
import { renderPage } from "./render.ts";
import type { Snapshot } from "./dev.ts";
import { leaveOut } from "./unsupported.ts";

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

/** Props of the components of routes and of the app. */
export interface PageProps<D = unknown, S = unknown> extends
  Readonly<
    Pick<Context<S>, "req" | "url" | "params" | "state" | "error">
  > {
  readonly data: D;
  readonly Component: () => ComponentChildren;
}

export type RouteComponent<D, S> = (
  props: PageProps<D, S>,
) => ComponentChildren;

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
}

/** Makes the helpers for an app whose state is of type `S`. */
export function createDefine<S>(): Define<S> {
  const same = <T>(value: T) => value;
  return { handlers: same, page: same };
}

/** A request, and what it is answered with. */
export class Context<S> {
  declare readonly req: Request;
  declare readonly url: URL;
  declare readonly params: Readonly<Record<string, string>>;
  /** Goes on to the next middleware or the route. */
  declare next: () => Promise<Response>;
  /** @ignore */
  declare readonly snapshot: Snapshot<S>;
  readonly state: S = {} as S;
  /** What was thrown, in error routes. */
  error: unknown = null;

  /** @ignore */
  constructor(init: Omit<Context<S>, "state" | "error" | "render" | "json">) {
    Object.assign(this, init);
  }

  /** Renders inside the app. */
  // deno-lint-ignore require-await
  async render<P>(
    vnode: VNode<P> | null,
    init?: ResponseInit,
  ): Promise<Response> {
    const headers = new Headers(init?.headers);
    headers.set("content-type", "text/html; charset=utf-8");
    return new Response(renderPage(this, vnode), { ...init, headers });
  }

  json(content: unknown, init?: ResponseInit): Response {
    return Response.json(content, init);
  }
}

leaveOut(Context, [
  ...["config", "info", "isPartial", "route"],
  ...["html", "redirect", "stream", "text"],
]);
