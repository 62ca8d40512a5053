//! Sheets of a prior's samples: how one sees what it has learned.

use glam::Vec3;
use image::RgbImage;

use crate::error::{Error, Result};
pub use crate::paint::picture;
use crate::paint::{Painting, paint};
use crate::prior::Prior;
use crate::render::camera::Camera;
use crate::sample::guidance::Guidance;

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
    let mut drawn = Vec::new();
    for (row, prompt) in prompts.iter().enumerate() {
        drawn.extend(views(prior, prompt, options, row as u32)?);
    }
    Ok(grid(&drawn, options.views))
}

/// The views of one row of a [`sheet`]: a picture for each, of the prior's own size. `row` keys the noise.
///
/// # Errors
/// If the prompt cannot be encoded, or a tensor operation fails.
pub fn views(prior: &Prior, prompt: &str, options: &Options, row: u32) -> Result<Vec<RgbImage>> {
    let size = prior.image_size();
    let camera = |i: u32| {
        let azimuth = 360.0 * i as f32 / options.views as f32;
        Camera::orbit(azimuth, 15.0, 2.4, Vec3::ZERO, FOV_Y, size)
    };
    sample(prior, prompt, (0..options.views).map(camera).collect(), options, row)
}

/// The prior's field of view (see `ARCHITECTURE.md`, the camera rig).
const FOV_Y: f32 = 40.0 * std::f32::consts::PI / 180.0;

/// A picture for each camera, by DDIM with classifier-free guidance.
fn sample(
    prior: &Prior,
    prompt: &str,
    cameras: Vec<Camera>,
    options: &Options,
    row: u32,
) -> Result<Vec<RgbImage>> {
    let size = prior.image_size();
    let what = Painting {
        prompt: prompt.to_owned(),
        negative_prompt: String::new(),
        size: (size, size),
        count: options.views,
        sampler: "ddim".into(),
        steps: options.steps,
        guidance: Guidance::scale(options.guidance_scale),
        seed: options.seed + (u64::from(row) << 32),
        cameras,
        start: None,
        clip_skip: 0,
    };
    paint(prior, &what, &[], &mut |_, _| Ok(()))
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
