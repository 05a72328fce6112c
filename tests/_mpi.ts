/**
 * Launchers of MPI, for tests that start ranks: those that are here.
 *
 * @module
 */

/** A command that starts ranks. */
export interface MpiLauncher {
  readonly name: string;
  readonly command: string;
  /** Before `-n`. */
  readonly args: readonly string[];
}

const KNOWN: readonly MpiLauncher[] = [
  { name: "MPICH", command: "mpirun.mpich", args: [] },
  { name: "MPICH", command: "mpiexec.hydra", args: [] },
  {
    name: "Open MPI",
    command: "mpirun.openmpi",
    // Tests run as any user and on any number of cores.
    args: ["--allow-run-as-root", "--oversubscribe"],
  },
];

function isThere({ command }: MpiLauncher): boolean {
  const folders = (Deno.env.get("PATH") ?? "").split(":");
  return folders.some((folder) => {
    try {
      return Deno.statSync(`${folder}/${command}`).isFile;
    } catch {
      return false;
    }
  });
}

/** One launcher of each MPI that is installed, MPICH's first. */
export const LAUNCHERS: readonly MpiLauncher[] = KNOWN.filter(isThere).filter(
  ({ name }, i, all) => all.findIndex((other) => other.name === name) === i,
);

/** MPICH's launcher, if it is there. */
export const MPICH: MpiLauncher | undefined = LAUNCHERS.find(({ name }) =>
  name === "MPICH"
);

/**
 * A command on several ranks.
 *
 * @param programs Command line of each rank, or one for all
 */
export function onLauncher(
  { command, args }: MpiLauncher,
  size: number,
  ...programs: readonly (readonly string[])[]
): Deno.Command {
  const count = programs.length === 1 ? size : 1;
  const parts = programs.flatMap((program, i) => [
    ...(i > 0 ? [":"] : []),
    ...["-n", String(count), ...program],
  ]);
  return new Deno.Command(command, {
    args: [...args, ...parts],
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}
