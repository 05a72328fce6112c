/**
 * Routing: commands in the order given, segments of paths with what routes
 * below inherit, and the handler of requests.
 *
 * @module
 */
import {
  type Config,
  Context,
  type Layout,
  type Method,
  type Middleware,
  type RouteComponent,
} from "./context.ts";
import { applyFiles } from "./fs_routes.ts";
import { HttpError } from "./runtime.ts";
import type { Snapshot } from "./snapshot.ts";

export type ListenOptions = Partial<Deno.ServeTcpOptions>;

/** A part of a path, and what routes below it inherit. */
export class Segment<S> {
  readonly middlewares: Middleware<S>[] = [];
  layout: Layout<S> | null = null;
  app: RouteComponent<unknown, S> | null = null;
  onError: ((ctx: Context<S>, status: number) => Promise<Response>) | null =
    null;
  notFound: Middleware<S> | null = null;
  readonly #children = new Map<string, Segment<S>>();
  readonly #parent: Segment<S> | null;

  constructor(parent: Segment<S> | null = null) {
    this.#parent = parent;
  }

  /** The segment of a path below this one. */
  at(path: string): Segment<S> {
    const [, part, rest] = /^[/*]*([^/]*)(.*)$/.exec(path)!;
    if (part === "") return this;
    const child = this.#children.get(part) ?? new Segment<S>(this);
    this.#children.set(part, child);
    return child.at(rest);
  }

  /** Middlewares from the root down to here, as they are now. */
  chain(root: Segment<S> = this.#root()): Middleware<S>[] {
    const { layout, app, onError } = this;
    const enter: Middleware<S> = async (ctx) => {
      const before = ctx.tree;
      const { skipAppWrapper, skipInheritedLayouts } = layout?.config ?? {};
      const tree = {
        app: skipAppWrapper ? null : app ?? before.app,
        layouts: [
          ...(skipInheritedLayouts ? [] : before.layouts),
          ...(layout ? [layout] : []),
        ],
      };
      ctx.tree = tree;
      try {
        return await ctx.next();
      } catch (error) {
        ctx.error = error;
        ctx.tree = tree;
        const status = error instanceof HttpError ? error.status : 500;
        if (root.notFound && status === 404) return await root.notFound(ctx);
        if (onError) return await onError(ctx, status);
        throw error;
      } finally {
        ctx.tree = before;
      }
    };
    const outer = this.#parent?.chain(root) ?? [];
    return [...outer, enter, ...this.middlewares];
  }

  #root(): Segment<S> {
    return this.#parent ? this.#parent.#root() : this;
  }
}

interface Entry<S> {
  readonly pattern: string;
  readonly methods: Map<string, Middleware<S>[]>;
}

/** What commands fill. */
export class Router<S> {
  readonly root = new Segment<S>();
  readonly #static = new Map<string, Entry<S>>();
  readonly #dynamic = new Map<
    string,
    Entry<S> & { readonly url: URLPattern }
  >();

  add(method: Method | "ALL", pattern: string, handlers: Middleware<S>[]) {
    if (!pattern.startsWith("/")) throw new Error(`Unsupported: "${pattern}"`);
    const isDynamic = /[*:{}+?()]/.test(pattern);
    const key = isDynamic ? pattern : trimmed(pattern);
    const known = (isDynamic ? this.#dynamic : this.#static).get(key);
    const { methods } = known ?? { methods: new Map() };
    methods.set(method, [...methods.get(method) ?? [], ...handlers]);
    if (!isDynamic) this.#static.set(key, { pattern, methods });
    else if (!known) {
      const url = new URLPattern({ pathname: pattern });
      this.#dynamic.set(key, { pattern, methods, url });
    }
  }

  match(url: URL): { entry: Entry<S>; params: Record<string, string> } | null {
    const params: Record<string, string> = Object.create(null);
    const entry = this.#static.get(trimmed(url.pathname));
    if (entry) return { entry, params };
    for (const entry of this.#dynamic.values()) {
      const groups = entry.url.exec(url)?.pathname.groups;
      for (const [name, value] of Object.entries(groups ?? {})) {
        params[name] = decodeURI(value ?? "");
      }
      if (groups) return { entry, params };
    }
    return null;
  }
}

function trimmed(path: string): string {
  return path.replace(/(.)\/$/, "$1");
}

const snapshots = new WeakMap<object, Snapshot>();

/** Hands the result of a build to an app. */
export function setSnapshot<S>(app: App<S>, snapshot: Snapshot): void {
  snapshots.set(app, snapshot);
  app.config.root = snapshot.root;
}

/** Middlewares and routes in the order they are added. */
export class App<S> {
  readonly config: Config;
  readonly #commands: ((router: Router<S>) => void)[] = [];

  constructor(config: Partial<Omit<Config, "root">> = {}) {
    if (config.basePath) throw new Error("Unsupported: basePath");
    this.config = { root: ".", basePath: "", mode: "production", ...config };
  }

  use(...[first, ...rest]: (string | Middleware<S>)[]): this {
    const [path, given] = typeof first === "string"
      ? [first, rest]
      : ["*", [first, ...rest]];
    return this.#then(({ root }) =>
      root.at(path).middlewares.push(...given as Middleware<S>[])
    );
  }

  readonly get = this.#adder("GET");
  readonly post = this.#adder("POST");
  readonly put = this.#adder("PUT");
  readonly patch = this.#adder("PATCH");
  readonly delete = this.#adder("DELETE");
  readonly head = this.#adder("HEAD");
  readonly all = this.#adder("ALL");

  appWrapper(component: RouteComponent<unknown, S>): this {
    return this.#then(({ root }) => root.app = component);
  }
  layout(path: string, component: RouteComponent<unknown, S>): this {
    return this.#then(({ root }) => root.at(path).layout = { component });
  }
  notFound(middleware: Middleware<S>): this {
    return this.#then(({ root }) => root.notFound = middleware);
  }
  onError(path: string, middleware: Middleware<S>): this {
    return this.#then(({ root }) =>
      root.at(path).onError = async (ctx) => await middleware(ctx)
    );
  }

  /** The files of `routes/`, once there is a build. */
  fsRoutes(pattern = "*"): this {
    if (pattern !== "*") throw new Error("Unsupported: fsRoutes(pattern)");
    return this.#then((router) =>
      applyFiles(router, snapshots.get(this)?.routes ?? [])
    );
  }

  mountApp(): never {
    throw new Error("Unsupported: mountApp()");
  }

  /** Answers requests. */
  handler(): (req: Request, info?: Deno.ServeHandlerInfo) => Promise<Response> {
    const router = new Router<S>();
    for (const command of this.#commands) command(router);
    const outer = router.root.chain();
    return async (req, info) => {
      const url = new URL(req.url);
      url.pathname = url.pathname.replace(/\/+/g, "/");
      let match: ReturnType<Router<S>["match"]> = null;
      try {
        match = router.match(url);
      } catch {
        // Escapes that are no UTF-8 name nothing; upstream's match() throws.
      }
      const { method } = req;
      const methods = match?.entry.methods;
      const handlers = methods?.get(method) ?? methods?.get("ALL") ??
        (method === "HEAD" ? methods?.get("GET") : undefined);
      const ctx = new Context<S>({
        req,
        url,
        info: info ?? NO_INFO,
        params: match?.params ?? {},
        route: match?.entry.pattern ?? null,
        config: this.config,
        snapshot: snapshots.get(this) ?? null,
        // deno-lint-ignore require-await
        next: async () => {
          if (!methods || handlers) throw new HttpError(404, "Not Found");
          if (method !== "OPTIONS") {
            throw new HttpError(405, "Method Not Allowed");
          }
          const allow = [...methods.keys()].join(", ");
          return new Response(null, { status: 204, headers: { allow } });
        },
      });
      try {
        const response = await run(handlers ?? outer, ctx);
        return method === "HEAD" ? new Response(null, response) : response;
      } catch (error) {
        if (error instanceof HttpError && error.status < 500) {
          return new Response(error.message, { status: error.status });
        }
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

  #then(command: (router: Router<S>) => unknown): this {
    this.#commands.push(command);
    return this;
  }

  #adder(method: Method | "ALL") {
    return (path: string, ...handlers: Middleware<S>[]): this =>
      this.#then((router) => {
        const inherited = router.root.at(path).chain();
        router.add(method, path, [...inherited, ...handlers]);
      });
  }
}

const NO_INFO: Deno.ServeHandlerInfo = {
  remoteAddr: { transport: "tcp", hostname: "localhost", port: 1234 },
  completed: Promise.resolve(),
};

/** Runs middlewares one inside the other. */
async function run<S>(
  middlewares: readonly Middleware<S>[],
  ctx: Context<S>,
): Promise<Response> {
  const last = ctx.next;
  const at = async (i: number): Promise<Response> => {
    if (i === middlewares.length) return await last();
    const before = ctx.next;
    ctx.next = () => at(i + 1);
    try {
      const response = await middlewares[i](ctx);
      if (response instanceof Response) return response;
      throw new Error(`Expected a "Response", but got: ${response}`);
    } finally {
      ctx.next = before;
    }
  };
  return await at(0);
}
