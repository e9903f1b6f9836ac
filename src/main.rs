//! The binary: everything is in the library.

use std::process::ExitCode;

/// Freed memory is wiped: what a library copied of a value does not stay behind.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    rekey::cli::main()
}
