//! Models of Stable Diffusion's shapes with random weights: sizes, memory and speed can be tried without a
//! download, and nothing else.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use super::files::Folder;
use super::tensor_file::write_safetensors;
use super::text::TextEncoder;
use super::unet::Unet;
use super::vae::Vae;
use super::weights::{Store, Weights};
use super::writing::{model_index, write_json, write_text};
use crate::error::{Error, Result};

/// Which shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    /// Stable Diffusion 1.5.
    Sd15,
    /// Stable Diffusion 2.1 (v-prediction).
    Sd21,
}

impl Version {
    fn unet(self) -> Value {
        let mut config = json!({
            "sample_size": 64,
            "block_out_channels": [320, 640, 1280, 1280],
            "down_block_types":
                ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        });
        if self == Self::Sd21 {
            config["sample_size"] = json!(96);
            config["cross_attention_dim"] = json!(1024);
            config["attention_head_dim"] = json!([5, 10, 20, 20]);
            config["use_linear_projection"] = json!(true);
        }
        config
    }

    fn text(self) -> Value {
        let second = self == Self::Sd21;
        json!({
            "vocab_size": 49_408,
            "hidden_size": if second { 1024 } else { 768 },
            "intermediate_size": if second { 4096 } else { 3072 },
            "num_hidden_layers": if second { 23 } else { 12 },
            "num_attention_heads": if second { 16 } else { 12 },
            "max_position_embeddings": POSITIONS,
            "hidden_act": if second { "gelu" } else { "quick_gelu" },
        })
    }

    fn scheduler(self) -> Value {
        let v = self == Self::Sd21;
        json!({
            "_class_name": "DDIMScheduler",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "clip_sample": false,
            "set_alpha_to_one": false,
            "steps_offset": 1,
            "prediction_type": if v { "v_prediction" } else { "epsilon" },
        })
    }
}

/// Tokens of a text.
const POSITIONS: usize = 77;

fn vae() -> Value {
    json!({
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "sample_size": 512,
        "scaling_factor": 0.18215,
        "down_block_types": vec!["DownEncoderBlock2D"; 4],
        "up_block_types": vec!["UpDecoderBlock2D"; 4],
    })
}

/// Writes a model of `version`'s shapes to the folder `out`, f16, in diffusers' layout, with the embedded
/// prior's tokenizer; `(seed, name of a tensor)` keys its values.
///
/// # Errors
/// [`Error::Invalid`] if `out` is there already; if the disk is full (2.3 GB are needed).
pub fn write(version: Version, out: &Path, seed: u64) -> Result<()> {
    if out.exists() {
        return Err(Error::invalid("--out", format!("{} is there already", out.display()))
            .hint("give a new folder, or delete that one first"));
    }
    for part in ["unet", "vae", "text_encoder", "scheduler", "tokenizer"] {
        std::fs::create_dir_all(out.join(part)).map_err(|e| Error::io(out.join(part), e))?;
    }
    part(out, "unet", "diffusion_pytorch_model", seed, version.unet(), Unet::new)?;
    part(out, "vae", "diffusion_pytorch_model", seed, vae(), Vae::new)?;
    part(out, "text_encoder", "model", seed, version.text(), TextEncoder::new)?;
    write_json(&out.join("scheduler/scheduler_config.json"), &version.scheduler())?;
    let embedded = Folder::embedded()?;
    for name in ["vocab.json", "merges.txt"] {
        write_text(&out.join("tokenizer").join(name), &embedded.text(&format!("tokenizer/{name}"))?)?;
    }
    let mut tokenizer: Value = embedded.config("tokenizer/tokenizer_config.json")?;
    tokenizer["model_max_length"] = json!(POSITIONS);
    write_json(&out.join("tokenizer/tokenizer_config.json"), &tokenizer)?;
    write_json(&out.join("model_index.json"), &model_index())
}

/// One network: its config, and the weights that it asks for.
fn part<C: serde::de::DeserializeOwned, N>(
    out: &Path,
    name: &str,
    file: &str,
    seed: u64,
    config: Value,
    build: impl FnOnce(C, &Weights) -> Result<N>,
) -> Result<()> {
    let path = out.join(name).join("config.json");
    let parsed = serde_json::from_value(config.clone()).map_err(|e| Error::file(&path, e.to_string()))?;
    write_json(&path, &config)?;
    let store = Store::fresh(seed, &Device::Cpu).without_zeros();
    drop(build(parsed, &store.root())?);
    let halved = |(name, var): (String, candle_core::Var)| Ok((name, var.as_tensor().to_dtype(DType::F16)?));
    let tensors: HashMap<String, Tensor> = store.vars().into_iter().map(halved).collect::<Result<_>>()?;
    write_safetensors(&out.join(name).join(format!("{file}.safetensors")), &tensors)
}
