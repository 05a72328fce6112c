/** The stand-in for Fresh has upstream's semantics for what the site uses. */
import { fileURLToPath } from "node:url";
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { App, HttpError, staticFiles } from "fresh";
import { Builder } from "fresh/dev";
import { asset, IS_BROWSER, Partial } from "fresh/runtime";

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

const silenced = async <T>(work: () => Promise<T>): Promise<T> => {
  const { error } = console;
  console.error = () => {};
  try {
    return await work();
  } finally {
    console.error = error;
  }
};

Deno.test("a page is rendered inside its layouts and the app", async () => {
  const get = site();
  const response = await get("/nested/x");
  assertEquals(
    response.headers.get("content-type"),
    "text/html; charset=utf-8",
  );
  const html = await response.text();
  assert(html.startsWith("<!DOCTYPE html><html>"), html);
  assertStringIncludes(
    html,
    `<div class="outer"><div class="inner"><p>x</p></div></div>`,
  );
  const fixed = await (await get("/nested/fixed")).text();
  assert(!/outer|inner|<nav>/.test(fixed), fixed);
  assertStringIncludes(fixed, "<p>fixed</p>");
});

Deno.test("Head fills the head and replaces the title; text is escaped", async () => {
  const html = await (await site()("/")).text();
  assertStringIncludes(html, "<title>index</title>");
  assert(!html.includes("<title>app</title>"));
  assertStringIncludes(html, `<meta name="from" content="page"`);
  assertStringIncludes(html, "<h1>&lt;home&gt;</h1>");
  assert(!html.includes("<script"), "pages without islands ship no script");
});

Deno.test("page() sets status and headers, middlewares run in order", async () => {
  const response = await site()("/nested");
  assertEquals(response.status, 201);
  assertEquals(response.headers.get("x-page"), "1");
  assertEquals(response.headers.get("x-after"), "b, a");
  assertStringIncludes(await response.text(), "<p>ab</p>");
});

Deno.test("static names go first, groups are not in the URL, others are ignored", async () => {
  const get = site();
  assertStringIncludes(await (await get("/nested/fixed")).text(), "fixed");
  const grouped = await (await get("/inner/grouped")).text();
  assertStringIncludes(grouped, `<div class="group"><p>grouped</p></div>`);
  for (const path of ["/hidden", "/(_ignored)/hidden", "/ignored_test"]) {
    assertEquals((await get(path)).status, 404, path);
  }
});

Deno.test("trailing and doubled slashes", async () => {
  const get = site();
  assertEquals((await get("/nested/")).status, 201);
  assertEquals((await get("//nested")).status, 201);
  assertEquals((await get("/nested/x/")).status, 404);
});

Deno.test("params decode %20, not %2F; rest and optional names", async () => {
  const get = site();
  assertEquals(await (await get("/api/a%20b/c%2Fd")).json(), {
    rest: "a b/c%2Fd",
  });
  assertEquals(await (await get("/opt")).text(), "GET ");
  assertEquals(await (await get("/opt/7")).text(), "GET 7");
  assertEquals((await get("/nested/%E0%A4%A")).status, 404);
});

Deno.test("methods: file routes take all, a missing handler is 404, app.get() is 405", async () => {
  const get = site((app) => app.get("/only", (ctx) => ctx.text("get")));
  assertEquals((await get("/", { method: "POST" })).status, 200);
  assertEquals((await get("/api/x", { method: "POST" })).status, 404);
  assertEquals(await (await get("/api/x", { method: "PUT" })).text(), "put");
  assertEquals((await get("/only", { method: "POST" })).status, 405);
  const head = await get("/only", { method: "HEAD" });
  assertEquals([head.status, await head.text()], [200, ""]);
  const options = await get("/only", { method: "OPTIONS" });
  assertEquals([options.status, options.headers.get("allow")], [204, "GET"]);
});

Deno.test("errors are rendered by the nearest error route with their status", async () => {
  const get = site((app) => {
    app.use(async (ctx) => {
      const response = await ctx.next();
      response.headers.set("x-outer", "1");
      return response;
    });
    app.get("/boom", () => {
      throw new Error("boom");
    });
  });
  await silenced(async () => {
    const teapot = await get("/nested/teapot");
    assertEquals(teapot.status, 418);
    assertEquals(teapot.headers.get("x-outer"), null);
    assertStringIncludes(
      await teapot.text(),
      `<div class="outer"><p class="error">418 ab</p></div>`,
    );
    assertEquals((await get("/nowhere")).status, 404);
    assertEquals((await get("/boom")).status, 500);
  });
});

Deno.test("onError() and notFound() take middlewares", async () => {
  const app = new App<State>()
    .notFound((ctx) => ctx.text("none", { status: 404 }))
    .onError("*", (ctx) => ctx.text(`caught ${ctx.error}`, { status: 500 }))
    .get("/boom", () => {
      throw new TypeError("boom");
    });
  const handler = app.handler();
  const get = (path: string) => handler(new Request(`http://localhost${path}`));
  assertEquals(await (await get("/nowhere")).text(), "none");
  await silenced(async () => {
    assertEquals(await (await get("/boom")).text(), "caught TypeError: boom");
  });
});

Deno.test("a middleware covers only routes registered after it", async () => {
  const app = new App<State>()
    .get("/before", (ctx) => ctx.text(`${ctx.state.seen}`))
    .use((ctx) => {
      ctx.state.seen = "yes";
      return ctx.next();
    })
    .get("/after", (ctx) => ctx.text(`${ctx.state.seen}`));
  const handler = app.handler();
  const get = (path: string) => handler(new Request(`http://localhost${path}`));
  assertEquals(await (await get("/before")).text(), "undefined");
  assertEquals(await (await get("/after")).text(), "yes");
});

Deno.test("components may return a response", async () => {
  assertEquals(await (await site()("/nested/raw")).text(), "raw");
});

Deno.test("redirect() never leaves the host by //", async () => {
  const app = new App()
    .get("/a", (ctx) => ctx.redirect("//evil.com"))
    .get("/b", (ctx) => ctx.redirect("/b//c?d=//e", 308));
  const handler = app.handler();
  const a = await handler(new Request("http://localhost/a"));
  assertEquals([a.status, a.headers.get("location")], [302, "/evil.com"]);
  const b = await handler(new Request("http://localhost/b"));
  assertEquals([b.status, b.headers.get("location")], [308, "/b/c?d=//e"]);
});

Deno.test("links to the page and above it are marked", async () => {
  const html = await (await site()("/nested/x")).text();
  assertStringIncludes(
    html,
    `<a href="/nested" aria-current="true" data-ancestor="true">`,
  );
  assertStringIncludes(html, `<a href="/">home</a>`);
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
  assertStringIncludes(html, `data-island="Counter:0"`);
  assertStringIncludes(html, `data-island="Holder:2"`);
  assertEquals(html.match(/data-island=/g)!.length, 3, "islands do not nest");
  const [, state] = /id="fresh-state">(.*?)<\/script>/.exec(html)!;
  assert(!state.includes("<"), "nothing ends the script early");
  const script = /<script type="module" src="([^"]+)"/.exec(html)![1];
  const client = await get(script);
  assertEquals(
    client.headers.get("cache-control"),
    "public, max-age=31536000, immutable",
  );
  await client.body?.cancel();
});

Deno.test("props that cannot be stored are an error", async () => {
  await silenced(async () => {
    assertEquals((await site()("/bad_island")).status, 500);
  });
});

Deno.test("what the stand-in lacks throws", async () => {
  assertThrows(() => new App({ basePath: "/x" }), Error, "Unsupported");
  assertThrows(() => new App().mountApp(), Error, "Unsupported");
  assertThrows(() => new App().fsRoutes("/x"), Error, "Unsupported");
  await assertRejects(() => new Builder().build(), Error, "Unsupported");
});

Deno.test("fresh/runtime on the server", () => {
  assertEquals(IS_BROWSER, false);
  assertEquals(asset("/a.css"), "/a.css");
  assertEquals(Partial({ name: "p", children: "x" }), "x");
  const error = new HttpError(404, "none");
  assertEquals([error.status, error.message], [404, "none"]);
});
