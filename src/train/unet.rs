//! Joint training of the text encoder and the camera-conditioned U-Net on latents.

use std::collections::HashMap;
use std::sync::Mutex;

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use super::batch::{Batch, in_parts};
use super::config::TrainConfig;
use super::run::{Course, Run};
use super::supply::Supply;
use crate::error::Result;
use crate::prior::nn::adam::AdamW;
use crate::prior::schedule::Schedule;
use crate::prior::text::TextEncoder;
use crate::prior::tokenizer::Tokenizer;
use crate::prior::unet::{Unet, UnetInputs};
use crate::prior::weights::Store;

const TEXT: &str = "text_encoder/";
const UNET: &str = "unet/";

/// The averaged weights of both networks.
pub struct Trained {
    /// `text_encoder/model.safetensors`.
    pub text: HashMap<String, Tensor>,
    /// `unet/diffusion_pytorch_model.safetensors`.
    pub unet: HashMap<String, Tensor>,
}

/// One training run in progress.
pub struct Training<'a> {
    networks: Networks<'a>,
    adam: AdamW,
}

/// What is trained, and on what.
struct Networks<'a> {
    config: &'a TrainConfig,
    tokenizer: &'a Tokenizer,
    schedule: Schedule,
    supply: Supply<'a>,
    /// Token ids of captions met so far.
    tokens: Mutex<HashMap<String, Vec<u32>>>,
    text: TextEncoder,
    unet: Unet,
}

impl<'a> Training<'a> {
    /// Fresh networks; [`Training::run`] restores a checkpoint if there is one.
    ///
    /// # Errors
    /// If a network cannot be built from the config.
    pub(super) fn new(config: &'a TrainConfig, tokenizer: &'a Tokenizer, supply: Supply<'a>) -> Result<Self> {
        let device = supply.latents().values.device().clone();
        let text_store = Store::fresh(config.seed, &device);
        let text = TextEncoder::new(config.text_config(tokenizer.vocab_size()), &text_store.root())?;
        let unet_store = Store::fresh(config.seed, &device);
        let unet = Unet::new(config.unet_config(), &unet_store.root())?;
        let mut vars = std::collections::BTreeMap::new();
        vars.extend(text_store.vars().into_iter().map(|(k, v)| (format!("{TEXT}{k}"), v)));
        vars.extend(unet_store.vars().into_iter().map(|(k, v)| (format!("{UNET}{k}"), v)));
        let adam = super::run::adam(vars, config.unet.max_grad_norm, config.unet.ema_decay)?;
        let schedule = config.schedule()?;
        Ok(Self {
            networks: Networks { config, tokenizer, schedule, supply, tokens: Mutex::default(), text, unet },
            adam,
        })
    }

    /// Takes the weights of another model instead of random ones.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub(super) fn start_from(&mut self, start: &super::start::Start) -> Result<()> {
        start.put(&mut self.adam)
    }

    /// Trains to `config.unet.steps`, going on from a checkpoint if there is one. With every
    /// checkpoint `publish` gets what was learned so far and the step, so that a running training can be tried.
    ///
    /// # Errors
    /// If the loss is not finite, a file cannot be written, or the user asked to stop.
    pub fn run(&mut self, run: &mut Run, publish: &dyn Fn(&Trained, u32) -> Result<()>) -> Result<()> {
        let (networks, u) = (&self.networks, &self.networks.config.unet);
        let course = Course {
            stage: "unet",
            name: "u-net",
            checkpoint: "unet.train.safetensors",
            steps: u.steps,
            warmup: u.warmup,
            learning_rate: u.learning_rate,
            checkpoint_every: u.checkpoint_every,
            hint: "lower unet.learning_rate",
        };
        let parts = super::run::parts(u.parts, u.batch, &run.device);
        let step = |step: u32| networks.gradients(step, parts);
        run.optimise(&course, &mut self.adam, &step, &|adam, step| publish(&trained(adam)?, step))
    }
}

impl Networks<'_> {
    /// The loss of part of a step's batch, as its share of the whole's.
    fn partial_loss(&self, batch: &Batch, share: f64) -> Result<Tensor> {
        let context = self.text.forward(&self.token_ids(batch)?)?;
        let (x_t, t) = batch.noisy(&self.schedule)?;
        let cameras = Some(&batch.cameras);
        let prediction = match &batch.rays {
            Some(rays) => {
                let sample = Tensor::cat(&[&x_t, rays], 1)?.contiguous()?;
                let inputs = UnetInputs { class_labels: cameras, ..UnetInputs::new(&sample, &t, &context) };
                self.unet.predict(&inputs)?
            }
            None => self.unet.forward(&x_t, &t, &context, cameras)?,
        };
        Ok((batch.loss(&self.schedule, self.config.unet.min_snr_gamma, &prediction)? * share)?)
    }

    /// The token ids `[B, L]` of a batch's captions.
    fn token_ids(&self, batch: &Batch) -> Result<Tensor> {
        let latents = self.supply.latents();
        let mut known = self.tokens.lock().expect("no panic while held");
        let length = self.tokenizer.max_length;
        let mut ids: Vec<u32> = Vec::with_capacity(batch.t.len() * length);
        for caption in batch.texts(&latents.pictures) {
            match known.get(caption) {
                Some(found) => ids.extend(found),
                None => {
                    let found = self.tokenizer.encode(caption)?;
                    ids.extend(&found);
                    known.insert(caption.to_owned(), found);
                }
            }
        }
        Ok(Tensor::from_vec(ids, (batch.t.len(), length), latents.values.device())?)
    }

    /// The loss of `step` and its gradients, in parts side by side. The number of parts decides in which
    /// order gradients are summed, and so the result's bytes.
    fn gradients(&self, step: u32, parts: usize) -> Result<(f64, Vec<GradStore>)> {
        let (c, u) = (self.config, &self.config.unet);
        self.supply.wait(step)?;
        let sizes = (u.batch, self.supply.count(step));
        let batch = Batch::draw(&self.supply.latents(), c.seed, step, sizes, u.caption_dropout)?;
        in_parts(&batch, parts, |part, share| self.partial_loss(part, share))
    }
}

/// The averaged weights reached so far.
fn trained(adam: &AdamW) -> Result<Trained> {
    let all = adam.averaged()?;
    let part = |prefix: &str| {
        all.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), v.clone()))).collect()
    };
    Ok(Trained { text: part(TEXT), unet: part(UNET) })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::rng::{Rng, Stream};
    use crate::train::batch::Latents;
    use crate::train::data::{DataConfig, Dataset};
    use crate::train::pictures::{Pictures, Wanted};

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
        let pictures =
            Pictures::draw(&data, Wanted { first: 0, count: 12, size: 16, depth: false }, |_| Ok(()))
                .unwrap();
        let tokenizer = Tokenizer::train(&data.captions(), 2000, config.max_tokens).unwrap();
        let values = Rng::new(3, Stream::Probe, 0).normals(0, 12 * 4 * 8 * 8);
        let values = Tensor::from_vec(values, (12, 4, 8, 8), &Device::Cpu).unwrap();
        let supply = Supply::whole(Latents { values, rays: None, pictures });
        let mut training = Training::new(&config, &tokenizer, supply).unwrap();
        // Some layers start at zero and let no gradient through: not any more after two steps.
        for step in 0..2 {
            let (_, stores) = training.networks.gradients(step, 1).unwrap();
            training.adam.step_sum(&stores.iter().collect::<Vec<_>>(), 1e-2).unwrap();
        }
        let sum = |parts: usize| {
            let (loss, stores) = training.networks.gradients(3, parts).unwrap();
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
