//! The small files of a prior's folder; each appears by a rename.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Writes a value as indented JSON.
///
/// # Errors
/// If the folder is missing or full.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Failed(e.to_string()))?;
    write_text(path, &(text + "\n"))
}

/// Writes a text.
///
/// # Errors
/// If the folder is missing or full.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension("partial");
    std::fs::write(&temporary, text).map_err(|e| Error::io(&temporary, e))?;
    std::fs::rename(&temporary, path).map_err(|e| Error::io(path, e))
}

/// `model_index.json` of a pipeline with one text encoder.
pub(crate) fn model_index() -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}
