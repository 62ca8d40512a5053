//! `gen3d eval video`: an edited clip beside its source.

use std::path::PathBuf;

use clap::Args;

use super::say;
use crate::error::{Error, Result};
use crate::video::metrics::{Scores, compare};

/// Arguments of `gen3d eval video`.
#[derive(Debug, Args)]
pub(crate) struct VideoArgs {
    /// The edited clip
    edit: PathBuf,
    /// The clip it was made from
    #[arg(long, value_name = "FILE")]
    source: PathBuf,
    /// A clip or picture that is white where the edit was meant to happen
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Frames of the editor's windows, to look for seams between them (0: do not)
    #[arg(long, value_name = "N", default_value_t = 8)]
    window: usize,
    /// Also write all numbers to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &VideoArgs) -> Result<()> {
    let scores = compare(&args.source, &args.edit, args.mask.as_deref(), args.window)?;
    for (name, edit, source) in rows(&scores) {
        say(&format!("{name:<24} {:>12} {:>12}", number(edit), number(source)));
    }
    let Some(path) = &args.json else { return Ok(()) };
    let value = serde_json::to_value(&scores).map_err(|e| Error::Failed(e.to_string()))?;
    crate::asset::replace(path, format!("{value:#}\n").as_bytes())
}

type Row = (&'static str, Option<f64>, Option<f64>);

/// Name, of the edit, of the source.
fn rows(s: &Scores) -> [Row; 7] {
    [
        ("frames", Some(s.frames as f64), None),
        ("warp error", s.warp_error, s.warp_error_source),
        ("  ratio to the source's", s.warp_error_ratio, None),
        ("PSNR outside mask, dB", s.psnr, None),
        ("SSIM outside mask", s.ssim, None),
        ("seam ratio", s.seam_ratio, s.seam_ratio_source),
        ("flicker", s.flicker, s.flicker_source),
    ]
}

fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(v) if v.fract() == 0.0 && v.abs() < 1e9 => format!("{v}"),
        Some(v) if v.abs() < 1e-3 => format!("{v:.3e}"),
        Some(v) => format!("{v:.4}"),
    }
}
