//! Joint training of the text encoder and the camera-conditioned U-Net on latents.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use serde_json::json;

use super::config::TrainConfig;
use super::pictures::{Pictures, batch_indices};
use super::run::{Run, learning_rate};
use super::weighting::loss_weight;
use crate::error::{Error, Result};
use crate::prior::encode_prompts;
use crate::prior::nn;
use crate::prior::nn::adam::{AdamConfig, AdamW};
use crate::prior::schedule::Schedule;
use crate::prior::text::TextEncoder;
use crate::prior::tokenizer::Tokenizer;
use crate::prior::unet::Unet;
use crate::prior::weights::Store;
use crate::rng::{Rng, Stream};

const CHECKPOINT: &str = "unet.train.safetensors";
const CHECKPOINT_EVERY: u32 = 250;
const TEXT: &str = "text_encoder/";
const UNET: &str = "unet/";

/// The averaged weights of both networks.
pub struct Trained {
    /// `text_encoder/model.safetensors`.
    pub text: HashMap<String, Tensor>,
    /// `unet/diffusion_pytorch_model.safetensors`.
    pub unet: HashMap<String, Tensor>,
}

/// Latents `[N, c, h, w]` scaled to unit variance, with the pictures they came from.
pub struct Latents<'a> {
    /// All latents; where they are is where the networks are trained.
    pub values: Tensor,
    /// Captions and cameras.
    pub pictures: &'a Pictures,
}

/// What one step trains on.
struct Batch {
    x0: Tensor,
    noise: Tensor,
    /// The picture whose caption is told, if any.
    captions: Vec<Option<usize>>,
    cameras: Tensor,
    t: Vec<f32>,
}

/// One training run in progress: networks, optimiser and data.
pub struct Training<'a> {
    config: &'a TrainConfig,
    tokenizer: &'a Tokenizer,
    schedule: Schedule,
    latents: Latents<'a>,
    text: TextEncoder,
    unet: Unet,
    adam: AdamW,
    device: Device,
}

impl<'a> Training<'a> {
    /// Fresh networks; [`Training::run`] restores a checkpoint if there is one.
    ///
    /// # Errors
    /// If a network cannot be built from the config.
    pub fn new(config: &'a TrainConfig, tokenizer: &'a Tokenizer, latents: Latents<'a>) -> Result<Self> {
        let device = latents.values.device().clone();
        let text_store = Store::fresh(config.seed, &device);
        let text = TextEncoder::new(config.text_config(tokenizer.vocab_size()), &text_store.root())?;
        let unet_store = Store::fresh(config.seed, &device);
        let unet = Unet::new(config.unet_config(), &unet_store.root())?;
        let mut vars = std::collections::BTreeMap::new();
        vars.extend(text_store.vars().into_iter().map(|(k, v)| (format!("{TEXT}{k}"), v)));
        vars.extend(unet_store.vars().into_iter().map(|(k, v)| (format!("{UNET}{k}"), v)));
        let u = &config.unet;
        let adam = AdamW::new(
            vars,
            AdamConfig {
                max_grad_norm: Some(u.max_grad_norm),
                ema_decay: Some(u.ema_decay),
                weight_decay: 0.0,
                ..AdamConfig::default()
            },
        )?;
        let schedule = config.schedule()?;
        Ok(Self { config, tokenizer, schedule, latents, text, unet, adam, device })
    }

    /// Takes the weights of another model instead of random ones.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub(super) fn start_from(&mut self, start: &super::start::Start) -> Result<()> {
        start.put(&mut self.adam)
    }

    /// What `step` trains on.
    fn batch(&self, step: u32) -> Result<Batch> {
        let (c, pictures) = (self.config, self.latents.pictures);
        let batch = c.unet.batch;
        let indices = batch_indices(c.seed, step, batch, pictures.len());
        let ids =
            Tensor::from_vec(indices.iter().map(|&i| i as u32).collect::<Vec<_>>(), batch, &self.device)?;
        let x0 = self.latents.values.index_select(&ids, 0)?;
        let drop = Rng::new(c.seed, Stream::Dropout, step);
        let dropped = |j: usize| drop.uniform(j as u64) < c.unet.caption_dropout;
        // Stratified over the batch: each step sees all noise levels, which lowers the loss's variance.
        let rng = Rng::new(c.seed, Stream::Timestep, step);
        let t = (0..batch)
            .map(|j| ((j as f32 + rng.uniform(j as u64)) / batch as f32 * 1000.0).floor().min(999.0))
            .collect();
        let noise = Rng::new(c.seed, Stream::Noise, step).normals(0, x0.elem_count());
        Ok(Batch {
            noise: Tensor::from_vec(noise, x0.shape(), &self.device)?,
            captions: indices
                .iter()
                .enumerate()
                .map(|(j, &i)| if dropped(j) { None } else { Some(i) })
                .collect(),
            cameras: pictures.cameras(&indices, &self.device)?,
            x0,
            t,
        })
    }

    /// The share of the rows `rows` in the batch's loss, the mean squared error of what is
    /// predicted, weighted by noise level.
    fn partial_loss(&self, batch: &Batch, rows: Range<usize>) -> Result<Tensor> {
        let cut = |x: &Tensor| x.narrow(0, rows.start, rows.len())?.contiguous();
        let (x0, noise, times) = (cut(&batch.x0)?, cut(&batch.noise)?, &batch.t[rows.clone()]);
        let name = |i: &Option<usize>| i.map_or("", |i| self.latents.pictures.caption(i));
        let captions: Vec<&str> = batch.captions[rows.clone()].iter().map(name).collect();
        let context = encode_prompts(self.tokenizer, &self.text, &captions, &self.device)?;
        let x_t = self.schedule.add_noise(&x0, &noise, times)?;
        let target = self.schedule.target(&x0, &noise, times)?;
        let t = Tensor::from_vec(times.to_vec(), rows.len(), &self.device)?;
        let prediction = self.unet.forward(&x_t, &t, &context, Some(&cut(&batch.cameras)?))?;
        let error = (prediction - target)?.sqr()?.flatten_from(1)?.mean(1)?;
        let gamma = self.config.unet.min_snr_gamma;
        let kind = self.schedule.config.prediction_type;
        let weights: Vec<f32> =
            times.iter().map(|t| loss_weight(&self.schedule, kind, gamma, *t) as f32).collect();
        let weights = Tensor::from_vec(weights, rows.len(), &self.device)?;
        let share = rows.len() as f64 / batch.t.len() as f64;
        Ok(((error * weights)?.mean_all()? * share)?)
    }

    /// The loss of `step` and its gradients, in parts side by side. The number of parts decides in which
    /// order gradients are summed, and so the result's bytes.
    fn gradients(&self, step: u32, parts: usize) -> Result<(f64, Vec<GradStore>)> {
        let batch = self.batch(step)?;
        let part = |i: usize| -> Result<(f64, GradStore)> {
            let rows = i * batch.t.len() / parts..(i + 1) * batch.t.len() / parts;
            let loss = self.partial_loss(&batch, rows)?;
            Ok((f64::from(loss.to_scalar::<f32>()?), loss.backward()?))
        };
        let (losses, gradients): (Vec<f64>, _) = nn::in_parts(parts, part)?.into_iter().unzip();
        Ok((losses.iter().sum(), gradients))
    }

    /// Trains to `config.unet.steps`, going on from a checkpoint if there is one. With every
    /// checkpoint `publish` gets what was learned so far and the step, so that a running training can be tried.
    ///
    /// # Errors
    /// If the loss is not finite, a file cannot be written, or the user asked to stop.
    pub fn run(&mut self, run: &mut Run, publish: &dyn Fn(&Trained, u32) -> Result<()>) -> Result<()> {
        let u = self.config.unet.clone();
        let first = run.restore(CHECKPOINT, &mut self.adam)?;
        let (mut sum, mut counted) = (0.0, 0u32);
        // One part fills a GPU.
        let parts = if self.device.is_cpu() { u.parts.clamp(1, u.batch.max(1)) } else { 1 };
        for step in first..u.steps {
            let (value, gradients) = self.gradients(step, parts)?;
            if !value.is_finite() {
                return Err(Error::Failed(format!("u-net: the loss is {value} at step {step}"))
                    .hint("lower unet.learning_rate"));
            }
            let rate = learning_rate(step, u.steps, u.warmup, u.learning_rate);
            self.adam.step_sum(&gradients.iter().collect::<Vec<_>>(), rate)?;
            (sum, counted) = (sum + value, counted + 1);
            (run.progress)("u-net", step + 1, u.steps, value);
            if (step + 1) % 50 == 0 {
                // After a resume the first mean is of fewer than 50 steps.
                let mean = sum / f64::from(counted);
                run.log(&json!({"stage": "unet", "step": step + 1, "loss": mean, "lr": rate}))?;
                (sum, counted) = (0.0, 0);
            }
            let stopped = run.stopped();
            if stopped || (step + 1) % CHECKPOINT_EVERY == 0 || step + 1 == u.steps {
                run.save(CHECKPOINT, &self.adam, step + 1)?;
                publish(&self.trained()?, step + 1)?;
            }
            if stopped {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }

    /// The averaged weights reached so far.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn trained(&self) -> Result<Trained> {
        let all = self.adam.averaged()?;
        let part = |prefix: &str| {
            all.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), v.clone()))).collect()
        };
        Ok(Trained { text: part(TEXT), unet: part(UNET) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::data::{DataConfig, Dataset};

    /// The gradient of a batch does not depend on the parts it is computed in.
    #[test]
    fn parts_have_the_gradient_of_the_whole() {
        let mut config = TrainConfig { image_size: 16, text_width: 8, text_layers: 1, ..Default::default() };
        config.vae.channels = vec![8, 16];
        config.unet.channels = vec![16, 32];
        config.unet.heads = 2;
        config.unet.batch = 6;
        let props = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props");
        let small = DataConfig { image_size: 16, supersample: 1, ..DataConfig::default() };
        let data = Dataset::open(None, &props, small, 1).unwrap();
        let pictures = Pictures::draw(&data, 12, 16, |_| Ok(())).unwrap();
        let tokenizer = Tokenizer::train(&data.captions(), 2000, config.max_tokens).unwrap();
        let values = Rng::new(3, Stream::Probe, 0).normals(0, 12 * 4 * 8 * 8);
        let values = Tensor::from_vec(values, (12, 4, 8, 8), &Device::Cpu).unwrap();
        let latents = Latents { values, pictures: &pictures };
        let mut training = Training::new(&config, &tokenizer, latents).unwrap();
        // Some layers start at zero and let no gradient through: not any more after two steps.
        for step in 0..2 {
            let (_, stores) = training.gradients(step, 1).unwrap();
            training.adam.step_sum(&stores.iter().collect::<Vec<_>>(), 1e-2).unwrap();
        }
        let sum = |parts: usize| {
            let (loss, stores) = training.gradients(3, parts).unwrap();
            let mut all = HashMap::new();
            for (name, var) in training.adam.vars() {
                let found = stores.iter().filter_map(|s| s.get(var.as_tensor()));
                let total = found.fold(None::<Tensor>, |sum, g| {
                    Some(match sum {
                        Some(sum) => (sum + g).unwrap(),
                        None => g.clone(),
                    })
                });
                all.insert(name.to_owned(), total.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
            }
            (loss, all)
        };
        let (loss, whole) = sum(1);
        for parts in [2, 3] {
            let (other, cut) = sum(parts);
            assert!((other - loss).abs() < 1e-5, "{loss} {other}");
            let mut moved = 0;
            for (name, a) in &whole {
                let size = a.iter().map(|v| v * v).sum::<f32>().sqrt();
                let off = a.iter().zip(&cut[name]).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
                assert!(off <= 1e-4 * size + 1e-7, "{parts} parts: {name} {off} of {size}");
                moved += usize::from(size > 0.0);
            }
            assert!(moved > 20, "{moved}");
        }
    }
}
