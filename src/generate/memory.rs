//! Memory is estimated before it is taken.

use crate::config::{Config, Latents, Method, Recompute};
use crate::prior::footprint::Footprint;
use crate::{Error, Result};

/// Tapes past this are computed again instead of kept, if the configuration leaves the choice.
const TAPE: u64 = 1 << 30;
/// The program itself, its threads and its buffers.
const PROCESS: u64 = 128 << 20;

/// What a run will take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// Fields and their renderer, or the mesher: in main memory, or on the device that renders.
    pub(super) field: u64,
    /// The prior's weights and the largest of what a step does with them: where its networks run.
    pub(super) prior: u64,
    /// The encoder's tape is computed again.
    pub(super) recompute_encoder: bool,
    /// The tape of VSD's estimate is computed again.
    pub(super) recompute_estimate: bool,
}

impl Need {
    /// Of a configuration under the prior that `footprint` tells of; `factor` pixels a latent.
    pub(super) fn of(config: &Config, footprint: &Footprint) -> Self {
        let views = u64::from(config.camera.views);
        let linear = config.sds.latents == Latents::Linear;
        let factor = footprint.factor();
        let size = match (linear, u64::from(config.sds.prior_size)) {
            (true, _) => factor * u64::from(config.camera.largest()),
            (false, 0) => u64::from(config.camera.largest()),
            (false, size) => size,
        };
        let side = size.div_ceil(factor);
        let again = |tape: u64| match config.sds.recompute {
            Recompute::Auto => tape > TAPE,
            Recompute::Never => false,
            Recompute::Always => true,
        };
        let encoder = if linear { [0, 0] } else { footprint.encoder(views, size) };
        let recompute_encoder = again(encoder[0]);
        let encoder = encoder[usize::from(recompute_encoder)];
        // What the way back needs of the encoder waits while the U-Net is asked.
        let asked = encoder + footprint.predict(views * branches(config), side);
        let (mut learn, mut recompute_estimate) = (0, false);
        if config.method == Method::Vsd {
            let tapes = footprint.learn(views, side);
            recompute_estimate = again(tapes[0]);
            learn = tapes[usize::from(recompute_estimate)];
        }
        let prior = footprint.weights + asked.max(learn);
        Self { field: config.memory_estimate(), prior, recompute_encoder, recompute_estimate }
    }

    /// All of it, were it all in main memory.
    pub(super) fn total(self) -> u64 {
        PROCESS + self.field + self.prior
    }
}

/// Texts that the U-Net is asked about side by side.
fn branches(config: &Config) -> u64 {
    match config.method {
        _ if config.sds.perp_neg => 4,
        Method::Nfsd => 3,
        Method::Csd => 2,
        _ if config.sds.guidance_scale == 1.0 => 1,
        _ => 2,
    }
}

/// Refuses a need of `bytes` that would not fit into the memory available now.
///
/// # Errors
/// [`Error::Failed`] with both numbers. Where the system does not tell, nothing is refused.
pub(crate) fn require(bytes: u64) -> Result<()> {
    available().map_or(Ok(()), |available| compare(bytes, available))
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
    Err(Error::Failed(text).hint(
        "lower camera.size, camera.views, sds.prior_size, volume.bins, mesh.resolution or field.log2_table",
    ))
}

/// Bytes this process holds, 0 where the system does not tell.
pub(crate) fn held() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    // In pages; all Linux machines this runs on have pages of 4 KiB.
    text.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).map_or(0, |pages| pages * 4096)
}

/// The most bytes this process has held so far, 0 where the system does not tell.
pub(crate) fn peak() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}

/// Bytes that can be taken without swapping, from /proc/meminfo.
pub(super) fn available() -> Option<u64> {
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
        assert!(peak() >= held() / 2);
    }

    #[test]
    fn the_need_follows_sizes_method_and_choice() {
        let folder = crate::prior::files::Folder::embedded().unwrap();
        let footprint = Footprint::of(&folder).unwrap();
        let config = Config::default();
        let small = Need::of(&config, &footprint);
        assert!(!small.recompute_encoder && small.total() < 2 << 30, "{small:?}");
        let vsd = Need::of(&Config { method: Method::Vsd, ..config.clone() }, &footprint);
        assert!(vsd.prior > small.prior && vsd.field == small.field);
        let mut large = Config { method: Method::Vsd, ..config.clone() };
        large.camera.size = 512;
        let whole = |recompute| {
            let mut c = large.clone();
            c.sds.recompute = recompute;
            Need::of(&c, &footprint)
        };
        let (auto, never) = (whole(Recompute::Auto), whole(Recompute::Never));
        assert!(auto.recompute_encoder && auto.recompute_estimate && !never.recompute_encoder);
        assert!(auto.prior < never.prior && auto == whole(Recompute::Always));
        let mut linear = config;
        (linear.sds.latents, linear.camera.size) = (Latents::Linear, 16);
        assert!(Need::of(&linear, &footprint).prior < small.prior);
    }
}
