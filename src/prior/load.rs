//! Loading of a prior from its folder, with adapters merged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Prior;
use super::autoencoder::Autoencoder;
use super::conditioning::TextEncoders;
use super::files::Folder;
use super::lora::{self, Lora, Part};
use super::schedule::{self, Schedule};
use super::text::TextEncoder;
use super::tokenizer::Tokenizer;
use super::unet::Unet;
use super::weights::{Store, Weights};
use crate::error::{Error, Result};

/// Adapter files and their weights.
type Loras = [(PathBuf, f64)];

impl Prior {
    /// Loads `mini` (the embedded prior), a folder or a single-file checkpoint.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such prior; [`Error::File`] naming the file that is missing,
    /// truncated, or does not fit its config.
    pub fn load(name: &str, device: &Device) -> Result<Self> {
        Self::load_with(name, &[], device)
    }

    /// As [`Prior::load`], with adapters (files and weights) merged into the U-Net and the text encoders.
    ///
    /// # Errors
    /// As [`Prior::load`], and if an adapter was made for another model.
    pub fn load_with(name: &str, loras: &Loras, device: &Device) -> Result<Self> {
        assemble(&Folder::named(name)?, name, loras, device)
    }

    /// Loads a folder.
    ///
    /// # Errors
    /// As [`Prior::load`].
    pub fn from_folder(folder: &Folder, name: &str, device: &Device) -> Result<Self> {
        assemble(folder, name, &[], device)
    }

    /// The same prior with another autoencoder, from a folder that holds its config and weights (such as
    /// an `AutoencoderTiny` for the same latents), or whose `vae/` does.
    ///
    /// # Errors
    /// As [`Prior::load`]; if its latents have another shape.
    pub fn with_vae(mut self, dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::invalid("--vae", format!("no folder {}", dir.display()))
                .hint("give a folder with config.json and diffusion_pytorch_model.safetensors"));
        }
        let part = if dir.join("vae/config.json").is_file() { "vae" } else { "." };
        let folder = Folder::Disk(dir.into());
        let (factor, side) = (self.vae.factor(), self.vae.latent_channels());
        self.vae = network(&folder, part, None, &self.device, Autoencoder::new)?;
        if (self.vae.factor(), self.vae.latent_channels()) != (factor, side) {
            let (f, c) = (self.vae.factor(), self.vae.latent_channels());
            let why = format!("gives {c} channels of 1/{f}, the prior has {side} of 1/{factor}");
            return Err(Error::invalid("--vae", why));
        }
        let mut hash = Sha256::new();
        hash.update(&self.digest);
        hash.update(folder.part_digest(part)?);
        self.digest = format!("{:x}", hash.finalize());
        Ok(self)
    }
}

fn assemble(folder: &Folder, name: &str, loras: &Loras, device: &Device) -> Result<Prior> {
    let adapters: Vec<(Lora, f64)> =
        loras.iter().map(|(path, weight)| Ok((Lora::read(path)?, *weight))).collect::<Result<_>>()?;
    let load = Load { folder, adapters: &adapters, device };
    let mut all = vec![(load.tokenizer("tokenizer")?, load.text("text_encoder", Part::Text)?)];
    if folder.has("text_encoder_2") {
        all.push((load.second_tokenizer()?, load.text("text_encoder_2", Part::Text2)?));
    }
    let index: Value = folder.config("model_index.json").unwrap_or_default();
    let zeros = index["force_zeros_for_empty_prompt"].as_bool().unwrap_or(true);
    let adapted = Some((Part::Unet, &adapters[..]));
    let (unet, unet_tensors) = network_and_tensors(folder, "unet", adapted, device, Unet::new)?;
    let prior = Prior {
        name: name.into(),
        digest: digest(folder, loras)?,
        text: TextEncoders { zeros_if_empty: zeros && all.len() > 1, all },
        unet,
        unet_tensors,
        vae: network(folder, "vae", None, device, Autoencoder::new)?,
        device: device.clone(),
        schedule: schedule(folder)?,
        words: folder.text("words.txt").ok().map(|t| t.lines().map(str::to_owned).collect()),
    };
    check_fit(&prior)?;
    Ok(prior)
}

struct Load<'a> {
    folder: &'a Folder,
    adapters: &'a [(Lora, f64)],
    device: &'a Device,
}

impl Load<'_> {
    fn text(&self, part: &str, adapted: Part) -> Result<TextEncoder> {
        network(self.folder, part, Some((adapted, self.adapters)), self.device, TextEncoder::new)
    }

    fn tokenizer(&self, dir: &str) -> Result<Tokenizer> {
        let text = |name: &str| self.folder.text(&format!("{dir}/{name}"));
        let [vocab, merges] = [text("vocab.json")?, text("merges.txt")?];
        Tokenizer::from_texts(&vocab, &merges, &text("tokenizer_config.json")?, &self.folder.path(dir))
    }

    /// SDXL's second tokenizer is the first but for its padding, `!`: beside a single file, the first
    /// will do.
    fn second_tokenizer(&self) -> Result<Tokenizer> {
        if self.folder.text("tokenizer_2/vocab.json").is_ok() {
            return self.tokenizer("tokenizer_2");
        }
        let text = |name: &str| self.folder.text(&format!("tokenizer/{name}"));
        let mut config: Value = self.folder.config("tokenizer/tokenizer_config.json")?;
        config["pad_token"] = "!".into();
        let dir = self.folder.path("tokenizer");
        Tokenizer::from_texts(&text("vocab.json")?, &text("merges.txt")?, &config.to_string(), &dir)
    }
}

/// A network of one part of the folder with adapters merged, its file checked for missing and unused
/// tensors.
pub(super) fn network<C: serde::de::DeserializeOwned, N>(
    folder: &Folder,
    part: &str,
    adapters: Option<(Part, &[(Lora, f64)])>,
    device: &Device,
    build: impl FnOnce(C, &Weights) -> Result<N>,
) -> Result<N> {
    Ok(network_and_tensors(folder, part, adapters, device, build)?.0)
}

/// As [`network`], with its tensors by name: another network of them takes no further memory.
fn network_and_tensors<C: serde::de::DeserializeOwned, N>(
    folder: &Folder,
    part: &str,
    adapters: Option<(Part, &[(Lora, f64)])>,
    device: &Device,
    build: impl FnOnce(C, &Weights) -> Result<N>,
) -> Result<(N, HashMap<String, Tensor>)> {
    let config = folder.config(&format!("{part}/config.json"))?;
    let (mut tensors, path) = folder.tensors(part)?;
    if let Some((adapted, adapters)) = adapters {
        lora::merge(&mut tensors, adapted, adapters)?;
    }
    let store = Store::loaded(tensors, DType::F32, false, device);
    let network = build(config, &store.root())?;
    store.finish(&path, |k| k.ends_with("position_ids"))?;
    Ok((network, store.given()))
}

fn schedule(folder: &Folder) -> Result<Schedule> {
    let file = "scheduler/scheduler_config.json";
    let json: Value = folder.config(file)?;
    let config = schedule::Config::from_json(&json).and_then(Schedule::new);
    config.map_err(|e| Error::file(folder.path(file), e.to_string()))
}

fn check_fit(prior: &Prior) -> Result<()> {
    let (u, v) = (&prior.unet.config, &prior.vae);
    let channels = v.latent_channels();
    // Inpainting models are also told the mask and what is behind it.
    let fits = [channels, 2 * channels + 1].contains(&u.latent_channels());
    if !fits || u.out_channels != channels {
        let why = format!("{} channels, the VAE's latents have {channels}", u.latent_channels());
        return Err(Error::invalid("unet/config.json: in_channels", why));
    }
    if u.cross_attention_dim != prior.text.width() {
        let why = format!("{}, the text encoder gives {}", u.cross_attention_dim, prior.text.width());
        return Err(Error::invalid("unet/config.json: cross_attention_dim", why));
    }
    if u.addition_embed_type.as_deref() == Some("text_time") && prior.text.all.len() < 2 {
        return Err(Error::invalid(
            "unet/config.json: addition_embed_type",
            "text_time needs a second text encoder, and the prior has one",
        ));
    }
    Ok(())
}

/// The folder's digest, or where there are adapters one over it, their files and their weights.
fn digest(folder: &Folder, loras: &Loras) -> Result<String> {
    let base = folder.digest()?;
    if loras.is_empty() {
        return Ok(base);
    }
    let mut hash = Sha256::new();
    hash.update(&base);
    for (path, weight) in loras {
        super::tensor_file::hash_file(&mut hash, path)?;
        hash.update(weight.to_le_bytes());
    }
    Ok(format!("{:x}", hash.finalize()))
}
