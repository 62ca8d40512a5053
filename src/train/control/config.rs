//! What `gen3d train control` learns and how: one struct is the TOML file.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::train::data::DataConfig;

/// What the control pictures show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// White edges on black, as `gen3d image --canny` finds them.
    Edges,
    /// White at the nearest point, dark grey at the farthest, black where nothing is.
    Depth,
}

/// All choices of a training run of a `ControlNet`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlTraining {
    /// What steers.
    pub kind: Kind,
    /// Keys data and noise.
    pub seed: u64,
    /// Pictures drawn and kept.
    pub pictures: usize,
    /// What they show.
    pub data: DataConfig,
    /// Channels on the way from the control picture to the latents' size, halved at each but the first: as
    /// many as the autoencoder has resolutions.
    pub channels: Vec<usize>,
    /// Optimiser steps.
    pub steps: u32,
    /// Latents a step.
    pub batch: usize,
    /// Parts of a batch that run side by side.
    pub parts: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup: u32,
    /// Decay of the averaged weights that are saved.
    pub ema_decay: f64,
    /// Share of samples without a caption: those the control picture has to carry alone (half of them in the
    /// paper).
    pub caption_dropout: f32,
    /// Gradients are scaled down to this global norm.
    pub max_grad_norm: f64,
}

impl Default for ControlTraining {
    fn default() -> Self {
        Self {
            kind: Kind::Edges,
            seed: 31,
            pictures: 20_000,
            data: DataConfig::default(),
            channels: vec![16, 32, 64],
            steps: 4000,
            batch: 16,
            parts: 2,
            learning_rate: 1e-3,
            warmup: 200,
            ema_decay: 0.998,
            caption_dropout: 0.5,
            max_grad_norm: 1.0,
        }
    }
}

impl ControlTraining {
    /// Checks all ranges.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn check(&self) -> Result<()> {
        let within = |key: &str, ok: bool, why: &str| {
            if ok { Ok(()) } else { Err(Error::invalid(key, why)) }
        };
        self.data.check()?;
        within("pictures", (1..=10_000_000).contains(&self.pictures), "must be 1 to 10,000,000")?;
        within("steps", self.steps > 0, "must be at least 1")?;
        within("batch", (1..=4096).contains(&self.batch), "must be 1 to 4096")?;
        within("learning_rate", self.learning_rate > 0.0 && self.learning_rate < 1.0, "must be in 0 … 1")?;
        within("ema_decay", (0.0..1.0).contains(&self.ema_decay), "must be 0 or more and below 1")?;
        within("caption_dropout", (0.0..=1.0).contains(&self.caption_dropout), "must be 0 … 1")?;
        within("max_grad_norm", self.max_grad_norm > 0.0, "must be positive")
    }
}
