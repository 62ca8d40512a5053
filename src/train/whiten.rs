//! Latents of zero mean and unit covariance, without changing a single decoded picture.
//!
//! A freely trained autoencoder puts most of its variance into one or two channels (brightness). One
//! `scaling_factor` for all leaves the others (hue) far below the noise of most timesteps, and the
//! U-Net learns them last. The 1×1 convolutions on both sides of the latents can absorb any linear map,
//! so z′ = L⁻¹(z − μ), with L Lᵀ the latents' covariance, is folded into them.

use std::collections::HashMap;

use candle_core::Tensor;

use crate::error::{Error, Result};

/// Folds the whitening of `latents` `[N, c, h, w]` (unscaled means) into an autoencoder's weights.
///
/// # Errors
/// If the weights lack `quant_conv` or `post_quant_conv`, or a channel is constant.
pub(super) fn fold(weights: &mut HashMap<String, Tensor>, latents: &Tensor) -> Result<()> {
    let channels = latents.dim(1)?;
    let (mean, covariance) = moments(latents)?;
    let lower = cholesky(&covariance)?;
    let read = |weights: &HashMap<String, Tensor>, name: &str| -> Result<(Vec<f64>, Tensor)> {
        let t = weights.get(name).ok_or_else(|| Error::Failed(format!("autoencoder without {name}")))?;
        Ok((t.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect(), t.clone()))
    };
    let (mut w, w_like) = read(weights, "quant_conv.weight")?;
    let (mut b, b_like) = read(weights, "quant_conv.bias")?;
    let inputs = w.len() / b.len();
    for column in 0..=inputs {
        // Column by column: L y = x, and for the bias L y = b − μ. The log-variances stay as they are.
        let mut x: Vec<f64> = (0..channels)
            .map(|i| if column < inputs { w[i * inputs + column] } else { b[i] - mean[i] })
            .collect();
        solve(&lower, &mut x);
        for (i, x) in x.into_iter().enumerate() {
            *(if column < inputs { &mut w[i * inputs + column] } else { &mut b[i] }) = x;
        }
    }
    let (old, out_like) = read(weights, "post_quant_conv.weight")?;
    let (mut out_bias, out_bias_like) = read(weights, "post_quant_conv.bias")?;
    let mut new = vec![0.0; old.len()];
    for (i, bias) in out_bias.iter_mut().enumerate() {
        for (k, (row, mean)) in lower.iter().zip(&mean).enumerate() {
            let weight = old[i * channels + k];
            *bias += weight * mean;
            for (new, l) in new[i * channels..].iter_mut().zip(row) {
                *new += weight * l;
            }
        }
    }
    for (name, values, like) in [
        ("quant_conv.weight", w, w_like),
        ("quant_conv.bias", b, b_like),
        ("post_quant_conv.weight", new, out_like),
        ("post_quant_conv.bias", out_bias, out_bias_like),
    ] {
        let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
        weights.insert(name.into(), Tensor::from_vec(values, like.shape(), like.device())?);
    }
    Ok(())
}

/// Mean and covariance over samples and pixels, f64.
fn moments(latents: &Tensor) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let (n, c, h, w) = latents.dims4()?;
    let values = latents.flatten_all()?.to_vec1::<f32>()?;
    let (pixels, count) = (h * w, (n * h * w).max(1) as f64);
    let plane = |s: usize, i: usize| &values[(s * c + i) * pixels..][..pixels];
    let total =
        |i: usize| (0..n).map(|s| plane(s, i).iter().map(|&v| f64::from(v)).sum::<f64>()).sum::<f64>();
    let mean: Vec<f64> = (0..c).map(|i| total(i) / count).collect();
    let product = |i: usize, j: usize| {
        let sum = |s: usize| {
            let pairs = plane(s, i).iter().zip(plane(s, j));
            pairs.map(|(&a, &b)| (f64::from(a) - mean[i]) * (f64::from(b) - mean[j])).sum::<f64>()
        };
        (0..n).map(sum).sum::<f64>() / count
    };
    let covariance = (0..c).map(|i| (0..c).map(|j| product(i, j)).collect()).collect();
    Ok((mean, covariance))
}

/// Lower L with L Lᵀ = `a`.
fn cholesky(a: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
    let n = a.len();
    let mut l = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let rest = a[i][j] - (0..j).map(|k| l[i][k] * l[j][k]).sum::<f64>();
            l[i][j] = if i == j { rest.sqrt() } else { rest / l[j][j] };
        }
        if !(l[i][i].is_finite() && l[i][i] > 1e-6) {
            return Err(Error::Failed(format!("channel {i} of the autoencoder's latents is constant"))
                .hint("train the autoencoder longer (vae.steps)"));
        }
    }
    Ok(l)
}

/// Solves L y = x in place.
fn solve(lower: &[Vec<f64>], x: &mut [f64]) {
    for i in 0..x.len() {
        let known: f64 = (0..i).map(|k| lower[i][k] * x[k]).sum();
        x[i] = (x[i] - known) / lower[i][i];
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::prior::vae::Vae;
    use crate::prior::weights::Store;
    use crate::rng::{Rng, Stream};
    use crate::train::config::TrainConfig;

    #[test]
    fn latents_become_white_and_pictures_stay() {
        let config = TrainConfig::default().vae_config(1.0);
        let fresh = Store::fresh(3, &Device::Cpu);
        Vae::new(config.clone(), &fresh.root()).unwrap();
        let mut weights: HashMap<String, Tensor> =
            fresh.vars().into_iter().map(|(k, v)| (k, v.as_tensor().copy().unwrap().detach())).collect();
        let build = |weights: &HashMap<String, Tensor>| {
            let store = Store::loaded(weights.clone(), DType::F32, false, &Device::Cpu);
            Vae::new(config.clone(), &store.root()).unwrap()
        };
        let noise = Rng::new(1, Stream::Probe, 0).normals(0, 6 * 3 * 32 * 32);
        let x = Tensor::from_vec(noise, (6, 3, 32, 32), &Device::Cpu).unwrap();
        let before = build(&weights);
        let z = before.posterior(&x).unwrap().mean;
        let picture = before.decode_unscaled(&z).unwrap();
        fold(&mut weights, &z).unwrap();
        let after = build(&weights);
        let white = after.posterior(&x).unwrap().mean;
        let (mean, covariance) = moments(&white).unwrap();
        for i in 0..4 {
            assert!(mean[i].abs() < 1e-3, "{mean:?}");
            for j in 0..4 {
                let expected = f64::from(u8::from(i == j));
                assert!((covariance[i][j] - expected).abs() < 1e-2, "{covariance:?}");
            }
        }
        let again = after.decode_unscaled(&white).unwrap();
        let difference =
            (again - &picture).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(difference < 1e-3, "{difference}");
    }
}
