//! Named tensors of a model: loaded from safetensors, or freshly initialised for training.
//!
//! A network asks its [`Weights`] for every tensor by diffusers' name and by shape. Whatever is
//! missing, misshapen or left over is collected, so that a wrong file is reported whole and once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor, Var};

use crate::error::{Error, Result};
use crate::rng::{Rng, Stream};

/// How a fresh tensor starts.
#[derive(Debug, Clone, Copy)]
pub enum Init {
    /// Uniform in ±1/√fan_in (PyTorch's default for convolutions and linear layers).
    Uniform(usize),
    /// Normal with this standard deviation.
    Normal(f32),
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// All of this value.
    Constant(f32),
}

/// A low-rank addition to one linear layer.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// D `[rank, in]`.
    pub down: Tensor,
    /// U `[out, rank]`.
    pub up: Tensor,
    /// s, which is alpha / rank times the user's weight.
    pub scale: f64,
}

/// Adapters by the name of the layer they belong to.
pub type Adapters = HashMap<String, Vec<Adapter>>;

/// The tensors of one model, shared by all its [`Weights`] views.
pub struct Store {
    loaded: Option<HashMap<String, Tensor>>,
    adapters: Adapters,
    seed: u64,
    trainable: bool,
    /// Fresh weights (not biases) that should start at zero do not.
    busy: bool,
    dtype: DType,
    device: Device,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    vars: BTreeMap<String, Var>,
    used: BTreeMap<String, Vec<usize>>,
    adapted: BTreeSet<String>,
    /// What a frozen store gave out; handles, not copies.
    given: HashMap<String, Tensor>,
    faults: Vec<String>,
}

impl Store {
    /// Fresh trainable f32 tensors, initialised from `seed` and each tensor's name.
    pub fn fresh(seed: u64, device: &Device) -> Self {
        Self::new(None, seed, true, DType::F32, device)
    }

    /// Fresh weights that should start at zero, as the last layer of a network to be trained, are random like the
    /// others: an untrained network whose answer depends on everything in it.
    #[must_use]
    pub fn without_zeros(mut self) -> Self {
        self.busy = true;
        self
    }

    /// Tensors given by name, converted to `dtype`; variables if `trainable`, else frozen.
    pub fn loaded(tensors: HashMap<String, Tensor>, dtype: DType, trainable: bool, device: &Device) -> Self {
        Self::new(Some(tensors), 0, trainable, dtype, device)
    }

    fn new(
        loaded: Option<HashMap<String, Tensor>>,
        seed: u64,
        trainable: bool,
        dtype: DType,
        device: &Device,
    ) -> Self {
        let (device, state) = (device.clone(), Mutex::default());
        Self { loaded, adapters: Adapters::new(), seed, trainable, busy: false, dtype, device, state }
    }

    /// The same tensors with low-rank adapters: networks built from now on apply them.
    #[must_use]
    pub fn with_adapters(mut self, adapters: Adapters) -> Self {
        self.adapters = adapters;
        self
    }

    /// The view of all tensors, from which a network takes its own.
    pub fn root(&self) -> Weights<'_> {
        Weights { store: self, prefix: String::new() }
    }

    /// The variables handed out so far (empty for frozen stores), by name.
    pub fn vars(&self) -> BTreeMap<String, Var> {
        self.state.lock().expect("no panic while held").vars.clone()
    }

    /// The frozen tensors handed out so far, by name, as they are used (the same memory).
    pub fn given(&self) -> HashMap<String, Tensor> {
        self.state.lock().expect("no panic while held").given.clone()
    }

    /// Names and shapes of the tensors that were asked for so far.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.state.lock().expect("no panic while held").used.clone()
    }

    /// Checks that nothing was missing, misshapen or unused in `file`.
    ///
    /// # Errors
    /// [`Error::File`] that lists all faults. Keys for which `ignore` holds may be left over.
    pub fn finish(&self, file: &Path, ignore: impl Fn(&str) -> bool) -> Result<()> {
        let state = self.state.lock().expect("no panic while held");
        let mut faults = state.faults.clone();
        let strays = self.adapters.keys().filter(|k| !state.adapted.contains(*k));
        faults.extend(strays.map(|k| format!("adapter of an unknown layer {k}")));
        if let Some(loaded) = &self.loaded {
            let mut rest: Vec<_> =
                loaded.keys().filter(|k| !state.used.contains_key(*k) && !ignore(k)).collect();
            rest.sort();
            faults.extend(rest.iter().map(|k| format!("unexpected tensor {k}")));
        }
        if faults.is_empty() {
            return Ok(());
        }
        let shown = faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n  ");
        let more =
            if faults.len() > 20 { format!("\n  … and {} more", faults.len() - 20) } else { String::new() };
        Err(Error::file(file, format!("does not fit its config:\n  {shown}{more}"))
            .hint("the weights belong to another model, or the download is incomplete"))
    }

    fn fetch(&self, name: String, shape: &[usize], init: Init) -> Result<Tensor> {
        let tensor = match &self.loaded {
            None => self.initial(&name, shape, init)?,
            Some(map) => match map.get(&name) {
                Some(t) if t.dims() == shape => t.to_device(&self.device)?.to_dtype(self.dtype)?,
                Some(t) => {
                    self.fault(format!("{name} has shape {:?}, expected {shape:?}", t.dims()));
                    self.initial(&name, shape, Init::Zeros)?
                }
                None => {
                    self.fault(format!("missing tensor {name} {shape:?}"));
                    self.initial(&name, shape, Init::Zeros)?
                }
            },
        };
        let mut state = self.state.lock().expect("no panic while held");
        state.used.insert(name.clone(), shape.to_vec());
        if !self.trainable {
            state.given.insert(name, tensor.clone());
            return Ok(tensor);
        }
        let var = Var::from_tensor(&tensor)?;
        let tensor = var.as_tensor().clone();
        state.vars.insert(name, var);
        Ok(tensor)
    }

    fn fault(&self, text: String) {
        self.state.lock().expect("no panic while held").faults.push(text);
    }

    fn initial(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        let n: usize = shape.iter().product();
        // FNV-1a of the name: each tensor has its own sequence, whatever the order of asking.
        let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        let rng = Rng::new(self.seed, Stream::Init, hash);
        let fan_in = shape.iter().skip(1).product();
        let init = match init {
            Init::Zeros if self.busy && shape.len() > 1 => Init::Uniform(fan_in),
            init => init,
        };
        let values: Vec<f32> = match init {
            Init::Zeros => vec![0.0; n],
            Init::Ones => vec![1.0; n],
            Init::Constant(value) => vec![value; n],
            Init::Normal(std) => rng.normals(0, n).iter().map(|v| v * std).collect(),
            Init::Uniform(fan_in) => {
                let bound = 1.0 / (fan_in.max(1) as f32).sqrt();
                (0..n as u64).map(|i| rng.range(i, -bound, bound)).collect()
            }
        };
        Ok(Tensor::from_vec(values, shape, &self.device)?.to_dtype(self.dtype)?)
    }
}

/// A view of a [`Store`] below a name prefix.
#[derive(Clone)]
pub struct Weights<'a> {
    store: &'a Store,
    prefix: String,
}

impl Weights<'_> {
    /// The view below `name` (a number is a name too).
    #[must_use]
    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        let prefix =
            if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        Self { store: self.store, prefix }
    }

    /// Where this view is, in diffusers' naming (`down_blocks.0.resnets.1`).
    pub fn path(&self) -> &str {
        &self.prefix
    }

    /// The adapters of the layer here; faults are collected for [`Store::finish`].
    ///
    /// # Errors
    /// Only if a tensor cannot be converted.
    pub fn adapters(&self, inputs: usize, outputs: usize) -> Result<Vec<Adapter>> {
        let Some(all) = self.store.adapters.get(&self.prefix) else { return Ok(Vec::new()) };
        self.store.state.lock().expect("no panic while held").adapted.insert(self.prefix.clone());
        let mut out = Vec::new();
        for a in all {
            let (down, up) = (a.down.dims(), a.up.dims());
            if !matches!((down, up), ([r, i], [o, s]) if r == s && *i == inputs && *o == outputs) {
                let name = &self.prefix;
                self.store.fault(format!(
                    "adapter of {name}: {down:?} and {up:?} do not fit {inputs} inputs and {outputs} outputs"
                ));
                continue;
            }
            out.push(a.clone());
        }
        Ok(out)
    }

    /// The tensor `name` of `shape`; faults are collected for [`Store::finish`].
    ///
    /// # Errors
    /// Only if the tensor cannot be converted or allocated.
    pub fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.store.fetch(format!("{}.{name}", self.prefix), shape, init)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrained_weights_are_random_where_training_would_begin_at_zero() {
        let first = |store: Store, shape: &[usize]| {
            let t = store.root().get("w", shape, Init::Zeros).unwrap();
            t.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let fresh = || Store::fresh(1, &Device::Cpu);
        assert_eq!(first(fresh(), &[2, 3]), [0.0; 6]);
        let busy = first(fresh().without_zeros(), &[2, 3]);
        // Bounded by the inputs, as any other weight.
        assert!(busy.iter().all(|w| *w != 0.0 && w.abs() <= 1.0 / 3f32.sqrt()), "{busy:?}");
        assert_eq!(first(fresh().without_zeros(), &[4]), [0.0; 4]);
    }
}
