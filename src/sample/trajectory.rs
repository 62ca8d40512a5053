//! The noise levels a sampler visits.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::prior::schedule::{BetaSchedule, Config, Prediction, Schedule, SigmaSpacing, Spacing, per_sample};
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

    /// σ/α, the noise scale of x/α.
    pub fn ratio(&self) -> f64 {
        ((1.0 - self.alpha_bar) / self.alpha_bar).sqrt()
    }

    /// Half log signal-to-noise ratio λ = ln(α/σ); +∞ without noise, −∞ without signal.
    pub fn lambda(&self) -> f64 {
        (self.alpha() / self.sigma()).ln()
    }
}

/// How estimates of x_0 are kept in range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// Clamped to ± this.
    Range(f64),
    /// Dynamic thresholding (Saharia et al. 2022): clamped to ±s and divided by s, where s is, sample by
    /// sample, the quantile of the magnitudes, at least 1 and at most `most`.
    Dynamic {
        /// In 0..=1.
        quantile: f64,
        /// Largest s.
        most: f64,
    },
}

impl Clip {
    fn of(config: &Config) -> Option<Self> {
        if config.thresholding {
            let quantile = config.dynamic_thresholding_ratio;
            return Some(Self::Dynamic { quantile, most: config.sample_max_value });
        }
        config.clip_sample.then_some(Self::Range(config.clip_sample_range))
    }

    /// `x0` `[B, …]` in range.
    pub(super) fn apply(self, x0: &Tensor) -> Result<Tensor> {
        let (quantile, most) = match self {
            Self::Range(limit) => return Ok(x0.clamp(-limit, limit)?),
            Self::Dynamic { quantile, most } => (quantile, most),
        };
        let samples = x0.flatten_from(1)?.abs()?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let limits: Vec<f64> =
            samples.into_iter().map(|values| quantile_of(values, quantile).max(1.0).min(most)).collect();
        let limits = per_sample(limits, x0)?;
        let clamped = x0.broadcast_minimum(&limits)?.broadcast_maximum(&limits.neg()?)?;
        Ok(clamped.broadcast_div(&limits)?)
    }
}

/// The quantile `q` of `values`, linear between the two nearest; NaN beyond all.
fn quantile_of(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let at = q * last as f64;
    let (low, share) = (at as usize, at.fract());
    values[low] + share * (values[(low + 1).min(last)] - values[low])
}

/// Levels from noisy to clean; one more than there are steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory {
    /// The levels, ᾱ rising.
    pub levels: Vec<Level>,
    /// How estimates of x_0 are kept in range.
    pub clip: Option<Clip>,
    /// ᾱ at which DDIM's steps arrive, where that is not the next level's (see [`Trajectory::ddim`]).
    pub(super) arrivals: Option<Vec<f64>>,
    /// ᾱ of every timestep of the schedule.
    pub(super) alphas_cumprod: Arc<[f32]>,
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

    /// [`Trajectory::new`] as diffusers' DDIM scheduler walks it: a step goes down by T/`steps` (rounded
    /// down) timesteps, also where the grid (`linspace`, some of `trailing`) is spaced otherwise; the next
    /// one then takes the sample for one of its own level.
    ///
    /// # Errors
    /// As [`Schedule::timesteps`].
    pub fn ddim(schedule: &Schedule, steps: usize) -> Result<Self> {
        let mut path = Self::new(schedule, steps)?;
        let stride = (schedule.len() / steps) as f32;
        let arrival = |from: &Level| match from.t - stride {
            t if t >= 0.0 => schedule.alpha_bar(t),
            _ => schedule.final_alpha_bar(),
        };
        let arrivals: Vec<f64> = path.levels[..steps].iter().map(arrival).collect();
        let differ = path.levels[1..].iter().zip(&arrivals).any(|(level, a)| level.alpha_bar != *a);
        path.arrivals = differ.then_some(arrivals);
        Ok(path)
    }

    /// The last `steps` steps only; all if there are no more.
    #[must_use]
    pub fn last(mut self, steps: usize) -> Self {
        let skipped = self.steps().saturating_sub(steps);
        self.levels.drain(..skipped);
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.drain(..skipped);
        }
        self
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
        let clip = Clip::of(&schedule.config);
        let alphas_cumprod = schedule.alphas_cumprod.as_slice().into();
        Ok(Self { levels, clip, arrivals: None, alphas_cumprod })
    }

    /// `steps` steps as diffusers' DPM-Solver and UniPC take them: whole timesteps as if there were one
    /// step more, then to the data (ᾱ = 1, or ᾱ_0 as the config's `final_sigmas_type` says).
    ///
    /// # Errors
    /// [`Error::Invalid`] if the schedule cannot supply so many different timesteps.
    pub fn solver(schedule: &Schedule, steps: usize) -> Result<Self> {
        let total = schedule.len();
        if steps == 0 || steps >= total {
            return Err(Error::invalid("steps", format!("{steps} is not in 1..{total}")));
        }
        if schedule.config.sigma_spacing != SigmaSpacing::Timesteps {
            let whole = Self::to_data(schedule, &[(total - 1) as f32, 0.0])?;
            // diffusers asks the model at whole timesteps, rounded where the spacing is Karras's or Lu's, else cut;
            // its logarithms lose a hair, so that it begins at T − 2 and not T − 1. Where ε has to be computed from the
            // answer, the level's own timestep is the consistent one.
            let config = &schedule.config;
            let rounded = matches!(config.sigma_spacing, SigmaSpacing::Karras | SigmaSpacing::Lu)
                && config.beta_schedule != BetaSchedule::SquaredCosine;
            let whole_t: fn(f64) -> f64 = match config.prediction_type {
                Prediction::Epsilon if rounded => f64::round_ties_even,
                Prediction::Epsilon => |t| (t - 1e-6).floor().max(0.0),
                _ => |t| t,
            };
            return Ok(whole.respaced(schedule, steps, whole_t));
        }
        let timesteps: Vec<f32> = match schedule.config.timestep_spacing {
            Spacing::Trailing => schedule.timesteps(steps)?,
            Spacing::Leading => {
                let ratio = total / (steps + 1);
                let offset = schedule.config.steps_offset;
                (1..=steps).rev().map(|i| (i * ratio + offset) as f32).collect()
            }
            Spacing::Linspace => {
                let ratio = (total - 1) as f64 / steps as f64;
                (1..=steps).rev().map(|i| (i as f64 * ratio).round_ties_even() as f32).collect()
            }
        };
        Self::to_data(schedule, &timesteps)
    }

    /// `steps` steps as diffusers' Euler samplers take them: fractions of timesteps where the spacing
    /// is `linspace`, with σ/α linear between whole ones; then to the data.
    ///
    /// # Errors
    /// As [`Schedule::timesteps`].
    pub fn sigmas(schedule: &Schedule, steps: usize) -> Result<Self> {
        let path = Self::to_data(schedule, &schedule.timesteps(steps)?)?;
        if schedule.config.sigma_spacing != SigmaSpacing::Timesteps {
            return Ok(path.respaced(schedule, steps, |t| t));
        }
        if schedule.config.timestep_spacing != Spacing::Linspace || steps < 2 {
            return Ok(path);
        }
        let last = schedule.len() - 1;
        let ratio = |t: usize| {
            let a = f64::from(schedule.alphas_cumprod[t.min(last)]);
            ((1.0 - a) / a).sqrt()
        };
        let mut path = path;
        for (i, level) in path.levels[..steps].iter_mut().enumerate() {
            let t = last as f64 * (steps - 1 - i) as f64 / (steps - 1) as f64;
            let (low, share) = (t as usize, t.fract());
            let s = ratio(low) * (1.0 - share) + ratio(low + 1) * share;
            *level = Level { t: t as f32, alpha_bar: 1.0 / (1.0 + s * s) };
        }
        Ok(path)
    }

    /// `steps` of the `original` timesteps a consistency model was distilled on, from noisy to clean.
    /// The last level is the data.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `steps` is not in 1..=`original`, or that not in 1..=T.
    pub fn consistency(schedule: &Schedule, steps: usize, original: usize) -> Result<Self> {
        if original == 0 || original > schedule.len() || steps == 0 || steps > original {
            let why = format!("{steps} of {original} of {} timesteps", schedule.len());
            return Err(Error::invalid("steps", why));
        }
        let k = schedule.len() / original;
        let timesteps: Vec<f32> =
            (0..steps).map(|i| ((original - i * original / steps) * k - 1) as f32).collect();
        Self::to_data(schedule, &timesteps)
    }

    fn to_data(schedule: &Schedule, timesteps: &[f32]) -> Result<Self> {
        let mut path = Self::through(schedule, timesteps)?;
        let last = if schedule.config.final_sigma_zero { 1.0 } else { schedule.alpha_bar(0.0) };
        path.levels.push(Level { t: 0.0, alpha_bar: last });
        Ok(path)
    }

    /// `steps` levels from the first of these to the last but one, spread as the config's
    /// `sigma_spacing` says, then the last.
    fn respaced(mut self, schedule: &Schedule, steps: usize, whole_t: fn(f64) -> f64) -> Self {
        // Without any signal the ratio is infinite; diffusers' schedulers take ᾱ = 2⁻²⁴ then.
        let end = |level: &Level| level.ratio().min(4096.0);
        let ends = [end(&self.levels[0]), end(&self.levels[self.levels.len() - 2])];
        let between = |a: f64, b: f64, i: usize| a + (b - a) * i as f64 / (steps.max(2) - 1) as f64;
        let last = self.levels[self.levels.len() - 1];
        let level = |i: usize| {
            let ratio = match schedule.config.sigma_spacing {
                SigmaSpacing::Karras => between(ends[0].powf(1.0 / 7.0), ends[1].powf(1.0 / 7.0), i).powi(7),
                SigmaSpacing::Beta => {
                    let share = between(1.0, 0.0, i);
                    ends[1] + puruspe::invbetai(share, 0.6, 0.6) * (ends[0] - ends[1])
                }
                _ => between(ends[0].ln(), ends[1].ln(), i).exp(),
            };
            let t = whole_t(timestep_of(&self.alphas_cumprod, ratio));
            Level { t: t as f32, alpha_bar: 1.0 / (1.0 + ratio * ratio) }
        };
        let levels = (0..steps).map(level).chain([last]).collect();
        self.levels = levels;
        self
    }

    /// The level with σ/α = `ratio`, and the fraction of a timestep that has it
    /// ([`Schedule::alpha_bar`] inverted).
    pub fn level_at(&self, ratio: f64) -> Level {
        let alpha_bar = 1.0 / (1.0 + ratio * ratio);
        let table = &self.alphas_cumprod;
        let at = |i: usize| f64::from(table[i]).ln();
        let high = table.partition_point(|&a| f64::from(a) > alpha_bar).clamp(1, table.len().max(2) - 1);
        if table.len() < 2 {
            return Level { t: 0.0, alpha_bar };
        }
        let share = (alpha_bar.ln() - at(high - 1)) / (at(high) - at(high - 1));
        Level { t: (high - 1) as f32 + share.clamp(0.0, 1.0) as f32, alpha_bar }
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }
}

/// The fraction of a timestep whose ln(σ/α), linear between whole ones, is that of `ratio`.
fn timestep_of(alphas_cumprod: &[f32], ratio: f64) -> f64 {
    let log = |i: usize| {
        let a = f64::from(alphas_cumprod[i]);
        (((1.0 - a) / a).sqrt()).ln()
    };
    let last = alphas_cumprod.len() - 1;
    if last == 0 {
        return 0.0;
    }
    let wanted = ratio.max(1e-10).ln();
    let low = (0..last).rev().find(|&i| log(i) <= wanted).unwrap_or(0);
    let share = (wanted - log(low)) / (log(low + 1) - log(low));
    low as f64 + share.clamp(0.0, 1.0)
}
