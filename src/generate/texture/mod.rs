//! Materials for a given model: its shape stays, its colours are distilled from a prior.
//!
//! Colours live in a grid around the surface (`grid`), are lit at random (`paint`) so that light does not
//! become colour, rendered by the differentiable rasteriser at the vertices of a refined copy of the model
//! (`surface`), and at the end baked into a texture (`uvs`, `product`). Checkpoints, events and
//! the guide are those of the main job.

mod grid;
mod optimize;
mod paint;
mod product;
mod surface;
mod uvs;

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::event::{Event, Listener, Stage, Summary};
use super::guide::Guide;
use super::memory::Need;
use super::reporter::Reporter;
use super::timing::Timings;
use super::{Job, course, latent, memory, preview, resume};
use crate::asset::{self, Asset};
use crate::config::layers::Layer;
use crate::gpu::backend::Device;
use crate::mesh::MeshReport;
use crate::prior::files::Folder;
use crate::prior::footprint::Footprint;
use crate::render::sheet::{Views, contact_sheet, views};
use crate::{Error, Result};
use optimize::Run;
use surface::{Placement, Surface};

/// The prior's weights in f32 and the activations of a step, rounded up.
const PRIOR: u64 = 1 << 30;

/// The configuration's layer above the defaults and below files and flags.
///
/// # Errors
/// Never: the text is part of the program.
pub fn preset() -> Result<Layer> {
    Layer::parse(include_str!("../../../scenes/texture.toml"), "scenes/texture.toml")
}

/// Paints `model` with the prior and on the device that the job's configuration names.
///
/// # Errors
/// A model without extent or that cannot be unwrapped; otherwise as [`super::run`].
pub fn run(job: &Job, model: &Asset, cancel: &AtomicBool, listener: &mut Listener<'_>) -> Result<Summary> {
    let prior = Folder::named(&job.config.prior)?;
    let need = Need::of(&job.config, &Footprint::of(&prior)?);
    let (device, choice) = crate::gpu::open(&job.config.device.parse()?)?;
    listener(&Event::Device { name: device.name(), reason: choice.reason });
    let mut timings = Timings::default();
    listener(&Event::StageStarted { stage: Stage::Prior });
    let load = || latent::LatentGuide::load(&job.config, &job.prompt, &prior, need);
    let mut guide = timings.time("prior.load", load)?;
    drop(prior);
    for warning in super::warnings(job, &guide) {
        listener(&warning);
    }
    run_with(job, model, &device, &mut guide, timings, cancel, listener)
}

/// Paints `model` under any guide; `timings` holds what was spent before.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    job: &Job,
    model: &Asset,
    device: &Device,
    guide: &mut dyn Guide,
    mut timings: Timings,
    cancel: &AtomicBool,
    listener: &mut Listener<'_>,
) -> Result<Summary> {
    let start = Instant::now();
    let before = timings.total();
    let c = &job.config;
    let placement = Placement::of(model)?;
    // Two vertices a cell of the finest grid, so that none of its numbers is left without a say.
    let edge = 0.65 * 2.0 / c.texture.resolution as f32;
    let surface = timings.time("texture.refine", || Surface::new(model, &placement, edge))?;
    memory::require(Run::memory(c, &surface) + PRIOR + 72 * u64::from(c.mesh.texture_size).pow(2))
        .map_err(|e| e.hint("lower camera.size, camera.views, texture.resolution or mesh.texture_size"))?;
    let fault = uvs::fault(model);
    let keep = fault.is_none() && !c.texture.unwrap;
    // What cannot be unwrapped fails before the work, not after it.
    let mut painted =
        timings.time("mesh.unwrap", || uvs::laid(model, keep, c.mesh.texture_size, c.mesh.padding))?;
    job.folder.create()?;
    let mut reporter = Reporter::new(&job.folder, listener);
    let identity = format!("{} on the model {}", guide.identity(), digest(model));
    let first = resume::newest(job, &identity, &mut reporter)?;
    let mut run = Run::new(job, &surface, device, guide, identity)?;
    let first = match first {
        Some(checkpoint) => {
            run.load_state(&checkpoint.state)?;
            reporter.emit(&Event::Resumed { step: checkpoint.step });
            checkpoint.step
        }
        None => 0,
    };
    if let Some(fault) = fault.filter(|_| model.meshes.iter().any(|m| !m.uvs.is_empty())) {
        let text = format!("the model's own texture coordinates are not used: {fault}");
        reporter.emit(&Event::warning(text));
    }
    asset::replace(&job.folder.file("config.toml"), c.to_toml()?.as_bytes())?;
    reporter.emit(&Event::Started {
        what: job.prompt.clone(),
        device: device.name(),
        steps: c.optim.steps,
        seed: c.seed,
    });
    reporter.emit(&Event::StageStarted { stage: Stage::Optimize });
    course::follow(&mut run, first, (c, &job.folder), cancel, &mut timings, &mut reporter)?;
    reporter.emit(&Event::StageStarted { stage: Stage::Export });
    timings.time("export.bake", || product::paint(&mut painted, &run.grid, &placement, c));
    painted.extras = extras(job, model, &run.guide.identity());
    let path = job.folder.product();
    timings.time("export.save", || asset::save_with(&painted, path, &c.export)).map_err(saved)?;
    let written = timings.time("export.sheet", || sheet(job, &painted));
    reporter.survive(written);
    let summary = Summary {
        output: path.to_owned(),
        run_folder: job.folder.path().to_owned(),
        mesh: report(&painted),
        others: Vec::new(),
        bytes: std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len(),
        seconds: before + start.elapsed().as_secs_f64(),
        peak_memory: memory::peak(),
        timings: timings.into_vec(),
    };
    reporter.emit(&Event::Finished(summary.clone()));
    Ok(summary)
}

fn saved(e: Error) -> Error {
    // Everything but the last step is in the checkpoint.
    let hint = "the optimised colours are saved: free some space and run again with --resume";
    if e.hint_text().is_some() { e } else { e.hint(hint) }
}

fn sheet(job: &Job, asset: &Asset) -> Result<()> {
    let options = Views { count: 8, size: job.config.output.sheet_size, ..Views::default() };
    let picture = contact_sheet(&views(asset, &options), 4);
    asset::replace(&job.folder.file("sheet.png"), &preview::png(&picture)?)
}

fn report(asset: &Asset) -> MeshReport {
    MeshReport {
        triangles: asset.triangle_count(),
        vertices: asset.meshes.iter().map(|m| m.positions.len()).sum(),
        ..MeshReport::default()
    }
}

/// Which shape it is: positions, normals and triangles.
fn digest(model: &Asset) -> String {
    let mut hash = Sha256::new();
    for mesh in &model.meshes {
        hash.update((mesh.positions.len() as u64).to_le_bytes());
        hash.update(bytemuck::cast_slice::<_, u8>(&mesh.positions));
        hash.update(bytemuck::cast_slice::<_, u8>(&mesh.normals));
        hash.update(bytemuck::cast_slice::<_, u8>(&mesh.triangles));
    }
    hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// What the asset says of its origin, beside what the model said already.
fn extras(job: &Job, model: &Asset, prior: &str) -> serde_json::Map<String, serde_json::Value> {
    let c = &job.config;
    let mut extras = serde_json::Map::new();
    extras.insert("generator".into(), concat!("gen3d ", env!("CARGO_PKG_VERSION")).into());
    extras.insert("prompt".into(), job.prompt.clone().into());
    extras.insert("seed".into(), c.seed.into());
    extras.insert("prior".into(), json!({ "name": c.prior, "sha256": prior }));
    extras.insert("method".into(), json!(c.method));
    extras.insert("model".into(), json!({ "sha256": digest(model), "extras": model.extras }));
    let settings = json!({
        "camera": c.camera, "sds": c.sds, "vsd": c.vsd, "optim": c.optim, "adam": c.adam,
        "texture": c.texture, "texture_size": c.mesh.texture_size,
    });
    extras.insert("settings".into(), settings);
    extras
}
