//! What the C library does with freed memory.

use std::sync::Once;

/// Tells glibc, once, to keep freed blocks up to 32 MiB for the next allocation.
///
/// Every operation on the tape allocates its result and frees it after the step. By default glibc gives
/// blocks of that size back to the system and gets them again page by page: the page faults cost up to
/// five times the arithmetic of a pointwise layer. The price is that the process keeps its peak memory.
/// One arena for all threads: those of other threads grow in pieces of 64 MiB that are given back.
pub(crate) fn keep_freed_blocks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(tell_allocator);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn tell_allocator() {
    const M_TRIM_THRESHOLD: std::ffi::c_int = -1;
    const M_MMAP_THRESHOLD: std::ffi::c_int = -3;
    const M_ARENA_MAX: std::ffi::c_int = -8;
    unsafe extern "C" {
        fn mallopt(parameter: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
    }
    // SAFETY: glibc documents mallopt as callable at any time; a refused value only leaves things slow.
    unsafe {
        mallopt(M_ARENA_MAX, 1);
        mallopt(M_MMAP_THRESHOLD, 32 << 20);
        mallopt(M_TRIM_THRESHOLD, 1 << 30);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn tell_allocator() {}
