/**
 * The site's app over a fixture, without a server.
 *
 * @module
 */
import type { App } from "fresh";
import { createBuilder } from "../../web/dev.ts";
import { Library, type LibraryOptions } from "../../web/library.ts";
import { createApp } from "../../web/main.ts";
import type { State } from "../../web/utils.ts";

let built: Promise<(app: App<State>) => void> | undefined;

/** Answers requests as the site does; built once per process. */
export async function openApp(folders: LibraryOptions) {
  built ??= createBuilder().build({ snapshot: "memory" });
  const app = createApp(new Library(folders));
  (await built)(app);
  return app.handler();
}

/** The same by path. */
export async function openSite(folders: LibraryOptions) {
  const handler = await openApp(folders);
  return (path: string, init?: RequestInit) =>
    handler(new Request(`http://localhost${path}`, init));
}
