//! The program's allocator: the C library's, with large blocks on huge pages where the system asks to be asked.
//!
//! A tape of several GiB is touched for the first time page by page, and zeroing 4 KiB at a time with a fault
//! each took a tenth of a LoRA step of Stable Diffusion 1.5 (perf: `clear_page` below the first write). Linux
//! distributions mostly run with `transparent_hugepage=madvise`, where 2 MiB pages go to who asks.

use std::alloc::{GlobalAlloc, Layout, System};

/// [`System`], and `madvise(MADV_HUGEPAGE)` for blocks of several huge pages.
#[derive(Debug, Clone, Copy, Default)]
pub struct HugePages;

/// Below, the first and last partial page weigh too much.
#[cfg(any(target_os = "linux", test))]
const LEAST: usize = 4 << 20;

// SAFETY: memory comes from `System` alone; the advice changes neither its contents nor its bounds.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        advised(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        advised(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above, and `block` was given by `System`.
        advised(unsafe { System.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// The block, its whole pages marked for huge ones.
#[cfg(target_os = "linux")]
fn advised(block: *mut u8, size: usize) -> *mut u8 {
    const PAGE: usize = 4096;
    const MADV_HUGEPAGE: std::ffi::c_int = 14;
    unsafe extern "C" {
        fn madvise(address: *mut u8, length: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
    }
    if size >= LEAST && !block.is_null() {
        let skipped = block.align_offset(PAGE);
        // SAFETY: the range lies within the block; an advice that is refused changes nothing.
        unsafe { madvise(block.wrapping_add(skipped), (size - skipped) / PAGE * PAGE, MADV_HUGEPAGE) };
    }
    block
}

#[cfg(not(target_os = "linux"))]
fn advised(block: *mut u8, _: usize) -> *mut u8 {
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_all_sizes_hold_what_is_written() {
        for (size, align) in
            [(1, 1), (4095, 1), (LEAST - 1, 8), (LEAST, 64), (LEAST + 4097, 4096), (3 * LEAST, 16)]
        {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the layout has a size, writes stay within it, and the block is freed by its own layout.
            unsafe {
                let zeros = HugePages.alloc_zeroed(layout);
                assert!(!zeros.is_null() && zeros.align_offset(align) == 0);
                assert!((0..size).step_by(511).all(|i| *zeros.add(i) == 0));
                (0..size).for_each(|i| *zeros.add(i) = i as u8);
                let grown = HugePages.realloc(zeros, layout, size + LEAST);
                assert!((0..size).all(|i| *grown.add(i) == i as u8));
                HugePages.dealloc(grown, Layout::from_size_align(size + LEAST, align).unwrap());
            }
        }
    }
}
