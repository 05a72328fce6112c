/** The stand-in for Fresh has upstream's semantics for what the site uses. */
import { fileURLToPath } from "node:url";
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { signal } from "@preact/signals";
import { parse } from "devalue";
import { App, type Middleware, staticFiles } from "fresh";
import { Builder } from "fresh/dev";
import { sortRoutes } from "../../jsr/fresh/routes.ts";

interface State {
  seen?: string;
}

const SITE = fileURLToPath(new URL("./fresh_site/", import.meta.url));

const arm = await new Builder<State>({ root: SITE }).build({
  snapshot: "memory",
});

/** The fixture's app, with what a test adds before its file routes. */
function site(add: (app: App<State>) => void = () => {}) {
  const app = new App<State>().use(staticFiles());
  add(app);
  app.fsRoutes();
  arm(app);
  const handler = app.handler();
  return (path: string, init?: RequestInit) =>
    handler(new Request(`http://localhost${path}`, init));
}

Deno.test("a page is rendered inside the app", async () => {
  const response = await site()("/nested/x");
  assertEquals(
    response.headers.get("content-type"),
    "text/html; charset=utf-8",
  );
  const html = await response.text();
  assert(html.startsWith("<!DOCTYPE html><html>"), html);
  assertStringIncludes(html, `<meta name="path" content="/nested/x"`);
  assertStringIncludes(html, "<main><p>x</p></main>");
});

Deno.test("Head fills the head and replaces the title; text is escaped", async () => {
  const html = await (await site()("/")).text();
  assertStringIncludes(html, "<title>index</title>");
  assert(!html.includes("<title>app</title>"));
  assertStringIncludes(html, `<meta name="from" content="page"`);
  assertStringIncludes(html, "<h1>&lt;home&gt;</h1>");
  assert(!html.includes("<script"), "pages without islands ship no script");
});

Deno.test("page() sets status and headers", async () => {
  const response = await site()("/nested");
  assertEquals(response.status, 201);
  assertEquals(response.headers.get("x-page"), "1");
});

Deno.test("middlewares run in order around routes", async () => {
  const mark = (name: string): Middleware<State> => async (ctx) => {
    ctx.state.seen = (ctx.state.seen ?? "") + name;
    const response = await ctx.next();
    response.headers.append("x-after", name);
    return response;
  };
  const get = site((app) => app.use(mark("a")).use(mark("b"), mark("c")));
  const response = await get("/nested");
  assertEquals(response.headers.get("x-after"), "c, b, a");
  assertStringIncludes(await response.text(), "<p>abc</p>");
});

Deno.test("static names go first, tests are no routes", async () => {
  const get = site();
  const html = await (await get("/nested/fixed")).text();
  assertStringIncludes(html, "a static name");
  assertEquals(await (await get("/nested/run.json")).json(), { method: "GET" });
  assertEquals((await get("/ignored_test")).status, 404);
  const ids = [
    "[...a]",
    "[b]/c",
    "[b]",
    "_app",
    "_error",
    "z/[b]",
    "z/y",
    "index",
  ];
  const component = () => null;
  const { pages } = sortRoutes(
    ids.map((id) => ({ id, module: { default: component } })),
  );
  assertEquals(pages.map(({ id }) => id), [
    ...["index", "z/y", "z/[b]", "[b]", "[b]/c", "[...a]"],
  ]);
});

Deno.test("trailing and doubled slashes", async () => {
  const get = site();
  assertEquals((await get("/nested/")).status, 201);
  assertEquals((await get("//nested")).status, 201);
  assertEquals((await get("/nested/x/")).status, 404);
});

Deno.test("params decode %20, not %2F; rest may be empty", async () => {
  const get = site();
  assertEquals(await (await get("/api/a%20b/c%2Fd")).json(), {
    rest: "a b/c%2Fd",
  });
  assertEquals(await (await get("/api")).json(), { rest: "" });
  assertEquals((await get("/nested/%E0%A4%A")).status, 404);
});

Deno.test("methods: pages take all, a missing handler is 404, HEAD is GET", async () => {
  const get = site();
  assertEquals((await get("/", { method: "POST" })).status, 200);
  assertEquals((await get("/api/x", { method: "POST" })).status, 404);
  assertEquals(await (await get("/api/x", { method: "PUT" })).json(), "put");
  const head = await get("/api/x", { method: "HEAD" });
  assertEquals([head.status, await head.text()], [200, ""]);
});

Deno.test("errors are rendered by the nearest error route with their status", async () => {
  const get = site((app) =>
    app.use(async (ctx) => {
      if (ctx.url.pathname === "/boom") throw new Error("boom");
      ctx.state.seen = "seen";
      const response = await ctx.next();
      response.headers.set("x-outer", "1");
      return response;
    })
  );
  const teapot = await get("/nested/teapot");
  assertEquals(teapot.status, 418);
  assertEquals(teapot.headers.get("x-outer"), null);
  assertStringIncludes(
    await teapot.text(),
    `<main><p class="error">418 seen</p></main>`,
  );
  assertEquals((await get("/nowhere")).status, 404);
  assertEquals((await get("/boom")).status, 500);
  // An error route below the middleware, and what that throws itself.
  const gone = await get("/nested/deep/x");
  assertEquals([gone.status, gone.headers.get("x-outer")], [410, "1"]);
  assertEquals(await gone.json(), { error: "gone" });
  const worse = await get("/nested/deep/bad");
  assertEquals(worse.status, 502);
  assertStringIncludes(await worse.text(), "502 seen");
});

Deno.test("links to the page and above it are marked", async () => {
  const html = await (await site()("/nested/x")).text();
  assertStringIncludes(
    html,
    `<a href="/nested" aria-current="true" data-ancestor="true">`,
  );
  assertStringIncludes(html, `<a href="/">home</a><a href="#main">skip</a>`);
});

Deno.test("staticFiles() gives types and validators, and refuses POST", async () => {
  const get = site();
  const css = await get("/style.css");
  assertEquals(css.headers.get("content-type"), "text/css; charset=UTF-8");
  assertStringIncludes(await css.text(), "margin: 0");
  const etag = css.headers.get("etag")!;
  assert(etag.startsWith(`W/"`), etag);
  const again = await get("/style.css", { headers: { "if-none-match": etag } });
  assertEquals([again.status, await again.text()], [304, ""]);
  const wasm = await get("/tiny.wasm");
  assertEquals(wasm.headers.get("content-type"), "application/wasm");
  await wasm.body?.cancel();
  assertEquals((await get("/style.css", { method: "POST" })).status, 405);
  const paths = [
    "/../fresh_test.ts",
    "/%2e%2e/fresh_test.ts",
    "/..%2ffresh_test.ts",
    "/style.css%00",
  ];
  for (const path of paths) {
    assertEquals((await get(path)).status, 404, path);
  }
});

Deno.test("islands are rendered, marked and their props one graph", async () => {
  const get = site();
  const html = await (await get("/island")).text();
  assertMatch(html, /data-island="Counter-\w+\.js:0"/);
  assertMatch(html, /data-island="Holder-\w+\.js:2"/);
  assertEquals(html.match(/data-island=/g)!.length, 3, "islands do not nest");
  const [, state] = /id="fresh-state">(.*?)<\/script>/.exec(html)!;
  assert(!state.includes("<"), "nothing ends the script early");
  const [first, second] = parse(state, {
    Signal: ([value]: [unknown]) => signal(value),
  });
  assertEquals(first.count.value, 3);
  assertStrictEquals(first.count, second.count);
  assertEquals(first.twice.value, 6);
  assertStrictEquals(first.odd[0], -0);
  const script = /<script type="module" src="([^"]+)"/.exec(html)![1];
  const client = await get(script);
  assertEquals(
    client.headers.get("cache-control"),
    "public, max-age=31536000, immutable",
  );
  await client.body?.cancel();
});

Deno.test("props that cannot be stored are an error", async () => {
  const get = site();
  for (const kind of ["function", "array", "jsx"]) {
    const response = await get(`/bad_island?${kind}`);
    assertEquals(response.status, 500, kind);
    await response.body?.cancel();
  }
});

Deno.test("what the stand-in lacks throws", async () => {
  const app = new App();
  // deno-lint-ignore no-explicit-any
  const any = app as any;
  const component = () => null;
  const read = (...files: [id: string, module?: object][]) =>
    sortRoutes(files.map(([id, module = { default: component }]) => ({
      id,
      module: { ...module },
    })));
  const whole = (file: [id: string, module?: object]) =>
    read(["_app"], ["_error"], file);
  const lacking: (() => unknown)[] = [
    () => new App({ basePath: "/x" }),
    () => any.get("/", component),
    () => any.mountApp("/", app),
    () => any.use("/x", component),
    () => app.fsRoutes("/x"),
    () => app.handler(),
    () => new App().fsRoutes().use((ctx) => ctx.next()),
    () => new Builder({ outDir: "x" } as object),
    () => read(["_app"], ["index"]),
    () => read(["_error"], ["index"]),
    ...["_layout", "_middleware", "_404", "a/_app", "(a)/b", "[[a]]"].map(
      (id) => () => whole([id]),
    ),
    () => whole(["a", { default: component, config: {} }]),
    () => whole(["a", { default: async () => {} }]),
  ];
  for (const call of lacking) {
    assertThrows(call, Error, "Unsupported", String(call));
  }
  await assertRejects(() => new Builder().build(), Error, "Unsupported");
  assertThrows(() => whole(["a", {}]), Error, "must export");
});
