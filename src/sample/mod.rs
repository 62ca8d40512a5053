//! Samplers over any noise predictor.
//!
//! A sampler walks a [`Trajectory`] (noise levels from noisy to clean) and asks a
//! [`NoisePredictor`] for ε at each. Conditioning is the predictor's own affair: [`guidance::Guided`]
//! makes one out of a conditioned model by classifier-free guidance or Perp-Neg.

pub mod guidance;
mod noise;
pub mod sampler;
pub mod score;
mod trajectory;
mod unet;

#[cfg(test)]
pub(crate) mod analytic;
#[cfg(test)]
mod tests;

use candle_core::Tensor;

pub use noise::normal_like;
pub use sampler::{Dpm, Progress, Sampler};
pub use trajectory::{Clip, Level, Trajectory};
pub use unet::{Control, Hooks, UnetPredictor};

use crate::Result;

/// Something that estimates the noise in a noisy sample.
pub trait NoisePredictor {
    /// ε̂(x_t, t): `x_t` is `[B, …]`, `t` holds B timesteps (fractions allowed), the result is
    /// shaped as `x_t`.
    ///
    /// # Errors
    /// What the model reports, mostly shape mismatches.
    fn predict(&self, x_t: &Tensor, t: &[f32]) -> Result<Tensor>;
}
