//! The guide of the main job: score distillation in the latent space of a diffusion prior.
//!
//! Pictures go through the VAE's encoder (its mean) to latents z; SDS gives ∂L/∂z without a way
//! through the U-Net; the chain rule through the encoder gives ∂L/∂pictures.

use candle_core::{Device, Tensor, Var};

use super::guide::{Guidance, Guide, Views};
use super::timing::Timings;
use crate::config::Config;
use crate::distill::Sds;
use crate::distill::view::{View, ViewPrompts};
use crate::prior::Prior;
use crate::prior::conditioning::Conditioning;
use crate::render::camera::Camera;
use crate::sample::UnetPredictor;
use crate::sample::guidance::{self, Guided};
use crate::{Error, Result};

/// A prior with a prompt.
pub(super) struct LatentGuide {
    prior: Prior,
    sds: Sds,
    guidance: guidance::Guidance,
    /// The negative prompt.
    without: Conditioning,
    /// The prompt: one for a prior that is told the camera, else one a [`View`].
    with: Vec<Conditioning>,
    seed: u64,
}

impl LatentGuide {
    /// Loads the prior that `config` names and encodes the prompt.
    ///
    /// # Errors
    /// Unknown prior, damaged weights, a picture size that the prior cannot take.
    pub(super) fn load(config: &Config, prompt: &str) -> Result<Self> {
        let device = crate::prior::device(&config.device)?;
        let prior = Prior::load(&config.prior, &device)?;
        if prior.unet.config.latent_channels() != prior.vae.latent_channels() {
            return Err(Error::invalid(
                "--prior",
                "is an inpainting model, which needs a picture to fill in",
            )
            .hint("`gen3d image --init --mask` uses it; 3D needs a model that draws from noise"));
        }
        let factor = prior.vae.factor() as u32;
        if !config.camera.size.is_multiple_of(factor) {
            let reason = format!("{} is no multiple of {factor}, the prior's factor", config.camera.size);
            return Err(Error::invalid("camera.size", reason));
        }
        let mut texts = vec![config.sds.negative_prompt.clone()];
        if prior.is_camera_conditioned() {
            texts.push(prompt.to_owned());
        } else {
            let words = ViewPrompts::default();
            texts.extend(View::ALL.iter().map(|v| words.prompt(prompt, *v)));
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut with = prior.encode_texts(&texts)?;
        let without = with.remove(0);
        let guidance = guidance::Guidance {
            rescale: config.sds.guidance_rescale,
            ..guidance::Guidance::scale(config.sds.guidance_scale)
        };
        Ok(Self {
            sds: Sds::new(prior.schedule.clone(), config.sds.loss())?,
            guidance,
            without,
            with,
            prior,
            seed: config.seed,
        })
    }

    /// Words of the prompt that the prior has not learned ([`Prior::strangers`]).
    pub(super) fn strangers(&self, prompt: &str) -> Option<String> {
        self.prior.strangers(prompt)
    }

    /// Side in pixels of the pictures the prior was trained on.
    pub(super) fn picture_size(&self) -> u32 {
        self.prior.image_size()
    }

    /// The prompt as it reads for each camera.
    fn prompts(&self, cameras: &[Camera]) -> Result<Conditioning> {
        let words = ViewPrompts::default();
        let rows: Vec<Conditioning> = cameras
            .iter()
            .map(|camera| {
                let (azimuth, elevation) = angles(camera);
                let view = words.view(azimuth, elevation);
                let row = View::ALL.iter().position(|v| *v == view).unwrap_or(0);
                self.with.get(row).unwrap_or(&self.with[0]).clone()
            })
            .collect();
        Conditioning::stack(&rows)
    }
}

impl Guide for LatentGuide {
    fn identity(&self) -> String {
        self.prior.digest.clone()
    }

    fn guide(&self, views: &Views<'_>, timings: &mut Timings) -> Result<Guidance> {
        let shape = (views.cameras.len(), 3, views.size, views.size);
        let pixels = Var::from_vec(views.pixels.to_vec(), shape, &self.prior.device)?;
        let z = timings.time("optimize.encode", || self.prior.vae.encode_mean(pixels.as_tensor()))?;
        let mut model = UnetPredictor::new(&self.prior, self.without.clone(), self.prompts(views.cameras)?);
        if self.prior.is_camera_conditioned() {
            model.cameras = Some(embeddings(views.cameras, &self.prior.device)?);
        }
        let predictor = Guided { model: &model, guidance: &self.guidance };
        let sds = timings.time("optimize.unet", || {
            self.sds.gradient(&z, &predictor, views.step, views.progress, self.seed)
        })?;
        let gradient = timings.time("optimize.encode_backward", || pull_back(&z, &sds.gradient, &pixels))?;
        let batch = sds.t.len().max(1);
        Ok(Guidance {
            gradient,
            rms: (sds.rms.iter().sum::<f64>() / batch as f64) as f32,
            timestep: sds.t.iter().sum::<f32>() / batch as f32,
        })
    }
}

fn embeddings(cameras: &[Camera], device: &Device) -> Result<Tensor> {
    let numbers: Vec<f32> = cameras.iter().flat_map(Camera::embedding).collect();
    Ok(Tensor::from_vec(numbers, (cameras.len(), 16), device)?)
}

/// ∂L/∂pixels from ∂L/∂z: the tape of `Σ z · g` with `g` held constant.
fn pull_back(z: &Tensor, gradient: &Tensor, pixels: &Var) -> Result<Vec<f32>> {
    let grads = (z * gradient.detach())?.sum_all()?.backward()?;
    let gradient = grads
        .get(pixels.as_tensor())
        .ok_or_else(|| Error::Failed("the encoder passes no gradient to the picture".into()))?;
    Ok(gradient.flatten_all()?.to_vec1()?)
}

/// Azimuth and elevation in degrees of a camera that looks at the origin.
fn angles(camera: &Camera) -> (f32, f32) {
    let p = camera.origin();
    let elevation = (p.y / p.length().max(f32::MIN_POSITIVE)).asin();
    (p.x.atan2(p.z).to_degrees(), elevation.to_degrees())
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::Vec3;

    #[test]
    fn angles_invert_orbit() {
        for (azimuth, elevation) in [(0.0, 0.0), (90.0, 30.0), (-135.0, -10.0)] {
            let (a, e) = angles(&Camera::orbit(azimuth, elevation, 2.4, Vec3::ZERO, 0.7, 64));
            assert!((a - azimuth).abs() < 1e-3 && (e - elevation).abs() < 1e-3, "{a} {e}");
        }
    }

    #[test]
    fn pull_back_is_the_vector_jacobian_product() {
        // z = x², so the pull-back of g is 2 x g.
        let x = Var::from_vec(vec![1f32, -2.0, 0.5], (1, 3), &Device::Cpu).unwrap();
        let z = x.as_tensor().sqr().unwrap();
        let g = Tensor::new(&[[3f32, 1.0, -4.0]], &Device::Cpu).unwrap();
        assert_eq!(pull_back(&z, &g, &x).unwrap(), [6.0, -4.0, -4.0]);
    }
}
