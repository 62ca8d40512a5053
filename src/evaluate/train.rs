//! Training of the evaluator.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde_json::json;

use super::augment::augment;
use super::config::EvaluatorConfig;
use super::contrast::{azimuth_loss, batch_top1, info_nce};
use super::encoder::Encoder;
use super::files;
use crate::error::{Error, Result};
use crate::prior::nn::adam::{AdamConfig, AdamW};
use crate::prior::tokenizer::Tokenizer;
use crate::prior::weights::Store;
use crate::train::data::{DataConfig, Dataset, split::Split};
use crate::train::pictures::{Pictures, Wanted, batch_indices};
use crate::train::run::{Run, learning_rate};
use crate::train::{Places, drawn, learned_tokenizer, remember};

const CHECKPOINT: &str = "evaluator.train.safetensors";
const CHECKPOINT_EVERY: u32 = 250;
const LOG_EVERY: u32 = 25;

/// Trains (or goes on training) the evaluator, on the training side of the split alone: what is held out
/// from the prior is new to its judge, too.
///
/// # Errors
/// Bad config or data, a loss that is not finite, files that cannot be written, or
/// [`Error::Interrupted`] after a checkpoint.
pub fn train(
    config: &EvaluatorConfig,
    places: &Places,
    progress: &mut dyn FnMut(&str, u32, u32, f64),
) -> Result<()> {
    config.check()?;
    std::fs::create_dir_all(&places.run).map_err(|e| Error::io(&places.run, e))?;
    remember(config, &places.run, |old| old.steps = config.steps)?;
    let data = dataset(config, places.corpus.as_deref(), &places.props, Split::Train, config.seed)?;
    let wanted = Wanted { first: 0, count: config.pictures, size: config.image_size, depth: false };
    let pictures = drawn(wanted, &data, &places.run, progress)?;
    let tokenizer = learned_tokenizer((config.vocab_size, config.max_tokens), &data, &places.run)?;
    let mut training = Training::new(config, &tokenizer, &pictures, &places.device)?;
    let mut run = Run { dir: places.run.clone(), device: places.device.clone(), progress };
    training.run(&mut run)?;
    files::save(&places.out, &training.encoder.config, &tokenizer, &training.weights()?)
}

/// The pictures of `config` on one side of the split.
///
/// # Errors
/// As [`Dataset::open`].
pub fn dataset(
    config: &EvaluatorConfig,
    corpus: Option<&Path>,
    props: &Path,
    split: Split,
    seed: u64,
) -> Result<Dataset> {
    let data = DataConfig { image_size: config.image_size as u32, split, ..config.data.clone() };
    Dataset::open(corpus, props, data, seed)
}

/// What a step reports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Losses {
    pub(super) total: f64,
    contrast: f64,
    azimuth: f64,
    top1: f64,
}

/// The network and its optimiser.
pub(super) struct Training<'a> {
    config: &'a EvaluatorConfig,
    pictures: &'a Pictures,
    /// Token ids of each caption.
    ids: Vec<Vec<u32>>,
    pub(super) encoder: Encoder,
    pub(super) adam: AdamW,
    device: Device,
}

impl<'a> Training<'a> {
    /// From fresh weights, keyed by the config's seed.
    pub(super) fn new(
        config: &'a EvaluatorConfig,
        tokenizer: &Tokenizer,
        pictures: &'a Pictures,
        device: &Device,
    ) -> Result<Self> {
        let store = Store::fresh(config.seed, device);
        let encoder = Encoder::new(config.encoder(tokenizer.vocab_size()), &store.root())?;
        let adam = AdamW::new(
            store.vars(),
            AdamConfig {
                max_grad_norm: Some(1.0),
                ema_decay: Some(config.ema_decay),
                weight_decay: config.weight_decay,
                beta2: 0.98, // as CLIP's: the loss of a small batch is noisy
                ..AdamConfig::default()
            },
        )?;
        let ids = pictures.captions.iter().map(|c| tokenizer.encode(c)).collect::<Result<_>>()?;
        Ok(Self { config, pictures, ids, encoder, adam, device: device.clone() })
    }

    /// All steps that are left, with checkpoints.
    fn run(&mut self, run: &mut Run) -> Result<()> {
        let steps = self.config.steps;
        let mut mean = Mean::default();
        for step in run.restore(CHECKPOINT, &mut self.adam)?..steps {
            let rate = learning_rate(step, steps, self.config.warmup, self.config.learning_rate);
            let losses = self.step(step, rate)?;
            mean.add(losses);
            (run.progress)("evaluator", step + 1, steps, losses.total);
            if (step + 1) % LOG_EVERY == 0 {
                run.log(&mean.line(step + 1, rate))?;
                mean = Mean::default();
            }
            let stopped = run.stopped();
            if stopped || (step + 1) % CHECKPOINT_EVERY == 0 || step + 1 == steps {
                run.save(CHECKPOINT, &self.adam, step + 1)?;
            }
            if stopped {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }

    /// One update: a pure function of the weights, the moments and `step`.
    pub(super) fn step(&mut self, step: u32, rate: f64) -> Result<Losses> {
        let c = self.config;
        let indices = batch_indices(c.seed, step, c.batch, self.pictures.len());
        let captions: Vec<usize> = indices.iter().map(|&i| self.pictures.caption_index(i)).collect();
        let azimuths: Vec<Option<f32>> = indices.iter().map(|&i| self.pictures.azimuth(i)).collect();
        let seen = self.encoder.pictures(&self.changed(&indices, step)?)?;
        let tokens: Vec<u32> = captions.iter().flat_map(|&i| self.ids[i].iter().copied()).collect();
        let tokens = Tensor::from_vec(tokens, (c.batch, c.max_tokens), &self.device)?;
        let texts = self.encoder.texts(&tokens)?;
        let contrast = info_nce(&seen.embedding, &texts, &self.encoder.scale()?, &captions)?;
        let azimuth = azimuth_loss(&seen.azimuth, &azimuths)?;
        let loss = (&contrast + (&azimuth * c.azimuth_weight)?)?;
        let number = |t: &Tensor| -> Result<f64> { Ok(f64::from(t.to_scalar::<f32>()?)) };
        let losses = Losses {
            total: number(&loss)?,
            contrast: number(&contrast)?,
            azimuth: number(&azimuth)?,
            top1: batch_top1(&seen.embedding, &texts, &captions)?,
        };
        if !losses.total.is_finite() {
            return Err(Error::Failed(format!("evaluator: the loss is {} at step {step}", losses.total))
                .hint("lower learning_rate"));
        }
        self.adam.step(&loss.backward()?, rate)?;
        Ok(losses)
    }

    /// The pictures of a batch, each changed at random.
    fn changed(&self, indices: &[usize], step: u32) -> Result<Tensor> {
        let (c, size) = (self.config, self.config.image_size);
        let batch = self.pictures.batch(indices, &Device::Cpu)?;
        let mut values = batch.flatten_all()?.to_vec1::<f32>()?;
        values
            .par_chunks_exact_mut(3 * size * size)
            .enumerate()
            .for_each(|(i, picture)| augment(picture, size, c.seed, step, i as u64));
        Ok(Tensor::from_vec(values, batch.shape(), &self.device)?)
    }

    /// The averaged weights reached so far.
    pub(super) fn weights(&self) -> Result<HashMap<String, Tensor>> {
        Ok(self.adam.averaged()?)
    }
}

/// Means between two lines of the log.
#[derive(Default)]
struct Mean {
    steps: u32,
    sums: [f64; 4],
}

impl Mean {
    fn add(&mut self, l: Losses) {
        self.steps += 1;
        for (sum, v) in self.sums.iter_mut().zip([l.total, l.contrast, l.azimuth, l.top1]) {
            *sum += v;
        }
    }

    fn line(&self, step: u32, rate: f64) -> serde_json::Value {
        let [loss, contrast, azimuth, top1] = self.sums.map(|s| s / f64::from(self.steps.max(1)));
        json!({"stage": "evaluator", "step": step, "loss": loss, "contrast": contrast, "azimuth": azimuth,
               "top1": top1, "lr": rate})
    }
}
