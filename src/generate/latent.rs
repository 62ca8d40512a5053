//! The guide of the main job: score distillation in the latent space of a diffusion prior.
//!
//! Pictures go through the VAE's encoder (its mean) to latents z; SDS gives ∂L/∂z without a way
//! through the U-Net; the chain rule through the encoder gives ∂L/∂pictures.

use candle_core::{Device, Tensor, Var};

use super::checkpoint::State;
use super::guide::{Guidance, Guide, Shown, Views};
use super::linear::Linear;
use super::memory::Need;
use super::resize::{pull_back, resized, shrunk, through_size};
use super::timing::Timings;
use super::words::Words;
use crate::config::{Config, Latents, Method};
use crate::distill::{At, Estimator, Intervals, Sds, SdsGradient, image};
use crate::prior::Prior;
use crate::prior::files::Folder;
use crate::prior::vae::Encoded;
use crate::render::camera::Camera;
use crate::sample::guidance::{self, Guided};
use crate::sample::{NoisePredictor, UnetPredictor};
use crate::{Error, Result};

/// α/σ in HiFA's loss on pictures at most; it grows without bound as t falls.
const IMAGE_LIMIT: f64 = 10.0;

/// A prior with a prompt.
pub(super) struct LatentGuide {
    prior: Prior,
    sds: Sds,
    /// The second stage's.
    second: Sds,
    config: Config,
    guidance: guidance::Guidance,
    words: Words,
    /// Instead of the encoder, if asked for.
    linear: Option<Linear>,
    /// ε_φ, for VSD.
    estimator: Option<Estimator>,
    /// The encoder's tape is computed again and not kept.
    recompute: bool,
}

/// Latents of pictures, and the way back to these.
enum Latent {
    /// On the tape.
    Tape(Tensor),
    /// To be computed again.
    Saved(Encoded),
}

impl Latent {
    /// Without their history.
    fn values(&self) -> Tensor {
        match self {
            Self::Tape(z) => z.detach(),
            Self::Saved(encoded) => encoded.latents().clone(),
        }
    }
}

impl LatentGuide {
    /// Loads the prior that `config` names and encodes the prompt.
    ///
    /// # Errors
    /// Unknown prior, damaged weights, a picture size or a method that the prior cannot take.
    pub(super) fn load(config: &Config, prompt: &str, folder: &Folder, need: Need) -> Result<Self> {
        let device = crate::prior::device(&config.device)?;
        let prior = Prior::from_folder(folder, &config.prior, &device)?;
        if prior.unet.config.latent_channels() != prior.vae.latent_channels() {
            return Err(Error::invalid(
                "--prior",
                "is an inpainting model, which needs a picture to fill in",
            )
            .hint("`gen3d image --init --mask` uses it; 3D needs a model that draws from noise"));
        }
        let factor = prior.vae.factor() as u32;
        let linear = config.sds.latents == Latents::Linear;
        let mut sizes = match config.sds.prior_size {
            _ if linear => Vec::new(),
            0 => vec![("camera.size", config.camera.size), ("camera.late_size", config.camera.late_size)],
            size => vec![("sds.prior_size", size)],
        };
        if config.refine.steps > 0 && config.sds.prior_size == 0 {
            sizes.push(("refine.size", config.refine.size));
        }
        let channels = prior.unet.config.latent_channels();
        if config.refine.steps > 0 && config.refine.latents_until > 0.0 && channels != 4 {
            let reason =
                format!("normals and coverage are four channels, this prior's latents have {channels}");
            return Err(Error::invalid("refine.latents_until", reason));
        }
        if let Some((key, size)) = sizes.into_iter().find(|(_, size)| !size.is_multiple_of(factor)) {
            return Err(Error::invalid(
                key,
                format!("{size} is no multiple of {factor}, the prior's factor"),
            ));
        }
        let words = Words::encode(&prior, config, prompt)?;
        let guidance = guidance::Guidance {
            rescale: config.sds.guidance_rescale,
            ..guidance::Guidance::scale(config.sds.guidance_scale)
        };
        let estimator = match config.method {
            Method::Vsd => Some(estimator(&prior, config, &words)?.recomputing(need.recompute_estimate)),
            _ => None,
        };
        let linear = (linear || config.sds.linear_until > 0.0).then(|| Linear::fit(&prior)).transpose()?;
        let sds = Sds::new(prior.schedule.clone(), config.sds.loss())?;
        let loss =
            crate::distill::SdsConfig { timesteps: config.refine.timesteps.clone(), ..config.sds.loss() };
        let second = Sds::new(prior.schedule.clone(), loss)?;
        let (config, recompute) = (config.clone(), need.recompute_encoder);
        Ok(Self { sds, second, guidance, words, linear, estimator, prior, config, recompute })
    }

    /// Words of the prompt that the prior has not learned ([`Prior::strangers`]).
    pub(super) fn strangers(&self, prompt: &str) -> Option<String> {
        self.prior.strangers(prompt)
    }

    /// Side in pixels of the pictures the prior was trained on.
    pub(super) fn picture_size(&self) -> u32 {
        self.prior.image_size()
    }

    /// Pixels a latent, each way.
    pub(super) fn factor(&self) -> u32 {
        self.prior.vae.factor() as u32
    }

    /// Whether pictures of the first stage are the latents' size at `progress`.
    fn is_linear(&self, progress: f64) -> bool {
        self.config.sds.latents == Latents::Linear || progress < self.config.sds.linear_until
    }

    /// Latents of pictures, without the encoder if `is_linear`.
    fn encode(&self, shown: &Tensor, is_linear: bool, timings: &mut Timings) -> Result<Latent> {
        if let Some(linear) = self.linear.as_ref().filter(|_| is_linear) {
            return linear.latents(shown).map(Latent::Tape);
        }
        timings.time("optimize.encode", || {
            if self.recompute
                && let Some(encoded) = self.prior.vae.encode_saving(shown)?
            {
                return Ok(Latent::Saved(encoded));
            }
            self.prior.vae.encode_mean(shown).map(Latent::Tape)
        })
    }

    /// ∂L/∂pixels of latents of `shown`, which are `pixels` at another size or themselves.
    fn decode_gradient(
        &self,
        latent: Latent,
        gradient: &Tensor,
        shown: &Tensor,
        pixels: &Var,
    ) -> Result<Vec<f32>> {
        match latent {
            Latent::Tape(z) => pull_back(&z, gradient, pixels),
            Latent::Saved(encoded) => {
                let by_shown = self.prior.vae.pull_back(encoded, gradient)?;
                through_size(&by_shown, shown, pixels)
            }
        }
    }

    /// The method's gradient on latents `z`.
    fn loss(&self, z: &Tensor, views: &Views<'_>, cameras: &Tensor) -> Result<SdsGradient> {
        let at = At { step: views.step, progress: views.progress, seed: views.seed };
        let said = self.words.said(views.cameras, &self.config)?;
        let mut model = UnetPredictor::new(&self.prior, said.without, said.with);
        model.negatives = said.negatives;
        model.cameras = self.prior.is_camera_conditioned().then(|| cameras.clone());
        let r = &self.config.refine;
        let or = |scale: f64, other: f64| if scale > 0.0 { scale } else { other };
        let second = or(r.guidance_scale, self.guidance.scale);
        let (sds, scale) = match (views.second_stage, views.shown) {
            (false, _) => (&self.sds, self.guidance.scale),
            (true, Shown::Colors) => (&self.second, second),
            (true, _) => (&self.second, or(r.normals_scale, second)),
        };
        let guidance = guidance::Guidance { scale, negatives: said.weights, ..self.guidance.clone() };
        let guided = Guided { model: &model, guidance: &guidance };
        if views.shown != Shown::Colors {
            // What estimates a score has learned colours.
            return sds.gradient(z, &guided, at.step, at.progress, at.seed);
        }
        match (self.config.method, &self.estimator) {
            (Method::Sjc, _) => sds.jacobian(z, &guided, self.config.sds.variance_reduced, at),
            (Method::Csd, _) => sds.classifier(z, &model, scale, at),
            (Method::Nfsd, _) => sds.noise_free(z, &model, scale, at),
            (Method::Ism, _) => {
                let c = &self.config.sds;
                let intervals = Intervals { steps: c.ism_steps, interval: c.ism_interval };
                let none = guidance::Guidance::scale(0.0);
                let plain = Guided { model: &model, guidance: &none };
                sds.interval(z, &guided, &plain as &dyn NoisePredictor, intervals, at)
            }
            (Method::Vsd, Some(own)) => sds.variational(z, &guided, &own.under(cameras), at),
            _ => sds.gradient(z, &guided, at.step, at.progress, at.seed),
        }
    }

    /// The loss on normals and coverage at the latents' size, which no encoder has seen (Fantasia3D's first
    /// steps).
    fn as_latents(&mut self, views: &Views<'_>, timings: &mut Timings) -> Result<Guidance> {
        let shape = (views.cameras.len(), 4, views.size, views.size);
        let planes = Var::from_vec(views.pixels.to_vec(), shape, &self.prior.device)?;
        let size = match self.config.sds.prior_size as usize {
            0 => views.size,
            size => size,
        };
        let z = shrunk(planes.as_tensor(), size / self.prior.vae.factor())?;
        let cameras = embeddings(views.cameras, &self.prior.device)?;
        let loss = timings.time("optimize.unet", || self.loss(&z, views, &cameras))?;
        let gradient = pull_back(&z, &loss.gradient, &planes)?;
        Ok(said(&loss, gradient, 0.0))
    }

    /// HiFA's gradient on pictures, weighted; nothing if it has no weight.
    fn on_pictures(
        &self,
        pixels: &Tensor,
        loss: &SdsGradient,
        timings: &mut Timings,
    ) -> Result<Option<Tensor>> {
        let weight = self.config.sds.image_weight;
        if weight == 0.0 {
            return Ok(None);
        }
        let decoded = timings.time("optimize.decode", || self.prior.vae.decode(&loss.x0))?;
        let w = |alpha, sigma| weight * self.config.sds.weighting.weight(alpha, sigma);
        image::gradient(&self.prior.schedule, pixels, &decoded, &loss.t, w, IMAGE_LIMIT).map(Some)
    }
}

fn estimator(prior: &Prior, config: &Config, words: &Words) -> Result<Estimator> {
    // The same memory: only the adapters are new.
    let weights = prior.unet_tensors.clone();
    let (unet, schedule) = (prior.unet.config.clone(), prior.schedule.clone());
    let place = (&prior.device, config.seed);
    Estimator::new(unet, weights, schedule, words.plain().clone(), config.vsd.estimator(), place)
}

impl Guide for LatentGuide {
    fn identity(&self) -> String {
        self.prior.digest.clone()
    }

    fn guide(&mut self, views: &Views<'_>, timings: &mut Timings) -> Result<Guidance> {
        if views.shown == Shown::NormalLatents {
            return self.as_latents(views, timings);
        }
        let shape = (views.cameras.len(), 3, views.size, views.size);
        let pixels = Var::from_vec(views.pixels.to_vec(), shape, &self.prior.device)?;
        let is_linear = !views.second_stage && self.is_linear(views.progress);
        let size = match self.config.sds.prior_size as usize {
            size if size > 0 && !is_linear => size,
            _ => views.size,
        };
        let shown = resized(pixels.as_tensor(), size)?;
        let latent = self.encode(&shown, is_linear, timings)?;
        let z = latent.values();
        let cameras = embeddings(views.cameras, &self.prior.device)?;
        let loss = timings.time("optimize.unet", || self.loss(&z, views, &cameras))?;
        let mut gradient = timings.time("optimize.encode_backward", || {
            self.decode_gradient(latent, &loss.gradient, &shown, &pixels)
        })?;
        if let Some(more) = self.on_pictures(&shown, &loss, timings)? {
            let more = through_size(&more, &shown, &pixels)?;
            gradient.iter_mut().zip(more).for_each(|(g, m)| *g += m);
        }
        let mut learned = 0.0;
        if let (Some(own), Shown::Colors) = (&mut self.estimator, views.shown) {
            let at = At { step: views.step, progress: views.progress, seed: views.seed };
            learned = timings.time("optimize.estimate", || own.learn(&z, &cameras, at))?.loss as f32;
        }
        Ok(said(&loss, gradient, learned))
    }

    fn size(&self, size: u32, progress: f64) -> u32 {
        if self.config.sds.latents == Latents::Linear || progress >= self.config.sds.linear_until {
            return size;
        }
        let whole = if self.config.sds.prior_size > 0 { self.config.sds.prior_size } else { size };
        (whole / self.factor()).max(1)
    }

    fn state(&self) -> Result<State> {
        self.estimator.as_ref().map_or_else(|| Ok(State::new()), Estimator::state)
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.estimator.as_mut().map_or(Ok(()), |own| own.load_state(state))
    }

    fn reset(&mut self) -> Result<()> {
        self.estimator.as_mut().map_or(Ok(()), Estimator::reset)
    }
}

fn said(loss: &SdsGradient, gradient: Vec<f32>, learned: f32) -> Guidance {
    let batch = loss.t.len().max(1);
    Guidance {
        gradient,
        rms: (loss.rms.iter().sum::<f64>() / batch as f64) as f32,
        timestep: loss.t.iter().sum::<f32>() / batch as f32,
        learned,
    }
}

fn embeddings(cameras: &[Camera], device: &Device) -> Result<Tensor> {
    let numbers: Vec<f32> = cameras.iter().flat_map(Camera::embedding).collect();
    Ok(Tensor::from_vec(numbers, (cameras.len(), 16), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Recompute;
    use crate::generate::rig;
    use crate::prior::footprint::Footprint;

    #[test]
    fn recomputing_changes_no_bit_of_the_gradient() {
        let gradient = |recompute, prior_size| {
            let mut config = Config { device: "cpu".into(), ..Config::default() };
            (config.camera.views, config.sds.recompute, config.sds.prior_size) = (2, recompute, prior_size);
            let folder = Folder::embedded().unwrap();
            let need = Need::of(&config, &Footprint::of(&folder).unwrap());
            let mut guide = LatentGuide::load(&config, "a red apple", &folder, need).unwrap();
            let pixels: Vec<f32> = (0..2 * 3 * 32 * 32).map(|i| (i as f32 * 0.37).sin()).collect();
            let cameras = rig::cameras(&config, 0);
            let views = Views {
                pixels: &pixels,
                size: 32,
                cameras: &cameras,
                step: 0,
                progress: 0.0,
                seed: 3,
                second_stage: false,
                shown: Shown::Colors,
            };
            guide.guide(&views, &mut Timings::default()).unwrap().gradient
        };
        for prior_size in [0, 64] {
            let kept = gradient(Recompute::Never, prior_size);
            assert!(kept.iter().any(|g| *g != 0.0));
            assert_eq!(kept, gradient(Recompute::Always, prior_size), "{prior_size}");
        }
    }

    /// Two steps of a method with the embedded prior; what was evaluated: samples through the prior's
    /// U-Net and the estimate's, calls of encoder and decoder.
    fn costs(method: Method, change: impl FnOnce(&mut Config)) -> (u64, u64, u32, u32) {
        let mut config = Config { method, ..Config::default() };
        config.device = "cpu".into();
        config.camera.views = 2;
        change(&mut config);
        let folder = Folder::embedded().unwrap();
        let need = Need::of(&config, &Footprint::of(&folder).unwrap());
        let mut guide = LatentGuide::load(&config, "a red apple", &folder, need).unwrap();
        let mut timings = Timings::default();
        for step in 0..2 {
            let cameras = rig::cameras(&config, step);
            let size = guide.size(config.camera.size, 0.0) as usize;
            let pixels: Vec<f32> = (0..2 * 3 * size * size).map(|i| (i as f32 * 0.37).sin()).collect();
            let views = Views {
                pixels: &pixels,
                size,
                cameras: &cameras,
                step,
                progress: 0.0,
                seed: 3,
                second_stage: false,
                shown: Shown::Colors,
            };
            let got = guide.guide(&views, &mut timings).unwrap();
            assert!(got.gradient.iter().any(|g| *g != 0.0) && got.rms > 0.0, "{method:?}");
            assert_eq!(got.learned > 0.0, method == Method::Vsd);
        }
        let timings = timings.into_vec();
        let calls = |name: &str| timings.iter().find(|t| t.name == name).map_or(0, |t| t.calls);
        let own = guide.estimator.as_ref().map_or(0, Estimator::evaluated);
        (guide.prior.unet.evaluated(), own, calls("optimize.encode"), calls("optimize.decode"))
    }

    #[test]
    fn a_step_evaluates_no_more_than_its_method_needs() {
        let plain = |c: &mut Config| c.sds.guidance_scale = 1.0;
        // Two steps of two views: four samples a branch.
        assert_eq!(costs(Method::Sds, |_| {}), (8, 0, 2, 0));
        assert_eq!(costs(Method::Sds, plain), (4, 0, 2, 0));
        assert_eq!(costs(Method::Sjc, |_| {}), (8, 0, 2, 0));
        assert_eq!(costs(Method::Csd, |_| {}), (8, 0, 2, 0));
        assert_eq!(costs(Method::Nfsd, |_| {}), (12, 0, 2, 0));
        assert_eq!(costs(Method::Ism, |c| c.sds.ism_steps = 1), (16, 0, 2, 0));
        // The estimate once to be compared with and once to learn, without a second branch.
        assert_eq!(costs(Method::Vsd, |_| {}), (8, 8, 2, 0));
        assert_eq!(costs(Method::Sds, |c| c.sds.image_weight = 0.1), (8, 0, 2, 2));
        // Tapes computed again cost no further evaluation of a whole prediction.
        let again = |c: &mut Config| c.sds.recompute = Recompute::Always;
        assert_eq!(costs(Method::Vsd, again), (8, 8, 2, 0));
        let linear = |c: &mut Config| (c.sds.latents, c.camera.size) = (Latents::Linear, 16);
        assert_eq!(costs(Method::Sds, linear), (8, 0, 0, 0));
        assert_eq!(costs(Method::Sds, |c| c.sds.linear_until = 0.1), (8, 0, 0, 0));
    }

    #[test]
    fn a_run_begins_at_the_latents_size_and_goes_on_at_the_pictures() {
        let config = |change: &dyn Fn(&mut Config)| {
            let mut config = Config { device: "cpu".into(), ..Config::default() };
            change(&mut config);
            config
        };
        let folder = Folder::embedded().unwrap();
        let footprint = Footprint::of(&folder).unwrap();
        let size = |config: &Config, progress| {
            let need = Need::of(config, &footprint);
            LatentGuide::load(config, "a red apple", &folder, need).unwrap().size(64, progress)
        };
        let warm = config(&|c| c.sds.linear_until = 0.4);
        assert_eq!([0.0, 0.39, 0.4, 1.0].map(|p| size(&warm, p)), [16, 16, 64, 64]);
        // A prior that is shown larger pictures has larger latents.
        let large = config(&|c| (c.sds.linear_until, c.sds.prior_size) = (0.4, 128));
        assert_eq!([0.0, 0.5].map(|p| size(&large, p)), [32, 64]);
        assert_eq!(size(&config(&|_| ()), 0.0), 64);
        // Where `camera.size` is the latents' already, it stays.
        let both = config(&|c| (c.sds.linear_until, c.sds.latents) = (0.4, Latents::Linear));
        assert_eq!(size(&both, 0.0), 64);
    }
}
