//! `gen3d train interpolate`.

use std::path::PathBuf;

use clap::Args;

use super::Bars;
use crate::error::{Error, Result};
use crate::train::interpolate::config::InterpolateTraining;
use crate::train::interpolate::{self, Places};
use crate::train::run::STOP;

/// Options of `gen3d train interpolate`.
#[derive(Debug, Args)]
pub struct InterpolateArgs {
    /// Folder of parametric recipes
    #[arg(long, default_value = "scenes/props")]
    props: PathBuf,
    /// Folder of clips to learn from, too
    #[arg(long, value_name = "DIR")]
    clips: Option<PathBuf>,
    /// Settings (TOML); what is absent keeps its default
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder of checkpoints and logs; a run there is continued
    #[arg(long, default_value = "runs/interpolate")]
    run: PathBuf,
    /// Folder that receives the weights, for `gen3d interpolate --weights`
    #[arg(long, default_value = "runs/interpolate/model")]
    out: PathBuf,
    /// Optimiser steps (overrides the settings)
    #[arg(long)]
    steps: Option<u32>,
    /// Rendered sequences (overrides the settings)
    #[arg(long)]
    sequences: Option<usize>,
    /// Key of scenes and initial weights (overrides the settings)
    #[arg(long)]
    seed: Option<u64>,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
}

/// Trains; prints the folder.
pub(super) fn run(args: InterpolateArgs) -> Result<()> {
    let mut config = match &args.config {
        None => InterpolateTraining::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
            toml::from_str(&text).map_err(|e| Error::file(path, e.to_string()))?
        }
    };
    config.steps = args.steps.unwrap_or(config.steps);
    config.sequences = args.sequences.unwrap_or(config.sequences);
    config.seed = args.seed.unwrap_or(config.seed);
    // Ctrl-C once ends the step, saves and exits; the handler may already be the command line's.
    let _ = ctrlc::set_handler(|| STOP.store(true, std::sync::atomic::Ordering::Relaxed));
    let places = Places { props: args.props, clips: args.clips, run: args.run, out: args.out };
    let mut bars = Bars::new(args.quiet);
    interpolate::train(&config, &places, &mut |stage, done, of, loss| bars.show(stage, done, of, loss))?;
    println!("{}", places.out.display());
    Ok(())
}
