//! New adapters, to be trained.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor, Var};

use crate::error::{Error, Result};
use crate::prior::tensor_file::write_safetensors;
use crate::prior::weights::{Adapter, Adapters};
use crate::rng::{Rng, Stream};

/// Adapters that change nothing yet: D normal with variance 1/rank, U zero (Hu et al. 2021).
pub struct Fresh {
    /// For [`crate::prior::weights::Store::with_adapters`].
    pub adapters: Adapters,
    /// Their tensors, as peft names them (`layer.lora_A.weight`), for an optimiser.
    pub vars: BTreeMap<String, Var>,
    alpha: f64,
}

/// True for the projections of the U-Net's attentions, which adapters usually sit on.
pub fn is_attention(layer: &str) -> bool {
    let place = layer.contains(".attn1.") || layer.contains(".attn2.");
    place && [".to_q", ".to_k", ".to_v", ".to_out.0"].iter().any(|end| layer.ends_with(end))
}

/// One adapter of `rank` on each linear layer of `weights` (by their tensors' names) for which `wanted`
/// holds; the output counts alpha/rank.
///
/// # Errors
/// [`Error::Invalid`] if the rank is zero or no layer is wanted.
pub fn fresh(
    weights: &HashMap<String, Tensor>,
    wanted: impl Fn(&str) -> bool,
    rank: usize,
    alpha: f64,
    seed: u64,
) -> Result<Fresh> {
    let mut layers: Vec<(&str, usize, usize)> = weights
        .iter()
        .filter_map(|(name, tensor)| {
            let layer = name.strip_suffix(".weight").filter(|l| wanted(l))?;
            let (outputs, inputs) = tensor.dims2().ok()?;
            Some((layer, inputs, outputs))
        })
        .collect();
    layers.sort_unstable();
    if rank == 0 || layers.is_empty() {
        return Err(Error::invalid("rank", format!("{rank} on {} layers", layers.len())));
    }
    let mut out = Fresh { adapters: Adapters::new(), vars: BTreeMap::new(), alpha };
    for (i, (layer, inputs, outputs)) in layers.into_iter().enumerate() {
        let std = (1.0 / rank as f32).sqrt();
        let normals = Rng::new(seed, Stream::Init, i as u32).normals(0, rank * inputs);
        let values: Vec<f32> = normals.iter().map(|v| v * std).collect();
        let down = Var::from_vec(values, (rank, inputs), &Device::Cpu)?;
        let up = Var::zeros((outputs, rank), candle_core::DType::F32, &Device::Cpu)?;
        let adapter = Adapter {
            down: down.as_tensor().clone(),
            up: up.as_tensor().clone(),
            scale: alpha / rank as f64,
        };
        out.adapters.insert(layer.to_owned(), vec![adapter]);
        out.vars.insert(format!("{layer}.lora_A.weight"), down);
        out.vars.insert(format!("{layer}.lora_B.weight"), up);
    }
    Ok(out)
}

impl Fresh {
    /// Writes the adapters under diffusers' names, `prefix` (`unet`) before them.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path, prefix: &str) -> Result<()> {
        let mut tensors = HashMap::new();
        for (name, var) in &self.vars {
            tensors.insert(format!("{prefix}.{name}"), var.as_tensor().clone());
            if let Some(layer) = name.strip_suffix(".lora_A.weight") {
                let alpha = Tensor::new(self.alpha as f32, &Device::Cpu)?;
                tensors.insert(format!("{prefix}.{layer}.alpha"), alpha);
            }
        }
        write_safetensors(path, &tensors)
    }
}
