//! A prior's U-Net as a [`ConditionedPredictor`].

use candle_core::Tensor;

use super::guidance::{Branch, ConditionedPredictor};
use crate::error::{Error, Result};
use crate::prior::Prior;

/// ε̂ of a prior under given texts and cameras.
pub struct UnetPredictor<'a> {
    /// The prior.
    pub prior: &'a Prior,
    /// Hidden states of the empty or negative prompt, `[1, L, D]`.
    pub unconditional: Tensor,
    /// Hidden states of the prompt, `[1, L, D]` or one a sample `[B, L, D]`.
    pub conditional: Tensor,
    /// Cameras `[B, 16]`, for priors that take them.
    pub cameras: Option<Tensor>,
}

impl ConditionedPredictor for UnetPredictor<'_> {
    fn predict(&self, x_t: &Tensor, t: &[f32], branches: &[Branch]) -> Result<Tensor> {
        let batch = t.len() / branches.len().max(1);
        let (_, l, d) = self.conditional.dims3()?;
        let mut contexts = Vec::with_capacity(branches.len());
        for branch in branches {
            let context = match branch {
                Branch::Unconditional => &self.unconditional,
                Branch::Conditional => &self.conditional,
                Branch::Negative(i) => {
                    return Err(Error::invalid("guidance", format!("no text for negative branch {i}")));
                }
            };
            contexts.push(context.expand((batch, l, d))?);
        }
        let context = Tensor::cat(&contexts, 0)?.contiguous()?;
        let cameras = match &self.cameras {
            Some(c) => Some(Tensor::cat(&vec![c; branches.len()], 0)?),
            None => None,
        };
        let time = Tensor::new(t, x_t.device())?;
        let output = self.prior.unet.forward(x_t, &time, &context, cameras.as_ref())?;
        self.prior.schedule.to_epsilon(&output, x_t, t)
    }
}
