//! Gradients in little memory: each block's inner results are computed again when they are needed
//! (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").

use std::sync::atomic::Ordering;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::encoder::{State, Told};
use super::{Unet, UnetInputs};
use crate::error::{Error, Result};

/// A loss and its gradients.
pub struct Recomputed {
    /// The loss, a scalar.
    pub loss: Tensor,
    /// Gradients of weights and adapters, one store a block; each weight is in one of them. What a hook
    /// brings in is in the store of each block that used it: its gradient is their sum.
    pub gradients: Vec<GradStore>,
    /// By the noisy latents.
    pub sample: Tensor,
    /// By the text's hidden states.
    pub context: Tensor,
    /// By [`UnetInputs::down_residuals`], as many as were given.
    pub down_residuals: Vec<Tensor>,
    /// By [`UnetInputs::mid_residual`], if one was given.
    pub mid_residual: Option<Tensor>,
}

impl Unet {
    /// What `loss(predict(inputs)).backward()` gives, with the tape of one block at a time in memory
    /// instead of all of them, for one more forward pass. A hook is called twice at each place.
    /// Gradients end at the residuals of a `ControlNet`: whoever trains it pulls them back from there.
    ///
    /// # Errors
    /// As [`Unet::predict`], and those of `loss`.
    pub fn backward_recomputed(
        &self,
        inputs: &UnetInputs<'_>,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Recomputed> {
        self.check(inputs)?;
        self.evaluated.fetch_add(inputs.sample.dim(0)? as u64, Ordering::Relaxed);
        let down_residuals: Vec<Tensor> = inputs.down_residuals.iter().map(Tensor::detach).collect();
        let mid_residual = inputs.mid_residual.map(Tensor::detach);
        let inputs =
            &UnetInputs { down_residuals: &down_residuals, mid_residual: mid_residual.as_ref(), ..*inputs };
        let embedding = self.embedding.forward(inputs)?;
        let emb = Var::from_tensor(&embedding.detach())?;
        let context = Var::from_tensor(&inputs.context.detach())?;
        let told = Told { emb: emb.as_tensor(), context: context.as_tensor(), hook: inputs.hook };
        let (saved, output) = self.forward_saving(inputs, &told)?;

        let output = Var::from_tensor(&output)?;
        let loss = loss(output.as_tensor())?;
        let mut grads = let_go(loss.backward()?);
        let mut down = Pending { h: taken(&mut grads, &output)?, skips: Vec::new() };
        let (mut gradients, mut sums) = (vec![grads], [None, None]);
        let (mut by_down, mut by_mid) = (Vec::new(), None);
        for (segment, state) in saved.into_iter().enumerate().rev() {
            if segment == self.up.len() + 1 {
                // Residuals are added at the end of this segment: what comes back to it is their gradient.
                by_down = down_residuals.iter().zip(&down.skips).map(|(_, g)| g.clone()).collect();
                by_mid = mid_residual.as_ref().map(|_| down.h.clone());
            }
            let mut grads = self.backward_segment(segment, state, &told, inputs, &mut down)?;
            for (sum, var) in sums.iter_mut().zip([&emb, &context]) {
                if let Some(g) = grads.remove(var.as_tensor()) {
                    *sum = Some(match sum.take() {
                        Some(old) => (old + g)?,
                        None => g,
                    });
                }
            }
            gradients.push(grads);
        }
        let [by_emb, by_context] = sums;
        let by_emb = by_emb.ok_or_else(|| Error::Failed("u-net: no gradient of the embedding".into()))?;
        let mut grads = let_go((&embedding * by_emb)?.sum_all()?.backward()?);
        let mut context = match by_context {
            Some(g) => g,
            None => inputs.context.zeros_like()?,
        };
        if let Some(pooled) = grads.remove(inputs.context) {
            context = (context + pooled)?;
        }
        gradients.push(grads);
        let scale = if self.config.center_input_sample { 2.0 } else { 1.0 };
        Ok(Recomputed {
            loss: loss.detach(),
            gradients,
            sample: (down.h * scale)?,
            context,
            down_residuals: by_down,
            mid_residual: by_mid,
        })
    }

    /// What goes into each segment, without tapes, and the prediction.
    fn forward_saving(&self, inputs: &UnetInputs<'_>, told: &Told<'_>) -> Result<(Vec<State>, Tensor)> {
        let mut state = State { h: self.centred(inputs.sample)?.detach(), skips: Vec::new() };
        let mut saved = Vec::new();
        for segment in 0..self.segments() {
            saved.push(state.clone());
            self.run(segment, &mut state, told, inputs)?;
            let skips = state.skips.iter().map(Tensor::detach).collect();
            state = State { h: state.h.detach(), skips };
        }
        Ok((saved, state.h))
    }

    /// Runs a segment again with a tape and pulls the gradients of what it gave back to what it took.
    fn backward_segment(
        &self,
        segment: usize,
        state: State,
        told: &Told<'_>,
        inputs: &UnetInputs<'_>,
        gradient: &mut Pending,
    ) -> Result<GradStore> {
        let h = Var::from_tensor(&state.h)?;
        let taken_skips = self.skips_taken(segment);
        let kept = state.skips.len() - taken_skips;
        let vars: Vec<Var> =
            state.skips[kept..].iter().map(Var::from_tensor).collect::<candle_core::Result<_>>()?;
        let skips = state.skips[..kept].iter().chain(vars.iter().map(Var::as_tensor)).cloned().collect();
        let mut again = State { h: h.as_tensor().clone(), skips };
        drop(state);
        self.run(segment, &mut again, told, inputs)?;

        // Σ output · its gradient: the tape's vector-Jacobian product.
        let mut sum = (&again.h * &gradient.h)?.sum_all()?;
        let given = gradient.skips.split_off(kept.min(gradient.skips.len()));
        for (skip, g) in again.skips[kept..].iter().zip(&given) {
            sum = (sum + (skip * g)?.sum_all()?)?;
        }
        let mut grads = let_go(sum.backward()?);
        gradient.h = taken(&mut grads, &h)?;
        for var in &vars {
            gradient.skips.push(taken(&mut grads, var)?);
        }
        Ok(grads)
    }

    /// Skip connections that a segment uses up.
    fn skips_taken(&self, segment: usize) -> usize {
        let levels = self.up.len();
        match segment.checked_sub(levels + 2) {
            Some(i) if i < levels => self.up[i].0.len(),
            _ => 0,
        }
    }
}

/// Gradients of what lies between two segments.
struct Pending {
    h: Tensor,
    skips: Vec<Tensor>,
}

/// The same gradients without their history. candle computes a gradient from the tensors of the tape (that
/// of a matrix product from both factors), so that it would keep the tape of its block alive.
fn let_go(mut grads: GradStore) -> GradStore {
    let ids: Vec<_> = grads.get_ids().copied().collect();
    for id in ids {
        if let Some(plain) = grads.get_id(id).map(Tensor::detach) {
            grads.insert_id(id, plain);
        }
    }
    grads
}

fn taken(grads: &mut GradStore, var: &Var) -> Result<Tensor> {
    grads.remove(var.as_tensor()).ok_or_else(|| Error::Failed("u-net: a block passes no gradient on".into()))
}
