/**
 * Routing: commands in the order given, segments of paths with what they
 * inherit, and the handler of requests.
 *
 * @module
 */
import {
  type Config,
  Context,
  HttpError,
  type Layout,
  type Method,
  type Middleware,
  type RouteComponent,
} from "./context.ts";
import { applyFiles } from "./fs_routes.ts";
import type { Snapshot } from "./snapshot.ts";

/** Options of `listen()`. */
export type ListenOptions = Partial<Deno.ServeTcpOptions>;

/** A part of a path, and what routes below it inherit. */
export class Segment<S> {
  middlewares: Middleware<S>[] = [];
  layout: Layout<S> | null = null;
  app: RouteComponent<unknown, S> | null = null;
  onError: ((ctx: Context<S>, status: number) => Promise<Response>) | null =
    null;
  notFound: Middleware<S> | null = null;
  readonly children = new Map<string, Segment<S>>();
  readonly parent: Segment<S> | null;

  constructor(parent: Segment<S> | null) {
    this.parent = parent;
  }

  /** The segment of a path below this one. */
  at(path: string): Segment<S> {
    // deno-lint-ignore no-this-alias
    let found: Segment<S> = this;
    for (const part of path.split("/")) {
      if (part === "" || part === "*") continue;
      const next = found.children.get(part) ?? new Segment(found);
      found.children.set(part, next);
      found = next;
    }
    return found;
  }

  /** Middlewares from the root down to here, as they are now. */
  chain(): Middleware<S>[] {
    const { layout, app, onError } = this;
    const enter: Middleware<S> = async (ctx) => {
      const before = ctx.tree;
      let { app: wrapper, layouts } = before;
      if (app) wrapper = app;
      if (layout) {
        const { skipAppWrapper, skipInheritedLayouts } = layout.config ?? {};
        if (skipAppWrapper) wrapper = null;
        layouts = skipInheritedLayouts ? [layout] : [...layouts, layout];
      }
      ctx.tree = { app: wrapper, layouts };
      try {
        return await ctx.next();
      } catch (error) {
        ctx.error = error;
        ctx.tree = { app: wrapper, layouts };
        const status = error instanceof HttpError ? error.status : 500;
        if (status >= 500) console.error(error);
        const { notFound } = this.#root();
        if (notFound && status === 404) return await notFound(ctx);
        if (onError) return await onError(ctx, status);
        throw error;
      } finally {
        ctx.tree = before;
      }
    };
    return [...this.parent?.chain() ?? [], enter, ...this.middlewares];
  }

  #root(): Segment<S> {
    return this.parent ? this.parent.#root() : this;
  }
}

/** Handlers of one pattern. */
interface Entry<S> {
  readonly pattern: string;
  readonly url: URLPattern | null;
  readonly methods: Map<Method | "ALL", Middleware<S>[]>;
}

/** What commands fill. */
export class Router<S> {
  readonly root = new Segment<S>(null);
  readonly #static = new Map<string, Entry<S>>();
  readonly #dynamic = new Map<string, Entry<S>>();

  add(method: Method | "ALL", pattern: string, handlers: Middleware<S>[]) {
    if (!pattern.startsWith("/")) {
      throw new Error(`Unsupported path "${pattern}": it must begin with "/"`);
    }
    const isDynamic = /[*:{}+?()]/.test(pattern);
    const entries = isDynamic ? this.#dynamic : this.#static;
    const key = isDynamic ? pattern : trimmed(pattern);
    const entry: Entry<S> = entries.get(key) ?? {
      pattern,
      url: isDynamic ? new URLPattern({ pathname: pattern }) : null,
      methods: new Map(),
    };
    entries.set(key, entry);
    entry.methods.set(method, [
      ...entry.methods.get(method) ?? [],
      ...handlers,
    ]);
  }

  match(url: URL): { entry: Entry<S>; params: Record<string, string> } | null {
    const params: Record<string, string> = Object.create(null);
    const entry = this.#static.get(trimmed(url.pathname));
    if (entry) return { entry, params };
    for (const entry of this.#dynamic.values()) {
      const found = entry.url!.exec(url);
      if (!found) continue;
      for (const [name, value] of Object.entries(found.pathname.groups)) {
        params[name] = decodeURI(value ?? "");
      }
      return { entry, params };
    }
    return null;
  }
}

function trimmed(path: string): string {
  return path.length > 1 && path.endsWith("/") ? path.slice(0, -1) : path;
}

const snapshots = new WeakMap<object, Snapshot>();

/** Hands the result of a build to an app. */
export function setSnapshot<S>(app: App<S>, snapshot: Snapshot): void {
  snapshots.set(app, snapshot);
  app.config.root = snapshot.root;
}

const NO_INFO = {
  remoteAddr: { transport: "tcp", hostname: "localhost", port: 1234 },
  completed: Promise.resolve(),
} as Deno.ServeHandlerInfo;

/** Middlewares and routes in the order they are added. */
export class App<S> {
  readonly config: Config;
  readonly #commands: ((router: Router<S>) => void)[] = [];

  constructor(config: Partial<Omit<Config, "root">> = {}) {
    if (config.basePath) throw new Error("Unsupported option: basePath");
    this.config = { root: ".", basePath: "", mode: "production", ...config };
  }

  use(...middlewares: (string | Middleware<S>)[]): this {
    const [first] = middlewares;
    const path = typeof first === "string" ? first : "*";
    const given = typeof first === "string"
      ? middlewares.slice(1)
      : middlewares;
    return this.#then(({ root }) => {
      root.at(path).middlewares.push(...given as Middleware<S>[]);
    });
  }

  get(path: string, ...handlers: Middleware<S>[]): this {
    return this.#handle("GET", path, handlers);
  }
  post(path: string, ...handlers: Middleware<S>[]): this {
    return this.#handle("POST", path, handlers);
  }
  put(path: string, ...handlers: Middleware<S>[]): this {
    return this.#handle("PUT", path, handlers);
  }
  patch(path: string, ...handlers: Middleware<S>[]): this {
    return this.#handle("PATCH", path, handlers);
  }
  delete(path: string, ...handlers: Middleware<S>[]): this {
    return this.#handle("DELETE", path, handlers);
  }
  head(path: string, ...handlers: Middleware<S>[]): this {
    return this.#handle("HEAD", path, handlers);
  }
  all(path: string, ...handlers: Middleware<S>[]): this {
    return this.#handle("ALL", path, handlers);
  }

  appWrapper(component: RouteComponent<unknown, S>): this {
    return this.#then(({ root }) => void (root.app = component));
  }
  layout(path: string, component: RouteComponent<unknown, S>): this {
    return this.#then(({ root }) =>
      void (root.at(path).layout = { component })
    );
  }
  notFound(middleware: Middleware<S>): this {
    return this.#then(({ root }) => void (root.notFound = middleware));
  }
  onError(path: string, middleware: Middleware<S>): this {
    return this.#then(({ root }) => {
      root.at(path).onError = async (ctx) => await middleware(ctx);
    });
  }

  /** The files of `routes/`, once there is a build. */
  fsRoutes(pattern = "*"): this {
    if (pattern !== "*") throw new Error("Unsupported: fsRoutes(pattern)");
    return this.#then((router) => {
      const snapshot = snapshots.get(this);
      if (snapshot) applyFiles(router, snapshot.routes);
    });
  }

  mountApp(): never {
    throw new Error("Unsupported: mountApp()");
  }
  route(): never {
    throw new Error("Unsupported: route()");
  }

  /** Answers requests. */
  handler(): (
    req: Request,
    info?: Deno.ServeHandlerInfo,
  ) => Promise<Response> {
    const router = new Router<S>();
    for (const command of this.#commands) command(router);
    const outer = router.root.chain();
    return async (req, info = NO_INFO) => {
      const url = new URL(req.url);
      url.pathname = url.pathname.replace(/\/+/g, "/");
      let match: ReturnType<Router<S>["match"]> = null;
      let refusal = new HttpError(404, "Not Found");
      try {
        match = router.match(url);
      } catch {
        // Escapes that are no UTF-8 name nothing; upstream's match() throws.
      }
      const methods = match?.entry.methods;
      const method = req.method as Method;
      const handlers = methods?.get(method) ??
        (method === "HEAD" ? methods?.get("GET") : undefined) ??
        methods?.get("ALL");
      if (methods && !handlers) {
        refusal = new HttpError(405, "Method Not Allowed");
      }
      const isOptions = req.method === "OPTIONS" && methods && !handlers;
      const allow = [...methods?.keys() ?? []].join(", ");
      const ctx = new Context<S>({
        req,
        url,
        info,
        params: match?.params ?? Object.create(null),
        route: match?.entry.pattern ?? null,
        config: this.config,
        snapshot: snapshots.get(this) ?? null,
        next: () =>
          isOptions
            ? Promise.resolve(
              new Response(null, { status: 204, headers: { allow } }),
            )
            : Promise.reject(refusal),
      });
      try {
        const response = await run(handlers ?? outer, ctx);
        if (!(response instanceof Response)) {
          throw new Error(
            `Expected a "Response" instance to be returned, but got: ${response}`,
          );
        }
        return method === "HEAD" ? new Response(null, response) : response;
      } catch (error) {
        if (!(error instanceof HttpError)) {
          return new Response("Internal server error", { status: 500 });
        }
        return new Response(error.message, { status: error.status });
      }
    };
  }

  /** Serves requests until the signal stops it. */
  // deno-lint-ignore require-await
  async listen(options: ListenOptions = {}): Promise<void> {
    Deno.serve({ port: 8000, ...options }, this.handler());
  }

  #then(command: (router: Router<S>) => void): this {
    this.#commands.push(command);
    return this;
  }

  #handle(method: Method | "ALL", path: string, handlers: Middleware<S>[]) {
    return this.#then((router) => {
      const inherited = router.root.at(path).chain();
      router.add(method, path, [...inherited, ...handlers]);
    });
  }
}

/** Runs middlewares one inside the other. */
async function run<S>(
  middlewares: readonly Middleware<S>[],
  ctx: Context<S>,
): Promise<Response> {
  const last = ctx.next;
  const at = async (i: number): Promise<Response> => {
    ctx.next = i + 1 < middlewares.length ? () => at(i + 1) : last;
    try {
      return await middlewares[i](ctx);
    } finally {
      ctx.next = i < middlewares.length ? () => at(i) : last;
    }
  };
  return await at(0);
}
