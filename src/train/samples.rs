//! Sheets of a prior's samples: how one sees what it has learned.

use candle_core::{Device, Tensor};
use glam::Vec3;
use image::{Rgb, RgbImage};

use crate::error::{Error, Result};
use crate::prior::Prior;
use crate::render::camera::Camera;
use crate::rng::{Rng, Stream};
use crate::sample::guidance::{Guidance, Guided};
use crate::sample::{Sampler, Trajectory, UnetPredictor};

/// How samples are drawn.
#[derive(Debug, Clone)]
pub struct Options {
    /// Views a prompt, evenly spaced around the object.
    pub views: u32,
    /// Denoising steps (DDIM, η = 0).
    pub steps: usize,
    /// Scale of classifier-free guidance.
    pub guidance_scale: f64,
    /// Keys the noise.
    pub seed: u64,
}

/// One row a prompt, one column a view: azimuths evenly spaced from the front, elevation 15°. All
/// views of a prompt start from noise of their own.
///
/// # Errors
/// If there is nothing to draw, a prompt cannot be encoded, or a tensor operation fails.
pub fn sheet(prior: &Prior, prompts: &[String], options: &Options) -> Result<RgbImage> {
    if prompts.is_empty() || options.views == 0 || options.views > 64 || options.steps == 0 {
        return Err(Error::invalid("samples", "needs a prompt, 1 to 64 views and at least one step"));
    }
    let size = prior.image_size();
    let mut drawn = Vec::new();
    for (row, prompt) in prompts.iter().enumerate() {
        let cameras: Vec<Camera> = (0..options.views)
            .map(|i| {
                let azimuth = 360.0 * i as f32 / options.views as f32;
                Camera::orbit(azimuth, 15.0, 2.4, Vec3::ZERO, FOV_Y, size)
            })
            .collect();
        drawn.extend(sample(prior, prompt, &cameras, options, row as u32)?);
    }
    Ok(grid(&drawn, options.views))
}

/// The prior's field of view (see `ARCHITECTURE.md`, the camera rig).
const FOV_Y: f32 = 40.0 * std::f32::consts::PI / 180.0;

/// A picture for each camera, by DDIM with classifier-free guidance.
fn sample(
    prior: &Prior,
    prompt: &str,
    cameras: &[Camera],
    options: &Options,
    row: u32,
) -> Result<Vec<RgbImage>> {
    let device = Device::Cpu;
    let n = cameras.len();
    let embeddings: Vec<f32> = cameras.iter().flat_map(Camera::embedding).collect();
    let model = UnetPredictor {
        prior,
        unconditional: prior.encode_prompt("", &device)?,
        conditional: prior.encode_prompt(prompt, &device)?,
        cameras: prior
            .is_camera_conditioned()
            .then(|| Tensor::from_vec(embeddings, (n, 16), &device))
            .transpose()?,
    };
    let (side, channels) = (prior.unet.config.sample_size, prior.unet.config.in_channels);
    let noise = Rng::new(options.seed, Stream::Sampler, 0);
    let each = channels * side * side;
    let noise = noise.normals(u64::from(row) << 32, n * each);
    let x = Tensor::from_vec(noise, (n, channels, side, side), &device)?;
    let guidance = Guidance::scale(options.guidance_scale);
    let guided = Guided { model: &model, guidance: &guidance };
    let trajectory = Trajectory::new(&prior.schedule, options.steps)?;
    let x = Sampler::Ddim { eta: 0.0 }.sample(&guided, &x, &trajectory, options.seed, &mut |_| Ok(()))?;
    pictures(&prior.vae.decode(&x)?)
}

/// Pictures of `[B, 3, H, W]` in −1..1.
fn pictures(x: &Tensor) -> Result<Vec<RgbImage>> {
    let (_, _, h, w) = x.dims4()?;
    let values = x.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.chunks_exact(3 * h * w).map(|v| picture(v, w as u32)).collect())
}

/// A picture of `[3, height, width]` sRGB values in −1..1.
pub fn picture(values: &[f32], width: u32) -> RgbImage {
    let plane = values.len() / 3;
    let height = plane as u32 / width.max(1);
    let byte = |v: f32| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
    RgbImage::from_fn(width, height, |x, y| {
        let i = (y * width + x) as usize;
        Rgb([byte(values[i]), byte(values[plane + i]), byte(values[2 * plane + i])])
    })
}

/// Pictures of one size side by side, `columns` a row.
pub fn grid(pictures: &[RgbImage], columns: u32) -> RgbImage {
    let (w, h) = pictures.first().map_or((1, 1), RgbImage::dimensions);
    let columns = columns.max(1);
    let rows = (pictures.len() as u32).div_ceil(columns);
    let mut out = RgbImage::new(w * columns, h * rows);
    for (i, picture) in pictures.iter().enumerate() {
        let (x, y) = (i as u32 % columns * w, i as u32 / columns * h);
        image::imageops::replace(&mut out, picture, i64::from(x), i64::from(y));
    }
    out
}
