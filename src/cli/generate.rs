//! `gen3d "a prompt" --out file.glb`: arguments into a job, the job's events into a display.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::progress::{Display, Mode};
use crate::config::layers::{self, Layer};
use crate::config::{Config, methods, presets};
use crate::generate::folder::RunFolder;
use crate::generate::{Job, prompt};
use crate::{Error, Result};

// The group tells a bare prompt from a subcommand; beside a flattened part it has to name its members.
#[derive(Debug, clap::Args)]
#[group(args = ["prompt", "out"])]
pub(crate) struct Args {
    /// What to make: a noun with its colours and materials, or "one thing on another".
    prompt: OsString,
    /// The asset to write: .glb, .obj, .ply or .usda. An existing file is replaced when the new one is
    /// complete; a folder with the same name and `.gen3d` keeps config, log, previews, checkpoints.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Continue the interrupted run of this output, with its configuration.
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    choices: Choices,
    /// Refresh `preview.png` during the run, and add rows to `history.png` (the default).
    #[arg(long, overrides_with = "no_preview", help_heading = "Where and how")]
    preview: bool,
    /// No previews.
    #[arg(long, overrides_with = "preview", help_heading = "Where and how")]
    no_preview: bool,
    /// Only errors on stderr.
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Where and how")]
    quiet: bool,
    /// A table of where the time went.
    #[arg(short, long, help_heading = "Where and how")]
    verbose: bool,
    /// Events on stdout, one JSON object a line, instead of the product's path.
    #[arg(long, help_heading = "Where and how")]
    json: bool,
}

/// What is computed, and where: shared by a run and a batch.
#[derive(Debug, clap::Args)]
pub(crate) struct Choices {
    /// A preset (default, draft, fine) or a .toml file.
    #[arg(long, value_name = "NAME|FILE", help_heading = "What is computed")]
    scene: Option<String>,
    /// Optimisation steps [default: 1200].
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "What is computed")]
    steps: Option<i64>,
    /// Seed of every random number; the same seed gives the same bytes on the same device [default: 0].
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "What is computed")]
    seed: Option<i64>,
    /// `mini` (embedded) or a folder in the diffusers layout [default: mini].
    #[arg(long, value_name = "NAME|DIR", help_heading = "What is computed")]
    prior: Option<String>,
    /// How the prior guides: a loss (sds, sjc, vsd, csd, nfsd, ism) or a system with its settings
    /// (dreamfusion, sjc, latent-nerf, magic3d, fantasia3d, prolificdreamer, hifa, luciddreamer; some also with
    /// `-original` for the numbers of their authors; for `gen3d texture` latent-paint) [default: sds].
    #[arg(long, value_name = "NAME", help_heading = "What is computed")]
    method: Option<String>,
    /// Strength of classifier-free guidance [default: 1.5].
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = "What is computed")]
    guidance_scale: Option<f64>,
    /// A rough closed mesh (.obj, .glb) whose shape the asset keeps to; `--set sketch.leniency=…` says how closely.
    #[arg(long, value_name = "FILE", help_heading = "What is computed")]
    sketch: Option<String>,
    /// Any key of the configuration (scenes/default.toml lists them), for example
    /// `--set camera.views=8`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "What is computed")]
    set: Vec<String>,

    /// auto, cpu, vulkan, or a part of an adapter's name [default: auto].
    #[arg(long, value_name = "NAME", help_heading = "Where and how")]
    device: Option<String>,
    /// Threads of the CPU [default: all]; the result does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Where and how")]
    threads: Option<u16>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let prompt = prompt::check(&args.prompt)?;
    let folder = RunFolder::check(&args.out)?;
    let config = resolve(args, &folder)?;
    args.choices.threads()?;
    let cancel = cancel_on_ctrl_c()?;
    let mut display = Display::new(Mode::of(args.quiet, args.verbose), args.json);
    let job = Job { prompt, folder, config, resume: args.resume };
    let summary = crate::generate::run(&job, &cancel, &mut |event| display.show(event));
    display.end(summary)
}

/// Presets, file and flags; a resumed run's own configuration takes the presets' place.
fn resolve(args: &Args, folder: &RunFolder) -> Result<Config> {
    let saved = folder.file("config.toml");
    let resumed = args.choices.scene().is_none() && args.resume && saved.exists();
    let mut all = match args.choices.scene() {
        None if resumed => vec![Layer::read(&saved)?],
        scene => presets::layers(scene)?,
    };
    all.extend(args.choices.layers(resumed)?);
    if args.no_preview {
        all.push(Layer::one("--no-preview", "output.preview_every", 0));
        all.push(Layer::one("--no-preview", "output.history_every", 0));
    }
    layers::resolve(&all)
}

impl Choices {
    /// The preset or file that was asked for.
    pub(crate) fn scene(&self) -> Option<&str> {
        self.scene.as_deref()
    }

    /// The method and the flags, as layers over the presets; `resumed`: over a run's own configuration.
    pub(crate) fn layers(&self, resumed: bool) -> Result<Vec<Layer>> {
        let mut out = Vec::new();
        if let Some(method) = &self.method {
            out.push(methods::layer(method, resumed)?);
        }
        for text in &self.set {
            out.push(Layer::assignment(text)?);
        }
        let mut flag = |name: &str, key: &str, value: Option<toml::Value>| {
            out.extend(value.map(|v| Layer::one(name, key, v)));
        };
        flag("--steps", "optim.steps", self.steps.map(Into::into));
        flag("--seed", "seed", self.seed.map(Into::into));
        flag("--prior", "prior", self.prior.clone().map(Into::into));
        flag("--sketch", "sketch.file", self.sketch.clone().map(Into::into));
        flag("--guidance-scale", "sds.guidance_scale", self.guidance_scale.map(Into::into));
        flag("--device", "device", self.device.clone().map(Into::into));
        Ok(out)
    }

    /// Sets the number of threads of this process.
    pub(crate) fn threads(&self) -> anyhow::Result<()> {
        if let Some(threads) = self.threads {
            rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
        }
        Ok(())
    }
}

/// The first Ctrl-C asks the run to save and stop, the second stops it at once.
pub(crate) fn cancel_on_ctrl_c() -> Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        super::report::warning("stopping after this step; Ctrl-C again stops at once", None);
    };
    ctrlc::set_handler(handler).map_err(|e| Error::Failed(format!("cannot catch Ctrl-C: {e}")))?;
    Ok(cancel)
}
