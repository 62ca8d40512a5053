//! Variational score distillation (Wang et al., "ProlificDreamer", 2023, eq. 9).
//!
//! `∂L/∂z = w(t)(ε_pre(α z + σ ε, t, y) − ε_φ(α z + σ ε, t, c, y))`: ε_φ estimates the score of what the
//! particles themselves are drawn from, so that nothing pulls once they are distributed as the prior
//! says. Were ε_φ the noise itself (a single particle, known exactly), this would be SDS.

use candle_core::Tensor;

use super::sds::{At, Sds, SdsGradient};
use crate::Result;
use crate::sample::NoisePredictor;

impl Sds {
    /// The gradient on latents `z` (`[B, C, h, w]`), of `pretrained` (under guidance) against
    /// `particles`, both asked once.
    ///
    /// # Errors
    /// Those of the predictors, and [`crate::Error::NotFinite`] if the gradient is not finite.
    pub fn variational(
        &self,
        z: &Tensor,
        pretrained: &dyn NoisePredictor,
        particles: &dyn NoisePredictor,
        at: At,
    ) -> Result<SdsGradient> {
        let noised = self.noised(z, at)?;
        let eps = pretrained.predict(&noised.x_t, &noised.t)?.detach();
        let own = particles.predict(&noised.x_t, &noised.t)?.detach();
        let x0 = self.schedule().sample_from_epsilon(&eps, &noised.x_t, &noised.t)?;
        self.weighted(&(eps - own)?, noised, x0, at)
    }
}
