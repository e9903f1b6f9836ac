//! The binary: everything is in the library.

use std::process::ExitCode;

/// Freed memory is wiped, so that the copies that a library made of a value do not stay in memory.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    rekey::main()
}
