//! IFNet of RIFE v4.0 (Huang et al., ECCV 2022): frames between two frames, at any time.
//!
//! Four blocks, from an eighth of the size to the whole, each refine two flows (from the wanted time to
//! either frame) and the logit of how much of each is taken:
//! `out = warp(I₀)·σ(m) + warp(I₁)·(1 − σ(m))`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::warp::{scale, warp};
use crate::prior::nn::{Padding, conv2d};
use crate::prior::tensor_file::read_safetensors;
use crate::{Error, Result};

/// Channels of the blocks.
const CHANNELS: [usize; 4] = [192, 128, 96, 64];
/// Scales of the blocks.
const SCALES: [usize; 4] = [8, 4, 2, 1];
/// A flow beyond this many pixels both ways after the second block starts over at half the size.
const LARGE: f32 = 32.0;
/// Sides are padded to multiples of this: the coarsest scale of that second start and two strides.
pub(super) const MULTIPLE: usize = 64;

/// A convolution and the slopes of the PReLU after it.
struct Layer {
    weight: Tensor,
    bias: Tensor,
    slope: Tensor,
    stride: usize,
}

impl Layer {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = conv2d(x, &self.weight, Some(&self.bias), self.stride, Padding::Same(1))?;
        // max(y, 0) + a min(y, 0)
        y.relu()?.sub(&y.neg()?.relu()?.broadcast_mul(&self.slope)?)
    }
}

struct Block {
    head: [Layer; 2],
    body: Vec<Layer>,
    last: (Tensor, Tensor),
}

impl Block {
    /// Change of the flows `[1, 4, H, W]` and of the mask's logit `[1, 1, H, W]`.
    fn forward(&self, x: &Tensor, flow: Option<&Tensor>, at: usize) -> candle_core::Result<(Tensor, Tensor)> {
        let (_, _, h, w) = x.dims4()?;
        let mut x = scale(x, h / at, w / at)?;
        if let Some(flow) = flow {
            let flow = (scale(flow, h / at, w / at)? / at as f64)?;
            x = Tensor::cat(&[x, flow], 1)?;
        }
        let features = self.head[1].forward(&self.head[0].forward(&x)?)?;
        let mut y = features.clone();
        for layer in &self.body {
            y = layer.forward(&y)?;
        }
        let y = (y + features)?;
        let y = y.conv_transpose2d(&self.last.0, 1, 0, 2, 1)?.broadcast_add(&self.last.1)?;
        let y = scale(&y, h, w)?;
        Ok(((y.narrow(1, 0, 4)? * (2 * at) as f64)?, y.narrow(1, 4, 1)?))
    }
}

/// The network.
pub struct IfNet {
    blocks: Vec<Block>,
}

impl IfNet {
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
        Self::new(&tensors)
            .map_err(|e| Error::file(path, e.to_string()).hint("RIFE v4.0's flownet.pkl is what fits"))
    }

    /// From tensors by PyTorch's names, with or without `module.` before them.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the tensor that is missing or has another shape.
    pub fn new(tensors: &HashMap<String, Tensor>) -> Result<Self> {
        let get = |name: String, shape: &[usize]| -> Result<Tensor> {
            let found = tensors.get(&format!("module.{name}")).or_else(|| tensors.get(&name));
            let tensor = found.ok_or_else(|| Error::invalid(&name, "the tensor is missing"))?;
            if tensor.dims() != shape {
                return Err(Error::invalid(&name, format!("has shape {:?}, not {shape:?}", tensor.dims())));
            }
            Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?)
        };
        let layer = |name: String, from: usize, to: usize, stride: usize| -> Result<Layer> {
            Ok(Layer {
                weight: get(format!("{name}.0.weight"), &[to, from, 3, 3])?,
                bias: get(format!("{name}.0.bias"), &[to])?,
                slope: get(format!("{name}.1.weight"), &[to])?.reshape((1, to, 1, 1))?,
                stride,
            })
        };
        let block = |i: usize| -> Result<Block> {
            let (c, inputs) = (CHANNELS[i], if i == 0 { 7 } else { 12 });
            let name = format!("block{i}");
            let body =
                (0..8).map(|k| layer(format!("{name}.convblock.{k}"), c, c, 1)).collect::<Result<_>>()?;
            Ok(Block {
                head: [
                    layer(format!("{name}.conv0.0"), inputs, c / 2, 2)?,
                    layer(format!("{name}.conv0.1"), c / 2, c, 2)?,
                ],
                body,
                last: (
                    get(format!("{name}.lastconv.weight"), &[c, 5, 4, 4])?,
                    get(format!("{name}.lastconv.bias"), &[5])?.reshape((1, 5, 1, 1))?,
                ),
            })
        };
        Ok(Self { blocks: (0..4).map(block).collect::<Result<_>>()? })
    }

    /// The frame at `time` (0 … 1) between two frames `[1, 3, H, W]` in 0 … 1, sides multiples of
    /// [`MULTIPLE`].
    pub(super) fn between(&self, a: &Tensor, b: &Tensor, time: f64) -> candle_core::Result<Tensor> {
        let (_, _, h, w) = a.dims4()?;
        let t = (Tensor::zeros((1, 1, h, w), DType::F32, &Device::Cpu)? + time)?;
        let mut scales = SCALES;
        let first = |at: usize| self.blocks[0].forward(&Tensor::cat(&[a, b, &t], 1)?, None, at);
        let (mut flow, mut mask) = first(scales[0])?;
        for i in 1..4 {
            let step = |flow: &Tensor, mask: &Tensor, at: usize| {
                let [wa, wb] = both(a, b, flow)?;
                self.blocks[i].forward(&Tensor::cat(&[&wa, &wb, &t, mask], 1)?, Some(flow), at)
            };
            let (mut df, mut dm) = step(&flow, &mask, scales[i])?;
            if i == 1 && large(&df)? {
                scales = scales.map(|s| 2 * s);
                (flow, mask) = first(scales[0])?;
                (df, dm) = step(&flow, &mask, scales[i])?;
            }
            (flow, mask) = ((flow + df)?, (mask + dm)?);
        }
        let [wa, wb] = both(a, b, &flow)?;
        // σ(m) = (1 + tanh(m/2))/2
        let share = ((mask / 2.0)?.tanh()? + 1.0)?.affine(0.5, 0.0)?;
        wb.add(&(wa - &wb)?.broadcast_mul(&share)?)
    }
}

fn both(a: &Tensor, b: &Tensor, flow: &Tensor) -> candle_core::Result<[Tensor; 2]> {
    Ok([warp(a, &flow.narrow(1, 0, 2)?)?, warp(b, &flow.narrow(1, 2, 2)?)?])
}

fn large(change: &Tensor) -> candle_core::Result<bool> {
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
        for (i, &c) in CHANNELS.iter().enumerate() {
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
        let out = values(&net.between(&a, &b, 0.3).unwrap());
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
            values(&net.between(&constant(0.4), &constant(0.4), 0.5).unwrap())
                .iter()
                .all(|v| (v - 0.4).abs() < 1e-6)
        );
        // And with two frames, every value lies between theirs.
        let out = values(&net.between(&constant(0.2), &constant(0.8), 0.5).unwrap());
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
