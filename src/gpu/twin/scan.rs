//! Prefix sums.

use crate::gpu::kernels::ScanParams;

/// `offsets[i] = Σ counts[..i]` for i in 0..=n.
pub fn scan(p: &ScanParams, counts: &[u32], offsets: &mut [u32]) {
    let mut total = 0;
    for (offset, count) in offsets.iter_mut().zip(&counts[..p.n as usize]) {
        *offset = total;
        total += count;
    }
    offsets[p.n as usize] = total;
}
