//! `gen3d fit FOLDER --out file.glb`: arguments into a job, the job's events into a display.

use std::path::PathBuf;

use super::generate::cancel_on_ctrl_c;
use super::progress::{Display, Mode};
use crate::Result;
use crate::config::Config;
use crate::config::layers::{self, Layer};
use crate::fit::dataset::Up;
use crate::fit::{self, Job};
use crate::generate::folder::RunFolder;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Posed pictures: a folder with transforms.json or transforms_train.json (the layouts of instant-ngp
    /// and NeRF-synthetic), or such a file. `gen3d render MODEL --dataset FOLDER` makes one.
    folder: PathBuf,
    /// The asset to write: .glb, .obj or .ply, in the size and place of the pictures' world. A folder with
    /// the same name and `.gen3d` keeps config, log, previews, checkpoints.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Continue the interrupted run of this output, with its configuration.
    #[arg(long)]
    resume: bool,
    /// The axis that points up in the poses' world.
    #[arg(long, value_name = "AXIS", default_value = "z")]
    up: Up,
    /// The true model, if it is known: the Chamfer distance to it is measured.
    #[arg(long, value_name = "MODEL")]
    truth: Option<PathBuf>,

    /// Settings over those of scenes/fit.toml.
    #[arg(long, value_name = "FILE", help_heading = "What is computed")]
    scene: Option<PathBuf>,
    /// Optimisation steps.
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "What is computed")]
    steps: Option<i64>,
    /// Seed of every random number; the same seed gives the same bytes on the same device [default: 0].
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "What is computed")]
    seed: Option<i64>,
    /// Any key of the configuration (scenes/default.toml lists them), for example
    /// `--set mesh.resolution=256`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "What is computed")]
    set: Vec<String>,

    /// auto, cpu, vulkan, or a part of an adapter's name [default: auto].
    #[arg(long, value_name = "NAME", help_heading = "Where and how")]
    device: Option<String>,
    /// Threads of the CPU [default: all]; the result does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Where and how")]
    threads: Option<u16>,
    /// No previews.
    #[arg(long, help_heading = "Where and how")]
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

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = RunFolder::check(&args.out)?;
    let config = resolve(args, &folder)?;
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    let cancel = cancel_on_ctrl_c()?;
    let mut display = Display::new(Mode::of(args.quiet, args.verbose), args.json);
    let (pictures, truth) = (args.folder.clone(), args.truth.clone());
    let job = Job { pictures, up: args.up, folder, config, resume: args.resume, truth };
    let summary = fit::run(&job, &cancel, &mut |event| display.show(event));
    display.end(summary)
}

/// Preset, file and flags; a resumed run's own configuration takes the preset's place.
fn resolve(args: &Args, folder: &RunFolder) -> Result<Config> {
    let saved = folder.file("config.toml");
    let mut all = match args.resume && saved.exists() {
        true => vec![Layer::read(&saved)?],
        false => vec![fit::preset()?],
    };
    if let Some(scene) = &args.scene {
        all.push(Layer::read(scene)?);
    }
    for text in &args.set {
        all.push(Layer::assignment(text)?);
    }
    let mut flag = |name: &str, key: &str, value: Option<toml::Value>| {
        all.extend(value.map(|v| Layer::one(name, key, v)));
    };
    flag("--steps", "optim.steps", args.steps.map(Into::into));
    flag("--seed", "seed", args.seed.map(Into::into));
    flag("--device", "device", args.device.clone().map(Into::into));
    flag("--no-preview", "output.preview_every", args.no_preview.then(|| 0.into()));
    flag("--no-preview", "output.history_every", args.no_preview.then(|| 0.into()));
    layers::resolve(&all)
}
