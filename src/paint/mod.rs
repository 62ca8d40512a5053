//! Pictures of a prompt: from noise, from a picture, or into a hole of one.

mod metadata;

use candle_core::{D, Device, Tensor};
use image::{GrayImage, RgbImage, imageops};

pub use metadata::png_with_text;

use crate::prior::Prior;
use crate::render::camera::Camera;
use crate::rng::{Rng, Stream};
use crate::sample::guidance::{Guidance, Guided};
use crate::sample::{NoisePredictor, Trajectory, UnetPredictor, sampler};
use crate::{Error, Result};

/// Largest side of a picture.
const MAX_SIDE: u32 = 2048;

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

/// What to paint.
#[derive(Debug, Clone)]
pub struct Painting {
    /// What to show.
    pub prompt: String,
    /// What not to show.
    pub negative_prompt: String,
    /// Width and height in pixels, multiples of the VAE's factor.
    pub size: (u32, u32),
    /// Number of pictures.
    pub count: u32,
    /// One of [`sampler::NAMES`].
    pub sampler: String,
    /// Denoising steps.
    pub steps: usize,
    /// Scale and rescaling of classifier-free guidance.
    pub guidance: Guidance,
    /// Keys all noise; a picture does not depend on how many others there are.
    pub seed: u64,
    /// One a picture, for priors that are conditioned by a camera.
    pub cameras: Vec<Camera>,
    /// What to start from; noise if absent.
    pub start: Option<Start>,
}

impl Painting {
    fn check(&self, prior: &Prior) -> Result<()> {
        let factor = prior.vae.config.factor() as u32;
        let (w, h) = self.size;
        if [w, h].iter().any(|s| *s == 0 || *s > MAX_SIDE || !s.is_multiple_of(factor)) {
            let why = format!("{w}×{h}: sides must be multiples of {factor}, at most {MAX_SIDE}");
            return Err(Error::invalid("--size", why));
        }
        if self.count == 0 || self.count > 64 {
            return Err(Error::invalid("--count", "must be 1 to 64"));
        }
        if prior.is_camera_conditioned() && self.cameras.len() != self.count as usize {
            return Err(Error::invalid("cameras", "the prior needs one a picture"));
        }
        if let Some(start) = &self.start
            && !(0.0..=1.0).contains(&start.strength)
        {
            return Err(Error::invalid("--strength", "must be 0 to 1"));
        }
        Ok(())
    }
}

/// Paints; `progress` is told the step and the number of steps after each, and can end it.
///
/// # Errors
/// Settings that do not fit the prior, and those of `progress`.
pub fn paint(
    prior: &Prior,
    what: &Painting,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Vec<RgbImage>> {
    what.check(prior)?;
    let device = Device::Cpu;
    let embeddings: Vec<f32> = what.cameras.iter().flat_map(Camera::embedding).collect();
    let model = UnetPredictor {
        prior,
        unconditional: prior.encode_prompt(&what.negative_prompt, &device)?,
        conditional: prior.encode_prompt(&what.prompt, &device)?,
        cameras: prior
            .is_camera_conditioned()
            .then(|| Tensor::from_vec(embeddings, (what.cameras.len(), 16), &device))
            .transpose()?,
    };
    let guided = Guided { model: &model, guidance: &what.guidance };
    let (sampler, mut path) = sampler::by_name(&what.sampler, &prior.schedule, what.steps)?;
    let noise = noise(prior, what)?;
    let mut observe = |p: crate::sample::Progress<'_>| progress(p.step, p.steps);
    let z = match &what.start {
        None => sampler.sample(&guided, &noise, &path, what.seed, &mut observe)?,
        Some(start) => {
            let z0 = encode(prior, start, what)?;
            path = late_part(path, start.strength);
            let first = path.levels[0];
            let x = ((&z0 * first.alpha())? + (&noise * first.sigma())?)?;
            let keep = start.mask.as_ref().map(|m| kept(m, &z0)).transpose()?;
            match keep {
                None => sampler.sample(&guided, &x, &path, what.seed, &mut observe)?,
                Some(keep) => {
                    let filled =
                        Inpainting { predictor: &guided, schedule: &prior.schedule, z0: &z0, keep: &keep };
                    sampler.sample(&filled, &x, &path, what.seed, &mut observe)?
                }
            }
        }
    };
    let decoded = prior.vae.decode(&z)?;
    let pictures = pictures(&decoded)?;
    Ok(match what.start.as_ref() {
        Some(Start { picture, mask: Some(mask), .. }) => {
            pictures.iter().map(|p| compose(p, picture, mask)).collect()
        }
        _ => pictures,
    })
}

/// Initial noise `[count, c, h, w]`.
fn noise(prior: &Prior, what: &Painting) -> Result<Tensor> {
    let factor = prior.vae.config.factor() as u32;
    let (w, h) = ((what.size.0 / factor) as usize, (what.size.1 / factor) as usize);
    let shape = (what.count as usize, prior.vae.config.latent_channels, h, w);
    let values = Rng::new(what.seed, Stream::Sampler, 0).normals(0, shape.0 * shape.1 * h * w);
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// The last `strength` of a trajectory's steps, at least one.
fn late_part(mut path: Trajectory, strength: f64) -> Trajectory {
    let steps = ((path.steps() as f64 * strength).round() as usize).clamp(1, path.steps());
    path.levels.drain(..path.steps() - steps);
    path
}

/// Latents of the start, one copy a picture.
fn encode(prior: &Prior, start: &Start, what: &Painting) -> Result<Tensor> {
    let (w, h) = what.size;
    let picture = imageops::resize(&start.picture, w, h, imageops::FilterType::CatmullRom);
    let plane = (w * h) as usize;
    let mut values = vec![0f32; 3 * plane];
    for (i, pixel) in picture.pixels().enumerate() {
        for c in 0..3 {
            values[c * plane + i] = f32::from(pixel.0[c]) / 127.5 - 1.0;
        }
    }
    let x = Tensor::from_vec(values, (1, 3, h as usize, w as usize), &Device::Cpu)?;
    let z = prior.vae.encode_mean(&x)?;
    let (_, c, h, w) = z.dims4()?;
    Ok(z.expand((what.count as usize, c, h, w))?.contiguous()?)
}

/// 1 where the mask is black, shaped to broadcast over the latents.
fn kept(mask: &GrayImage, z: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = z.dims4()?;
    let small = imageops::resize(mask, w as u32, h as u32, imageops::FilterType::Triangle);
    let values: Vec<f32> = small.pixels().map(|p| if p.0[0] < 128 { 1.0 } else { 0.0 }).collect();
    Ok(Tensor::from_vec(values, (1, 1, h, w), z.device())?)
}

/// A predictor that knows part of the answer: where `keep` is 1, ε is what leads to `z0`. Any sampler
/// then keeps the known part at its noise level on the way and ends with it exactly.
struct Inpainting<'a> {
    predictor: &'a dyn NoisePredictor,
    schedule: &'a crate::prior::schedule::Schedule,
    z0: &'a Tensor,
    keep: &'a Tensor,
}

impl NoisePredictor for Inpainting<'_> {
    fn predict(&self, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        let free = self.predictor.predict(x_t, t)?;
        let known = self.schedule.epsilon_from_sample(self.z0, x_t, t)?;
        let open = self.keep.affine(-1.0, 1.0)?;
        Ok((free.broadcast_mul(&open)? + known.broadcast_mul(self.keep)?)?)
    }
}

/// The new picture where the mask is white, the old one elsewhere: the VAE has not touched it.
fn compose(new: &RgbImage, old: &RgbImage, mask: &GrayImage) -> RgbImage {
    let (w, h) = new.dimensions();
    let old = imageops::resize(old, w, h, imageops::FilterType::CatmullRom);
    let mask = imageops::resize(mask, w, h, imageops::FilterType::Triangle);
    RgbImage::from_fn(w, h, |x, y| {
        let m = f32::from(mask.get_pixel(x, y).0[0]) / 255.0;
        let (a, b) = (new.get_pixel(x, y).0, old.get_pixel(x, y).0);
        image::Rgb(std::array::from_fn(|c| (m * f32::from(a[c]) + (1.0 - m) * f32::from(b[c])).round() as u8))
    })
}

/// Pictures of `[B, 3, H, W]` in −1..1.
fn pictures(x: &Tensor) -> Result<Vec<RgbImage>> {
    let (_, _, _, w) = x.dims4()?;
    let rows = x.flatten_from(1)?;
    debug_assert_eq!(rows.dim(D::Minus1)? % w, 0);
    let rows = rows.to_vec2::<f32>()?;
    Ok(rows.iter().map(|v| picture(v, w as u32)).collect())
}

/// A picture of `[3, height, width]` sRGB values in −1..1.
pub fn picture(values: &[f32], width: u32) -> RgbImage {
    let plane = values.len() / 3;
    let height = plane as u32 / width.max(1);
    let byte = |v: f32| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
    RgbImage::from_fn(width, height, |x, y| {
        let i = (y * width + x) as usize;
        image::Rgb([byte(values[i]), byte(values[plane + i]), byte(values[2 * plane + i])])
    })
}

#[cfg(test)]
mod tests;
