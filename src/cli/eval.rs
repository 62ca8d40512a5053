//! `gen3d eval`: assets and priors before an independent judge.

mod consistency;
mod interpolate;
mod methods;
mod r_precision;
mod video;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use image::RgbImage;

use crate::error::{Error, Result};
use crate::evaluate::{Evaluator, files};
use crate::prior::Prior;
use crate::train::samples;

/// What to judge.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Of a list of captions, is its own the nearest to each thing?
    RPrecision(r_precision::RPrecisionArgs),
    /// Does the side that is seen advance as the camera goes around, or does a face repeat?
    Consistency(consistency::ConsistencyArgs),
    /// Methods against each other over many prompts and seeds: one table, made and judged, resumable.
    Methods(methods::MethodsArgs),
    /// How steady an edited clip is, and how much it left as it was.
    Video(video::VideoArgs),
    /// How near interpolated frames come to those that a clip really has.
    Interpolate(interpolate::InterpolateArgs),
}

/// Runs the command.
///
/// # Errors
/// Files that are missing or damaged, and arguments that cannot be used.
pub(super) fn run(command: EvalCommand) -> Result<()> {
    match command {
        EvalCommand::RPrecision(args) => r_precision::run(&args),
        EvalCommand::Consistency(args) => consistency::run(&args),
        EvalCommand::Methods(args) => methods::run(&args),
        EvalCommand::Video(args) => video::run(&args),
        EvalCommand::Interpolate(args) => interpolate::run(&args),
    }
}

/// Options of all of them.
#[derive(Debug, Args)]
struct Common {
    /// Folder of the evaluator (see `gen3d train evaluator`)
    #[arg(long, default_value = "models/evaluator", value_name = "DIR")]
    evaluator: PathBuf,
    /// Also write all numbers to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
}

impl Common {
    fn open(&self) -> Result<Evaluator> {
        files::load(&self.evaluator)
    }

    fn write_json(&self, value: &serde_json::Value) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        crate::asset::replace(path, format!("{value:#}\n").as_bytes())
    }
}

/// How plain samples of a prior are drawn.
#[derive(Debug, Args)]
struct Sampling {
    /// Denoising steps of a prior's samples
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    /// Scale of classifier-free guidance of a prior's samples
    #[arg(long, default_value_t = 3.0)]
    guidance_scale: f64,
    /// Key of the noise, and of what --truth draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Sampling {
    /// Pictures of a caption at `views` equal steps around it; `row` keys the noise.
    fn pictures(&self, prior: &Prior, caption: &str, views: u32, row: usize) -> Result<Vec<RgbImage>> {
        let options = samples::Options {
            views,
            steps: self.steps.into(),
            guidance_scale: self.guidance_scale,
            seed: self.seed,
        };
        samples::views(prior, caption, &options, row as u32)
    }
}

fn load_prior(name: &str) -> Result<Prior> {
    Prior::load(name, &crate::prior::accelerator()?)
}

/// Endings of the models that can be judged.
const ENDINGS: [&str; 4] = ["glb", "gltf", "obj", "toml"];

/// The models of a folder, by name.
fn models_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))?;
    let model = |p: &PathBuf| {
        let ending = p.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        p.is_file() && ENDINGS.contains(&ending.as_str())
    };
    let mut found: Vec<PathBuf> = files.filter_map(|f| Some(f.ok()?.path())).filter(model).collect();
    found.sort();
    Ok(found)
}

/// A line on stdout; whoever closed the pipe has seen enough.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |s| format!("{:.1} %", 100.0 * s))
}
