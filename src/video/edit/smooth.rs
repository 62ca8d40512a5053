//! The interleaved smoother of training-free ControlVideo (Zhang et al. 2023, section 3.3).

use candle_core::Tensor;

use crate::Result;
use crate::prior::Prior;

/// A picture between two.
pub trait Interpolator {
    /// Half way between `a` and `b` (`[3, H, W]`, −1..1), in the same shape.
    ///
    /// # Errors
    /// What a network reports.
    fn middle(&self, a: &Tensor, b: &Tensor) -> Result<Tensor>;
}

/// The average: sharp only where nothing moves.
pub struct Average;

impl Interpolator for Average {
    fn middle(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Ok((a + b)?.affine(0.5, 0.0)?)
    }
}

/// `x0` `[W, c, h, w]` with every other frame (`parity` 1: odd rows) replaced by the interpolation of its
/// neighbours; the first and last frame of a window have only one and stay. Only replaced frames pass
/// through the autoencoder.
pub(super) fn smooth(
    prior: &Prior,
    x0: &Tensor,
    parity: usize,
    interpolator: &dyn Interpolator,
) -> Result<Tensor> {
    let frames = x0.dim(0)?;
    let pictures = prior.vae.decode(x0)?.clamp(-1f64, 1f64)?;
    let mut rows: Vec<Tensor> = Vec::new();
    for i in 0..frames {
        if i % 2 != parity || i == 0 || i + 1 == frames {
            rows.push(x0.narrow(0, i, 1)?);
            continue;
        }
        let middle = interpolator.middle(&pictures.get(i - 1)?, &pictures.get(i + 1)?)?;
        rows.push(prior.vae.encode_mean(&middle.unsqueeze(0)?)?);
    }
    Ok(Tensor::cat(&rows, 0)?.contiguous()?)
}
