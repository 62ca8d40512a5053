//! `gen3d interpolate`: a clip at a multiple of its frame rate, or at another one.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::report;
use crate::error::Result;
use crate::video::interpolate::{IfNet, Interpolation, Pace};
use crate::video::io::{Codec, Encoding, Flow, Ratio, ReadOptions, Reader};
use crate::video::store::FrameStore;

/// From here on it is said how much disk waiting frames take.
const MUCH: u64 = 4 << 30;

/// Arguments of `gen3d interpolate`.
#[derive(Debug, Args)]
pub(crate) struct InterpolateArgs {
    /// The clip.
    input: PathBuf,
    /// The clip with more frames.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Weights of RIFE v4.0 (flownet.pkl, or .safetensors), or of `gen3d train interpolate`; those that come
    /// with the program if not given.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Frames for each one [default: 2].
    #[arg(long, value_name = "N", conflicts_with = "fps", value_parser = clap::value_parser!(u32).range(2..=64))]
    factor: Option<u32>,
    /// Frames a second instead, any rate: 60, 23.976, or 24000/1001.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    fps: Option<Ratio>,
    /// Encoder.
    #[arg(long, default_value = "x264")]
    codec: Codec,
    /// Constant rate factor: 0 is best, 18 looks like the source, 28 is small.
    #[arg(long, value_name = "N")]
    crf: Option<f32>,
    /// Speed against size, or ProRes profile.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Map high dynamic range to standard range, instead of refusing.
    #[arg(long)]
    tonemap: bool,
    /// Go on where an interrupted or killed run was.
    #[arg(long, conflicts_with = "discard")]
    resume: bool,
    /// Let no frames wait beside the output: a killed run has to begin anew.
    #[arg(long)]
    discard: bool,
    /// No progress bar.
    #[arg(short, long)]
    quiet: bool,
}

/// Interpolates.
///
/// # Errors
/// See [`Interpolation::run`].
pub(crate) fn run(args: &InterpolateArgs) -> Result<()> {
    let encoding =
        Encoding { codec: args.codec, crf: args.crf, preset: args.preset.clone(), ..Encoding::default() };
    encoding.check()?;
    let net = match &args.weights {
        Some(path) => IfNet::load(path)?,
        None => IfNet::own()?,
    };
    let pace = args.fps.map_or(Pace::Factor(args.factor.unwrap_or(2)), Pace::Rate);
    let reading = ReadOptions { tonemap: args.tonemap };
    let keep = !args.discard;
    if keep && !args.quiet {
        tell_disk(args, pace, reading)?;
    }
    let work = Interpolation { net: &net, pace, reading, encoding, keep, resume: args.resume };
    let bar = if args.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} frames, {eta} left") {
        bar.set_style(style);
    }
    let written = work.run(&args.input, &args.out, &mut |p| {
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

/// Warns of what waiting frames take, where that is much.
fn tell_disk(args: &InterpolateArgs, pace: Pace, reading: ReadOptions) -> Result<()> {
    let reader = Reader::open(&args.input, reading)?;
    let info = reader.info();
    let (Some(frames), each) = (info.frames, FrameStore::bytes_of(info.size)) else { return Ok(()) };
    let made = match (pace, info.rate) {
        (Pace::Factor(n), _) => frames * u64::from(n - 1),
        (Pace::Rate(to), Some(from)) => (frames as f64 * to.value() / from.value()) as u64,
        (Pace::Rate(_), None) => frames,
    };
    let bytes = made.saturating_mul(each);
    if bytes > MUCH {
        let text = format!("up to {} GiB of frames wait beside the output until it is complete", bytes >> 30);
        report::warning(&text, Some("--discard keeps none, but a killed run then begins anew"));
    }
    Ok(())
}

/// `60`, `23.976` (which means 24000/1001), `24000/1001`.
fn rate(text: &str) -> std::result::Result<Ratio, String> {
    let wrong = || "write it as 60, 29.97 or 30000/1001".to_owned();
    let ratio = match text.split_once('/') {
        Some((num, den)) => Ratio {
            num: num.trim().parse().map_err(|_| wrong())?,
            den: den.trim().parse().map_err(|_| wrong())?,
        },
        None => {
            let value: f64 = text.trim().parse().map_err(|_| wrong())?;
            let film = (value * 1.001).round();
            match value {
                v if !(v.is_finite() && v > 0.0 && v <= 1000.0) => {
                    return Err("it must be above 0, up to 1000".into());
                }
                v if v.fract() == 0.0 => Ratio { num: v as i32, den: 1 },
                v if (film / 1.001 - v).abs() < 0.002 => Ratio { num: film as i32 * 1000, den: 1001 },
                v => Ratio { num: (v * 1000.0).round() as i32, den: 1000 },
            }
        }
    };
    let value = ratio.value();
    if ratio.num > 0 && ratio.den > 0 && value <= 1000.0 {
        Ok(ratio)
    } else {
        Err("it must be above 0, up to 1000".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_exact() {
        let is = |text: &str, num, den| assert_eq!(rate(text), Ok(Ratio { num, den }), "{text}");
        is("60", 60, 1);
        is("23.976", 24000, 1001);
        is("29.97", 30000, 1001);
        is("59.94", 60000, 1001);
        is("12.5", 12500, 1000);
        is("30000/1001", 30000, 1001);
        for bad in ["0", "-5", "x", "1/0", "5000", "nan", "30/-1"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
