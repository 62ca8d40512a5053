//! What `gen3d train prior` builds and how: one struct is the TOML file, written beside the model.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::data::DataConfig;
use crate::error::{Error, Result};
use crate::prior::schedule::{self, Schedule};
use crate::prior::text::TextConfig;
use crate::prior::unet::{PerBlock, UnetConfig};
use crate::prior::vae::VaeConfig;

/// All choices of a training run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Keys data, initial weights and noise.
    pub seed: u64,
    /// Side of the pictures.
    pub image_size: usize,
    /// Pictures drawn and kept; training walks over them again and again with fresh noise.
    pub pictures: usize,
    /// Pictures drawn before the training starts and at a time while it goes on, for a GPU beside an idle CPU;
    /// 0: all are drawn first.
    #[serde(skip_serializing_if = "none")]
    pub first_pictures: usize,
    /// What they show.
    pub data: DataConfig,
    /// Most tokens of the vocabulary.
    pub vocab_size: usize,
    /// Tokens a prompt is padded or cut to.
    pub max_tokens: usize,
    /// The autoencoder's shape and training.
    pub vae: VaeTraining,
    /// The text encoder's width.
    pub text_width: usize,
    /// The text encoder's blocks.
    pub text_layers: usize,
    /// The U-Net's shape and training.
    pub unet: UnetTraining,
}

/// The autoencoder's share of [`TrainConfig`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaeTraining {
    /// Channels, from the full resolution down.
    pub channels: Vec<usize>,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Optimiser steps.
    pub steps: u32,
    /// Pictures a step.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Weight of the KL term.
    pub kl_weight: f64,
    /// Weight of the difference of picture gradients, which keeps edges sharp.
    pub edge_weight: f64,
}

/// The U-Net's (and text encoder's) share of [`TrainConfig`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnetTraining {
    /// Channels, from the latents' resolution down.
    pub channels: Vec<usize>,
    /// Attention heads.
    pub heads: usize,
    /// Whether the pooled text is added to the time embedding.
    pub pooled_text: bool,
    /// Whether each latent pixel is told its ray.
    pub rays: bool,
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
    /// Share of samples whose caption is replaced by the empty one (classifier-free guidance).
    pub caption_dropout: f32,
    /// Gradients are scaled down to this global norm.
    pub max_grad_norm: f64,
    /// What the U-Net predicts: `v_prediction` or `epsilon`.
    pub prediction_type: String,
    /// γ of the min-SNR weighting (5 in the paper); every noise level counts the same without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_snr_gamma: Option<f64>,
    /// Steps between two checkpoints.
    #[serde(skip_serializing_if = "usual")]
    pub checkpoint_every: u32,
    /// Steps between two sheets of samples (`samples.png` in the run's folder), a multiple of
    /// `checkpoint_every`; 0: none.
    pub sheet_every: u32,
    /// Prompts of the sheet.
    pub sheet: Vec<String>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            image_size: 64,
            pictures: 60_000,
            first_pictures: 0,
            data: DataConfig::default(),
            vocab_size: 4096,
            max_tokens: 24,
            vae: VaeTraining::default(),
            text_width: 128,
            text_layers: 3,
            unet: UnetTraining::default(),
        }
    }
}

impl Default for VaeTraining {
    fn default() -> Self {
        Self {
            channels: vec![16, 32, 64],
            latent_channels: 4,
            steps: 4000,
            batch: 16,
            learning_rate: 1e-3,
            kl_weight: 1e-4,
            edge_weight: 1.0,
        }
    }
}

impl Default for UnetTraining {
    fn default() -> Self {
        Self {
            channels: vec![64, 128, 192],
            heads: 4,
            pooled_text: true,
            rays: true,
            steps: 20_000,
            batch: 32,
            parts: 2,
            learning_rate: 6e-4,
            warmup: 300,
            ema_decay: 0.998,
            caption_dropout: 0.1,
            max_grad_norm: 1.0,
            prediction_type: "v_prediction".into(),
            min_snr_gamma: None,
            checkpoint_every: CHECKPOINT_EVERY,
            sheet_every: 1000,
            sheet: [
                "a blue jay on macarons",
                "a penguin",
                "a golden owl",
                "three apples",
                "a red car",
                "a robot",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }
}

impl TrainConfig {
    /// `vae/config.json`; `scaling_factor` is 1 for what this trainer writes, since its latents are white.
    pub fn vae_config(&self, scaling_factor: f64) -> VaeConfig {
        let n = self.vae.channels.len();
        let rest = json!({
            "_class_name": "AutoencoderKL",
            "act_fn": "silu",
            "down_block_types": vec!["DownEncoderBlock2D"; n],
            "up_block_types": vec!["UpDecoderBlock2D"; n],
        });
        VaeConfig {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: self.vae.channels.clone(),
            layers_per_block: 1,
            latent_channels: self.vae.latent_channels,
            norm_num_groups: 2, // few: a group of few channels forgets how bright a flat background is
            scaling_factor,
            sample_size: Some(PerBlock::One(self.image_size)),
            shift_factor: None,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            rest: object(rest),
        }
    }

    /// `text_encoder/config.json` for a vocabulary of `vocab_size` tokens.
    pub fn text_config(&self, vocab_size: usize) -> TextConfig {
        TextConfig {
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
        }
    }

    /// `unet/config.json`: attention everywhere but at the highest resolution, where it costs most
    /// and text matters least.
    pub fn unet_config(&self) -> UnetConfig {
        let n = self.unet.channels.len();
        let names = |plain: &str, crossed: &str| -> Vec<String> {
            (0..n).map(|i| if i == 0 { plain.into() } else { crossed.into() }).collect()
        };
        let mut up = names("UpBlock2D", "CrossAttnUpBlock2D");
        up.reverse();
        UnetConfig {
            sample_size: self.image_size >> (self.vae.channels.len() - 1),
            in_channels: self.vae.latent_channels + if self.unet.rays { 6 } else { 0 },
            camera_rays_fov: self.unet.rays.then_some(super::data::FOV_Y),
            out_channels: self.vae.latent_channels,
            down_block_types: names("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types: up,
            block_out_channels: self.unet.channels.clone(),
            layers_per_block: PerBlock::One(1),
            transformer_layers_per_block: PerBlock::One(1),
            mid_block_type: "UNetMidBlock2DCrossAttn".into(),
            cross_attention_dim: self.text_width,
            attention_head_dim: PerBlock::One(self.unet.heads),
            num_attention_heads: None,
            norm_num_groups: 8,
            norm_eps: 1e-5,
            use_linear_projection: true,
            center_input_sample: false,
            time_embedding_dim: None,
            time_cond_proj_dim: None,
            num_class_embeds: None,
            addition_time_embed_dim: None,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            class_embed_type: Some("projection".into()),
            projection_class_embeddings_input_dim: Some(16),
            addition_embed_type: self.unet.pooled_text.then(|| "text".into()),
            addition_embed_type_num_heads: 4,
            rest: object(json!({"_class_name": "UNet2DConditionModel", "act_fn": "silu"})),
        }
    }

    /// `scheduler/scheduler_config.json`: Stable Diffusion's betas.
    pub fn scheduler_json(&self) -> String {
        let text = json!({
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "clip_sample": false,
            "set_alpha_to_one": false,
            "steps_offset": 1,
            "timestep_spacing": "leading",
            "prediction_type": self.unet.prediction_type,
        });
        format!("{text:#}\n")
    }

    /// The schedule of [`TrainConfig::scheduler_json`].
    ///
    /// # Errors
    /// If `prediction_type` is unknown.
    pub fn schedule(&self) -> Result<Schedule> {
        let json = serde_json::from_str(&self.scheduler_json()).map_err(|e| Error::Failed(e.to_string()))?;
        Schedule::new(schedule::Config::from_json(&json)?)
    }

    /// Refuses sizes that cannot be trained.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key; whatever the network configs refuse.
    pub fn check(&self) -> Result<()> {
        let factor = 1usize << self.vae.channels.len().saturating_sub(1);
        let deepest = factor << self.unet.channels.len().saturating_sub(1);
        if self.image_size == 0 || self.image_size > 1024 || !self.image_size.is_multiple_of(deepest) {
            return Err(Error::invalid(
                "image_size",
                format!("must be a multiple of {deepest}, at most 1024"),
            ));
        }
        if self.pictures == 0 || self.pictures > 2_000_000 {
            return Err(Error::invalid("pictures", "must be 1 to 2,000,000"));
        }
        if self.vae.batch == 0 || self.unet.batch == 0 || self.vae.batch > 1024 || self.unet.batch > 1024 {
            return Err(Error::invalid("batch", "must be 1 to 1024"));
        }
        if !(1..=64).contains(&self.unet.parts) {
            return Err(Error::invalid("unet.parts", "must be 1 to 64"));
        }
        if self.unet.checkpoint_every == 0 {
            return Err(Error::invalid("unet.checkpoint_every", "must be at least 1"));
        }
        if !["v_prediction", "epsilon"].contains(&self.unet.prediction_type.as_str()) {
            return Err(Error::invalid("unet.prediction_type", "must be v_prediction or epsilon"));
        }
        if self.unet.min_snr_gamma.is_some_and(|g| !(g.is_finite() && g > 0.0)) {
            return Err(Error::invalid("unet.min_snr_gamma", "must be positive"));
        }
        self.data.check()?;
        self.vae_config(1.0).check()?;
        self.text_config(self.vocab_size).check()?;
        self.unet_config().check()
    }
}

/// Steps between two checkpoints, if nothing else is said.
pub(super) const CHECKPOINT_EVERY: u32 = 250;

/// As [`none`].
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
pub(super) fn usual(n: &u32) -> bool {
    *n == CHECKPOINT_EVERY
}

/// Left out of files, so that older ones are the same settings.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn none(n: &usize) -> bool {
    *n == 0
}

fn object(value: serde_json::Value) -> serde_json::Map<String, serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map,
        _ => serde_json::Map::new(),
    }
}
