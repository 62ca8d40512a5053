//! What a prior takes of memory, told from its configs and from the headers of its weights before anything is
//! loaded.
//!
//! Counted are the tensors that a tape keeps, layer by layer as the networks build them; each estimate is then
//! a sum of a network's tape (or, recomputing, of what goes into its parts and the largest part's tape) and of
//! the largest part's gradients.

use super::files::Folder;
use super::unet::UnetConfig;
use super::vae::VaeConfig;
use crate::error::Result;

/// Bytes of a number; all arithmetic is f32.
const FLOAT: u64 = 4;
/// Gradients that are alive at a time on the way back, in units of a part's largest tensor.
const GRADIENTS: u64 = 3;
/// Tensors of a transformer block's tape, in units of its tokens times channels: self-attention (norm, q, k, v,
/// attention, out, sum), cross-attention (norm, q, attention, out, sum), GEGLU (norm, 8 projected, 8 halves, 4
/// product, out, sum) …
const BLOCK: u64 = 7 + 5 + 23;
/// … what surrounds the blocks (norm, in, two transpositions, out, sum) …
const AROUND: u64 = 6;
/// … and what adapters add to each of six projections of a picture's tokens.
const ADAPTERS: u64 = 6 * 3;

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Footprint {
    /// Bytes of all networks' weights as they are held.
    pub weights: u64,
    unet: UnetConfig,
    /// Nothing for an `AutoencoderTiny`, whose tape is a tenth of the other's.
    vae: Option<VaeConfig>,
}

/// One part of a network: what goes in, what its tape keeps, its largest tensor; in numbers.
#[derive(Debug, Clone, Copy)]
struct Part {
    takes: u64,
    tape: u64,
    largest: u64,
}

impl Part {
    fn resnet(pixels: u64, from: u64, to: u64) -> Self {
        let shortcut = if from == to { 0 } else { to };
        let tape = pixels * (from + 5 * to + shortcut);
        Self { takes: pixels * from, tape, largest: pixels * from.max(to) }
    }

    fn plus(self, other: Self) -> Self {
        Self { takes: self.takes, tape: self.tape + other.tape, largest: self.largest.max(other.largest) }
    }
}

/// Bytes with the whole tape, and with one part's at a time.
fn peaks(parts: &[Part]) -> [u64; 2] {
    let gradients = |p: &Part| GRADIENTS * p.largest;
    let whole = parts.iter().map(|p| p.tape).sum::<u64>() + parts.iter().map(gradients).max().unwrap_or(0);
    let kept: u64 = parts.iter().map(|p| p.takes).sum();
    let one = parts.iter().map(|p| p.takes + p.tape + gradients(p)).max().unwrap_or(0);
    [FLOAT * whole, FLOAT * (kept + one)]
}

impl Footprint {
    /// Of the prior in `folder`.
    ///
    /// # Errors
    /// A config or a header that cannot be read.
    pub fn of(folder: &Folder) -> Result<Self> {
        let mut weights = 0;
        for part in ["unet", "vae", "text_encoder", "text_encoder_2"] {
            if part != "text_encoder_2" || folder.has(part) {
                weights += FLOAT * folder.parameters(part)?;
            }
        }
        let vae: serde_json::Value = folder.config("vae/config.json")?;
        let tiny = vae["_class_name"] == "AutoencoderTiny";
        let vae = if tiny { None } else { Some(folder.config("vae/config.json")?) };
        Ok(Self { weights, unet: folder.config("unet/config.json")?, vae })
    }

    /// Pixels a latent, each way (8 where the autoencoder does not tell by its levels).
    pub fn factor(&self) -> u64 {
        self.vae.as_ref().map_or(8, |v| v.factor() as u64)
    }

    /// Bytes of encoding `views` pictures of `size`² and of the way back: with the tape, and recomputing.
    pub fn encoder(&self, views: u64, size: u64) -> [u64; 2] {
        let Some(vae) = &self.vae else {
            let tape = views * size * size * 64 * 12 * FLOAT / 4;
            return [tape, tape];
        };
        let c: Vec<u64> = vae.block_out_channels.iter().map(|c| *c as u64).collect();
        let mut pixels = views * size * size;
        let mut parts = vec![Part { takes: 3 * pixels, tape: c[0] * pixels, largest: c[0] * pixels }];
        let mut from = c[0];
        for (i, &to) in c.iter().enumerate() {
            for _ in 0..vae.layers_per_block {
                parts.push(Part::resnet(pixels, from, to));
                from = to;
            }
            if i + 1 < c.len() {
                let takes = to * pixels;
                pixels /= 4;
                parts.push(Part { takes, tape: to * pixels, largest: takes });
            }
        }
        let last = from * pixels;
        let attention = Part { takes: last, tape: 9 * last, largest: last };
        let resnet = Part::resnet(pixels, from, from);
        parts.push(resnet.plus(attention).plus(resnet));
        parts.push(Part { takes: last, tape: last, largest: last });
        peaks(&parts)
    }

    /// Bytes of one evaluation of the U-Net on `samples` latents of `side`², without a tape.
    pub fn predict(&self, samples: u64, side: u64) -> u64 {
        let parts = self.unet_parts(samples, side, BLOCK);
        // Without a tape a part holds about a third of its tensors at a time; skips are held to the end.
        let kept: u64 = parts.iter().map(|p| p.takes).sum();
        FLOAT * (kept + parts.iter().map(|p| p.tape / 3).max().unwrap_or(0))
    }

    /// Bytes of a step of learning adapters, besides their weights: with the tape, and recomputing.
    pub fn learn(&self, samples: u64, side: u64) -> [u64; 2] {
        peaks(&self.unet_parts(samples, side, BLOCK + ADAPTERS))
    }

    /// The U-Net's levels down, its bottom, and its levels up, as `backward_recomputed` takes them.
    fn unet_parts(&self, samples: u64, side: u64, block: u64) -> Vec<Part> {
        let u = &self.unet;
        let c: Vec<u64> = u.block_out_channels.iter().map(|c| *c as u64).collect();
        let pixels = |level: usize| samples * (side >> level).max(1).pow(2);
        let transformer = |level: usize, kind: &str, at: usize| {
            let tokens = pixels(level) * c[level];
            let depth = u.transformer_layers_per_block.at(at) as u64;
            let crossed = if kind.contains("CrossAttn") { 1 } else { 0 };
            Part {
                takes: 0,
                tape: crossed * tokens * (AROUND + depth * block),
                largest: crossed * 8 * tokens,
            }
        };
        let mut parts = Vec::new();
        for (level, kind) in u.down_block_types.iter().enumerate() {
            let mut from = c[level.saturating_sub(1)];
            let mut whole = Part { takes: pixels(level) * from, tape: 0, largest: 0 };
            for _ in 0..u.layers_per_block.at(level) {
                let resnet = Part::resnet(pixels(level), from, c[level]);
                whole = whole.plus(resnet).plus(transformer(level, kind, level));
                from = c[level];
            }
            parts.push(whole);
        }
        let bottom = c.len() - 1;
        let resnet = Part::resnet(pixels(bottom), c[bottom], c[bottom]);
        parts.push(resnet.plus(transformer(bottom, &u.mid_block_type, bottom)).plus(resnet));
        for (i, kind) in u.up_block_types.iter().enumerate() {
            let level = bottom - i;
            let layers = u.layers_per_block.at(level) + 1;
            let mut from = c[(level + 1).min(bottom)];
            let mut whole = Part { takes: pixels(level) * from, tape: 0, largest: 0 };
            for layer in 0..layers {
                let skip = if layer + 1 == layers { c[level.saturating_sub(1)] } else { c[level] };
                let resnet = Part::resnet(pixels(level), from + skip, c[level]);
                // The skip itself, and what it is joined into.
                whole.takes += pixels(level) * skip;
                whole.tape += pixels(level) * (from + skip);
                whole = whole.plus(resnet).plus(transformer(level, kind, level));
                from = c[level];
            }
            parts.push(whole);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_priors_parts_are_counted() {
        let folder = Folder::embedded().unwrap();
        let f = Footprint::of(&folder).unwrap();
        let loaded = |part: &str| -> u64 {
            let (tensors, _) = folder.tensors(part).unwrap();
            tensors.values().map(|t| t.elem_count() as u64).sum()
        };
        assert_eq!(f.weights, 4 * (loaded("unet") + loaded("vae") + loaded("text_encoder")));
        let [tape, less] = f.encoder(2, 64);
        assert!(less < tape && f.encoder(4, 64) == [2 * tape, 2 * less]);
        let [tape, less] = f.learn(2, 16);
        assert!(less < tape && f.predict(2, 16) < tape);
    }
}
