//! The autoencoder between pictures and latents (diffusers' `AutoencoderKL`).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::layers::{Conv2d, GroupNorm, Linear, ResnetBlock, Upsample};
use super::nn::{self, Padding};
use super::unet::PerBlock;
use super::weights::{Init, Weights};
use crate::error::{Error, Result};

mod recompute;

pub use recompute::Encoded;

/// `vae/config.json`, the keys that decide the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VaeConfig {
    /// Colour channels.
    pub in_channels: usize,
    /// Colour channels out.
    pub out_channels: usize,
    /// Channels, from the highest resolution down; each step but the last halves the picture.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks a level in the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of the group norms.
    #[serde(default = "default_groups")]
    pub norm_num_groups: usize,
    /// Latents times this have unit variance.
    #[serde(default = "default_scaling")]
    pub scaling_factor: f64,
    /// Latents minus this are scaled (0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift_factor: Option<f64>,
    /// 1×1 convolution after the encoder.
    #[serde(default = "default_true")]
    pub use_quant_conv: bool,
    /// 1×1 convolution before the decoder.
    #[serde(default = "default_true")]
    pub use_post_quant_conv: bool,
    /// Attention at the bottom.
    #[serde(default = "default_true")]
    pub mid_block_add_attention: bool,
    /// Side of the pictures it was trained on.
    #[serde(default)]
    pub sample_size: Option<PerBlock>,
    /// Everything else in the file.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

fn default_groups() -> usize {
    32
}

fn default_true() -> bool {
    true
}

fn default_scaling() -> f64 {
    0.18215
}

impl VaeConfig {
    /// Refuses keys and values this network does not implement.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn check(&self) -> Result<()> {
        let bad = |k: &str, why: String| Err(Error::invalid(format!("vae/config.json: {k}"), why));
        for (key, value) in self.rest.iter().filter(|(k, _)| !k.starts_with('_')) {
            let text = value.to_string();
            let all =
                |name: &str| value.as_array().is_some_and(|a| a.iter().all(|v| v.as_str() == Some(name)));
            let ok = match key.as_str() {
                "act_fn" => text == "\"silu\"" || text == "\"swish\"",
                "down_block_types" => all("DownEncoderBlock2D"),
                "up_block_types" => all("UpDecoderBlock2D"),
                "latents_mean" | "latents_std" => text == "null",
                "force_upcast" => true, // all arithmetic is f32
                _ => return bad(key, format!("unknown key (value {text})")),
            };
            if !ok {
                return bad(key, format!("unsupported value {text}"));
            }
        }
        let c = &self.block_out_channels;
        let groups = self.norm_num_groups.max(1);
        if c.is_empty()
            || c.len() > 8
            || c.iter().any(|&c| c == 0 || c > 1 << 14 || !c.is_multiple_of(groups))
        {
            return bad("block_out_channels", format!("must be 1 to 8 multiples of {groups}"));
        }
        if self.latent_channels == 0 || self.latent_channels > 64 || self.layers_per_block > 16 {
            return bad("latent_channels", "or layers_per_block out of range".into());
        }
        Ok(())
    }

    /// Pixels a latent pixel, each way.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

const EPS: f64 = 1e-6;

/// One head over all pixels.
struct PixelAttention {
    norm: GroupNorm,
    qkv: [Linear; 3],
    out: Linear,
}

impl PixelAttention {
    fn new(c: usize, groups: usize, w: &Weights) -> Result<Self> {
        let linear = |name: &str| Linear::new(c, c, true, &w.pp(name));
        Ok(Self {
            norm: GroupNorm::new(c, groups, EPS, &w.pp("group_norm"))?,
            qkv: [linear("to_q")?, linear("to_k")?, linear("to_v")?],
            out: Linear::with_init(c, c, true, Init::Zeros, &w.pp("to_out.0"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let t = self.norm.forward(x)?.reshape((b, c, h * w))?.transpose(1, 2)?.contiguous()?;
        let [q, k, v] = &self.qkv;
        let (q, k, v) = (q.forward(&t)?, k.forward(&t)?, v.forward(&t)?);
        let a = self.out.forward(&nn::attention(&q, &k, &v, 1, (c as f64).powf(-0.5), false)?)?;
        Ok((x + a.transpose(1, 2)?.contiguous()?.reshape((b, c, h, w))?)?)
    }
}

struct MidBlock {
    resnets: [ResnetBlock; 2],
    attention: Option<PixelAttention>,
}

impl MidBlock {
    fn new(c: usize, config: &VaeConfig, w: &Weights) -> Result<Self> {
        let groups = config.norm_num_groups;
        let resnet = |i: usize| ResnetBlock::new(c, c, None, groups, EPS, &w.pp("resnets").pp(i));
        let attention = config
            .mid_block_add_attention
            .then(|| PixelAttention::new(c, groups, &w.pp("attentions.0")))
            .transpose()?;
        Ok(Self { resnets: [resnet(0)?, resnet(1)?], attention })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.resnets[0].forward(x, None)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x)?;
        }
        self.resnets[1].forward(&x, None)
    }
}

struct Encoder {
    conv_in: Conv2d,
    down: Vec<(Vec<ResnetBlock>, Option<Conv2d>)>,
    mid: MidBlock,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

struct Decoder {
    conv_in: Conv2d,
    mid: MidBlock,
    up: Vec<(Vec<ResnetBlock>, Option<Upsample>)>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// See the module's text.
pub struct Vae {
    /// The configuration it was built from.
    pub config: VaeConfig,
    encoder: Encoder,
    decoder: Decoder,
    quant: Option<Conv2d>,
    post_quant: Option<Conv2d>,
}

/// The diagonal Gaussian the encoder gives, unscaled: mean and log-variance `[B, c, h, w]`.
pub struct Posterior {
    /// Mean.
    pub mean: Tensor,
    /// Log-variance, clamped to −30..20.
    pub logvar: Tensor,
}

impl Vae {
    /// Takes its tensors from `w`.
    ///
    /// # Errors
    /// An unsupported config value; a tensor that cannot be made.
    pub fn new(config: VaeConfig, w: &Weights) -> Result<Self> {
        config.check()?;
        let z = config.latent_channels;
        let quant =
            |n: usize, on: bool, name: &str| on.then(|| Conv2d::new(n, n, 1, &w.pp(name))).transpose();
        Ok(Self {
            encoder: encoder(&config, &w.pp("encoder"))?,
            decoder: decoder(&config, &w.pp("decoder"))?,
            quant: quant(2 * z, config.use_quant_conv, "quant_conv")?,
            post_quant: quant(z, config.use_post_quant_conv, "post_quant_conv")?,
            config,
        })
    }

    fn check_size(&self, x: &Tensor) -> Result<()> {
        let (_, _, h, w) = x.dims4()?;
        let f = self.config.factor();
        if !h.is_multiple_of(f) || !w.is_multiple_of(f) {
            return Err(Error::invalid("picture size", format!("{w}×{h} is no multiple of {f}")));
        }
        Ok(())
    }

    /// Parts of the encoder, one after the other: the first convolution, each residual block, each halving,
    /// the bottom, the moments.
    fn segments(&self) -> usize {
        3 + self.encoder.down.iter().map(|(r, d)| r.len() + usize::from(d.is_some())).sum::<usize>()
    }

    /// What the part `index` of the encoder gives for what the one before it gave.
    fn segment(&self, index: usize, x: &Tensor) -> Result<Tensor> {
        let e = &self.encoder;
        let Some(mut i) = index.checked_sub(1) else { return e.conv_in.forward(x) };
        for (resnets, downsample) in &e.down {
            if let Some(resnet) = resnets.get(i) {
                return resnet.forward(x, None);
            }
            i -= resnets.len();
            match downsample {
                Some(conv) if i == 0 => return conv.forward(x),
                Some(_) => i -= 1,
                None => {}
            }
        }
        if i == 0 {
            return e.mid.forward(x);
        }
        let moments = e.conv_out.forward(&e.norm_out.forward_silu(x)?)?;
        self.quant.as_ref().map_or(Ok(moments.clone()), |conv| conv.forward(&moments))
    }

    /// The posterior of pictures `[B, 3, H, W]` in −1..1 (sRGB).
    ///
    /// # Errors
    /// If the sides are no multiple of [`VaeConfig::factor`].
    pub fn posterior(&self, x: &Tensor) -> Result<Posterior> {
        self.check_size(x)?;
        let mut moments = x.clone();
        for segment in 0..self.segments() {
            moments = self.segment(segment, &moments)?;
        }
        let mut halves = moments.chunk(2, 1)?.into_iter();
        let (Some(mean), Some(logvar)) = (halves.next(), halves.next()) else {
            return Err(Error::Failed("vae: moments".into()));
        };
        Ok(Posterior { mean: mean.contiguous()?, logvar: logvar.contiguous()?.clamp(-30f32, 20f32)? })
    }

    /// Scaled latents `[B, c, h, w]`: (mean of the posterior − `shift_factor`)·`scaling_factor`.
    ///
    /// # Errors
    /// As [`Vae::posterior`].
    pub fn encode_mean(&self, x: &Tensor) -> Result<Tensor> {
        self.scale(&self.posterior(x)?.mean)
    }

    /// Scaled latents, a sample of the posterior for standard normal `noise` of the latents' shape.
    ///
    /// # Errors
    /// As [`Vae::posterior`].
    pub fn encode_sample(&self, x: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let Posterior { mean, logvar } = self.posterior(x)?;
        self.scale(&(mean + (noise * (logvar * 0.5)?.exp()?)?)?)
    }

    fn scale(&self, z: &Tensor) -> Result<Tensor> {
        let (scale, shift) = (self.config.scaling_factor, self.config.shift_factor.unwrap_or(0.0));
        Ok(z.affine(scale, -shift * scale)?)
    }

    /// Pictures `[B, 3, H, W]` (about −1..1) of scaled latents.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn decode(&self, z: &Tensor) -> Result<Tensor> {
        let (scale, shift) = (self.config.scaling_factor, self.config.shift_factor.unwrap_or(0.0));
        self.decode_unscaled(&z.affine(1.0 / scale, shift)?)
    }

    /// Pictures of latents as the posterior gives them.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn decode_unscaled(&self, z: &Tensor) -> Result<Tensor> {
        let d = &self.decoder;
        let quant = self.post_quant.as_ref().map(|conv| conv.forward(z)).transpose()?;
        let mut t = d.mid.forward(&d.conv_in.forward(quant.as_ref().unwrap_or(z))?)?;
        for (resnets, upsample) in &d.up {
            for r in resnets {
                t = r.forward(&t, None)?;
            }
            if let Some(up) = upsample {
                t = up.forward(&t)?;
            }
        }
        d.conv_out.forward(&d.norm_out.forward_silu(&t)?)
    }
}

fn encoder(config: &VaeConfig, w: &Weights) -> Result<Encoder> {
    let (c, groups) = (&config.block_out_channels, config.norm_num_groups);
    let last = c[c.len() - 1];
    let mut down = Vec::new();
    for i in 0..c.len() {
        let w = w.pp("down_blocks").pp(i);
        let resnet = |j: usize| {
            let inputs = if j == 0 { c[i.saturating_sub(1)] } else { c[i] };
            ResnetBlock::new(inputs, c[i], None, groups, EPS, &w.pp("resnets").pp(j))
        };
        let resnets = (0..config.layers_per_block).map(resnet).collect::<Result<_>>()?;
        let downsample = (i + 1 < c.len())
            .then(|| {
                let (init, w) = (Init::Uniform(c[i] * 9), w.pp("downsamplers.0.conv"));
                Conv2d::full(c[i], c[i], 3, 2, Padding::BottomRight, init, &w)
            })
            .transpose()?;
        down.push((resnets, downsample));
    }
    Ok(Encoder {
        conv_in: Conv2d::new(config.in_channels, c[0], 3, &w.pp("conv_in"))?,
        down,
        mid: MidBlock::new(last, config, &w.pp("mid_block"))?,
        norm_out: GroupNorm::new(last, groups, EPS, &w.pp("conv_norm_out"))?,
        conv_out: Conv2d::new(last, 2 * config.latent_channels, 3, &w.pp("conv_out"))?,
    })
}

fn decoder(config: &VaeConfig, w: &Weights) -> Result<Decoder> {
    let (c, groups) = (&config.block_out_channels, config.norm_num_groups);
    let last = c[c.len() - 1];
    let mut up = Vec::new();
    for i in 0..c.len() {
        let level = c.len() - 1 - i;
        let w = w.pp("up_blocks").pp(i);
        let below = c[(level + 1).min(c.len() - 1)];
        let resnet = |j: usize| {
            let inputs = if j == 0 { below } else { c[level] };
            ResnetBlock::new(inputs, c[level], None, groups, EPS, &w.pp("resnets").pp(j))
        };
        let resnets = (0..=config.layers_per_block).map(resnet).collect::<Result<_>>()?;
        let upsample = (level > 0).then(|| Upsample::new(c[level], &w.pp("upsamplers.0"))).transpose()?;
        up.push((resnets, upsample));
    }
    Ok(Decoder {
        conv_in: Conv2d::new(config.latent_channels, last, 3, &w.pp("conv_in"))?,
        mid: MidBlock::new(last, config, &w.pp("mid_block"))?,
        up,
        norm_out: GroupNorm::new(c[0], groups, EPS, &w.pp("conv_norm_out"))?,
        conv_out: Conv2d::new(c[0], config.out_channels, 3, &w.pp("conv_out"))?,
    })
}
