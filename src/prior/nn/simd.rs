//! Vector registers of the machine at hand, behind one small trait.
//!
//! The binary is compiled for baseline x86-64; the widest instruction set is chosen at run time. Kernels
//! are generic over [`Simd`] and are instantiated once per instruction set inside a function that
//! enables it. Every instantiation of one kernel does the same operations in the same order, so a
//! result depends on the instruction set (fused multiply-add or not) but never on the thread count.

use std::sync::OnceLock;

use super::real::Real;

/// An instruction set that kernels are instantiated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// 512-bit registers, 32 of them.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "found on x86-64 alone"))]
    Avx512,
    /// 256-bit registers, 16 of them, with fused multiply-add.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "found on x86-64 alone"))]
    Avx2,
    /// Whatever the compilation target guarantees.
    Baseline,
}

/// The widest instruction set of this machine.
pub(crate) fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let wide = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw");
    if fma && wide {
        Isa::Avx512
    } else if fma {
        Isa::Avx2
    } else {
        Isa::Baseline
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Baseline
}

/// A register of `LANES` elements and the operations that the tiles need.
pub(crate) trait Simd: Copy + 'static {
    /// The element.
    type T: Real;
    /// The register.
    type V: Copy;
    /// Elements in a register.
    const LANES: usize;
    /// Loads `LANES` elements, no alignment needed.
    ///
    /// # Safety
    /// `p` must be readable for `LANES` elements, and the instruction set available.
    unsafe fn load(p: *const Self::T) -> Self::V;
    /// Stores `LANES` elements, no alignment needed.
    ///
    /// # Safety
    /// `p` must be writable for `LANES` elements, and the instruction set available.
    unsafe fn store(p: *mut Self::T, v: Self::V);
    /// All lanes equal to `x`.
    ///
    /// # Safety
    /// The instruction set must be available.
    unsafe fn splat(x: Self::T) -> Self::V;
    /// `a * b + c`.
    ///
    /// # Safety
    /// The instruction set must be available.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a + b`.
    ///
    /// # Safety
    /// The instruction set must be available.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    ///
    /// # Safety
    /// The instruction set must be available.
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// A square of `LANES` rows at `from`, `from_row` elements apart, transposed to `to`.
    ///
    /// # Safety
    /// All rows must be readable, or writable, for `LANES` elements, and the instruction set available.
    #[inline(always)]
    unsafe fn transpose(from: *const Self::T, from_row: usize, to: *mut Self::T, to_row: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: the caller's promise.
                unsafe { *to.add(j * to_row + i) = *from.add(i * from_row + j) };
            }
        }
    }
}

/// Registers as plain arrays: the compiler uses what the target has.
#[derive(Clone, Copy)]
pub(crate) struct Plain<T>(std::marker::PhantomData<T>);

impl<T: Real> Simd for Plain<T> {
    type T = T;
    type V = [T; 4];
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn load(p: *const T) -> [T; 4] {
        // SAFETY: the caller guarantees four readable elements; arrays of T have T's alignment.
        unsafe { *p.cast::<[T; 4]>() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut T, v: [T; 4]) {
        // SAFETY: as above, for writing.
        unsafe { *p.cast::<[T; 4]>() = v }
    }
    #[inline(always)]
    unsafe fn splat(x: T) -> [T; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn fma(a: [T; 4], b: [T; 4], c: [T; 4]) -> [T; 4] {
        [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]]
    }
    #[inline(always)]
    unsafe fn add(a: [T; 4], b: [T; 4]) -> [T; 4] {
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    }
    #[inline(always)]
    unsafe fn sub(a: [T; 4], b: [T; 4]) -> [T; 4] {
        [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    macro_rules! registers {
        ($name:ident, $t:ty, $v:ty, $lanes:literal, $load:ident, $store:ident, $splat:ident, $fma:ident, $add:ident, $sub:ident $(, $transpose:ident)?) => {
            /// One x86 register type.
            #[derive(Clone, Copy)]
            pub(crate) struct $name;
            impl Simd for $name {
                type T = $t;
                type V = $v;
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn load(p: *const $t) -> $v {
                    // SAFETY: the trait's contract.
                    unsafe { $load(p) }
                }
                #[inline(always)]
                unsafe fn store(p: *mut $t, v: $v) {
                    // SAFETY: the trait's contract.
                    unsafe { $store(p, v) }
                }
                #[inline(always)]
                unsafe fn splat(x: $t) -> $v {
                    // SAFETY: the trait's contract.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn fma(a: $v, b: $v, c: $v) -> $v {
                    // SAFETY: the trait's contract.
                    unsafe { $fma(a, b, c) }
                }
                #[inline(always)]
                unsafe fn add(a: $v, b: $v) -> $v {
                    // SAFETY: the trait's contract.
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                unsafe fn sub(a: $v, b: $v) -> $v {
                    // SAFETY: the trait's contract.
                    unsafe { $sub(a, b) }
                }
                $(
                    #[inline(always)]
                    unsafe fn transpose(from: *const $t, from_row: usize, to: *mut $t, to_row: usize) {
                        // SAFETY: the trait's contract.
                        unsafe { $transpose(from, from_row, to, to_row) }
                    }
                )?
            }
        };
    }
    registers!(
        Avx512F32,
        f32,
        __m512,
        16,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_sub_ps
    );
    registers!(
        Avx512F64,
        f64,
        __m512d,
        8,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_set1_pd,
        _mm512_fmadd_pd,
        _mm512_add_pd,
        _mm512_sub_pd
    );
    registers!(
        Avx2F32,
        f32,
        __m256,
        8,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        transpose_8x8
    );
    registers!(
        Avx2F64,
        f64,
        __m256d,
        4,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_set1_pd,
        _mm256_fmadd_pd,
        _mm256_add_pd,
        _mm256_sub_pd
    );

    /// Pairs of rows, then fours, then halves of registers.
    #[inline(always)]
    unsafe fn transpose_8x8(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: the contract of `Simd::transpose`.
        unsafe {
            let row = |i: usize| _mm256_loadu_ps(from.add(i * from_row));
            let four = |i: usize| {
                let (a, b, c, d) = (row(i), row(i + 1), row(i + 2), row(i + 3));
                let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (low2, high2) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                [
                    _mm256_shuffle_ps::<0x44>(low, low2),
                    _mm256_shuffle_ps::<0xEE>(low, low2),
                    _mm256_shuffle_ps::<0x44>(high, high2),
                    _mm256_shuffle_ps::<0xEE>(high, high2),
                ]
            };
            let (upper, lower) = (four(0), four(4));
            for (i, (u, l)) in upper.into_iter().zip(lower).enumerate() {
                _mm256_storeu_ps(to.add(i * to_row), _mm256_permute2f128_ps::<0x20>(u, l));
                _mm256_storeu_ps(to.add((i + 4) * to_row), _mm256_permute2f128_ps::<0x31>(u, l));
            }
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2F32, Avx2F64, Avx512F32, Avx512F64};

/// Declares a function whose body is compiled once per instruction set and chosen at run time.
///
/// The body must not call `mul_add` (a library call on the baseline) and gets its speed from the
/// compiler's loop vectoriser.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<T: Real>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name<T: $crate::prior::nn::real::Real>($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<T: $crate::prior::nn::real::Real>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
            fn avx512<T: $crate::prior::nn::real::Real>($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2<T: $crate::prior::nn::real::Real>($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }
            match $crate::prior::nn::simd::isa() {
                // SAFETY: isa() has checked that this machine has these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::prior::nn::simd::Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::prior::nn::simd::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use multiversion;
