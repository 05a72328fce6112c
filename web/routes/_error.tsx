import { HttpError } from "fresh";
import { Head } from "fresh/runtime";
import { secured } from "../security.ts";
import { define, statusOf } from "../utils.ts";

/** Renders every error, with the headers that middlewares cannot add here. */
export const handler = define.handlers(async (ctx) => {
  const { error, url: { pathname } } = ctx;
  const status = statusOf(error);
  const message = error instanceof HttpError ? error.message : "";
  const page = <ErrorPage status={status} path={pathname} message={message} />;
  return await secured(await ctx.render(page, { status }));
});

function ErrorPage(
  { status, path, message }: {
    readonly status: number;
    readonly path: string;
    readonly message: string;
  },
) {
  const title = status === 404 ? "Nothing here" : "Something went wrong";
  const shown = path.length > 80 ? `${path.slice(0, 80)}…` : path;
  return (
    <section class="error-page">
      <Head>
        <title>{title} · robust-reps</title>
      </Head>
      <p class="kicker">Error {status}</p>
      <h1>{title}</h1>
      {status === 404
        ? (
          <p>
            There is no page at{" "}
            <code>{shown}</code>. A run or result may have been moved or removed
            since the link was made.
          </p>
        )
        : <p>{message || "The server could not answer; its log says why."}</p>}
      <p>
        <a class="button" href="/">Back to the start</a>
      </p>
    </section>
  );
}
