//! One-shot tuning to a clip (`ControlVideo`, Zhao et al. 2023): every frame looks at the key frame, and every
//! self-attention of the U-Net gets an attention over time and a tuned output projection.
//!
//! Both sit before the attention's frozen output projection W: out = W(a + O a + Z T(q, k, v)), with a the
//! attended values, T attention along time with the self-attention's own queries, keys and values (which
//! is the temporal attention initialised from it), and O, Z square matrices that start at zero: nothing
//! changes before the first step. W O is any change of the output projection as long as W is invertible.

mod train;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use sha2::{Digest, Sha256};

use super::attention::lock;
use super::store::Store;
use crate::prior::Prior;
use crate::prior::tensor_file::{read_safetensors, write_safetensors};
use crate::prior::unet::UnetInputs;
use crate::prior::unet::attention::{AttentionHook, Call, Site};
use crate::{Error, Result};

#[cfg(test)]
pub(super) use train::Clip;
pub use train::{TuneConfig, tune};

/// The mark of a complete set in a store.
const KEPT: &str = "tuned/complete";
/// Kinds of matrices at a place.
const KINDS: [&str; 2] = ["out", "temporal"];

/// The tuned matrices of a U-Net.
pub struct Tuned {
    /// `PLACE.out` and `PLACE.temporal`, `[C, C]`.
    vars: BTreeMap<String, Var>,
}

impl Tuned {
    /// Zero matrices at every self-attention of the prior's U-Net.
    ///
    /// # Errors
    /// Tensor errors of the device.
    pub fn fresh(prior: &Prior) -> Result<Self> {
        let mut vars = BTreeMap::new();
        for (name, channels) in places(prior)? {
            for kind in KINDS {
                let zeros = Tensor::zeros((channels, channels), DType::F32, &prior.device)?;
                vars.insert(format!("{name}.{kind}"), Var::from_tensor(&zeros)?);
            }
        }
        Ok(Self { vars })
    }

    /// Reads what [`Tuned::save`] wrote.
    ///
    /// # Errors
    /// [`Error::File`] if it is damaged or belongs to another U-Net.
    pub fn load(path: &Path, prior: &Prior) -> Result<Self> {
        let fresh = Self::fresh(prior)?;
        let mut tensors = read_safetensors(path)?;
        for (name, var) in &fresh.vars {
            let fits = tensors.remove(name).filter(|t| t.dims() == var.dims());
            let Some(tensor) = fits else {
                return Err(Error::file(path, format!("does not fit the prior: {name}"))
                    .hint("it was tuned on another model"));
            };
            var.set(&tensor.to_device(&prior.device)?)?;
        }
        match tensors.keys().min() {
            Some(stray) => Err(Error::file(path, format!("has an unexpected tensor {stray}"))),
            None => Ok(fresh),
        }
    }

    /// Writes the matrices.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let tensors =
            self.vars.iter().map(|(name, var)| Ok((name.clone(), var.as_tensor().to_device(&Device::Cpu)?)));
        write_safetensors(path, &tensors.collect::<Result<_>>()?)
    }

    /// What [`Tuned::keep`] kept, if it came to its end.
    pub(super) fn kept(store: &dyn Store, prior: &Prior) -> Result<Option<Self>> {
        if !store.has(KEPT) {
            return Ok(None);
        }
        let tuned = Self::fresh(prior)?;
        for (name, var) in &tuned.vars {
            var.set(&store.get(&format!("tuned/{name}"))?.to_device(&prior.device)?)?;
        }
        Ok(Some(tuned))
    }

    /// Keeps the matrices in a store, a mark last.
    pub(super) fn keep(&self, store: &dyn Store) -> Result<()> {
        for (name, var) in &self.vars {
            store.put(&format!("tuned/{name}"), var.as_tensor())?;
        }
        store.put(KEPT, &Tensor::new(1f32, &Device::Cpu)?)
    }

    /// The matrices by name.
    pub fn vars(&self) -> &BTreeMap<String, Var> {
        &self.vars
    }

    /// SHA-256 of all matrices.
    pub(super) fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for (name, var) in &self.vars {
            hash.update(name.as_bytes());
            hash.update(bytemuck::cast_slice::<f32, u8>(&var.flatten_all()?.to_vec1::<f32>()?));
        }
        Ok(format!("{:x}", hash.finalize()))
    }

    /// a + O a + Z T for `attended` a `[F, N, C]` of `call`, whose rows are frames in the order of time.
    pub(super) fn apply(&self, site: &Site, call: &Call<'_>, attended: &Tensor) -> Result<Tensor> {
        let matrix = |kind: &str| self.vars.get(&format!("{}.{kind}", site.name)).map(Var::as_tensor);
        let (Some(out), Some(temporal)) = (matrix("out"), matrix("temporal")) else {
            return Ok(attended.clone());
        };
        let (f, n, c) = attended.dims3()?;
        let through = |x: &Tensor, w: &Tensor| -> Result<Tensor> {
            Ok(x.reshape((f * n, c))?.matmul(&w.t()?.contiguous()?)?.reshape((f, n, c))?)
        };
        let along = |t: &Tensor| t.transpose(0, 1)?.contiguous();
        let (q, k, v) = (along(call.q)?, along(call.k)?, along(call.v)?);
        let time = Call { q: &q, k: &k, v: &v, ..*call }.attend()?;
        let time = time.transpose(0, 1)?.contiguous()?;
        Ok(((attended + through(attended, out)?)? + through(&time, temporal)?)?)
    }
}

/// Name and channels of every self-attention of the U-Net.
fn places(prior: &Prior) -> Result<Vec<(String, usize)>> {
    #[derive(Default)]
    struct Seen(std::sync::Mutex<Vec<(String, usize)>>);
    impl AttentionHook for Seen {
        fn attend(&self, site: &Site, call: Call<'_>) -> Result<Tensor> {
            if !site.cross {
                lock(&self.0).push((site.name.clone(), call.q.dim(2)?));
            }
            call.attend()
        }
    }
    let (seen, device, c) = (Seen::default(), &prior.device, &prior.unet.config);
    let side = 1 << c.block_out_channels.len();
    let z = Tensor::zeros((1, c.latent_channels(), side, side), DType::F32, device)?;
    let text = prior.encode_texts(&[""])?.remove(0);
    if text.pooled.is_some() {
        return Err(Error::invalid("prior", "tuning is not made for models of the XL kind"));
    }
    let cameras = super::CameraConfig::default().embeddings(prior, &[0], 1)?;
    let rays = prior.unet.with_rays(&z, cameras.as_ref())?;
    let (z, time) = (rays.unwrap_or(z), Tensor::new(&[1f32], device)?);
    prior.unet.predict(&UnetInputs {
        class_labels: cameras.as_ref(),
        hook: Some(&seen),
        ..UnetInputs::new(&z, &time, &text.context)
    })?;
    Ok(seen.0.into_inner().expect("no panic while held"))
}
