//! What happens between frames: warp error, seams at window borders, flicker.

use super::flow::Flow;
use crate::video::io::Picture;

/// Motion of the source between two frames, from the later to the earlier, and where it is seen.
#[derive(Debug, Clone)]
pub struct Motion {
    flow: Flow,
    visible: Vec<f32>,
}

impl Motion {
    /// Between two frames of the source.
    pub fn between(earlier: &Picture, later: &Picture) -> Self {
        let (a, b, w, h) = (earlier.luma(), later.luma(), earlier.width, earlier.height);
        let flow = Flow::estimate(&b, &a, w, h);
        let visible = flow.visible(&Flow::estimate(&a, &b, w, h));
        Self { flow, visible }
    }

    /// Warp error of two frames under this motion (Lai et al. 2018): the mean over visible pixels and
    /// colours of (later − earlier moved)²; `None` if nothing is visible.
    pub fn warp_error(&self, earlier: &Picture, later: &Picture) -> Option<f64> {
        let total: f64 = self.visible.iter().map(|&v| f64::from(v)).sum();
        let error = |channel: usize| -> f64 {
            let moved = self.flow.warp(earlier.plane(channel));
            let pairs = later.plane(channel).iter().zip(&moved).zip(&self.visible);
            pairs.map(|((a, b), &v)| f64::from(v) * f64::from(a - b).powi(2)).sum()
        };
        (total > 0.0).then(|| (0..3).map(error).sum::<f64>() / (3.0 * total))
    }
}

/// Mean absolute difference of two frames.
pub fn difference(a: &Picture, b: &Picture) -> f64 {
    let sum: f64 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| f64::from((a - b).abs())).sum();
    sum / a.rgb.len().max(1) as f64
}

/// How much larger the steps between windows are than those inside them: the mean of the former over
/// the median of the latter. `steps[t]` is the difference of frames t and t + 1; windows of `window`
/// frames start at frame 0. `None` without a border, or if nothing moves inside.
pub fn seam_ratio(steps: &[f64], window: usize) -> Option<f64> {
    let border = |t: usize| window > 0 && (t + 1).is_multiple_of(window);
    let of = |wanted: bool| -> Vec<f64> {
        steps.iter().enumerate().filter(|(t, _)| border(*t) == wanted).map(|(_, &d)| d).collect()
    };
    let (seams, mut inside) = (of(true), of(false));
    inside.sort_by(f64::total_cmp);
    let middle = inside.len() / 2;
    let median = match inside.len() {
        0 => return None,
        n if n % 2 == 1 => inside[middle],
        _ => 0.5 * (inside[middle - 1] + inside[middle]),
    };
    let mean = seams.iter().sum::<f64>() / seams.len() as f64;
    (!seams.is_empty() && median > 0.0).then(|| mean / median)
}

/// Change of the source's luma below which a pixel counts as still: two steps of 8 bit.
const STILL: f32 = 2.0 / 255.0;

/// Sum over still pixels of the second difference of luma, and their number, for three frames each of
/// the source and the edit.
pub fn flicker(source: [&[f32]; 3], edit: [&[f32]; 3]) -> (f64, u64) {
    let mut sum = (0.0, 0);
    for i in 0..source[0].len() {
        let still = |a: usize, b: usize| (source[a][i] - source[b][i]).abs() < STILL;
        if still(0, 1) && still(1, 2) {
            sum.0 += f64::from((edit[0][i] - 2.0 * edit[1][i] + edit[2][i]).abs());
            sum.1 += 1;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texture(u: f32, offset: f32) -> Picture {
        Picture::from_fn(80, 60, |x, y| {
            let (x, y) = (x as f32 - u, y as f32);
            let base = 0.5 + 0.2 * (0.31 * x + 0.17 * y).sin() + 0.15 * (0.23 * y - 0.21 * x).cos();
            [base + offset, 0.8 * base + offset, 0.3 + 0.5 * base + offset]
        })
    }

    #[test]
    fn what_moves_with_the_source_has_no_warp_error() {
        let (a, b) = (texture(0.0, 0.0), texture(2.5, 0.0));
        let motion = Motion::between(&a, &b);
        let own = motion.warp_error(&a, &b).unwrap();
        assert!(own < 2e-5, "{own}");
        // An edit that brightens one frame by 0.1 has an error of 0.01.
        let jump = motion.warp_error(&a, &texture(2.5, 0.1)).unwrap();
        assert!((jump - 0.01).abs() < 3e-4, "{jump}");
        // One that stays where it was while the source moves has the picture's own difference.
        assert!(motion.warp_error(&a, &a).unwrap() > 100.0 * own);
    }

    #[test]
    fn seams_are_told_from_motion() {
        let steps: Vec<f64> = (0..15).map(|t| if (t + 1) % 4 == 0 { 0.3 } else { 0.1 }).collect();
        assert!((seam_ratio(&steps, 4).unwrap() - 3.0).abs() < 1e-12);
        assert!((seam_ratio(&[0.2; 15], 4).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(seam_ratio(&[0.2; 15], 16), None);
        assert_eq!(seam_ratio(&[0.0; 15], 4), None);
        assert_eq!(seam_ratio(&[], 4), None);
    }

    #[test]
    fn flicker_counts_where_the_source_is_still() {
        let (still, moving) = ([0.5, 0.5], [0.5, 0.9]);
        let edit = [[0.4, 0.0], [0.6, 1.0], [0.4, 0.0]];
        let edit = [&edit[0][..], &edit[1], &edit[2]];
        let (sum, n) = flicker([&still, &still, &still], edit);
        assert!((sum - 2.4).abs() < 1e-6 && n == 2);
        let (sum, n) = flicker([&still, &moving, &still], edit);
        assert!((sum - 0.4).abs() < 1e-6 && n == 1);
        // A ramp in time is no flicker.
        assert!(flicker([&still[..1]; 3], [&[0.1], &[0.2], &[0.3]]).0 < 1e-7);
    }
}
