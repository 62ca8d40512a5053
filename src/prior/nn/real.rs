//! The number type of the kernels: f32 for work, f64 so that finite differences test the same code.

use std::cell::RefCell;

use candle_core::WithDType;

#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2F32, Avx2F64, Avx512F32, Avx512F64};
use super::simd::{Plain, Simd};

/// f32 or f64.
pub(crate) trait Real: WithDType + Default {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Registers of 512 bits.
    type Wide: Simd<T = Self>;
    /// Registers of 256 bits.
    type Half: Simd<T = Self>;
    /// Registers of the compilation target.
    type Base: Simd<T = Self>;
    /// e^x; the f32 version has no branch, so loops over it become vector code. Arguments below -87
    /// give about 1e-38 instead of less, NaN stays NaN.
    fn exp(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The standard normal's distribution function and density at `self`.
    fn normal(self) -> (Self, Self);
    /// Runs `f` with this thread's scratch buffers, which keep their memory between calls. `f` must not
    /// call rayon: a stolen task on the same thread would find them taken.
    fn with_scratch<R>(f: impl FnOnce(&mut [Vec<Self>; 3]) -> R) -> R;
}

/// 1/sqrt(2 pi).
const INV_SQRT_TAU: f64 = 0.398_942_280_401_432_7;

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    #[cfg(target_arch = "x86_64")]
    type Wide = Avx512F32;
    #[cfg(target_arch = "x86_64")]
    type Half = Avx2F32;
    #[cfg(not(target_arch = "x86_64"))]
    type Wide = Plain<f32>;
    #[cfg(not(target_arch = "x86_64"))]
    type Half = Plain<f32>;
    type Base = Plain<f32>;

    /// x = n ln2 + r with |r| <= ln2/2, the Taylor series of e^r to degree 7 (error 5e-9), times 2^n put
    /// together from bits. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low mantissa bits.
    #[inline(always)]
    fn exp(self) -> f32 {
        const MAGIC: f32 = 12_582_912.0;
        // Written as selections, not min/max, so that NaN passes.
        let x = if self < -87.3 { -87.3 } else { self };
        let x = if x > 88.0 { 88.0 } else { x };
        let t = x * std::f32::consts::LOG2_E + MAGIC;
        let n = t - MAGIC;
        // ln2 in two parts, the first with few bits so that n * LN2_HI is exact.
        let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
        let p = 1.0 / 5040.0;
        let p = p * r + 1.0 / 720.0;
        let p = p * r + 1.0 / 120.0;
        let p = p * r + 1.0 / 24.0;
        let p = p * r + 1.0 / 6.0;
        let p = p * r + 0.5;
        let p = p * r + 1.0;
        let p = p * r + 1.0;
        p * f32::from_bits(t.to_bits().wrapping_add(127) << 23)
    }

    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }

    /// Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7 on erf), which needs only the exponential
    /// that the density needs anyway.
    #[inline(always)]
    fn normal(self) -> (f32, f32) {
        let e = Real::exp(-0.5 * self * self);
        let a = self.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let t = 1.0 / (1.0 + 0.327_591_1 * a);
        let p =
            ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t + 0.254_829_6) * t;
        let tail = 0.5 * p * e;
        let phi = if self > 0.0 { 1.0 - tail } else { tail };
        (phi, e * INV_SQRT_TAU as f32)
    }

    fn with_scratch<R>(f: impl FnOnce(&mut [Vec<f32>; 3]) -> R) -> R {
        thread_local!(static SCRATCH: RefCell<[Vec<f32>; 3]> = RefCell::default());
        SCRATCH.with(|s| f(&mut s.borrow_mut()))
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    #[cfg(target_arch = "x86_64")]
    type Wide = Avx512F64;
    #[cfg(target_arch = "x86_64")]
    type Half = Avx2F64;
    #[cfg(not(target_arch = "x86_64"))]
    type Wide = Plain<f64>;
    #[cfg(not(target_arch = "x86_64"))]
    type Half = Plain<f64>;
    type Base = Plain<f64>;

    #[inline(always)]
    fn exp(self) -> f64 {
        f64::exp(self)
    }

    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }

    #[inline(always)]
    fn normal(self) -> (f64, f64) {
        let phi = 0.5 * candle_core::cpu::erf::erfc_f64(-self * std::f64::consts::FRAC_1_SQRT_2);
        (phi, f64::exp(-0.5 * self * self) * INV_SQRT_TAU)
    }

    fn with_scratch<R>(f: impl FnOnce(&mut [Vec<f64>; 3]) -> R) -> R {
        thread_local!(static SCRATCH: RefCell<[Vec<f64>; 3]> = RefCell::default());
        SCRATCH.with(|s| f(&mut s.borrow_mut()))
    }
}

/// The first `n` elements of `v` from a 64-byte boundary, all zero.
pub(crate) fn zeroed<T: Real>(v: &mut Vec<T>, n: usize) -> &mut [T] {
    let slice = uninit(v, n);
    slice.fill(T::ZERO);
    slice
}

/// The first `n` elements of `v` from a 64-byte boundary, with whatever an earlier use left there.
pub(crate) fn uninit<T: Real>(v: &mut Vec<T>, n: usize) -> &mut [T] {
    let pad = 64 / size_of::<T>();
    if v.len() < n + pad {
        *v = vec![T::ZERO; n + pad];
    }
    let skip = v.as_ptr().align_offset(64).min(pad);
    &mut v[skip..skip + n]
}

/// A pointer that tasks of one rayon call write through, each to its own elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T, usize);

// SAFETY: `Shared` only hands out raw writes, whose callers guarantee disjointness.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr(), slice.len())
    }

    /// The elements `start..start + len`.
    ///
    /// # Safety
    /// No other task may touch these elements while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start + len <= self.1, "a kernel's task leaves its buffer");
        // SAFETY: in bounds by the assertion, disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}
