//! Comparison of a model's outputs with reference outputs of another program (`gen3d models verify`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};

use super::autoencoder::Autoencoder;
use super::control::ControlNet;
use super::files::Folder;
use super::network;
use super::tensor_file::read_safetensors;
use super::text::TextEncoder;
use super::unet::{Added, Unet, UnetInputs};
use crate::error::{Error, Result};

/// One compared quantity.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its name in the reference file.
    pub quantity: String,
    /// ‖a−b‖/‖b‖, Euclidean over all elements, b the reference (‖a‖ where b is zero).
    pub relative_error: f64,
}

const INPUTS: &[&str] = &[
    "input_ids",
    "sample",
    "timestep",
    "encoder_hidden_states",
    "class_labels",
    "added.text_embeds",
    "added.time_ids",
    "mid_residual",
    "image",
    "latent",
    "controlnet_cond",
    "grad_latent",
];

/// Runs the parts of the folder (or single-file checkpoint) `dir` that `file` holds quantities of.
///
/// # Errors
/// [`Error::File`] if a file is missing or damaged, holds a name that means nothing, lacks an input
/// that a quantity needs, or holds an output of another shape.
pub fn against(dir: &Path, file: &Path) -> Result<Vec<Report>> {
    let folder = if dir.is_file() {
        Folder::single(dir)?
    } else if dir.is_dir() {
        Folder::Disk(dir.into())
    } else {
        return Err(Error::file(dir, "no such folder or checkpoint"));
    };
    let tensors = read_safetensors(file)?;
    let mut reference = Reference { file, tensors: HashMap::new(), reports: Vec::new() };
    for (name, tensor) in tensors {
        reference.tensors.insert(name, tensor.to_dtype(DType::F32)?);
    }
    let wanted = reference.outputs()?;
    let has = |names: &[&str]| wanted.iter().any(|w| names.iter().any(|n| w.starts_with(n)));
    if has(&["text_hidden_states", "pooled"]) {
        text(&folder, &mut reference)?;
    }
    if has(&["noise_pred"]) {
        unet(&folder, &mut reference)?;
    }
    if has(&["latent_mean", "decoded", "grad_image"]) {
        vae(&folder, &mut reference)?;
    }
    if has(&["control."]) {
        control(&folder, &mut reference)?;
    }
    let checked: BTreeSet<String> = reference.reports.iter().map(|r| r.quantity.clone()).collect();
    match wanted.iter().find(|w| !checked.contains(*w)) {
        Some(name) => Err(Error::file(file, format!("{name} was not checked: the model has no such output"))),
        None => Ok(reference.reports),
    }
}

struct Reference<'a> {
    file: &'a Path,
    tensors: HashMap<String, Tensor>,
    reports: Vec<Report>,
}

impl Reference<'_> {
    /// Names of the expected outputs; every other name must be a known input.
    fn outputs(&self) -> Result<BTreeSet<String>> {
        const OUTPUTS: &[&str] = &[
            "text_hidden_states",
            "pooled",
            "noise_pred",
            "latent_mean",
            "decoded",
            "grad_image",
            "control.mid",
        ];
        let numbered = |name: &str, prefix: &str| {
            name.strip_prefix(prefix).is_some_and(|n| n.parse::<usize>().is_ok_and(|i| i < 1000))
        };
        let mut found = BTreeSet::new();
        for name in self.tensors.keys() {
            if OUTPUTS.contains(&name.as_str()) || numbered(name, "control.down.") {
                found.insert(name.clone());
            } else if !INPUTS.contains(&name.as_str()) && !numbered(name, "down_residuals.") {
                return Err(Error::file(self.file, format!("{name}: no known input or output"))
                    .hint("`gen3d models verify --help` lists the names"));
            }
        }
        if found.is_empty() {
            return Err(Error::file(self.file, "holds no expected output"));
        }
        Ok(found)
    }

    fn optional(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    fn input(&self, name: &str) -> Result<&Tensor> {
        self.optional(name).ok_or_else(|| Error::file(self.file, format!("the input {name} is missing")))
    }

    /// All `prefix.N`, in order, from 0 and without a gap.
    fn list(&self, prefix: &str) -> Result<Vec<Tensor>> {
        let found: BTreeMap<usize, &Tensor> = self
            .tensors
            .iter()
            .filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.parse().ok()?, t)))
            .collect();
        if found.keys().copied().ne(0..found.len()) {
            return Err(Error::file(self.file, format!("{prefix}N: the numbers have gaps")));
        }
        Ok(found.into_values().cloned().collect())
    }

    /// Compares `got` with the output `name`, if the file has it.
    fn check(&mut self, name: &str, got: &Tensor) -> Result<()> {
        let Some(want) = self.tensors.get(name) else { return Ok(()) };
        if want.dims() != got.dims() {
            let why = format!("{name} has shape {:?}, the model gives {:?}", want.dims(), got.dims());
            return Err(Error::file(self.file, why));
        }
        self.reports.push(Report { quantity: name.to_owned(), relative_error: relative_error(got, want)? });
        Ok(())
    }
}

/// ‖a−b‖/‖b‖ in f64; ‖a‖ where b is zero.
fn relative_error(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (a.to_dtype(DType::F64)?, b.to_dtype(DType::F64)?);
    let norm = |t: &Tensor| -> Result<f64> { Ok(t.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt()) };
    let (error, size) = (norm(&(&a - &b)?)?, norm(&b)?);
    Ok(if size == 0.0 { error } else { error / size })
}

fn text(folder: &Folder, reference: &mut Reference<'_>) -> Result<()> {
    let encoder = network(folder, "text_encoder", &Device::Cpu, TextEncoder::new)?;
    let ids = reference.input("input_ids")?.to_dtype(DType::U32)?;
    let encoded = encoder.encode(&ids)?;
    reference.check("text_hidden_states", &encoded.last)?;
    reference.check("pooled", &encoded.pooled)
}

/// The inputs that U-Net and `ControlNet` share, but for the residuals.
fn inputs<'a>(reference: &'a Reference<'_>) -> Result<UnetInputs<'a>> {
    let added = match (reference.optional("added.text_embeds"), reference.optional("added.time_ids")) {
        (Some(text_embeds), Some(time_ids)) => Some(Added { text_embeds, time_ids }),
        _ => None,
    };
    Ok(UnetInputs {
        class_labels: reference.optional("class_labels"),
        added,
        ..UnetInputs::new(
            reference.input("sample")?,
            reference.input("timestep")?,
            reference.input("encoder_hidden_states")?,
        )
    })
}

fn unet(folder: &Folder, reference: &mut Reference<'_>) -> Result<()> {
    let unet = network(folder, "unet", &Device::Cpu, Unet::new)?;
    let residuals = reference.list("down_residuals.")?;
    let prediction = unet.predict(&UnetInputs {
        down_residuals: &residuals,
        mid_residual: reference.optional("mid_residual"),
        ..inputs(reference)?
    })?;
    reference.check("noise_pred", &prediction)
}

fn control(folder: &Folder, reference: &mut Reference<'_>) -> Result<()> {
    let net = network(folder, "controlnet", &Device::Cpu, ControlNet::new)?;
    let picture = reference.input("controlnet_cond")?;
    let residuals = net.forward(&inputs(reference)?, picture, 1.0, false)?;
    for (i, down) in residuals.down.iter().enumerate() {
        reference.check(&format!("control.down.{i}"), down)?;
    }
    reference.check("control.mid", &residuals.mid)
}

fn vae(folder: &Folder, reference: &mut Reference<'_>) -> Result<()> {
    let vae = network(folder, "vae", &Device::Cpu, Autoencoder::new)?;
    if reference.optional("latent_mean").is_some() {
        let mean = vae.encode_unscaled(reference.input("image")?)?;
        reference.check("latent_mean", &mean)?;
    }
    if reference.optional("decoded").is_some() {
        let decoded = vae.decode_unscaled(reference.input("latent")?)?;
        reference.check("decoded", &decoded)?;
    }
    if reference.optional("grad_image").is_some() {
        let image = Var::from_tensor(reference.input("image")?)?;
        let mean = vae.encode_unscaled(image.as_tensor())?;
        let grads = (mean * reference.input("grad_latent")?)?.sum_all()?.backward()?;
        let grad = grads.get(image.as_tensor());
        let grad = grad.ok_or_else(|| Error::Failed("the encoder passes no gradient".into()))?;
        reference.check("grad_image", grad)?;
    }
    Ok(())
}
