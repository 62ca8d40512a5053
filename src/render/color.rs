//! The sRGB transfer function (IEC 61966-2-1) and exact, fast 8-bit conversions.

use std::sync::LazyLock;

use glam::Vec3;

/// sRGB value in [0, 1] to linear light in [0, 1].
pub fn srgb_to_linear(s: f32) -> f32 {
    if s <= 0.040_45 { s / 12.92 } else { ((s + 0.055) / 1.055).powf(2.4) }
}

/// Linear light in [0, 1] to an sRGB value in [0, 1]; negative light stays on the linear toe.
pub fn linear_to_srgb(l: f32) -> f32 {
    if l <= 0.003_130_8 { l * 12.92 } else { 1.055 * l.powf(1.0 / 2.4) - 0.055 }
}

/// Linear light of each 8-bit sRGB code.
pub fn decode_table() -> &'static [f32; 256] {
    static TABLE: LazyLock<[f32; 256]> =
        LazyLock::new(|| std::array::from_fn(|code| srgb_to_linear(code as f32 / 255.0)));
    &TABLE
}

/// Light at which the rounded code changes from `code` to `code + 1`; the last never does.
static STEPS: LazyLock<[f32; 256]> =
    LazyLock::new(|| {
        std::array::from_fn(|code| {
            if code == 255 { f32::INFINITY } else { srgb_to_linear((code as f32 + 0.5) / 255.0) }
        })
    });

/// Where to start searching [`STEPS`]: the code of each of 1024 equal steps of light, rounded down.
static GUESS: LazyLock<[u8; 1024]> = LazyLock::new(|| {
    std::array::from_fn(|i| STEPS.iter().take_while(|&&step| step <= i as f32 / 1024.0).count() as u8)
});

/// The nearest 8-bit sRGB code of linear light; clamps, NaN gives 0.
pub fn linear_to_srgb8(l: f32) -> u8 {
    let steps = &*STEPS;
    let mut code = usize::from(GUESS[((l * 1024.0) as usize).min(1023)]);
    while l >= steps[code] {
        code += 1;
    }
    code as u8
}

/// Linear RGB of an 8-bit sRGB triple.
pub fn srgb8_to_linear([r, g, b]: [u8; 3]) -> Vec3 {
    let table = decode_table();
    Vec3::new(table[usize::from(r)], table[usize::from(g)], table[usize::from(b)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_round_trip() {
        for code in 0..=255_u8 {
            let linear = decode_table()[usize::from(code)];
            assert_eq!(linear_to_srgb8(linear), code);
            assert!((linear_to_srgb(linear) * 255.0 - f32::from(code)).abs() < 1e-3);
        }
        assert_eq!((linear_to_srgb8(-1.0), linear_to_srgb8(7.0), linear_to_srgb8(f32::NAN)), (0, 255, 0));
    }

    #[test]
    fn the_table_agrees_with_the_formula() {
        // 1/65536 is a fifth of the smallest step between codes, so every code's edge is crossed.
        for i in 0..=65_536 {
            let l = i as f32 / 65_536.0;
            let exact = linear_to_srgb(l) * 255.0;
            let got = f32::from(linear_to_srgb8(l));
            assert!((got - exact).abs() <= 0.5 + 1e-3, "{l}: {got} for {exact}");
        }
    }

    #[test]
    fn known_values() {
        // Middle grey of the standard: code 188 is half the light.
        assert!((srgb_to_linear(0.5) - 0.214_041).abs() < 1e-5);
        assert_eq!(linear_to_srgb8(0.5), 188);
    }
}
