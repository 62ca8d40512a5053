//! HiFA's loss on pictures (Zhu and Zhuang 2023): what the prior thinks the picture should be is decoded,
//! and the picture pulled towards it.
//!
//! In latents `(z − ẑ₀) α/σ = ε̂ − ε` is SDS again; on pictures the same weight gives
//! `∂L/∂x = w(t)(x − D(ẑ₀)) α/σ`, which also sees what the encoder throws away.

use candle_core::Tensor;

use crate::Result;
use crate::prior::schedule::{Schedule, per_sample};

/// The gradient on pictures `x` (`[B, 3, H, W]`) that were encoded, noised to `t` and estimated as
/// `decoded` = D(ẑ₀) (shaped as x): the mean over the batch, α/σ at most `limit` (it grows without bound
/// as t falls).
///
/// # Errors
/// If shapes do not fit.
pub fn gradient(
    schedule: &Schedule,
    x: &Tensor,
    decoded: &Tensor,
    t: &[f32],
    weight: impl Fn(f64, f64) -> f64,
    limit: f64,
) -> Result<Tensor> {
    let batch = t.len() as f64;
    let factors = t
        .iter()
        .map(|&t| {
            let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
            weight(alpha, sigma) * (alpha / sigma).min(limit) / batch
        })
        .collect();
    Ok((x.detach() - decoded.detach())?.broadcast_mul(&per_sample(factors, x)?)?)
}
