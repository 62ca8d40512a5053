//! `gen3d eval video`: an edited clip beside its source.

use std::path::PathBuf;

use clap::Args;

use image::{Rgb, RgbImage};

use super::{Common, say};
use crate::error::{Error, Result};
use crate::video::io::Picture;
use crate::video::metrics::meaning::Meaning;
use crate::video::metrics::{Scores, compare, compare_by};

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
    /// What the edit is to show: adds how well the frames show it, and one thing (by the evaluator)
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// What the source shows: adds how many frames are nearer to the prompt than to this
    #[arg(long, value_name = "TEXT", requires = "prompt")]
    source_prompt: Option<String>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &VideoArgs) -> Result<()> {
    let scores = match &args.prompt {
        None => compare(&args.source, &args.edit, args.mask.as_deref(), args.window)?,
        Some(prompt) => told(args, prompt)?,
    };
    for (name, edit, source) in rows(&scores) {
        say(&format!("{name:<24} {:>12} {:>12}", number(edit), number(source)));
    }
    args.common.write_json(&serde_json::to_value(&scores).map_err(|e| Error::Failed(e.to_string()))?)
}

/// With what the evaluator sees.
fn told(args: &VideoArgs, prompt: &str) -> Result<Scores> {
    let evaluator = args.common.open()?;
    let captions: Vec<String> =
        [Some(prompt.to_owned()), args.source_prompt.clone()].into_iter().flatten().collect();
    let mut texts = evaluator.texts(&captions)?.into_iter();
    let embed = |picture: &Picture| {
        let seen = evaluator.pictures(&[square(picture)])?;
        Ok(seen.into_iter().next().map(|view| view.embedding).unwrap_or_default())
    };
    let meaning =
        Meaning { embed: &embed, prompt: texts.next().unwrap_or_default(), source_prompt: texts.next() };
    compare_by(&args.source, &args.edit, args.mask.as_deref(), args.window, Some(&meaning))
}

/// The middle of a picture, as encoders of pictures are shown them.
fn square(picture: &Picture) -> RgbImage {
    let (w, h) = (picture.width, picture.height);
    let side = w.min(h);
    let (left, top) = ((w - side) / 2, (h - side) / 2);
    RgbImage::from_fn(side as u32, side as u32, |x, y| {
        let at = (top + y as usize) * w + left + x as usize;
        Rgb([0, 1, 2].map(|c| (picture.plane(c)[at].clamp(0.0, 1.0) * 255.0).round() as u8))
    })
}

type Row = (&'static str, Option<f64>, Option<f64>);

/// Name, of the edit, of the source.
fn rows(s: &Scores) -> Vec<Row> {
    let mut rows: Vec<Row> = vec![
        ("frames", Some(s.frames as f64), None),
        ("warp error", s.warp_error, s.warp_error_source),
        ("  ratio to the source's", s.warp_error_ratio, None),
        ("PSNR outside mask, dB", s.psnr, None),
        ("SSIM outside mask", s.ssim, None),
        ("seam ratio", s.seam_ratio, s.seam_ratio_source),
        ("flicker", s.flicker, s.flicker_source),
    ];
    if s.prompt_consistency.is_some() {
        rows.extend([
            ("frame consistency", s.frame_consistency, s.frame_consistency_source),
            ("prompt consistency", s.prompt_consistency, s.prompt_consistency_source),
            ("frame accuracy", s.frame_accuracy, None),
        ]);
    }
    rows
}

fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(v) if v.fract() == 0.0 && v.abs() < 1e9 => format!("{v}"),
        Some(v) if v.abs() < 1e-3 => format!("{v:.3e}"),
        Some(v) => format!("{v:.4}"),
    }
}
