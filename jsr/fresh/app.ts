/**
 * Middlewares around the files of `routes/`, and the handler of requests.
 *
 * @module
 */
import { Context, type Middleware } from "./context.ts";
import type { Snapshot } from "./dev.ts";
import { answer, matchRoute, type Route } from "./routes.ts";
import { HttpError } from "./runtime.ts";
import { leaveOut, unsupported } from "./unsupported.ts";

export type ListenOptions = Partial<Deno.ServeTcpOptions>;

/** Middlewares and routes in the order they are added. */
export class App<S> {
  readonly #middlewares: Middleware<S>[] = [];
  #hasRoutes = false;
  /** @ignore What a build has found. */
  snapshot: Snapshot<S> | null = null;

  constructor(config?: object) {
    if (config) unsupported("new App(config)");
  }

  use(...middlewares: Middleware<S>[]): this {
    // It would not cover the routes before it.
    if (this.#hasRoutes) unsupported("App.use() after fsRoutes()");
    if (middlewares.some((item) => typeof item !== "function")) {
      unsupported("App.use(path)");
    }
    this.#middlewares.push(...middlewares);
    return this;
  }

  /** The files of `routes/`, as a build has found them. */
  fsRoutes(pattern = "*"): this {
    if (pattern !== "*") unsupported("App.fsRoutes(pattern)");
    this.#hasRoutes = true;
    return this;
  }

  /** Answers requests. */
  handler(): (req: Request) => Promise<Response> {
    const snapshot = this.snapshot ?? unsupported("App without a build");
    if (!this.#hasRoutes) unsupported("App without fsRoutes()");
    return async (req) => {
      const url = new URL(req.url);
      url.pathname = url.pathname.replace(/\/+/g, "/");
      const { route, params } = matchRoute(snapshot, url);
      const next = () => Promise.reject(new HttpError(404, "Not Found"));
      const ctx = new Context<S>({ req, url, params, next, snapshot });
      // Error routes of the folders that the route is in.
      const [root, ...below] = snapshot.errors
        .filter(({ id }) =>
          (route?.id ?? "").startsWith(id.replace(/_error$/, ""))
        )
        .map(catchErrors<S>);
      try {
        const response = await run(ctx, [
          root,
          ...this.#middlewares,
          ...below,
          ...(route ? [(ctx: Context<S>) => answer(ctx, route)] : []),
        ]);
        return req.method === "HEAD" ? new Response(null, response) : response;
      } catch (error) {
        // An error route's own.
        console.error(error);
        return new Response("Internal server error", { status: 500 });
      }
    };
  }

  /** Serves requests until the signal stops it. */
  // deno-lint-ignore require-await
  async listen(options: ListenOptions = {}): Promise<void> {
    Deno.serve({ port: 8000, ...options }, this.handler());
  }
}

leaveOut(App, [
  ...["all", "delete", "get", "head", "patch", "post", "put", "route", "ws"],
  ...["appWrapper", "config", "layout", "mountApp", "notFound", "onError"],
]);

/** Renders what is thrown below by an error route. */
function catchErrors<S>(route: Route<S>): Middleware<S> {
  return async (ctx) => {
    try {
      return await ctx.next();
    } catch (error) {
      ctx.error = error;
      const status = error instanceof HttpError ? error.status : 500;
      return await answer(ctx, route, status);
    }
  };
}

/** Runs middlewares one inside the other. */
async function run<S>(
  ctx: Context<S>,
  middlewares: readonly Middleware<S>[],
): Promise<Response> {
  const first = middlewares.reduceRight<Context<S>["next"]>(
    (next, middleware) => async () => {
      ctx.next = next;
      return await middleware(ctx);
    },
    ctx.next,
  );
  const response = await first();
  if (response instanceof Response) return response;
  throw new Error(`Expected a "Response", but got: ${response}`);
}
