//! The networks of a prior at working sizes: one operation after the other, each on its own memory.

use std::time::{Duration, Instant};

use candle_core::{Device, Tensor, Var};

use crate::error::{Error, Result};
use crate::prior::files::Folder;
use crate::prior::lora::{Fresh, fresh, is_attention};
use crate::prior::nn::adam::{AdamConfig, AdamW};
use crate::prior::text::TextEncoder;
use crate::prior::unet::{Unet, UnetInputs};
use crate::prior::vae::Vae;
use crate::prior::weights::Store;
use crate::rng::{Rng, Stream};

/// What can be timed.
pub const OPERATIONS: [&str; 6] = ["text", "unet", "unet-2x32", "vae", "lora", "lora-recompute"];

/// Rank of the adapters of a LoRA step.
const RANK: usize = 4;

fn normal(shape: &[usize], key: u32) -> Result<Tensor> {
    let values = Rng::new(0, Stream::Probe, key).normals(0, shape.iter().product());
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// Times of `repeats` runs of one of [`OPERATIONS`] after one that is not counted:
///
/// - `text`: one text of the encoder's full length;
/// - `unet`: latents 1×4×64×64; `unet-2x32`: 2×4×32×32;
/// - `vae`: encoding a picture of 256×256 and the way back to its pixels;
/// - `lora`: loss, gradients and Adam step of adapters (rank 4, all attentions) for latents 1×4×64×64;
///   `lora-recompute`: the same with block recomputation.
///
/// # Errors
/// [`Error::Invalid`] for another operation; files that are missing or damaged.
pub fn times(folder: &Folder, operation: &str, repeats: usize) -> Result<Vec<Duration>> {
    match operation {
        "text" => text(folder, repeats),
        "unet" => unet(folder, (1, 64), repeats),
        "unet-2x32" => unet(folder, (2, 32), repeats),
        "vae" => vae(folder, repeats),
        "lora" => lora(folder, false, repeats),
        "lora-recompute" => lora(folder, true, repeats),
        _ => Err(Error::invalid("--operation", format!("{operation:?} ({})", OPERATIONS.join(", ")))),
    }
}

fn repeat(repeats: usize, mut work: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    work()?;
    (0..repeats)
        .map(|_| {
            let start = Instant::now();
            work()?;
            Ok(start.elapsed())
        })
        .collect()
}

fn text(folder: &Folder, repeats: usize) -> Result<Vec<Duration>> {
    let encoder = crate::prior::network(folder, "text_encoder", &Device::Cpu, TextEncoder::new)?;
    let length = encoder.config.max_position_embeddings;
    let ids: Vec<u32> = (0..length).map(|i| (i * 37 % encoder.config.vocab_size) as u32).collect();
    let ids = Tensor::from_vec(ids, (1, length), &Device::Cpu)?;
    repeat(repeats, || encoder.forward(&ids).map(drop))
}

fn vae(folder: &Folder, repeats: usize) -> Result<Vec<Duration>> {
    let vae = crate::prior::network(folder, "vae", &Device::Cpu, Vae::new)?;
    let picture = Var::from_tensor(&normal(&[1, 3, 256, 256], 0)?)?;
    repeat(repeats, || {
        let z = vae.encode_mean(picture.as_tensor())?;
        z.sum_all()?.backward()?;
        Ok(())
    })
}

/// What a U-Net is given for `batch` latents of `side`×`side`.
struct Inputs {
    sample: Tensor,
    timestep: Tensor,
    context: Tensor,
    class: Option<Tensor>,
}

impl Inputs {
    fn new(unet: &Unet, batch: usize, side: usize) -> Result<Self> {
        let c = &unet.config;
        if c.addition_embed_type.as_deref() == Some("text_time") {
            return Err(Error::invalid("--prior", "SDXL is not timed: its U-Net takes more inputs"));
        }
        let class = c.projection_class_embeddings_input_dim.map(|n| normal(&[batch, n], 3)).transpose()?;
        Ok(Self {
            sample: normal(&[batch, c.in_channels, side, side], 1)?,
            timestep: Tensor::full(500f32, batch, &Device::Cpu)?,
            context: normal(&[batch, 77, c.cross_attention_dim], 2)?,
            class,
        })
    }

    fn all(&self) -> UnetInputs<'_> {
        UnetInputs {
            class_labels: self.class.as_ref(),
            ..UnetInputs::new(&self.sample, &self.timestep, &self.context)
        }
    }
}

fn unet(folder: &Folder, (batch, side): (usize, usize), repeats: usize) -> Result<Vec<Duration>> {
    let unet = crate::prior::network(folder, "unet", &Device::Cpu, Unet::new)?;
    let inputs = Inputs::new(&unet, batch, side)?;
    repeat(repeats, || unet.predict(&inputs.all()).map(drop))
}

fn lora(folder: &Folder, recompute: bool, repeats: usize) -> Result<Vec<Duration>> {
    let (tensors, path) = folder.tensors("unet")?;
    let Fresh { adapters, vars, .. } = fresh(&tensors, is_attention, RANK, RANK as f64, 0)?;
    let store = Store::loaded(tensors, candle_core::DType::F32, false, &Device::Cpu).with_adapters(adapters);
    let unet = Unet::new(folder.config("unet/config.json")?, &store.root())?;
    store.finish(&path, |_| false)?;
    drop(store);
    let inputs = Inputs::new(&unet, 1, 64)?;
    let target = normal(&[1, unet.config.out_channels, 64, 64], 4)?;
    let loss = |y: &Tensor| -> Result<Tensor> { Ok((y - &target)?.sqr()?.mean_all()?) };
    let mut adam = AdamW::new(vars, AdamConfig::default())?;
    repeat(repeats, || {
        if recompute {
            let got = unet.backward_recomputed(&inputs.all(), loss)?;
            adam.step_sum(&got.gradients.iter().collect::<Vec<_>>(), 1e-4)?;
        } else {
            adam.step(&loss(&unet.predict(&inputs.all())?)?.backward()?, 1e-4)?;
        }
        Ok(())
    })
}

/// The most memory this process has held so far, in bytes; nothing where the system does not tell.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
