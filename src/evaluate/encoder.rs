//! The evaluator's network: pictures and captions into one space, and the side a picture shows.

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::prior::layers::{Conv2d, GroupNorm, Linear, ResnetBlock};
use crate::prior::nn::{self, Padding};
use crate::prior::text::{TextConfig, TextEncoder};
use crate::prior::weights::{Init, Weights};

/// `config.json` of an evaluator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Side of the pictures in pixels.
    pub image_size: usize,
    /// Channels of the picture tower, from half the resolution down; each further one halves it again.
    pub channels: Vec<usize>,
    /// Groups of its group norms.
    pub groups: usize,
    /// Numbers in an embedding.
    pub width: usize,
    /// The text tower.
    pub text: TextConfig,
}

impl EncoderConfig {
    /// Refuses sizes that no network can be built from.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn check(&self) -> Result<()> {
        let levels = self.channels.len();
        let divides = |c: &usize| self.groups > 0 && (1..=4096).contains(c) && c.is_multiple_of(self.groups);
        if !(1..=8).contains(&levels) || !self.channels.iter().all(divides) {
            let why = format!("1 to 8 levels, each a multiple of {} groups, at most 4096", self.groups);
            return Err(Error::invalid("channels", why));
        }
        let (size, least) = (self.image_size, 1 << levels);
        if size == 0 || size > 1024 || !size.is_multiple_of(least) {
            return Err(Error::invalid("image_size", format!("{size} is no multiple of {least} up to 1024")));
        }
        if !(1..=4096).contains(&self.width) {
            return Err(Error::invalid("width", "must be 1 to 4096"));
        }
        self.text.check()
    }
}

/// Halves the resolution, then a residual block.
struct Level {
    norm: GroupNorm,
    down: Conv2d,
    block: ResnetBlock,
}

/// What the network sees in pictures.
pub struct Seen {
    /// Unit vectors `[B, width]`.
    pub embedding: Tensor,
    /// `[B, 2]`: cosine and sine of the camera's azimuth from the front, times how sure that is (0 … 1).
    pub azimuth: Tensor,
}

/// A contrastive encoder of pictures and texts (after Radford et al. 2021), with a head for the azimuth.
pub struct Encoder {
    /// The configuration it was built from.
    pub config: EncoderConfig,
    stem: Conv2d,
    levels: Vec<Level>,
    norm: GroupNorm,
    image_out: Linear,
    azimuth: [Linear; 2],
    text: TextEncoder,
    text_out: Linear,
    temperature: Tensor,
}

const EPS: f64 = 1e-5;
/// Hidden units of the azimuth head.
const AZIMUTH_WIDTH: usize = 64;
/// Factor of the similarities at the start of training, and the most it may become (CLIP's values).
const SCALE: [f64; 2] = [1.0 / 0.07, 100.0];

impl Encoder {
    /// Takes its tensors from `w`.
    ///
    /// # Errors
    /// A config value that cannot be used; a tensor that cannot be made.
    pub fn new(config: EncoderConfig, w: &Weights) -> Result<Self> {
        config.check()?;
        let (groups, first) = (config.groups, config.channels[0]);
        let v = w.pp("image");
        // The kernel covers more than its stride, so that edges between two steps are seen whole.
        let stem = Conv2d::full(3, first, 5, 2, Padding::Same(2), Init::Uniform(75), &v.pp("stem"))?;
        let mut levels = Vec::new();
        for (i, pair) in config.channels.windows(2).enumerate() {
            let (v, init) = (v.pp("levels").pp(i), Init::Uniform(9 * pair[0]));
            levels.push(Level {
                norm: GroupNorm::new(pair[0], groups, EPS, &v.pp("norm"))?,
                down: Conv2d::full(pair[0], pair[1], 3, 2, Padding::Same(1), init, &v.pp("down"))?,
                block: ResnetBlock::new(pair[1], pair[1], None, groups, EPS, &v.pp("block"))?,
            });
        }
        let last = config.channels[config.channels.len() - 1];
        let side = w.pp("azimuth");
        let pixels = (config.image_size >> config.channels.len()).pow(2);
        Ok(Self {
            stem,
            levels,
            norm: GroupNorm::new(last, groups, EPS, &v.pp("norm"))?,
            image_out: Linear::new(last, config.width, false, &v.pp("out"))?,
            azimuth: [
                Linear::new(last * pixels, AZIMUTH_WIDTH, true, &side.pp("linear_1"))?,
                Linear::new(AZIMUTH_WIDTH, 2, true, &side.pp("linear_2"))?,
            ],
            text: TextEncoder::new(config.text.clone(), w)?,
            text_out: Linear::new(config.text.hidden_size, config.width, false, &w.pp("text_out"))?,
            temperature: w.pp("temperature").get("log", &[1], Init::Zeros)?,
            config,
        })
    }

    /// What pictures `[B, 3, S, S]` in −1 … 1 show.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn pictures(&self, x: &Tensor) -> Result<Seen> {
        let mut h = self.stem.forward(x)?;
        for level in &self.levels {
            h = level.down.forward(&level.norm.forward_silu(&h)?)?;
            h = level.block.forward(&h, None)?;
        }
        let h = self.norm.forward_silu(&h)?;
        let pooled = h.flatten_from(2)?.mean(D::Minus1)?;
        // Not pooled: which way a thing looks is a matter of what lies left and right.
        let hidden = nn::silu(&self.azimuth[0].forward(&h.flatten_from(1)?)?)?;
        Ok(Seen {
            embedding: unit(&self.image_out.forward(&pooled)?)?,
            azimuth: self.azimuth[1].forward(&hidden)?,
        })
    }

    /// Unit vectors `[B, width]` of token ids `[B, L]` (u32).
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn texts(&self, ids: &Tensor) -> Result<Tensor> {
        unit(&self.text_out.forward(&self.text.encode(ids)?.pooled)?)
    }

    /// The learned factor of similarities in the loss, `[1]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn scale(&self) -> Result<Tensor> {
        Ok((self.temperature.exp()? * SCALE[0])?.minimum(SCALE[1])?)
    }
}

/// Rows of length 1.
fn unit(x: &Tensor) -> Result<Tensor> {
    let length = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    Ok(x.broadcast_div(&length)?)
}
