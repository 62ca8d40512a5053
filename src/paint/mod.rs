//! Pictures of a prompt: from noise, from a picture, or into a hole of one.

pub mod control;
pub mod hed;
mod metadata;
mod start;

use candle_core::{D, Device, Tensor};
use image::{RgbImage, imageops};

pub use metadata::png_with_text;
pub use start::Start;

use crate::prior::Prior;
use crate::render::camera::Camera;
use crate::rng::{Rng, Stream};
use crate::sample::guidance::{Guidance, Guided};
use crate::sample::{Control, Trajectory, UnetPredictor, sampler};
use crate::{Error, Result};

/// Largest side of a picture.
const MAX_SIDE: u32 = 2048;

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
    /// Blocks at the end of the text encoder that are left out for the prompt.
    pub clip_skip: usize,
}

impl Painting {
    fn check(&self, prior: &Prior) -> Result<()> {
        let factor = prior.vae.factor() as u32;
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
        let masked = self.start.as_ref().is_some_and(|s| s.mask.is_some());
        if prior.unet.config.latent_channels() != prior.vae.latent_channels() && !masked {
            return Err(Error::invalid("--mask", "is missing: the prior is an inpainting model")
                .hint("give the picture with --init and what to fill in, white, with --mask"));
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
    controls: &[Control],
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Vec<RgbImage>> {
    what.check(prior)?;
    let z = paint_latents(prior, what, controls, &noise(prior, what)?, progress)?;
    let pictures = pictures(&prior.vae.decode(&z)?)?;
    Ok(match &what.start {
        Some(start) => pictures.into_iter().map(|p| start.compose(p)).collect(),
        None => pictures,
    })
}

/// The latents `[count, c, h, w]` of the pictures, from given standard normal `noise` of that shape
/// (samplers that add noise on the way still draw theirs by `what.seed`).
///
/// # Errors
/// As [`paint`].
pub fn paint_latents(
    prior: &Prior,
    what: &Painting,
    controls: &[Control],
    noise: &Tensor,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Tensor> {
    let z0 = what.start.as_ref().map(|s| s.encode(prior, what.size)).transpose()?;
    let model = predictor(prior, what, controls)?;
    let guided = Guided { model: &model, guidance: &what.guidance };
    let (sampler, mut path) = sampler::by_name(&what.sampler, &prior.schedule, what.steps)?;
    let mut observe = |p: crate::sample::Progress<'_>| progress(p.step, p.steps);
    let (Some(start), Some(z0)) = (&what.start, &z0) else {
        return sampler.sample(&guided, noise, &path, what.seed, &mut observe);
    };
    path = late_part(path, start.strength);
    // At full strength nothing of the picture is left, as in diffusers: no trace of it in x_T.
    let first = path.levels[0];
    let x = match start.strength {
        1.0 => noise.clone(),
        _ => (noise * first.sigma())?.broadcast_add(&(z0 * first.alpha())?)?,
    };
    // A model that is told the mask needs no help; others are held to what is known.
    let Some(keep) = start.kept(z0)?.filter(|_| model.further.is_none()) else {
        return sampler.sample(&guided, &x, &path, what.seed, &mut observe);
    };
    let z0 = z0.expand(x.shape())?.contiguous()?;
    let filled = start::Inpainting { predictor: &guided, schedule: &prior.schedule, z0: &z0, keep: &keep };
    sampler.sample(&filled, &x, &path, what.seed, &mut observe)
}

fn predictor<'a>(prior: &'a Prior, what: &Painting, controls: &'a [Control]) -> Result<UnetPredictor<'a>> {
    let device = &prior.device;
    // As in diffusers, the negative prompt passes through all blocks.
    let texts = [(what.negative_prompt.as_str(), 0), (what.prompt.as_str(), what.clip_skip)];
    let mut texts = prior.text.encode(&texts, device)?;
    let conditional = texts.pop().ok_or_else(|| Error::Failed("no text".into()))?;
    let mut model = UnetPredictor::new(prior, texts.remove(0), conditional);
    model.controls = controls;
    if prior.is_camera_conditioned() {
        let embeddings: Vec<f32> = what.cameras.iter().flat_map(Camera::embedding).collect();
        model.cameras = Some(Tensor::from_vec(embeddings, (what.cameras.len(), 16), device)?);
    }
    if prior.unet.config.latent_channels() != prior.vae.latent_channels() {
        model.further = what.start.as_ref().map(|s| s.hole(prior, what.size)).transpose()?.flatten();
    }
    Ok(model)
}

/// Initial noise `[count, c, h, w]`.
fn noise(prior: &Prior, what: &Painting) -> Result<Tensor> {
    let factor = prior.vae.factor() as u32;
    let (w, h) = ((what.size.0 / factor) as usize, (what.size.1 / factor) as usize);
    let shape = (what.count as usize, prior.vae.latent_channels(), h, w);
    let values = Rng::new(what.seed, Stream::Sampler, 0).normals(0, shape.0 * shape.1 * h * w);
    Ok(Tensor::from_vec(values, shape, &prior.device)?)
}

/// The last `strength` of a trajectory's steps, at least one.
fn late_part(path: Trajectory, strength: f64) -> Trajectory {
    // Rounded down, as diffusers does.
    let steps = ((path.steps() as f64 * strength) as usize).clamp(1, path.steps());
    path.last(steps)
}

/// Pictures of `[B, 3, H, W]` in −1..1.
fn pictures(x: &Tensor) -> Result<Vec<RgbImage>> {
    let (_, _, _, w) = x.dims4()?;
    let rows = x.flatten_from(1)?;
    debug_assert_eq!(rows.dim(D::Minus1)? % w, 0);
    let rows = rows.to_vec2::<f32>()?;
    Ok(rows.iter().map(|v| picture(v, w as u32)).collect())
}

/// `[1, 3, H, W]` in −1..1 of a picture scaled to `size` (width, height).
fn tensor(picture: &RgbImage, size: (u32, u32), device: &Device) -> Result<Tensor> {
    let (w, h) = size;
    let picture = imageops::resize(picture, w, h, imageops::FilterType::CatmullRom);
    let plane = (w * h) as usize;
    let mut values = vec![0f32; 3 * plane];
    for (i, pixel) in picture.pixels().enumerate() {
        for c in 0..3 {
            values[c * plane + i] = f32::from(pixel.0[c]) / 127.5 - 1.0;
        }
    }
    Ok(Tensor::from_vec(values, (1, 3, h as usize, w as usize), device)?)
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
