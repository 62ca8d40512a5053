//! The second stage: the surface under the guide, as normals, as latents of normals, or in its colours.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::event::{Event, Stage, StepReport};
use super::guide::{Guidance, Shown, Views};
use super::history::Due;
use super::optimize::{Run, due, mean, sound};
use super::reporter::Reporter;
use super::timing::Timings;
use super::{memory, normals, picture, preview, product, rig};
use crate::config::{Config, RefineStart};
use crate::refine::{Refinement, Shot, SurfaceModel};
use crate::render::camera::Camera;
use crate::render::surface::{SurfaceGrad, SurfaceOutput};
use crate::{Error, Result};

/// Radius of the ball that a run without a first stage begins with.
const BALL: f64 = 0.5;

/// The camera rig of the second stage.
pub(super) fn rig_of(config: &Config) -> Config {
    let mut c = config.clone();
    let r = &config.refine;
    (c.camera.views, c.camera.size, c.camera.late_size) = (r.views, r.size, 0);
    if r.fov > 0.0 {
        c.camera.fov = r.fov;
    }
    if r.distance > 0.0 {
        c.camera.distance = r.distance;
    }
    c
}

/// What the guide is shown at `progress` 0 … 1 of the stage.
fn shown_at(config: &Config, progress: f64) -> Shown {
    match progress {
        p if p < config.refine.latents_until => Shown::NormalLatents,
        p if p < config.refine.normals_until => Shown::Normals,
        _ => Shown::Colors,
    }
}

/// Whether the shape and the colours move: colours are not judged while normals are shown, and the shape may be left
/// alone after that.
fn moving(config: &Config, progress: f64) -> [bool; 2] {
    let r = &config.refine;
    let normals = shown_at(config, progress) != Shown::Colors;
    let shape = progress < r.shape_until && !(r.freeze && r.normals_until > 0.0);
    [normals || shape, !normals]
}

/// What the guide sees of a render, and the gradient of that by the render.
struct Sight {
    pixels: Vec<f32>,
    shown: Shown,
}

impl Sight {
    fn new(output: &SurfaceOutput, shown: Shown) -> Self {
        let pixels = match (shown, &output.normal) {
            (Shown::Normals, Some(n)) => normals::picture(n, &output.mask, output.views),
            (Shown::NormalLatents, Some(n)) => normals::with_mask(n, &output.mask, output.views),
            _ => picture::to_prior(&output.rgb, output.views),
        };
        Self { pixels, shown }
    }

    /// By colours, coverage, and normals.
    fn back(&self, gradient: &[f32], output: &SurfaceOutput) -> [Option<Vec<f32>>; 3] {
        match self.shown {
            Shown::Colors => [Some(picture::from_prior(gradient, &output.rgb, output.views)), None, None],
            Shown::Normals | Shown::NormalLatents => {
                let channels = if self.shown == Shown::Normals { 3 } else { 4 };
                let (by_mask, by_normal) = normals::back(gradient, channels, output.views);
                [None, Some(by_mask), Some(by_normal)]
            }
        }
    }
}

impl Run<'_> {
    /// The stage's steps after `first` (counted from the run's begin), with previews and checkpoints as in the
    /// first stage.
    pub(super) fn refine(
        &mut self,
        first: u32,
        timings: &mut Timings,
        reporter: &mut Reporter<'_, '_>,
    ) -> Result<()> {
        let (border, steps) = (self.config.optim.steps, self.config.steps());
        if steps == border {
            return Ok(());
        }
        reporter.emit(&Event::StageStarted { stage: Stage::Refine });
        if self.surfaces.is_empty() {
            self.surfaces = timings.time("refine.begin", || self.begin_surfaces())?;
        }
        let output = &self.job.config.output;
        for step in first.max(border)..steps {
            if self.cancel.load(Ordering::Relaxed) {
                self.checkpoint(step, timings, reporter)?;
                return Err(Error::Interrupted);
            }
            for particle in 0..self.surfaces.len() {
                self.refine_or_leave_out(particle, step, timings, reporter)?;
            }
            let done = step + 1;
            self.show_surface(done, timings, reporter);
            if due(done, output.checkpoint_every) && done < steps {
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

    fn begin_surfaces(&self) -> Result<Vec<Refinement>> {
        let c = &self.config.refine;
        let begin = |field| match c.start {
            RefineStart::Field => {
                let mesh = product::surface(field, &self.job.config.mesh, self.cancel)?;
                Refinement::begin(self.device, c, field, &mesh)
            }
            RefineStart::Ball => {
                let ball = |p: glam::DVec3| BALL - p.length();
                let model = SurfaceModel::from_distances(c.resolution, c.extractor, &ball)?;
                Refinement::of(self.device, c, field, model)
            }
        };
        self.particles.iter().map(begin).collect()
    }

    /// A step without a usable gradient changes nothing and is told of.
    fn refine_or_leave_out(
        &mut self,
        particle: usize,
        step: u32,
        timings: &mut Timings,
        reporter: &mut Reporter<'_, '_>,
    ) -> Result<()> {
        match self.refine_step(particle, step, timings) {
            Ok(report) => {
                self.health.worked();
                reporter.emit(&Event::Step(report));
                Ok(())
            }
            Err(e) if e.is_not_finite() && !self.health.broke() => {
                self.surfaces[particle].forget()?;
                reporter.emit(&Event::warning(format!("step {} is left out: {e}", step + 1)));
                Ok(())
            }
            Err(e) if e.is_not_finite() => {
                let text = format!("the surface diverged at step {}: {e}", step + 1);
                Err(Error::Failed(text).hint("lower refine.lr_sdf or the guidance scale, or another --seed"))
            }
            Err(e) => Err(e),
        }
    }

    fn refine_step(&mut self, particle: usize, step: u32, timings: &mut Timings) -> Result<StepReport> {
        let start = Instant::now();
        let c = Config { seed: self.seed(particle), ..rig_of(&self.config) };
        let own = step - c.optim.steps;
        let progress = f64::from(own) / f64::from(c.refine.steps);
        let shown = shown_at(&c, progress);
        let cameras = rig::cameras(&c, step);
        let backgrounds = rig::backgrounds(&c, step);
        let normals = shown != Shown::Colors;
        let shot = Shot { cameras: &cameras, backgrounds: &backgrounds, normals, step };
        let surface = &mut self.surfaces[particle];
        let output = timings.time("refine.render", || surface.render(&shot))?;
        let sight = Sight::new(&output, shown);
        let guidance = self.asked(&sight, &cameras, (step, progress, c.seed), timings)?;
        let [by_rgb, by_mask, by_normal] = sight.back(&guidance.gradient, &output);
        let grad = SurfaceGrad {
            rgb: by_rgb.as_deref(),
            mask: by_mask.as_deref(),
            normal: by_normal.as_deref(),
            depth: None,
        };
        let surface = &mut self.surfaces[particle];
        let penalties = timings.time("refine.backward", || surface.backward(&grad))?;
        let report = StepReport {
            step: step + 1,
            steps: c.steps(),
            regularizer: penalties.value as f32,
            terms: penalties.terms.iter().map(|(name, value)| (*name, *value as f32)).collect(),
            learning_rate: c.refine.lr_sdf * c.refine.rate(own),
            ..report(&output, &guidance)
        };
        sound(&report)?;
        let moves = moving(&c, progress);
        timings.time("refine.adam", || surface.step(&c.adam, own, moves))?;
        Ok(StepReport { seconds: start.elapsed().as_secs_f64(), memory: memory::held(), ..report })
    }

    fn asked(
        &mut self,
        sight: &Sight,
        cameras: &[Camera],
        (step, progress, seed): (u32, f64, u64),
        timings: &mut Timings,
    ) -> Result<Guidance> {
        let size = self.config.refine.size as usize;
        let views = Views {
            pixels: &sight.pixels,
            size,
            cameras,
            step,
            progress,
            seed,
            second_stage: true,
            shown: sight.shown,
        };
        self.guide.guide(&views, timings)
    }

    fn show_surface(&mut self, done: u32, timings: &mut Timings, reporter: &mut Reporter<'_, '_>) {
        let due = Due::after(done, &self.config);
        if !due.any() {
            return;
        }
        let surface = &mut self.surfaces[0];
        match timings.time("refine.preview", || preview::write_surface(self.job, surface, due)) {
            Ok(paths) => paths.into_iter().for_each(|path| reporter.emit(&Event::Preview { path })),
            Err(e) => reporter.survive(Err(e)),
        }
    }
}

fn report(output: &SurfaceOutput, guidance: &Guidance) -> StepReport {
    let hazy = output.mask.iter().filter(|o| (0.1..=0.9).contains(*o)).count();
    StepReport {
        step: 0,
        steps: 0,
        guidance: guidance.rms,
        timestep: guidance.timestep,
        opacity: mean(&output.mask),
        haze: hazy as f32 / output.mask.len().max(1) as f32,
        regularizer: 0.0,
        terms: Default::default(),
        gradient: guidance.gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt() as f32,
        learned: guidance.learned,
        learning_rate: 0.0,
        seconds: 0.0,
        memory: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_colours_move_when_their_systems_say() {
        let at = |change: &dyn Fn(&mut crate::config::RefineConfig)| {
            let mut config = Config::default();
            change(&mut config.refine);
            [0.0, 0.5, 0.9].map(|progress| moving(&config, progress))
        };
        assert_eq!(at(&|_| ()), [[true, true]; 3]);
        // Fantasia3D: the shape by normals, then the colours.
        assert_eq!(at(&|r| r.normals_until = 0.5), [[true, false], [false, true], [false, true]]);
        let thawed = at(&|r| (r.normals_until, r.freeze) = (0.5, false));
        assert_eq!(thawed, [[true, false], [true, true], [true, true]]);
        // ProlificDreamer on a prior that knows no normals: both, then the colours.
        assert_eq!(at(&|r| r.shape_until = 0.6), [[true, true], [true, true], [false, true]]);
    }
}
