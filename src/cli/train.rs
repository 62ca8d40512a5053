//! `gen3d train`: training of the embedded prior and of the evaluator, and sheets of the prior's samples.

mod control;
mod evaluator;
mod interpolate;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::train::data::split::Split;
use crate::train::data::{DataConfig, Dataset, Sample};
use crate::train::{self, Places, config::TrainConfig, samples};

/// What to train, or to show of it.
#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Train the embedded prior: autoencoder, text encoder, camera-conditioned U-Net.
    Prior(PriorArgs),
    /// Train the evaluator that `gen3d eval` judges with: pictures and captions in one space.
    Evaluator(evaluator::EvaluatorArgs),
    /// Train a `ControlNet` of the prior, which follows edges or depth.
    Control(control::ControlArgs),
    /// Train the network of `gen3d interpolate` on rendered motion.
    Interpolate(interpolate::InterpolateArgs),
    /// Draw training pictures, to look at them: a sheet, and the captions on stdout.
    Data(DataArgs),
    /// Draw a sheet of samples of a prior: one row a prompt, views around the object.
    Samples(SamplesArgs),
    /// Draw the losses of a run as an SVG picture.
    Curves(CurvesArgs),
}

/// Options of `gen3d train curves`.
#[derive(Debug, Args)]
pub struct CurvesArgs {
    /// The run's log, metrics.jsonl
    metrics: PathBuf,
    /// The picture to write (SVG)
    #[arg(long)]
    out: PathBuf,
}

/// Options of `gen3d train prior`.
#[derive(Debug, Args)]
pub struct PriorArgs {
    /// Unpacked corpus of named 3D models (a folder with manifest.csv); recipes alone if absent
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Folder of parametric recipes
    #[arg(long, default_value = "scenes/props")]
    props: PathBuf,
    /// Settings (TOML); what is absent keeps its default
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder of checkpoints and logs; a run there is continued
    #[arg(long, default_value = "runs/prior")]
    run: PathBuf,
    /// Folder that receives the model
    #[arg(long, default_value = "runs/prior/model")]
    out: PathBuf,
    /// Model folder (as --out writes) whose weights a new run starts from; its autoencoder and tokenizer are
    /// kept
    #[arg(long, value_name = "MODEL")]
    init: Option<PathBuf>,
    /// Steps of the U-Net (overrides the settings)
    #[arg(long)]
    steps: Option<u32>,
    /// Steps of the autoencoder (overrides the settings)
    #[arg(long)]
    vae_steps: Option<u32>,
    /// Pictures drawn (overrides the settings)
    #[arg(long)]
    pictures: Option<usize>,
    /// Key of data, initial weights and noise (overrides the settings)
    #[arg(long)]
    seed: Option<u64>,
    /// Where the networks are trained: the best there is, or the CPU, where the same seed gives the same
    /// bytes
    #[arg(long, default_value = "auto", value_parser = ["auto", "cpu", "cuda"])]
    device: String,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
}

/// Options of `gen3d train data`.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// Unpacked corpus of named 3D models
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Folder of parametric recipes
    #[arg(long, default_value = "scenes/props")]
    props: PathBuf,
    /// The picture to write (PNG)
    #[arg(long)]
    out: PathBuf,
    /// Number of pictures
    #[arg(long, default_value_t = 64)]
    count: u32,
    /// Index of the first
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Side of a picture in pixels
    #[arg(long, default_value_t = 64)]
    size: u32,
    /// Key of the pictures
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which side of the split between training and evaluation
    #[arg(long, value_enum, default_value = "train")]
    split: Split,
    /// Shares and weights: the `[data]` table of these training settings (TOML)
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Options of `gen3d train samples`.
#[derive(Debug, Args)]
pub struct SamplesArgs {
    /// `mini` or a folder in diffusers' layout
    #[arg(long, default_value = "mini")]
    prior: String,
    /// The picture to write (PNG)
    #[arg(long)]
    out: PathBuf,
    /// Views a prompt, evenly spaced around the object
    #[arg(long, default_value_t = 8)]
    views: u32,
    /// Denoising steps
    #[arg(long, default_value_t = 25)]
    steps: usize,
    /// Scale of classifier-free guidance
    #[arg(long, default_value_t = 3.0)]
    guidance_scale: f64,
    /// Key of the noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The prompts, one row each
    #[arg(required = true)]
    prompts: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Whatever the training reports; [`Error::Interrupted`] after Ctrl-C and a checkpoint.
pub fn run(command: TrainCommand) -> Result<()> {
    match command {
        TrainCommand::Prior(args) => prior(args),
        TrainCommand::Evaluator(args) => evaluator::run(args),
        TrainCommand::Control(args) => control::run(args),
        TrainCommand::Interpolate(args) => interpolate::run(args),
        TrainCommand::Data(args) => data(&args),
        TrainCommand::Samples(args) => sheet(&args),
        TrainCommand::Curves(args) => {
            crate::asset::replace(&args.out, train::curves::svg(&args.metrics)?.as_bytes())
        }
    }
}

fn settings(path: Option<&Path>) -> Result<TrainConfig> {
    let Some(path) = path else { return Ok(TrainConfig::default()) };
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    toml::from_str(&text).map_err(|e| Error::file(path, e.to_string()))
}

fn prior(args: PriorArgs) -> Result<()> {
    let mut config = settings(args.config.as_deref())?;
    config.unet.steps = args.steps.unwrap_or(config.unet.steps);
    config.vae.steps = args.vae_steps.unwrap_or(config.vae.steps);
    config.pictures = args.pictures.unwrap_or(config.pictures);
    config.seed = args.seed.unwrap_or(config.seed);
    // Ctrl-C once ends the step, saves and exits; the handler may already be the command line's.
    let _ = ctrlc::set_handler(|| train::run::STOP.store(true, std::sync::atomic::Ordering::Relaxed));
    let device = crate::prior::device(&args.device)?;
    let places = Places {
        corpus: args.corpus,
        props: args.props,
        run: args.run,
        out: args.out,
        init: args.init,
        device,
    };
    let mut bars = Bars::new(args.quiet);
    train::train_prior(&config, &places, &mut |stage, done, of, loss| bars.show(stage, done, of, loss))?;
    println!("{}", places.out.display());
    Ok(())
}

fn data(args: &DataArgs) -> Result<()> {
    if !(1..=4096).contains(&args.count) || !(8..=1024).contains(&args.size) {
        return Err(Error::invalid("--count, --size", "1 to 4096 pictures of 8 to 1024 pixels"));
    }
    let shares = settings(args.config.as_deref())?.data;
    shares.check()?;
    let config = DataConfig { image_size: args.size, split: args.split, ..shares };
    let data = Dataset::open(args.corpus.as_deref(), &args.props, config, args.seed)?;
    let indices = args.first..args.first + u64::from(args.count);
    let samples: Vec<Sample> = indices.into_par_iter().map(|i| data.sample(i)).collect::<Result<_>>()?;
    let columns = (f64::from(args.count).sqrt().ceil() as u32).clamp(1, 16);
    let pictures: Vec<image::RgbImage> =
        samples.iter().map(|s| samples::picture(&s.rgb, args.size)).collect();
    save(&samples::grid(&pictures, columns), &args.out)?;
    for (i, sample) in samples.iter().enumerate() {
        println!("{}\t{}", args.first + i as u64, sample.caption);
    }
    Ok(())
}

fn sheet(args: &SamplesArgs) -> Result<()> {
    let options = samples::Options {
        views: args.views,
        steps: args.steps,
        guidance_scale: args.guidance_scale,
        seed: args.seed,
    };
    let prior = crate::prior::Prior::load(&args.prior, &candle_core::Device::Cpu)?;
    save(&samples::sheet(&prior, &args.prompts, &options)?, &args.out)?;
    println!("{}", args.out.display());
    Ok(())
}

fn save(picture: &image::RgbImage, out: &Path) -> Result<()> {
    let temporary = out.with_extension("partial");
    picture
        .save_with_format(&temporary, image::ImageFormat::Png)
        .map_err(|e| Error::file(out, e.to_string()))?;
    std::fs::rename(&temporary, out).map_err(|e| Error::io(out, e))
}

/// One bar a stage, on stderr.
pub(super) struct Bars {
    quiet: bool,
    stage: String,
    bar: ProgressBar,
}

impl Bars {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, stage: String::new(), bar: ProgressBar::hidden() }
    }

    pub(super) fn show(&mut self, stage: &str, done: u32, of: u32, loss: f64) {
        if stage != self.stage {
            self.bar.finish();
            self.stage = stage.to_owned();
            let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
            self.bar = ProgressBar::with_draw_target(Some(u64::from(of)), target);
            if let Ok(style) =
                ProgressStyle::with_template("{prefix:9} [{bar:30}] {pos}/{len} {msg} eta {eta_precise}")
            {
                self.bar.set_style(style);
            }
            self.bar.set_prefix(stage.to_owned());
            // A resumed stage starts in the middle: the ETA must not count what an earlier run did.
            self.bar.set_position(u64::from(done.saturating_sub(1)));
            self.bar.reset_eta();
        }
        self.bar.set_position(u64::from(done));
        if loss > 0.0 {
            self.bar.set_message(format!("loss {loss:.4}"));
        }
    }
}
