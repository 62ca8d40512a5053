//! What was not asked to change stays: colours, and the source's own pixels.

use candle_core::Tensor;

use super::config::KeepConfig;
use super::grid;
use crate::Result;

/// Share of the picture that has to be outside the mask for its colours to be trusted.
const ENOUGH: f64 = 0.05;
/// Largest factor by which a channel's contrast is changed.
const GAIN: f64 = 1.5;

/// `edit` `[W, 3, H, W']` held to `source` outside `mask` `[W, 1, h, w]` (1: edited).
///
/// # Errors
/// If shapes do not fit.
pub(super) fn keep(edit: &Tensor, source: &Tensor, mask: &Tensor, config: &KeepConfig) -> Result<Tensor> {
    let (_, _, h, w) = edit.dims4()?;
    let mask = grid::resize(mask, (h, w))?;
    let outside = mask.affine(-1.0, 1.0)?;
    let matched = if config.match_colors { match_colors(edit, source, &outside)? } else { edit.clone() };
    if !config.paste {
        return Ok(matched);
    }
    // Grown before it is softened, so that the soft edge lies outside of what is edited.
    let mask = grid::feather(&grid::dilate(&mask, config.feather)?, config.feather)?.clamp(0f64, 1f64)?;
    let own = matched.broadcast_mul(&mask)?;
    Ok((own + source.broadcast_mul(&mask.affine(-1.0, 1.0)?)?)?)
}

/// Mean and deviation of each channel of `edit` made those of `source`, weighted by `outside`.
fn match_colors(edit: &Tensor, source: &Tensor, outside: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = edit.dims4()?;
    let total = outside.sum_keepdim((2, 3))?;
    // Frames with too little outside are left alone: weight 0 of the change.
    let trusted = total.ge(ENOUGH * (h * w) as f64)?.to_dtype(edit.dtype())?;
    let total = total.maximum(1e-6)?;
    let moments = |x: &Tensor| -> Result<(Tensor, Tensor)> {
        let mean = x.broadcast_mul(outside)?.sum_keepdim((2, 3))?.broadcast_div(&total)?;
        let square = x.broadcast_sub(&mean)?.sqr()?.broadcast_mul(outside)?.sum_keepdim((2, 3))?;
        Ok((mean, square.broadcast_div(&total)?.affine(1.0, 1e-8)?.sqrt()?))
    };
    let ((mean, deviation), (wanted, wanted_deviation)) = (moments(edit)?, moments(source)?);
    let gain = (wanted_deviation / deviation)?.clamp(1.0 / GAIN, GAIN)?;
    let matched = edit.broadcast_sub(&mean)?.broadcast_mul(&gain)?.broadcast_add(&wanted)?;
    Ok((edit + (matched - edit)?.broadcast_mul(&trusted)?)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::rng::{Rng, Stream};

    fn normal(shape: (usize, usize, usize, usize), step: u32) -> Tensor {
        let n = shape.0 * shape.1 * shape.2 * shape.3;
        Tensor::from_vec(Rng::new(1, Stream::Probe, step).normals(0, n), shape, &Device::Cpu).unwrap()
    }

    fn most(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn mask_limits_and_colour_cast() {
        let source = normal((2, 3, 12, 10), 0);
        let (none, all) = (normal((2, 1, 6, 5), 1).zeros_like().unwrap(), Tensor::ones_like);
        let all = all(&none).unwrap();
        let edit = normal((2, 3, 12, 10), 2);
        let config = KeepConfig::default();
        assert_eq!(most(&keep(&edit, &source, &none, &config).unwrap(), &source), 0.0);
        // All is edited: nothing to trust, nothing put back.
        assert!(most(&keep(&edit, &source, &all, &config).unwrap(), &edit) < 1e-6);
        // A cast of gain and offset is undone exactly, inside the mask too.
        let cast = source.affine(0.8, 0.2).unwrap();
        let mut half = vec![0f32; 60];
        half[..20].fill(1.0);
        let half = Tensor::from_vec(half, (2, 1, 6, 5), &Device::Cpu).unwrap();
        let only = KeepConfig { paste: false, ..config };
        assert!(most(&keep(&cast, &source, &half, &only).unwrap(), &source) < 1e-4);
    }
}
