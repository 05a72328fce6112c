/**
 * The two binary interfaces of MPI libraries: how handles and constants look.
 *
 * @module
 */

/** Handles that are used here. */
type HandleName =
  | "world"
  | "byte"
  | "float"
  | "sum"
  | "errorsReturn"
  | "infoNull";

/** A handle as it is passed: an integer, or a pointer. */
export type Handle = number | Deno.PointerValue;

/** How a library's calls look. */
export interface Abi {
  /** For messages. */
  readonly name: string;
  /** FFI type of a handle. */
  readonly handle: "i32" | "pointer";
  readonly handles: Readonly<Record<HandleName, Handle>>;
  /** `MPI_IN_PLACE` */
  readonly inPlace: Deno.PointerValue;
  /** `MPI_STATUS_IGNORE` */
  readonly statusIgnore: Deno.PointerValue;
  /** `MPI_COMM_TYPE_SHARED` */
  readonly typeShared: number;
}

const at = (address: bigint) => Deno.UnsafePointer.create(address);

/**
 * The common ABI of MPICH, Intel MPI, MVAPICH and Cray MPI: handles are
 * integers (https://www.mpich.org/abi/).
 */
export function mpichAbi(): Abi {
  return {
    name: "MPICH",
    handle: "i32",
    handles: {
      world: 0x44000000,
      byte: 0x4c00010d,
      float: 0x4c00040a,
      sum: 0x58000003,
      errorsReturn: 0x54000001,
      infoNull: 0x1c000000,
    },
    inPlace: at(0xffff_ffff_ffff_ffffn),
    statusIgnore: at(1n),
    typeShared: 1,
  };
}

/** Names of the objects that Open MPI's handles point to. */
const OPEN_MPI_OBJECTS = {
  world: "ompi_mpi_comm_world",
  byte: "ompi_mpi_byte",
  float: "ompi_mpi_float",
  sum: "ompi_mpi_op_sum",
  errorsReturn: "ompi_mpi_errors_return",
  infoNull: "ompi_mpi_info_null",
} as const satisfies Record<HandleName, string>;

/**
 * Open MPI's: handles are addresses of objects in the library.
 *
 * @param library Name or path, already known to load
 * @returns Null if the library is not Open MPI
 */
export function openMpiAbi(library: string): Abi | null {
  try {
    const { symbols } = Deno.dlopen(
      library,
      Object.fromEntries(
        Object.values(OPEN_MPI_OBJECTS).map((name) =>
          [name, { type: "pointer" }] as const
        ),
      ),
    );
    const entries = Object.entries(OPEN_MPI_OBJECTS).map(([key, name]) =>
      [key, symbols[name] as Deno.PointerValue] as const
    );
    return {
      name: "Open MPI",
      handle: "pointer",
      handles: Object.fromEntries(entries) as Abi["handles"],
      inPlace: at(1n),
      statusIgnore: null,
      typeShared: 0,
    };
  } catch {
    return null;
  }
}
