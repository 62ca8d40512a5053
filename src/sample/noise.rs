//! Gaussian noise from the counter-based generator.

use candle_core::Tensor;

use crate::Result;
use crate::rng::Rng;

/// Standard normal noise in the shape, type and place of `like` (`[B, …]`).
///
/// Sample b, element i draws at index `b·n + i` (n elements a sample), so the noise of a sample does
/// not depend on how many others are in the batch.
///
/// # Errors
/// Tensor errors of the device.
pub fn normal_like(like: &Tensor, rng: &Rng) -> Result<Tensor> {
    let values = rng.normals(0, like.elem_count());
    Ok(Tensor::from_vec(values, like.dims(), like.device())?.to_dtype(like.dtype())?)
}
