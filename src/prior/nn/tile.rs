//! The inner kernels of convolution and matrix product: tiles of sums of outer products.
//!
//! `acc[i][j] += a[i] * b[j]` for `MR` scalars `a` (broadcast) and `NV` registers `b`, with all accumulators in
//! registers. A matrix product has a term a step; a convolution's steps are input channels, each with a term for every
//! filter tap, an offset into the padded image.

use super::real::Real;
use super::simd::{Isa, Simd, isa};

/// Where the terms of a tile are.
#[derive(Clone, Copy)]
pub(crate) struct Terms<T> {
    /// Number of steps: terms of a product, input channels of a convolution.
    pub(crate) steps: usize,
    /// The broadcast operand, and how far apart its rows and its terms are. The terms of a convolution's step
    /// follow those of the one before without a gap.
    pub(crate) a: *const T,
    /// Elements between two rows of `a`.
    pub(crate) a_row: usize,
    /// Elements between two terms of `a`.
    pub(crate) a_term: usize,
    /// The vector operand.
    pub(crate) b: *const T,
    /// Elements between two steps of `b`.
    pub(crate) b_step: usize,
}

/// Rows and columns of the tile used for convolution: columns are pixels, so it is wide.
pub(crate) fn conv_tile<T: Real>() -> (usize, usize) {
    match isa() {
        Isa::Avx512 => (8, 3 * T::Wide::LANES),
        Isa::Avx2 => (6, 2 * T::Half::LANES),
        Isa::Baseline => (4, 2 * T::Base::LANES),
    }
}

/// Rows and columns of the tile used for matrix products.
pub(crate) fn gemm_tile<T: Real>() -> (usize, usize) {
    match isa() {
        Isa::Avx512 => (8, 2 * T::Wide::LANES),
        Isa::Avx2 => (6, 2 * T::Half::LANES),
        Isa::Baseline => (4, 2 * T::Base::LANES),
    }
}

/// Computes a [`conv_tile`] over `terms`, each step with a term for each of `offsets` into its vectors, and stores
/// row `i` at `c + i * c_row`.
///
/// # Safety
/// Every element addressed by `terms` must be readable and every element of the tile writable.
#[inline]
pub(crate) unsafe fn conv<T: Real>(terms: Terms<T>, offsets: &[usize], c: *mut T, c_row: usize) {
    // SAFETY: the caller's promise; isa() has checked the instruction set.
    unsafe {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::conv_wide::<T>(terms, offsets, c, c_row),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::conv_half::<T>(terms, offsets, c, c_row),
            _ => tile::<T::Base, 4, 2>(terms, offsets, c, c_row),
        }
    }
}

/// Computes a [`gemm_tile`] (or its left half) over `terms`, of which the first `rows` rows exist: missing rows of
/// `a` are not read. The sums are added to `c`, rows `c_row` apart, if `add`, and overwrite it otherwise.
///
/// # Safety
/// Every element addressed by the terms must be readable and the tile's existing rows writable.
pub(crate) type Product<T> = unsafe fn(terms: Terms<T>, c: *mut T, c_row: usize, rows: usize, add: bool);

/// The kernel of products for this machine, for whole tiles or for their left halves when `narrow`. To be asked
/// for once a product: with few terms the choice takes as long as the tile.
pub(crate) fn gemm<T: Real>(narrow: bool) -> Product<T> {
    match (isa(), narrow) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, false) => x86::gemm_wide::<T>,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, true) => x86::gemm_wide_narrow::<T>,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, false) => x86::gemm_half::<T>,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, true) => x86::gemm_half_narrow::<T>,
        (_, false) => outer::<T::Base, 4, 2>,
        (_, true) => outer::<T::Base, 4, 1>,
    }
}

/// Steps of [`outer`] that follow each other without a jump.
const UNROLL: usize = 4;

/// The tile of a matrix product. Apart from [`tile`], since its loop over offsets costs as much as the arithmetic
/// when there is one.
#[inline(always)]
unsafe fn outer<S: Simd, const MR: usize, const NV: usize>(
    terms: Terms<S::T>,
    c: *mut S::T,
    c_row: usize,
    rows: usize,
    add: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[S::splat(S::T::ZERO); NV]; MR];
        if terms.a_term == 1 {
            sums::<S, MR, NV, true>(&terms, rows, &mut acc);
        } else {
            sums::<S, MR, NV, false>(&terms, rows, &mut acc);
        }
        for (i, acc) in acc.iter().enumerate().take(rows) {
            for (j, &v) in acc.iter().enumerate() {
                let p = c.add(i * c_row + j * S::LANES);
                S::store(p, if add { S::add(S::load(p), v) } else { v });
            }
        }
    }
}

/// The sums of [`outer`]; `UNIT` if the terms of `a` lie side by side.
#[inline(always)]
unsafe fn sums<S: Simd, const MR: usize, const NV: usize, const UNIT: bool>(
    terms: &Terms<S::T>,
    rows: usize,
    acc: &mut [[S::V; NV]; MR],
) {
    // SAFETY: all addresses are those that the caller promised; missing rows repeat the last one.
    unsafe {
        let mut a = [terms.a; MR];
        for (i, a) in a.iter_mut().enumerate() {
            *a = terms.a.add(i.min(rows - 1) * terms.a_row);
        }
        let (mut b, mut at) = (terms.b, 0);
        let a_term = if UNIT { 1 } else { terms.a_term };
        for _ in 0..terms.steps / UNROLL {
            for _ in 0..UNROLL {
                step::<S, MR, NV>(acc, &a, at, b);
                (b, at) = (b.wrapping_add(terms.b_step), at + a_term);
            }
        }
        for _ in 0..terms.steps % UNROLL {
            step::<S, MR, NV>(acc, &a, at, b);
            (b, at) = (b.wrapping_add(terms.b_step), at + a_term);
        }
    }
}

/// One term of [`outer`].
#[inline(always)]
unsafe fn step<S: Simd, const MR: usize, const NV: usize>(
    acc: &mut [[S::V; NV]; MR],
    a: &[*const S::T; MR],
    at: usize,
    b: *const S::T,
) {
    // SAFETY: as in [`outer`].
    unsafe {
        let mut bv = [S::splat(S::T::ZERO); NV];
        for (j, v) in bv.iter_mut().enumerate() {
            *v = S::load(b.add(j * S::LANES));
        }
        for (acc, a) in acc.iter_mut().zip(a) {
            let av = S::splat(*a.add(at));
            for (acc, &bv) in acc.iter_mut().zip(&bv) {
                *acc = S::fma(av, bv, *acc);
            }
        }
    }
}

/// The tile of a convolution.
#[inline(always)]
unsafe fn tile<S: Simd, const MR: usize, const NV: usize>(
    terms: Terms<S::T>,
    offsets: &[usize],
    c: *mut S::T,
    c_row: usize,
) {
    // SAFETY: all addresses are those that the caller promised.
    unsafe {
        let mut acc = [[S::splat(S::T::ZERO); NV]; MR];
        let (mut a, mut b) = (terms.a, terms.b);
        for _ in 0..terms.steps {
            for &offset in offsets {
                let mut bv = [S::splat(S::T::ZERO); NV];
                for (j, v) in bv.iter_mut().enumerate() {
                    *v = S::load(b.add(offset + j * S::LANES));
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let av = S::splat(*a.add(i * terms.a_row));
                    for (acc, &bv) in acc.iter_mut().zip(&bv) {
                        *acc = S::fma(av, bv, *acc);
                    }
                }
                a = a.wrapping_add(terms.a_term);
            }
            b = b.wrapping_add(terms.b_step);
        }
        for (i, acc) in acc.iter().enumerate() {
            for (j, &v) in acc.iter().enumerate() {
                S::store(c.add(i * c_row + j * S::LANES), v);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Real, Terms, outer, tile};

    macro_rules! entry {
        ($name:ident, $features:literal, $set:ident, $mr:literal, $nv:literal) => {
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name<T: Real>(
                terms: Terms<T>,
                c: *mut T,
                c_row: usize,
                rows: usize,
                add: bool,
            ) {
                // SAFETY: the caller's promise.
                unsafe { outer::<T::$set, $mr, $nv>(terms, c, c_row, rows, add) }
            }
        };
    }
    entry!(gemm_wide, "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma", Wide, 8, 2);
    entry!(gemm_wide_narrow, "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma", Wide, 8, 1);
    entry!(gemm_half, "avx2,fma", Half, 6, 2);
    entry!(gemm_half_narrow, "avx2,fma", Half, 6, 1);

    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    pub(super) unsafe fn conv_wide<T: Real>(mut terms: Terms<T>, offsets: &[usize], c: *mut T, c_row: usize) {
        // Constants that the compiler folds into addresses.
        (terms.a_row, terms.a_term) = (1, 8);
        // SAFETY: the caller's promise.
        unsafe { tile::<T::Wide, 8, 3>(terms, offsets, c, c_row) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn conv_half<T: Real>(mut terms: Terms<T>, offsets: &[usize], c: *mut T, c_row: usize) {
        (terms.a_row, terms.a_term) = (1, 6);
        // SAFETY: the caller's promise.
        unsafe { tile::<T::Half, 6, 2>(terms, offsets, c, c_row) }
    }
}
