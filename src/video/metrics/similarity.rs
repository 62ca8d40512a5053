//! PSNR and SSIM, where a mask says.

use crate::video::io::Picture;

/// Mean squared error over the three colours, weighted by `keep` (`[height, width]`, 1 counts);
/// `None` if nothing counts.
pub fn squared_error(a: &Picture, b: &Picture, keep: &[f32]) -> Option<f64> {
    let total: f64 = keep.iter().map(|&k| f64::from(k)).sum();
    let error = |channel: usize| -> f64 {
        let (a, b) = (a.plane(channel), b.plane(channel));
        a.iter().zip(b).zip(keep).map(|((a, b), &k)| f64::from(k) * f64::from(a - b).powi(2)).sum()
    };
    (total > 0.0).then(|| (0..3).map(error).sum::<f64>() / (3.0 * total))
}

/// Decibels of a mean squared error on a scale of 0 … 1; 0 becomes infinite.
pub fn psnr(squared_error: f64) -> f64 {
    -10.0 * squared_error.log10()
}

/// Side of SSIM's window.
const WINDOW: usize = 11;

/// Structural similarity of luma (Wang et al. 2004: an 11x11 Gaussian window of 1.5 pixels, K₁ = .01,
/// K₂ = .03), the mean over windows inside the picture, weighted by `keep` at their centres.
pub fn ssim(a: &Picture, b: &Picture, keep: &[f32]) -> Option<f64> {
    let (w, h) = (a.width, a.height);
    if w < WINDOW || h < WINDOW {
        return None;
    }
    let (x, y) = (a.luma(), b.luma());
    let moment = |f: &dyn Fn(f64, f64) -> f64| {
        let values: Vec<f64> = x.iter().zip(&y).map(|(&x, &y)| f(x.into(), y.into())).collect();
        windowed(&values, w, h)
    };
    let (mx, my) = (moment(&|x, _| x), moment(&|_, y| y));
    let (xx, yy, xy) = (moment(&|x, _| x * x), moment(&|_, y| y * y), moment(&|x, y| x * y));
    let (c1, c2) = (0.01f64.powi(2), 0.03f64.powi(2));
    let (mut sum, mut total) = (0.0, 0.0);
    let columns = w - WINDOW + 1;
    for i in 0..mx.len() {
        let center = (i / columns + WINDOW / 2) * w + i % columns + WINDOW / 2;
        let weight = f64::from(keep[center]);
        let (vx, vy, cov) = (xx[i] - mx[i] * mx[i], yy[i] - my[i] * my[i], xy[i] - mx[i] * my[i]);
        let luminance = (2.0 * mx[i] * my[i] + c1) / (mx[i] * mx[i] + my[i] * my[i] + c1);
        sum += weight * luminance * (2.0 * cov + c2) / (vx + vy + c2);
        total += weight;
    }
    (total > 0.0).then(|| sum / total)
}

/// Gaussian means of all windows inside the picture.
fn windowed(values: &[f64], w: usize, h: usize) -> Vec<f64> {
    let g: Vec<f64> = (0..WINDOW).map(|k| (-0.5 * ((k as f64 - 5.0) / 1.5).powi(2)).exp()).collect();
    let sum: f64 = g.iter().sum();
    let columns = w - WINDOW + 1;
    let rows: Vec<f64> = (0..columns * h)
        .map(|i| (0..WINDOW).map(|k| g[k] / sum * values[i / columns * w + i % columns + k]).sum())
        .collect();
    (0..columns * (h - WINDOW + 1))
        .map(|i| (0..WINDOW).map(|k| g[k] / sum * rows[i + k * columns]).sum())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    fn noise(seed: u64) -> Picture {
        let rng = Rng::new(seed, Stream::Probe, 2);
        Picture::from_fn(24, 20, |x, y| [rng.uniform((x + 24 * y) as u64); 3])
    }

    #[test]
    fn a_constant_error_has_a_known_psnr() {
        let (a, b) = (Picture::filled(24, 20, [0.5; 3]), Picture::filled(24, 20, [0.6; 3]));
        let all = vec![1.0; 480];
        assert!((psnr(squared_error(&a, &b, &all).unwrap()) - 20.0).abs() < 1e-4);
        assert_eq!(psnr(squared_error(&a, &a, &all).unwrap()), f64::INFINITY);
        assert_eq!(squared_error(&a, &b, &[0.0; 480]), None);
    }

    #[test]
    fn ssim_in_closed_form() {
        let all = vec![1.0; 480];
        let a = noise(1);
        assert!((ssim(&a, &a, &all).unwrap() - 1.0).abs() < 1e-12);
        // Two constants: the luminance term alone.
        let (b, c) = (Picture::filled(24, 20, [0.4; 3]), Picture::filled(24, 20, [0.8; 3]));
        let expected = (2.0 * 0.32 + 1e-4) / (0.16 + 0.64 + 1e-4);
        assert!((ssim(&b, &c, &all).unwrap() - expected).abs() < 1e-6);
        // Two independent noises are unlike each other.
        assert!(ssim(&a, &noise(2), &all).unwrap().abs() < 0.3);
        assert_eq!(
            ssim(&Picture::filled(5, 20, [0.0; 3]), &Picture::filled(5, 20, [0.0; 3]), &[1.0; 100]),
            None
        );
    }

    #[test]
    fn what_is_masked_does_not_count() {
        let a = noise(1);
        let mut b = a.clone();
        for y in 0..20 {
            for x in 0..4 {
                b.rgb[y * 24 + x] = 0.0;
            }
        }
        let keep: Vec<f32> = (0..480).map(|i| f32::from(u8::from(i % 24 >= 4))).collect();
        assert_eq!(squared_error(&a, &b, &keep), Some(0.0));
        assert!(squared_error(&a, &b, &vec![1.0; 480]).unwrap() > 1e-3);
        // SSIM's windows reach five pixels.
        let keep: Vec<f32> = (0..480).map(|i| f32::from(u8::from(i % 24 >= 9))).collect();
        assert!((ssim(&a, &b, &keep).unwrap() - 1.0).abs() < 1e-12);
    }
}
