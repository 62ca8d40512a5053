//! `gen3d bench`: how fast this machine is at what gen3d does.

mod raster;

use std::io::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::bench::{median, particles, prior, render::Workload};
use crate::error::{Error, Result};
use crate::gpu::adapter::Request;
use crate::gpu::backend::Device;
use crate::prior::files::Folder;
use crate::prior::schedule::{self, Schedule};

use raster::RasterArgs;

/// What to time.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// The volume renderer at the main job's size, on every kind of device in one run.
    Render(RenderArgs),
    /// A prior's networks at working sizes, and the memory they take.
    Prior(PriorArgs),
    /// The differentiable rasteriser, forward and backward, on every kind of device in one run.
    Raster(RasterArgs),
    /// What score distillation finds and what VSD samples: particles in the plane, and a figure of them.
    Particles(ParticlesArgs),
}

/// Options of `gen3d bench particles`.
#[derive(Debug, Args)]
pub(crate) struct ParticlesArgs {
    /// The figure to write: the start, SDS, VSD
    #[arg(short, long, value_name = "PNG")]
    out: std::path::PathBuf,
    /// Number of particles
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(2..=4096))]
    particles: u16,
    /// Steps of each method
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// Seed of start and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Options of `gen3d bench prior`.
#[derive(Debug, Args)]
pub(crate) struct PriorArgs {
    /// The embedded prior, a folder in diffusers' layout or a checkpoint
    #[arg(long, default_value = "mini", value_name = "mini|DIR|FILE")]
    prior: String,
    /// What to time
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(prior::OPERATIONS))]
    operation: String,
    /// Runs that count, after one that does not
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// A JSON object
    #[arg(long)]
    json: bool,
}

/// Options of `gen3d bench render`.
#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// Devices to compare; all ratios are to the first
    #[arg(long, value_delimiter = ',', default_value = "cpu,vulkan", value_name = "cpu,vulkan,NAME")]
    devices: Vec<Request>,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// One measurement.
#[derive(Debug, Serialize)]
struct Row {
    device: String,
    operation: &'static str,
    milliseconds: f64,
    /// Samples along rays a second, where the operation has samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    samples_per_second: Option<f64>,
    /// Time over the first device's time.
    ratio: f64,
}

/// Runs the command.
///
/// # Errors
/// A device that cannot be opened or fails.
pub(crate) fn run(command: BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Render(args) => bench_render(&args),
        BenchCommand::Prior(args) => bench_prior(&args),
        BenchCommand::Particles(args) => bench_particles(&args),
        BenchCommand::Raster(args) => raster::run(&args),
    }
}

fn bench_particles(args: &ParticlesArgs) -> Result<()> {
    let schedule = Schedule::new(schedule::Config::default())?;
    let ends = particles::run(&schedule, usize::from(args.particles), args.steps, args.seed)?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    particles::figure(&ends)
        .write_to(&mut bytes, image::ImageFormat::Png)
        .map_err(|e| Error::Failed(format!("png: {e}")))?;
    crate::asset::replace(&args.out, &bytes.into_inner())?;
    let modes = |name: &str, points: &[f64]| {
        for (i, (share, mean, c)) in particles::by_mode(points).into_iter().enumerate() {
            let _ = writeln!(
                std::io::stdout(),
                "{name:<7} mode {i}: share {share:.2}, mean ({:.2}, {:.2}), variance ({:.3}, {:.3})",
                mean[0],
                mean[1],
                c[0],
                c[2]
            );
        }
    };
    for (i, b) in particles::target().iter().enumerate() {
        let (m, c) = (b.mean, b.covariance);
        let _ = writeln!(
            std::io::stdout(),
            "prior   mode {i}: share {:.2}, mean ({:.2}, {:.2}), variance ({:.3}, {:.3})",
            b.weight,
            m[0],
            m[1],
            c[0],
            c[2]
        );
    }
    modes("SDS", &ends.sds);
    modes("VSD", &ends.vsd);
    Ok(())
}

fn bench_prior(args: &PriorArgs) -> Result<()> {
    let folder = Folder::named(&args.prior)?;
    let mut times = prior::times(&folder, &args.operation, usize::from(args.repeats))?;
    times.sort_unstable();
    let median = times[times.len() / 2].as_secs_f64();
    let peak = prior::peak_memory().map(|b| b as f64 / f64::from(1 << 20));
    let line = if args.json {
        serde_json::json!({"operation": args.operation, "seconds": median, "peak_mib": peak}).to_string()
    } else {
        let peak = peak.map_or(String::new(), |p| format!(", at most {p:.0} MiB in all"));
        format!("{}: {median:.3} s{peak}", args.operation)
    };
    let _ = writeln!(std::io::stdout(), "{line}");
    Ok(())
}

fn bench_render(args: &RenderArgs) -> Result<()> {
    if !(0.0..=3600.0).contains(&args.seconds) {
        return Err(Error::invalid("--seconds", "must be 0 to 3600"));
    }
    let budget = Duration::from_secs_f64(args.seconds);
    let mut first: Vec<f64> = Vec::new();
    for (number, request) in args.devices.iter().enumerate() {
        let (device, _) = crate::gpu::open(request)?;
        for (i, mut row) in measure(&device, budget)?.into_iter().enumerate() {
            if number == 0 {
                first.push(row.milliseconds);
            }
            row.ratio = row.milliseconds / first[i];
            print(&row, args.json)?;
        }
    }
    Ok(())
}

fn measure(device: &Device, budget: Duration) -> Result<Vec<Row>> {
    let mut w = Workload::new(device)?;
    let samples = [w.forward(false)?, w.forward(true)?];
    let row = |operation, time: Duration, samples: Option<u64>| Row {
        device: device.name().to_owned(),
        operation,
        milliseconds: 1e3 * time.as_secs_f64(),
        samples_per_second: samples.map(|s| s as f64 / time.as_secs_f64()),
        ratio: 1.0,
    };
    let forward = median(budget, || w.forward(false).map(|_| ()))?;
    let both = median(budget, || w.forward_backward(false))?;
    let forward_normals = median(budget, || w.forward(true).map(|_| ()))?;
    let both_normals = median(budget, || w.forward_backward(true))?;
    Ok(vec![
        row("forward", forward, Some(samples[0])),
        row("forward and backward", both, Some(samples[0])),
        row("forward, normals", forward_normals, Some(samples[1])),
        row("forward and backward, normals", both_normals, Some(samples[1])),
        row("adam", median(budget, || w.adam())?, None),
        row("occupancy", median(budget, || w.occupancy())?, None),
    ])
}

fn print(row: &Row, json: bool) -> Result<()> {
    let line = if json {
        serde_json::to_string(row).map_err(|e| Error::Failed(e.to_string()))?
    } else {
        let speed = row.samples_per_second.map(|s| format!("{:8.2} M samples/s", s / 1e6));
        format!(
            "{:<30.30} {:<30} {:9.2} ms {:<18} {:6.2}×",
            row.device,
            row.operation,
            row.milliseconds,
            speed.unwrap_or_default(),
            row.ratio
        )
    };
    // Whoever closed the pipe has seen enough.
    let _ = writeln!(std::io::stdout(), "{line}");
    Ok(())
}
