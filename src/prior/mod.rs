//! The diffusion prior: differentiable layers, text encoder, VAE, U-Net, schedule, loading.
//!
//! A prior is a folder in diffusers' layout: `model_index.json`, `tokenizer/`, `text_encoder/`,
//! `unet/`, `vae/`, `scheduler/`. The embedded one (`models/mini`) is read by the same code.

pub mod autoencoder_tiny;
pub mod control;
pub mod files;
pub mod layers;
pub mod lora;
pub mod nn;
pub mod schedule;
mod single_config;
pub mod single_file;
pub mod text;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod verify;
pub mod weights;

use std::collections::BTreeSet;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use files::Folder;
use lora::Lora;
use schedule::Schedule;
use text::TextEncoder;
use tokenizer::Tokenizer;
use unet::Unet;
use vae::Vae;
use weights::Store;

/// A loaded diffusion prior, f32, frozen.
pub struct Prior {
    /// Where it came from; `mini` for the embedded one.
    pub name: String,
    /// SHA-256 over all its weight files, hexadecimal: names the prior in checkpoints and assets.
    pub digest: String,
    /// Text to token ids.
    pub tokenizer: Tokenizer,
    /// Token ids to hidden states.
    pub text: TextEncoder,
    /// The noise predictor.
    pub unet: Unet,
    /// Pictures to latents and back.
    pub vae: Vae,
    /// The noise schedule.
    pub schedule: Schedule,
    words: Option<BTreeSet<String>>,
}

impl Prior {
    /// Loads `mini` (the embedded prior) or a folder.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such prior; [`Error::File`] naming the file that is missing,
    /// truncated, or does not fit its config.
    pub fn load(name: &str, device: &Device) -> Result<Self> {
        Self::load_with(name, &[], device)
    }

    /// As [`Prior::load`], with adapters (files and weights) merged into the U-Net and the text encoder.
    ///
    /// # Errors
    /// As [`Prior::load`], and if an adapter was made for another model.
    pub fn load_with(name: &str, loras: &[(PathBuf, f64)], device: &Device) -> Result<Self> {
        if name == "mini" {
            return Self::assemble(&Folder::embedded()?, name, loras, device);
        }
        Self::assemble(&Folder::open(name)?, name, loras, device)
    }

    /// Loads a folder.
    ///
    /// # Errors
    /// As [`Prior::load`].
    pub fn from_folder(folder: &Folder, name: &str, device: &Device) -> Result<Self> {
        Self::assemble(folder, name, &[], device)
    }

    fn assemble(folder: &Folder, name: &str, loras: &[(PathBuf, f64)], device: &Device) -> Result<Self> {
        let adapters: Vec<(Lora, f64)> =
            loras.iter().map(|(path, weight)| Ok((Lora::read(path)?, *weight))).collect::<Result<_>>()?;
        let store = |part: &str| -> Result<(Store, PathBuf)> {
            let (mut tensors, path) = folder.tensors(part)?;
            match part {
                "unet" => lora::merge(&mut tensors, lora::Part::Unet, &adapters)?,
                "text_encoder" => lora::merge(&mut tensors, lora::Part::Text, &adapters)?,
                _ => {}
            }
            Ok((Store::loaded(tensors, DType::F32, false, device), path))
        };
        let (weights, file) = store("text_encoder")?;
        let text = TextEncoder::new(folder.config("text_encoder/config.json")?, &weights.root())?;
        weights.finish(&file, |k| k.ends_with("position_ids"))?;
        let (weights, file) = store("unet")?;
        let unet = Unet::new(folder.config("unet/config.json")?, &weights.root())?;
        weights.finish(&file, |_| false)?;
        let (weights, file) = store("vae")?;
        let vae = Vae::new(folder.config("vae/config.json")?, &weights.root())?;
        weights.finish(&file, |_| false)?;
        let dir = folder.path("tokenizer");
        let tokenizer = Tokenizer::from_texts(
            &folder.text("tokenizer/vocab.json")?,
            &folder.text("tokenizer/merges.txt")?,
            &folder.text("tokenizer/tokenizer_config.json")?,
            &dir,
        )?;
        let schedule = {
            let file = "scheduler/scheduler_config.json";
            let json: serde_json::Value = folder.config(file)?;
            let config = schedule::Config::from_json(&json).and_then(Schedule::new);
            config.map_err(|e| Error::file(folder.path(file), e.to_string()))?
        };
        let words = folder.text("words.txt").ok().map(|t| t.lines().map(str::to_owned).collect());
        let digest = digest(folder, loras)?;
        let prior = Self { name: name.into(), digest, tokenizer, text, unet, vae, schedule, words };
        prior.check_fit()?;
        Ok(prior)
    }

    fn check_fit(&self) -> Result<()> {
        let (u, v, t) = (&self.unet.config, &self.vae.config, &self.text.config);
        if u.latent_channels() != v.latent_channels || u.out_channels != v.latent_channels {
            let (got, want) = (u.latent_channels(), v.latent_channels);
            let why = format!("{got} channels, the VAE's latents have {want}");
            return Err(Error::invalid("unet/config.json: in_channels", why));
        }
        if u.cross_attention_dim != t.hidden_size {
            let why = format!("{}, the text encoder gives {}", u.cross_attention_dim, t.hidden_size);
            return Err(Error::invalid("unet/config.json: cross_attention_dim", why));
        }
        Ok(())
    }

    /// Text conditioning `[1, L, cross_attention_dim]` of a prompt.
    ///
    /// # Errors
    /// If the text cannot be tokenized or encoded.
    pub fn encode_prompt(&self, prompt: &str, device: &Device) -> Result<Tensor> {
        encode_prompts(&self.tokenizer, &self.text, &[prompt], device)
    }

    /// Side in pixels of the pictures the prior was trained on.
    pub fn image_size(&self) -> u32 {
        (self.unet.config.sample_size * self.vae.config.factor()) as u32
    }

    /// True if the U-Net takes a camera (16 numbers, see [`crate::render::camera::Camera::embedding`]).
    pub fn is_camera_conditioned(&self) -> bool {
        self.unet.config.projection_class_embeddings_input_dim == Some(16)
    }

    /// Words of `prompt` that the prior never saw in training; empty if the prior keeps no word list.
    pub fn unknown_words(&self, prompt: &str) -> Vec<String> {
        let Some(words) = &self.words else { return Vec::new() };
        let lower = prompt.to_lowercase();
        let mut out: Vec<String> = Vec::new();
        for word in lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
            if !words.contains(word) && !out.iter().any(|w| w == word) {
                out.push(word.to_owned());
            }
        }
        out
    }
}

/// The folder's digest, or where there are adapters one over it, their files and their weights.
fn digest(folder: &Folder, loras: &[(PathBuf, f64)]) -> Result<String> {
    let base = folder.digest()?;
    if loras.is_empty() {
        return Ok(base);
    }
    let mut hash = Sha256::new();
    hash.update(&base);
    for (path, weight) in loras {
        hash.update(std::fs::read(path).map_err(|e| Error::io(path, e))?);
        hash.update(weight.to_le_bytes());
    }
    Ok(format!("{:x}", hash.finalize()))
}

/// Text conditioning `[prompts, L, hidden_size]`.
///
/// # Errors
/// If a text cannot be tokenized or encoded.
pub fn encode_prompts(
    tokenizer: &Tokenizer,
    text: &TextEncoder,
    prompts: &[&str],
    device: &Device,
) -> Result<Tensor> {
    let mut ids = Vec::with_capacity(prompts.len() * tokenizer.max_length);
    for prompt in prompts {
        ids.extend(tokenizer.encode(prompt)?);
    }
    text.forward(&Tensor::from_vec(ids, (prompts.len(), tokenizer.max_length), device)?)
}

#[cfg(test)]
mod tests;
