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
};

/** Serves them; other paths go on. */
export function staticFiles<S>(): Middleware<S> {
  return async (ctx) => {
    const { req: { method, headers: asked }, url, snapshot } = ctx;
    const { pathname } = url;
    const asset = snapshot?.assets.get(pathname);
    const file = snapshot && !asset && pathname !== "/"
      ? await find(snapshot.staticDir, pathname)
      : null;
    if (!asset && !file) return await ctx.next();
    if (method !== "GET" && method !== "HEAD") {
      return new Response("Method Not Allowed", { status: 405 });
    }
    const extension = pathname.slice(pathname.lastIndexOf(".") + 1);
    const etag = file ? `${file.size}-${file.modified}` : "asset";
    const headers = {
      "content-type": TYPES[extension] ?? "application/octet-stream",
      "cache-control": asset
        ? "public, max-age=31536000, immutable"
        : "no-cache",
      etag: `W/"${etag}"`,
      vary: "If-None-Match",
    };
    if (asked.get("if-none-match")?.includes(etag)) {
      return new Response(null, { status: 304, headers });
    }
    const body = method === "HEAD"
      ? null
      : asset ?? (await Deno.open(file!.path)).readable;
    const length = `${asset?.length ?? file!.size}`;
    return new Response(body, {
      headers: { ...headers, "content-length": length },
    });
  };
}

/** A file that lies inside the folder, links followed. */
async function find(folder: string, pathname: string) {
  try {
    const name = decodeURIComponent(pathname);
    if (/[\\\0]|(^|\/)\.\.?(\/|$)/.test(name)) return null;
    const root = await Deno.realPath(folder);
    const path = await Deno.realPath(root + name);
    const { isFile, size, mtime } = await Deno.stat(path);
    return isFile && path.startsWith(`${root}/`)
      ? { path, size, modified: mtime?.getTime() }
      : null;
  } catch {
    return null;
  }
}
