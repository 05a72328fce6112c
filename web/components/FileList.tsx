import { runFile } from "../link.ts";

/** All files of a run, folded away. */
export function FileList(
  { run, files }: {
    /** Key of the run. */
    readonly run: string;
    readonly files: readonly {
      readonly path: string;
      readonly label?: string;
    }[];
  },
) {
  if (files.length === 0) return null;
  return (
    <details>
      <summary>
        {files.length === 1 ? "One file" : `${files.length} files`}
      </summary>
      <ul class="files">
        {files.map(({ path, label }) => (
          <li key={path}>
            <a href={runFile(run, path)}>{path}</a>{" "}
            {label && <span class="muted">{label}</span>}
          </li>
        ))}
      </ul>
    </details>
  );
}
