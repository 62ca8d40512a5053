//! The loop: render, ask the guide, regularise, go back through the renderer, Adam.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint::{Checkpoint, State};
use super::event::{Event, StepReport};
use super::guide::{Guidance, Guide, Shown, Views};
use super::health::{self, Health, Ill};
use super::history::Due;
use super::penalty::{self, Penalty};
use super::reporter::Reporter;
use super::shade::{self, Shading};
use super::sketch::Sketch;
use super::timing::Timings;
use super::{Job, memory, pace, picture, preview, rig};
use crate::config::Config;
use crate::field::AdamConfig;
use crate::gpu::backend::Device;
use crate::refine::Refinement;
use crate::render::volume::{Background, Mode, RenderGrad, RenderOptions, RenderOutput, VolumeRenderer};
use crate::{Error, Result};

/// What the guide has learned, in a checkpoint.
const GUIDE: &str = "guide.";
/// The second stage, in a checkpoint.
const REFINED: &str = "refined.";
/// [`Health`], in a checkpoint.
const HEALTH: &str = "run.health";

/// A run in progress.
pub(super) struct Run<'a> {
    pub(super) job: &'a Job,
    pub(super) device: &'a Device,
    pub(super) guide: &'a mut dyn Guide,
    pub(super) cancel: &'a AtomicBool,
    /// The fields and their renderers; one, but for VSD.
    pub(super) particles: Vec<VolumeRenderer>,
    /// Their surfaces, once the second stage has begun.
    pub(super) surfaces: Vec<Refinement>,
    pub(super) health: Health,
    /// The job's, as this attempt needs it.
    pub(super) config: Config,
    sketch: Option<Sketch>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        job: &'a Job,
        device: &'a Device,
        guide: &'a mut dyn Guide,
        cancel: &'a AtomicBool,
    ) -> Result<Self> {
        let config = job.config.clone();
        let particles = particles(&config, device)?;
        let sketch = Sketch::load(&config.sketch)?;
        let (surfaces, health) = (Vec::new(), Health::default());
        Ok(Self { job, device, guide, cancel, particles, surfaces, health, config, sketch })
    }

    /// Steps `first` … to the end, with previews and checkpoints on the way and a checkpoint at the
    /// end. A scene that went nowhere begins again.
    pub(super) fn optimize(
        &mut self,
        first: u32,
        timings: &mut Timings,
        reporter: &mut Reporter<'_, '_>,
    ) -> Result<()> {
        let steps = self.config.optim.steps;
        let output = &self.job.config.output;
        let mut step = first;
        while step < steps {
            if self.cancel.load(Ordering::Relaxed) {
                self.checkpoint(step, timings, reporter)?;
                return Err(Error::Interrupted);
            }
            let ill = self.step_or_leave_out(step, timings, reporter)?;
            let done = step + 1;
            if let Some(ill) = ill
                && self.restart(ill, done, reporter)?
            {
                step = 0;
                continue;
            }
            step = done;
            self.show(done, timings, reporter);
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

    /// A step of every particle; one without a usable gradient changes nothing and is told of.
    fn step_or_leave_out(
        &mut self,
        step: u32,
        timings: &mut Timings,
        reporter: &mut Reporter<'_, '_>,
    ) -> Result<Option<Ill>> {
        let (mut opacity, mut haze, mut whole) = ((f32::INFINITY, 0.0f32), 0.0f32, true);
        for particle in 0..self.particles.len() {
            match self.step(particle, step, timings) {
                Ok(report) => {
                    opacity = (opacity.0.min(report.opacity), opacity.1.max(report.opacity));
                    haze = haze.max(report.haze);
                    reporter.emit(&Event::Step(report));
                }
                Err(e) if e.is_not_finite() => {
                    whole = false;
                    self.leave_out(particle, step, &e, reporter)?;
                }
                Err(e) => return Err(e),
            }
        }
        if !whole {
            return Ok(None);
        }
        let progress = f64::from(step) / f64::from(self.config.optim.steps);
        let seen = if opacity.0 < 1.0 - opacity.1 { opacity.0 } else { opacity.1 };
        Ok(self.health.see(seen, haze, progress))
    }

    /// The field stays as the step before left it.
    fn leave_out(
        &mut self,
        particle: usize,
        step: u32,
        why: &Error,
        reporter: &mut Reporter<'_, '_>,
    ) -> Result<()> {
        let seed = self.seed(particle);
        if self.health.broke() {
            let text = format!("the optimisation diverged at step {}: {why} (seed {seed})", step + 1);
            return Err(
                Error::Failed(text).hint("lower adam.lr_grid or sds.guidance_scale, or try another --seed")
            );
        }
        // Clears what the step has summed up so far.
        let renderer = &mut self.particles[particle];
        let state = renderer.state()?;
        renderer.load_state(&state)?;
        let text = format!("step {} is left out: {why} (seed {seed})", step + 1);
        reporter.emit(&Event::warning(text));
        Ok(())
    }

    /// Begins anew if that is still allowed.
    fn restart(&mut self, ill: Ill, done: u32, reporter: &mut Reporter<'_, '_>) -> Result<bool> {
        let reason = match ill {
            Ill::Empty => "the scene is empty",
            Ill::Fog => "the scene is fog",
        };
        if self.health.attempts() >= self.config.optim.retries {
            let hint = "try another --seed, more sds.guidance_scale, or other weights under regularize";
            let message = format!("{reason} after {done} steps");
            reporter.emit(&Event::Warning { message, hint: Some(hint.into()) });
            return Ok(false);
        }
        self.health.restart(ill);
        self.begin_attempt()?;
        self.guide.reset()?;
        reporter.emit(&Event::Restarted { step: done, reason: reason.into(), seed: self.config.seed });
        Ok(true)
    }

    fn begin_attempt(&mut self) -> Result<()> {
        self.config = self.health.config(&self.job.config);
        self.particles = particles(&self.config, self.device)?;
        Ok(())
    }

    /// What the run goes by beside its configuration: the guide, and the sketch's shape if there is one.
    pub(super) fn identity(&self) -> String {
        let guide = self.guide.identity();
        self.sketch.as_ref().map_or(guide.clone(), |sketch| format!("{guide}, sketch {}", sketch.digest()))
    }

    pub(super) fn seed(&self, particle: usize) -> u64 {
        health::mixed(self.config.seed, 0, particle as u64)
    }

    /// One step of one particle; nothing is changed on an error but the renderer's sum of gradients and
    /// what the guide has learned.
    fn step(&mut self, particle: usize, step: u32, timings: &mut Timings) -> Result<StepReport> {
        let start = Instant::now();
        let mut c = Config { seed: self.seed(particle), ..self.config.clone() };
        let progress = f64::from(step) / f64::from(c.optim.steps);
        c.camera.size = self.guide.size(c.camera.size_at(progress), progress);
        let weights = c.regularize.at(progress);
        let cameras = rig::cameras(&c, step);
        let backgrounds = rig::backgrounds(&c, step);
        let normals = penalty::needs_normals(&c.regularize) || shade::is_on(&c.shading);
        let options = RenderOptions { step, mode: Mode::Train, normals };
        let renderer = &mut self.particles[particle];
        let output = timings.time("optimize.render", || {
            renderer.render(&cameras, Background::Solid(&backgrounds), options)
        })?;
        let shades = shade::choose(&c.shading, &cameras, progress, (c.seed, step));
        let shading =
            Shading { config: &c.shading, shades: &shades, cameras: &cameras, backgrounds: &backgrounds };
        let shown = shading.shown(&output);
        let pixels = picture::to_prior(&shown, cameras.len());
        let size = c.camera.size as usize;
        let views = Views {
            pixels: &pixels,
            size,
            cameras: &cameras,
            step,
            progress,
            seed: c.seed,
            second_stage: false,
            shown: Shown::Colors,
        };
        let guidance = self.guide.guide(&views, timings)?;
        let by_shown = picture::from_prior(&guidance.gradient, &shown, cameras.len());
        let back = shading.backward(&output, by_shown);
        let mut penalty = Penalty::of(&output, &weights);
        penalty.add_shading(&back.opacity, &back.normal);
        let rate = pace::rate(&c.optim, step);
        let report = StepReport {
            step: step + 1,
            learning_rate: c.adam.lr_grid * rate,
            ..report(&output, &guidance, &penalty, c.steps())
        };
        sound(&report)?;
        let by_pixels = penalty.gradient(&back.rgb);
        let sketched = self.apply((particle, step), &by_pixels, rate, timings)?;
        let renderer = &mut self.particles[particle];
        timings.time("optimize.occupancy", || renderer.update_occupancy(step))?;
        let mut report =
            StepReport { seconds: start.elapsed().as_secs_f64(), memory: memory::held(), ..report };
        if let Some(loss) = sketched {
            report.terms.insert("sketch", loss as f32);
            report.regularizer += loss as f32;
        }
        Ok(report)
    }

    /// Back through the renderer, and Adam; the sketch's loss, if there is a sketch.
    fn apply(
        &mut self,
        (particle, step): (usize, u32),
        gradient: &RenderGrad<'_>,
        rate: f32,
        timings: &mut Timings,
    ) -> Result<Option<f64>> {
        let seed = self.seed(particle);
        let renderer = &mut self.particles[particle];
        timings.time("optimize.backward", || renderer.backward(gradient))?;
        let mut sketched = None;
        if let Some(sketch) = &self.sketch {
            let points = sketch.points(seed, step);
            let loss = |density: &[f32]| {
                let (value, gradient) = sketch.loss(&points, density);
                sketched = Some(value);
                gradient
            };
            timings.time("optimize.sketch", || renderer.density_backward(&points, loss))?;
        }
        let adam = &self.config.adam;
        let scaled = AdamConfig {
            lr_grid: adam.lr_grid * rate,
            lr_mlp: adam.lr_mlp * rate,
            lr_background: adam.lr_background * rate,
            ..*adam
        };
        timings.time("optimize.adam", || renderer.step(&scaled))?;
        Ok(sketched)
    }

    /// The preview, and a row of the history, when they are due.
    fn show(&mut self, done: u32, timings: &mut Timings, reporter: &mut Reporter<'_, '_>) {
        let due = Due::after(done, &self.job.config);
        if !due.any() {
            return;
        }
        let renderer = &mut self.particles[0];
        let written = timings.time("optimize.preview", || preview::write(self.job, renderer, done, due));
        match written {
            Ok(paths) => paths.into_iter().for_each(|path| reporter.emit(&Event::Preview { path })),
            Err(e) => reporter.survive(Err(e)),
        }
    }

    pub(super) fn checkpoint(
        &self,
        step: u32,
        timings: &mut Timings,
        reporter: &mut Reporter<'_, '_>,
    ) -> Result<()> {
        let path = timings.time("optimize.checkpoint", || {
            let checkpoint = Checkpoint {
                step,
                prompt: self.job.prompt.clone(),
                prior: self.identity(),
                config: self.job.config.to_toml()?,
                state: self.state()?,
            };
            checkpoint.save(&self.job.folder)
        })?;
        reporter.emit(&Event::Checkpoint { path, step });
        Ok(())
    }

    /// All fields, what the guide has learned, and the counts.
    fn state(&self) -> Result<State> {
        let mut all = State::from([(HEALTH.to_owned(), self.health.to_state())]);
        for (i, renderer) in self.particles.iter().enumerate() {
            all.extend(
                renderer.state()?.into_iter().map(|(name, data)| (format!("{}{name}", prefix(i)), data)),
            );
        }
        for (i, surface) in self.surfaces.iter().enumerate() {
            let named = |(name, data)| (format!("{}{REFINED}{name}", prefix(i)), data);
            all.extend(surface.state()?.into_iter().map(named));
        }
        all.extend(self.guide.state()?.into_iter().map(|(name, data)| (format!("{GUIDE}{name}"), data)));
        Ok(all)
    }

    /// Goes on from a checkpoint's state after `step` steps.
    ///
    /// # Errors
    /// If something is missing or does not fit.
    pub(super) fn load_state(&mut self, state: &State, step: u32) -> Result<()> {
        let below = |prefix: &str| -> State {
            let cut = |(name, data): (&String, &Vec<f32>)| {
                Some((name.strip_prefix(prefix)?.to_owned(), data.clone()))
            };
            state.iter().filter_map(cut).collect()
        };
        self.health = Health::from_state(state.get(HEALTH));
        self.begin_attempt()?;
        for (i, renderer) in self.particles.iter_mut().enumerate() {
            renderer.load_state(&below(&prefix(i)))?;
        }
        if step > self.config.optim.steps {
            let resume = |(i, field): (usize, &VolumeRenderer)| {
                let state = below(&format!("{}{REFINED}", prefix(i)));
                Refinement::resume(self.device, &self.config.refine, field, &state)
            };
            self.surfaces = self.particles.iter().enumerate().map(resume).collect::<Result<_>>()?;
        }
        self.guide.load_state(&below(GUIDE))
    }
}

/// Before the names of a particle's tensors; nothing before the first one's.
fn prefix(particle: usize) -> String {
    if particle == 0 { String::new() } else { format!("particle{particle}.") }
}

fn particles(config: &Config, device: &Device) -> Result<Vec<VolumeRenderer>> {
    let seed = |i: u32| health::mixed(config.seed, 0, u64::from(i));
    (0..config.vsd.particles)
        .map(|i| VolumeRenderer::new(device, &config.field, &config.volume, seed(i)))
        .collect()
}

/// What a step shows of itself, but for its number, rate and time.
fn report(output: &RenderOutput, guidance: &Guidance, penalty: &Penalty, steps: u32) -> StepReport {
    let hazy = output.opacity.iter().filter(|o| (0.1..=0.9).contains(*o)).count();
    StepReport {
        step: 0,
        steps,
        guidance: guidance.rms,
        timestep: guidance.timestep,
        opacity: mean(&output.opacity),
        haze: hazy as f32 / output.opacity.len().max(1) as f32,
        regularizer: penalty.value as f32,
        terms: penalty.named(),
        gradient: norm(&guidance.gradient),
        learned: guidance.learned,
        learning_rate: 0.0,
        seconds: 0.0,
        memory: 0,
    }
}

/// The Euclidean norm.
pub(crate) fn norm(x: &[f32]) -> f32 {
    x.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt() as f32
}

/// Every `every` steps; never for 0.
pub(super) fn due(done: u32, every: u32) -> bool {
    every > 0 && done.is_multiple_of(every)
}

pub(super) fn mean(x: &[f32]) -> f32 {
    x.iter().sum::<f32>() / x.len().max(1) as f32
}

/// A step whose numbers are none must not be learned from.
pub(super) fn sound(report: &StepReport) -> Result<()> {
    let numbers = [
        ("the guidance", report.guidance),
        ("the gradient", report.gradient),
        ("the opacity", report.opacity),
        ("the regularisers", report.regularizer),
    ];
    match numbers.iter().find(|(_, x)| !x.is_finite()) {
        None => Ok(()),
        Some((what, x)) => Err(Error::NotFinite(format!("{what} came out as {x}"))),
    }
}
