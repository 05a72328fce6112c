/**
 * The site in Chromium: every page, its sliders, and the playground on
 * WebAssembly and on WebGPU.
 *
 * Needs Debian's chromium, whose software adapter stands in for a GPU.
 *
 * @module
 */
import axe from "axe-core";
import { Buffer } from "node:buffer";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertStringIncludes,
} from "@std/assert";
import { type Browser, chromium, type Page } from "playwright-core";
import { Random, stack, tensor } from "../../mod.ts";
import { readImage } from "../../datasets/mod.ts";
import { specOf } from "../../robust/load.ts";
import {
  matchRepresentation,
  Network,
  optimizeInput,
} from "../../robust/mod.ts";
import { writeSite } from "../../web/build_site.ts";
import { makeVendor } from "../../web/vendor.ts";
import { openApp } from "./_app.ts";
import {
  ENTRIES,
  history,
  makeSite,
  STEPS,
  TINY,
  tinyParameters,
  writeRunFolder,
} from "./_site.ts";

const CHROMIUM = "/usr/bin/chromium";

const ARGUMENTS = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  "--disable-quic",
];

/** Two loaded cores take their time. */
const PATIENCE = 300_000;

const ignore = !hasChromium();

function hasChromium(): boolean {
  try {
    if (Deno.statSync(CHROMIUM).isFile) return true;
  } catch {
    // Not there.
  }
  console.log(`Browser tests are ignored: there is no ${CHROMIUM}`);
  return false;
}

const PAGES = [
  "/",
  "/experiments",
  ...ENTRIES.map(({ id }) => `/experiments/${id}`),
  "/runs",
  "/runs/train-robust",
  "/runs/invert-1",
  "/models",
  "/playground",
  "/nowhere",
];

interface Opened {
  readonly page: Page;
  /** What its console said. */
  readonly problems: string[];
  readonly go: (path: string) => Promise<void>;
}

async function openPage(
  browser: Browser,
  base: string,
  options: Parameters<Browser["newPage"]>[0] = {},
): Promise<Opened> {
  const problems: string[] = [];
  const page = await browser.newPage(options);
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => {
    // The page of errors is asked for on purpose.
    if (/status of 404/.test(message.text())) return;
    problems.push(message.text());
  });
  const go = async (path: string) => {
    await page.goto(base + path);
    if (options.javaScriptEnabled === false) return;
    await page.waitForFunction(() =>
      document.querySelectorAll("[data-island]:not([data-ready])").length === 0
    );
  };
  return { page, problems, go };
}

/** What axe-core finds wrong, in short. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  return await page.evaluate(`axe.run(document, {
    resultTypes: ["violations"],
    rules: { "landmark-one-main": { enabled: true } },
  }).then(({ violations }) => violations.map(({ id, nodes }) =>
    id + ": " + nodes.map(({ html }) => html.slice(0, 160)).join(" | ")))`);
}

/** Distances of an inversion from noise, as Deno computes them. */
async function serverDistances(steps: number): Promise<number[]> {
  const network = new Network(specOf(TINY), tinyParameters(0));
  const path = fileURLToPath(
    new URL("../../web/static/samples/disc.png", import.meta.url),
  );
  const target = stack([await readImage(path)]);
  const { representation } = await network.predict(target);
  const { data } = new Random(0).stream("seed").normal(target.shape);
  const noise = tensor(
    data.map((x) => Math.min(1, Math.max(0, 0.5 + x / 20))),
    target.shape,
  );
  const found: number[] = [];
  await optimizeInput(network, noise, {
    objective: matchRepresentation(representation),
    epsilon: 1000,
    stepSize: 0.1,
    steps,
    onStep: ({ losses }) => {
      found.push(losses.data[0]);
    },
  });
  await network.release();
  return found;
}

/** Chooses a tiny network alone, and the built-in picture of a disc. */
async function choose(page: Page, provider: string): Promise<void> {
  await page.locator("select[name=model]").selectOption("tiny-robust");
  await page.locator("select[name=beside]").selectOption("");
  await page.locator(".thumbs img[alt=disc]").last().click();
  await page.locator("select[name=provider]").selectOption(provider);
}

/** Presses "Step" so often, and reads the distance after each. */
async function step(page: Page, count: number): Promise<number[]> {
  const found: number[] = [];
  for (let i = 0; i < count; i++) {
    const before = Number(
      await page.locator(".playground").getAttribute("data-step"),
    );
    await page.getByRole("button", { name: "Step", exact: true }).click();
    await page.waitForSelector(
      `.playground[data-step="${before + 1}"][data-phase=paused]`,
    );
    const loss = page.locator("[data-loss]");
    found.push(Number(await loss.getAttribute("data-loss")));
  }
  return found;
}

/**
 * Presses "Pause". A run may end by itself at any time, so that the button is
 * looked for and pressed in one turn of the page.
 */
async function pause(page: Page): Promise<void> {
  await page.evaluate(() => {
    for (const button of document.querySelectorAll("button")) {
      if (button.textContent === "Pause") button.click();
    }
  });
  await page.waitForSelector("[data-phase=paused]");
}

/** What any file host does. */
async function serveFile(root: string, { url }: Request): Promise<Response> {
  let path = join(root, decodeURIComponent(new URL(url).pathname));
  const info = await Deno.stat(path).catch(() => null);
  if (info?.isDirectory) path = join(path, "index.html");
  try {
    const { readable } = await Deno.open(path);
    const type = HOST_TYPES[path.slice(path.lastIndexOf(".") + 1)];
    return new Response(readable, {
      headers: { "content-type": type ?? "application/octet-stream" },
    });
  } catch {
    return new Response(null, { status: 404 });
  }
}

const HOST_TYPES: Readonly<Record<string, string>> = {
  css: "text/css",
  html: "text/html",
  js: "text/javascript",
  json: "application/json",
  mjs: "text/javascript",
  png: "image/png",
  svg: "image/svg+xml",
  wasm: "application/wasm",
};

Deno.test({
  name: "the site works in a browser",
  ignore,
  async fn(t) {
    const root = await Deno.makeTempDir();
    const folders = await makeSite(root);
    await makeVendor();
    const handler = await openApp(folders);
    // A graphics card that computes wrongly.
    let isWrong = false;
    const server = Deno.serve(
      {
        hostname: "127.0.0.1",
        port: 0,
        automaticCompression: true,
        onListen: () => {},
      },
      async (request) => {
        const response = await handler(request);
        if (!isWrong || !/engine-webgpu/.test(request.url)) return response;
        const reason = "its numbers are wrong: the self-test is off by 2.0e-1";
        const reply = JSON.stringify({ type: "refused", reason });
        const headers = new Headers(response.headers);
        headers.delete("content-length");
        await response.body?.cancel();
        return new Response(`onmessage = () => postMessage(${reply})`, {
          headers,
        });
      },
    );
    const base = `http://127.0.0.1:${server.addr.port}`;
    const browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ARGUMENTS,
    });
    try {
      await t.step(
        "every page is accessible, narrow and wide, light and dark",
        async () => {
          const { page, problems, go } = await openPage(browser, base, {
            viewport: { width: 1280, height: 800 },
          });
          for (const path of PAGES) {
            await page.emulateMedia({ colorScheme: "light" });
            await page.setViewportSize({ width: 1280, height: 800 });
            await go(path);
            assertEquals(await violations(page), [], `${path}, light`);
            await page.emulateMedia({ colorScheme: "dark" });
            await page.setViewportSize({ width: 360, height: 740 });
            assertEquals(await violations(page), [], `${path}, dark, narrow`);
            const width = await page.evaluate(
              "document.documentElement.scrollWidth",
            );
            assertEquals(width, 360, `${path} is wider than a phone`);
          }
          assertEquals(problems, []);
          await page.close();
        },
      );

      await t.step(
        "scripts of a page without playground are under 60 kB compressed",
        async () => {
          const { page, go } = await openPage(browser, base);
          const sizes: Record<string, number> = {};
          const cdp = await page.context().newCDPSession(page);
          await cdp.send("Network.enable");
          const scripts = new Map<string, string>();
          cdp.on("Network.responseReceived", ({ requestId, response }) => {
            if (/javascript/.test(response.mimeType)) {
              scripts.set(requestId, response.url);
            }
          });
          let path = "";
          cdp.on(
            "Network.loadingFinished",
            ({ requestId, encodedDataLength }) => {
              if (!scripts.has(requestId)) return;
              sizes[path] = (sizes[path] ?? 0) + encodedDataLength;
            },
          );
          for (
            path of [
              "/",
              "/experiments/fig-4",
              "/runs",
              "/models",
              "/playground",
            ]
          ) {
            await cdp.send("Network.clearBrowserCache");
            await go(path);
            if (path !== "/models" && path !== "/" && path !== "/playground") {
              await page.waitForSelector(".u-wrap");
            }
            assertLess(sizes[path] ?? 0, 60_000, path);
          }
          const shown = Object.entries(sizes).map(([path, size]) =>
            `${path} ${(size / 1000).toFixed(1)} kB`
          );
          console.log(`Scripts: ${shown.join(", ")}`);
          assertEquals(sizes["/models"], undefined, "no island, no script");
          await page.close();
        },
      );

      await t.step(
        "sliders move pictures, by mouse, by key and by the curve",
        async () => {
          const { page, problems, go } = await openPage(browser, base);
          const sources = () =>
            page.locator(".grid .robust .tile img").evaluateAll((images) =>
              images.map((image) => image.getAttribute("src"))
            );
          for (const path of ["/", "/experiments/fig-3"]) {
            await go(path);
            const slider = page.getByRole("slider");
            assertEquals(
              await slider.inputValue(),
              `${STEPS.length - 1}`,
              path,
            );
            const before = await sources();
            await slider.focus();
            await page.keyboard.press("ArrowLeft");
            const after = await sources();
            assertEquals(after.length, before.length);
            assert(after.every((src, i) => src !== before[i]), path);
            assertEquals(
              await slider.getAttribute("aria-valuetext"),
              "Steps 10",
              path,
            );
          }

          await go("/experiments/fig-4");
          const slider = page.getByRole("slider");
          await slider.fill("1");
          await page.getByText("The numbers").click();
          const now = page.locator("tr.now th");
          assertEquals(await now.innerText(), "0.5");
          await page.waitForSelector(".u-over");
          const box = (await page.locator(".u-over").boundingBox())!;
          await page.locator(".u-over").click({
            position: { x: box.width / 2, y: 20 },
          });
          await page.waitForFunction(
            () => document.querySelector("tr.now th")?.textContent === "1",
          );
          assertEquals(await slider.inputValue(), "2");

          await go("/experiments/fig-12");
          assertEquals(await page.locator(".strip img").count(), 15);
          await page.locator(".strip img").first().click();
          assertEquals(await page.getByRole("slider").inputValue(), "0");

          await go("/experiments/fig-7");
          await page.getByRole("slider").fill("1");
          assertEquals(
            await page.getByRole("slider").getAttribute("aria-valuetext"),
            "Coordinate 14",
          );
          assertEquals(problems, []);
          await page.close();
        },
      );

      await t.step(
        "a picture opens with its recipe, and all zoom as one",
        async () => {
          const { page, problems, go } = await openPage(browser, base);
          await go("/experiments/fig-3");
          await page.locator(".tile").first().focus();
          await page.keyboard.press("Enter");
          const dialog = page.getByRole("dialog");
          await dialog.waitFor();
          const text = await dialog.innerText();
          assertStringIncludes(text, "deno run -P scripts/invert.ts");
          assertStringIncludes(text, "tiles/0.png");
          assertEquals(await violations(page), []);
          await page.keyboard.press("Escape");
          await dialog.waitFor({ state: "hidden" });
          await page.getByRole("button", { name: "Zoom all" }).click();
          await page.locator(".tile").nth(2).hover({
            position: { x: 5, y: 5 },
          });
          const origins = await page.locator(".tile img").evaluateAll((
            images,
          ) => images.map((image) => getComputedStyle(image).transformOrigin));
          assertEquals(new Set(origins).size, 1);
          assertEquals(problems, []);
          await page.close();
        },
      );

      await t.step(
        "runs are filtered, compared, and followed live",
        async () => {
          const { page, problems, go } = await openPage(browser, base);
          await go("/runs");
          const rows = page.locator("tr[data-run]:visible");
          const all = await rows.count();
          await page.getByLabel("Filter").fill("robust shapes");
          await page.waitForFunction(
            (all) =>
              document.querySelectorAll("tr[data-run]:not([hidden])").length <
                all,
            all,
          );
          await page.getByLabel("Filter").fill("");
          await page.getByLabel("Compare train-robust").check();
          await page.getByLabel("Compare train-live").check();
          await page.getByRole("button", { name: /Compare/ }).click();
          await page.getByRole("heading", { name: "Compared" }).waitFor();
          await page.waitForSelector(".u-wrap");
          const table = page.locator(".curves table");
          assertStringIncludes(await table.innerText(), "2 of 5");
          // Another epoch ends.
          await writeRunFolder(join(folders.runs, "live"), {
            id: "train-live",
            command: "train",
            flags: { dataset: "shapes", epochs: 5, epsilon: 0 },
            history: history(3),
          });
          await page.waitForFunction(() =>
            document.querySelector(".curves table")?.textContent
              ?.includes("3 of 5")
          );
          assertEquals(problems, []);
          await page.close();
        },
      );

      await t.step("pages are useful without JavaScript", async () => {
        const { page, go } = await openPage(browser, base, {
          javaScriptEnabled: false,
        });
        await go("/experiments/fig-12");
        assertEquals(await page.locator(".strip img").count(), 15);
        await go("/experiments/fig-4");
        await page.getByText("The numbers").click();
        await page.locator(".curve table").waitFor();
        await go("/runs?q=train&command=train");
        assertEquals(await page.locator("tr[data-run]:visible").count(), 2);
        await go("/playground");
        assertStringIncludes(await page.content(), "needs JavaScript");
        await page.close();
      });

      await t.step(
        "the playground inverts on WebAssembly as the server does",
        async () => {
          const { page, problems, go } = await openPage(browser, base);
          await go("/playground");
          await choose(page, "wasm");
          const expected = await serverDistances(5);
          const found = await step(page, 5);
          for (const [i, distance] of found.entries()) {
            assertLess(Math.abs(distance - expected[i + 1]), 1e-3);
          }
          assertLess(found[4], expected[0]);
          await page.getByRole("button", { name: "Go on" }).click();
          // Much later, steps of one size lead a random network astray.
          await page.waitForFunction(
            (limit) =>
              Number(
                document.querySelector<HTMLElement>("[data-loss]")!.dataset
                  .loss,
              ) < limit,
            found[4] / 2,
          );
          await page.waitForFunction(() =>
            Number(
              document.querySelector<HTMLElement>(".playground")!.dataset.step,
            ) > 60
          );
          await pause(page);
          const status = await page.locator(".status").innerText();
          assertStringIncludes(status, "self-test passed");
          assertStringIncludes(status, "WebAssembly");
          console.log(`WebAssembly: ${/[\d.]+ images\/s/.exec(status)?.[0]}`);
          await page.waitForSelector(".stage .u-wrap");
          assertEquals(await violations(page), []);
          const download = page.waitForEvent("download");
          await page.getByRole("button", { name: "Save PNG" }).click();
          const saved = await (await download).path();
          const { shape } = await readImage(saved);
          assertEquals(shape, [3, 32, 32]);
          // What is under way when it is reset must not come back.
          await page.getByRole("button", { name: "Go on" }).click();
          await page.waitForSelector(".playground[data-phase=running]");
          await page.getByRole("button", { name: "Reset" }).click();
          await page.waitForSelector(".playground[data-phase=paused]");
          const reset = page.locator(".playground");
          assertEquals(await reset.getAttribute("data-step"), "0");
          assertEquals(problems, []);
          await page.close();
        },
      );

      await t.step(
        "other tasks run, side by side, on a picture of one's own",
        async () => {
          const { page, problems, go } = await openPage(browser, base);
          await go("/playground?model=tiny-robust");
          await page.locator("select[name=provider]").selectOption("wasm");
          const own = page.locator("input[type=file]").first();
          await own.setInputFiles({
            name: "no picture.png",
            mimeType: "image/png",
            buffer: Buffer.from("text"),
          });
          await page.getByText(/Cannot read "no picture.png"/).waitFor();
          const sample = await Deno.readFile(
            new URL("../../web/static/samples/star.png", import.meta.url),
          );
          await own.setInputFiles({
            name: "my star.png",
            mimeType: "image/png",
            buffer: Buffer.from(sample),
          });
          await page.getByText("my star.png").waitFor();
          for (const mode of ["interpolate", "visualize", "add"]) {
            await page.locator(`input[value=${mode}]`).check({ force: true });
            await page.getByRole("button", { name: "Start" }).click();
            await page.waitForFunction(() => {
              const { dataset } = document.querySelector<HTMLElement>(
                ".playground",
              )!;
              const steps = Number(dataset.step);
              return steps >= 2 || (steps > 0 && dataset.phase === "paused");
            });
            await pause(page);
            assertEquals(await page.locator("[data-loss]").count(), 2, mode);
          }
          assertEquals(problems, []);
          await page.close();
        },
      );

      await t.step(
        "without a graphics card it falls back, and says so",
        async () => {
          const { page, go } = await openPage(browser, base);
          await go("/playground");
          // The self-test does not wait for a start.
          await page.getByText("self-test passed").waitFor();
          await choose(page, "auto");
          await step(page, 1);
          await page.getByText(
            /not WebGPU: this browser offers no/,
          )
            .waitFor();
          await page.close();
        },
      );

      await t.step("a static copy works in a folder of a host", async () => {
        const out = join(root, "static/some folder");
        await writeSite(handler, out);
        await using host = Deno.serve(
          { hostname: "127.0.0.1", port: 0, onListen: () => {} },
          (request) => serveFile(join(root, "static"), request),
        );
        const address = `http://127.0.0.1:${host.addr.port}/some%20folder`;
        const { page, problems, go } = await openPage(browser, address);
        await go("/");
        await page.getByRole("link", { name: "Experiments" }).click();
        await page.getByRole("link", { name: "Inverting representations" })
          .click();
        await page.waitForSelector("[data-island][data-ready]");
        await page.getByRole("slider").fill("0");
        await page.waitForFunction(() =>
          Array.from(document.querySelectorAll<HTMLImageElement>(".tile img"))
            .every(({ complete, naturalWidth }) => complete && naturalWidth > 0)
        );
        await go("/runs/?compare=train-robust&compare=train-live");
        await page.getByText("of 5").waitFor();
        await go("/playground/");
        await choose(page, "wasm");
        const expected = await serverDistances(1);
        const [found] = await step(page, 1);
        assertLess(Math.abs(found - expected[1]), 1e-3);
        const status = await page.locator(".status").innerText();
        assertStringIncludes(status, "1 thread");
        assertEquals(problems, []);
        await page.close();
      });

      await t.step(
        "wrong numbers on WebGPU are found out, and not used",
        async () => {
          isWrong = true;
          const { page, go } = await openPage(browser, base);
          await go("/playground");
          await choose(page, "webgpu");
          const [found] = await step(page, 1);
          const [, expected] = await serverDistances(1);
          assertLess(Math.abs(found - expected), 1e-3);
          await page.getByText(/not WebGPU: its numbers are wrong/).waitFor();
          await page.close();
          isWrong = false;
        },
      );

      await t.step(
        "the playground inverts on WebGPU as the server does",
        async () => {
          const { page, problems, go } = await openPage(browser, base);
          await go("/playground");
          await choose(page, "webgpu");
          const expected = await serverDistances(3);
          const found = await step(page, 3);
          const status = await page.locator(".status").innerText();
          assertStringIncludes(status, "WebGPU");
          assert(!status.includes("WebAssembly"), status);
          for (const [i, distance] of found.entries()) {
            assertLess(Math.abs(distance - expected[i + 1]), 1e-3);
            if (i > 0) assertGreater(found[i - 1], distance);
          }
          console.log(`WebGPU: ${/[\d.]+ images\/s/.exec(status)?.[0]}`);
          assertEquals(problems, []);
          await page.close();
        },
      );
    } finally {
      await browser.close();
      await server.shutdown();
      await Deno.remove(root, { recursive: true });
    }
  },
});
