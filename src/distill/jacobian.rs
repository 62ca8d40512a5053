//! Score Jacobian chaining (Wang et al., "Score Jacobian Chaining", 2022).
//!
//! The prior is read as a denoiser of variance-exploding noise: with σ_s = σ/α and `z_s = z + σ_s ε`,
//! `D = z_s − σ_s ε̂(z_s/√(1 + σ_s²), t)`. The gradient is `(z_s − D)/σ_s`, whose mean is the score
//! (perturb and average), or with less variance `(z − D)/σ_s`, which differs by the noise itself.

use candle_core::Tensor;

use super::sds::{At, Sds, SdsGradient};
use crate::Result;
use crate::prior::schedule::per_sample;
use crate::sample::NoisePredictor;

impl Sds {
    /// The gradient on latents `z` (`[B, C, h, w]`).
    ///
    /// # Errors
    /// Those of the predictor, and [`crate::Error::NotFinite`] if the gradient is not finite.
    pub fn jacobian(
        &self,
        z: &Tensor,
        predictor: &dyn NoisePredictor,
        variance_reduced: bool,
        at: At,
    ) -> Result<SdsGradient> {
        let noised = self.noised(z, at)?;
        let schedule = self.schedule();
        let levels: Vec<f64> = noised.t.iter().map(|&t| schedule.sigma(t) / schedule.alpha(t)).collect();
        let scale = |f: &dyn Fn(f64) -> f64| per_sample(levels.iter().map(|&s| f(s)).collect(), &noised.z);
        let sigma = scale(&|s| s)?;
        let z_s = (&noised.z + noised.noise.broadcast_mul(&sigma)?)?;
        let input = z_s.broadcast_mul(&scale(&|s| (1.0 + s * s).sqrt().recip())?)?;
        let eps = predictor.predict(&input, &noised.t)?.detach();
        let denoised = (&z_s - eps.broadcast_mul(&sigma)?)?;
        let from = if variance_reduced { &noised.z } else { &z_s };
        let residual = (from - &denoised)?.broadcast_div(&sigma)?;
        self.weighted(&residual, noised, denoised, at)
    }
}
