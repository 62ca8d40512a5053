//! Training of the embedded models: data, VAE, text encoder and U-Net.

mod batch;
pub mod config;
pub mod control;
pub mod curves;
pub mod data;
pub mod interpolate;
mod picture_cache;
pub mod pictures;
mod publish;
pub mod run;
pub mod samples;
mod start;
mod supply;
pub mod unet;
pub mod vae;
mod weighting;
mod whiten;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};
use crate::prior::nn;
use crate::prior::tokenizer::Tokenizer;
use crate::prior::unet::{UnetConfig, ray_map};
use crate::prior::vae::Vae;
use crate::prior::weights::Store;
use batch::Latents;
use config::TrainConfig;
use data::Dataset;
use pictures::{Pictures, Wanted};
use run::Run;
use supply::{Growth, Supply};
use unet::Training;

/// Where a training takes its objects from and puts its files.
pub struct Places {
    /// Unpacked corpus (with `manifest.csv`), if there is one.
    pub corpus: Option<PathBuf>,
    /// Folder of parametric recipes.
    pub props: PathBuf,
    /// Folder of checkpoints and logs; an earlier run there is continued.
    pub run: PathBuf,
    /// Folder that receives the model in diffusers' layout.
    pub out: PathBuf,
    /// A model whose weights a new run starts from instead of random ones; its autoencoder and tokenizer are
    /// kept as they are.
    pub init: Option<PathBuf>,
    /// Where the networks are trained; pictures are drawn on the CPU.
    pub device: Device,
}

/// Trains the embedded prior: autoencoder first, then text encoder and U-Net on its latents.
///
/// # Errors
/// Bad config or data, a loss that is not finite, files that cannot be written, or
/// [`Error::Interrupted`] after a checkpoint.
pub fn train_prior(
    config: &TrainConfig,
    places: &Places,
    progress: &mut dyn FnMut(&str, u32, u32, f64),
) -> Result<()> {
    config.check()?;
    std::fs::create_dir_all(&places.run).map_err(|e| Error::io(&places.run, e))?;
    remember(config, &places.run, |old| {
        old.vae.steps = config.vae.steps;
        old.unet.steps = config.unet.steps;
        old.unet.sheet_every = config.unet.sheet_every;
        old.unet.sheet.clone_from(&config.unet.sheet);
    })?;
    let data = Dataset::open(places.corpus.as_deref(), &places.props, data_config(config), config.seed)?;
    let held_out =
        serde_json::to_string_pretty(&data.held_out()).map_err(|e| Error::Failed(e.to_string()))?;
    crate::asset::replace(&places.run.join("held_out.json"), held_out.as_bytes())?;
    let growth = Growth { first: config.first_pictures, total: config.pictures, steps: config.unet.steps };
    let wanted = Wanted { first: 0, count: growth.at(0), size: config.image_size, depth: false };
    let pictures = drawn(wanted, &data, &places.run, progress)?;
    nn::prepare_training(&places.device)?;
    let mut run = Run { dir: places.run.clone(), device: places.device.clone(), progress };
    let start = start::Start::of(&places.run, places.init.as_deref())?;
    let vae_weights = match &start {
        Some(start) => start.autoencoder(&places.device)?,
        None => autoencoder(config, &pictures, &mut run)?,
    };
    let values = encode(config, &vae_weights, &pictures, usize::MAX, &mut run)?;
    let rays = kept_rays(&config.unet_config(), &pictures.cameras, &values)?;
    let latents = Latents { values, rays, pictures };
    let tokenizer = learned_tokenizer((config.vocab_size, config.max_tokens), &data, &places.run)?;
    let words = data.words();
    let mut train = |supply: Supply<'_>| {
        let mut training = Training::new(config, &tokenizer, supply)?;
        if let Some(start) = &start {
            training.start_from(start)?;
        }
        training.run(&mut run, &|trained, step| {
            publish::write(&places.out, config, &tokenizer, &words, 1.0, &vae_weights, trained)?;
            live_sheet(config, places, step)
        })
    };
    if growth.at(0) == growth.total {
        return train(Supply::whole(latents));
    }
    let add =
        |latents: &mut Latents, more: Pictures| more_latents(config, places, &vae_weights, latents, more);
    std::thread::scope(|scope| {
        let (to, rest) = supply::channel();
        let data = &data;
        scope.spawn(move || supply::draw_rest(data, config.image_size, growth, &to));
        train(Supply::growing(growth, latents, rest, &add))
    })
}

/// Encodes further pictures and adds them.
fn more_latents(
    config: &TrainConfig,
    places: &Places,
    weights: &HashMap<String, Tensor>,
    latents: &mut Latents,
    more: Pictures,
) -> Result<()> {
    let mut run =
        Run { dir: places.run.clone(), device: places.device.clone(), progress: &mut |_, _, _, _| {} };
    let values = encode(config, weights, &more, usize::MAX, &mut run)?;
    if let (Some(all), Some(rays)) =
        (&latents.rays, kept_rays(&config.unet_config(), &more.cameras, &values)?)
    {
        latents.rays = Some(Tensor::cat(&[all, &rays], 0)?);
    }
    latents.values = Tensor::cat(&[&latents.values, &values], 0)?;
    latents.pictures.append(more);
    Ok(())
}

/// The rays of all cameras beside their latents, for a model that takes them, where the networks are trained on a
/// GPU: there is room, and the GPU need not wait for the CPU to compute them at every step.
fn kept_rays(unet: &UnetConfig, cameras: &[[f32; 16]], latents: &Tensor) -> Result<Option<Tensor>> {
    let Some(fov) = unet.camera_rays_fov.filter(|_| !latents.device().is_cpu()) else { return Ok(None) };
    let (_, _, h, w) = latents.dims4()?;
    let cameras = Tensor::from_vec(cameras.as_flattened().to_vec(), (cameras.len(), 16), &Device::Cpu)?;
    Ok(Some(ray_map(&cameras, fov, (h, w))?.to_device(latents.device())?))
}

/// A new autoencoder's weights, whitened.
fn autoencoder(config: &TrainConfig, pictures: &Pictures, run: &mut Run) -> Result<HashMap<String, Tensor>> {
    let mut weights = vae::train(config, pictures, run)?;
    // The first pictures are as random as any: they tell the covariance well enough.
    let some = encode(config, &weights, pictures, WHITENED_ON, run)?;
    whiten::fold(&mut weights, &some)?;
    Ok(weights)
}

/// What the prior draws after `step` steps: `samples.png` in the run's folder, now and then.
fn live_sheet(config: &TrainConfig, places: &Places, step: u32) -> Result<()> {
    let u = &config.unet;
    if u.sheet_every == 0 || u.sheet.is_empty() || (!step.is_multiple_of(u.sheet_every) && step != u.steps) {
        return Ok(());
    }
    let prior = crate::prior::Prior::load(&places.out.to_string_lossy(), &places.device)?;
    let options = samples::Options { views: 4, steps: 20, guidance_scale: 3.0, seed: 7 };
    let sheet = samples::sheet(&prior, &u.sheet, &options)?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    sheet.write_to(&mut bytes, image::ImageFormat::Png).map_err(|e| Error::Failed(e.to_string()))?;
    crate::asset::replace(&places.run.join("samples.png"), bytes.get_ref())
}

/// The tokenizer that an earlier start of this run learned, or else a new one, left there: pairs of one
/// frequency are merged in any order by the learner, and another order would give known words other ids.
/// `size`: most tokens of the vocabulary, and of a text.
///
/// # Errors
/// If the learner fails, or a file cannot be read or written.
pub(crate) fn learned_tokenizer(size: (usize, usize), data: &Dataset, run: &Path) -> Result<Tokenizer> {
    let dir = run.join("tokenizer");
    if dir.join("tokenizer_config.json").is_file() {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|e| Error::io(path, e))
        };
        let [vocab, merges] = [read("vocab.json")?, read("merges.txt")?];
        return Tokenizer::from_texts(&vocab, &merges, &read("tokenizer_config.json")?, &dir);
    }
    let tokenizer = Tokenizer::train(&data.captions(), size.0, size.1)?;
    std::fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
    // The config comes last: where it is, the others are whole.
    for (name, text) in tokenizer.files() {
        let path = dir.join(name);
        crate::asset::replace(&path, text.as_bytes())?;
    }
    Ok(tokenizer)
}

/// Pictures on whose latents the whitening is measured.
const WHITENED_ON: usize = 4096;

/// The training pictures: those an earlier start of this run left, or else drawn now and left there.
/// (Delete `pictures.safetensors` after a change of the renderer.)
///
/// # Errors
/// As [`Pictures::draw`]; a file that cannot be written.
pub(crate) fn drawn(
    wanted: Wanted,
    data: &Dataset,
    run: &Path,
    progress: &mut dyn FnMut(&str, u32, u32, f64),
) -> Result<Pictures> {
    let path = run.join("pictures.safetensors");
    let count = wanted.count;
    let key = format!("{} {count}", data.digest());
    if let Some(pictures) = picture_cache::load(&path, &key, wanted.depth) {
        return Ok(pictures);
    }
    let pictures = Pictures::draw(data, wanted, |done| {
        progress("pictures", done as u32, count as u32, 0.0);
        if run::STOP.load(std::sync::atomic::Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    })?;
    picture_cache::save(&path, &key, &pictures)?;
    Ok(pictures)
}

fn data_config(config: &TrainConfig) -> data::DataConfig {
    data::DataConfig { image_size: config.image_size as u32, ..config.data.clone() }
}

/// A run is continued only with the settings it was started with, except for those that `free` sets in the
/// old ones: the numbers of steps and the like.
///
/// # Errors
/// [`Error::File`] if they differ; a file that cannot be written.
pub(crate) fn remember<C: Serialize + DeserializeOwned>(
    config: &C,
    dir: &Path,
    free: impl Fn(&mut C),
) -> Result<()> {
    let path = dir.join("train.toml");
    let text = toml::to_string_pretty(config).map_err(|e| Error::Failed(e.to_string()))?;
    if let Ok(old) = std::fs::read_to_string(&path) {
        let mut old: C = toml::from_str(&old).map_err(|e| Error::file(&path, e.to_string()))?;
        free(&mut old);
        if toml::to_string_pretty(&old).ok().as_deref() != Some(&text) {
            return Err(Error::file(&path, "the run there was started with other settings")
                .hint("give the same settings to continue it, or another --run folder"));
        }
    }
    std::fs::write(&path, text).map_err(|e| Error::io(path, e))
}

/// Unscaled latents of the first `most` pictures under the given autoencoder.
fn encode(
    config: &TrainConfig,
    weights: &HashMap<String, Tensor>,
    pictures: &Pictures,
    most: usize,
    run: &mut Run,
) -> Result<Tensor> {
    let frozen = Store::loaded(weights.clone(), candle_core::DType::F32, false, &run.device);
    let vae = Vae::new(config.vae_config(1.0), &frozen.root())?;
    vae::encode_all(&|x| Ok(vae.posterior(x)?.mean), pictures, most, run)
}

/// Writes a prior of given weights (autoencoder, text encoder, U-Net), for tests of the loader.
#[cfg(test)]
pub(crate) fn publish_for_tests(
    out: &Path,
    config: &TrainConfig,
    tokenizer: &Tokenizer,
    words: &data::Words,
    [vae, text, unet]: [HashMap<String, Tensor>; 3],
) -> Result<()> {
    publish::write(out, config, tokenizer, words, 0.5, &vae, &unet::Trained { text, unet })
}
