/**
 * Files of `static/` and of the build.
 *
 * @module
 */
import type { Middleware } from "./context.ts";
import { unsupported } from "./unsupported.ts";

const TYPES: Readonly<Record<string, string>> = {
  css: "text/css; charset=UTF-8",
  js: "text/javascript; charset=UTF-8",
  mjs: "text/javascript; charset=UTF-8",
  png: "image/png",
  svg: "image/svg+xml",
  wasm: "application/wasm",
};

/** Serves them; other paths go on. */
export function staticFiles<S>(): Middleware<S> {
  return async ({ req, url: { pathname }, snapshot, next }) => {
    const asset = snapshot.assets.get(pathname);
    const file = asset ? null : await find(snapshot.staticDir, pathname);
    if (!asset && !file) return await next();
    if (req.method !== "GET" && req.method !== "HEAD") {
      return new Response("Method Not Allowed", { status: 405 });
    }
    const extension = pathname.slice(pathname.lastIndexOf(".") + 1);
    const etag = file ? `${file.size}-${file.modified}` : "asset";
    const headers = new Headers({
      "content-type": TYPES[extension] ?? unsupported(`type of ${pathname}`),
      "cache-control": asset
        ? "public, max-age=31536000, immutable"
        : "no-cache",
      etag: `W/"${etag}"`,
      vary: "If-None-Match",
    });
    if (req.headers.get("if-none-match")?.includes(etag)) {
      return new Response(null, { status: 304, headers });
    }
    headers.set("content-length", `${asset?.length ?? file!.size}`);
    const body = req.method === "HEAD"
      ? null
      : asset ?? (await Deno.open(file!.path)).readable;
    return new Response(body, { headers });
  };
}

/** A file that lies inside the folder, links followed. */
async function find(folder: string, pathname: string) {
  try {
    const root = await Deno.realPath(folder);
    const path = await Deno.realPath(root + decodeURIComponent(pathname));
    const { isFile, size, mtime } = await Deno.stat(path);
    return isFile && path.startsWith(`${root}/`)
      ? { path, size, modified: mtime?.getTime() }
      : null;
  } catch {
    return null;
  }
}
