//! The seam between renderer and prior: linear `[B, H, W, 3]` and sRGB `[B, 3, H, W]` in [−1, 1].
//!
//! The field's colours are linear light, as in the asset's files and the prior's training renders,
//! and are composited so; the prior sees sRGB. Gradients go through the transfer curve exactly.

/// The sRGB transfer function (IEC 61966-2-1) at linear `x` in [0, 1], and its slope. Outside the
/// range both follow the line through the nearer end's value, with slope zero.
pub(crate) fn transfer(x: f32) -> (f32, f32) {
    if !(0.0..=1.0).contains(&x) {
        return (if x > 1.0 { 1.0 } else { 0.0 }, 0.0);
    }
    if x <= 0.003_130_8 {
        return (12.92 * x, 12.92);
    }
    let root = x.powf(1.0 / 2.4);
    (1.055 * root - 0.055, 1.055 / 2.4 * root / x)
}

/// Index pairs `(channels last, channels first)` of `views` pictures of `pixels` pixels.
fn pairs(views: usize, pixels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..views * pixels * 3).map(move |i| {
        let (view, pixel, channel) = (i / (pixels * 3), i / 3 % pixels, i % 3);
        (i, (view * 3 + channel) * pixels + pixel)
    })
}

/// Rendered pictures as the prior sees them.
pub(super) fn to_prior(linear: &[f32], views: usize) -> Vec<f32> {
    let mut out = vec![0.0; linear.len()];
    for (last, first) in pairs(views, linear.len() / (views * 3).max(1)) {
        out[first] = 2.0 * transfer(linear[last]).0 - 1.0;
    }
    out
}

/// The gradient by the rendered pictures from the gradient by what the prior saw.
pub(super) fn from_prior(gradient: &[f32], linear: &[f32], views: usize) -> Vec<f32> {
    let mut out = vec![0.0; linear.len()];
    for (last, first) in pairs(views, linear.len() / (views * 3).max(1)) {
        out[last] = 2.0 * transfer(linear[last]).1 * gradient[first];
    }
    out
}

/// One linear value as an 8-bit sRGB sample.
pub(crate) fn to_srgb8(linear: f32) -> u8 {
    (transfer(linear).0 * 255.0 + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    #[test]
    fn transfer_has_its_known_values() {
        // IEC 61966-2-1: 0.5 linear is 0.735357 encoded; 18 % grey is 0.461356.
        assert!((transfer(0.5).0 - 0.735_357).abs() < 1e-6);
        assert!((transfer(0.18).0 - 0.461_356).abs() < 1e-6);
        assert_eq!((transfer(0.0), transfer(-0.1)), ((0.0, 12.92), (0.0, 0.0)));
        assert!((transfer(1.0).0 - 1.0).abs() < 1e-6);
        assert_eq!(to_srgb8(1.0), 255);
    }

    #[test]
    fn gradient_is_the_transpose_of_the_derivative() {
        let (views, pixels) = (2, 9);
        let n = views * pixels * 3;
        let rng = Rng::new(1, Stream::Probe, 0);
        let x: Vec<f32> = (0..n as u64).map(|i| rng.range(i, 0.01, 0.99)).collect();
        let g = rng.normals(1000, n);
        let analytic = from_prior(&g, &x, views);
        // f(x) = Σ g · to_prior(x), differenced one coordinate at a time; f32 leaves 3 digits.
        let h = 2e-3;
        for i in 0..n {
            let at = |d: f32| {
                let mut y = x.clone();
                y[i] += d;
                to_prior(&y, views).iter().zip(&g).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            };
            let numeric = (at(h) - at(-h)) / (2.0 * f64::from(h));
            let scale = f64::from(analytic[i].abs()).max(0.1);
            assert!(
                (numeric - f64::from(analytic[i])).abs() < 1e-2 * scale,
                "{i}: {numeric} {}",
                analytic[i]
            );
        }
    }
}
