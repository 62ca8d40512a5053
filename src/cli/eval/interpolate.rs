//! `gen3d eval interpolate`: frames that were left out, made again.

use std::path::PathBuf;

use clap::Args;

use super::say;
use crate::error::{Error, Result};
use crate::video::interpolate::{IfNet, score};

/// Arguments of `gen3d eval interpolate`.
#[derive(Debug, Args)]
pub(crate) struct InterpolateArgs {
    /// Clips
    #[arg(required = true)]
    clips: Vec<PathBuf>,
    /// Weights, as for `gen3d interpolate`
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Look at every N-th triple of successive frames
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Also write all numbers to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &InterpolateArgs) -> Result<()> {
    let net = match &args.weights {
        Some(path) => IfNet::load(path)?,
        None => IfNet::own()?,
    };
    say(&format!("{:>8} {:>12} {:>12}  clip", "triples", "PSNR, dB", "of average"));
    let mut all = serde_json::Map::new();
    for clip in &args.clips {
        let one = score(&net, clip, args.every as usize)?;
        say(&format!(
            "{:>8} {:>12.2} {:>12.2}  {}",
            one.triples,
            one.psnr,
            one.psnr_of_average,
            clip.display()
        ));
        let value = serde_json::to_value(&one).map_err(|e| Error::Failed(e.to_string()))?;
        all.insert(clip.display().to_string(), value);
    }
    let Some(path) = &args.json else { return Ok(()) };
    crate::asset::replace(path, format!("{:#}\n", serde_json::Value::Object(all)).as_bytes())
}
