//! One step of DDIM, and the one back that it exactly undoes.

use candle_core::{DType, Tensor};

use super::config::InversionConfig;
use crate::Result;
use crate::sample::Level;

/// z' = (α'/α) z + (σ' − σ α'/α) ε: DDIM without fresh noise, in either direction.
pub(super) fn ddim(z: &Tensor, eps: &Tensor, from: Level, to: Level) -> Result<Tensor> {
    let ratio = to.alpha() / from.alpha();
    Ok((z.affine(ratio, 0.0)? + eps.affine(to.sigma() - ratio * from.sigma(), 0.0)?)?)
}

/// x̂₀ = (z − σ ε)/α.
pub(super) fn clean(z: &Tensor, eps: &Tensor, at: Level) -> Result<Tensor> {
    Ok((z.affine(1.0 / at.alpha(), 0.0)? + eps.affine(-at.sigma() / at.alpha(), 0.0)?)?)
}

/// Root mean square of a difference.
fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let square = (a - b)?.sqr()?.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    Ok(square.sqrt())
}

/// From `clean` up to the noisier `target`: z' with z' = (α'/α) z + (σ' − σα'/α) ε(z', t'), by fixed-point
/// iteration from ε(z, t'). Where the map is no contraction (the residual rises), the iteration is averaged:
/// z' ← z' + β(G(z') − z') with β halved each time. Returns z' of the smallest residual met, and that.
///
/// # Errors
/// Those of `epsilon`.
pub(super) fn invert(
    z: &Tensor,
    (clean, target): (Level, Level),
    config: &InversionConfig,
    epsilon: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
) -> Result<(Tensor, f64)> {
    let mut next = ddim(z, &epsilon(z)?, clean, target)?;
    let mut best = (next.clone(), f64::INFINITY);
    let (mut beta, mut before) = (1.0, f64::INFINITY);
    for _ in 0..config.refinements {
        let image = ddim(z, &epsilon(&next)?, clean, target)?;
        let residual = distance(&image, &next)?;
        if residual < best.1 {
            best = (next.clone(), residual);
        }
        if residual <= config.tolerance {
            // One more iterate is free: its ε was just computed.
            return Ok((image, residual));
        }
        if residual > before {
            beta *= 0.5;
        }
        before = residual;
        next = (next.affine(1.0 - beta, 0.0)? + image.affine(beta, 0.0)?)?;
    }
    Ok(if config.refinements == 0 || best.1 >= before { (next, before) } else { best })
}
