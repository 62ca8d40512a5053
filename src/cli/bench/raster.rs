//! `gen3d bench raster`.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::bench::median;
use crate::bench::raster::{Workload, copy_bandwidth};
use crate::error::{Error, Result};
use crate::gpu::adapter::Request;

/// Options of `gen3d bench raster`.
#[derive(Debug, Args)]
pub(crate) struct RasterArgs {
    /// Devices to compare; all ratios are to the first
    #[arg(long, value_delimiter = ',', default_value = "cpu,vulkan", value_name = "cpu,vulkan,NAME")]
    devices: Vec<Request>,
    /// Triangles of the mesh, at least
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(12..=4_000_000))]
    triangles: u32,
    /// Pixels of the picture's side
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(16..=4096))]
    size: u32,
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
    triangles_per_second: f64,
    pixels_per_second: f64,
    /// Milliseconds that this machine's memory needs for the least traffic.
    memory_bound: f64,
    /// Times the first device's milliseconds.
    ratio: f64,
}

pub(super) fn run(args: &RasterArgs) -> Result<()> {
    if !(0.0..=3600.0).contains(&args.seconds) {
        return Err(Error::invalid("--seconds", "must be 0 to 3600"));
    }
    let mut first: Vec<f64> = Vec::new();
    let bandwidth = copy_bandwidth();
    for (number, request) in args.devices.iter().enumerate() {
        for (i, mut row) in measure(request, args, bandwidth)?.into_iter().enumerate() {
            if number == 0 {
                first.push(row.milliseconds);
            }
            row.ratio = row.milliseconds / first[i];
            print(&row, args.json)?;
        }
    }
    Ok(())
}

fn measure(request: &Request, args: &RasterArgs, bandwidth: f64) -> Result<Vec<Row>> {
    let (device, _) = crate::gpu::open(request)?;
    let budget = Duration::from_secs_f64(args.seconds);
    let mut work = Workload::new(&device, args.triangles as usize, args.size)?;
    let forward = median(budget, || work.forward().map(|_| ()))?;
    let backward = median(budget, || work.backward())?;
    let pixels = f64::from(args.size).powi(2);
    let row = |operation, time: Duration, bytes: u64| Row {
        device: device.name(),
        operation,
        milliseconds: 1e3 * time.as_secs_f64(),
        triangles_per_second: work.triangles() as f64 / time.as_secs_f64(),
        pixels_per_second: pixels / time.as_secs_f64(),
        memory_bound: 1e3 * bytes as f64 / bandwidth,
        ratio: 1.0,
    };
    let [there, back] = work.traffic();
    Ok(vec![row("forward", forward, there), row("backward", backward, back)])
}

fn print(row: &Row, json: bool) -> Result<()> {
    let line = if json {
        serde_json::to_string(row).map_err(|e| Error::Failed(e.to_string()))?
    } else {
        format!(
            "{:<30.30} {:<9} {:9.2} ms {:8.2} M triangles/s {:8.2} M pixels/s {:6.2}× (memory alone: {:.2} ms)",
            row.device,
            row.operation,
            row.milliseconds,
            row.triangles_per_second / 1e6,
            row.pixels_per_second / 1e6,
            row.ratio,
            row.memory_bound
        )
    };
    // Whoever closed the pipe has seen enough.
    let _ = writeln!(std::io::stdout(), "{line}");
    Ok(())
}
