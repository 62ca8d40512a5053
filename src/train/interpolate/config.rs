//! What `gen3d train interpolate` learns and how: one struct is the TOML file.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::video::interpolate::IfNetConfig;

/// All choices of a training run of a frame interpolator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InterpolateTraining {
    /// Keys scenes, crops and initial weights.
    pub seed: u64,
    /// Rendered sequences drawn and kept.
    pub sequences: usize,
    /// Most sequences cut from each clip of `--clips`.
    pub per_clip: usize,
    /// Side of a sequence's frames, pixels.
    pub size: usize,
    /// Side of what a step sees of them; a multiple of 16 times the coarsest scale.
    pub crop: usize,
    /// The network.
    pub net: IfNetConfig,
    /// Optimiser steps.
    pub steps: u32,
    /// Triples of frames a step.
    pub batch: usize,
    /// Parts of a batch that run side by side.
    pub parts: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup: u32,
    /// Decay of the averaged weights that are saved.
    pub ema_decay: f64,
    /// Gradients are scaled down to this global norm.
    pub max_grad_norm: f64,
    /// Weight of a block's frame relative to the next one's.
    pub earlier: f64,
}

impl Default for InterpolateTraining {
    fn default() -> Self {
        Self {
            seed: 17,
            sequences: 2400,
            per_clip: 400,
            size: 96,
            crop: 64,
            net: IfNetConfig { channels: vec![40, 32, 24], depth: 3, from_flow: true },
            steps: 12_000,
            batch: 8,
            parts: 2,
            learning_rate: 1e-3,
            warmup: 200,
            ema_decay: 0.998,
            max_grad_norm: 1.0,
            earlier: 0.5,
        }
    }
}

impl InterpolateTraining {
    /// Checks all ranges.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn check(&self) -> Result<()> {
        let within = |key: &str, ok: bool, why: &str| {
            if ok { Ok(()) } else { Err(Error::invalid(key, why)) }
        };
        let (blocks, channels) = (self.net.channels.len(), &self.net.channels);
        within("net.channels", (1..=6).contains(&blocks), "must be 1 to 6 blocks")?;
        let even = |c: &usize| c.is_multiple_of(2) && (2..=1024).contains(c);
        within("net.channels", channels.iter().all(even), "must be even numbers up to 1024")?;
        within("net.depth", (1..=32).contains(&self.net.depth), "must be 1 to 32")?;
        within("sequences", self.sequences <= 1_000_000, "must be at most 1,000,000")?;
        within("size", (16..=1024).contains(&self.size), "must be 16 to 1024")?;
        // Two strides after the coarsest scale, and a loss of so many levels.
        let multiple = 4 << (blocks - 1);
        let fits = self.crop > 0 && self.crop <= self.size && self.crop.is_multiple_of(multiple);
        within("crop", fits, &format!("must be a multiple of {multiple} up to the size"))?;
        within("steps", self.steps > 0, "must be at least 1")?;
        within("batch", (1..=4096).contains(&self.batch), "must be 1 to 4096")?;
        within("learning_rate", self.learning_rate > 0.0 && self.learning_rate < 1.0, "must be in 0 … 1")?;
        within("ema_decay", (0.0..1.0).contains(&self.ema_decay), "must be 0 or more and below 1")?;
        within("earlier", (0.0..=1.0).contains(&self.earlier), "must be 0 … 1")?;
        within("max_grad_norm", self.max_grad_norm > 0.0, "must be positive")
    }
}
