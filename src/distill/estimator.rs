//! ε_φ of variational score distillation: the prior's own U-Net with low-rank adapters, trained on the
//! particles while they move (Wang et al. 2023, section 3.2).
//!
//! Adapters sit on q, k, v and out of every attention, their second matrix zero: at the start ε_φ is the
//! prior. The camera is told through the U-Net's class embedding: the prior's own where it has one for
//! cameras, else a fresh MLP 16 → C → C whose second layer starts at zero too.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::sds::At;
use crate::prior::conditioning::Conditioning;
use crate::prior::lora::{fresh, is_attention};
use crate::prior::nn::adam::{AdamConfig, AdamW};
use crate::prior::schedule::{Schedule, per_sample};
use crate::prior::unet::{Unet, UnetConfig, UnetInputs};
use crate::prior::weights::Store;
use crate::rng::{Rng, Stream};
use crate::sample::NoisePredictor;
use crate::{Error, Result};

/// Numbers of a camera.
const CAMERA: usize = 16;
/// Draws of the estimator's own step, beyond those of the loss at the same step.
const OWN: u64 = 1 << 40;

/// Settings of an [`Estimator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EstimatorConfig {
    /// Rank of the adapters (1 … 256).
    pub rank: usize,
    /// Learning rate of its `AdamW` (0 … 1).
    pub learning_rate: f64,
    /// Share of samples whose camera is zeroed while learning (0 … 1); not for priors that take the
    /// camera themselves, which know no such thing as no camera.
    pub camera_dropout: f64,
}

impl Default for EstimatorConfig {
    /// Those of the paper.
    fn default() -> Self {
        Self { rank: 4, learning_rate: 1e-4, camera_dropout: 0.1 }
    }
}

/// See the module's text.
pub struct Estimator {
    unet: Unet,
    schedule: Schedule,
    text: Conditioning,
    config: EstimatorConfig,
    /// Fresh camera MLP: cameras may be dropped.
    own_camera: bool,
    /// See [`Estimator::recomputing`].
    recompute: bool,
    adam: AdamW,
    /// What the variables started as.
    start: BTreeMap<String, Tensor>,
}

/// What a step of learning tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learned {
    /// Mean square error of the prediction.
    pub loss: f64,
    /// Norm of the gradient.
    pub norm: f64,
}

impl Estimator {
    /// On a prior's U-Net: its config, its weights by name, its schedule, and the prompt (the one without
    /// words for a view). `seed` decides the adapters' first matrices.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a rank of zero, or a U-Net whose conditioning leaves no room for a camera.
    pub fn new(
        mut unet: UnetConfig,
        mut weights: HashMap<String, Tensor>,
        schedule: Schedule,
        text: Conditioning,
        config: EstimatorConfig,
        (device, seed): (&Device, u64),
    ) -> Result<Self> {
        let own_camera = unet.class_embed_type.is_none() && unet.num_class_embeds.is_none();
        let takes_it = unet.class_embed_type.as_deref() == Some("projection")
            && unet.projection_class_embeddings_input_dim == Some(CAMERA);
        if !(own_camera || takes_it) || unet.addition_embed_type.as_deref() == Some("text_time") {
            return Err(Error::invalid("--method", "this prior's U-Net has no place for the camera of VSD")
                .hint("SD 1.x, SD 2.x and the embedded prior have; `--method sds` takes any"));
        }
        let new = fresh(&weights, is_attention, config.rank, config.rank as f64, seed)?;
        let mut vars = BTreeMap::new();
        let mut adapters = new.adapters;
        for (name, var) in new.vars {
            vars.insert(name, Var::from_tensor(&var.as_tensor().to_device(device)?)?);
        }
        for (layer, all) in &mut adapters {
            for a in all {
                a.down = vars[&format!("{layer}.lora_A.weight")].as_tensor().clone();
                a.up = vars[&format!("{layer}.lora_B.weight")].as_tensor().clone();
            }
        }
        if own_camera {
            unet.class_embed_type = Some("projection".into());
            unet.projection_class_embeddings_input_dim = Some(CAMERA);
            for (name, var) in camera_mlp(unet.time_width(), device, seed)? {
                weights.insert(name.clone(), var.as_tensor().clone());
                vars.insert(name, var);
            }
        }
        let store = Store::loaded(weights, DType::F32, false, device).with_adapters(adapters);
        let unet = Unet::new(unet, &store.root())?;
        store.finish(Path::new("the prior's U-Net"), |_| false)?;
        let start =
            vars.iter().map(|(n, v)| Ok((n.clone(), v.as_tensor().copy()?))).collect::<Result<_>>()?;
        let adam = AdamW::new(vars, AdamConfig::default())?;
        Ok(Self { unet, schedule, text, config, own_camera, recompute: false, adam, start })
    }

    /// The step of learning computes each block's inner results again when it needs them, for one more pass
    /// through the network and a fraction of the memory.
    #[must_use]
    pub fn recomputing(self, recompute: bool) -> Self {
        Self { recompute, ..self }
    }

    /// Number of trained numbers.
    pub fn parameters(&self) -> usize {
        self.adam.vars().map(|(_, v)| v.elem_count()).sum()
    }

    /// Samples that went through its U-Net so far.
    pub fn evaluated(&self) -> u64 {
        self.unet.evaluated()
    }

    /// ε_φ for pictures from `cameras` (`[B, 16]`).
    pub fn under<'a>(&'a self, cameras: &'a Tensor) -> Under<'a> {
        Under { estimator: self, cameras }
    }

    /// One step of `min E‖net(α z + σ ε′, t′, c) − target‖²` (ε or v as the prior predicts) on latents
    /// `z`, t′ uniform over the whole schedule. Nothing is changed on an error.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the loss is not finite; tensor errors.
    pub fn learn(&mut self, z: &Tensor, cameras: &Tensor, at: At) -> Result<Learned> {
        let z = z.detach();
        let batch = z.dim(0)?;
        let rng = Rng::new(at.seed, Stream::Timestep, at.step);
        let len = self.schedule.len() as u32;
        let t: Vec<f32> = (0..batch as u64).map(|i| rng.below(OWN + i, len) as f32).collect();
        let values = Rng::new(at.seed, Stream::Noise, at.step).normals(OWN, z.elem_count());
        let noise = Tensor::from_vec(values, z.dims(), z.device())?.to_dtype(z.dtype())?;
        let x_t = self.schedule.add_noise(&z, &noise, &t)?;
        let target = self.schedule.target(&z, &noise, &t)?;
        let cameras = self.dropped(cameras, at)?;
        let (loss, gradients) = self.gradients(&x_t, &t, &cameras, &target)?;
        let value = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if !value.is_finite() {
            let why = format!(
                "the loss of the particles' estimate is {value} (step {}, seed {})",
                at.step, at.seed
            );
            return Err(Error::NotFinite(why));
        }
        let parts: Vec<&GradStore> = gradients.iter().collect();
        let norm = self.adam.step_sum(&parts, self.config.learning_rate)?;
        Ok(Learned { loss: value, norm })
    }

    /// The mean square error of the prediction, and its gradients in parts.
    fn gradients(
        &self,
        x_t: &Tensor,
        t: &[f32],
        cameras: &Tensor,
        target: &Tensor,
    ) -> Result<(Tensor, Vec<GradStore>)> {
        let error = |out: &Tensor| -> Result<Tensor> { Ok((out - target)?.sqr()?.mean_all()?) };
        if !self.recompute {
            let loss = error(&self.output(x_t, t, cameras)?)?;
            let gradients = loss.backward()?;
            return Ok((loss, vec![gradients]));
        }
        let with_rays = self.unet.with_rays(x_t, Some(cameras))?;
        let time = Tensor::from_vec(t.to_vec(), t.len(), x_t.device())?;
        let text = self.text.rows(t.len())?;
        let inputs = UnetInputs {
            class_labels: Some(cameras),
            ..UnetInputs::new(with_rays.as_ref().unwrap_or(x_t), &time, &text.context)
        };
        let got = self.unet.backward_recomputed(&inputs, error)?;
        Ok((got.loss, got.gradients))
    }

    /// Weights, moments and step count, flat, for a checkpoint.
    ///
    /// # Errors
    /// Tensor errors.
    pub fn state(&self) -> Result<BTreeMap<String, Vec<f32>>> {
        let flat = |t: Tensor| -> Result<Vec<f32>> { Ok(t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?) };
        // The step count is exact in f32 up to 2²⁴.
        self.adam.state()?.into_iter().map(|(name, t)| Ok((name, flat(t)?))).collect()
    }

    /// Takes over what [`Estimator::state`] gave; other names are ignored.
    ///
    /// # Errors
    /// If something is missing or has another length; nothing is changed then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Vec<f32>>) -> Result<()> {
        let mut tensors = HashMap::new();
        for (name, now) in self.adam.state()? {
            let Some(values) = state.get(&name).filter(|v| v.len() == now.elem_count()) else {
                return Err(Error::invalid("checkpoint", format!("lacks the estimator's {name}"))
                    .hint("resume with the configuration it was saved with"));
            };
            let tensor = Tensor::from_vec(values.clone(), now.dims(), &Device::Cpu)?;
            tensors.insert(name, tensor.to_dtype(now.dtype())?);
        }
        Ok(self.adam.load_state(&tensors)?)
    }

    /// Back to the start.
    ///
    /// # Errors
    /// Tensor errors.
    pub fn reset(&mut self) -> Result<()> {
        let mut vars = BTreeMap::new();
        for (name, var) in self.adam.vars() {
            var.set(&self.start[name])?;
            vars.insert(name.to_owned(), var.clone());
        }
        self.adam = AdamW::new(vars, AdamConfig::default())?;
        Ok(())
    }

    /// Cameras, some of them zero, where they may be.
    pub(super) fn dropped(&self, cameras: &Tensor, at: At) -> Result<Tensor> {
        if !self.own_camera {
            return Ok(cameras.clone());
        }
        let rng = Rng::new(at.seed, Stream::Dropout, at.step);
        let kept = |i| f64::from(u8::from(f64::from(rng.uniform(OWN + i)) >= self.config.camera_dropout));
        let kept = (0..cameras.dim(0)? as u64).map(kept).collect();
        Ok(cameras.broadcast_mul(&per_sample(kept, cameras)?)?)
    }

    /// The network's output for noisy latents.
    fn output(&self, x_t: &Tensor, t: &[f32], cameras: &Tensor) -> Result<Tensor> {
        let time = Tensor::from_vec(t.to_vec(), t.len(), x_t.device())?;
        let text = self.text.rows(t.len())?;
        self.unet.forward(x_t, &time, &text.context, Some(cameras))
    }
}

/// An estimator with the cameras of a batch.
pub struct Under<'a> {
    estimator: &'a Estimator,
    cameras: &'a Tensor,
}

impl NoisePredictor for Under<'_> {
    fn predict(&self, x_t: &Tensor, t: &[f32]) -> Result<Tensor> {
        let output = self.estimator.output(x_t, t, self.cameras)?.detach();
        self.estimator.schedule.to_epsilon(&output, x_t, t)
    }
}

/// Linear, SiLU, linear: 16 → width → width, the second zero.
pub(super) fn camera_mlp(width: usize, device: &Device, seed: u64) -> Result<Vec<(String, Var)>> {
    let rng = Rng::new(seed, Stream::Init, u32::MAX);
    let bound = (CAMERA as f32).powf(-0.5);
    let first: Vec<f32> = (0..(width * CAMERA) as u64).map(|i| rng.range(i, -bound, bound)).collect();
    let zeros = |shape: &[usize]| Var::zeros(shape, DType::F32, device);
    let all = [
        ("linear_1.weight", Var::from_vec(first, (width, CAMERA), device)?),
        ("linear_1.bias", zeros(&[width])?),
        ("linear_2.weight", zeros(&[width, width])?),
        ("linear_2.bias", zeros(&[width])?),
    ];
    Ok(all.into_iter().map(|(name, var)| (format!("class_embedding.{name}"), var)).collect())
}
