/**
 * MPI through FFI: the only file that knows libmpi.
 *
 * All calls are made by the thread that runs the event loop
 * (`MPI_THREAD_FUNNELED`, which every MPI offers): non-blocking collectives,
 * then `MPI_Test` between turns of the loop until they are done. Calls from
 * threads of their own would need `MPI_THREAD_MULTIPLE`, slower or missing in
 * some libraries, and would spin on a processor that the network needs.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { type Abi, type Handle, mpichAbi, openMpiAbi } from "./abi.ts";
import type { Communicator } from "./communicator.ts";
import { cpusOf, type Launch, launchOf, threadsPerRank } from "./launch.ts";
import type { OpenMpiOptions } from "./open.ts";

/** Names that libraries go by, of the launcher's own family first. */
const MPICH_LIBRARIES = [
  "libmpich.so.12",
  // Intel MPI, MVAPICH; Cray.
  "libmpi.so.12",
  "libmpi_cray.so.12",
  "libmpi.12.dylib",
  "libmpich.so",
];
const OPEN_MPI_LIBRARIES = ["libmpi.so.40", "libmpi.40.dylib"];

const THREAD_FUNNELED = 1;

/** Types of the calls; "handle" is as the library has it. */
const CALLS = {
  MPI_Init_thread: ["pointer", "pointer", "i32", "buffer"],
  MPI_Initialized: ["buffer"],
  MPI_Finalize: [],
  MPI_Abort: ["handle", "i32"],
  MPI_Comm_rank: ["handle", "buffer"],
  MPI_Comm_size: ["handle", "buffer"],
  MPI_Comm_split_type: ["handle", "i32", "i32", "handle", "buffer"],
  MPI_Comm_set_errhandler: ["handle", "handle"],
  MPI_Error_string: ["i32", "buffer", "buffer"],
  // The first two are buffers, or MPI_IN_PLACE in place of the first.
  MPI_Iallreduce: [
    ...["pointer", "buffer", "i32", "handle", "handle", "handle", "buffer"],
  ],
  MPI_Ibcast: ["buffer", "i32", "handle", "i32", "handle", "buffer"],
  MPI_Iallgather: [
    ...["buffer", "i32", "handle", "buffer", "i32", "handle", "handle"],
    "buffer",
  ],
  MPI_Igatherv: [
    ...["buffer", "i32", "handle", "buffer", "buffer", "buffer", "handle"],
    ...["i32", "handle", "buffer"],
  ],
  MPI_Ibarrier: ["handle", "buffer"],
  MPI_Test: ["buffer", "buffer", "pointer"],
} as const;

type Call = keyof typeof CALLS;
type Symbols = Readonly<Record<Call, (...values: unknown[]) => number>>;

/** Bytes in one message at most: MPI counts in 32-bit integers. */
const PIECE = 2 ** 30;

/** Milliseconds of waiting after which a rank leaves the processor to others. */
const PATIENCE_MS = 20;
/** Calls of MPI_Test in a row then. */
const TESTS_PER_SLEEP = 8;

interface Pending {
  readonly request: BigUint64Array;
  /** Memory that MPI reads and writes: must not be collected. */
  readonly memory: readonly unknown[];
  resolve(): void;
  reject(error: Error): void;
}

/** A call of MPI failed; as a rule because another rank has ended. */
export class MpiError extends Error {
  override name = "MpiError";
}

let opened: Promise<Mpi> | undefined;

/** The ranks that mpirun or srun started. */
export class Mpi implements Communicator {
  readonly rank: number;
  readonly size: number;
  /** Index of this rank among those of its machine. */
  readonly localRank: number;
  /** Ranks on this machine. */
  readonly localSize: number;
  /** The library and which interface it has. */
  readonly library: string;
  readonly #abi: Abi;
  readonly #symbols: Symbols;
  /** Communicator of this machine's ranks. */
  readonly #local: Handle;
  readonly #flag = new Int32Array(1);
  #pending: Pending[] = [];
  /** When what is under way began. */
  #since: number | null = null;
  #longest = 0;

  /** @ignore Use openMpi(). */
  constructor(library: string, abi: Abi, symbols: Symbols) {
    this.#abi = abi;
    this.#symbols = symbols;
    this.library = `${library} (${abi.name})`;
    const { world, errorsReturn, infoNull } = abi.handles;
    const started = new Int32Array(1);
    symbols.MPI_Initialized(started);
    if (!started[0]) {
      const error = symbols.MPI_Init_thread(
        null,
        null,
        THREAD_FUNNELED,
        new Int32Array(1),
      );
      if (error !== 0) {
        throw new MpiError(`Cannot start MPI: ${library} gave error ${error}`);
      }
    }
    this.#check("set an error handler", "MPI_Comm_set_errhandler", [
      world,
      errorsReturn,
    ]);
    this.rank = this.#ask("MPI_Comm_rank", world);
    this.size = this.#ask("MPI_Comm_size", world);
    const memory = new BigUint64Array(1);
    this.#check("find the ranks of this machine", "MPI_Comm_split_type", [
      ...[world, abi.typeShared, this.rank, infoNull, memory],
    ]);
    this.#local = abi.handle === "i32"
      ? new Int32Array(memory.buffer)[0]
      : Deno.UnsafePointer.create(memory[0]);
    this.localRank = this.#ask("MPI_Comm_rank", this.#local);
    this.localSize = this.#ask("MPI_Comm_size", this.#local);
  }

  /** @ignore Use openMpi(). */
  static open(options: OpenMpiOptions): Promise<Mpi> {
    return opened ??= new Promise((resolve) => resolve(connect(options)));
  }

  sum(values: Float32Array): Promise<void> {
    const { inPlace, handles: { float, sum, world } } = this.#abi;
    return this.#start("MPI_Iallreduce", [
      ...[inPlace, values, values.length, float, sum, world],
    ]);
  }

  async gather(bytes: Uint8Array): Promise<Uint8Array[] | null> {
    const { byte, world } = this.#abi.handles;
    const { rank, size } = this;
    const lengths = new Float64Array(size);
    const mine = Float64Array.of(bytes.length);
    await this.#start("MPI_Iallgather", [
      ...[mine, 8, byte, lengths, 8, byte, world],
    ]);
    const results = rank === 0
      ? Array.from(lengths, (length) => new Uint8Array(length))
      : null;
    const piece = Math.floor(PIECE / size);
    const longest = Math.max(...lengths);
    for (let start = 0; start < longest; start += piece) {
      const counts = Int32Array.from(
        lengths,
        (length) => Math.min(piece, Math.max(0, length - start)),
      );
      const places = new Int32Array(size);
      for (let i = 1; i < size; i++) places[i] = places[i - 1] + counts[i - 1];
      const all = new Uint8Array(
        results ? places[size - 1] + counts[size - 1] : 0,
      );
      const some = bytes.slice(start, start + counts[rank]);
      await this.#start("MPI_Igatherv", [
        ...[some, some.length, byte, all, counts, places, byte, 0, world],
      ]);
      results?.forEach((result, i) =>
        result.set(all.subarray(places[i], places[i] + counts[i]), start)
      );
    }
    return results;
  }

  async broadcast(bytes: Uint8Array | null): Promise<Uint8Array> {
    const { byte, world } = this.#abi.handles;
    const length = Float64Array.of(this.rank === 0 ? bytes!.length : 0);
    await this.#start("MPI_Ibcast", [length, 8, byte, 0, world]);
    const result = this.rank === 0 ? bytes!.slice() : new Uint8Array(length[0]);
    for (let start = 0; start < result.length; start += PIECE) {
      const part = result.subarray(start, start + PIECE);
      await this.#start("MPI_Ibcast", [part, part.length, byte, 0, world]);
    }
    return result;
  }

  async barrier(): Promise<void> {
    await this.#start("MPI_Ibarrier", [this.#abi.handles.world]);
  }

  progress(): void {
    const { statusIgnore } = this.#abi;
    for (const pending of this.#pending) {
      // Requests that are done are null ones, which are always done.
      this.#flag[0] = 0;
      const error = this.#symbols.MPI_Test(
        pending.request,
        this.#flag,
        statusIgnore,
      );
      if (error === 0 && !this.#flag[0]) continue;
      this.#pending = this.#pending.filter((other) => other !== pending);
      if (error === 0) pending.resolve();
      else pending.reject(this.#failure("finish a transfer", error));
    }
  }

  /**
   * Threads of this rank where the user does not say: see `threadsPerRank()`.
   * Collective.
   */
  async threads(): Promise<number> {
    const { byte } = this.#abi.handles;
    // One byte per processor: whether this rank may run there.
    const mine = new Uint8Array(MOST_PROCESSORS);
    for (const cpu of allowedCpus()) mine[cpu] = 1;
    const all = new Uint8Array(this.localSize * mine.length);
    await this.#start("MPI_Iallgather", [
      ...[mine, mine.length, byte, all, mine.length, byte, this.#local],
    ]);
    const processors = Array.from({ length: this.localSize }, (_, i) => {
      const row = all.subarray(i * mine.length, (i + 1) * mine.length);
      return [...row.keys()].filter((cpu) => row[cpu]);
    });
    const { hardwareConcurrency } = navigator;
    return threadsPerRank(this.localRank, processors, hardwareConcurrency);
  }

  /**
   * Milliseconds that this rank has been in touch with the others without a
   * pause, waiting for them or computing meanwhile, and the longest such time
   * before.
   */
  get waited(): { readonly now: number; readonly longest: number } {
    const now = this.#since === null ? 0 : performance.now() - this.#since;
    return { now, longest: this.#longest };
  }

  /** Ends MPI; collective, and the last call. */
  finalize(): void {
    this.#check("end MPI", "MPI_Finalize", []);
  }

  /** Ends all ranks at once, from one of them; the launcher may return `code`. */
  abort(code: number): void {
    endWithin(ABORT_SECONDS);
    this.#symbols.MPI_Abort(this.#abi.handles.world, code);
  }

  /** Starts a non-blocking call; the promise is kept when it is done. */
  #start(name: Call, values: readonly unknown[]): Promise<void> {
    const request = new BigUint64Array(1);
    const error = this.#symbols[name](...values, request);
    if (error !== 0) {
      return Promise.reject(this.#failure(`call ${name}`, error));
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#pending.push({ request, memory: values, resolve, reject });
    if (this.#since === null) {
      this.#since = performance.now();
      this.#poll(this.#since);
    }
    return promise;
  }

  /** Tests between turns of the event loop until nothing is under way. */
  #poll(since: number): void {
    const waits = performance.now() - since > PATIENCE_MS;
    for (let i = 0; i < (waits ? TESTS_PER_SLEEP : 1); i++) this.progress();
    if (this.#pending.length === 0) {
      this.#longest = Math.max(this.#longest, performance.now() - since);
      this.#since = null;
      return;
    }
    // A rank that waits for a slower one must not take its processor.
    if (waits) setTimeout(() => this.#poll(since), 1);
    else setImmediate(() => this.#poll(since));
  }

  #ask(name: Call, handle: Handle): number {
    const found = new Int32Array(1);
    this.#check(`call ${name}`, name, [handle, found]);
    return found[0];
  }

  #check(verb: string, name: Call, values: readonly unknown[]): void {
    const error = this.#symbols[name](...values);
    if (error !== 0) throw this.#failure(verb, error);
  }

  #failure(verb: string, code: number): MpiError {
    const text = new Uint8Array(8192);
    const length = new Int32Array(1);
    this.#symbols.MPI_Error_string(code, text, length);
    const found = new TextDecoder().decode(text.subarray(0, length[0]));
    const [line] = found.split("\n");
    return new MpiError(`Cannot ${verb}: MPI says "${line.trim()}"`);
  }
}

/** Seconds that the library has to end this process when told to. */
const ABORT_SECONDS = 8;

/**
 * Has the system end this process later, whatever it does then: while Slurm
 * ends a step, MPICH waits in MPI_Abort for an answer that does not come.
 */
function endWithin(seconds: number): void {
  if (Deno.build.os === "windows") return;
  const libc = Deno.build.os === "darwin" ? "libSystem.dylib" : "libc.so.6";
  try {
    const { symbols } = Deno.dlopen(libc, {
      alarm: { parameters: ["u32"], result: "u32" },
    });
    symbols.alarm(seconds);
  } catch {
    // Then the launcher must see to it.
  }
}

/** As many as Linux counts on a machine. */
const MOST_PROCESSORS = 8192;

/** Processors that this process may run on. */
function allowedCpus(): number[] {
  try {
    // Launchers bind ranks to cores by this; /proc needs all permissions.
    const { symbols } = Deno.dlopen("libc.so.6", {
      sched_getaffinity: {
        parameters: ["i32", "usize", "buffer"],
        result: "i32",
      },
    });
    const bits = new Uint8Array(MOST_PROCESSORS / 8);
    const length = BigInt(bits.length);
    if (symbols.sched_getaffinity(0, length, bits) >= 0) return cpusOf(bits);
  } catch {
    // Another system than Linux.
  }
  return Array.from({ length: navigator.hardwareConcurrency }, (_, i) => i);
}

function connect({ library }: OpenMpiOptions): Mpi {
  const launch = launchOf((name) => Deno.env.get(name));
  if (!launch) {
    throw new Error(
      "Cannot use MPI as no launcher started this process: begin the command " +
        "with mpirun -n <ranks>, or srun within a Slurm job",
    );
  }
  const [name, found] = load(launch, library ?? Deno.env.get(LIBRARY_VARIABLE));
  const { abi, symbols } = found;
  const mpi = new Mpi(name, abi, symbols);
  if (launch.size !== undefined && launch.size !== mpi.size) {
    throw new Error(
      `Cannot use MPI as ${launch.launcher} started ${launch.size} processes ` +
        `and ${name} finds ${mpi.size}: use the launcher of ${abi.name}, or ` +
        `name the launcher's library in ${LIBRARY_VARIABLE}`,
    );
  }
  return mpi;
}

/** Environment variable that names the library. */
const LIBRARY_VARIABLE = "ROBUST_REPS_MPI";

/** Loads the library asked for, else the first of the launcher's family. */
function load(
  { launcher }: Launch,
  library: string | undefined,
): [string, { abi: Abi; symbols: Symbols }] {
  const known = launcher.startsWith("Open MPI")
    ? [...OPEN_MPI_LIBRARIES, ...MPICH_LIBRARIES]
    : [...MPICH_LIBRARIES, ...OPEN_MPI_LIBRARIES];
  const names = library ? [library] : known;
  for (const name of names) {
    try {
      return [name, bind(name)];
    } catch (error) {
      if (error instanceof Deno.errors.NotCapable) throw error;
    }
  }
  throw new Error(
    library
      ? `Cannot load the MPI library "${library}" that ${LIBRARY_VARIABLE} ` +
        `names: give the path of a libmpi or libmpich`
      : `Cannot find an MPI library (${names.join(", ")}): install one, such ` +
        `as Debian's mpich, or give its path in ${LIBRARY_VARIABLE}`,
  );
}

function bind(library: string): { abi: Abi; symbols: Symbols } {
  const abi = openMpiAbi(library) ?? mpichAbi();
  const types = Object.entries(CALLS).map(([name, parameters]) => [
    name,
    {
      parameters: parameters.map((type) =>
        type === "handle" ? abi.handle : type
      ),
      result: "i32",
    },
  ]);
  const { symbols } = Deno.dlopen(library, Object.fromEntries(types));
  return { abi, symbols: symbols as unknown as Symbols };
}
