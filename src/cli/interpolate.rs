//! `gen3d interpolate`: a clip at a multiple of its frame rate.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Result;
use crate::video::interpolate::{IfNet, interpolate};
use crate::video::io::{Codec, Encoding, Flow};

/// Arguments of `gen3d interpolate`.
#[derive(Debug, Args)]
pub(crate) struct InterpolateArgs {
    /// The clip.
    input: PathBuf,
    /// The clip with more frames.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Weights of RIFE v4.0: flownet.pkl, or .safetensors.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Frames for each one.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=64))]
    factor: u32,
    /// Encoder.
    #[arg(long, default_value = "x264")]
    codec: Codec,
    /// Constant rate factor: 0 is best, 18 looks like the source, 28 is small.
    #[arg(long, value_name = "N")]
    crf: Option<f32>,
    /// Speed against size, or ProRes profile.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// No progress bar.
    #[arg(short, long)]
    quiet: bool,
}

/// Interpolates.
///
/// # Errors
/// See [`interpolate`].
pub(crate) fn run(args: &InterpolateArgs) -> Result<()> {
    let encoding =
        Encoding { codec: args.codec, crf: args.crf, preset: args.preset.clone(), ..Encoding::default() };
    encoding.check()?;
    let net = IfNet::load(&args.weights)?;
    let bar = if args.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} frames, {eta} left") {
        bar.set_style(style);
    }
    let written = interpolate(&net, &args.input, &args.out, args.factor, &encoding, &mut |p| {
        bar.set_length(p.total.unwrap_or(p.done).max(p.done));
        bar.set_position(p.done);
        Flow::Continue
    });
    bar.finish_and_clear();
    let written = written?;
    if !args.quiet {
        eprintln!("{}: {} frames, {} KiB", args.out.display(), written.frames, written.bytes.div_ceil(1024));
    }
    Ok(())
}
