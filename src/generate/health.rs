//! Runs that go nowhere: an empty scene, a scene full of fog, steps without a usable gradient.
//!
//! What is counted here goes into checkpoints, so that a resumed run notices at the same step.

use crate::config::Config;

/// Mean opacity below which nothing is seen: a twentieth of what a thin sword shows.
const EMPTY: f32 = 0.002;
/// Mean opacity above which the field has filled its box.
const FULL: f32 = 0.97;
/// Share of half transparent pixels above which the field is fog.
const HAZE: f32 = 0.8;
/// Steps in a row for which it must be so.
const PATIENCE: u32 = 20;
/// Steps in a row without a usable gradient after which the run is given up.
const BROKEN: u32 = 10;
/// What a fresh start does to the weights of what empties (or fills) the scene.
const EASE: f64 = 0.25;

/// What ails a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ill {
    /// Nothing is left.
    Empty,
    /// Fog, or a full box.
    Fog,
}

/// Counts steps in a row, and fresh starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Health {
    empty: u32,
    fog: u32,
    broken: u32,
    /// Fresh starts after an empty scene and after fog.
    pub(super) restarts: [u32; 2],
}

impl Health {
    /// After a step that showed this mean opacity and share of half transparent pixels. An illness is
    /// reported once, when it has lasted long enough; fog while a run is young is only its blob.
    pub(super) fn see(&mut self, opacity: f32, haze: f32, progress: f64) -> Option<Ill> {
        self.broken = 0;
        let count = |now: bool, so_far: u32| if now { so_far + 1 } else { 0 };
        self.empty = count(opacity < EMPTY, self.empty);
        let fog = opacity > FULL || (haze > HAZE && progress > 0.25);
        self.fog = count(fog, self.fog);
        match (self.empty == PATIENCE, self.fog == 3 * PATIENCE) {
            (true, _) => Some(Ill::Empty),
            (_, true) => Some(Ill::Fog),
            _ => None,
        }
    }

    /// After a step of the second stage that was not left out.
    pub(super) fn worked(&mut self) {
        self.broken = 0;
    }

    /// After a step that was left out; true if it was one too many.
    pub(super) fn broke(&mut self) -> bool {
        self.broken += 1;
        self.broken >= BROKEN
    }

    /// Fresh starts so far.
    pub(super) fn attempts(&self) -> u32 {
        self.restarts[0] + self.restarts[1]
    }

    /// The counts begin again with another attempt.
    pub(super) fn restart(&mut self, ill: Ill) {
        let mut restarts = self.restarts;
        restarts[usize::from(ill == Ill::Fog)] += 1;
        *self = Self { restarts, ..Self::default() };
    }

    /// The configuration of this attempt: another seed, less of what empties or more of what clears.
    pub(super) fn config(&self, asked: &Config) -> Config {
        let mut c = asked.clone();
        let [empty, fog] = self.restarts;
        c.seed = mixed(asked.seed, u64::from(self.attempts()), 0);
        let ease = EASE.powi(empty as i32);
        for weight in [&mut c.regularize.opaque, &mut c.regularize.sparsity, &mut c.regularize.z_variance] {
            *weight *= ease;
        }
        if fog > 0 {
            let clear = EASE.powi(-(fog as i32));
            c.regularize.sparsity = (c.regularize.sparsity.max(0.01) * clear).min(10_000.0);
            c.regularize.opaque = (c.regularize.opaque.max(0.01) * clear).min(10_000.0);
        }
        c
    }

    /// For a checkpoint.
    pub(super) fn to_state(self) -> Vec<f32> {
        [self.empty, self.fog, self.broken, self.restarts[0], self.restarts[1]].map(|n| n as f32).to_vec()
    }

    /// From a checkpoint; one of before there were counts has none.
    pub(super) fn from_state(state: Option<&Vec<f32>>) -> Self {
        let at = |i: usize| state.and_then(|s| s.get(i)).map_or(0, |n| *n as u32);
        Self { empty: at(0), fog: at(1), broken: at(2), restarts: [at(3), at(4)] }
    }
}

/// The seed of an attempt and a particle; the first ones have the run's own.
pub(super) fn mixed(seed: u64, attempt: u64, particle: u64) -> u64 {
    // Odd multipliers, so that no two of the few there are meet; a TOML integer holds 63 bits.
    seed.wrapping_add(attempt.wrapping_mul(0x5851_F42D_4C95_7F2D))
        .wrapping_add(particle.wrapping_mul(0x2545_F491_4F6C_DD1D))
        & (i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_illness_is_told_once_after_it_has_lasted() {
        let mut h = Health::default();
        let mut told = Vec::new();
        for step in 0..200 {
            let opacity = if step < 10 { 0.2 } else { 0.001 };
            told.extend(h.see(opacity, 0.0, 0.5).map(|ill| (step, ill)));
        }
        assert_eq!(told, [(29, Ill::Empty)]);
        h.restart(Ill::Empty);
        // A blink does not count, and haze not in a young run.
        for step in 0..200 {
            assert_eq!(h.see(if step % 19 == 0 { 0.1 } else { 0.001 }, 0.9, 0.1), None);
        }
        let fog = (0..100).filter_map(|s| h.see(0.5, 0.9, 0.5).map(|i| (s, i))).collect::<Vec<_>>();
        assert_eq!(fog, [(59, Ill::Fog)]);
        assert_eq!(Health::from_state(Some(&h.to_state())), h);
        assert_eq!(Health::from_state(None), Health::default());
    }

    #[test]
    fn attempts_have_seeds_of_their_own_and_milder_or_clearer_weights() {
        let asked = Config { seed: 5, ..Config::default() };
        let mut h = Health::default();
        assert_eq!(h.config(&asked), asked);
        h.restart(Ill::Empty);
        let second = h.config(&asked);
        assert!(second.seed != 5 && second.seed <= i64::MAX as u64);
        assert!((second.regularize.sparsity - 0.0125).abs() < 1e-12);
        h.restart(Ill::Fog);
        let third = h.config(&asked);
        assert!(third.seed != second.seed && (third.regularize.sparsity - 0.05).abs() < 1e-12);
        third.validate().unwrap();
        assert_eq!((mixed(7, 0, 0), mixed(7, 0, 1) == mixed(7, 1, 0)), (7, false));
        let broke: Vec<bool> = (0..10).map(|_| h.broke()).collect();
        assert!(broke[9] && !broke[8]);
    }
}
