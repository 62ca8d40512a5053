//! Latents without the encoder (Metzer et al., "Latent-NeRF", 2022): the field is rendered at the latents'
//! resolution, a pixel a latent.
//!
//! The original renders four channels and has a linear layer from them to three colours, for looking at.
//! This renderer has three colours, so the map goes the other way: the linear part of the prior's own
//! encoder, fitted to pictures of one colour each.

use candle_core::{DType, Tensor};

use crate::Result;
use crate::prior::Prior;

/// Colour values of the fit, in −1 … 1; symmetric, so that the fit's columns are orthogonal.
const LEVELS: [f32; 4] = [-1.0, -1.0 / 3.0, 1.0 / 3.0, 1.0];

/// `z = W rgb + b` for every pixel.
pub(super) struct Linear {
    /// `[3, c]`.
    weights: Tensor,
    /// `[c]`.
    bias: Tensor,
}

impl Linear {
    /// The least squares fit to the encoder of `prior`.
    ///
    /// # Errors
    /// Tensor errors.
    pub(super) fn fit(prior: &Prior) -> Result<Self> {
        let side = 4 * prior.vae.factor();
        let colours = colours();
        let flat = |c: &[f32; 3]| c.iter().flat_map(|v| vec![*v; side * side]).collect::<Vec<f32>>();
        let pictures: Vec<f32> = colours.iter().flat_map(flat).collect();
        let pictures = Tensor::from_vec(pictures, (colours.len(), 3, side, side), &prior.device)?;
        let z = prior.vae.encode_mean(&pictures)?.detach();
        Self::of(&colours, &z.flatten_from(2)?.mean(2)?)
    }

    /// From colours and what each becomes, `[n, c]`.
    fn of(colours: &[[f32; 3]], z: &Tensor) -> Result<Self> {
        let n = colours.len();
        let x = Tensor::from_vec(colours.concat(), (n, 3), z.device())?;
        let squares = x.sqr()?.sum(0)?.reshape((3, 1))?;
        let weights = x.t()?.contiguous()?.matmul(&z.contiguous()?)?.broadcast_div(&squares)?;
        Ok(Self { weights, bias: z.mean(0)? })
    }

    /// `[B, 3, h, w]` in −1 … 1 to latents `[B, c, h, w]`, on the tape.
    pub(super) fn latents(&self, pixels: &Tensor) -> Result<Tensor> {
        let (b, _, h, w) = pixels.dims4()?;
        let c = self.bias.dim(0)?;
        let rows = pixels.reshape((b, 3, h * w))?.transpose(1, 2)?.contiguous()?.reshape((b * h * w, 3))?;
        let z = rows.matmul(&self.weights.to_dtype(DType::F32)?)?.broadcast_add(&self.bias)?;
        Ok(z.reshape((b, h * w, c))?.transpose(1, 2)?.contiguous()?.reshape((b, c, h, w))?)
    }
}

fn colours() -> Vec<[f32; 3]> {
    let mut all = Vec::new();
    for r in LEVELS {
        for g in LEVELS {
            all.extend(LEVELS.map(|b| [r, g, b]));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn a_linear_encoder_is_recovered_exactly() {
        let w = Tensor::new(&[[0.5f32, -1.0], [2.0, 0.25], [0.0, 3.0]], &Device::Cpu).unwrap();
        let b = Tensor::new(&[0.75f32, -0.5], &Device::Cpu).unwrap();
        let x = Tensor::from_vec(colours().concat(), (64, 3), &Device::Cpu).unwrap();
        let z = x.matmul(&w).unwrap().broadcast_add(&b).unwrap();
        let fit = Linear::of(&colours(), &z).unwrap();
        let off = |a: &Tensor, b: &Tensor| {
            (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
        };
        assert!(off(&fit.weights, &w) < 1e-5 && off(&fit.bias, &b) < 1e-5);
        // The pixels keep their places, and the way back is the transpose.
        let pixels: Vec<f32> = (0..12).map(|i| (i as f32).sin()).collect();
        let pixels = Var::from_vec(pixels, (1, 3, 2, 2), &Device::Cpu).unwrap();
        let z = fit.latents(pixels.as_tensor()).unwrap();
        let at =
            |t: &Tensor, c: usize| t.get(0).unwrap().get(c).unwrap().flatten_all().unwrap().to_vec1::<f32>();
        let [r, g, b] = [0, 1, 2].map(|c| at(pixels.as_tensor(), c).unwrap());
        for (i, z) in at(&z, 1).unwrap().into_iter().enumerate() {
            assert!((z - (-r[i] + 0.25 * g[i] + 3.0 * b[i] - 0.5)).abs() < 1e-5, "{i}");
        }
        let grads = z.sum_all().unwrap().backward().unwrap();
        let by = grads.get(pixels.as_tensor()).unwrap();
        assert!((at(by, 0).unwrap()[0] + 0.5).abs() < 1e-5 && (at(by, 2).unwrap()[3] - 3.0).abs() < 1e-5);
    }

    #[test]
    fn plain_colours_become_roughly_the_embedded_encoders_latents() {
        let prior = Prior::load("mini", &Device::Cpu).unwrap();
        let fit = Linear::fit(&prior).unwrap();
        // Colours between those of the fit.
        let colours = [[-0.7f32, 0.1, 0.6], [0.8, 0.8, -0.5], [0.0, -0.2, 0.2], [0.5, -0.9, -0.9]];
        let flat = |c: &[f32; 3]| c.iter().flat_map(|v| vec![*v; 32 * 32]).collect::<Vec<f32>>();
        let pictures: Vec<f32> = colours.iter().flat_map(flat).collect();
        let pictures = Tensor::from_vec(pictures, (4, 3, 32, 32), &Device::Cpu).unwrap();
        let want = prior.vae.encode_mean(&pictures).unwrap().flatten_from(2).unwrap().mean(2).unwrap();
        let got = fit.latents(&pictures.narrow(2, 0, 1).unwrap().narrow(3, 0, 1).unwrap()).unwrap();
        let got = got.reshape((4, want.dim(1).unwrap())).unwrap();
        let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        let error = norm(&(&got - &want).unwrap()) / norm(&want);
        // A third of the latents' size (0.30 measured) is what a linear map misses: good for a first shape.
        assert!(error < 0.35, "{error}");
    }
}
