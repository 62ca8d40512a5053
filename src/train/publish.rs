//! Writes a trained prior as a folder in diffusers' layout, f16.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use serde_json::json;

use super::config::TrainConfig;
use super::data::Words;
use super::run::to_f16;
use super::unet::Trained;
use crate::error::{Error, Result};
use crate::prior::tensor_file::write_safetensors;
use crate::prior::tokenizer::Tokenizer;
use crate::prior::writing::{model_index, write_json, write_text};

/// Writes all files of the model; each appears by a rename.
pub(super) fn write(
    out: &Path,
    config: &TrainConfig,
    tokenizer: &Tokenizer,
    words: &Words,
    scaling_factor: f64,
    vae: &HashMap<String, Tensor>,
    trained: &Trained,
) -> Result<()> {
    for part in ["tokenizer", "text_encoder", "unet", "vae", "scheduler"] {
        let dir = out.join(part);
        std::fs::create_dir_all(&dir).map_err(|e| Error::io(dir, e))?;
    }
    for (name, text) in tokenizer.files() {
        write_text(&out.join("tokenizer").join(name), &text)?;
    }
    let text_config = config.text_config(tokenizer.vocab_size());
    let mut text_json = serde_json::to_value(text_config).map_err(|e| Error::Failed(e.to_string()))?;
    text_json["model_type"] = json!("clip_text_model");
    write_json(&out.join("text_encoder/config.json"), &text_json)?;
    write_json(&out.join("unet/config.json"), &config.unet_config())?;
    write_json(&out.join("vae/config.json"), &config.vae_config(scaling_factor))?;
    write_text(&out.join("scheduler/scheduler_config.json"), &config.scheduler_json())?;
    write_text(&out.join("words.txt"), &words.seen.iter().map(|w| format!("{w}\n")).collect::<String>())?;
    write_json(&out.join("vocabulary.json"), &words.vocabulary)?;
    write_safetensors(&out.join("vae/diffusion_pytorch_model.safetensors"), &to_f16(vae)?)?;
    write_safetensors(&out.join("text_encoder/model.safetensors"), &to_f16(&trained.text)?)?;
    write_safetensors(&out.join("unet/diffusion_pytorch_model.safetensors"), &to_f16(&trained.unet)?)?;
    write_json(&out.join("model_index.json"), &model_index())
}
