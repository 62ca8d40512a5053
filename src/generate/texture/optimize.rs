//! The loop: colours of the surface in light, rendered, judged by the guide, and back into the grid.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use glam::Vec3;
use image::RgbImage;

use super::grid::{Grid, Taps};
use super::paint::{Lit, Points, channels};
use super::surface::Surface;
use crate::config::Config;
use crate::field::AdamConfig;
use crate::generate::checkpoint::{Checkpoint, State};
use crate::generate::course::Course;
use crate::generate::event::{Event, StepReport};
use crate::generate::guide::{Guide, Shown, Views};
use crate::generate::history::Due;
use crate::generate::reporter::Reporter;
use crate::generate::timing::Timings;
use crate::generate::{Job, memory, pace, picture, rig};
use crate::gpu::backend::Device;
use crate::render::camera::Camera;
use crate::render::sheet::contact_sheet;
use crate::render::surface::{Paint, SurfaceGrad, SurfaceInput, SurfaceOptions, SurfaceRenderer};
use crate::{Error, Result};

/// Steps in a row without a usable gradient after which the run is given up.
const BROKEN: u32 = 10;
/// Views of a preview, and how many stand in a row.
const PREVIEW: (u32, usize) = (8, 4);
/// Behind previews; linear.
const GREY: Vec3 = Vec3::splat(0.8);

/// A run in progress.
pub(super) struct Run<'a> {
    pub(super) job: &'a Job,
    pub(super) guide: &'a mut dyn Guide,
    identity: String,
    surface: &'a Surface,
    pub(super) grid: Grid,
    taps: Taps,
    /// One for all views where colours are the same from everywhere, else one a view.
    renderers: Vec<SurfaceRenderer>,
    broken: u32,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        job: &'a Job,
        surface: &'a Surface,
        device: &Device,
        guide: &'a mut dyn Guide,
        identity: String,
    ) -> Result<Self> {
        let c = &job.config;
        let grid = Grid::new(channels(c.texture.pbr), c.texture.resolution);
        let taps = grid.taps(&surface.positions);
        let count = if c.texture.pbr { c.camera.views } else { 1 };
        let renderers =
            (0..count).map(|_| SurfaceRenderer::new(device, &surface.topology)).collect::<Result<_>>()?;
        Ok(Self { job, guide, identity, surface, grid, taps, renderers, broken: 0 })
    }

    /// Bytes that a run takes, apart from the prior.
    pub(super) fn memory(config: &Config, surface: &Surface) -> u64 {
        let (views, size) = (config.camera.views as usize, config.camera.largest() as usize);
        let n = channels(config.texture.pbr);
        let points = surface.positions.len() as u64;
        SurfaceRenderer::memory(&surface.topology, views, size, size, false)
            + Grid::memory(n, config.texture.resolution)
            + points * (64 * 6 + 16 * n as u64 * config.camera.views as u64)
    }

    pub(super) fn load_state(&mut self, state: &State) -> Result<()> {
        self.grid.load_state(state)?;
        self.broken = state.get("texture.broken").and_then(|x| x.first()).map_or(0, |x| *x as u32);
        let cut = |(name, data): (&String, &Vec<f32>)| {
            Some((name.strip_prefix("guide.")?.to_owned(), data.clone()))
        };
        self.guide.load_state(&state.iter().filter_map(cut).collect())
    }

    /// The cameras that each renderer draws.
    fn shares(&self, views: usize) -> Vec<Range<usize>> {
        match self.renderers.len() {
            1 => std::iter::once(0..views).collect(),
            n => (0..n).map(|i| i..i + 1).collect(),
        }
    }

    /// Linear pictures `[views, size, size, 3]`, and mean coverage.
    fn draw(
        &mut self,
        numbers: &[f32],
        lit: &Lit,
        cameras: &[Camera],
        backgrounds: &[Vec3],
    ) -> Result<(Vec<f32>, f32)> {
        let (mut rgb, mut covered, mut pixels) = (Vec::new(), 0.0, 0);
        for (i, share) in self.shares(cameras.len()).into_iter().enumerate() {
            let points = points(self.surface, numbers, &self.job.config);
            let colors = lit.colors(&points, &cameras[share.start]);
            let input = SurfaceInput {
                positions: &self.surface.places,
                paint: Paint::Colors(&colors),
                cameras: &cameras[share.clone()],
                backgrounds: &backgrounds[share],
            };
            let output = self.renderers[i].render(&input, &SurfaceOptions::default())?;
            covered += output.mask.iter().sum::<f32>();
            pixels += output.mask.len();
            rgb.extend(output.rgb);
        }
        Ok((rgb, covered / pixels.max(1) as f32))
    }

    /// The gradient by the grid's numbers at the points.
    fn back(&mut self, numbers: &[f32], lit: &Lit, cameras: &[Camera], by_rgb: &[f32]) -> Result<Vec<f32>> {
        let mut sum = vec![0.0; numbers.len()];
        let picture = by_rgb.len() / cameras.len().max(1);
        for (i, share) in self.shares(cameras.len()).into_iter().enumerate() {
            let rgb = Some(&by_rgb[share.start * picture..share.end * picture]);
            let by_colors =
                self.renderers[i].backward(&SurfaceGrad { rgb, ..Default::default() })?.attributes;
            let points = points(self.surface, numbers, &self.job.config);
            let by = lit.pull_back(&points, &cameras[share.start], &by_colors);
            sum.iter_mut().zip(by).for_each(|(sum, by)| *sum += by);
        }
        Ok(sum)
    }

    fn one(&mut self, step: u32, timings: &mut Timings) -> Result<StepReport> {
        let start = Instant::now();
        let mut c = self.job.config.clone();
        let progress = f64::from(step) / f64::from(c.optim.steps);
        c.camera.size = self.guide.size(c.camera.size_at(progress), progress);
        let (cameras, backgrounds) = (rig::cameras(&c, step), rig::backgrounds(&c, step));
        let lit = Lit::random(c.texture.pbr, c.seed, step);
        let numbers = self.grid.read(&self.taps);
        let (shown, opacity) =
            timings.time("optimize.render", || self.draw(&numbers, &lit, &cameras, &backgrounds))?;
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
        let norm = by_shown.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        if !(norm.is_finite() && guidance.rms.is_finite()) {
            return Err(Error::NotFinite(format!("the gradient came out as {norm}")));
        }
        let by_numbers =
            timings.time("optimize.backward", || self.back(&numbers, &lit, &cameras, &by_shown))?;
        let rate = c.texture.learning_rate * pace::rate(&c.optim, step);
        timings.time("optimize.adam", || {
            let gradient = self.grid.pull_back(&self.taps, &by_numbers);
            self.grid.step(&gradient, rate, &AdamConfig { ..c.adam });
        });
        Ok(StepReport {
            step: step + 1,
            steps: c.optim.steps,
            guidance: guidance.rms,
            timestep: guidance.timestep,
            opacity,
            haze: 0.0,
            regularizer: 0.0,
            terms: Default::default(),
            gradient: norm as f32,
            learned: guidance.learned,
            learning_rate: rate,
            seconds: start.elapsed().as_secs_f64(),
            memory: memory::held(),
        })
    }

    fn left_out(&mut self, step: u32, why: &Error, reporter: &mut Reporter<'_, '_>) -> Result<()> {
        self.broken += 1;
        if self.broken >= BROKEN {
            return Err(Error::Failed(format!("the optimisation diverged at step {}: {why}", step + 1))
                .hint("lower texture.learning_rate or sds.guidance_scale, or try another --seed"));
        }
        reporter.emit(&Event::warning(format!("step {} is left out: {why}", step + 1)));
        Ok(())
    }
}

impl Course for Run<'_> {
    fn step(&mut self, step: u32, timings: &mut Timings, reporter: &mut Reporter<'_, '_>) -> Result<()> {
        match self.one(step, timings) {
            Ok(report) => {
                self.broken = 0;
                reporter.emit(&Event::Step(report));
                Ok(())
            }
            Err(e) if e.is_not_finite() => self.left_out(step, &e, reporter),
            Err(e) => Err(e),
        }
    }

    fn show(&mut self, _: u32, due: Due) -> Result<Vec<PathBuf>> {
        let c = &self.job.config;
        let (count, row) = PREVIEW;
        let (lit, size) = (Lit::fixed(c.texture.pbr), c.output.preview_size);
        let numbers = self.grid.read(&self.taps);
        let mut pictures = Vec::new();
        for camera in rig::turntable(&c.camera, count, size) {
            let colors = lit.colors(&points(self.surface, &numbers, &self.job.config), &camera);
            let input = SurfaceInput {
                positions: &self.surface.places,
                paint: Paint::Colors(&colors),
                cameras: &[camera],
                backgrounds: &[GREY],
            };
            let output = self.renderers[0].render(&input, &SurfaceOptions::default())?;
            let bytes = output.rgb.iter().map(|x| picture::to_srgb8(*x)).collect();
            pictures.push(RgbImage::from_raw(size, size, bytes).unwrap_or_default());
        }
        due.write(&self.job.folder, &contact_sheet(&pictures, row), &contact_sheet(&pictures, count as usize))
    }

    fn checkpoint(&self, step: u32) -> Result<Checkpoint> {
        let mut state = self.grid.state();
        state.insert("texture.broken".into(), vec![self.broken as f32]);
        state.extend(self.guide.state()?.into_iter().map(|(name, data)| (format!("guide.{name}"), data)));
        Ok(Checkpoint {
            step,
            prompt: self.job.prompt.clone(),
            prior: self.identity.clone(),
            config: self.job.config.to_toml()?,
            state,
        })
    }
}

fn points<'a>(surface: &'a Surface, numbers: &'a [f32], config: &Config) -> Points<'a> {
    let channels = channels(config.texture.pbr);
    Points { positions: &surface.positions, normals: &surface.normals, numbers, channels }
}
