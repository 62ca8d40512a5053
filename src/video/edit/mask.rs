//! Soft masks of what is edited.

use candle_core::Tensor;

use super::config::{EditKind, MaskConfig};
use super::grid;
use crate::Result;

/// Smallest value that counts as attention at all.
const TINY: f64 = 1e-12;

/// `[W, 1, h, w]` in 0..1 from summed maps `[W, tokens, h, w]`: each frame's and token's own range is
/// stretched to 0..1, the tokens' largest is taken, thresholded softly and grown.
///
/// # Errors
/// Tensor errors of the device.
pub(super) fn from_maps(maps: &Tensor, config: &MaskConfig) -> Result<Tensor> {
    let flat = maps.flatten_from(2)?;
    let low = flat.min_keepdim(2)?;
    let range = (flat.max_keepdim(2)? - &low)?.maximum(TINY)?;
    let stretched = flat.broadcast_sub(&low)?.broadcast_div(&range)?.reshape(maps.dims())?;
    grid::dilate(&threshold(&stretched.max_keepdim(1)?, config)?, config.dilation)
}

/// 0 below threshold − softness, 1 above threshold + softness, smooth (3s²−2s³) between.
fn threshold(x: &Tensor, config: &MaskConfig) -> Result<Tensor> {
    if config.softness == 0.0 {
        return Ok(x.ge(config.threshold)?.to_dtype(x.dtype())?);
    }
    let width = 2.0 * config.softness;
    let s = x.affine(1.0 / width, (config.softness - config.threshold) / width)?.clamp(0f64, 1f64)?;
    let cubic = s.affine(-2.0, 3.0)?;
    Ok((s.sqr()? * cubic)?)
}

/// Where the edit happens, of what the phrase names: a background edit keeps it.
///
/// # Errors
/// Tensor errors of the device.
pub(super) fn edited(mask: &Tensor, kind: EditKind) -> Result<Tensor> {
    Ok(if kind == EditKind::Background { mask.affine(-1.0, 1.0)? } else { mask.clone() })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn masks_are_stretched_thresholded_united_and_grown() {
        let mut maps = vec![0.001f32; 2 * 25];
        maps[6] = 0.003; // token 0 at (1, 1)
        maps[25 + 18] = 0.5; // token 1 at (3, 3)
        maps[25] = 0.2; // and weakly at (0, 0)
        let maps = Tensor::from_vec(maps, (1, 2, 5, 5), &Device::Cpu).unwrap();
        let run = |softness, dilation| -> Vec<f32> {
            let config = MaskConfig { threshold: 0.4, softness, dilation };
            from_maps(&maps, &config).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let hard = run(0.0, 0);
        let on: Vec<usize> = (0..25).filter(|i| hard[*i] == 1.0).collect();
        assert_eq!(on, [6, 18]);
        assert_eq!(run(0.0, 1).iter().filter(|v| **v == 1.0).count(), 9 + 9 - 1);
        // 0.2/0.5 stretched is just below the threshold: half way, a little less.
        let soft = run(0.1, 0);
        assert!(soft[6] == 1.0 && soft[0] > 0.4 && soft[0] < 0.5 && soft[12] == 0.0, "{soft:?}");
        let kept = edited(&Tensor::new(&[0.25f32], &Device::Cpu).unwrap(), EditKind::Background).unwrap();
        assert_eq!(kept.to_vec1::<f32>().unwrap(), [0.75]);
    }
}
