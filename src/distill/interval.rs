//! Interval score matching (Liang et al., "LucidDreamer", 2023).
//!
//! The latents are noised not by a draw but by DDIM inversion under the empty prompt, up to s and from
//! there to t: `∂L/∂z = w(t)(ε̂(x_t, t, y) − ε̂(x_s, s, ∅))`. A step always sees the same noisy picture of
//! the same latents, so its gradient has no variance beyond that of t.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::sds::{At, Noised, Sds, SdsGradient};
use crate::prior::schedule::per_sample;
use crate::sample::NoisePredictor;
use crate::{Error, Result};

/// How the latents are inverted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Intervals {
    /// Inversion steps from clean latents to s (≥ 1).
    pub steps: usize,
    /// t − s as a fraction of the schedule, in (0, 1).
    pub interval: f64,
}

impl Default for Intervals {
    /// LucidDreamer's δ_T = 50 of 1000, and few steps to s.
    fn default() -> Self {
        Self { steps: 3, interval: 0.05 }
    }
}

impl Sds {
    /// The gradient on latents `z`; `unconditional` is asked `steps + 1` times, `guided` once.
    ///
    /// # Errors
    /// Those of the predictors; [`Error::Invalid`] for no steps or an interval out of range;
    /// [`Error::NotFinite`] if the gradient is not finite.
    pub fn interval(
        &self,
        z: &Tensor,
        guided: &dyn NoisePredictor,
        unconditional: &dyn NoisePredictor,
        intervals: Intervals,
        at: At,
    ) -> Result<SdsGradient> {
        if intervals.steps == 0 || !(intervals.interval > 0.0 && intervals.interval < 1.0) {
            return Err(Error::invalid(
                "intervals",
                format!("{intervals:?}: need steps >= 1, interval in (0, 1)"),
            ));
        }
        let z = z.detach();
        let t = self.timesteps(z.dim(0)?, at.step, at.progress, at.seed);
        let apart = (intervals.interval * self.schedule().len() as f64) as f32;
        let s: Vec<f32> = t.iter().map(|t| (t - apart).max(0.0)).collect();
        // Predicted at the level that is left, as DDIM inversion does; from clean latents at level 0.
        let (mut x, mut from) = (z.clone(), None);
        let mut eps = unconditional.predict(&z, &vec![0.0; t.len()])?.detach();
        for k in 1..=intervals.steps {
            let to: Vec<f32> = s.iter().map(|s| s * k as f32 / intervals.steps as f32).collect();
            x = self.move_along(&x, &eps, from.as_deref(), &to)?;
            eps = unconditional.predict(&x, &to)?.detach();
            from = Some(to);
        }
        let x_t = self.move_along(&x, &eps, from.as_deref(), &t)?;
        let guess = guided.predict(&x_t, &t)?.detach();
        let x0 = self.schedule().sample_from_epsilon(&guess, &x_t, &t)?;
        let residual = (&guess - &eps)?;
        self.weighted(&residual, Noised { z, t, noise: eps, x_t }, x0, at)
    }

    /// x at `to` with the clean estimate and the noise of x at `from` (none: x is clean).
    fn move_along(&self, x: &Tensor, eps: &Tensor, from: Option<&[f32]>, to: &[f32]) -> Result<Tensor> {
        let levels = |t: &[f32], f: &dyn Fn(f32) -> f64| per_sample(t.iter().map(|t| f(*t)).collect(), x);
        let schedule = self.schedule();
        let clean = match from {
            Some(from) => schedule.sample_from_epsilon(eps, x, from)?,
            None => x.clone(),
        };
        let signal = clean.broadcast_mul(&levels(to, &|t| schedule.alpha(t))?)?;
        Ok((signal + eps.broadcast_mul(&levels(to, &|t| schedule.sigma(t))?)?)?)
    }
}
