//! `gen3d doctor`: what this machine offers, and what gen3d would use of it.

mod machine;
mod priors;

use std::io::Write;

use serde::Serialize;

use crate::gpu::adapter::{self, AdapterReport, Request};

/// Arguments of `gen3d doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Explain what this device request would choose.
    #[arg(long, value_name = "auto|cpu|vulkan|lavapipe|NAME", default_value = "auto")]
    device: Request,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    device: Decision,
    adapters: Vec<Adapter>,
    processor: machine::Processor,
    memory: machine::Memory,
    ffmpeg: machine::Ffmpeg,
    priors: Vec<priors::Found>,
}

/// What a request chooses, and why.
#[derive(Debug, Serialize)]
struct Decision {
    request: String,
    chosen: Option<String>,
    reason: String,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Adapter {
    name: String,
    backend: String,
    kind: &'static str,
    driver: String,
    max_buffer_mib: u64,
    max_binding_mib: u64,
    workgroup_memory_kib: u32,
    workgroup_invocations: u32,
    subgroup: (u32, u32),
    features: Vec<Feature>,
    /// What keeps gen3d from running on it; empty if nothing does.
    missing: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Feature {
    name: &'static str,
    present: bool,
}

/// Prints the report to stdout.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let adapters = adapter::adapters();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        device: decide(&args.device, &adapters),
        adapters: adapters.iter().map(describe).collect(),
        processor: machine::Processor::detect(),
        memory: machine::Memory::detect(),
        ffmpeg: machine::Ffmpeg::detect(),
        priors: priors::find(),
    };
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { table(&report) };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever closed the pipe has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn decide(request: &Request, adapters: &[AdapterReport]) -> Decision {
    let (chosen, reason, hint) = match adapter::choose(request, adapters) {
        Ok(choice) => {
            let name = choice.adapter.map_or("cpu", |i| adapters[i].name.as_str());
            (Some(name.to_owned()), choice.reason, None)
        }
        Err(error) => (None, error.to_string(), error.hint_text().map(str::to_owned)),
    };
    Decision { request: request.to_string(), chosen, reason, hint }
}

/// The features that a kernel, a profile or a planned kernel makes use of.
const FEATURES: [(&str, wgpu::Features); 5] = [
    ("f32 atomics", wgpu::Features::SHADER_FLOAT32_ATOMIC),
    ("subgroups", wgpu::Features::SUBGROUP),
    ("f16", wgpu::Features::SHADER_F16),
    ("timestamps", wgpu::Features::TIMESTAMP_QUERY),
    ("cooperative matrices", wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
];

fn describe(report: &AdapterReport) -> Adapter {
    let limits = &report.limits;
    let present = |feature| report.features.contains(feature);
    Adapter {
        name: report.name.clone(),
        backend: report.backend.clone(),
        kind: report.kind.name(),
        driver: report.driver.clone(),
        max_buffer_mib: limits.max_buffer_size >> 20,
        max_binding_mib: limits.max_storage_buffer_binding_size >> 20,
        workgroup_memory_kib: limits.max_compute_workgroup_storage_size >> 10,
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        subgroup: report.subgroup,
        features: FEATURES.map(|(name, feature)| Feature { name, present: present(feature) }).into(),
        missing: adapter::missing_limits(report),
    }
}

fn table(report: &Report) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    row("gen3d", report.version.to_owned());
    let device = &report.device;
    let chosen = device.chosen.as_deref().unwrap_or("none");
    row("device", format!("--device {} takes {chosen}: {}", device.request, device.reason));
    if let Some(hint) = &device.hint {
        row("", format!("hint: {hint}"));
    }
    if report.adapters.is_empty() {
        row("adapter", "none (no Vulkan driver found; gen3d runs on the processor)".to_owned());
    }
    for adapter in &report.adapters {
        row("adapter", format!("{} ({}, {})", adapter.name, adapter.backend, adapter.kind));
        row("  driver", adapter.driver.clone());
        let (buffer, binding) = (adapter.max_buffer_mib, adapter.max_binding_mib);
        row("  limits", format!("buffer {buffer} MiB, storage binding {binding} MiB"));
        let (memory, invocations) = (adapter.workgroup_memory_kib, adapter.workgroup_invocations);
        let (low, high) = adapter.subgroup;
        row("", format!("workgroup {memory} KiB, {invocations} invocations; subgroups of {low} to {high}"));
        for feature in &adapter.features {
            row(&format!("  {}", feature.name), if feature.present { "yes" } else { "no" }.to_owned());
        }
        let fit = if adapter.missing.is_empty() { "yes".to_owned() } else { adapter.missing.join("; ") };
        row("  runs gen3d", fit);
    }
    row("processor", report.processor.to_string());
    row("memory", report.memory.to_string());
    row("ffmpeg", report.ffmpeg.to_string());
    if report.priors.is_empty() {
        row("prior", "none found; give one with --prior, or train one".to_owned());
    }
    for prior in &report.priors {
        row("prior", format!("{} ({})", prior.name, prior.about));
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_this_machine_and_a_device() {
        let adapters = adapter::adapters();
        let decision = decide(&Request::Auto, &adapters);
        assert!(decision.chosen.is_some() && !decision.reason.is_empty());
        let report = Report {
            version: "1",
            device: decide(&Request::Named("no such thing".to_owned()), &adapters),
            adapters: adapters.iter().map(describe).collect(),
            processor: machine::Processor::detect(),
            memory: machine::Memory::detect(),
            ffmpeg: machine::Ffmpeg::detect(),
            priors: Vec::new(),
        };
        assert!(report.device.chosen.is_none() && report.device.hint.is_some());
        assert!(report.processor.threads > 0 && report.ffmpeg.libavutil.contains('.'));
        let text = table(&report);
        for word in ["device", "processor", "memory", "ffmpeg", "prior", "hint: "] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(text.lines().filter(|l| l.starts_with("adapter")).count(), adapters.len().max(1));
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(json["adapters"].as_array().unwrap().len(), adapters.len());
    }
}
