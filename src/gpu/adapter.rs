//! Which adapters there are, and which of them (or the processor) a run uses.

use std::str::FromStr;

use crate::{Error, Result};

/// What the user asked for with `--device`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Request {
    /// A real GPU if there is one, else the processor. Never a software rasteriser.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The best Vulkan adapter, a software rasteriser if there is nothing else.
    Vulkan,
    /// A software rasteriser (Mesa's lavapipe).
    Lavapipe,
    /// The best adapter whose name contains this text, in any case.
    Named(String),
}

impl FromStr for Request {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.trim().to_lowercase().as_str() {
            "" => {
                return Err(
                    Error::invalid("--device", "empty").hint("use auto, cpu, vulkan or part of a name")
                );
            }
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "vulkan" => Self::Vulkan,
            "lavapipe" => Self::Lavapipe,
            other => Self::Named(other.to_owned()),
        })
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Vulkan => "vulkan",
            Self::Lavapipe => "lavapipe",
            Self::Named(name) => name,
        })
    }
}

/// What kind of hardware an adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A rasteriser that runs on the processor.
    Software,
    /// The driver does not say.
    Unknown,
    /// A GPU inside of a virtual machine.
    Virtual,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU with its own memory.
    Discrete,
}

impl AdapterKind {
    /// For the doctor's table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Unknown => "unknown",
            Self::Virtual => "virtual GPU",
            Self::Integrated => "integrated GPU",
            Self::Discrete => "discrete GPU",
        }
    }
}

/// What one adapter is and can do.
#[derive(Debug, Clone)]
pub struct AdapterReport {
    /// The device's name.
    pub name: String,
    /// The API it is reached by.
    pub backend: String,
    /// Its kind.
    pub kind: AdapterKind,
    /// The driver's name and version.
    pub driver: String,
    /// All features that the adapter has.
    pub features: wgpu::Features,
    /// The adapter's limits, which are what a device is opened with.
    pub limits: wgpu::Limits,
    /// Smallest and largest subgroup (warp, wave).
    pub subgroup: (u32, u32),
}

/// The decision, with its reason for the log and the doctor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Index into the list of adapters; `None` is the processor.
    pub adapter: Option<usize>,
    /// Why.
    pub reason: String,
}

/// All Vulkan adapters of this machine; an empty list where there is no Vulkan.
pub(super) fn enumerate() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN;
    // Neither validation layers nor debug labels: they are found by the installed software, and
    // would make a run depend on it.
    descriptor.flags = wgpu::InstanceFlags::empty();
    pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::VULKAN))
}

/// Reports on all adapters, in the driver's order.
pub fn adapters() -> Vec<AdapterReport> {
    enumerate().iter().map(report).collect()
}

pub(super) fn report(adapter: &wgpu::Adapter) -> AdapterReport {
    let info = adapter.get_info();
    AdapterReport {
        name: info.name,
        backend: info.backend.to_string(),
        kind: match info.device_type {
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::Other => AdapterKind::Unknown,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        },
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        features: adapter.features(),
        limits: adapter.limits(),
        subgroup: (info.subgroup_min_size, info.subgroup_max_size),
    }
}

/// Storage buffers of the kernel with the most, besides its uniform.
const STORAGE_BUFFERS: u32 = 8;
/// Invocations of the largest workgroup (the prefix sum).
const INVOCATIONS: u32 = 256;
/// Bytes of workgroup memory of the kernel with the most (the MLP's gradient).
const WORKGROUP_BYTES: u32 = 16 << 10;

/// What the kernels need and this adapter does not have, in words; empty if it can run them.
pub fn missing_limits(report: &AdapterReport) -> Vec<String> {
    let limits = &report.limits;
    let needs = [
        ("storage buffers a stage", limits.max_storage_buffers_per_shader_stage, STORAGE_BUFFERS),
        ("invocations a workgroup", limits.max_compute_invocations_per_workgroup, INVOCATIONS),
        ("bytes of workgroup memory", limits.max_compute_workgroup_storage_size, WORKGROUP_BYTES),
    ];
    let short = needs.into_iter().filter(|(_, has, needed)| has < needed);
    short.map(|(what, has, needed)| format!("{needed} {what} are needed, it has {has}")).collect()
}

/// Picks an adapter, or the processor, for `request`.
///
/// # Errors
/// If an adapter was asked for and there is none of that kind.
pub fn choose(request: &Request, adapters: &[AdapterReport]) -> Result<Choice> {
    let best = |wanted: &dyn Fn(&AdapterReport) -> bool| {
        let able = |a: &AdapterReport| missing_limits(a).is_empty();
        let all = adapters.iter().enumerate().filter(|(_, a)| wanted(a) && able(a));
        // The first among equals: `max_by_key` would give the last.
        all.rev().max_by_key(|(_, a)| a.kind).map(|(i, _)| i)
    };
    let cpu = |reason: &str| Ok(Choice { adapter: None, reason: reason.to_owned() });
    let (found, reason) = match request {
        Request::Cpu => return cpu("asked for"),
        Request::Auto => match best(&|a| a.kind > AdapterKind::Software) {
            Some(i) => {
                (Some(i), format!("the best of {} adapters that is no software rasteriser", adapters.len()))
            }
            None if adapters.is_empty() => return cpu("there is no Vulkan adapter"),
            None => {
                return cpu(
                    "no Vulkan adapter is a GPU that can run the kernels; software rasterisers are slower",
                );
            }
        },
        Request::Vulkan => (best(&|_| true), "asked for: the best Vulkan adapter".to_owned()),
        Request::Lavapipe => {
            (best(&|a| a.kind == AdapterKind::Software), "asked for: a software rasteriser".to_owned())
        }
        Request::Named(name) => {
            let wanted = name.to_lowercase();
            let found = best(&|a| a.name.to_lowercase().contains(&wanted));
            (found, format!("asked for: the name contains {wanted:?}"))
        }
    };
    match found {
        Some(i) => Ok(Choice { adapter: Some(i), reason }),
        None => Err(missing(request, adapters)),
    }
}

fn missing(request: &Request, adapters: &[AdapterReport]) -> Error {
    let error = Error::invalid(
        "--device",
        format!("no adapter answers to {request:?}", request = request.to_string()),
    );
    if adapters.is_empty() {
        return error.hint(
            "no Vulkan driver was found; install the GPU's driver and libvulkan1 (or mesa-vulkan-drivers \
             for lavapipe), or use --device cpu",
        );
    }
    let names: Vec<_> = adapters.iter().map(|a| a.name.as_str()).collect();
    error.hint(format!("use auto, cpu, vulkan or a part of one of these names: {}", names.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, kind: AdapterKind) -> AdapterReport {
        AdapterReport {
            name: name.to_owned(),
            backend: "vulkan".to_owned(),
            kind,
            driver: String::new(),
            features: wgpu::Features::empty(),
            limits: wgpu::Limits::default(),
            subgroup: (32, 32),
        }
    }

    fn pick(request: &str, adapters: &[AdapterReport]) -> Result<Option<usize>> {
        choose(&request.parse()?, adapters).map(|c| c.adapter)
    }

    #[test]
    fn auto_never_takes_a_software_rasteriser() {
        use AdapterKind::{Discrete, Integrated, Software};
        assert_eq!(pick("auto", &[]).unwrap(), None);
        assert_eq!(pick("auto", &[adapter("llvmpipe", Software)]).unwrap(), None);
        let all = [
            adapter("llvmpipe (LLVM 15)", Software),
            adapter("Graphics 770", Integrated),
            adapter("Big GPU", Discrete),
            adapter("Big GPU", Discrete),
        ];
        assert_eq!(pick("auto", &all).unwrap(), Some(2), "the first of the best");
        assert_eq!(pick("AUTO", &all[..2]).unwrap(), Some(1));
        assert_eq!(pick("cpu", &all).unwrap(), None);
    }

    #[test]
    fn what_is_asked_for_is_taken_or_refused_with_a_hint() {
        use AdapterKind::{Integrated, Software};
        let all = [adapter("llvmpipe (LLVM 15)", Software), adapter("Graphics 770", Integrated)];
        assert_eq!(pick("vulkan", &all).unwrap(), Some(1));
        assert_eq!(pick("vulkan", &all[..1]).unwrap(), Some(0));
        assert_eq!(pick("lavapipe", &all).unwrap(), Some(0));
        assert_eq!(pick("graphics", &all).unwrap(), Some(1));
        for (request, list, hint) in [
            ("vulkan", &all[..0], "--device cpu"),
            ("h100", &all[..], "Graphics 770"),
            ("lavapipe", &all[1..], "Graphics 770"),
            ("  ", &all[..], "auto"),
        ] {
            let error = pick(request, list).unwrap_err();
            assert!(error.is_usage() && error.hint_text().unwrap().contains(hint), "{request}: {error}");
        }
    }
}
