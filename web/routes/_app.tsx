import { define } from "../utils.ts";

const PAGES = [
  ["/experiments", "Experiments"],
  ["/runs", "Runs"],
  ["/models", "Models"],
  ["/playground", "Playground"],
] as const;

/** The frame of every page. */
export default define.page(function App({ Component }) {
  return (
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <meta
          name="description"
          content="Robust representations: inversions, interpolations and features of networks trained against small perturbations, beside the paper's numbers, and a playground that runs in the browser."
        />
        <title>robust-reps</title>
        <link rel="icon" type="image/svg+xml" href="/icon.svg" />
        <link rel="stylesheet" href="/styles.css" />
        <link rel="stylesheet" href="/vendor/uplot.css" />
      </head>
      <body>
        <a class="skip" href="#main">Skip to content</a>
        <header class="top">
          <div class="wrap top-row">
            <a class="brand" href="/">
              <img src="/icon.svg" alt="" width="24" height="24" />
              robust-reps
            </a>
            <nav aria-label="Main">
              <ul>
                {PAGES.map(([href, name]) => (
                  <li key={href}>
                    <a href={href}>{name}</a>
                  </li>
                ))}
              </ul>
            </nav>
          </div>
        </header>
        <main id="main" class="wrap" tabIndex={-1}>
          <Component />
        </main>
        <footer class="bottom">
          <div class="wrap">
            <p>
              After Engstrom, Ilyas, Santurkar, Tran, Tsipras and Madry,{" "}
              <cite>
                <a href="https://arxiv.org/abs/1906.00945">
                  Adversarial Robustness as a Prior for Learned Representations
                </a>
              </cite>{" "}
              (2019). Everything here is computed by this project; pictures you
              choose in the playground stay on your machine.
            </p>
          </div>
        </footer>
      </body>
    </html>
  );
});
