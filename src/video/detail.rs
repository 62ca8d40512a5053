//! How much of a picture's detail goes with an edit that was made at a smaller size.

use rayon::prelude::*;

/// Half the width of a neighbourhood, in samples.
const RADIUS: usize = 2;
/// Variance below which a neighbourhood counts as flat (pictures from 0 to 1).
const FLAT: f32 = 1e-4;
/// Largest slope: an edit that raises contrast takes the detail with it, but not without bound.
const MOST: f32 = 2.0;

/// Of every sample of a plane `[height, width]`, one less than the slope of the line by which `was` around it predicts `now`:
/// `cov(was, now) / (var(was) + ε)`, between 0 and [`MOST`] (He, Sun and Tang, "Guided Image Filtering", 2010).
/// The slope is one where the edit kept the structure, so that the structure's finer part fits it too, and zero
/// where the edit put something else. Exactly 0 is given where nothing around changed.
pub(super) fn slopes_less_one(was: &[f32], now: &[f32], (width, height): (usize, usize)) -> Vec<f32> {
    let mut out = vec![0.0; width * height];
    out.par_chunks_mut(width.max(1)).enumerate().for_each(|(y, row)| {
        let rows = y.saturating_sub(RADIUS)..(y + RADIUS + 1).min(height);
        for (x, out) in row.iter_mut().enumerate() {
            let columns = x.saturating_sub(RADIUS)..(x + RADIUS + 1).min(width);
            let lines = || rows.clone().map(|y| y * width + columns.start..y * width + columns.end);
            if lines().all(|line| was[line.clone()] == now[line]) {
                continue;
            }
            let count = (rows.len() * columns.len()) as f32;
            let mean = |plane: &[f32]| lines().flat_map(|line| &plane[line]).sum::<f32>() / count;
            let (mean_was, mean_now) = (mean(was), mean(now));
            let (mut variance, mut covariance) = (0.0, 0.0);
            for (was, now) in lines().flat_map(|line| was[line.clone()].iter().zip(&now[line])) {
                variance += (was - mean_was) * (was - mean_was) / count;
                covariance += (was - mean_was) * (now - mean_now) / count;
            }
            *out = (covariance / (variance + FLAT)).clamp(0.0, MOST) - 1.0;
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    #[test]
    fn slopes_follow_what_the_edit_did() {
        let size = (24, 9);
        let rng = Rng::new(3, Stream::Probe, 2);
        let plane = |first: u64| -> Vec<f32> { (first..first + 216).map(|i| rng.uniform(i)).collect() };
        let was = plane(0);
        let mean = |now: &[f32]| slopes_less_one(&was, now, size).iter().sum::<f32>() / 216.0;
        let map = |f: fn(f32) -> f32| was.iter().map(|&v| f(v)).collect::<Vec<f32>>();
        assert!(slopes_less_one(&was, &was, size).iter().all(|&v| v == 0.0));
        // ε is an eight-hundredth of this noise's variance, more where a neighbourhood happens to vary less.
        assert!(mean(&map(|v| v + 0.3)).abs() < 0.01, "a shift keeps the detail");
        assert!((mean(&map(|v| 0.4 * v)) + 0.6).abs() < 0.01, "less contrast, less detail");
        assert!((mean(&map(|v| 1.0 - v)) + 1.0).abs() < 1e-6, "the reverse has none of it");
        assert!((mean(&map(|_| 0.2)) + 1.0).abs() < 1e-6, "nor has a flat surface");
        // The slope of two noises scatters by 1/√25 about 0, and only what is above it counts: .08 on average.
        assert!(mean(&plane(1000)) < -0.8, "nor another picture: {}", mean(&plane(1000)));
        // One sample reaches as far as its neighbourhood.
        let mut now = was.clone();
        now[4 * 24 + 12] = 5.0;
        let changed = slopes_less_one(&was, &now, size).iter().filter(|&&v| v != 0.0).count();
        assert!((20..=25).contains(&changed), "{changed}");
    }
}
