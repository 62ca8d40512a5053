//! Training that starts from another model's weights instead of random ones.
//!
//! All of that model that training goes on from is copied into the run's folder first, so that a resumed run
//! needs it no more and a model may even be trained into its own folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::prior::nn::adam::AdamW;
use crate::prior::tensor_file::{read_safetensors, write_safetensors};

const FILE: &str = "start.safetensors";
/// The networks of a model, and their weights in its folder.
const PARTS: [(&str, &str); 3] = [
    ("vae/", "vae/diffusion_pytorch_model.safetensors"),
    ("text_encoder/", "text_encoder/model.safetensors"),
    ("unet/", "unet/diffusion_pytorch_model.safetensors"),
];

/// Weights to start from, named `vae/…`, `text_encoder/…` and `unet/…`, f32.
pub(super) struct Start {
    tensors: HashMap<String, Tensor>,
    path: PathBuf,
}

impl Start {
    /// What the run in `run` starts from: what an earlier start of it copied there, or else `model`, a folder
    /// written by training, or else nothing. The tokenizer becomes the run's own.
    ///
    /// # Errors
    /// If a file of `model` cannot be read or copied.
    pub(super) fn of(run: &Path, model: Option<&Path>) -> Result<Option<Self>> {
        let path = run.join(FILE);
        if path.is_file() {
            return Ok(Some(Self { tensors: read_safetensors(&path)?, path }));
        }
        let Some(model) = model else { return Ok(None) };
        let mut tensors = HashMap::new();
        for (prefix, file) in PARTS {
            for (name, tensor) in read_safetensors(&model.join(file))? {
                tensors.insert(format!("{prefix}{name}"), tensor.to_dtype(DType::F32)?);
            }
        }
        let dir = run.join("tokenizer");
        std::fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
        for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
            let from = model.join("tokenizer").join(name);
            let bytes = std::fs::read(&from).map_err(|e| Error::io(&from, e))?;
            crate::asset::replace(&dir.join(name), &bytes)?;
        }
        // The weights come last: where they are, the tokenizer is whole.
        write_safetensors(&path, &tensors)?;
        Ok(Some(Self { tensors, path }))
    }

    /// The autoencoder's weights on `device`, which are kept as they are.
    ///
    /// # Errors
    /// If a tensor cannot be moved.
    pub(super) fn autoencoder(&self, device: &Device) -> Result<HashMap<String, Tensor>> {
        let own = self.tensors.iter().filter_map(|(k, v)| Some((k.strip_prefix(PARTS[0].0)?, v)));
        own.map(|(k, v)| Ok((k.to_owned(), v.to_device(device)?))).collect()
    }

    /// Sets the weights that `adam` trains and their averages; its moments start at zero.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub(super) fn put(&self, adam: &mut AdamW) -> Result<()> {
        let mut state = adam.state()?;
        for (key, value) in &mut state {
            let Some((kind, name)) = key.split_once(':') else { continue };
            if !["w", "a"].contains(&kind) {
                continue;
            }
            let Some(given) = self.tensors.get(name) else {
                return Err(Error::file(&self.path, format!("{name} is missing"))
                    .hint("train from a model of the same settings"));
            };
            if given.dims() != value.dims() {
                let (given, own) = (given.dims(), value.dims());
                return Err(Error::file(&self.path, format!("{name} has shape {given:?}, not {own:?}"))
                    .hint("train from a model of the same settings"));
            }
            *value = given.clone();
        }
        Ok(adam.load_state(&state)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::prior::nn::adam::AdamConfig;
    use crate::prior::tokenizer::Tokenizer;
    use crate::prior::weights::Store;
    use crate::train::config::TrainConfig;
    use crate::train::data::Words;

    fn optimiser(widths: &[(&str, usize)]) -> AdamW {
        let store = Store::fresh(1, &Device::Cpu);
        for (name, width) in widths {
            store.root().pp("net").get(name, &[*width], crate::prior::weights::Init::Zeros).unwrap();
        }
        let vars: BTreeMap<_, _> = store.vars().into_iter().map(|(k, v)| (format!("unet/{k}"), v)).collect();
        AdamW::new(vars, AdamConfig { ema_decay: Some(0.9), ..AdamConfig::default() }).unwrap()
    }

    #[test]
    fn a_model_is_copied_once_and_put_into_the_optimiser() {
        let dir = tempfile::tempdir().unwrap();
        let (model, run) = (dir.path().join("model"), dir.path().join("run"));
        std::fs::create_dir_all(&run).unwrap();
        assert!(Start::of(&run, None).unwrap().is_none());
        let tokenizer = Tokenizer::train(&["a blue jay".into()], 300, 24).unwrap();
        let one = |name: &str, v: f32| {
            HashMap::from([(name.to_owned(), Tensor::new(&[v, -v], &Device::Cpu).unwrap())])
        };
        let weights = [one("vae_w", 0.5), one("text_w", 0.25), one("net.w", 2.0)];
        let config = TrainConfig::default();
        crate::train::publish_for_tests(&model, &config, &tokenizer, &Words::default(), weights).unwrap();
        let start = Start::of(&run, Some(&model)).unwrap().unwrap();
        assert_eq!(start.autoencoder(&Device::Cpu).unwrap()["vae_w"].to_vec1::<f32>().unwrap(), [0.5, -0.5]);
        let mut adam = optimiser(&[("w", 2)]);
        start.put(&mut adam).unwrap();
        let state = adam.state().unwrap();
        for (kind, expected) in [("w", [2.0, -2.0]), ("a", [2.0, -2.0]), ("m", [0.0, 0.0])] {
            assert_eq!(state[&format!("{kind}:unet/net.w")].to_vec1::<f32>().unwrap(), expected);
        }
        // The run's own copy serves from now on.
        std::fs::remove_dir_all(&model).unwrap();
        assert!(Start::of(&run, None).unwrap().is_some());
        assert!(run.join("tokenizer/vocab.json").is_file());
        let message = start.put(&mut optimiser(&[("w", 3)])).unwrap_err().to_string();
        assert!(message.contains("unet/net.w has shape [2], not [3]"), "{message}");
        let message = start.put(&mut optimiser(&[("other", 2)])).unwrap_err().to_string();
        assert!(message.contains("unet/net.other is missing"), "{message}");
    }
}
