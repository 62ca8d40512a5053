//! The diffusion prior: differentiable layers, text encoder, VAE, U-Net, schedule, loading.
//!
//! A prior is a folder in diffusers' layout: `model_index.json`, `tokenizer/`, `text_encoder/`,
//! `unet/`, `vae/`, `scheduler/`. The embedded one (`models/mini`) is read by the same code.

pub mod autoencoder;
pub mod autoencoder_tiny;
pub mod conditioning;
pub mod control;
pub mod files;
pub mod footprint;
#[cfg(feature = "hub")]
pub mod hub;
pub mod layers;
mod load;
pub mod lora;
pub mod nn;
pub mod prompt;
pub mod random;
mod reading;
pub mod registry;
pub mod schedule;
mod single_config;
pub mod single_file;
pub mod tensor_file;
pub mod text;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod verify;
pub mod vocabulary;
pub mod weights;
pub(crate) mod writing;

use std::collections::{BTreeSet, HashMap};

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use autoencoder::Autoencoder;
use conditioning::{Conditioning, TextEncoders};
use schedule::Schedule;
use text::TextEncoder;
use tokenizer::Tokenizer;
use unet::Unet;

/// A loaded diffusion prior, f32, frozen.
pub struct Prior {
    /// Where it came from; `mini` for the embedded one.
    pub name: String,
    /// SHA-256 over all its weight files, hexadecimal: names the prior in checkpoints and assets.
    pub digest: String,
    /// Text to hidden states.
    pub text: TextEncoders,
    /// The noise predictor.
    pub unet: Unet,
    /// Its tensors by name, for another network of the same weights (the same memory).
    pub(crate) unet_tensors: HashMap<String, Tensor>,
    /// Pictures to latents and back.
    pub vae: Autoencoder,
    /// Where the networks run.
    pub device: Device,
    /// The noise schedule.
    pub schedule: Schedule,
    words: Option<BTreeSet<String>>,
}

impl Prior {
    /// What the U-Net is told about each text; all have one length (see [`TextEncoders::encode`]).
    ///
    /// # Errors
    /// If a text cannot be tokenized or encoded.
    pub fn encode_texts(&self, texts: &[&str]) -> Result<Vec<Conditioning>> {
        let texts: Vec<(&str, usize)> = texts.iter().map(|t| (*t, 0)).collect();
        self.text.encode(&texts, &self.device)
    }

    /// Side in pixels of the pictures the prior was trained on.
    pub fn image_size(&self) -> u32 {
        (self.unet.config.sample_size * self.vae.factor()) as u32
    }

    /// True if the U-Net takes a camera (16 numbers, see [`crate::render::camera::Camera::embedding`]).
    pub fn is_camera_conditioned(&self) -> bool {
        self.unet.config.projection_class_embeddings_input_dim == Some(16)
    }

    /// Words of `prompt` that the prior never saw in training; empty if the prior keeps no word list.
    pub fn unknown_words(&self, prompt: &str) -> Vec<String> {
        let Some(words) = &self.words else { return Vec::new() };
        let lower = prompt::plain(prompt).unwrap_or_else(|_| prompt.to_owned()).to_lowercase();
        let mut out: Vec<String> = Vec::new();
        for word in lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
            if !words.contains(word) && !out.iter().any(|w| w == word) {
                out.push(word.to_owned());
            }
        }
        out
    }

    /// [`Prior::unknown_words`] for people: `zebra`, `jat` (`jay`?); the known word that each may be a slip
    /// of stands in brackets. Nothing if all are known.
    pub fn strangers(&self, prompt: &str) -> Option<String> {
        let known = || self.words.iter().flatten().map(String::as_str);
        let one = |word: &String| match crate::suggest::nearest(word, known()) {
            Some(near) => format!("`{word}` (`{near}`?)"),
            None => format!("`{word}`"),
        };
        let all: Vec<String> = self.unknown_words(prompt).iter().map(one).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

/// The device that `name` stands for: `cpu`, or else the [`accelerator`]. The same bytes for the same seed
/// are the CPU's promise: who asks for it gets it for all.
///
/// # Errors
/// As [`accelerator`].
pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "cuda" if !cfg!(feature = "cuda") => Err(Error::invalid("--device", "this build has no CUDA")
            .hint("build with `--features cudnn` (see the README), or leave `--device` out")),
        _ => accelerator(),
    }
}

/// The device a prior's networks run on best: a GPU in builds for one (`cuda`, `metal`), else the CPU.
///
/// # Errors
/// If the build is for a GPU and it cannot be opened.
pub fn accelerator() -> Result<Device> {
    let device = if cfg!(feature = "cuda") {
        Device::new_cuda(0)
    } else if cfg!(feature = "metal") {
        Device::new_metal(0)
    } else {
        Ok(Device::Cpu)
    };
    let hint = "`--device cpu` works everywhere; `nvidia-smi` tells whether the driver sees a card";
    device.map_err(|e| Error::Gpu(e.to_string()).hint(hint))
}

/// A network of one part of a folder, frozen, its file checked for missing and unused tensors.
///
/// # Errors
/// [`crate::Error::File`] naming what is missing, damaged or does not fit its config.
pub fn network<C: serde::de::DeserializeOwned, N>(
    folder: &files::Folder,
    part: &str,
    device: &Device,
    build: impl FnOnce(C, &weights::Weights) -> Result<N>,
) -> Result<N> {
    load::network(folder, part, None, device, build)
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
