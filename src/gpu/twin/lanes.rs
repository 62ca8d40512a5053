//! Blocks of lanes that the compiler turns into vector instructions, and the choice of the
//! instruction set at run time (the binary is built for baseline x86-64).

/// Points of one block.
pub(super) const LANES: usize = 32;

/// One number for each point of a block.
pub(super) type Lanes = [f32; LANES];

/// `multiversion!(name = body(arg: Type, …))` defines `fn name(arg: Type, …)` that runs the
/// `#[inline(always)]` function `body`, compiled for the best instruction set of this machine.
macro_rules! multiversion {
    ($name:ident = $body:ident($($arg:ident: $ty:ty),* $(,)?)) => {
        fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
                fn avx512($($arg: $ty),*) {
                    $body($($arg),*);
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) {
                    $body($($arg),*);
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
            $body($($arg),*);
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
