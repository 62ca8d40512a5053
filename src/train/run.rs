//! What both trainings share: the run's folder, its log, checkpoints, learning rate and interruption.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use serde_json::json;

use crate::error::{Error, Result};
use crate::prior::nn::adam::{AdamConfig, AdamW};

/// Set by Ctrl-C: the current step is finished, a checkpoint saved, and the run ends.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// A training run's folder and how it reports.
pub struct Run<'a> {
    /// Checkpoints, logs and sample sheets go here.
    pub dir: PathBuf,
    /// Where the networks are trained.
    pub device: Device,
    /// Told the stage, the step, the number of steps and the loss.
    pub progress: &'a mut dyn FnMut(&str, u32, u32, f64),
}

/// The course of a training.
pub(super) struct Course {
    /// In `metrics.jsonl`.
    pub(super) stage: &'static str,
    /// In the progress bar and in errors.
    pub(super) name: &'static str,
    /// The checkpoint's file.
    pub(super) checkpoint: &'static str,
    /// Optimiser steps, of which the first `warmup` rise to `learning_rate`.
    pub(super) steps: u32,
    pub(super) warmup: u32,
    pub(super) learning_rate: f64,
    /// Steps between two checkpoints.
    pub(super) checkpoint_every: u32,
    /// What to do if the loss is not finite.
    pub(super) hint: &'static str,
}

/// The loss of a step and its gradients, in parts.
type Gradients<'a> = dyn Fn(u32) -> Result<(f64, Vec<GradStore>)> + 'a;

impl Run<'_> {
    /// Takes a course's steps, going on from its checkpoint if there is one; `saved` is called after every
    /// checkpoint.
    ///
    /// # Errors
    /// If the loss is not finite, a file cannot be written, or the user asked to stop.
    pub(super) fn optimise(
        &mut self,
        course: &Course,
        adam: &mut AdamW,
        gradients: &Gradients<'_>,
        saved: &dyn Fn(&AdamW, u32) -> Result<()>,
    ) -> Result<()> {
        let first = self.restore(course.checkpoint, adam)?;
        let (mut sum, mut counted) = (0.0, 0u32);
        for step in first..course.steps {
            let (value, parts) = gradients(step)?;
            if !value.is_finite() {
                return Err(Error::Failed(format!("{}: the loss is {value} at step {step}", course.name))
                    .hint(course.hint));
            }
            let rate = learning_rate(step, course.steps, course.warmup, course.learning_rate);
            adam.step_sum(&parts.iter().collect::<Vec<_>>(), rate)?;
            (sum, counted) = (sum + value, counted + 1);
            (self.progress)(course.name, step + 1, course.steps, value);
            if (step + 1) % 50 == 0 {
                // After a resume the first mean is of fewer than 50 steps.
                let mean = sum / f64::from(counted);
                self.log(&json!({"stage": course.stage, "step": step + 1, "loss": mean, "lr": rate}))?;
                (sum, counted) = (0.0, 0);
            }
            let stopped = self.stopped();
            if stopped || (step + 1) % course.checkpoint_every == 0 || step + 1 == course.steps {
                self.save(course.checkpoint, adam, step + 1)?;
                saved(adam, step + 1)?;
            }
            if stopped {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }

    /// Appends a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn log(&self, line: &serde_json::Value) -> Result<()> {
        let path = self.dir.join("metrics.jsonl");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut f| writeln!(f, "{line}")).map_err(|e| Error::io(path, e))
    }

    /// True once the user asked to stop.
    pub fn stopped(&self) -> bool {
        STOP.load(Ordering::Relaxed)
    }

    /// Saves `optimizer` (weights, moments, averages) and the number of finished steps.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, name: &str, optimizer: &AdamW, step: u32) -> Result<()> {
        let mut tensors = optimizer.state()?;
        tensors.insert("step".into(), Tensor::new(&[step], &Device::Cpu)?);
        crate::prior::tensor_file::write_safetensors(&self.dir.join(name), &tensors)
    }

    /// Restores what [`Run::save`] wrote; 0 if there is no such file.
    ///
    /// # Errors
    /// If the file is corrupt or of another model.
    pub fn restore(&self, name: &str, optimizer: &mut AdamW) -> Result<u32> {
        let path = self.dir.join(name);
        if !path.exists() {
            return Ok(0);
        }
        let mut tensors = crate::prior::tensor_file::read_safetensors(&path)?;
        let step = tensors.remove("step").ok_or_else(|| Error::file(&path, "no step: not a checkpoint"))?;
        optimizer.load_state(&tensors)?;
        Ok(step.flatten_all()?.to_vec1::<u32>()?[0])
    }
}

/// The optimiser of a denoiser's weights.
pub(super) fn adam(vars: BTreeMap<String, Var>, max_grad_norm: f64, ema_decay: f64) -> Result<AdamW> {
    let config = AdamConfig {
        max_grad_norm: Some(max_grad_norm),
        ema_decay: Some(ema_decay),
        weight_decay: 0.0,
        ..AdamConfig::default()
    };
    Ok(AdamW::new(vars, config)?)
}

/// Parts of a batch that run side by side: one fills a GPU.
pub(super) fn parts(wanted: usize, batch: usize, device: &Device) -> usize {
    if device.is_cpu() { wanted.clamp(1, batch.max(1)) } else { 1 }
}

/// The same tensors in f16, as the shipped model stores them.
///
/// # Errors
/// If a tensor cannot be converted.
pub fn to_f16(tensors: &HashMap<String, Tensor>) -> Result<HashMap<String, Tensor>> {
    tensors.iter().map(|(k, v)| Ok((k.clone(), v.to_dtype(DType::F16)?))).collect()
}

/// Learning rate of `step` of `steps`: linear warm-up, then a half cosine down to 2 % of `peak`.
pub fn learning_rate(step: u32, steps: u32, warmup: u32, peak: f64) -> f64 {
    if step < warmup {
        return peak * f64::from(step + 1) / f64::from(warmup);
    }
    let done = f64::from(step - warmup) / f64::from((steps - warmup.min(steps)).max(1));
    let floor = 0.02;
    peak * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_warms_up_and_anneals() {
        assert!((learning_rate(0, 1000, 100, 1.0) - 0.01).abs() < 1e-12);
        assert!((learning_rate(100, 1000, 100, 1.0) - 1.0).abs() < 1e-12);
        assert!((learning_rate(550, 1000, 100, 1.0) - 0.51).abs() < 1e-12);
        assert!((learning_rate(1000, 1000, 100, 1.0) - 0.02).abs() < 1e-12);
        assert!(learning_rate(5, 3, 10, 1.0).is_finite());
    }
}
