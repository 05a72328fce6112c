import type { PageProps } from "fresh";

export default function App({ Component, url }: PageProps) {
  return (
    <html>
      <head>
        <title>app</title>
        <meta name="path" content={url.pathname} />
      </head>
      <body>
        <nav>
          <a href="/nested">nested</a>
          <a href="/">home</a>
          <a href="#main">skip</a>
        </nav>
        <main>
          <Component />
        </main>
      </body>
    </html>
  );
}
