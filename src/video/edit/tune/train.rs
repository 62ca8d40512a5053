//! The tuning itself: the prior learns to predict the noise in the clip's own frames.

use std::sync::Mutex;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::Tuned;
use crate::prior::Prior;
use crate::prior::nn::adam::{AdamConfig, AdamW};
use crate::prior::unet::{Recomputed, UnetInputs};
use crate::rng::{Rng, Stream};
use crate::video::edit::attention::{AttentionConfig, FrameHook, Keys, References};
use crate::video::edit::config::CameraConfig;
use crate::video::edit::frames::{FrameSource, pad};
use crate::video::edit::window::windows;
use crate::{Error, Result};

/// How a prior is tuned to a clip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuneConfig {
    /// What the clip shows; in an edit, its source prompt.
    #[serde(skip)]
    pub prompt: String,
    /// Frames, spread evenly over the clip; the first of them is the key frame.
    pub frames: usize,
    /// Steps of `AdamW`.
    pub steps: usize,
    /// Its constant learning rate.
    pub rate: f64,
    /// Largest global norm of a step's gradient.
    pub max_grad_norm: f64,
    /// Keys timesteps and noise.
    pub seed: u64,
    /// For priors that take a camera; in an edit, the edit's.
    #[serde(skip)]
    pub camera: CameraConfig,
}

impl Default for TuneConfig {
    /// The original's for edges.
    fn default() -> Self {
        Self {
            prompt: String::new(),
            frames: 8,
            steps: 80,
            rate: 3e-5,
            max_grad_norm: 1.0,
            seed: 0,
            camera: CameraConfig::default(),
        }
    }
}

/// Tunes `tuned` in place: mean square error of the prediction at one random timestep a step, over all
/// chosen frames at once. `progress` is told the step, their number and the loss, and may end it.
///
/// # Errors
/// Settings out of range, a loss that is not finite, and those of `source` and `progress`.
pub fn tune(
    prior: &Prior,
    source: &dyn FrameSource,
    tuned: &Tuned,
    config: &TuneConfig,
    progress: &mut dyn FnMut(usize, usize, f64) -> Result<()>,
) -> Result<()> {
    if source.is_empty() || config.frames == 0 || !(config.rate > 0.0 && config.rate < 1.0) {
        return Err(Error::invalid("tuning", "needs frames, and a learning rate between 0 and 1"));
    }
    let count = config.frames.min(source.len());
    let chosen: Vec<usize> = (0..count).map(|i| i * source.len() / count).collect();
    let clip = Clip::new(prior, source, &chosen, config)?;
    let norm = Some(config.max_grad_norm);
    let adam = AdamConfig { max_grad_norm: norm, ..AdamConfig::default() };
    let mut optimizer = AdamW::new(tuned.vars().clone(), adam)?;
    for step in 0..config.steps {
        let done = clip.loss(prior, tuned, config.seed, step as u32)?;
        let loss = done.loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if !loss.is_finite() {
            return Err(Error::Failed(format!("tuning: the loss is {loss}")).hint("lower the learning rate"));
        }
        let parts: Vec<_> = done.gradients.iter().collect();
        optimizer.step_sum(&parts, config.rate)?;
        progress(step + 1, config.steps, loss)?;
    }
    Ok(())
}

/// The chosen frames as the U-Net sees them.
pub(in crate::video::edit) struct Clip {
    latents: Tensor,
    cameras: Option<Tensor>,
    context: Tensor,
    attention: AttentionConfig,
}

impl Clip {
    /// Of the `chosen` frames.
    pub(in crate::video::edit) fn new(
        prior: &Prior,
        source: &dyn FrameSource,
        chosen: &[usize],
        config: &TuneConfig,
    ) -> Result<Self> {
        let latents = chosen
            .iter()
            .map(|i| {
                let frame = pad(&source.frame(*i)?.unsqueeze(0)?, prior.vae.factor())?;
                prior.vae.encode_mean(&frame.to_device(&prior.device)?)
            })
            .collect::<Result<Vec<Tensor>>>()?;
        let text = prior.encode_texts(&[&config.prompt])?.remove(0);
        Ok(Self {
            latents: Tensor::cat(&latents, 0)?.contiguous()?,
            cameras: config.camera.embeddings(prior, chosen, source.len())?,
            context: text.rows(chosen.len())?.context.contiguous()?,
            attention: AttentionConfig { keys: vec![Keys::First], least_width: 0.0 },
        })
    }

    /// The loss of a step and its gradients.
    pub(in crate::video::edit) fn loss(
        &self,
        prior: &Prior,
        tuned: &Tuned,
        seed: u64,
        step: u32,
    ) -> Result<Recomputed> {
        let frames = self.latents.dim(0)?;
        let total = prior.schedule.len() as u32;
        let t = Rng::new(seed, Stream::Timestep, step).below(0, total) as f32;
        let times = vec![t; frames];
        let noise = crate::sample::normal_like(&self.latents, &Rng::new(seed, Stream::Noise, step))?;
        let noisy = prior.schedule.add_noise(&self.latents, &noise, &times)?;
        let target = prior.schedule.target(&self.latents, &noise, &times)?;
        let rays = prior.unet.with_rays(&noisy, self.cameras.as_ref())?;
        let time = Tensor::from_vec(times, frames, &prior.device)?;
        let references = Mutex::new(References::default());
        let window = windows(frames, frames)[0];
        let hook = FrameHook {
            config: &self.attention,
            least_channels: 0,
            window,
            references: &references,
            words: None,
            blend: None,
            tuned: Some(tuned),
        };
        let inputs = UnetInputs {
            class_labels: self.cameras.as_ref(),
            hook: Some(&hook),
            ..UnetInputs::new(rays.as_ref().unwrap_or(&noisy), &time, &self.context)
        };
        prior.unet.backward_recomputed(&inputs, |out| Ok((out - &target)?.sqr()?.mean_all()?))
    }
}
