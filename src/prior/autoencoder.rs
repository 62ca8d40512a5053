//! Whichever autoencoder a prior has, behind one face.

use candle_core::Tensor;
use serde_json::Value;

use super::autoencoder_tiny::TinyVae;
use super::vae::{Encoded, Vae};
use super::weights::Weights;
use crate::error::{Error, Result};

/// Pictures to latents and back.
pub enum Autoencoder {
    /// `AutoencoderKL`.
    Kl(Box<Vae>),
    /// `AutoencoderTiny`: faster and smaller, its latents are those of the `AutoencoderKL` it was
    /// distilled from.
    Tiny(Box<TinyVae>),
}

impl Autoencoder {
    /// By `_class_name` of the config (`AutoencoderKL` if absent); takes its tensors from `w`.
    ///
    /// # Errors
    /// An unsupported class or config value; a tensor that cannot be made.
    pub fn new(config: Value, w: &Weights) -> Result<Self> {
        let bad = |e: serde_json::Error| Error::invalid("vae/config.json", e.to_string());
        match config["_class_name"].as_str() {
            Some("AutoencoderTiny") => {
                let vae = TinyVae::new(serde_json::from_value(config).map_err(bad)?, w)?;
                Ok(Self::Tiny(Box::new(vae)))
            }
            Some("AutoencoderKL") | None => {
                let vae = Vae::new(serde_json::from_value(config).map_err(bad)?, w)?;
                Ok(Self::Kl(Box::new(vae)))
            }
            Some(class) => Err(Error::invalid(
                "vae/config.json: _class_name",
                format!("unsupported value {class:?} (AutoencoderKL, AutoencoderTiny)"),
            )),
        }
    }

    /// Pixels a latent pixel, each way.
    pub fn factor(&self) -> usize {
        match self {
            Self::Kl(vae) => vae.config.factor(),
            Self::Tiny(vae) => vae.config.factor(),
        }
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(vae) => vae.config.latent_channels,
            Self::Tiny(vae) => vae.config.latent_channels,
        }
    }

    /// Scaled latents `[B, c, h, w]` of pictures `[B, 3, H, W]` in −1..1: [`Vae::encode_mean`].
    ///
    /// # Errors
    /// If the sides are no multiple of [`Autoencoder::factor`].
    pub fn encode_mean(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Kl(vae) => vae.encode_mean(x),
            Self::Tiny(vae) => Ok((vae.encode(x)? * vae.config.scaling_factor)?),
        }
    }

    /// As [`Autoencoder::encode_mean`], without a tape but ready for [`Autoencoder::pull_back`], which computes
    /// what it needs again; nothing for an autoencoder whose tape is small anyway.
    ///
    /// # Errors
    /// As [`Autoencoder::encode_mean`].
    pub fn encode_saving(&self, x: &Tensor) -> Result<Option<Encoded>> {
        match self {
            Self::Kl(vae) => vae.encode_saving(x).map(Some),
            Self::Tiny(_) => Ok(None),
        }
    }

    /// ∂L/∂pictures from ∂L/∂latents.
    ///
    /// # Errors
    /// If `encoded` is of another autoencoder.
    pub fn pull_back(&self, encoded: Encoded, gradient: &Tensor) -> Result<Tensor> {
        match self {
            Self::Kl(vae) => vae.pull_back(encoded, gradient),
            Self::Tiny(_) => Err(Error::Failed("these latents are of another autoencoder".into())),
        }
    }

    /// Latents as diffusers' `encode` gives them: the posterior's mean before scaling.
    ///
    /// # Errors
    /// As [`Autoencoder::encode_mean`].
    pub fn encode_unscaled(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Kl(vae) => Ok(vae.posterior(x)?.mean),
            Self::Tiny(vae) => vae.encode(x),
        }
    }

    /// Pictures (about −1..1) of scaled latents.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn decode(&self, z: &Tensor) -> Result<Tensor> {
        match self {
            Self::Kl(vae) => vae.decode(z),
            Self::Tiny(vae) => vae.decode(&(z / vae.config.scaling_factor)?),
        }
    }

    /// Pictures of latents before scaling.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn decode_unscaled(&self, z: &Tensor) -> Result<Tensor> {
        match self {
            Self::Kl(vae) => vae.decode_unscaled(z),
            Self::Tiny(vae) => vae.decode(z),
        }
    }
}
