//! Training of a `ControlNet` beside a frozen prior (Zhang et al. 2023): a copy of the U-Net's encoder learns
//! to steer it by residuals that start at zero.

pub mod config;
mod hint;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Mutex;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::batch::{Batch, Latents, in_parts};
use super::data::{DataConfig, Dataset};
use super::pictures::Wanted;
use super::run::{Course, Run, to_f16};
use super::{Places, drawn, remember};
use crate::error::{Error, Result};
use crate::prior::Prior;
use crate::prior::conditioning::Conditioning;
use crate::prior::control::{ControlConfig, ControlNet};
use crate::prior::files::Folder;
use crate::prior::nn::{self, adam::AdamW};
use crate::prior::tensor_file::write_safetensors;
use crate::prior::unet::UnetInputs;
use crate::prior::weights::Store;
use config::{ControlTraining, Kind};
use hint::Hints;

/// Trains (or goes on training) a `ControlNet` of the prior `name`, and writes it to `places.out` in
/// diffusers' layout.
///
/// # Errors
/// Bad config or data, a prior without a camera, a loss that is not finite, files that cannot be written, or
/// [`Error::Interrupted`] after a checkpoint.
pub fn train(
    config: &ControlTraining,
    name: &str,
    places: &Places,
    progress: &mut dyn FnMut(&str, u32, u32, f64),
) -> Result<()> {
    config.check()?;
    let prior = Prior::load(name, &places.device)?;
    std::fs::create_dir_all(&places.run).map_err(|e| Error::io(&places.run, e))?;
    remember(config, &places.run, |old| old.steps = config.steps)?;
    let size = prior.image_size() as usize;
    let shown = DataConfig { image_size: size as u32, ..config.data.clone() };
    let data = Dataset::open(places.corpus.as_deref(), &places.props, shown, config.seed)?;
    let wanted = Wanted { first: 0, count: config.pictures, size, depth: config.kind == Kind::Depth };
    let pictures = drawn(wanted, &data, &places.run, progress)?;
    nn::prepare_training(&places.device)?;
    let mut run = Run { dir: places.run.clone(), device: places.device.clone(), progress };
    let values = super::vae::encode_all(&|x| prior.vae.encode_mean(x), &pictures, usize::MAX, &mut run)?;
    let hints = Hints::of(&pictures, config.kind);
    let rays = super::kept_rays(&prior.unet.config, &pictures.cameras, &values)?;
    let latents = Latents { values, rays, pictures };
    let networks = Networks { config, prior: &prior, latents, hints, contexts: Mutex::default() };
    let (net, mut adam) = networks.new_control(&Folder::named(name)?)?;
    let course = Course {
        stage: "control",
        name: "control",
        checkpoint: "control.train.safetensors",
        steps: config.steps,
        warmup: config.warmup,
        learning_rate: config.learning_rate,
        checkpoint_every: super::config::CHECKPOINT_EVERY,
        hint: "lower learning_rate",
    };
    let parts = super::run::parts(config.parts, config.batch, &places.device);
    let step = |step: u32| networks.gradients(&net, step, parts);
    run.optimise(&course, &mut adam, &step, &|adam, _| publish(&places.out, &net.config, adam))
}

/// What stays, and on what is trained.
struct Networks<'a> {
    config: &'a ControlTraining,
    prior: &'a Prior,
    latents: Latents,
    hints: Hints,
    /// What the frozen text encoder says of captions met so far, `[1, L, n]`.
    contexts: Mutex<HashMap<String, Tensor>>,
}

impl Networks<'_> {
    /// A `ControlNet` whose encoder is the U-Net's, and its optimiser.
    fn new_control(&self, folder: &Folder) -> Result<(ControlNet, AdamW)> {
        let unet = self.prior.unet.config.clone();
        if unet.projection_class_embeddings_input_dim != Some(16) {
            return Err(Error::invalid("--prior", "is not conditioned by a camera")
                .hint("only priors of `gen3d train prior` can be steered by what is trained here"));
        }
        let (own, factor) = (self.config.channels.len(), self.prior.vae.factor());
        if own == 0 || 1 << (own - 1) != factor {
            let why = format!("{own} resolutions, but the autoencoder's factor is {factor}");
            return Err(Error::invalid("channels", why));
        }
        let config = control_config(unet, self.config.channels.clone());
        let store = Store::fresh(self.config.seed, &self.prior.device);
        let net = ControlNet::new(config, &store.root())?;
        let (copied, _) = folder.tensors("unet")?;
        for (name, var) in store.vars() {
            match copied.get(&name).filter(|t| t.dims() == var.dims()) {
                Some(t) => var.set(&t.to_dtype(DType::F32)?.to_device(var.device())?)?,
                None if name.starts_with("controlnet_") => {}
                None => return Err(Error::Failed(format!("the prior's U-Net has no {name}"))),
            }
        }
        let adam = super::run::adam(store.vars(), self.config.max_grad_norm, self.config.ema_decay)?;
        Ok((net, adam))
    }

    /// The hidden states of a batch's captions.
    fn context(&self, batch: &Batch) -> Result<Tensor> {
        let texts = batch.texts(&self.latents.pictures);
        let mut known = self.contexts.lock().expect("no panic while held");
        let new: BTreeSet<&str> = texts.iter().copied().filter(|t| !known.contains_key(*t)).collect();
        let new: Vec<&str> = new.into_iter().collect();
        for (text, found) in new.iter().zip(self.prior.encode_texts(&new)?) {
            known.insert((*text).to_owned(), found.context);
        }
        let all: Vec<&Tensor> = texts.iter().map(|t| &known[*t]).collect();
        if all.iter().any(|c| c.dims() != all[0].dims()) {
            // A text in several windows makes all others as long.
            return Ok(Conditioning::stack(&self.prior.encode_texts(&texts)?)?.context);
        }
        Ok(Tensor::cat(&all, 0)?)
    }

    /// What the steered prior predicts for a batch; `None` leaves it unsteered.
    fn predicted(&self, net: Option<&ControlNet>, batch: &Batch) -> Result<Tensor> {
        let context = self.context(batch)?;
        let (x_t, t) = batch.noisy(&self.prior.schedule)?;
        let cameras = Some(&batch.cameras);
        let with_rays = match &batch.rays {
            Some(rays) => Some(Tensor::cat(&[&x_t, rays], 1)?.contiguous()?),
            None => self.prior.unet.with_rays(&x_t, cameras)?,
        };
        let sample = with_rays.as_ref().unwrap_or(&x_t);
        let inputs = UnetInputs { class_labels: cameras, ..UnetInputs::new(sample, &t, &context) };
        let Some(net) = net else { return self.prior.unet.predict(&inputs) };
        let picture = self.hints.batch(&batch.indices, x_t.device())?;
        let steered = net.forward(&inputs, &picture, 1.0, false)?;
        let down_residuals = &steered.down;
        self.prior.unet.predict(&UnetInputs { down_residuals, mid_residual: Some(&steered.mid), ..inputs })
    }

    fn batch(&self, step: u32) -> Result<Batch> {
        let c = self.config;
        Batch::draw(&self.latents, c.seed, step, (c.batch, self.latents.pictures.len()), c.caption_dropout)
    }

    /// The loss of `step` and its gradients.
    fn gradients(&self, net: &ControlNet, step: u32, parts: usize) -> Result<(f64, Vec<GradStore>)> {
        in_parts(&self.batch(step)?, parts, |part, share| {
            let prediction = self.predicted(Some(net), part)?;
            Ok((part.loss(&self.prior.schedule, None, &prediction)? * share)?)
        })
    }
}

/// The configuration of a `ControlNet` beside `unet`.
fn control_config(mut unet: crate::prior::unet::UnetConfig, channels: Vec<usize>) -> ControlConfig {
    unet.rest.insert("_class_name".into(), json!("ControlNetModel"));
    ControlConfig {
        unet,
        conditioning_channels: 3,
        conditioning_embedding_out_channels: channels,
        controlnet_conditioning_channel_order: "rgb".into(),
        global_pool_conditions: false,
    }
}

/// Writes config and averaged weights, f16.
fn publish(out: &Path, config: &ControlConfig, adam: &AdamW) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    let weights: HashMap<String, Tensor> = adam
        .averaged()?
        .into_iter()
        .map(|(k, v)| Ok((k, v.to_device(&Device::Cpu)?)))
        .collect::<Result<_>>()?;
    let text = serde_json::to_string_pretty(config).map_err(|e| Error::Failed(e.to_string()))?;
    write_safetensors(&out.join("diffusion_pytorch_model.safetensors"), &to_f16(&weights)?)?;
    crate::asset::replace(&out.join("config.json"), (text + "\n").as_bytes())
}

#[cfg(test)]
mod tests;
