//! The loop: random rays, their colours, the squared difference in sRGB, back through the renderer, Adam.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use image::imageops;

use super::rays::{self, Target};
use super::{Job, Scene, compare};
use crate::config::Config;
use crate::field::AdamConfig;
use crate::generate::checkpoint::Checkpoint;
use crate::generate::course::{self, Course};
use crate::generate::event::{Event, FitStep};
use crate::generate::history::Due;
use crate::generate::optimize::norm;
use crate::generate::penalty::{self, Penalty};
use crate::generate::picture::transfer;
use crate::generate::reporter::Reporter;
use crate::generate::timing::Timings;
use crate::generate::{memory, pace};
use crate::gpu::backend::Device;
use crate::render::volume::{Background, Mode, RenderOptions, VolumeRenderer};
use crate::{Error, Result};

/// Rays a step.
pub(super) fn rays(config: &Config) -> u32 {
    config.camera.views * config.camera.size.pow(2)
}

/// A run in progress.
pub(super) struct Run<'a> {
    job: &'a Job,
    scene: &'a Scene,
    targets: Vec<Target<'a>>,
    cancel: &'a AtomicBool,
    /// The field and its renderer.
    pub(super) renderer: VolumeRenderer,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        job: &'a Job,
        scene: &'a Scene,
        device: &Device,
        cancel: &'a AtomicBool,
    ) -> Result<Self> {
        let c = &job.config;
        let renderer = VolumeRenderer::new(device, &c.field, &c.volume, c.seed)?;
        let targets = scene.data.train.iter().map(Target::new).collect();
        Ok(Self { job, scene, targets, cancel, renderer })
    }

    /// See [`course::follow`].
    pub(super) fn optimize(
        &mut self,
        first: u32,
        timings: &mut Timings,
        reporter: &mut Reporter<'_, '_>,
    ) -> Result<()> {
        let (job, cancel) = (self.job, self.cancel);
        course::follow(self, first, (&job.config, &job.folder), cancel, timings, reporter)
    }

    fn one(&mut self, step: u32, timings: &mut Timings) -> Result<FitStep> {
        let start = Instant::now();
        let c = &self.job.config;
        let batch = timings.time("optimize.rays", || {
            let draw = (c.seed, step, rays(c));
            rays::random(&self.targets, &self.scene.place, self.scene.masked, draw)
        });
        let options =
            RenderOptions { step, mode: Mode::Train, normals: penalty::needs_normals(&c.regularize) };
        let background =
            if self.scene.masked { Background::Solid(&batch.backgrounds) } else { Background::Mlp };
        let output =
            timings.time("optimize.render", || self.renderer.render(&batch.cameras, background, options))?;
        let colors: &[f32] = bytemuck::cast_slice(&batch.colors);
        let (error, gradient) = squared_error(&output.rgb, colors);
        let penalty = Penalty::of(&output, &c.regularize);
        let rate = pace::rate(&c.optim, step);
        let opacity = output.opacity.iter().sum::<f32>() / output.opacity.len().max(1) as f32;
        if !(error.is_finite() && penalty.value.is_finite()) {
            return Err(Error::Failed(format!("the optimisation diverged at step {}", step + 1))
                .hint("lower adam.lr_grid, or try another --seed"));
        }
        timings.time("optimize.backward", || self.renderer.backward(&penalty.gradient(&gradient)))?;
        let adam = AdamConfig {
            lr_grid: c.adam.lr_grid * rate,
            lr_mlp: c.adam.lr_mlp * rate,
            lr_background: c.adam.lr_background * rate,
            ..c.adam
        };
        timings.time("optimize.adam", || self.renderer.step(&adam))?;
        timings.time("optimize.occupancy", || self.renderer.update_occupancy(step))?;
        Ok(FitStep {
            step: step + 1,
            steps: c.steps(),
            psnr: compare::psnr(error) as f32,
            opacity,
            regularizer: penalty.value as f32,
            terms: penalty.named(),
            gradient: norm(&gradient),
            learning_rate: adam.lr_grid,
            seconds: start.elapsed().as_secs_f64(),
            memory: memory::held(),
        })
    }
}

impl Course for Run<'_> {
    fn step(&mut self, step: u32, timings: &mut Timings, reporter: &mut Reporter<'_, '_>) -> Result<()> {
        let report = self.one(step, timings)?;
        reporter.emit(&Event::FitStep(report));
        Ok(())
    }

    /// The row of the history is the field's pictures alone.
    fn show(&mut self, step: u32, due: Due) -> Result<Vec<PathBuf>> {
        let size = self.job.config.output.preview_size;
        let picture = compare::preview(self.scene, &mut self.renderer, step, size)?;
        let (w, h) = picture.dimensions();
        let field = imageops::crop_imm(&picture, 0, h / 2, w, h - h / 2).to_image();
        due.write(&self.job.folder, &picture, &field)
    }

    fn checkpoint(&self, step: u32) -> Result<Checkpoint> {
        Ok(Checkpoint {
            step,
            prompt: String::new(),
            // What a run is continued under: here the pictures take the prior's place.
            prior: self.scene.digest.clone(),
            config: self.job.config.to_toml()?,
            state: self.renderer.state()?,
        })
    }
}

/// Mean squared difference in sRGB of linear colours, and its gradient by the first (through the exact
/// slope of the transfer curve).
pub(super) fn squared_error(rgb: &[f32], wanted: &[f32]) -> (f64, Vec<f32>) {
    let scale = 1.0 / rgb.len().max(1) as f64;
    let mut error = 0.0;
    let gradient = rgb
        .iter()
        .zip(wanted)
        .map(|(&x, &w)| {
            let ((x, slope), (w, _)) = (transfer(x), transfer(w));
            let difference = f64::from(x - w);
            error += difference * difference * scale;
            (2.0 * difference * f64::from(slope) * scale) as f32
        })
        .collect();
    (error, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_in_srgb_and_its_gradient() {
        let wanted = [0.2f32, 0.001, 0.7, 0.9];
        let at = |x: &[f32]| squared_error(x, &wanted);
        assert_eq!(at(&wanted), (0.0, vec![0.0; 4]));
        let x = [0.3f32, 0.004, 0.55, 0.91];
        let (_, gradient) = at(&x);
        for i in 0..4 {
            let h = 0.01 * x[i];
            let moved = |d: f32| {
                let mut y = x;
                y[i] += d;
                at(&y).0
            };
            let numeric = (moved(h) - moved(-h)) / f64::from(2.0 * h);
            let error = (numeric - f64::from(gradient[i])).abs();
            assert!(error < 2e-3 * numeric.abs().max(0.01), "{i}: {numeric} {}", gradient[i]);
        }
    }
}
