//! `gen3d texture MODEL "a prompt" --out file.glb`: arguments into a job, the job's events into a display.

use std::ffi::OsString;
use std::path::PathBuf;

use super::generate::{Choices, cancel_on_ctrl_c};
use super::progress::{Display, Mode};
use crate::config::layers::{self, Layer};
use crate::config::{Config, presets};
use crate::generate::folder::RunFolder;
use crate::generate::{Job, prompt, texture};
use crate::{Error, Result, asset};

#[derive(Debug, clap::Args)]
pub(crate) struct TextureArgs {
    /// The model: .glb, .gltf, .obj, or a .toml recipe. Its shape stays as it is.
    model: PathBuf,
    /// What it is to look like: "a golden teapot".
    prompt: OsString,
    /// The asset to write: .glb, .obj, .ply or .usda. A folder with the same name and `.gen3d` keeps config, log,
    /// previews, checkpoints.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Continue the interrupted run of this output, with its configuration.
    #[arg(long)]
    resume: bool,
    /// Metalness and roughness, too, not the base colour alone.
    #[arg(long, help_heading = "What is computed")]
    pbr: bool,
    /// New texture coordinates even where the model's own are good.
    #[arg(long, help_heading = "What is computed")]
    unwrap: bool,
    #[command(flatten)]
    choices: Choices,
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

pub(crate) fn run(args: &TextureArgs) -> anyhow::Result<()> {
    let prompt = prompt::check(&args.prompt)?;
    let folder = RunFolder::check(&args.out)?;
    if folder.product().extension().is_some_and(|e| e.eq_ignore_ascii_case("ply")) {
        return Err(Error::invalid("--out", "a .ply has no texture")
            .hint("write .glb, .obj or .usda")
            .into());
    }
    let config = resolve(args, &folder)?;
    args.choices.threads()?;
    let model = asset::load(&args.model)?;
    let cancel = cancel_on_ctrl_c()?;
    let mut display = Display::new(Mode::of(args.quiet, args.verbose), args.json);
    let job = Job { prompt, folder, config, resume: args.resume };
    let summary = texture::run(&job, &model, &cancel, &mut |event| display.show(event));
    display.end(summary)
}

/// Presets, file and flags; a resumed run's own configuration takes the presets' place.
fn resolve(args: &TextureArgs, folder: &RunFolder) -> Result<Config> {
    let saved = folder.file("config.toml");
    let resumed = args.choices.scene().is_none() && args.resume && saved.exists();
    let mut all = match resumed {
        true => vec![Layer::read(&saved)?],
        false => {
            let mut all = presets::layers(None)?;
            all.push(texture::preset()?);
            // The default preset is there already.
            all.extend(presets::layers(args.choices.scene())?.into_iter().skip(1));
            all
        }
    };
    all.extend(args.choices.layers(resumed)?);
    let mut flag = |name: &str, key: &str, on: bool, value: toml::Value| {
        all.extend(on.then(|| Layer::one(name, key, value)));
    };
    flag("--pbr", "texture.pbr", args.pbr, true.into());
    flag("--unwrap", "texture.unwrap", args.unwrap, true.into());
    flag("--no-preview", "output.preview_every", args.no_preview, 0.into());
    flag("--no-preview", "output.history_every", args.no_preview, 0.into());
    layers::resolve(&all)
}
