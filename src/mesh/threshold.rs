//! Automatic iso value: the density whose solid has the silhouette that the volume renderer shows.
//!
//! Every density τ has a length over which it absorbs half of the light, ln 2 / τ. The first
//! candidate is the τ of a given characteristic length; the others lie around it in steps of √2.
//! A candidate's solid {σ > τ} is projected along the three axes and compared (intersection over
//! union) with the pixels that a volume rendering along the same axis leaves at least half
//! opaque. Among the candidates with nearly the best agreement those with the fewest tunnels through
//! their largest component are kept (a field that is foggy in places is torn into lace by too high a
//! value, which the silhouette hardly shows), and of those the one closest to the first wins. If all are
//! tiny or touch the box, the others are tried by falling agreement.

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
/// Tunnels that a candidate may have beyond the fewest.
const SPARE_TUNNELS: usize = 2;
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
    let ties = candidates.iter().filter(|c| near(c)).count();
    let mut attempts = Vec::new();
    let mut good = Vec::new();
    for (i, &(_, value, agreement)) in candidates.iter().enumerate() {
        // Beyond the ties the first that will do is taken.
        if i >= ties && !good.is_empty() {
            break;
        }
        let (verdict, solid) = examine(grid, value);
        attempts.push((value, verdict));
        if verdict == Verdict::Good {
            good.push((value, agreement, tunnels(grid.points, &solid)));
        }
    }
    let fewest = good.iter().map(|g| g.2).min().unwrap_or(0);
    if let Some(&(value, agreement, _)) = good.iter().find(|g| g.2 <= fewest + SPARE_TUNNELS) {
        return Ok(Threshold { value, agreement, touches_box: false, attempts });
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

/// Judges the largest component denser than `tau`, and returns its cells.
fn examine(grid: &Grid, tau: f32) -> (Verdict, Vec<bool>) {
    let n = grid.points;
    let mut open: Vec<bool> = grid.values.iter().map(|v| *v > tau).collect();
    let mut largest = Vec::new();
    for seed in 0..open.len() {
        if open[seed] {
            let found = flood(n, seed, &mut open);
            if found.len() > largest.len() {
                largest = found;
            }
        }
    }
    let (mut low, mut high) = ([n; 3], [0; 3]);
    let mut solid = vec![false; grid.values.len()];
    for &at in &largest {
        solid[at] = true;
        for (axis, p) in [at % n, at / n % n, at / n / n].into_iter().enumerate() {
            low[axis] = low[axis].min(p);
            high[axis] = high[axis].max(p);
        }
    }
    let side = |axis: usize| high[axis].saturating_sub(low[axis]) as f32 * grid.spacing;
    let verdict = if largest.is_empty() {
        Verdict::Empty
    } else if low.contains(&0) || high.contains(&(n - 1)) {
        Verdict::TouchesBox
    } else if side(0).max(side(1)).max(side(2)) < TINY {
        Verdict::Tiny
    } else {
        Verdict::Good
    };
    (verdict, solid)
}

/// The cells that are connected with `seed` by faces; they are no longer `open` then.
fn flood(n: usize, seed: usize, open: &mut [bool]) -> Vec<usize> {
    let mut found = vec![seed];
    open[seed] = false;
    let mut next = 0;
    while let Some(&at) = found.get(next) {
        next += 1;
        let p = [at % n, at / n % n, at / n / n];
        for (axis, stride) in [1, n, n * n].into_iter().enumerate() {
            if p[axis] > 0 && std::mem::take(&mut open[at - stride]) {
                found.push(at - stride);
            }
            if p[axis] + 1 < n && std::mem::take(&mut open[at + stride]) {
                found.push(at + stride);
            }
        }
    }
    found
}

/// Tunnels through one component inside the box (its first Betti number): 1 + cavities − χ, where χ is the
/// Euler characteristic of the complex of its points, edges, squares and cubes.
fn tunnels(n: usize, solid: &[bool]) -> usize {
    let mut euler = 0i64;
    for at in (0..solid.len()).filter(|at| solid[*at]) {
        let p = [at % n, at / n % n, at / n / n];
        // The cells whose lowest corner this is, by the axes along which they extend.
        for axes in 0..8usize {
            let along = |bit: usize| axes >> bit & 1 == 1;
            let inside = (0..3).all(|axis| !along(axis) || p[axis] + 1 < n);
            let corner = |c: usize| at + (c & 1) + (c >> 1 & 1) * n + (c >> 2 & 1) * n * n;
            if inside && (0..8).filter(|c| c & !axes == 0).all(|c| solid[corner(c)]) {
                euler += if axes.count_ones() % 2 == 0 { 1 } else { -1 };
            }
        }
    }
    let mut open: Vec<bool> = solid.iter().map(|s| !s).collect();
    let mut outside = 0i64;
    for seed in 0..open.len() {
        if open[seed] {
            flood(n, seed, &mut open);
            outside += 1;
        }
    }
    // One of the empty components is the outside.
    usize::try_from(outside - euler).unwrap_or(0)
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
    fn tunnels_are_counted() {
        let count = |f: &(dyn Fn(Vec3) -> bool + Sync)| {
            let grid = grid_of(40, |p| if f(p) { 1.0 } else { 0.0 });
            let (verdict, solid) = examine(&grid, 0.5);
            assert_eq!(verdict, Verdict::Good);
            tunnels(grid.points, &solid)
        };
        let ring = |p: Vec3, at: f32| Vec3::new(p.x.hypot(p.y) - at, p.z, 0.0).length() < 0.12;
        assert_eq!(count(&|p| p.length() < 0.6), 0);
        assert_eq!(count(&|p| p.length() < 0.6 && p.length() > 0.3), 0, "a cavity is no tunnel");
        assert_eq!(count(&|p| ring(p, 0.5)), 1);
        // A wheel with one bar across.
        assert_eq!(count(&|p| ring(p, 0.5) || (p.length() < 0.5 && p.y.abs().max(p.z.abs()) < 0.1)), 2);
        // A ball pierced along all three axes: six openings, five tunnels.
        let hole = |p: Vec3| p.x.hypot(p.y).min(p.y.hypot(p.z)).min(p.z.hypot(p.x)) < 0.15;
        assert_eq!(count(&|p| p.length() < 0.6 && !hole(p)), 5);
    }

    #[test]
    fn lace_is_avoided_where_a_lower_threshold_is_whole() {
        // Schwarz' P surface: at the first candidate (17) the ball is a lattice of bars, at 12 (where the sum of
        // sines is below -1, the necks are closed) it is solid but for bubbles.
        let grid = grid_of(40, |p| {
            let wave = ((p.x * 25.0).sin() + (p.y * 25.0).sin() + (p.z * 25.0).sin()) / 3.0;
            if p.length() < 0.5 { 16.0 + 8.0 * wave } else { 0.0 }
        });
        let first = LN_2 / CHARACTERISTIC_LENGTH;
        assert!(tunnels(grid.points, &examine(&grid, first).1) > 20);
        let t = choose(&grid, CHARACTERISTIC_LENGTH).unwrap();
        assert!(t.value < 13.0 && t.value > 5.0, "{t:?}");
        assert!(tunnels(grid.points, &examine(&grid, t.value).1) <= SPARE_TUNNELS);
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
