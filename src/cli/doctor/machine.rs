//! Processor, memory and FFmpeg of this machine.

use std::fmt;

use serde::Serialize;

/// The processor.
#[derive(Debug, Serialize)]
pub(super) struct Processor {
    pub(super) name: String,
    /// Threads that gen3d will use.
    pub(super) threads: usize,
    /// The widest instruction set that the kernels have a version for.
    pub(super) simd: &'static str,
}

impl Processor {
    pub(super) fn detect() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = value_of(&info, "model name").unwrap_or(std::env::consts::ARCH);
        Self { name: name.to_owned(), threads: rayon::current_num_threads(), simd: simd() }
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.threads == 1 { "" } else { "s" };
        write!(f, "{}, {} thread{plural}, {}", self.name, self.threads, self.simd)
    }
}

#[cfg(target_arch = "x86_64")]
fn simd() -> &'static str {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx512, is_x86_feature_detected!("avx2")) {
        (true, _) => "AVX-512",
        (false, true) => "AVX2",
        (false, false) => "SSE2",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn simd() -> &'static str {
    if cfg!(target_feature = "neon") { "NEON" } else { "no SIMD" }
}

/// Main memory in MiB; `None` where the system does not say.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) total_mib: Option<u64>,
    pub(super) available_mib: Option<u64>,
    /// The limit of the container this runs in, if there is one.
    pub(super) limit_mib: Option<u64>,
}

impl Memory {
    pub(super) fn detect() -> Self {
        let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let mib = |key| {
            let kib: u64 = value_of(&info, key)?.split_whitespace().next()?.parse().ok()?;
            Some(kib >> 10)
        };
        let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
        let limit_mib = limit.trim().parse::<u64>().ok().map(|bytes| bytes >> 20);
        Self { total_mib: mib("MemTotal"), available_mib: mib("MemAvailable"), limit_mib }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.total_mib, self.available_mib) {
            (Some(total), Some(available)) => write!(f, "{total} MiB, {available} MiB available")?,
            _ => f.write_str("unknown")?,
        }
        match self.limit_mib {
            Some(limit) => write!(f, ", limited to {limit} MiB"),
            None => Ok(()),
        }
    }
}

/// The value of the first line `key : value`.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(k, v)| (k.trim(), v.trim())).find(|(k, _)| *k == key).map(|(_, v)| v)
}

/// The FFmpeg libraries that this process is linked with.
#[derive(Debug, Serialize)]
pub(super) struct Ffmpeg {
    pub(super) release: Option<u32>,
    pub(super) libavutil: String,
    pub(super) libavcodec: String,
    pub(super) libavformat: String,
    pub(super) libswscale: String,
}

impl Ffmpeg {
    pub(super) fn detect() -> Self {
        let util = ffmpeg_next::util::version();
        Self {
            // libavutil's major version has gone up by one with each release since 4.0's 56.
            release: (util >> 16).checked_sub(52).filter(|release| *release >= 4),
            libavutil: version(util),
            libavcodec: version(ffmpeg_next::codec::version()),
            libavformat: version(ffmpeg_next::format::version()),
            libswscale: version(ffmpeg_next::software::scaling::version()),
        }
    }
}

/// FFmpeg's libraries pack their version into one integer, a byte each for minor and micro.
fn version(packed: u32) -> String {
    format!("{}.{}.{}", packed >> 16, packed >> 8 & 0xff, packed & 0xff)
}

impl fmt::Display for Ffmpeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.release {
            Some(release) => write!(f, "{release}.x (")?,
            None => f.write_str("(")?,
        }
        let Self { libavutil, libavcodec, libavformat, libswscale, .. } = self;
        write!(f, "libavutil {libavutil}, libavcodec {libavcodec}, ")?;
        write!(f, "libavformat {libavformat}, libswscale {libswscale})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_keys_are_read() {
        assert_eq!(version(57 << 16 | 28 << 8 | 100), "57.28.100");
        assert_eq!(value_of("a\t: b\nMemTotal:  12 kB\n", "MemTotal"), Some("12 kB"));
        assert_eq!(value_of("MemTotalX: 1", "MemTotal"), None);
    }
}
