/**
 * Files of `static/` and of the build.
 *
 * @module
 */
import type { Middleware } from "./context.ts";

const TYPES: Readonly<Record<string, string>> = {
  css: "text/css; charset=UTF-8",
  html: "text/html; charset=UTF-8",
  ico: "image/vnd.microsoft.icon",
  jpg: "image/jpeg",
  js: "text/javascript; charset=UTF-8",
  json: "application/json; charset=UTF-8",
  mjs: "text/javascript; charset=UTF-8",
  png: "image/png",
  svg: "image/svg+xml",
  txt: "text/plain; charset=UTF-8",
  wasm: "application/wasm",
  webmanifest: "application/manifest+json",
  woff2: "font/woff2",
};

interface StaticFile {
  readonly etag: string;
  readonly size: number;
  readonly body: () => Promise<BodyInit>;
}

/** Serves them; other paths go on. */
export function staticFiles<S>(): Middleware<S> {
  return async (ctx) => {
    const { req, url, snapshot } = ctx;
    if (!snapshot || url.pathname === "/") return await ctx.next();
    const asset = snapshot.assets.get(url.pathname);
    const file: StaticFile | null = asset
      ? {
        etag: "asset",
        size: asset.length,
        body: () => Promise.resolve(asset),
      }
      : await find(snapshot.staticDir, url.pathname);
    if (!file) return await ctx.next();
    if (req.method !== "GET" && req.method !== "HEAD") {
      return new Response("Method Not Allowed", { status: 405 });
    }
    const extension = url.pathname.slice(url.pathname.lastIndexOf(".") + 1);
    const etag = `W/"${file.etag}"`;
    const headers = new Headers({
      "content-type": TYPES[extension] ?? "application/octet-stream",
      "cache-control": asset
        ? "public, max-age=31536000, immutable"
        : "no-cache",
      etag,
      vary: "If-None-Match",
    });
    if (req.headers.get("if-none-match")?.includes(file.etag)) {
      return new Response(null, { status: 304, headers });
    }
    headers.set("content-length", `${file.size}`);
    const body = req.method === "HEAD" ? null : await file.body();
    return new Response(body, { headers });
  };
}

/** A file that lies inside the folder, links followed. */
async function find(folder: string, path: string): Promise<StaticFile | null> {
  try {
    const name = decodeURIComponent(path);
    if (/[\\\0]|(^|\/)\.\.?(\/|$)/.test(name)) return null;
    const root = await Deno.realPath(folder);
    const real = await Deno.realPath(root + name);
    const info = await Deno.stat(real);
    if (!real.startsWith(`${root}/`) || !info.isFile) return null;
    return {
      etag: `${info.size.toString(36)}-${info.mtime?.getTime().toString(36)}`,
      size: info.size,
      body: async () => (await Deno.open(real)).readable,
    };
  } catch {
    return null;
  }
}
