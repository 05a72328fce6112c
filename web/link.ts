/**
 * Addresses within the site.
 *
 * @module
 */

/**
 * An address that also holds where a static copy lies in a folder of its host:
 * there the page says where the site's root is.
 *
 * @param path From the site's root, beginning with "/"
 */
export function link(path: string): string {
  const root = typeof document === "undefined"
    ? undefined
    : document.documentElement.dataset.root;
  if (!root) return path;
  return new URL(root + path.slice(1), location.href).pathname;
}

/** Address of a run's page. */
export function runPage(key: string): string {
  return `/runs/${encodeURIComponent(key)}`;
}

/** Address of a run's file. */
export function runFile(key: string, path: string): string {
  const parts = path.split("/").map(encodeURIComponent);
  return `/api/runs/${encodeURIComponent(key)}/files/${parts.join("/")}`;
}

/** Address of a run's record. */
export function runRecord(key: string): string {
  return `/api/runs/${encodeURIComponent(key)}/run.json`;
}

/** Address of a network's file. */
export function modelFile(key: string, name: string): string {
  return `/api/models/${encodeURIComponent(key)}/${name}`;
}
