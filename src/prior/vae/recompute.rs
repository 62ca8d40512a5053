//! The encoder's gradient in little memory: what goes into each part is kept, what happens within is computed
//! again on the way back (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
//!
//! At 512² the tape of Stable Diffusion's encoder is some gigabytes; group norms over the whole picture forbid
//! to work in tiles.

use candle_core::{Tensor, Var};

use super::Vae;
use crate::error::{Error, Result};

/// Latents of pictures, and what the way back needs.
pub struct Encoded {
    z: Tensor,
    /// What went into each part.
    inputs: Vec<Tensor>,
}

impl Encoded {
    /// The latents, as [`Vae::encode_mean`] gives them, without a history.
    pub fn latents(&self) -> &Tensor {
        &self.z
    }
}

impl Vae {
    /// As [`Vae::encode_mean`], but without a tape.
    ///
    /// # Errors
    /// As [`Vae::posterior`].
    pub fn encode_saving(&self, x: &Tensor) -> Result<Encoded> {
        self.check_size(x)?;
        let (mut h, mut inputs) = (x.detach(), Vec::new());
        for segment in 0..self.segments() {
            inputs.push(h.clone());
            h = self.segment(segment, &h)?.detach();
        }
        let z = self.scale(&self.mean(&h)?)?.detach();
        Ok(Encoded { z, inputs })
    }

    /// ∂L/∂pictures from ∂L/∂latents, for one more pass through the encoder.
    ///
    /// # Errors
    /// If `gradient` has not the latents' shape.
    pub fn pull_back(&self, encoded: Encoded, gradient: &Tensor) -> Result<Tensor> {
        let Encoded { inputs, .. } = encoded;
        let last = inputs.len().saturating_sub(1);
        let mut gradient = gradient.detach();
        for (segment, input) in inputs.into_iter().enumerate().rev() {
            let x = Var::from_tensor(&input)?;
            drop(input);
            let mut out = self.segment(segment, x.as_tensor())?;
            if segment == last {
                out = self.scale(&self.mean(&out)?)?;
            }
            let mut grads = (out * &gradient)?.sum_all()?.backward()?;
            let by_x = grads.remove(x.as_tensor());
            let by_x = by_x.ok_or_else(|| Error::Failed("vae: a part passes no gradient on".into()))?;
            gradient = by_x.detach();
        }
        Ok(gradient)
    }

    /// The posterior's mean among its moments.
    fn mean(&self, moments: &Tensor) -> Result<Tensor> {
        Ok(moments.narrow(1, 0, self.config.latent_channels)?.contiguous()?)
    }
}
