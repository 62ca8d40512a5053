//! Score distillation sampling (Poole et al., "DreamFusion", 2022).
//!
//! `∂L/∂z = w(t)(ε̂(α z + σ ε, t, y) − ε)`, mean over the batch, never through the predictor.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::TimestepRange;
use crate::prior::schedule::{Schedule, per_sample};
use crate::rng::{Rng, Stream};
use crate::sample::{NoisePredictor, normal_like};
use crate::{Error, Result};

/// The weight w(t) of a timestep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// σ² (DreamFusion).
    #[default]
    Sigma2,
    /// 1 (Magic3D).
    One,
    /// α σ.
    AlphaSigma,
    /// α σ² (Fantasia3D, Latent-NeRF).
    AlphaSigma2,
}

impl Weighting {
    /// w from α and σ.
    pub fn weight(self, alpha: f64, sigma: f64) -> f64 {
        match self {
            Self::Sigma2 => sigma * sigma,
            Self::One => 1.0,
            Self::AlphaSigma => alpha * sigma,
            Self::AlphaSigma2 => alpha * sigma * sigma,
        }
    }
}

/// Dynamic thresholding of the one-step estimate (Saharia et al. 2022): where the quantile of |x̂_0|
/// in a sample exceeds `range`, x̂_0 is clamped to it and scaled back into ± `range`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Quantile of |x̂_0| over a sample's elements, in (0, 1].
    pub quantile: f64,
    /// What latents may reach, > 0.
    pub range: f64,
}

/// Settings of [`Sds`]; guidance belongs to the predictor ([`crate::sample::guidance`]).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SdsConfig {
    /// Which timesteps.
    pub timesteps: TimestepRange,
    /// w(t).
    pub weighting: Weighting,
    /// The root mean square of a sample's gradient, before the mean over the batch, is scaled down
    /// to this at most.
    pub max_gradient_rms: Option<f64>,
    /// Dynamic thresholding of x̂_0.
    pub threshold: Option<Threshold>,
    /// Bounds on the size of each number of the weighted gradient, before the mean over the batch, at the start
    /// and at the end of the run, linear in progress between: score debiasing (Hong et al. 2023, "Debiasing
    /// Scores and Prompts of 2D Diffusion for View-consistent Text-to-3D Generation").
    pub clip: Option<[f64; 2]>,
}

/// The loss.
#[derive(Debug, Clone)]
pub struct Sds {
    schedule: Schedule,
    config: SdsConfig,
}

/// Where in a run an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct At {
    /// The optimisation step; with the seed it decides timesteps and noise.
    pub step: u32,
    /// Progress 0..=1 of the annealing.
    pub progress: f64,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// Latents with a step's noise.
#[derive(Debug, Clone)]
pub struct Noised {
    /// The clean latents, detached.
    pub z: Tensor,
    /// The timestep of each sample.
    pub t: Vec<f32>,
    /// ε, shaped as z.
    pub noise: Tensor,
    /// α z + σ ε.
    pub x_t: Tensor,
}

/// What one evaluation gives.
#[derive(Debug, Clone)]
pub struct SdsGradient {
    /// ∂L/∂z, shaped as z.
    pub gradient: Tensor,
    /// The timestep of each sample.
    pub t: Vec<f32>,
    /// Root mean square of each sample's gradient as weighted and clipped, before the mean.
    pub rms: Vec<f64>,
    /// The one-step estimate x̂_0 of the clean latents, shaped as z.
    pub x0: Tensor,
}

impl Sds {
    /// # Errors
    /// [`Error::Invalid`] naming the setting that is out of its range.
    pub fn new(schedule: Schedule, config: SdsConfig) -> Result<Self> {
        config.timesteps.check()?;
        if config.max_gradient_rms.is_some_and(|m| m.is_nan() || m <= 0.0) {
            return Err(Error::invalid("max_gradient_rms", "must be positive"));
        }
        if let Some(bound) = config.clip.iter().flatten().find(|b| b.is_nan() || **b <= 0.0) {
            return Err(Error::invalid("clip", format!("{bound} must be positive")));
        }
        if let Some(Threshold { quantile, range }) = config.threshold
            && !(quantile > 0.0 && quantile <= 1.0 && range > 0.0)
        {
            let why = format!("quantile {quantile} must be in (0, 1], range {range} positive");
            return Err(Error::invalid("threshold", why));
        }
        Ok(Self { schedule, config })
    }

    /// The settings.
    pub fn config(&self) -> &SdsConfig {
        &self.config
    }

    /// The timesteps that [`Sds::gradient`] will use: `(seed, step)` decides.
    pub fn timesteps(&self, batch: usize, step: u32, progress: f64, seed: u64) -> Vec<f32> {
        self.config.timesteps.draw(batch, progress, self.schedule.len(), seed, step)
    }

    /// The gradient on latents `z` (`[B, C, h, w]`) at optimisation step `step`, `progress` 0..=1 of
    /// the annealing. Timesteps and noise are keyed by `(seed, Timestep | Noise, step, index)`.
    ///
    /// # Errors
    /// Those of the predictor, and [`Error::NotFinite`] if the gradient is not finite.
    pub fn gradient(
        &self,
        z: &Tensor,
        predictor: &dyn NoisePredictor,
        step: u32,
        progress: f64,
        seed: u64,
    ) -> Result<SdsGradient> {
        let noised = self.noised(z, At { step, progress, seed })?;
        let Noised { t, noise, x_t, .. } = &noised;
        let mut eps = predictor.predict(x_t, t)?.detach();
        let mut x0 = self.schedule.sample_from_epsilon(&eps, x_t, t)?;
        if let Some(threshold) = self.config.threshold {
            x0 = dynamic_threshold(&x0, threshold)?;
            eps = self.schedule.epsilon_from_sample(&x0, x_t, t)?;
        }
        self.weighted(&(eps - noise)?, noised, x0, At { step, progress, seed })
    }

    /// The noisy latents of a step: timesteps and noise are keyed by `(seed, Timestep | Noise, step,
    /// index)`, so that every loss looks through the same noise.
    ///
    /// # Errors
    /// Tensor errors of the device.
    pub fn noised(&self, z: &Tensor, at: At) -> Result<Noised> {
        let z = z.detach();
        let t = self.timesteps(z.dim(0)?, at.step, at.progress, at.seed);
        let noise = normal_like(&z, &Rng::new(at.seed, Stream::Noise, at.step))?;
        let x_t = self.schedule.add_noise(&z, &noise, &t)?;
        Ok(Noised { z, t, noise, x_t })
    }

    /// The schedule the loss noises by.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// w(t) times `residual`, clipped both ways, as the mean over the batch.
    pub(super) fn weighted(
        &self,
        residual: &Tensor,
        noised: Noised,
        x0: Tensor,
        at: At,
    ) -> Result<SdsGradient> {
        let Noised { z, t, .. } = noised;
        let weights = t
            .iter()
            .map(|&t| self.config.weighting.weight(self.schedule.alpha(t), self.schedule.sigma(t)))
            .collect();
        let mut weighted = residual.detach().broadcast_mul(&per_sample(weights, &z)?)?;
        if let Some([start, end]) = self.config.clip {
            let bound = start + (end - start) * at.progress.clamp(0.0, 1.0);
            // Comparisons with NaN would make a bound of it, and a broken answer pass for a sound one.
            finite(&root_mean_square(&weighted)?, &t, at.step)?;
            weighted = weighted.clamp(-bound, bound)?;
        }
        let (factors, rms) = self.factors(&weighted, &t, at.step)?;
        let gradient = weighted.broadcast_mul(&per_sample(factors, &z)?)?;
        Ok(SdsGradient { gradient, t, rms, x0 })
    }

    /// Per sample: clipping times 1/B, and the clipped root mean square.
    fn factors(&self, weighted: &Tensor, t: &[f32], step: u32) -> Result<(Vec<f64>, Vec<f64>)> {
        let mut rms = root_mean_square(weighted)?;
        finite(&rms, t, step)?;
        let limit = self.config.max_gradient_rms.unwrap_or(f64::INFINITY);
        let factor = |r: &mut f64| {
            let clip = if *r > limit { limit / *r } else { 1.0 };
            *r *= clip;
            clip / t.len() as f64
        };
        Ok((rms.iter_mut().map(factor).collect(), rms))
    }
}

/// An answer that is no number must not be learned from.
fn finite(rms: &[f64], t: &[f32], step: u32) -> Result<()> {
    match rms.iter().position(|r| !r.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::NotFinite(format!(
            "the prior's answer is not finite (step {step}, sample {i}, timestep {})",
            t[i]
        ))),
    }
}

fn root_mean_square(x: &Tensor) -> Result<Vec<f64>> {
    let mean = x.to_dtype(candle_core::DType::F64)?.sqr()?.flatten_from(1)?.mean(1)?;
    Ok(mean.sqrt()?.to_vec1()?)
}

fn dynamic_threshold(x0: &Tensor, threshold: Threshold) -> Result<Tensor> {
    let rows = x0.to_dtype(candle_core::DType::F64)?.flatten_from(1)?.to_vec2::<f64>()?;
    let clamp = |row: Vec<f64>| {
        let mut sizes: Vec<f64> = row.iter().map(|v| v.abs()).collect();
        sizes.sort_unstable_by(f64::total_cmp);
        let rank = (threshold.quantile * (sizes.len() - 1) as f64).round() as usize;
        let limit = sizes[rank].max(threshold.range);
        row.into_iter().map(move |v| v.clamp(-limit, limit) * threshold.range / limit)
    };
    let values: Vec<f64> = rows.into_iter().flat_map(clamp).collect();
    Ok(Tensor::from_vec(values, x0.dims(), x0.device())?.to_dtype(x0.dtype())?)
}
