/**
 * Headers of every answer.
 *
 * @module
 */

/** Directives of the content security policy; scripts may get a nonce. */
export const POLICY: Readonly<Record<string, string>> = {
  "default-src": "'none'",
  "script-src": "'self' 'wasm-unsafe-eval'",
  "style-src": "'self'",
  // Elements around islands are out of the layout by an attribute.
  "style-src-attr": "'unsafe-inline'",
  "img-src": "'self' blob: data:",
  "connect-src": "'self'",
  "worker-src": "'self'",
  "manifest-src": "'self'",
  "base-uri": "'none'",
  "form-action": "'self'",
  "frame-ancestors": "'none'",
};

const HEADERS: Readonly<Record<string, string>> = {
  // Both are needed for threads of WebAssembly.
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** The policy as one text. */
export function policy(nonce?: string): string {
  return Object.entries(POLICY).map(([name, value]) =>
    `${name} ${value}${
      nonce && name === "script-src" ? ` 'nonce-${nonce}'` : ""
    }`
  ).join("; ");
}

/**
 * Adds the headers. Error routes call it themselves, as what a middleware adds
 * after `next()` is missing where something below throws.
 */
export async function secured(response: Response): Promise<Response> {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) {
    headers.set(name, value);
  }
  // Some files have a stricter one of their own.
  if (headers.has("content-security-policy")) {
    return new Response(response.body, { ...statusOf(response), headers });
  }
  const isPage = headers.get("content-type")?.startsWith("text/html") ?? false;
  if (!isPage || !response.body) {
    headers.set("content-security-policy", policy());
    return new Response(response.body, { ...statusOf(response), headers });
  }
  // Fresh itself starts islands from an inline script with a nonce.
  const html = await response.text();
  const [, nonce] = /<script[^>]* nonce="([\w+/=-]+)"/.exec(html) ?? [];
  headers.set("content-security-policy", policy(nonce));
  return new Response(html, { ...statusOf(response), headers });
}

function statusOf({ status, statusText }: Response): ResponseInit {
  return { status, statusText };
}
