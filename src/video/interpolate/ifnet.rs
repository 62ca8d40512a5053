//! `IFNet` of RIFE v4.0 (Huang et al., ECCV 2022), of any size: frames between two frames, at any time.
//!
//! Blocks, from the coarsest scale to the whole picture, each refine two flows (from the wanted time to
//! either frame) and the logit of how much of each is taken:
//! `out = warp(I₀)·σ(m) + warp(I₁)·(1 − σ(m))`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Result as Candle, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::block::Block;
use super::start::start;
use crate::prior::nn::warp;
use crate::prior::tensor_file::{parse_safetensors, read_safetensors};
use crate::prior::weights::{Init, Store};
use crate::{Error, Result};

/// A flow beyond this many pixels both ways after the second block starts over at half the size.
const LARGE: f32 = 32.0;
/// Inputs of a block that refines: both frames moved, the time, the mask and the flows; and of one that
/// begins: both frames and the time.
const REFINED: usize = 12;
const BEGUN: usize = 7;
/// Layers and blocks beyond these are no network of this kind.
const MOST: usize = 64;

/// The embedded weights.
static OWN: &[u8] = include_bytes!("../../../models/interpolate/model.safetensors");

/// The size of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IfNetConfig {
    /// Channels of each block; the last works at full size, each before it at half of the next one's.
    pub channels: Vec<usize>,
    /// Convolutions between a block's ends.
    pub depth: usize,
    /// The first block refines a flow that was found without learning, as the others refine its own; it is
    /// then a small network's whole work to mend that.
    #[serde(default)]
    pub from_flow: bool,
}

impl IfNetConfig {
    /// RIFE v4.0's.
    pub fn v4() -> Self {
        Self { channels: vec![192, 128, 96, 64], depth: 8, from_flow: false }
    }

    /// What `tensors` (by PyTorch's names) are of; v4.0's where they do not tell.
    fn of(tensors: &HashMap<String, Tensor>) -> Self {
        let find = |name: String| tensors.get(&format!("module.{name}")).or_else(|| tensors.get(&name));
        let channels: Vec<usize> = (0..MOST)
            .map_while(|i| find(format!("block{i}.lastconv.weight"))?.dims().first().copied())
            .collect();
        let layer = |k: &usize| find(format!("block0.convblock.{k}.0.weight")).is_some();
        let depth = (0..MOST).take_while(layer).count();
        let first = find("block0.conv0.0.0.weight".into()).and_then(|t| t.dims().get(1).copied());
        let from_flow = first == Some(REFINED);
        if channels.is_empty() || depth == 0 { Self::v4() } else { Self { channels, depth, from_flow } }
    }

    /// The scale at which block `i` works.
    fn scale(&self, i: usize) -> usize {
        1 << (self.channels.len() - 1 - i)
    }
}

/// The network.
pub struct IfNet {
    blocks: Vec<Block>,
    /// Its size.
    pub config: IfNetConfig,
    digest: String,
}

/// What is known after a block.
struct Guess {
    flow: Tensor,
    mask: Tensor,
    /// Both frames, moved.
    moved: [Tensor; 2],
}

impl Guess {
    fn frame(&self) -> Candle<Tensor> {
        let [a, b] = &self.moved;
        // σ(m) = (1 + tanh(m/2))/2
        let share = ((&self.mask / 2.0)?.tanh()? + 1.0)?.affine(0.5, 0.0)?;
        b.add(&(a - b)?.broadcast_mul(&share)?)
    }
}

impl IfNet {
    /// The network that comes with the program.
    ///
    /// # Errors
    /// [`Error::File`] if the program was built with other weights than its code knows.
    pub fn own() -> Result<Self> {
        let path = Path::new("models/interpolate/model.safetensors");
        Self::new(&parse_safetensors(OWN, path)?).map_err(|e| Error::file(path, e.to_string()))
    }

    /// From `.safetensors`, or from PyTorch's `flownet.pkl` (a zip of tensors and a pickle that names
    /// them, of which only names, shapes and offsets are read; nothing in it is run).
    ///
    /// # Errors
    /// [`Error::File`] for other files, missing tensors or wrong shapes.
    pub fn load(path: &Path) -> Result<Self> {
        let safe = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"));
        let tensors: HashMap<String, Tensor> = if safe {
            read_safetensors(path)?
        } else {
            std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
            let all = candle_core::pickle::read_all(path).map_err(|e| {
                Error::file(path, format!("is neither .safetensors nor a zip of PyTorch tensors: {e}"))
            })?;
            all.into_iter().collect()
        };
        Self::new(&tensors).map_err(|e| {
            Error::file(path, e.to_string())
                .hint("RIFE v4.0's flownet.pkl fits, and what `gen3d train interpolate` writes")
        })
    }

    /// From tensors by PyTorch's names, with or without `module.` before them.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the tensor that is missing or has another shape.
    pub fn new(tensors: &HashMap<String, Tensor>) -> Result<Self> {
        let net = Self::build(IfNetConfig::of(tensors), |name, shape, _| {
            let found = tensors.get(&format!("module.{name}")).or_else(|| tensors.get(&name));
            let tensor = found.ok_or_else(|| Error::invalid(&name, "the tensor is missing"))?;
            if tensor.dims() != shape {
                return Err(Error::invalid(&name, format!("has shape {:?}, not {shape:?}", tensor.dims())));
            }
            Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?)
        })?;
        Ok(Self { digest: digest(tensors)?, ..net })
    }

    /// SHA-256 of the weights, hexadecimal; empty of a fresh network.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// A network to train, its variables from `store`.
    ///
    /// # Errors
    /// Tensor errors of the device.
    pub(crate) fn fresh(config: IfNetConfig, store: &Store) -> Result<Self> {
        Self::build(config, |name, shape, init| {
            let (block, rest) = name.split_once('.').unwrap_or((&name, ""));
            store.root().pp(block).get(rest, shape, init)
        })
    }

    fn build(
        config: IfNetConfig,
        mut get: impl FnMut(String, &[usize], Init) -> Result<Tensor>,
    ) -> Result<Self> {
        let mut block = |i: usize, &c: &usize| {
            let inputs = if i == 0 && !config.from_flow { BEGUN } else { REFINED };
            let mut own = |name: &str, shape: &[usize], init| get(format!("block{i}.{name}"), shape, init);
            Block::new(inputs, c, config.depth, &mut own)
        };
        let blocks = config.channels.iter().enumerate().map(|(i, c)| block(i, c)).collect::<Result<_>>()?;
        Ok(Self { blocks, config, digest: String::new() })
    }

    /// Sides of its pictures are multiples of this: the coarsest scale of a second start and two strides.
    pub(super) fn multiple(&self) -> usize {
        8 * self.config.scale(0)
    }

    /// The frames at `times` (0 … 1) between pairs of frames `[B, 3, H, W]` in 0 … 1, sides multiples of
    /// [`Self::multiple`].
    pub(super) fn between(&self, a: &Tensor, b: &Tensor, times: &[f64]) -> Result<Tensor> {
        let guesses = self.guesses(a, b, times, 1, true)?;
        let last = guesses.last().ok_or_else(|| Error::Failed("a network without blocks".into()))?;
        Ok(last.frame()?)
    }

    /// [`Self::between`] of frames of any size.
    ///
    /// # Errors
    /// Tensor errors of the device.
    pub(crate) fn between_padded(&self, a: &Tensor, b: &Tensor, times: &[f64]) -> Result<Tensor> {
        let (_, _, h, w) = a.dims4()?;
        let (down, right) =
            (h.next_multiple_of(self.multiple()) - h, w.next_multiple_of(self.multiple()) - w);
        // Zeros, as v4.0 is used; a flow that is found needs the picture to go on.
        let pad = |x: &Tensor| match self.config.from_flow {
            true => x.pad_with_same(2, 0, down)?.pad_with_same(3, 0, right),
            false => x.pad_with_zeros(2, 0, down)?.pad_with_zeros(3, 0, right),
        };
        let out = self.between(&pad(a)?, &pad(b)?, times)?;
        Ok(out.narrow(2, 0, h)?.narrow(3, 0, w)?.contiguous()?)
    }

    /// The frames after each of the blocks, on the tape.
    pub(crate) fn stages(&self, a: &Tensor, b: &Tensor, times: &[f64]) -> Result<Vec<Tensor>> {
        self.guesses(a, b, times, 1, false)?.iter().map(|g| Ok(g.frame()?)).collect()
    }

    /// What is known after each block, its scale times `wider`; `restart` begins anew at half the size if
    /// the second block finds a large motion.
    fn guesses(
        &self,
        a: &Tensor,
        b: &Tensor,
        times: &[f64],
        wider: usize,
        restart: bool,
    ) -> Result<Vec<Guess>> {
        let (n, _, h, w) = a.dims4()?;
        let t: Vec<f32> = times.iter().map(|t| *t as f32).collect();
        let t = Tensor::from_vec(t, (n, 1, 1, 1), a.device())?.broadcast_as((n, 1, h, w))?.contiguous()?;
        let guess = |flow: Tensor, mask: Tensor| -> Result<Guess> {
            let moved = [warp(a, &flow.narrow(1, 0, 2)?)?, warp(b, &flow.narrow(1, 2, 2)?)?];
            Ok(Guess { flow, mask, moved })
        };
        let mut first = None;
        if self.config.from_flow {
            let (flow, mask) = start(&a.detach(), &b.detach(), times)?;
            first = Some(guess(flow, mask)?);
        }
        let mut all: Vec<Guess> = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            let at = wider * self.config.scale(i);
            let (flow, mask) = match all.last().or(first.as_ref()) {
                None => block.forward(&Tensor::cat(&[a, b, &t], 1)?, None, at)?,
                Some(Guess { flow, mask, moved: [ma, mb] }) => {
                    let x = Tensor::cat(&[ma, mb, &t, mask], 1)?;
                    let (df, dm) = block.forward(&x, Some(flow), at)?;
                    if i == 1 && restart && first.is_none() && large(&df)? {
                        return self.guesses(a, b, times, 2 * wider, false);
                    }
                    ((flow + df)?, (mask + dm)?)
                }
            };
            all.push(guess(flow, mask)?);
        }
        Ok(all)
    }
}

fn digest(tensors: &HashMap<String, Tensor>) -> Result<String> {
    let mut names: Vec<&String> = tensors.keys().collect();
    names.sort();
    let mut hash = Sha256::new();
    for name in names {
        hash.update(name);
        let values = tensors[name].flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        values.to_vec1::<f32>()?.iter().for_each(|v| hash.update(v.to_le_bytes()));
    }
    Ok(format!("{:x}", hash.finalize()))
}

fn large(change: &Tensor) -> Candle<bool> {
    let most = |from| change.narrow(1, from, 2)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
    Ok(most(0)? > LARGE && most(2)? > LARGE)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    /// Weights of the given size from the counter's numbers.
    pub(in super::super) fn weights(size: f32) -> HashMap<String, Tensor> {
        let (mut all, mut index) = (HashMap::new(), 0u32);
        let mut put = |name: String, shape: &[usize], size: f32| {
            index += 1;
            let rng = Rng::new(11, Stream::Init, index);
            let n = shape.iter().product();
            let data = rng.normals(0, n).into_iter().map(|v| v * size).collect();
            all.insert(format!("module.{name}"), Tensor::from_vec(data, shape, &Device::Cpu).unwrap());
        };
        for (i, &c) in IfNetConfig::v4().channels.iter().enumerate() {
            let inputs = if i == 0 { 7 } else { 12 };
            let heads = [(inputs, c / 2), (c / 2, c)].into_iter().enumerate();
            let layers = heads
                .map(|(k, s)| (format!("conv0.{k}"), s))
                .chain((0..8).map(|k| (format!("convblock.{k}"), (c, c))));
            for (name, (from, to)) in layers {
                let fan = (from as f32 * 9.0).sqrt();
                put(format!("block{i}.{name}.0.weight"), &[to, from, 3, 3], size / fan);
                put(format!("block{i}.{name}.0.bias"), &[to], 0.1 * size);
                put(format!("block{i}.{name}.1.weight"), &[to], 0.25);
            }
            put(format!("block{i}.lastconv.weight"), &[c, 5, 4, 4], size / (c as f32 * 4.0).sqrt());
            put(format!("block{i}.lastconv.bias"), &[5], 0.1 * size);
        }
        all
    }

    fn picture(seed: u64) -> Tensor {
        let rng = Rng::new(seed, Stream::Probe, 3);
        let data: Vec<f32> = (0..3 * 64 * 64).map(|i| rng.uniform(i)).collect();
        Tensor::from_vec(data, (1, 3, 64, 64), &Device::Cpu).unwrap()
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn without_weights_the_frame_between_is_the_average() {
        let net = IfNet::new(&weights(0.0)).unwrap();
        let (a, b) = (picture(1), picture(2));
        let out = values(&net.between(&a, &b, &[0.3]).unwrap());
        for ((a, b), o) in values(&a).iter().zip(&values(&b)).zip(out) {
            assert!((0.5 * (a + b) - o).abs() < 1e-6);
        }
    }

    #[test]
    fn constant_frames_stay_constant_whatever_the_weights() {
        let net = IfNet::new(&weights(1.0)).unwrap();
        let constant =
            |v: f64| (Tensor::zeros((1, 3, 64, 64), DType::F32, &Device::Cpu).unwrap() + v).unwrap();
        assert!(
            values(&net.between(&constant(0.4), &constant(0.4), &[0.5]).unwrap())
                .iter()
                .all(|v| (v - 0.4).abs() < 1e-6)
        );
        // And with two frames, every value lies between theirs.
        let out = values(&net.between(&constant(0.2), &constant(0.8), &[0.5]).unwrap());
        assert!(out.iter().all(|v| (0.2 - 1e-6..=0.8 + 1e-6).contains(v)));
    }

    #[test]
    fn what_is_missing_or_misshapen_is_named() {
        let mut all = weights(0.0);
        let missing = all.remove("module.block2.convblock.3.0.bias").unwrap();
        assert!(IfNet::new(&all).err().unwrap().to_string().contains("block2.convblock.3.0.bias"));
        all.insert("block2.convblock.3.0.bias".into(), missing.narrow(0, 0, 5).unwrap());
        assert!(IfNet::new(&all).err().unwrap().to_string().contains("has shape [5], not [96]"));
        all.insert("block2.convblock.3.0.bias".into(), missing);
        assert!(IfNet::new(&all).is_ok(), "names without module. serve, too");
    }
}
