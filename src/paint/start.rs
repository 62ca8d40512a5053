//! A picture to start from, and the hole in it.

use candle_core::Tensor;
use image::{GrayImage, Luma, RgbImage, imageops};

use super::tensor;
use crate::Result;
use crate::prior::Prior;
use crate::prior::schedule::Schedule;
use crate::sample::NoisePredictor;

/// A picture to start from.
#[derive(Debug, Clone)]
pub struct Start {
    /// Scaled to the wanted size.
    pub picture: RgbImage,
    /// 0..=1: the share of the noising process that is undone; 1 keeps nothing of the picture.
    pub strength: f64,
    /// White where something new is to appear; everywhere if absent.
    pub mask: Option<GrayImage>,
}

impl Start {
    /// Latents `[1, c, h, w]` of the picture.
    pub(super) fn encode(&self, prior: &Prior, size: (u32, u32)) -> Result<Tensor> {
        prior.vae.encode_mean(&tensor(&self.picture, size, &prior.device)?)
    }

    /// 1 where the mask is black, shaped to broadcast over the latents `z`; nothing without a mask.
    pub(super) fn kept(&self, z: &Tensor) -> Result<Option<Tensor>> {
        let Some(mask) = &self.mask else { return Ok(None) };
        let (_, _, h, w) = z.dims4()?;
        let small = imageops::resize(mask, w as u32, h as u32, imageops::FilterType::Triangle);
        let values: Vec<f32> = small.pixels().map(|p| if p.0[0] < 128 { 1.0 } else { 0.0 }).collect();
        Ok(Some(Tensor::from_vec(values, (1, 1, h, w), z.device())?))
    }

    /// What an inpainting model is told besides the latents, `[1, 1 + c, h, w]`: the mask (1 in the
    /// hole) and the latents of the picture with the hole grey; nothing without a mask.
    pub(super) fn hole(&self, prior: &Prior, size: (u32, u32)) -> Result<Option<Tensor>> {
        let Some(mask) = &self.mask else { return Ok(None) };
        let (w, h) = size;
        let mask = imageops::resize(mask, w, h, imageops::FilterType::Triangle);
        let open: Vec<f32> = mask.pixels().map(|p| if p.0[0] < 128 { 1.0 } else { 0.0 }).collect();
        let open = Tensor::from_vec(open, (1, 1, h as usize, w as usize), &prior.device)?;
        let masked =
            prior.vae.encode_mean(&tensor(&self.picture, size, &prior.device)?.broadcast_mul(&open)?)?;
        // Nearest, as diffusers scales the mask: the first pixel of each block.
        let factor = prior.vae.factor() as u32;
        let small = GrayImage::from_fn(w / factor, h / factor, |x, y| {
            Luma([if mask.get_pixel(x * factor, y * factor).0[0] < 128 { 0 } else { 1 }])
        });
        let values: Vec<f32> = small.pixels().map(|p| f32::from(p.0[0])).collect();
        let (_, _, rows, columns) = masked.dims4()?;
        let small = Tensor::from_vec(values, (1, 1, rows, columns), &prior.device)?;
        Ok(Some(Tensor::cat(&[&small, &masked], 1)?.contiguous()?))
    }

    /// The new picture where the mask is white, the old one elsewhere: the VAE has not touched it.
    pub(super) fn compose(&self, new: RgbImage) -> RgbImage {
        let Some(mask) = &self.mask else { return new };
        let (w, h) = new.dimensions();
        let old = imageops::resize(&self.picture, w, h, imageops::FilterType::CatmullRom);
        let mask = imageops::resize(mask, w, h, imageops::FilterType::Triangle);
        RgbImage::from_fn(w, h, |x, y| {
            let m = f32::from(mask.get_pixel(x, y).0[0]) / 255.0;
            let (a, b) = (new.get_pixel(x, y).0, old.get_pixel(x, y).0);
            let mix = |c: usize| (m * f32::from(a[c]) + (1.0 - m) * f32::from(b[c])).round() as u8;
            image::Rgb(std::array::from_fn(mix))
        })
    }
}

/// A predictor that knows part of the answer: where `keep` is 1, ε is what leads to `z0`. Any sampler
/// then keeps the known part at its noise level on the way and ends with it exactly.
pub(super) struct Inpainting<'a> {
    pub(super) predictor: &'a dyn NoisePredictor,
    pub(super) schedule: &'a Schedule,
    pub(super) z0: &'a Tensor,
    pub(super) keep: &'a Tensor,
}

impl NoisePredictor for Inpainting<'_> {
    fn predict(&self, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        let free = self.predictor.predict(x_t, t)?;
        let known = self.schedule.epsilon_from_sample(self.z0, x_t, t)?;
        let open = self.keep.affine(-1.0, 1.0)?;
        Ok((free.broadcast_mul(&open)? + known.broadcast_mul(self.keep)?)?)
    }
}
