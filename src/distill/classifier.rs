//! Losses that take the guided prediction apart: classifier score distillation (Yu et al. 2023) and
//! noise-free score distillation (Katzir et al. 2023).

use candle_core::Tensor;

use super::sds::{At, Sds, SdsGradient};
use crate::Result;
use crate::sample::guidance::{Branch, ConditionedPredictor};

/// Share of the schedule below which the noise-free loss takes the unconditional prediction for the
/// domain's direction (t < 200 of 1000).
const CLEAN: f64 = 0.2;

impl Sds {
    /// Classifier score distillation: `w(t) s (ε_y − ε_∅)`, the gradient of what guidance adds alone.
    ///
    /// # Errors
    /// Those of the model, and [`crate::Error::NotFinite`] if the gradient is not finite.
    pub fn classifier(
        &self,
        z: &Tensor,
        model: &dyn ConditionedPredictor,
        scale: f64,
        at: At,
    ) -> Result<SdsGradient> {
        let noised = self.noised(z, at)?;
        let [uncond, cond] =
            ask(model, &noised.x_t, &noised.t, [Branch::Unconditional, Branch::Conditional])?;
        let x0 = self.schedule().sample_from_epsilon(&cond, &noised.x_t, &noised.t)?;
        self.weighted(&((cond - uncond)? * scale)?, noised, x0, at)
    }

    /// Noise-free score distillation: `w(t)(δ_D + s (ε_y − ε_∅))`, where δ_D, the direction towards the
    /// prior's pictures, is ε_∅ for t < .2 and ε_∅ − ε_neg above (the negative prompt is what the model
    /// is asked as `Negative(0)`): what is left of ε̂ − ε without the noise.
    ///
    /// # Errors
    /// Those of the model, and [`crate::Error::NotFinite`] if the gradient is not finite.
    pub fn noise_free(
        &self,
        z: &Tensor,
        model: &dyn ConditionedPredictor,
        scale: f64,
        at: At,
    ) -> Result<SdsGradient> {
        let noised = self.noised(z, at)?;
        let branches = [Branch::Unconditional, Branch::Conditional, Branch::Negative(0)];
        let [uncond, cond, negative] = ask(model, &noised.x_t, &noised.t, branches)?;
        let limit = CLEAN * self.schedule().len() as f64;
        let share = noised.t.iter().map(|&t| f64::from(u8::from(f64::from(t) >= limit))).collect();
        let share = crate::prior::schedule::per_sample(share, &noised.z)?;
        let domain = (&uncond - negative.broadcast_mul(&share)?)?;
        let residual = (domain + ((&cond - &uncond)? * scale)?)?;
        let x0 = self.schedule().sample_from_epsilon(&cond, &noised.x_t, &noised.t)?;
        self.weighted(&residual, noised, x0, at)
    }
}

/// The model's answers under each of `branches`, in one pass.
fn ask<const N: usize>(
    model: &dyn ConditionedPredictor,
    x_t: &Tensor,
    t: &[f32],
    branches: [Branch; N],
) -> Result<[Tensor; N]> {
    let eps = model.predict(&Tensor::cat(&[x_t; N], 0)?, &t.repeat(N), &branches)?.detach();
    let batch = t.len();
    let mut out = Vec::with_capacity(N);
    for i in 0..N {
        out.push(eps.narrow(0, i * batch, batch)?);
    }
    out.try_into().map_err(|_| crate::Error::Failed("branches".into()))
}
