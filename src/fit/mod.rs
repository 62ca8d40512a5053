//! Inverse rendering: posed pictures into a textured mesh.
//!
//! [`run`] reads a folder of pictures with their cameras ([`dataset`]), finds the object among them
//! ([`placement`]), optimises the volume renderer's field until its rays show what the pictures show, and
//! meshes it by the same path as the main job. The field is one of the seams: whatever can give density and
//! colour at points can be meshed, and whatever can be rendered by rays can be optimised here.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde_json::json;

use crate::config::Config;
use crate::config::layers::Layer;
use crate::generate::checkpoint::{Checkpoint, State};
use crate::generate::event::{Event, Listener, Stage, Summary};
use crate::generate::folder::RunFolder;
use crate::generate::reporter::Reporter;
use crate::generate::timing::Timings;
use crate::generate::{memory, product};
use crate::gpu::backend::Device;
use crate::mesh::{MeshReport, TriMesh};
use crate::refine::Refinement;
use crate::{Error, Result, asset};

pub mod chamfer;
mod compare;
pub mod dataset;
mod optimize;
pub mod placement;
mod rays;
mod refine;
#[cfg(test)]
mod tests;

use dataset::{Dataset, Up};
use placement::Placement;

/// What to fit, and where to write.
#[derive(Debug, Clone)]
pub struct Job {
    /// The folder of pictures, or a transforms file.
    pub pictures: PathBuf,
    /// The axis that points up in it.
    pub up: Up,
    /// The product and the folder beside it, checked by [`RunFolder::check`].
    pub folder: RunFolder,
    /// The resolved configuration, see [`preset`].
    pub config: Config,
    /// Continue from the newest checkpoint.
    pub resume: bool,
    /// The true model, to be compared with.
    pub truth: Option<PathBuf>,
}

/// The configuration's layer below files and flags.
///
/// # Errors
/// Never: the text is part of the program.
pub fn preset() -> Result<Layer> {
    Layer::parse(include_str!("../../scenes/fit.toml"), "scenes/fit.toml")
}

/// Fits on the device that the configuration names.
///
/// # Errors
/// Unusable pictures or poses, unknown device, not enough memory, a full disk, an optimisation that
/// diverged; [`Error::Interrupted`] when `cancel` became true and a checkpoint was saved.
pub fn run(job: &Job, cancel: &AtomicBool, listener: &mut Listener<'_>) -> Result<Summary> {
    memory::require(job.config.memory_estimate())?;
    let truth = job.truth.as_deref().map(asset::load).transpose()?;
    let (device, choice) = crate::gpu::open(&job.config.device.parse()?)?;
    listener(&Event::Device { name: device.name(), reason: choice.reason });
    run_on(job, &device, truth.as_ref(), cancel, listener)
}

/// Fits on `device` and compares with `truth`.
///
/// # Errors
/// As [`run`].
pub fn run_on(
    job: &Job,
    device: &Device,
    truth: Option<&asset::Asset>,
    cancel: &AtomicBool,
    listener: &mut Listener<'_>,
) -> Result<Summary> {
    let start = Instant::now();
    let mut timings = Timings::default();
    listener(&Event::StageStarted { stage: Stage::Pictures });
    let scene = timings.time("pictures.read", || Scene::read(job))?;
    job.folder.create()?;
    let mut reporter = Reporter::new(&job.folder, listener);
    let mut run = optimize::Run::new(job, &scene, device, cancel)?;
    let (first, state) = begin(job, &scene, &mut run, &mut reporter)?;
    asset::replace(&job.folder.file("config.toml"), job.config.to_toml()?.as_bytes())?;
    reporter.emit(&Event::Started {
        what: job.pictures.display().to_string(),
        device: device.name(),
        steps: job.config.optim.steps,
        seed: job.config.seed,
    });
    reporter.emit(&Event::StageStarted { stage: Stage::Optimize });
    run.optimize(first, &mut timings, &mut reporter)?;
    let border = job.config.optim.steps;
    let refined = match (job.config.refine.steps, refine::hindrance(&scene)) {
        (0, _) => None,
        (_, Some(why)) => {
            reporter.emit(&Event::warning(format!("there is no second stage: {why}")));
            None
        }
        _ => {
            reporter.emit(&Event::StageStarted { stage: Stage::Refine });
            // A state before the border is the field's alone.
            let state = state.as_ref().filter(|_| first > border);
            let mut stage = timings.time("refine.begin", || {
                refine::Run::new(job, &scene, device, &run.renderer, state, cancel)
            })?;
            stage.optimize(first.max(border), &mut timings, &mut reporter)?;
            Some(stage.refinement)
        }
    };
    let (asset, mesh) = product(job, &scene, &run, refined.as_ref(), cancel, &mut timings, &mut reporter)?;
    reporter.emit(&Event::StageStarted { stage: Stage::Compare });
    let score = timings.time("compare", || {
        let compared = compare::Compared::new(&scene, &mut run.renderer, &asset, job.config.optim.steps)?;
        asset::replace(&job.folder.file("compare.png"), &compared.picture()?)?;
        Ok::<_, Error>(compared.score(truth.map(|truth| chamfer::relative(&asset, truth))))
    })?;
    reporter.emit(&Event::FitScore(score));
    let path = job.folder.product();
    let summary = Summary {
        others: Vec::new(),
        output: path.to_owned(),
        run_folder: job.folder.path().to_owned(),
        mesh,
        bytes: std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len(),
        peak_memory: memory::peak(),
        seconds: start.elapsed().as_secs_f64(),
        timings: timings.into_vec(),
    };
    reporter.emit(&Event::Finished(summary.clone()));
    Ok(summary)
}

/// The pictures, and the object's place among their cameras.
struct Scene {
    data: Dataset,
    /// Pictures are cut out: what is behind the object is not to be learned.
    masked: bool,
    place: Placement,
    digest: String,
}

impl Scene {
    fn read(job: &Job) -> Result<Self> {
        let data = dataset::load(&job.pictures, job.up)?;
        let masked = data.has_alpha();
        let place = Placement::of(&data.train, masked)?;
        let digest = data.digest();
        Ok(Self { data, masked, place, digest })
    }
}

/// Step 0, or the newest checkpoint's with its state.
fn begin(
    job: &Job,
    scene: &Scene,
    run: &mut optimize::Run<'_>,
    reporter: &mut Reporter<'_, '_>,
) -> Result<(u32, Option<State>)> {
    if job.resume
        && let Some((checkpoint, warnings)) = Checkpoint::load_newest(&job.folder)?
    {
        verify(job, scene, &checkpoint)?;
        run.renderer.load_state(&checkpoint.state)?;
        warnings.into_iter().for_each(|w| reporter.emit(&Event::warning(w)));
        reporter.emit(&Event::Resumed { step: checkpoint.step });
        return Ok((checkpoint.step, Some(checkpoint.state)));
    }
    Checkpoint::remove_all(&job.folder)?;
    job.folder.forget_previews();
    reporter.clear_log()?;
    if job.resume {
        reporter.emit(&Event::warning("there is no checkpoint to resume; starting from the beginning"));
    }
    Ok((0, None))
}

/// A run continues only what it would itself have begun.
fn verify(job: &Job, scene: &Scene, checkpoint: &Checkpoint) -> Result<()> {
    let refuse = |reason: String| {
        Err(Error::invalid("--resume", reason).hint("leave out what differs, or start anew without --resume"))
    };
    if checkpoint.prior != scene.digest {
        return refuse("the interrupted run had other pictures".into());
    }
    let config = Config::from_toml(&checkpoint.config, "the checkpoint's configuration")?;
    let keys = config.differences(&job.config);
    if !keys.is_empty() {
        return refuse(format!("the interrupted run had another {}", keys.join(", ")));
    }
    if checkpoint.step > job.config.steps() {
        return refuse(format!("the checkpoint has {} steps", checkpoint.step));
    }
    Ok(())
}

/// Meshes the field, or takes the refined surface, in the pictures' world and writes the asset.
fn product(
    job: &Job,
    scene: &Scene,
    run: &optimize::Run<'_>,
    refined: Option<&Refinement>,
    cancel: &AtomicBool,
    timings: &mut Timings,
    reporter: &mut Reporter<'_, '_>,
) -> Result<(asset::Asset, MeshReport)> {
    reporter.emit(&Event::StageStarted { stage: Stage::Mesh });
    let place = |mesh: &mut TriMesh| {
        for p in &mut mesh.positions {
            *p = scene.place.to_world(p.as_dvec3()).as_vec3();
        }
    };
    let (mut asset, report) = match refined {
        Some(refined) => product::refined(refined, &job.config.mesh, &place, cancel)?,
        None => product::mesh(&run.renderer, &job.config.mesh, &place, cancel)?,
    };
    for part in &report.timings {
        timings.add(&format!("mesh.{:?}", part.stage).to_lowercase(), part.seconds);
    }
    product::warn(&report, reporter);
    let c = &job.config;
    let settings = json!({
        "field": c.field, "volume": c.volume, "regularize": c.regularize, "optim": c.optim,
        "adam": c.adam, "refine": c.refine, "mesh": c.mesh, "rays": optimize::rays(c),
    });
    asset.extras.insert("generator".into(), concat!("gen3d ", env!("CARGO_PKG_VERSION")).into());
    asset
        .extras
        .insert("pictures".into(), json!({ "sha256": scene.digest, "count": scene.data.train.len() }));
    asset.extras.insert("seed".into(), c.seed.into());
    asset.extras.insert("settings".into(), settings);
    reporter.emit(&Event::StageStarted { stage: Stage::Export });
    timings.time("export.save", || asset::save(&asset, job.folder.product()))?;
    Ok((asset, report))
}
