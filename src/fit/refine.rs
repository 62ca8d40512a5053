//! The second stage of a fit: whole pictures against pictures of the surface.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use glam::Vec3;

use super::dataset::View;
use super::optimize::squared_error;
use super::{Job, Scene, compare, rays};
use crate::generate::checkpoint::{Checkpoint, State};
use crate::generate::event::{Event, FitStep};
use crate::generate::optimize::norm;
use crate::generate::reporter::Reporter;
use crate::generate::timing::Timings;
use crate::generate::{memory, preview, product};
use crate::gpu::backend::Device;
use crate::refine::{Refinement, Shot};
use crate::render::camera::Camera;
use crate::render::color::srgb_to_linear;
use crate::render::surface::SurfaceGrad;
use crate::render::volume::VolumeRenderer;
use crate::rng::{Rng, Stream};
use crate::{Error, Result, asset};

/// A picture at the size of the stage, and its camera in the field's box.
struct Target {
    camera: Camera,
    /// Linear, premultiplied.
    color: Vec<Vec3>,
    alpha: Vec<f32>,
}

impl Target {
    /// `None` for a lens that the rasteriser has not.
    fn new(view: &View, scene: &Scene, size: u32) -> Option<Self> {
        let camera = rays::pinhole(view, &scene.place)?;
        let (w, h) = (camera.width, camera.height);
        // The smallest whole reduction of both sides; a picture whose sides have none stays as it is.
        let divides = |k: &u32| w.is_multiple_of(*k) && h.is_multiple_of(*k);
        let k = (w.max(h).div_ceil(size)..=w.min(h)).find(divides).unwrap_or(1);
        let (width, height) = (w / k, h / k);
        let (mut color, mut alpha) = (Vec::new(), Vec::new());
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let (mut sum, mut cover) = (Vec3::ZERO, 0.0);
            for (j, i) in (0..k).flat_map(|j| (0..k).map(move |i| (j, i))) {
                let (c, a) = view.picture.at(k * x + i, k * y + j);
                (sum, cover) = (sum + a * c, cover + a);
            }
            color.push(sum / (k * k) as f32);
            alpha.push(cover / (k * k) as f32);
        }
        Some(Self { camera: Camera { width, height, ..camera }, color, alpha })
    }
}

/// Why a scene has no second stage, if it has none.
pub(super) fn hindrance(scene: &Scene) -> Option<&'static str> {
    let fits = |v: &View| v.lens.centered_fov_y().is_some();
    match (scene.masked, scene.data.train.iter().any(fits)) {
        (false, _) => Some("the pictures are not cut out, and a mesh cannot show what is behind"),
        (_, false) => Some("no picture has a lens that a rasteriser can have"),
        _ => None,
    }
}

/// The stage in progress.
pub(super) struct Run<'a> {
    job: &'a Job,
    scene: &'a Scene,
    cancel: &'a AtomicBool,
    /// The first stage's field, for checkpoints.
    field: &'a VolumeRenderer,
    targets: Vec<Target>,
    pub(super) refinement: Refinement,
}

impl<'a> Run<'a> {
    /// From the field's surface, or from a checkpoint's state.
    pub(super) fn new(
        job: &'a Job,
        scene: &'a Scene,
        device: &Device,
        field: &'a VolumeRenderer,
        state: Option<&State>,
        cancel: &'a AtomicBool,
    ) -> Result<Self> {
        let c = &job.config.refine;
        let refinement = match state {
            Some(state) => Refinement::resume(device, c, field, state)?,
            None => {
                let mesh = product::surface(field, &job.config.mesh, cancel)?;
                Refinement::begin(device, c, field, &mesh)?
            }
        };
        let targets = scene.data.train.iter().filter_map(|v| Target::new(v, scene, c.size)).collect();
        Ok(Self { job, scene, cancel, field, targets, refinement })
    }

    /// Steps `first` (counted from the run's begin) to the end, as the first stage does.
    pub(super) fn optimize(
        &mut self,
        first: u32,
        timings: &mut Timings,
        reporter: &mut Reporter<'_, '_>,
    ) -> Result<()> {
        let (steps, output) = (self.job.config.steps(), &self.job.config.output);
        let due = |every: u32, done: u32| every > 0 && done.is_multiple_of(every);
        for step in first..steps {
            if self.cancel.load(Ordering::Relaxed) {
                self.checkpoint(step, timings, reporter)?;
                return Err(Error::Interrupted);
            }
            let report = self.step(step, timings)?;
            reporter.emit(&Event::FitStep(report));
            let done = step + 1;
            if due(output.preview_every, done) || (output.preview_every > 0 && done == steps) {
                self.preview(timings, reporter);
            }
            if due(output.checkpoint_every, done) && done < steps {
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

    /// Random views of one size.
    fn views(&self, step: u32) -> Vec<&Target> {
        let (seed, n) = (self.job.config.seed, self.job.config.refine.views);
        let rng = Rng::new(seed, Stream::Camera, step);
        let first = &self.targets[rng.below(0, self.targets.len() as u32) as usize];
        let size = |t: &Target| (t.camera.width, t.camera.height);
        let alike: Vec<&Target> = self.targets.iter().filter(|t| size(t) == size(first)).collect();
        let other = |i| alike[rng.below(i, alike.len() as u32) as usize];
        std::iter::once(first).chain((1..u64::from(n)).map(other)).collect()
    }

    fn step(&mut self, step: u32, timings: &mut Timings) -> Result<FitStep> {
        let start = Instant::now();
        let c = &self.job.config;
        let targets = self.views(step);
        let cameras: Vec<Camera> = targets.iter().map(|t| t.camera).collect();
        let rng = Rng::new(c.seed, Stream::Background, step);
        let behind = |i: u64| Vec3::from_array([0, 1, 2].map(|k| srgb_to_linear(rng.uniform(3 * i + k))));
        let backgrounds: Vec<Vec3> = (0..targets.len() as u64).map(behind).collect();
        let over = |(t, b): (&&Target, &Vec3)| -> Vec<Vec3> {
            t.color.iter().zip(&t.alpha).map(|(c, a)| *c + *b * (1.0 - a)).collect()
        };
        let wanted: Vec<Vec3> = targets.iter().zip(&backgrounds).flat_map(over).collect();
        let cover: Vec<f32> = targets.iter().flat_map(|t| t.alpha.iter().copied()).collect();
        let shot = Shot { cameras: &cameras, backgrounds: &backgrounds, normals: false, step };
        let output = timings.time("refine.render", || self.refinement.render(&shot))?;
        let (error, by_rgb) = squared_error(&output.rgb, bytemuck::cast_slice(&wanted));
        let (_, by_mask) = silhouettes(&output.mask, &cover, c.refine.mask);
        let grad = SurfaceGrad { rgb: Some(&by_rgb), mask: Some(&by_mask), ..Default::default() };
        let penalties = timings.time("refine.backward", || self.refinement.backward(&grad))?;
        if !(error.is_finite() && penalties.value.is_finite()) {
            return Err(Error::Failed(format!("the surface diverged at step {}", step + 1))
                .hint("lower refine.lr_sdf and refine.lr_grid, or try another --seed"));
        }
        let rate =
            timings.time("refine.adam", || self.refinement.step(&c.adam, step - c.optim.steps, [true; 2]))?;
        Ok(FitStep {
            step: step + 1,
            steps: c.steps(),
            psnr: compare::psnr(error) as f32,
            opacity: output.mask.iter().sum::<f32>() / output.mask.len().max(1) as f32,
            regularizer: penalties.value as f32,
            terms: penalties.terms.iter().map(|(name, value)| (*name, *value as f32)).collect(),
            gradient: norm(&by_rgb),
            learning_rate: c.refine.lr_grid * rate,
            seconds: start.elapsed().as_secs_f64(),
            memory: memory::held(),
        })
    }

    fn preview(&mut self, timings: &mut Timings, reporter: &mut Reporter<'_, '_>) {
        let size = self.job.config.output.preview_size;
        let written = timings.time("refine.preview", || {
            let picture = compare::preview_surface(self.scene, &mut self.refinement, size)?;
            let path = self.job.folder.file("preview.png");
            asset::replace(&path, &preview::png(&picture)?)?;
            Ok(path)
        });
        match written {
            Ok(path) => reporter.emit(&Event::Preview { path }),
            Err(e) => reporter.survive(Err(e)),
        }
    }

    fn checkpoint(&self, step: u32, timings: &mut Timings, reporter: &mut Reporter<'_, '_>) -> Result<()> {
        let path = timings.time("refine.checkpoint", || {
            let mut state = self.field.state()?;
            state.extend(self.refinement.state()?);
            let checkpoint = Checkpoint {
                step,
                prompt: String::new(),
                prior: self.scene.digest.clone(),
                config: self.job.config.to_toml()?,
                state,
            };
            checkpoint.save(&self.job.folder)
        })?;
        reporter.emit(&Event::Checkpoint { path, step });
        Ok(())
    }
}

/// `weight` times the mean squared difference of the silhouettes, and its gradient.
fn silhouettes(found: &[f32], wanted: &[f32], weight: f64) -> (f64, Vec<f32>) {
    let scale = weight / found.len().max(1) as f64;
    let mut value = 0.0;
    let by = found
        .iter()
        .zip(wanted)
        .map(|(f, w)| {
            let off = f64::from(f - w);
            value += scale * off * off;
            (2.0 * scale * off) as f32
        })
        .collect();
    (value, by)
}
