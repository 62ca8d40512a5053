//! Memory is estimated before it is taken.

use crate::config::{Config, Method};
use crate::{Error, Result};

/// The embedded prior's weights in f32 and the activations of a step, rounded up.
const PRIOR: u64 = 1 << 30;

/// Refuses a configuration that would not fit into the memory available now.
///
/// # Errors
/// [`Error::Failed`] with both numbers. Where the system does not tell, nothing is refused.
pub(super) fn check(config: &Config) -> Result<()> {
    require(config.memory_estimate() + prior(config))
}

/// Refuses a need of `bytes` that would not fit into the memory available now.
///
/// # Errors
/// As [`check`].
pub(crate) fn require(bytes: u64) -> Result<()> {
    available().map_or(Ok(()), |available| compare(bytes, available))
}

/// VSD holds the prior's U-Net a second time, and the tape of its own step.
fn prior(config: &Config) -> u64 {
    if config.method == Method::Vsd { 2 * PRIOR } else { PRIOR }
}

fn compare(needed: u64, available: u64) -> Result<()> {
    if needed <= available {
        return Ok(());
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let text = format!(
        "these settings need about {:.1} GiB of memory, {:.1} GiB are available",
        gib(needed),
        gib(available)
    );
    Err(Error::Failed(text)
        .hint("lower camera.size, camera.views, volume.bins, mesh.resolution or field.log2_table"))
}

/// Bytes this process holds, 0 where the system does not tell.
pub(super) fn held() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    // In pages; all Linux machines this runs on have pages of 4 KiB.
    text.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).map_or(0, |pages| pages * 4096)
}

/// Bytes that can be taken without swapping, from /proc/meminfo.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_with_both_numbers() {
        let e = compare(3 << 30, 1 << 30).unwrap_err();
        assert!(e.to_string().contains("3.0 GiB") && e.to_string().contains("1.0 GiB are"), "{e}");
        assert!(e.hint_text().is_some() && compare(1, 1).is_ok());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells() {
        assert!(available().is_some_and(|b| b > 1 << 20) && held() > 1 << 20);
    }
}
