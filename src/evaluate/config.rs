//! What `gen3d train evaluator` builds and how: one struct is the TOML file.

use serde::{Deserialize, Serialize};

use super::encoder::EncoderConfig;
use crate::error::{Error, Result};
use crate::prior::text::TextConfig;
use crate::train::data::DataConfig;

/// All choices of a training run of the evaluator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluatorConfig {
    /// Keys data, initial weights and augmentation; far from the prior's, so that no picture is shared.
    pub seed: u64,
    /// Side of the pictures.
    pub image_size: usize,
    /// Pictures drawn and kept; training walks over them again and again, changed each time.
    pub pictures: usize,
    /// Most tokens of the vocabulary.
    pub vocab_size: usize,
    /// Tokens a caption is padded or cut to.
    pub max_tokens: usize,
    /// Channels of the picture tower, from half the resolution down.
    pub channels: Vec<usize>,
    /// The text tower's width.
    pub text_width: usize,
    /// Its blocks.
    pub text_layers: usize,
    /// Numbers in an embedding.
    pub width: usize,
    /// Optimiser steps.
    pub steps: u32,
    /// Pictures a step; each is a negative of all others.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup: u32,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the averaged weights that are saved.
    pub ema_decay: f64,
    /// Weight of the azimuth's squared error beside the contrastive loss.
    pub azimuth_weight: f64,
    /// What the pictures show.
    pub data: DataConfig,
}

impl Default for EvaluatorConfig {
    fn default() -> Self {
        Self {
            seed: 1001,
            image_size: 64,
            pictures: 30_000,
            vocab_size: 4096,
            max_tokens: 20,
            channels: vec![32, 64, 128, 192],
            text_width: 128,
            text_layers: 2,
            width: 128,
            steps: 6000,
            batch: 64,
            learning_rate: 1.5e-3,
            warmup: 100,
            weight_decay: 0.02,
            ema_decay: 0.995,
            azimuth_weight: 2.0,
            // A judge has no favourites.
            data: DataConfig { hero_weight: 2.0, hero_scenes: 0.06, ..DataConfig::default() },
        }
    }
}

impl EvaluatorConfig {
    /// `config.json` for a vocabulary of `vocab_size` tokens.
    pub fn encoder(&self, vocab_size: usize) -> EncoderConfig {
        EncoderConfig {
            image_size: self.image_size,
            channels: self.channels.clone(),
            groups: 8,
            width: self.width,
            text: TextConfig {
                vocab_size,
                hidden_size: self.text_width,
                intermediate_size: self.text_width * 4,
                num_hidden_layers: self.text_layers,
                num_attention_heads: 4,
                max_position_embeddings: self.max_tokens,
                hidden_act: "quick_gelu".into(),
                layer_norm_eps: 1e-5,
                projection_dim: None,
                eos_token_id: 2,
                architectures: vec!["CLIPTextModel".into()],
            },
        }
    }

    /// Refuses values that cannot be trained with.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn check(&self) -> Result<()> {
        if !(1..=2_000_000).contains(&self.pictures) {
            return Err(Error::invalid("pictures", "must be 1 to 2,000,000"));
        }
        if !(2..=4096).contains(&self.batch) || self.batch > self.pictures {
            return Err(Error::invalid("batch", "must be 2 to 4096, and not more than there are pictures"));
        }
        if !(4..=77).contains(&self.max_tokens) {
            return Err(Error::invalid("max_tokens", "must be 4 to 77"));
        }
        self.data.check()?;
        self.encoder(self.vocab_size).check()
    }
}
