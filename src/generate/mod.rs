//! The optimisation loop: stages, checkpoints, events, previews.
//!
//! [`run`] turns a [`Job`] into files and a stream of [`event::Event`]s. It prints nothing; whoever
//! calls it decides what to show.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::config::{Config, Latents};
use crate::gpu::backend::Device;
use crate::prior::files::Folder;
use crate::prior::footprint::Footprint;
use crate::{Result, asset};

pub mod batch;
pub mod checkpoint;
pub(crate) mod course;
pub mod event;
pub mod folder;
pub mod guide;
mod health;
pub(crate) mod history;
mod latent;
mod linear;
pub(crate) mod memory;
mod normals;
pub(crate) mod optimize;
pub(crate) mod pace;
pub(crate) mod penalty;
pub(crate) mod picture;
pub(crate) mod preview;
pub(crate) mod product;
pub mod prompt;
mod refine;
pub(crate) mod reporter;
mod resize;
mod resume;
mod rig;
mod shade;
mod sketch;
pub mod texture;
pub mod timing;
mod words;

use event::{Event, Listener, Stage, Summary};
use folder::RunFolder;
use guide::Guide;
use memory::Need;
use reporter::Reporter;
use timing::Timings;

/// What to make, and where.
#[derive(Debug, Clone)]
pub struct Job {
    /// The prompt, checked by [`prompt::check`].
    pub prompt: String,
    /// The product and the folder beside it, checked by [`RunFolder::check`].
    pub folder: RunFolder,
    /// The resolved configuration.
    pub config: Config,
    /// Continue from the newest checkpoint.
    pub resume: bool,
}

/// Runs a job with the prior and on the device that its configuration names.
///
/// # Errors
/// Unknown prior or device, not enough memory, a damaged file, a full disk, an optimisation that
/// diverged; [`crate::Error::Interrupted`] when `cancel` became true and a checkpoint was saved.
pub fn run(job: &Job, cancel: &AtomicBool, listener: &mut Listener<'_>) -> Result<Summary> {
    sketch::check(&job.config.sketch)?;
    let prior = Folder::named(&job.config.prior)?;
    let need = Need::of(&job.config, &Footprint::of(&prior)?);
    memory::require(need.total())?;
    let (device, choice) = crate::gpu::open(&job.config.device.parse()?)?;
    listener(&Event::Device { name: device.name(), reason: choice.reason });
    listener(&Event::Memory { field: need.field, prior: need.prior, available: memory::available() });
    let mut timings = Timings::default();
    listener(&Event::StageStarted { stage: Stage::Prior });
    let load = || latent::LatentGuide::load(&job.config, &job.prompt, &prior, need);
    let mut guide = timings.time("prior.load", load)?;
    drop(prior);
    for warning in warnings(job, &guide) {
        listener(&warning);
    }
    run_with(job, &device, &mut guide, timings, cancel, listener)
}

/// Runs a job under any guide; `timings` holds what was spent before.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    job: &Job,
    device: &Device,
    guide: &mut dyn Guide,
    mut timings: Timings,
    cancel: &AtomicBool,
    listener: &mut Listener<'_>,
) -> Result<Summary> {
    let start = Instant::now();
    let before: f64 = timings.total();
    job.folder.create()?;
    let mut reporter = Reporter::new(&job.folder, listener);
    let mut run = optimize::Run::new(job, device, guide, cancel)?;
    let first = resume::begin(job, &mut run, &mut reporter)?;
    asset::replace(&job.folder.file("config.toml"), job.config.to_toml()?.as_bytes())?;
    reporter.emit(&Event::Started {
        what: job.prompt.clone(),
        device: device.name(),
        steps: job.config.steps(),
        seed: job.config.seed,
    });
    if job.config.optim.steps > 0 {
        reporter.emit(&Event::StageStarted { stage: Stage::Optimize });
    }
    run.optimize(first, &mut timings, &mut reporter)?;
    run.refine(first, &mut timings, &mut reporter)?;
    let finished = product::make(&run, cancel, &mut timings, &mut reporter)?;
    let summary = Summary {
        output: job.folder.product().to_owned(),
        run_folder: job.folder.path().to_owned(),
        mesh: finished.mesh,
        others: finished.others,
        bytes: finished.bytes,
        peak_memory: memory::peak(),
        seconds: before + start.elapsed().as_secs_f64(),
        timings: timings.into_vec(),
    };
    reporter.emit(&Event::Finished(summary.clone()));
    Ok(summary)
}

/// What the prior will not understand.
fn warnings(job: &Job, guide: &latent::LatentGuide) -> Vec<Event> {
    let mut out = Vec::new();
    if let Some(words) = guide.strangers(&job.prompt) {
        out.push(Event::Warning {
            message: format!("the prior has not learned {words}; the result may ignore it"),
            hint: Some("`gen3d models words` lists what it has learned; or take another --prior".into()),
        });
    }
    let c = &job.config;
    let size = match (c.sds.latents, c.sds.prior_size) {
        (Latents::Linear, _) => c.camera.size * guide.factor(),
        (Latents::Encoder, 0) => c.camera.size,
        (Latents::Encoder, size) => size,
    };
    let trained = guide.picture_size();
    if size != trained {
        let message = format!("the prior was trained on pictures of {trained} pixels, these are of {size}");
        out.push(Event::warning(message));
    }
    out
}
