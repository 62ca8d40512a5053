//! The forward diffusion process: noise levels, prediction types and the conversions between them.
//!
//! `x_t = α_t·x_0 + σ_t·ε` with `α_t = √ᾱ_t` and `σ_t = √(1−ᾱ_t)`. Tables are computed the way
//! diffusers computes them (single-precision betas, product accumulated in double precision and
//! stored in single precision), so a model trained with either program sees the same noise.

mod config;

use std::path::Path;

use candle_core::{DType, Tensor};

pub use config::{BetaSchedule, Config, Prediction, SigmaSpacing, Spacing};

use crate::{Error, Result};

/// Stands for ᾱ = 0 at the end of a zero-SNR schedule, as in diffusers' multistep solvers: the
/// conversions between ε and x_0 stay finite, and no sample can tell the difference.
const SMALLEST_ALPHA_BAR: f32 = 1.0 / 16_777_216.0;

/// Noise levels of every timestep `0..len()`, 0 being the cleanest.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The settings this table was built from.
    pub config: Config,
    /// ᾱ_t, the share of the signal's variance left at timestep t; decreasing, in (0, 1).
    pub alphas_cumprod: Vec<f32>,
}

impl Schedule {
    /// Builds the table.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the settings do not describe a noising process (no timesteps, a beta
    /// outside [0, 1], wrong number of trained betas…).
    pub fn new(config: Config) -> Result<Self> {
        let mut betas = config.betas()?;
        if let Some((t, b)) = betas.iter().enumerate().find(|(_, b)| !(0.0..=1.0).contains(*b)) {
            return Err(Error::invalid("betas", format!("beta at timestep {t} is {b}, outside [0, 1]")));
        }
        if config.rescale_betas_zero_snr {
            if betas.len() < 2 {
                return Err(Error::invalid("rescale_betas_zero_snr", "needs two timesteps or more"));
            }
            betas = rescale_zero_terminal_snr(&betas);
        }
        let mut alphas_cumprod = cumulative_product(&betas);
        alphas_cumprod.iter_mut().for_each(|a| *a = a.max(SMALLEST_ALPHA_BAR));
        Ok(Self { config, alphas_cumprod })
    }

    /// Reads a diffusers `scheduler_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if unreadable; [`Error::File`] naming the key if it is not JSON or holds an
    /// unknown key, an unknown value or a feature that is not supported.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let json = serde_json::from_str(&text).map_err(|e| Error::file(path, e.to_string()))?;
        Config::from_json(&json).and_then(Self::new).map_err(|e| Error::file(path, e.to_string()))
    }

    /// Number of timesteps.
    #[expect(clippy::len_without_is_empty, reason = "a schedule always has timesteps")]
    pub fn len(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// ᾱ at timestep `t`. Between whole timesteps ln ᾱ is linear, as in DPM-Solver; `t` beyond the
    /// ends is clamped.
    pub fn alpha_bar(&self, t: f32) -> f64 {
        let t = f64::from(t).clamp(0.0, (self.len() - 1) as f64);
        let low = t as usize;
        let (fraction, a) = (t - low as f64, f64::from(self.alphas_cumprod[low]));
        if fraction == 0.0 {
            return a;
        }
        a.powf(1.0 - fraction) * f64::from(self.alphas_cumprod[low + 1]).powf(fraction)
    }

    /// Signal scale α_t = √ᾱ_t.
    pub fn alpha(&self, t: f32) -> f64 {
        self.alpha_bar(t).sqrt()
    }

    /// Noise scale σ_t = √(1−ᾱ_t).
    pub fn sigma(&self, t: f32) -> f64 {
        (1.0 - self.alpha_bar(t)).sqrt()
    }

    /// Signal-to-noise ratio ᾱ/(1−ᾱ).
    pub fn snr(&self, t: f32) -> f64 {
        let a = self.alpha_bar(t);
        a / (1.0 - a)
    }

    /// ᾱ of the step after timestep 0: 1 if the config says `set_alpha_to_one`, else ᾱ_0.
    pub fn final_alpha_bar(&self) -> f64 {
        if self.config.set_alpha_to_one { 1.0 } else { f64::from(self.alphas_cumprod[0]) }
    }

    /// `n` timesteps from noisy to clean, spaced as the config's `timestep_spacing` says.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `n` is 0, or more than the schedule (with its offset) can supply.
    pub fn timesteps(&self, n: usize) -> Result<Vec<f32>> {
        let total = self.len();
        if n == 0 || n > total {
            return Err(Error::invalid("steps", format!("{n} is not in 1..={total}")));
        }
        let list: Vec<f64> = match self.config.timestep_spacing {
            Spacing::Leading => {
                let ratio = total / n;
                (0..n).rev().map(|i| (i * ratio + self.config.steps_offset) as f64).collect()
            }
            Spacing::Trailing => {
                let ratio = total as f64 / n as f64;
                (0..n).map(|i| (total as f64 - i as f64 * ratio).round_ties_even() - 1.0).collect()
            }
            Spacing::Linspace => {
                let ratio = if n > 1 { (total - 1) as f64 / (n - 1) as f64 } else { 0.0 };
                (0..n).rev().map(|i| (i as f64 * ratio).round_ties_even()).collect()
            }
        };
        if list[0] > (total - 1) as f64 {
            let why = format!(
                "{n} steps with steps_offset {} reach timestep {}",
                self.config.steps_offset, list[0]
            );
            return Err(Error::invalid("steps", why).hint("Ask for fewer steps."));
        }
        Ok(list.into_iter().map(|t| t as f32).collect())
    }

    /// α and σ of each sample, `[B, 1, …]` in the type and on the device of `like` (`[B, …]`).
    ///
    /// # Errors
    /// [`Error::Invalid`] if the number of timesteps is not B or one lies outside the schedule.
    pub fn coefficients(&self, t: &[f32], like: &Tensor) -> Result<(Tensor, Tensor)> {
        self.check(t, like)?;
        let column = |f: &dyn Fn(f32) -> f64| per_sample(t.iter().map(|&t| f(t)).collect(), like);
        Ok((column(&|t| self.alpha(t))?, column(&|t| self.sigma(t))?))
    }

    fn check(&self, t: &[f32], like: &Tensor) -> Result<()> {
        if like.rank() == 0 || like.dims()[0] != t.len() {
            let why = format!("{} timesteps for a tensor of shape {:?}", t.len(), like.dims());
            return Err(Error::invalid("timesteps", why));
        }
        if !matches!(like.dtype(), DType::F32 | DType::F64) {
            return Err(Error::invalid(
                "timesteps",
                format!("tensors of {:?} lose the noise level", like.dtype()),
            ));
        }
        let last = (self.len() - 1) as f32;
        match t.iter().find(|t| !(0.0..=last).contains(*t)) {
            Some(t) => Err(Error::invalid("timesteps", format!("{t} is not in 0..={last}"))),
            None => Ok(()),
        }
    }

    /// `a·x + b·y` with the coefficients that `mix(α, σ)` returns, per sample.
    fn combine(&self, x: &Tensor, y: &Tensor, t: &[f32], mix: fn(f64, f64) -> (f64, f64)) -> Result<Tensor> {
        self.check(t, x)?;
        let (a, b): (Vec<f64>, Vec<f64>) = t.iter().map(|&t| mix(self.alpha(t), self.sigma(t))).unzip();
        Ok((x.broadcast_mul(&per_sample(a, x)?)? + y.broadcast_mul(&per_sample(b, y)?)?)?)
    }

    /// `x_t = α x_0 + σ ε`. All tensors `[B, …]`, one timestep a sample; so in the functions below.
    ///
    /// # Errors
    /// As [`Schedule::coefficients`], and if the shapes differ.
    pub fn add_noise(&self, x0: &Tensor, eps: &Tensor, t: &[f32]) -> Result<Tensor> {
        self.combine(x0, eps, t, |a, s| (a, s))
    }

    /// The velocity `v = α ε − σ x_0` (Salimans and Ho 2022).
    ///
    /// # Errors
    /// As [`Schedule::add_noise`].
    pub fn velocity(&self, x0: &Tensor, eps: &Tensor, t: &[f32]) -> Result<Tensor> {
        self.combine(eps, x0, t, |a, s| (a, -s))
    }

    /// What a network of this schedule's prediction type is trained to output.
    ///
    /// # Errors
    /// As [`Schedule::add_noise`].
    pub fn target(&self, x0: &Tensor, eps: &Tensor, t: &[f32]) -> Result<Tensor> {
        match self.config.prediction_type {
            Prediction::Epsilon => Ok(eps.clone()),
            Prediction::V => self.velocity(x0, eps, t),
            Prediction::Sample => Ok(x0.clone()),
        }
    }

    /// ε from a network's output: `ε`, `α v + σ x_t` or `(x_t − α x_0)/σ`.
    ///
    /// # Errors
    /// As [`Schedule::add_noise`].
    pub fn to_epsilon(&self, output: &Tensor, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        match self.config.prediction_type {
            Prediction::Epsilon => Ok(output.clone()),
            Prediction::V => self.combine(output, x_t, t, |a, s| (a, s)),
            Prediction::Sample => self.epsilon_from_sample(output, x_t, t),
        }
    }

    /// The estimate of x_0 from a network's output: `(x_t − σ ε)/α`, `α x_t − σ v` or `x_0`.
    ///
    /// # Errors
    /// As [`Schedule::add_noise`].
    pub fn to_sample(&self, output: &Tensor, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        match self.config.prediction_type {
            Prediction::Epsilon => self.sample_from_epsilon(output, x_t, t),
            Prediction::V => self.combine(x_t, output, t, |a, s| (a, -s)),
            Prediction::Sample => Ok(output.clone()),
        }
    }

    /// `x_0 = (x_t − σ ε)/α`.
    ///
    /// # Errors
    /// As [`Schedule::add_noise`].
    pub fn sample_from_epsilon(&self, eps: &Tensor, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        self.combine(x_t, eps, t, |a, s| (1.0 / a, -s / a))
    }

    /// `ε = (x_t − α x_0)/σ`.
    ///
    /// # Errors
    /// As [`Schedule::add_noise`].
    pub fn epsilon_from_sample(&self, x0: &Tensor, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        self.combine(x_t, x0, t, |a, s| (1.0 / s, -a / s))
    }
}

/// B numbers as a tensor `[B, 1, …]` that broadcasts over `like` (`[B, …]`).
pub(crate) fn per_sample(values: Vec<f64>, like: &Tensor) -> Result<Tensor> {
    let shape: Vec<usize> = (0..like.rank()).map(|axis| if axis == 0 { values.len() } else { 1 }).collect();
    Ok(Tensor::from_vec(values, shape, like.device())?.to_dtype(like.dtype())?)
}

/// ᾱ as torch computes it on a CPU: f32 factors, f64 accumulator, f32 results.
fn cumulative_product(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0f64;
    betas
        .iter()
        .map(|beta| {
            product *= f64::from(1.0 - beta);
            product as f32
        })
        .collect()
}

/// Shifts and scales √ᾱ so that the last timestep is pure noise and the first keeps its level
/// (Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1).
fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative_product(betas).iter().map(|a| a.sqrt()).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let squares: Vec<f32> = roots.iter().map(|r| ((r - last) * (first / (first - last))).powi(2)).collect();
    let mut previous = 1.0f32;
    squares
        .iter()
        .map(|&a| {
            let beta = 1.0 - a / previous;
            previous = a;
            beta
        })
        .collect()
}

#[cfg(test)]
mod tests;
