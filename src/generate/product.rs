//! From the optimised field to the files.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use glam::Vec3;
use serde_json::json;

use super::event::{Event, Stage};
use super::optimize::Run;
use super::reporter::Reporter;
use super::timing::Timings;
use super::{Job, preview};
use crate::asset::{self, Asset};
use crate::mesh::{
    self, ColorFn, DensityFn, MeshOptions, MeshReport, TriMesh, build_from_surface, build_placed,
    place::rest_on_ground,
};
use crate::refine::Refinement;
use crate::render::sheet::{Views, contact_sheet, views};
use crate::render::volume::VolumeRenderer;
use crate::{Error, Result};

/// What was written.
pub(super) struct Product {
    pub(super) mesh: MeshReport,
    pub(super) bytes: u64,
    /// The other particles' assets.
    pub(super) others: Vec<PathBuf>,
}

/// Meshes the fields and writes the assets: the first particle's under the product's name.
pub(super) fn make(
    run: &Run<'_>,
    cancel: &AtomicBool,
    timings: &mut Timings,
    reporter: &mut Reporter<'_, '_>,
) -> Result<Product> {
    let first = one(run, 0, cancel, timings, reporter)?;
    let bytes =
        fs::metadata(run.job.folder.product()).map_err(|e| Error::io(run.job.folder.product(), e))?.len();
    let mut others = Vec::new();
    for particle in 1..run.particles.len() {
        one(run, particle, cancel, timings, reporter)?;
        others.push(run.job.folder.particle(particle));
    }
    Ok(Product { mesh: first, bytes, others })
}

fn one(
    run: &Run<'_>,
    particle: usize,
    cancel: &AtomicBool,
    timings: &mut Timings,
    reporter: &mut Reporter<'_, '_>,
) -> Result<MeshReport> {
    let job = run.job;
    reporter.emit(&Event::StageStarted { stage: Stage::Mesh });
    let options = &job.config.mesh;
    let place = |mesh: &mut TriMesh| rest_on_ground(mesh, options.size);
    let (mut asset, report) = match run.surfaces.get(particle) {
        Some(surface) => refined(surface, options, &place, cancel)?,
        None => mesh(&run.particles[particle], options, &place, cancel)?,
    };
    for part in &report.timings {
        timings.add(&format!("mesh.{:?}", part.stage).to_lowercase(), part.seconds);
    }
    warn(&report, reporter);
    asset.extras = extras(run, particle);
    reporter.emit(&Event::StageStarted { stage: Stage::Export });
    let path = job.folder.particle(particle);
    let saved = timings.time("export.save", || asset::save_with(&asset, &path, &job.config.export));
    saved.map_err(|e| {
        // Everything but the last step is in the checkpoint.
        let hint = "the optimised field is saved: free some space and run again with --resume";
        if e.hint_text().is_some() { e } else { e.hint(hint) }
    })?;
    let written = timings.time("export.sheet", || sheet(job, &asset, particle));
    reporter.survive(written);
    Ok(report)
}

/// `sheet.png`: the asset from eight sides, drawn as any viewer would.
fn sheet(job: &Job, asset: &Asset, particle: usize) -> Result<()> {
    let options = Views { count: 8, size: job.config.output.sheet_size, ..Views::default() };
    let picture = contact_sheet(&views(asset, &options), 4);
    let name = if particle == 0 { "sheet.png".into() } else { format!("sheet-{}.png", particle + 1) };
    asset::replace(&job.folder.file(&name), &preview::png(&picture)?)
}

/// The field's surface, unwrapped, textured and moved by `place`.
pub(crate) fn mesh(
    renderer: &VolumeRenderer,
    options: &MeshOptions,
    place: &dyn Fn(&mut TriMesh),
    cancel: &AtomicBool,
) -> Result<(Asset, MeshReport)> {
    asked(renderer, cancel, |density, color, stop| build_placed(density, color, options, place, stop))
}

/// The field's closed surface alone, in its own space: where a second stage begins.
pub(crate) fn surface(
    renderer: &VolumeRenderer,
    options: &MeshOptions,
    cancel: &AtomicBool,
) -> Result<TriMesh> {
    asked(renderer, cancel, |density, _, stop| Ok(mesh::surface(density, options, stop)?.0))
}

/// A refined surface, unwrapped, textured by its paint and moved by `place`.
pub(crate) fn refined(
    refinement: &Refinement,
    options: &MeshOptions,
    place: &dyn Fn(&mut TriMesh),
    cancel: &AtomicBool,
) -> Result<(Asset, MeshReport)> {
    let fine = refinement.mesh()?;
    asked(&refinement.paint, cancel, |_, color, stop| build_from_surface(&fine, color, options, place, stop))
}

/// What hears of a mesher's progress and may stop it.
type Stop<'a> = dyn FnMut(crate::mesh::Stage, f32) -> Result<()> + 'a;

/// Runs a mesher over the field's density and colour.
fn asked<T>(
    renderer: &VolumeRenderer,
    cancel: &AtomicBool,
    build: impl FnOnce(DensityFn<'_>, ColorFn<'_>, &mut Stop<'_>) -> Result<T>,
) -> Result<T> {
    // The mesher's callbacks cannot fail: the first failure is kept, ends the work at the next
    // report of progress, and is what the user hears of.
    let failure = Mutex::new(None);
    let density = |points: &[Vec3]| kept(renderer.density(points), &failure, points.len(), 0.0);
    let color = |points: &[Vec3]| kept(renderer.color(points), &failure, points.len(), Vec3::ZERO);
    let mut stop = |_, _| match (lock(&failure).take(), cancel.load(Ordering::Relaxed)) {
        (Some(e), _) => Err(e),
        (None, true) => Err(Error::Interrupted),
        (None, false) => Ok(()),
    };
    let built = build(&density, &color, &mut stop);
    match lock(&failure).take() {
        Some(e) => Err(e),
        None => built,
    }
}

fn kept<T: Clone>(answer: Result<Vec<T>>, failure: &Mutex<Option<Error>>, n: usize, filler: T) -> Vec<T> {
    answer.unwrap_or_else(|e| {
        lock(failure).get_or_insert(e);
        vec![filler; n]
    })
}

fn lock(failure: &Mutex<Option<Error>>) -> MutexGuard<'_, Option<Error>> {
    // A poisoned lock holds an option all the same.
    failure.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the user should know of the surface.
pub(crate) fn warn(report: &MeshReport, reporter: &mut Reporter<'_, '_>) {
    if report.touches_box {
        reporter.emit(&Event::warning("the surface reaches the end of the field's box and is cut off there"));
    }
    if !(report.watertight && report.manifold) {
        reporter.emit(&Event::warning("the surface is not a closed manifold"));
    }
}

/// What the asset says of its origin. Nothing here depends on the machine, the clock or the
/// device: equal fields give equal bytes.
fn extras(run: &Run<'_>, particle: usize) -> serde_json::Map<String, serde_json::Value> {
    let (job, c) = (run.job, &run.job.config);
    let settings = json!({
        "camera": c.camera, "field": c.field, "volume": c.volume, "sds": c.sds,
        "vsd": c.vsd, "shading": c.shading,
        "regularize": c.regularize, "optim": c.optim, "adam": c.adam, "refine": c.refine, "mesh": c.mesh,
    });
    let mut extras = serde_json::Map::new();
    extras.insert("generator".into(), concat!("gen3d ", env!("CARGO_PKG_VERSION")).into());
    extras.insert("prompt".into(), job.prompt.clone().into());
    extras.insert("seed".into(), c.seed.into());
    extras.insert("prior".into(), json!({ "name": c.prior, "sha256": run.guide.identity() }));
    extras.insert("method".into(), json!(c.method));
    if run.particles.len() > 1 {
        extras.insert("particle".into(), particle.into());
    }
    if run.health.attempts() > 0 {
        extras.insert("attempt".into(), run.health.attempts().into());
    }
    extras.insert("settings".into(), settings);
    extras
}
