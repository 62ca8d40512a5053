//! Training of the frame interpolator on rendered motion, and on clips where a folder of them is given.

mod backdrop;
pub mod config;
mod motion;
mod sequences;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::remember;
use super::run::{Course, Run, to_f16};
use crate::error::{Error, Result};
use crate::prior::nn::{self, adam::AdamW, scale};
use crate::prior::tensor_file::write_safetensors;
use crate::prior::weights::Store;
use crate::train::data::split::Split;
use crate::video::interpolate::IfNet;
use config::InterpolateTraining;
use motion::Cast;
use sequences::{Sequences, Triples};

/// Sequences, of looks that are not trained on, by which a run is judged.
const HELD_OUT: usize = 48;
/// Recipes among them.
const HELD_OUT_RECIPES: usize = 60;
/// The smallest difference the loss takes for one, so that its slope has no jump.
const SMALL: f64 = 1e-3;

/// Where a training takes its scenes from and puts its files.
pub struct Places {
    /// Folder of parametric recipes.
    pub props: PathBuf,
    /// Folder of clips to learn from, too.
    pub clips: Option<PathBuf>,
    /// Folder of checkpoints and logs; an earlier run there is continued.
    pub run: PathBuf,
    /// Folder that receives the weights.
    pub out: PathBuf,
}

/// Trains (or goes on training) an interpolator, and writes it to `places.out`.
///
/// # Errors
/// Bad config or data, a loss that is not finite, files that cannot be written, or [`Error::Interrupted`]
/// after a checkpoint.
pub fn train(
    config: &InterpolateTraining,
    places: &Places,
    progress: &mut dyn FnMut(&str, u32, u32, f64),
) -> Result<()> {
    config.check()?;
    std::fs::create_dir_all(&places.run).map_err(|e| Error::io(&places.run, e))?;
    remember(config, &places.run, |old| old.steps = config.steps)?;
    let data = drawn(config, places, progress)?;
    let judged = Cast::of(&places.props, Split::Objects, HELD_OUT_RECIPES)?;
    let judged = judged.sequences((0, HELD_OUT), config.size, config.seed ^ 1, |_| Ok(()))?;
    let (net, mut adam) = fresh(config)?;
    let mut run = Run { dir: places.run.clone(), device: Device::Cpu, progress };
    let course = Course {
        stage: "interpolate",
        name: "interpolate",
        checkpoint: "interpolate.train.safetensors",
        steps: config.steps,
        warmup: config.warmup,
        learning_rate: config.learning_rate,
        checkpoint_every: super::config::CHECKPOINT_EVERY,
        hint: "lower learning_rate",
    };
    let step = |step: u32| gradients(config, &net, &data, step);
    let log = Run { dir: places.run.clone(), device: Device::Cpu, progress: &mut |_, _, _, _| {} };
    run.optimise(&course, &mut adam, &step, &|adam, done| {
        let weights = averaged(adam)?;
        publish(&places.out, &weights)?;
        let [network, average] = score(&IfNet::new(&weights)?, &judged)?;
        log.log(&json!({"stage": "held out", "step": done, "psnr": network, "psnr_of_average": average}))
    })
}

/// The sequences to learn from.
fn drawn(
    config: &InterpolateTraining,
    places: &Places,
    progress: &mut dyn FnMut(&str, u32, u32, f64),
) -> Result<Sequences> {
    let mut data = Sequences::new(config.size);
    if config.sequences > 0 {
        let cast = Cast::of(&places.props, Split::Train, usize::MAX)?;
        data = cast.sequences((0, config.sequences), config.size, config.seed, |done| {
            progress("sequences", done as u32, config.sequences as u32, 0.0);
            let stop = super::run::STOP.load(std::sync::atomic::Ordering::Relaxed);
            if stop { Err(Error::Interrupted) } else { Ok(()) }
        })?;
    }
    if let Some(folder) = &places.clips {
        data.add_clips(folder, config.per_clip, config.seed)?;
    }
    sequences::check(&data).map(|()| data)
}

/// A network of fresh weights, and its optimiser.
fn fresh(config: &InterpolateTraining) -> Result<(IfNet, AdamW)> {
    let store = Store::fresh(config.seed, &Device::Cpu);
    let net = IfNet::fresh(config.net.clone(), &store)?;
    let adam = super::run::adam(store.vars(), config.max_grad_norm, config.ema_decay)?;
    Ok((net, adam))
}

/// The loss of `step` and its gradients, in parts side by side.
fn gradients(
    config: &InterpolateTraining,
    net: &IfNet,
    data: &Sequences,
    step: u32,
) -> Result<(f64, Vec<GradStore>)> {
    let parts = config.parts.clamp(1, config.batch);
    let all = data.batch(config.seed, step, config.batch, config.crop)?;
    let part = |i: usize| -> Result<(f64, GradStore)> {
        let rows = i * config.batch / parts..(i + 1) * config.batch / parts;
        let share = rows.len() as f64 / config.batch as f64;
        let loss = (loss(net, &all.rows(rows)?, config.earlier)? * share)?;
        Ok((f64::from(loss.to_scalar::<f32>()?), loss.backward()?))
    };
    let (losses, gradients): (Vec<f64>, _) = nn::in_parts(parts, part)?.into_iter().unzip();
    Ok((losses.iter().sum(), gradients))
}

/// The difference of every block's frame from the true one, in a Laplacian pyramid; each block counts
/// `earlier` times the next.
fn loss(net: &IfNet, batch: &Triples, earlier: f64) -> Result<Tensor> {
    let stages = net.stages(&batch.ends[0], &batch.ends[1], &batch.times)?;
    let mut sum = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    for (i, frame) in stages.iter().rev().enumerate() {
        let one = laplacian(&(frame - &batch.middle)?)?;
        sum = (sum + (one * earlier.powi(i as i32))?)?;
    }
    Ok(sum)
}

/// Σ 2ˡ·mean √(dₗ² + ε²) over the levels of the Laplacian pyramid of `x` `[B, C, H, W]` (Niklaus and Liu
/// 2018), plus its last, smallest picture.
fn laplacian(x: &Tensor) -> Result<Tensor> {
    let smooth = |d: &Tensor| -> Result<Tensor> { Ok((d.sqr()? + SMALL * SMALL)?.sqrt()?.mean_all()?) };
    let (mut x, mut weight) = (x.clone(), 1.0);
    let mut sum = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    loop {
        let (_, _, h, w) = x.dims4()?;
        if h.min(w) < 8 || h % 2 + w % 2 > 0 {
            return Ok((sum + (smooth(&x)? * weight)?)?);
        }
        let half = scale(&x, h / 2, w / 2)?;
        sum = (sum + (smooth(&(&x - scale(&half, h, w)?)?)? * weight)?)?;
        (x, weight) = (half, 2.0 * weight);
    }
}

impl Triples {
    fn rows(&self, rows: std::ops::Range<usize>) -> Result<Self> {
        let cut = |x: &Tensor| x.narrow(0, rows.start, rows.len())?.contiguous();
        Ok(Self {
            ends: [cut(&self.ends[0])?, cut(&self.ends[1])?],
            middle: cut(&self.middle)?,
            times: self.times[rows].to_vec(),
        })
    }
}

/// Mean PSNR (dB, of each frame) of the middle frames: the network's, and the average of the two others.
fn score(net: &IfNet, data: &Sequences) -> Result<[f64; 2]> {
    let mut sums = [0.0; 2];
    for i in 0..data.len() {
        let Triples { ends: [a, b], middle, times } = data.whole(i, i + 1)?;
        let ours = net.between_padded(&a, &b, &times)?;
        let average = ((&a + &b)? * 0.5)?;
        for (sum, frame) in sums.iter_mut().zip([ours, average]) {
            let error = (frame - &middle)?.sqr()?.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            *sum += -10.0 * error.max(1e-10).log10();
        }
    }
    Ok(sums.map(|s| s / data.len().max(1) as f64))
}

fn averaged(adam: &AdamW) -> Result<HashMap<String, Tensor>> {
    to_f16(&adam.averaged()?.into_iter().collect())
}

/// Writes the weights, f16.
fn publish(out: &Path, weights: &HashMap<String, Tensor>) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    write_safetensors(&out.join("model.safetensors"), weights)
}
