//! A right matrix in the order in which the tile of a product reads it.

use rayon::prelude::*;

use super::gemm::Mat;
use super::real::Real;
#[cfg(target_arch = "x86_64")]
use super::simd::Isa;
use super::simd::{Simd, isa};
use super::tile::gemm_tile;

/// Column panels of a right matrix, [n/NR][k][NR], zero beyond the last column.
pub(crate) struct Packed<'a, T> {
    pub(crate) panels: &'a [T],
    pub(crate) k: usize,
}

/// Elements that [`pack`] needs for a k x n matrix.
pub(crate) fn packed_len<T: Real>(k: usize, n: usize) -> usize {
    let nr = gemm_tile::<T>().1;
    n.div_ceil(nr) * nr * k
}

/// Packs all columns of `b` (k x n) into `buffer`, of which at least [`packed_len`] elements exist.
pub(crate) fn pack<'a, T: Real>(b: Mat<'_, T>, k: usize, n: usize, buffer: &'a mut [T]) -> Packed<'a, T> {
    let nr = gemm_tile::<T>().1;
    let panels = &mut buffer[..packed_len::<T>(k, n)];
    for (p, panel) in panels.chunks_exact_mut((k * nr).max(1)).enumerate() {
        pack_panel(b, k, p * nr, nr.min(n - p * nr), panel);
    }
    Packed { panels, k }
}

/// [`pack`] on all threads.
pub(crate) fn pack_all<'a, T: Real>(b: Mat<'_, T>, k: usize, n: usize, panels: &'a mut [T]) -> Packed<'a, T> {
    let nr = gemm_tile::<T>().1;
    panels
        .par_chunks_exact_mut(k * nr)
        .enumerate()
        .for_each(|(p, panel)| pack_panel(b, k, p * nr, nr.min(n - p * nr), panel));
    Packed { panels, k }
}

/// One panel: `cols` columns from `j0`.
pub(super) fn pack_panel<T: Real>(b: Mat<'_, T>, k: usize, j0: usize, cols: usize, panel: &mut [T]) {
    let nr = gemm_tile::<T>().1;
    if cols < nr {
        panel.fill(T::ZERO);
    }
    if b.col == 1 {
        for (row, l) in panel.chunks_exact_mut(nr).zip(0..k) {
            let start = l * b.row + j0;
            row[..cols].copy_from_slice(&b.data[start..start + cols]);
        }
        return;
    }
    let transposed = if b.row == 1 && cols == nr { transpose_panel(b, k, j0, panel) } else { 0 };
    // Eight terms at a time, so that the reads of a column stay in its cache lines.
    for l0 in (transposed..k).step_by(8) {
        let terms = 8.min(k - l0);
        for j in 0..cols {
            let start = l0 * b.row + (j0 + j) * b.col;
            for l in 0..terms {
                panel[(l0 + l) * nr + j] = b.data[start + l * b.row];
            }
        }
    }
}

/// A whole panel of a transposed matrix by squares that are transposed in registers; the number of terms that are done.
fn transpose_panel<T: Real>(b: Mat<'_, T>, k: usize, j0: usize, panel: &mut [T]) -> usize {
    // SAFETY: isa() has checked the instruction set.
    unsafe {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::squares_wide(b, k, j0, panel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::squares_half(b, k, j0, panel),
            _ => squares::<T::Base>(b, k, j0, panel),
        }
    }
}

#[inline(always)]
unsafe fn squares<S: Simd>(b: Mat<'_, S::T>, k: usize, j0: usize, panel: &mut [S::T]) -> usize {
    let nr = gemm_tile::<S::T>().1;
    let terms = k / S::LANES * S::LANES;
    assert!(b.row == 1 && nr % S::LANES == 0 && panel.len() >= terms * nr && b.fits(k, j0 + nr));
    for l in (0..terms).step_by(S::LANES) {
        for j in (0..nr).step_by(S::LANES) {
            // SAFETY: the square's rows are parts of columns j0 + j and on, its columns of the panel's lines l and
            // on, all there by the assertion.
            unsafe {
                let from = b.data.as_ptr().add((j0 + j) * b.col + l);
                S::transpose(from, b.col, panel.as_mut_ptr().add(l * nr + j), nr);
            }
        }
    }
    terms
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Mat, Real, squares};

    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    pub(super) unsafe fn squares_wide<T: Real>(b: Mat<'_, T>, k: usize, j0: usize, panel: &mut [T]) -> usize {
        // SAFETY: the caller's promise.
        unsafe { squares::<T::Wide>(b, k, j0, panel) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn squares_half<T: Real>(b: Mat<'_, T>, k: usize, j0: usize, panel: &mut [T]) -> usize {
        // SAFETY: the caller's promise.
        unsafe { squares::<T::Half>(b, k, j0, panel) }
    }
}
