//! `gen3d train control`.

use std::path::PathBuf;

use clap::Args;

use super::Bars;
use crate::error::{Error, Result};
use crate::train::control::{self, config::ControlTraining, config::Kind};
use crate::train::{Places, run::STOP};

/// Options of `gen3d train control`.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// What steers (overrides the settings)
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// The prior to steer: `mini` or a folder written by `gen3d train prior`
    #[arg(long, default_value = "mini", value_name = "NAME")]
    prior: String,
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
    #[arg(long, default_value = "runs/control")]
    run: PathBuf,
    /// Folder that receives the `ControlNet`, for `gen3d image --controlnet`
    #[arg(long, default_value = "runs/control/model")]
    out: PathBuf,
    /// Optimiser steps (overrides the settings)
    #[arg(long)]
    steps: Option<u32>,
    /// Pictures drawn (overrides the settings)
    #[arg(long)]
    pictures: Option<usize>,
    /// Key of data and noise (overrides the settings)
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

/// Trains; prints the folder.
pub(super) fn run(args: ControlArgs) -> Result<()> {
    let mut config = match &args.config {
        None => ControlTraining::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
            toml::from_str(&text).map_err(|e| Error::file(path, e.to_string()))?
        }
    };
    config.kind = args.kind.unwrap_or(config.kind);
    config.steps = args.steps.unwrap_or(config.steps);
    config.pictures = args.pictures.unwrap_or(config.pictures);
    config.seed = args.seed.unwrap_or(config.seed);
    // Ctrl-C once ends the step, saves and exits; the handler may already be the command line's.
    let _ = ctrlc::set_handler(|| STOP.store(true, std::sync::atomic::Ordering::Relaxed));
    let device = crate::prior::device(&args.device)?;
    let places =
        Places { corpus: args.corpus, props: args.props, run: args.run, out: args.out, init: None, device };
    let mut bars = Bars::new(args.quiet);
    control::train(&config, &args.prior, &places, &mut |stage, done, of, loss| {
        bars.show(stage, done, of, loss);
    })?;
    println!("{}", places.out.display());
    Ok(())
}
