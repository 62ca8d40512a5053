//! The noise levels a sampler visits.

use crate::prior::schedule::Schedule;
use crate::{Error, Result};

/// One noise level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// The timestep told to the predictor.
    pub t: f32,
    /// ᾱ in [0, 1].
    pub alpha_bar: f64,
}

impl Level {
    /// Signal scale √ᾱ.
    pub fn alpha(&self) -> f64 {
        self.alpha_bar.sqrt()
    }

    /// Noise scale √(1−ᾱ).
    pub fn sigma(&self) -> f64 {
        (1.0 - self.alpha_bar).sqrt()
    }

    /// Half log signal-to-noise ratio λ = ln(α/σ); +∞ without noise, −∞ without signal.
    pub fn lambda(&self) -> f64 {
        (self.alpha() / self.sigma()).ln()
    }
}

/// Levels from noisy to clean; one more than there are steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory {
    /// The levels, ᾱ rising.
    pub levels: Vec<Level>,
    /// Estimates of x_0 are clamped to ± this.
    pub clip: Option<f64>,
}

impl Trajectory {
    /// `steps` steps spaced as the schedule's config says, ending at its final level (ᾱ = 1, or ᾱ_0).
    ///
    /// # Errors
    /// As [`Schedule::timesteps`].
    pub fn new(schedule: &Schedule, steps: usize) -> Result<Self> {
        let mut trajectory = Self::through(schedule, &schedule.timesteps(steps)?)?;
        trajectory.levels.push(Level { t: 0.0, alpha_bar: schedule.final_alpha_bar() });
        Ok(trajectory)
    }

    /// From the first of the given timesteps through each to the last, where it stops (so n
    /// timesteps make n−1 steps, and the result still holds the last one's noise).
    ///
    /// # Errors
    /// [`Error::Invalid`] if the timesteps are not strictly falling or leave the schedule.
    pub fn through(schedule: &Schedule, timesteps: &[f32]) -> Result<Self> {
        let last = (schedule.len() - 1) as f32;
        let inside = timesteps.iter().all(|t| (0.0..=last).contains(t));
        if !inside || timesteps.is_empty() || timesteps.windows(2).any(|w| w[0] <= w[1]) {
            let why = format!("must fall strictly, inside 0..={last}: {timesteps:?}");
            return Err(Error::invalid("timesteps", why));
        }
        let levels = timesteps.iter().map(|&t| Level { t, alpha_bar: schedule.alpha_bar(t) }).collect();
        let config = &schedule.config;
        Ok(Self { levels, clip: config.clip_sample.then_some(config.clip_sample_range) })
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }
}
