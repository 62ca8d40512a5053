//! The loop: render, ask the guide, regularise, go back through the renderer, Adam.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint::Checkpoint;
use super::event::{Event, StepReport};
use super::guide::{Guide, Views};
use super::reporter::Reporter;
use super::timing::Timings;
use super::penalty::{self, Penalty};
use super::{Job, pace, picture, preview, rig};
use crate::field::AdamConfig;
use crate::gpu::backend::Device;
use crate::render::volume::{Background, Mode, RenderGrad, RenderOptions, VolumeRenderer};
use crate::{Error, Result};

/// A run in progress.
pub(super) struct Run<'a> {
    job: &'a Job,
    guide: &'a dyn Guide,
    cancel: &'a AtomicBool,
    /// The field and its renderer.
    pub(super) renderer: VolumeRenderer,
}

impl<'a> Run<'a> {
    pub(super) fn new(job: &'a Job, device: &Device, guide: &'a dyn Guide, cancel: &'a AtomicBool) -> Result<Self> {
        let c = &job.config;
        let renderer = VolumeRenderer::new(device, &c.field, &c.volume, c.seed)?;
        Ok(Self { job, guide, cancel, renderer })
    }

    /// Steps `first` … to the end, with previews and checkpoints on the way and a checkpoint at the
    /// end.
    pub(super) fn optimize(
        &mut self,
        first: u32,
        timings: &mut Timings,
        reporter: &mut Reporter<'_, '_>,
    ) -> Result<()> {
        let steps = self.job.config.optim.steps;
        let output = &self.job.config.output;
        for step in first..steps {
            if self.cancel.load(Ordering::Relaxed) {
                self.checkpoint(step, timings, reporter)?;
                return Err(Error::Interrupted);
            }
            let report = self.step(step, timings)?;
            reporter.emit(&Event::Step(report));
            let done = step + 1;
            if due(done, output.preview_every) || (done == steps && output.preview_every > 0) {
                self.preview(step, timings, reporter);
            }
            if due(done, output.checkpoint_every) && done < steps {
                // A full disk now may have space again later; what was saved before is still there.
                let saved = self.checkpoint(done, timings, reporter);
                reporter.survive(saved);
            }
        }
        let saved = if first < steps { self.checkpoint(steps, timings, reporter) } else { Ok(()) };
        reporter.survive(saved);
        match self.cancel.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }

    fn step(&mut self, step: u32, timings: &mut Timings) -> Result<StepReport> {
        let start = Instant::now();
        let c = &self.job.config;
        let cameras = rig::cameras(c, step);
        let backgrounds = rig::backgrounds(c, step);
        let options = RenderOptions { step, mode: Mode::Train, normals: penalty::needs_normals(&c.regularize) };
        let output = timings.time("optimize.render", || {
            self.renderer.render(&cameras, Background::Solid(&backgrounds), options)
        })?;
        let pixels = picture::to_prior(&output.rgb, cameras.len());
        let views = Views {
            pixels: &pixels,
            size: c.camera.size as usize,
            cameras: &cameras,
            step,
            progress: f64::from(step) / f64::from(c.optim.steps),
        };
        let guidance = self.guide.guide(&views, timings)?;
        let rgb = picture::from_prior(&guidance.gradient, &output.rgb, cameras.len());
        let penalty = Penalty::of(&output, &c.regularize);
        let rate = pace::rate(&c.optim, step);
        let report = StepReport {
            step: step + 1,
            steps: c.optim.steps,
            guidance: guidance.rms,
            timestep: guidance.timestep,
            opacity: mean(&output.opacity),
            regularizer: penalty.value as f32,
            learning_rate: c.adam.lr_grid * rate,
            seconds: start.elapsed().as_secs_f64(),
        };
        sound(&report)?;
        self.apply(&penalty.gradient(&rgb), rate, timings)?;
        timings.time("optimize.occupancy", || self.renderer.update_occupancy(step))?;
        Ok(StepReport { seconds: start.elapsed().as_secs_f64(), ..report })
    }

    /// Back through the renderer, and Adam.
    fn apply(&mut self, gradient: &RenderGrad<'_>, rate: f32, timings: &mut Timings) -> Result<()> {
        timings.time("optimize.backward", || self.renderer.backward(gradient))?;
        let adam = &self.job.config.adam;
        let scaled = AdamConfig {
            lr_grid: adam.lr_grid * rate,
            lr_mlp: adam.lr_mlp * rate,
            lr_background: adam.lr_background * rate,
            ..*adam
        };
        timings.time("optimize.adam", || self.renderer.step(&scaled))
    }

    fn preview(&mut self, step: u32, timings: &mut Timings, reporter: &mut Reporter<'_, '_>) {
        let written = timings.time("optimize.preview", || preview::write(self.job, &mut self.renderer, step));
        match written {
            Ok(path) => reporter.emit(&Event::Preview { path }),
            Err(e) => reporter.survive(Err(e)),
        }
    }

    fn checkpoint(&self, step: u32, timings: &mut Timings, reporter: &mut Reporter<'_, '_>) -> Result<()> {
        let path = timings.time("optimize.checkpoint", || {
            let checkpoint = Checkpoint {
                step,
                prompt: self.job.prompt.clone(),
                prior: self.guide.identity(),
                config: self.job.config.to_toml()?,
                state: self.renderer.state()?,
            };
            checkpoint.save(&self.job.folder)
        })?;
        reporter.emit(&Event::Checkpoint { path, step });
        Ok(())
    }
}

/// Every `every` steps; never for 0.
fn due(done: u32, every: u32) -> bool {
    every > 0 && done.is_multiple_of(every)
}

fn mean(x: &[f32]) -> f32 {
    x.iter().sum::<f32>() / x.len().max(1) as f32
}

/// A run that left the numbers behind is stopped at once.
fn sound(report: &StepReport) -> Result<()> {
    let numbers = [report.guidance, report.opacity, report.regularizer];
    if numbers.iter().all(|x| x.is_finite()) {
        return Ok(());
    }
    Err(Error::Failed(format!("the optimisation diverged at step {}", report.step))
        .hint("lower adam.lr_grid or sds.guidance_scale, or try another --seed"))
}
