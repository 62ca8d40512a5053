//! Automatic iso value: the density whose solid has the silhouette that the volume renderer shows.
//!
//! Every density τ has a length over which it absorbs half of the light, ln 2 / τ. The first
//! candidate is the τ of a given characteristic length; the others lie around it in steps of √2.
//! A candidate's solid {σ > τ} is projected along the three axes and compared (intersection over
//! union) with the pixels that a volume rendering along the same axis leaves at least half
//! opaque. Among the candidates with nearly the best agreement the one closest to the first wins,
//! unless its largest component is tiny or touches the box; then the next one is tried.

use std::f32::consts::LN_2;

use super::iso::Grid;
use crate::{Error, Result};

/// The length over which the first candidate absorbs half of the light, world units. About one
/// thirtieth of the normalised object (largest side 1.2): thinner fog is not a surface.
pub const CHARACTERISTIC_LENGTH: f32 = 0.04;

/// Candidates on each side of the first one, √2 apart: from τ/256 to 256 τ.
const STEPS: i32 = 16;
/// A candidate is as good as the best when its silhouettes agree to this share of the best.
const NEARLY: f32 = 0.9;
/// A largest component whose bounding box is smaller than this (world units) is debris.
const TINY: f32 = 0.1;

/// The chosen iso value and how it came about.
#[derive(Debug, Clone)]
pub struct Threshold {
    /// Density of the surface.
    pub value: f32,
    /// Intersection over union of the solid's and the volume's silhouettes, 0..1.
    pub agreement: f32,
    /// True if every usable candidate ran into the box: the surface is cut off there.
    pub touches_box: bool,
    /// Candidates whose components were examined, with the verdict on each.
    pub attempts: Vec<(f32, Verdict)>,
}

/// What a candidate's largest component looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A solid inside the box.
    Good,
    /// Nothing is denser.
    Empty,
    /// Smaller than a tenth of a world unit.
    Tiny,
    /// It reaches the hull of the grid.
    TouchesBox,
}

/// Chooses the iso value for densities sampled on `grid` (hull not yet closed).
///
/// # Errors
/// [`Error::Failed`] when no candidate gives a surface of visible size.
pub fn choose(grid: &Grid, characteristic_length: f32) -> Result<Threshold> {
    let first = LN_2 / characteristic_length;
    let views = Silhouettes::new(grid);
    let mut candidates: Vec<(i32, f32, f32)> = (-STEPS..=STEPS)
        .map(|k| (k, first * 2f32.powf(k as f32 / 2.0)))
        .map(|(k, tau)| (k, tau, views.agreement(tau)))
        .filter(|c| c.2 > 0.0)
        .collect();
    let best = candidates.iter().map(|c| c.2).fold(0.0, f32::max);
    // Near-ties by distance from the first candidate, the others by agreement.
    let near = |c: &(i32, f32, f32)| c.2 >= NEARLY * best;
    candidates.sort_by(|a, b| match (near(a), near(b)) {
        (true, true) => a.0.abs().cmp(&b.0.abs()).then(a.0.cmp(&b.0)),
        _ => b.2.total_cmp(&a.2),
    });
    let mut attempts = Vec::new();
    for &(_, value, agreement) in &candidates {
        let verdict = examine(grid, value);
        attempts.push((value, verdict));
        if verdict == Verdict::Good {
            return Ok(Threshold { value, agreement, touches_box: false, attempts });
        }
    }
    let cut = attempts.iter().position(|a| a.1 == Verdict::TouchesBox);
    let Some(index) = cut else { return Err(nothing(grid)) };
    let (_, value, agreement) = candidates[index];
    Ok(Threshold { value, agreement, touches_box: true, attempts })
}

fn nothing(grid: &Grid) -> Error {
    let peak = grid.values.iter().copied().fold(0.0, f32::max);
    Error::Failed(format!("the field holds no surface: its highest density is {peak:.3}"))
        .hint("optimise for more steps, try another seed, or give a threshold yourself")
}

/// Maximum density and opacity along the grid lines of each axis.
struct Silhouettes {
    /// `(largest density, half opaque)` of each line.
    lines: Vec<(f32, bool)>,
}

impl Silhouettes {
    fn new(grid: &Grid) -> Self {
        let n = grid.points;
        let strides = [(1, n, n * n), (n, 1, n * n), (n * n, 1, n)];
        let mut lines = Vec::with_capacity(3 * n * n);
        for (along, u, v) in strides {
            for line in 0..n * n {
                let start = line % n * u + line / n * v;
                let densities = (0..n).map(|i| grid.values[start + i * along]);
                let (peak, sum) = densities.fold((0f32, 0f32), |(p, s), d| (p.max(d), s + d));
                // Opacity 1 − exp(−Σ σ h) ≥ ½.
                lines.push((peak, sum * grid.spacing >= LN_2));
            }
        }
        Self { lines }
    }

    fn agreement(&self, tau: f32) -> f32 {
        let count = |f: fn(bool, bool) -> bool| {
            self.lines.iter().filter(|(peak, opaque)| f(*peak > tau, *opaque)).count()
        };
        let union = count(|a, b| a || b);
        if union == 0 { 0.0 } else { count(|a, b| a && b) as f32 / union as f32 }
    }
}

/// Flood-fills the components denser than `tau` and judges the largest.
fn examine(grid: &Grid, tau: f32) -> Verdict {
    let n = grid.points;
    let mut open: Vec<bool> = grid.values.iter().map(|v| *v > tau).collect();
    let mut largest = (0usize, 0.0f32, false);
    let mut stack = Vec::new();
    for seed in 0..open.len() {
        if !std::mem::take(&mut open[seed]) {
            continue;
        }
        stack.push(seed);
        let (mut count, mut touches) = (0, false);
        let (mut low, mut high) = ([n; 3], [0; 3]);
        while let Some(at) = stack.pop() {
            count += 1;
            let p = [at % n, at / n % n, at / n / n];
            for (axis, stride) in [1, n, n * n].into_iter().enumerate() {
                low[axis] = low[axis].min(p[axis]);
                high[axis] = high[axis].max(p[axis]);
                touches |= p[axis] == 0 || p[axis] == n - 1;
                if p[axis] > 0 && std::mem::take(&mut open[at - stride]) {
                    stack.push(at - stride);
                }
                if p[axis] + 1 < n && std::mem::take(&mut open[at + stride]) {
                    stack.push(at + stride);
                }
            }
        }
        let side = (0..3).map(|a| high[a] - low[a]).max().unwrap_or(0) as f32 * grid.spacing;
        if count > largest.0 {
            largest = (count, side, touches);
        }
    }
    match largest {
        (0, ..) => Verdict::Empty,
        (_, _, true) => Verdict::TouchesBox,
        (_, side, _) if side < TINY => Verdict::Tiny,
        _ => Verdict::Good,
    }
}

#[cfg(test)]
mod tests {
    use glam::Vec3;

    use super::*;
    use crate::mesh::testing::grid_of;

    /// Largest x inside the solid on the x axis: the radius of a centred ball.
    fn radius(grid: &Grid, tau: f32) -> f32 {
        (0..grid.values.len())
            .filter(|i| grid.values[*i] > tau)
            .map(|i| grid.position(i).x)
            .fold(0.0, f32::max)
    }

    fn ball(peak: f32, r: f32) -> Grid {
        grid_of(40, move |p| peak / (1.0 + ((p.length() - r) * 400.0).exp()))
    }

    #[test]
    fn a_crisp_ball_takes_the_first_candidate() {
        let t = choose(&ball(400.0, 0.5), CHARACTERISTIC_LENGTH).unwrap();
        assert_eq!(t.attempts.len(), 1);
        assert!((t.value - LN_2 / CHARACTERISTIC_LENGTH).abs() < 1e-3);
        assert!(t.agreement > 0.9 && !t.touches_box);
    }

    #[test]
    fn a_thin_ball_lowers_the_threshold_until_it_looks_as_rendered() {
        // Peak 4: the first candidate (17) is empty, yet the ball is opaque (1 − e⁻⁴ across).
        let grid = ball(4.0, 0.5);
        let t = choose(&grid, CHARACTERISTIC_LENGTH).unwrap();
        assert!(t.value < 4.0, "{t:?}");
        assert!((radius(&grid, t.value) - 0.5).abs() < 0.06, "{t:?}");
    }

    #[test]
    fn dense_fog_around_a_ball_raises_the_threshold() {
        let grid = grid_of(40, |p| if p.length() < 0.5 { 900.0 } else { 60.0 });
        let t = choose(&grid, CHARACTERISTIC_LENGTH).unwrap();
        assert!(t.value > 60.0 && !t.touches_box, "{t:?}");
        assert!(t.attempts.iter().any(|a| a.1 == Verdict::TouchesBox));
        assert!((radius(&grid, t.value) - 0.5).abs() < 0.06);
    }

    #[test]
    fn floaters_on_the_box_do_not_count_as_touching() {
        let grid =
            grid_of(40, |p| if p.length() < 0.5 || (p - Vec3::ONE).length() < 0.12 { 100.0 } else { 0.0 });
        let t = choose(&grid, CHARACTERISTIC_LENGTH).unwrap();
        assert!(!t.touches_box);
    }

    #[test]
    fn a_full_box_is_cut_off_and_says_so() {
        let t = choose(&grid_of(16, |_| 30.0), CHARACTERISTIC_LENGTH).unwrap();
        assert!(t.touches_box);
        assert!(t.value < 30.0);
    }

    #[test]
    fn empty_and_tiny_fields_are_errors_with_a_hint() {
        for grid in [
            grid_of(16, |_| 0.0),
            grid_of(16, |_| f32::NAN),
            grid_of(64, |p| if p.length() < 0.035 { 1e3 } else { 0.0 }),
        ] {
            let error = choose(&grid, CHARACTERISTIC_LENGTH).unwrap_err();
            assert!(error.hint_text().is_some());
        }
    }
}
