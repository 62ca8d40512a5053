//! Which timesteps score distillation looks at, and how that changes over a run.

use serde::{Deserialize, Serialize};

use crate::rng::{Rng, Stream};
use crate::{Error, Result};

/// How the bounds move from their start to their end while progress p goes from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Annealing {
    /// They do not: the start values hold.
    None,
    /// By p.
    Linear,
    /// By √p: fast at first (HiFA).
    Sqrt,
    /// At once, when p reaches this (ProlificDreamer: .2).
    Step(f64),
}

impl Annealing {
    /// The share of the way from start to end at progress `p` (clamped to 0..=1).
    pub fn share(self, p: f64) -> f64 {
        let p = p.clamp(0.0, 1.0);
        match self {
            Self::None => 0.0,
            Self::Linear => p,
            Self::Sqrt => p.sqrt(),
            Self::Step(at) => f64::from(u8::from(p >= at)),
        }
    }
}

/// Timesteps are drawn uniformly between two bounds, given as fractions of the schedule's length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimestepRange {
    /// Lower bound at the start and at the end of the run.
    pub min: [f64; 2],
    /// Upper bound at the start and at the end of the run.
    pub max: [f64; 2],
    /// The way between start and end.
    pub annealing: Annealing,
    /// Give each of the B samples of a step its own B-th of the range (in an order shuffled by
    /// rotation, so that no camera keeps a part of the range): the same mean, less variance.
    pub stratified: bool,
}

impl Default for TimestepRange {
    /// [.02, .98] shrinking linearly to [.02, .50], stratified.
    fn default() -> Self {
        Self { min: [0.02, 0.02], max: [0.98, 0.5], annealing: Annealing::Linear, stratified: true }
    }
}

impl TimestepRange {
    /// Checks that all bounds are fractions in order.
    ///
    /// # Errors
    /// [`Error::Invalid`] if not `0 ≤ min ≤ max ≤ 1` at the start and at the end.
    pub fn check(&self) -> Result<()> {
        let ordered = |i: usize| 0.0 <= self.min[i] && self.min[i] <= self.max[i] && self.max[i] <= 1.0;
        if ordered(0) && ordered(1) {
            return Ok(());
        }
        let why = format!("need 0 <= min <= max <= 1, got min {:?} and max {:?}", self.min, self.max);
        Err(Error::invalid("timestep range", why))
    }

    /// First and last timestep of a schedule of `len` timesteps at `progress` 0..=1 of the run.
    pub fn bounds(&self, progress: f64, len: usize) -> (u32, u32) {
        let share = self.annealing.share(progress);
        let at = |[start, end]: [f64; 2]| {
            let t = (start + (end - start) * share) * len as f64;
            t.round().clamp(0.0, (len - 1) as f64) as u32
        };
        let (low, high) = (at(self.min), at(self.max));
        (low.min(high), high)
    }

    /// The whole timesteps of a batch, keyed by `(seed, Timestep, step, index)`.
    pub fn draw(&self, batch: usize, progress: f64, len: usize, seed: u64, step: u32) -> Vec<f32> {
        let (low, high) = self.bounds(progress, len);
        let rng = Rng::new(seed, Stream::Timestep, step);
        // Beyond any sample's index, so that it is independent of their draws.
        let shift = u64::from(rng.below(u64::MAX, batch.max(1) as u32));
        let one = |i: u64| {
            let mut u = f64::from(rng.uniform(i));
            if self.stratified {
                u = (((i + shift) % batch as u64) as f64 + u) / batch as f64;
            }
            let t = f64::from(low) + u * f64::from(high - low + 1);
            t.min(f64::from(high)).floor() as f32
        };
        (0..batch as u64).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_the_annealing() {
        let mut range = TimestepRange::default();
        assert_eq!(range.bounds(0.0, 1000), (20, 980));
        assert_eq!(range.bounds(0.25, 1000), (20, 860));
        assert_eq!(range.bounds(7.0, 1000), (20, 500));
        range.annealing = Annealing::Sqrt;
        assert_eq!(range.bounds(0.25, 1000), (20, 740));
        range.annealing = Annealing::Step(0.2);
        assert_eq!((range.bounds(0.19, 1000).1, range.bounds(0.2, 1000).1), (980, 500));
        range.annealing = Annealing::None;
        assert_eq!(range.bounds(0.9, 1000), (20, 980));
        range.max = [1.0, 1.0];
        assert_eq!(range.bounds(0.0, 1000).1, 999);
        range.min = [0.5, 0.9];
        range.max = [0.8, 0.85];
        assert!(range.check().unwrap_err().is_usage());
    }

    #[test]
    fn draws_are_uniform_and_include_both_bounds() {
        for stratified in [false, true] {
            let range =
                TimestepRange { min: [0.2; 2], max: [0.3; 2], annealing: Annealing::None, stratified };
            let mut counts = [0u32; 11];
            for step in 0..5500 {
                for t in range.draw(4, 0.0, 100, 1, step) {
                    counts[t as usize - 20] += 1;
                }
            }
            // 2,000 expected a bin; five standard deviations of a binomial are 213.
            assert!(counts.iter().all(|&c| c.abs_diff(2000) < 213), "{stratified} {counts:?}");
        }
    }

    #[test]
    fn strata_cover_the_range_and_rotate() {
        let range = TimestepRange { annealing: Annealing::None, ..TimestepRange::default() };
        let mut first = [0; 4];
        for step in 0..400 {
            let t = range.draw(4, 0.0, 1000, 8, step);
            let mut strata: Vec<usize> = t.iter().map(|t| ((t - 20.0) / 240.25) as usize).collect();
            first[strata[0]] += 1;
            strata.sort_unstable();
            assert_eq!(strata, [0, 1, 2, 3], "{t:?}");
        }
        // 100 expected; five standard deviations are 43.
        assert!(first.iter().all(|&c: &i32| (c - 100).abs() < 44), "{first:?}");
    }
}
