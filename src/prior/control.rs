//! diffusers' `ControlNetModel`: a picture of edges, depth or poses steers the U-Net by residuals.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::layers::Conv2d;
use super::nn::{self, Padding};
use super::unet::{Embedding, Encoder, State, Told, UnetConfig, UnetInputs};
use super::weights::{Init, Weights};
use crate::error::{Error, Result};

/// `controlnet/config.json`: the U-Net's keys and these.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ControlConfig {
    /// The half of the U-Net that it copies.
    #[serde(flatten)]
    pub unet: UnetConfig,
    /// Channels of the control picture.
    #[serde(default = "three")]
    pub conditioning_channels: usize,
    /// Channels on the way from the picture to the latents' size, halved at each but the first.
    #[serde(default = "widths")]
    pub conditioning_embedding_out_channels: Vec<usize>,
    /// `rgb` or `bgr`.
    #[serde(default = "rgb")]
    pub controlnet_conditioning_channel_order: String,
    /// Residuals are averaged over the picture.
    #[serde(default)]
    pub global_pool_conditions: bool,
}

fn three() -> usize {
    3
}

fn widths() -> Vec<usize> {
    vec![16, 32, 96, 256]
}

fn rgb() -> String {
    "rgb".into()
}

impl ControlConfig {
    fn check(&self) -> Result<()> {
        let bad = |k: &str, why: String| Err(Error::invalid(format!("controlnet/config.json: {k}"), why));
        self.unet.check_control()?;
        let order = &self.controlnet_conditioning_channel_order;
        if order != "rgb" && order != "bgr" {
            return bad(
                "controlnet_conditioning_channel_order",
                format!("unsupported value {order:?} (rgb, bgr)"),
            );
        }
        let c = &self.conditioning_embedding_out_channels;
        if c.is_empty() || c.len() > 8 || c.iter().any(|&c| c == 0 || c > 1 << 14) {
            return bad("conditioning_embedding_out_channels", "must be 1 to 8 positive numbers".into());
        }
        if self.conditioning_channels == 0 || self.conditioning_channels > 64 {
            return bad("conditioning_channels", "out of range 1..=64".into());
        }
        Ok(())
    }
}

/// See the module's text.
pub struct ControlNet {
    /// The configuration it was built from.
    pub config: ControlConfig,
    embedding: Embedding,
    encoder: Encoder,
    hint_in: Conv2d,
    hint_blocks: Vec<Conv2d>,
    hint_out: Conv2d,
    zero_down: Vec<Conv2d>,
    zero_mid: Conv2d,
}

/// What is added to the U-Net's skip connections and bottom.
#[derive(Debug, Clone)]
pub struct Residuals {
    /// One a skip connection, first to last.
    pub down: Vec<Tensor>,
    /// At the bottom.
    pub mid: Tensor,
}

impl Residuals {
    /// The sum of two `ControlNet`s' residuals.
    ///
    /// # Errors
    /// If they belong to different U-Nets.
    pub fn plus(&self, other: &Self) -> Result<Self> {
        if self.down.len() != other.down.len() {
            return Err(Error::invalid("controlnet", "two ControlNets for different U-Nets"));
        }
        let down = self.down.iter().zip(&other.down).map(|(a, b)| Ok((a + b)?));
        Ok(Self { down: down.collect::<Result<_>>()?, mid: (&self.mid + &other.mid)? })
    }
}

impl ControlNet {
    /// Takes its tensors from `w`.
    ///
    /// # Errors
    /// An unsupported config value; a tensor that cannot be made.
    pub fn new(config: ControlConfig, w: &Weights) -> Result<Self> {
        config.check()?;
        let c = &config.unet.block_out_channels;
        let hint = w.pp("controlnet_cond_embedding");
        let widths = &config.conditioning_embedding_out_channels;
        let same = Padding::Same(1);
        let mut hint_blocks = Vec::new();
        for (i, pair) in widths.windows(2).enumerate() {
            let at = |k: usize| hint.pp("blocks").pp(2 * i + k);
            hint_blocks.push(Conv2d::new(pair[0], pair[0], 3, &at(0))?);
            let init = Init::Uniform(pair[0] * 9);
            hint_blocks.push(Conv2d::full(pair[0], pair[1], 3, 2, same, init, &at(1))?);
        }
        let zero = |channels: usize, w: &Weights| {
            Conv2d::full(channels, channels, 1, 1, Padding::Same(0), Init::Zeros, w)
        };
        let mut skips = vec![c[0]];
        for (i, &channels) in c.iter().enumerate() {
            let more = usize::from(i + 1 < c.len());
            skips.extend(std::iter::repeat_n(channels, config.unet.layers_per_block.at(i) + more));
        }
        let zeros = w.pp("controlnet_down_blocks");
        let last = widths[widths.len() - 1];
        Ok(Self {
            embedding: Embedding::new(&config.unet, w)?,
            encoder: Encoder::new(&config.unet, w)?,
            hint_in: Conv2d::new(config.conditioning_channels, widths[0], 3, &hint.pp("conv_in"))?,
            hint_blocks,
            hint_out: Conv2d::full(last, c[0], 3, 1, same, Init::Zeros, &hint.pp("conv_out"))?,
            zero_down: skips
                .iter()
                .enumerate()
                .map(|(i, &n)| zero(n, &zeros.pp(i)))
                .collect::<Result<_>>()?,
            zero_mid: zero(c[c.len() - 1], &w.pp("controlnet_mid_block"))?,
            config,
        })
    }

    /// Residuals for the same inputs as the U-Net's and the control picture `[B, 3, H, W]` in 0..1
    /// (H and W those of the latents times the VAE's factor), times `scale`. With `guess`, earlier
    /// residuals weigh less: scale · 10^(−1 … 0).
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(
        &self,
        inputs: &UnetInputs<'_>,
        picture: &Tensor,
        scale: f64,
        guess: bool,
    ) -> Result<Residuals> {
        let emb = self.embedding.forward(inputs)?;
        let hint = self.hint(picture)?;
        let (_, _, h, w) = inputs.sample.dims4()?;
        if hint.dims()[2..] != [h, w] {
            let why = format!("gives {:?} for latents of {h}×{w}", &hint.dims()[2..]);
            return Err(Error::invalid("control picture", why).hint("make it 8 times the latents' size"));
        }
        let told = Told { emb: &emb, context: inputs.context, hook: inputs.hook };
        let State { h: bottom, skips } = self.encoder.forward(inputs.sample, Some(&hint), &told)?;
        let count = skips.len();
        let weight = |i: usize| {
            if guess { scale * 10f64.powf(i as f64 / count as f64 - 1.0) } else { scale }
        };
        let pool = |t: Tensor| -> Result<Tensor> {
            Ok(if self.config.global_pool_conditions { t.mean_keepdim((2, 3))? } else { t })
        };
        let down = skips.iter().zip(&self.zero_down).enumerate();
        let down = down.map(|(i, (skip, zero))| pool((zero.forward(skip)? * weight(i))?));
        Ok(Residuals {
            down: down.collect::<Result<_>>()?,
            mid: pool((self.zero_mid.forward(&bottom)? * weight(count))?)?,
        })
    }

    fn hint(&self, picture: &Tensor) -> Result<Tensor> {
        let (_, channels, _, _) = picture.dims4()?;
        if channels != self.config.conditioning_channels {
            let why = format!("{channels} channels, expected {}", self.config.conditioning_channels);
            return Err(Error::invalid("control picture", why));
        }
        let flipped = if self.config.controlnet_conditioning_channel_order == "bgr" {
            let planes: Vec<Tensor> =
                (0..channels).rev().map(|c| picture.narrow(1, c, 1)).collect::<candle_core::Result<_>>()?;
            Some(Tensor::cat(&planes, 1)?.contiguous()?)
        } else {
            None
        };
        let mut t = nn::silu(&self.hint_in.forward(flipped.as_ref().unwrap_or(picture))?)?;
        for conv in &self.hint_blocks {
            t = nn::silu(&conv.forward(&t)?)?;
        }
        self.hint_out.forward(&t)
    }
}
