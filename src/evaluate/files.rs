//! An evaluator's folder: `config.json`, `model.safetensors` (f16), `tokenizer/`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::Evaluator;
use super::encoder::{Encoder, EncoderConfig};
use crate::error::{Error, Result};
use crate::prior::tensor_file::{read_safetensors, write_safetensors};
use crate::prior::tokenizer::Tokenizer;
use crate::prior::weights::Store;
use crate::train::run::to_f16;

const WEIGHTS: &str = "model.safetensors";

/// Writes an evaluator; each file appears by a rename, the weights last.
///
/// # Errors
/// If the folder cannot be written.
pub fn save(
    dir: &Path,
    config: &EncoderConfig,
    tokenizer: &Tokenizer,
    weights: &HashMap<String, Tensor>,
) -> Result<()> {
    let texts = dir.join("tokenizer");
    std::fs::create_dir_all(&texts).map_err(|e| Error::io(&texts, e))?;
    for (name, text) in tokenizer.files() {
        crate::asset::replace(&texts.join(name), text.as_bytes())?;
    }
    let json = serde_json::to_string_pretty(config).map_err(|e| Error::Failed(e.to_string()))?;
    crate::asset::replace(&dir.join("config.json"), (json + "\n").as_bytes())?;
    write_safetensors(&dir.join(WEIGHTS), &to_f16(weights)?)
}

/// Reads what [`save`] wrote.
///
/// # Errors
/// [`Error::Invalid`] if there is no such folder; [`Error::File`] naming the file that is missing or damaged.
pub fn load(dir: &Path) -> Result<Evaluator> {
    let path = dir.join("config.json");
    if !path.is_file() {
        let why = format!("no evaluator in {}", dir.display());
        return Err(Error::invalid("--evaluator", why)
            .hint("it is the folder that `gen3d train evaluator --out` wrote, such as models/evaluator"));
    }
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| Error::io(path, e));
    let config: EncoderConfig =
        serde_json::from_str(&read(&path)?).map_err(|e| Error::file(&path, e.to_string()))?;
    let texts = dir.join("tokenizer");
    let [vocab, merges, settings] =
        ["vocab.json", "merges.txt", "tokenizer_config.json"].map(|name| read(&texts.join(name)));
    let tokenizer = Tokenizer::from_texts(&vocab?, &merges?, &settings?, &texts)?;
    let file = dir.join(WEIGHTS);
    let store = Store::loaded(read_safetensors(&file)?, DType::F32, false, &Device::Cpu);
    let encoder = Encoder::new(config, &store.root()).map_err(|e| Error::file(&path, e.to_string()))?;
    store.finish(&file, |_| false)?;
    Ok(Evaluator { encoder, tokenizer })
}
