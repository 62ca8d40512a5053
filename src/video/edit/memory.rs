//! Memory is estimated before it is taken.

use super::config::EditConfig;
use crate::prior::Prior;
use crate::{Error, Result};

/// Working copies of a feature map that live at once in a U-Net (skips, normalised, projected, MLP).
const COPIES: u64 = 16;

/// Bytes that an edit of frames of `size` (width, height) takes at most beside the loaded prior. The
/// clip's length does not come in: latents wait in the store.
pub fn estimate(config: &EditConfig, prior: &Prior, size: (usize, usize)) -> u64 {
    let pixels = (size.0 * size.1) as u64;
    let factor = prior.vae.factor() as u64;
    let latents = pixels.div_ceil(factor * factor);
    let window = config.window as u64;
    let branches = if config.guidance_scale == 1.0 { 1 } else { 2 };
    let widths: u64 = prior
        .unet
        .config
        .block_out_channels
        .iter()
        .enumerate()
        .map(|(level, c)| (latents >> (2 * level)).max(1) * *c as u64)
        .sum();
    let networks = branches * window * widths * COPIES * 4;
    // Maps of every attention of one window, both kinds, where they are taken from the source.
    let maps = config.blend.as_ref().map_or(0, |blend| {
        let tokens = latents.min(blend.most_tokens as u64);
        let heads = 8 * prior.unet.config.block_out_channels.len() as u64;
        2 * window * heads * tokens * tokens * window * 4
    });
    // The decoder works at full size with its first width; 16 copies of 64 channels.
    let decoder = window * pixels * 64 * COPIES * 4;
    networks.max(decoder) + maps
}

/// Refuses an edit that does not fit into the memory available now; nothing where the system does not tell.
pub(super) fn check(needed: u64) -> Result<()> {
    match available() {
        Some(available) if needed > available => {
            let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            let text = format!(
                "this edit needs about {:.1} GiB of memory, {:.1} GiB are available",
                gib(needed),
                gib(available)
            );
            Err(Error::Failed(text).hint("lower the window or the size of the frames"))
        }
        _ => Ok(()),
    }
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
        let e = check(u64::MAX).unwrap_err();
        assert!(e.to_string().contains("GiB of memory") && e.hint_text().is_some(), "{e}");
        check(1).unwrap();
    }
}
