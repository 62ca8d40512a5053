//! Blocks of lanes that the compiler turns into vector instructions, and the choice of the
//! instruction set at run time (the binary is built for baseline x86-64).

/// Points of one block.
pub(super) const LANES: usize = 16;

/// One number for each point of a block.
pub(super) type Lanes = [f32; LANES];

/// A block in vector registers. Loops over [`Lanes`] vectorise by themselves, but the compiler does
/// not keep the accumulators of a matrix product in registers without being told.
pub(super) trait Vector: Copy {
    fn splat(x: f32) -> Self;
    fn load(x: &Lanes) -> Self;
    fn store(self, x: &mut Lanes);
    fn max(self, other: Self) -> Self;
    /// `self + a·b`, rounded twice.
    fn add_product(self, a: Self, b: Self) -> Self;
    /// Both features of 16 entries.
    ///
    /// # Safety
    /// Every index is inside of the table.
    unsafe fn gather(table: &[[f32; 2]], index: &[u32; LANES]) -> [Self; 2];
}

/// Whatever the baseline has.
#[derive(Clone, Copy)]
pub(super) struct Portable(Lanes);

impl Vector for Portable {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; LANES])
    }

    #[inline(always)]
    fn load(x: &Lanes) -> Self {
        Self(*x)
    }

    #[inline(always)]
    fn store(self, x: &mut Lanes) {
        *x = self.0;
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].max(other.0[i])))
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }

    #[inline(always)]
    unsafe fn gather(table: &[[f32; 2]], index: &[u32; LANES]) -> [Self; 2] {
        // SAFETY: the caller's promise.
        let entry = |i: usize| unsafe { table.get_unchecked(index[i] as usize) };
        [Self(std::array::from_fn(|i| entry(i)[0])), Self(std::array::from_fn(|i| entry(i)[1]))]
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Only to be used inside of functions compiled for the instruction set: [`super::multiversion`].

    use std::arch::x86_64::{
        __m256, __m512, _mm_castsi128_ps, _mm_set_epi64x, _mm256_add_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_max_ps, _mm256_mul_ps, _mm256_set_m128, _mm256_set1_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
        _mm512_add_epi32, _mm512_add_ps, _mm512_castpd_ps, _mm512_i32gather_pd, _mm512_loadu_ps,
        _mm512_max_ps, _mm512_mul_ps, _mm512_permutex2var_ps, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_setr_epi32, _mm512_storeu_ps,
    };

    use super::{LANES, Lanes, Vector};

    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(__m512);

    // SAFETY (all blocks): `multiversion` detected the instruction set before it chose this type,
    // and the loads and stores stay inside of the array.
    impl Vector for Avx512 {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        fn load(x: &Lanes) -> Self {
            Self(unsafe { _mm512_loadu_ps(x.as_ptr()) })
        }

        #[inline(always)]
        fn store(self, x: &mut Lanes) {
            unsafe { _mm512_storeu_ps(x.as_mut_ptr(), self.0) }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, _mm512_mul_ps(a.0, b.0)) })
        }

        #[inline(always)]
        unsafe fn gather(table: &[[f32; 2]], index: &[u32; LANES]) -> [Self; 2] {
            unsafe {
                // Pairs as 64-bit numbers: half the loads of two 32-bit gathers.
                let first = table.as_ptr().cast::<f64>();
                let half = |from: *const u32| {
                    let index = _mm256_loadu_si256(from.cast());
                    _mm512_castpd_ps(_mm512_i32gather_pd::<8>(index, first))
                };
                let (low, high) = (half(index.as_ptr()), half(index.as_ptr().add(8)));
                let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
                [Self(_mm512_permutex2var_ps(low, even, high)), Self(_mm512_permutex2var_ps(low, odd, high))]
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(__m256, __m256);

    // SAFETY (all blocks): as above.
    impl Vector for Avx2 {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            let x = unsafe { _mm256_set1_ps(x) };
            Self(x, x)
        }

        #[inline(always)]
        fn load(x: &Lanes) -> Self {
            unsafe { Self(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
        }

        #[inline(always)]
        fn store(self, x: &mut Lanes) {
            unsafe {
                _mm256_storeu_ps(x.as_mut_ptr(), self.0);
                _mm256_storeu_ps(x.as_mut_ptr().add(8), self.1);
            }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            unsafe {
                Self(
                    _mm256_add_ps(self.0, _mm256_mul_ps(a.0, b.0)),
                    _mm256_add_ps(self.1, _mm256_mul_ps(a.1, b.1)),
                )
            }
        }

        #[inline(always)]
        unsafe fn gather(table: &[[f32; 2]], index: &[u32; LANES]) -> [Self; 2] {
            unsafe {
                // Eight loads of both features: the gather instruction takes longer on most processors.
                let first = table.as_ptr().cast::<i64>();
                let entry = |i: usize| first.add(index[i] as usize).read_unaligned();
                let pair = |i: usize| _mm_castsi128_ps(_mm_set_epi64x(entry(i + 1), entry(i)));
                let eight = |i: usize| {
                    let ac = _mm256_set_m128(pair(i + 4), pair(i));
                    let bd = _mm256_set_m128(pair(i + 6), pair(i + 2));
                    [_mm256_shuffle_ps::<0b10_00_10_00>(ac, bd), _mm256_shuffle_ps::<0b11_01_11_01>(ac, bd)]
                };
                let ([f, g], [f_high, g_high]) = (eight(0), eight(8));
                [Self(f, f_high), Self(g, g_high)]
            }
        }
    }
}

/// `multiversion!(name = body(arg: Type, …))` defines `fn name(arg: Type, …)` that runs the
/// `#[inline(always)]` function `body::<V: Vector>`, compiled for the best instruction set of this
/// machine.
macro_rules! multiversion {
    ($name:ident = $body:ident($($arg:ident: $ty:ty),* $(,)?)) => {
        fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
                fn avx512($($arg: $ty),*) {
                    $body::<$crate::gpu::twin::lanes::Avx512>($($arg),*);
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) {
                    $body::<$crate::gpu::twin::lanes::Avx2>($($arg),*);
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the features were just detected.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the feature was just detected.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body::<$crate::gpu::twin::lanes::Portable>($($arg),*);
        }
    };
}
pub(super) use multiversion;

/// `eˣ` to about 2 ulp, x clamped to -87..88: branch-free, so that it vectorises.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5·2²³ rounds to an integer that then stands in the low bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let k = shifted - 12_582_912.0;
    // ln 2 in two parts (Cody and Waite).
    let r = x - k * 0.693_359_4 - k * -2.121_944_4e-4;
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    let bits = (shifted.to_bits() << 23).wrapping_add(p.to_bits());
    f32::from_bits(bits)
}

/// `log(1 + eˣ)` to about 1e-7 of its value.
#[inline(always)]
pub(super) fn softplus(x: f32) -> f32 {
    let y = exp(-x.abs());
    // log(1 + y) = 2 artanh(y / (2 + y)); the argument is at most 1/3, where s¹⁵/15 is 5e-9.
    let s = y / (2.0 + y);
    let s2 = s * s;
    let q = 1.0 / 13.0;
    let q = q * s2 + 1.0 / 11.0;
    let q = q * s2 + 1.0 / 9.0;
    let q = q * s2 + 1.0 / 7.0;
    let q = q * s2 + 0.2;
    let q = q * s2 + 1.0 / 3.0;
    let q = q * s2 + 1.0;
    x.max(0.0) + 2.0 * s * q
}

/// `1 − e⁻ˣ` for x ≥ 0, with full relative accuracy near zero.
#[inline(always)]
pub(super) fn one_minus_exp_neg(x: f32) -> f32 {
    // Taylor to the seventh power below 1/2; the next term is x⁷/8!, at most 2e-7 relative.
    let t = 1.0 - x / 7.0;
    let t = 1.0 - x / 6.0 * t;
    let t = 1.0 - x / 5.0 * t;
    let t = 1.0 - x / 4.0 * t;
    let t = 1.0 - x / 3.0 * t;
    let t = x * (1.0 - x / 2.0 * t);
    if x < 0.5 { t } else { 1.0 - exp(-x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elementary_functions_agree_with_f64() {
        for i in -4000..4000 {
            let x = i as f32 * 0.02;
            let y = f64::from(x);
            // Two units in the last place, and the rounding of the argument's reduction.
            assert!((f64::from(exp(x)) / y.exp() - 1.0).abs() < 4e-7, "exp {x}");
            let want = y.max(0.0) + (-y.abs()).exp().ln_1p();
            assert!((f64::from(softplus(x)) / want - 1.0).abs() < 4e-7, "softplus {x}");
            if x > 0.0 {
                let want = -(-y).exp_m1();
                assert!((f64::from(one_minus_exp_neg(x)) / want - 1.0).abs() < 4e-7, "1-e^-x {x}");
            }
        }
        assert_eq!(one_minus_exp_neg(0.0), 0.0);
    }
}
