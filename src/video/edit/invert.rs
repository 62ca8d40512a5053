//! One step of DDIM, and the one back that it exactly undoes.

use candle_core::{DType, Tensor};

use super::config::InversionConfig;
use crate::Result;
use crate::sample::Level;

/// Largest share of the last two images' difference by which an iterate is carried on.
const MOST: f64 = 10.0;

/// z' = (α'/α) z + (σ' − σ α'/α) ε: DDIM without fresh noise, in either direction.
pub(super) fn ddim(z: &Tensor, eps: &Tensor, from: Level, to: Level) -> Result<Tensor> {
    let ratio = to.alpha() / from.alpha();
    Ok((z.affine(ratio, 0.0)? + eps.affine(to.sigma() - ratio * from.sigma(), 0.0)?)?)
}

/// x̂₀ = (z − σ ε)/α.
pub(super) fn clean(z: &Tensor, eps: &Tensor, at: Level) -> Result<Tensor> {
    Ok((z.affine(1.0 / at.alpha(), 0.0)? + eps.affine(-at.sigma() / at.alpha(), 0.0)?)?)
}

/// Mean of the products, in f64.
fn inner(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok((a * b)?.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?)
}

/// One frame on its way to the fixed point z' = G(z').
struct Frame {
    /// What G is asked next.
    next: Tensor,
    /// G(z') − z' and G(z') of the evaluation before.
    before: Option<(Tensor, Tensor)>,
    /// The iterate of the smallest residual, and that.
    best: (Tensor, f64),
    done: bool,
}

impl Frame {
    /// Takes in G(`next`). Anderson's acceleration of depth one: the combination of the last two images
    /// whose residual would vanish if G were linear along them; plain iteration diverges where |G'| > 1.
    fn take(&mut self, image: Tensor, tolerance: f64) -> Result<()> {
        if self.done {
            return Ok(());
        }
        let change = (&image - &self.next)?;
        let residual = inner(&change, &change)?.sqrt();
        if residual <= tolerance {
            // One more iterate is free: its ε was just computed.
            self.best = (image.clone(), residual);
            (self.next, self.done) = (image, true);
            return Ok(());
        }
        let ahead = match &self.before {
            Some((old_change, old_image)) => {
                let turn = (&change - old_change)?;
                let size = inner(&turn, &turn)?;
                let share = if size > 0.0 { inner(&change, &turn)? / size } else { 0.0 };
                let share = share.clamp(-MOST, MOST);
                (image.affine(1.0 - share, 0.0)? + old_image.affine(share, 0.0)?)?
            }
            None => image.clone(),
        };
        if residual < self.best.1 {
            // What follows from the best one is better still, as a rule.
            self.best = (ahead.clone(), residual);
        }
        self.before = Some((change, image));
        self.next = ahead;
        Ok(())
    }
}

/// From `clean` up to the noisier `target`: z' with z' = (α'/α) z + (σ' − σα'/α) ε(z', t'), by accelerated
/// fixed-point iteration from ε(z, t'), frame by frame (rows of `z`): a frame that is done does not move
/// while others go on. Returns z' and the largest residual met last (root mean square of a frame).
///
/// # Errors
/// Those of `epsilon`.
pub(super) fn invert(
    z: &Tensor,
    (clean, target): (Level, Level),
    config: &InversionConfig,
    epsilon: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
) -> Result<(Tensor, f64)> {
    let first = ddim(z, &epsilon(z)?, clean, target)?;
    let mut frames: Vec<Frame> = (0..z.dim(0)?)
        .map(|i| {
            let next = first.narrow(0, i, 1)?;
            Ok(Frame { best: (next.clone(), f64::INFINITY), next, before: None, done: false })
        })
        .collect::<Result<_>>()?;
    for _ in 0..config.refinements {
        let asked: Vec<&Tensor> = frames.iter().map(|f| &f.next).collect();
        let images = ddim(z, &epsilon(&Tensor::cat(&asked, 0)?.contiguous()?)?, clean, target)?;
        for (i, frame) in frames.iter_mut().enumerate() {
            frame.take(images.narrow(0, i, 1)?, config.tolerance)?;
        }
        if frames.iter().all(|f| f.done) {
            break;
        }
    }
    let best: Vec<&Tensor> = frames.iter().map(|f| &f.best.0).collect();
    let residual = frames.iter().map(|f| f.best.1).fold(0.0, f64::max);
    Ok((Tensor::cat(&best, 0)?.contiguous()?, residual))
}
