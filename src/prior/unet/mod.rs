//! The noise predictor: diffusers' `UNet2DConditionModel`, optionally conditioned by a camera.

mod config;
mod pooled;
mod transformer;

use candle_core::{DType, Tensor};

pub use config::{PerBlock, UnetConfig};
use pooled::PooledText;
use transformer::Transformer;

use super::layers::{Conv2d, EmbeddingMlp, GroupNorm, ResnetBlock, Upsample};
use super::nn::{self, Padding};
use super::weights::{Init, Weights};
use crate::error::{Error, Result};

struct DownBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Transformer>,
    downsample: Option<Conv2d>,
}

struct UpBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Transformer>,
    upsample: Option<Upsample>,
}

struct MidBlock {
    resnets: [ResnetBlock; 2],
    attention: Transformer,
}

/// See the module's text.
pub struct Unet {
    /// The configuration it was built from.
    pub config: UnetConfig,
    conv_in: Conv2d,
    time: EmbeddingMlp,
    class: Option<EmbeddingMlp>,
    pooled: Option<PooledText>,
    down: Vec<DownBlock>,
    mid: MidBlock,
    up: Vec<UpBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Unet {
    /// Takes its tensors from `w`.
    ///
    /// # Errors
    /// An unsupported config value; a tensor that cannot be made.
    pub fn new(config: UnetConfig, w: &Weights) -> Result<Self> {
        config.check()?;
        let c = &config.block_out_channels;
        let time = c[0] * 4;
        let class = match (&config.class_embed_type, config.projection_class_embeddings_input_dim) {
            (Some(_), Some(inputs)) => Some(EmbeddingMlp::new(inputs, time, &w.pp("class_embedding"))?),
            _ => None,
        };
        let (width, heads) = (config.cross_attention_dim, config.addition_embed_type_num_heads);
        let pooled = match config.addition_embed_type {
            Some(_) => Some(PooledText::new(width, time, heads, &w.pp("add_embedding"))?),
            None => None,
        };
        let last = c[c.len() - 1];
        let out = Init::Zeros;
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, c[0], 3, &w.pp("conv_in"))?,
            time: EmbeddingMlp::new(c[0], time, &w.pp("time_embedding"))?,
            class,
            pooled,
            down: (0..c.len()).map(|i| down_block(&config, i, time, w)).collect::<Result<_>>()?,
            mid: MidBlock {
                resnets: [
                    resnet(&config, last, last, time, &w.pp("mid_block.resnets.0"))?,
                    resnet(&config, last, last, time, &w.pp("mid_block.resnets.1"))?,
                ],
                attention: attention(&config, c.len() - 1, &w.pp("mid_block.attentions.0"))?,
            },
            up: (0..c.len()).map(|i| up_block(&config, i, time, w)).collect::<Result<_>>()?,
            norm_out: GroupNorm::new(c[0], config.norm_num_groups, config.norm_eps, &w.pp("conv_norm_out"))?,
            conv_out: Conv2d::full(
                c[0],
                config.out_channels,
                3,
                1,
                Padding::Same(1),
                out,
                &w.pp("conv_out"),
            )?,
            config,
        })
    }

    /// The network's prediction `[B, out_channels, h, w]` (ε, v or x₀ as the scheduler says).
    ///
    /// `x` is `[B, in_channels, h, w]`, `timestep` `[B]` (f32, 0..1000), `context` the text's hidden
    /// states `[B, L, cross_attention_dim]`, `class_labels` `[B, projection_class_embeddings_input_dim]`.
    ///
    /// # Errors
    /// If shapes do not fit, or `class_labels` is missing where the config asks for it.
    pub fn forward(
        &self,
        x: &Tensor,
        timestep: &Tensor,
        context: &Tensor,
        class_labels: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mut emb = self.embedding(timestep, x.dtype(), class_labels)?;
        if let Some(pooled) = &self.pooled {
            emb = (emb + pooled.forward(context)?)?;
        }
        let emb = nn::silu(&emb)?;
        let mut h = self.conv_in.forward(x)?;
        let mut skips = vec![h.clone()];
        for block in &self.down {
            for (i, resnet) in block.resnets.iter().enumerate() {
                h = resnet.forward(&h, Some(&emb))?;
                if let Some(a) = block.attentions.get(i) {
                    h = a.forward(&h, context)?;
                }
                skips.push(h.clone());
            }
            if let Some(conv) = &block.downsample {
                h = conv.forward(&h)?;
                skips.push(h.clone());
            }
        }
        h = self.mid.resnets[0].forward(&h, Some(&emb))?;
        h = self.mid.attention.forward(&h, context)?;
        h = self.mid.resnets[1].forward(&h, Some(&emb))?;
        for block in &self.up {
            for (i, resnet) in block.resnets.iter().enumerate() {
                let skip = skips.pop().ok_or_else(|| Error::Failed("u-net skip connections".into()))?;
                h = resnet.forward(&Tensor::cat(&[&h, &skip], 1)?.contiguous()?, Some(&emb))?;
                if let Some(a) = block.attentions.get(i) {
                    h = a.forward(&h, context)?;
                }
            }
            if let Some(up) = &block.upsample {
                h = up.forward(&h)?;
            }
        }
        self.conv_out.forward(&self.norm_out.forward_silu(&h)?)
    }

    fn embedding(&self, timestep: &Tensor, dtype: DType, class_labels: Option<&Tensor>) -> Result<Tensor> {
        let width = self.config.block_out_channels[0];
        let t = timestep_embedding(timestep, width, self.config.flip_sin_to_cos, self.config.freq_shift)?;
        let emb = self.time.forward(&t.to_dtype(dtype)?)?;
        match (&self.class, class_labels) {
            (Some(mlp), Some(labels)) => Ok((emb + mlp.forward(labels)?)?),
            (Some(_), None) => {
                Err(Error::invalid("class_labels", "this prior is conditioned by a camera; none was given"))
            }
            (None, _) => Ok(emb),
        }
    }
}

/// Sinusoidal embedding `[B, width]` of timesteps `[B]`, in f32 whatever the network's type
/// (in f16 the features of large timesteps are off by up to 0.3).
///
/// # Errors
/// If the tensor cannot be made.
pub fn timestep_embedding(timestep: &Tensor, width: usize, flip: bool, freq_shift: f64) -> Result<Tensor> {
    let half = width / 2;
    let t = timestep.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    let mut values = Vec::with_capacity(t.len() * width);
    for t in &t {
        let angle =
            |i: usize| f64::from(*t) * (-(10_000_f64.ln()) * i as f64 / (half as f64 - freq_shift)).exp();
        let sin = (0..half).map(|i| angle(i).sin() as f32);
        let cos = (0..half).map(|i| angle(i).cos() as f32);
        if flip {
            values.extend(cos.chain(sin));
        } else {
            values.extend(sin.chain(cos));
        }
    }
    Ok(Tensor::from_vec(values, (t.len(), half * 2), timestep.device())?)
}

fn resnet(
    config: &UnetConfig,
    inputs: usize,
    outputs: usize,
    time: usize,
    w: &Weights,
) -> Result<ResnetBlock> {
    ResnetBlock::new(inputs, outputs, Some(time), config.norm_num_groups, config.norm_eps, w)
}

fn attention(config: &UnetConfig, level: usize, w: &Weights) -> Result<Transformer> {
    let heads = config.attention_head_dim.at(level);
    let (c, context) = (config.block_out_channels[level], config.cross_attention_dim);
    Transformer::new(c, context, heads, config.norm_num_groups, config.use_linear_projection, w)
}

fn down_block(config: &UnetConfig, i: usize, time: usize, w: &Weights) -> Result<DownBlock> {
    let w = w.pp("down_blocks").pp(i);
    let c = &config.block_out_channels;
    let crossed = config.down_block_types[i] == "CrossAttnDownBlock2D";
    let mut block = DownBlock { resnets: Vec::new(), attentions: Vec::new(), downsample: None };
    for j in 0..config.layers_per_block {
        let inputs = if j == 0 { c[i.saturating_sub(1)] } else { c[i] };
        block.resnets.push(resnet(config, inputs, c[i], time, &w.pp("resnets").pp(j))?);
        if crossed {
            block.attentions.push(attention(config, i, &w.pp("attentions").pp(j))?);
        }
    }
    if i + 1 < c.len() {
        let (init, w) = (Init::Uniform(c[i] * 9), w.pp("downsamplers.0.conv"));
        block.downsample = Some(Conv2d::full(c[i], c[i], 3, 2, Padding::Same(1), init, &w)?);
    }
    Ok(block)
}

/// Up block `i`, counted from the lowest resolution.
fn up_block(config: &UnetConfig, i: usize, time: usize, w: &Weights) -> Result<UpBlock> {
    let w = w.pp("up_blocks").pp(i);
    let c = &config.block_out_channels;
    let level = c.len() - 1 - i;
    let crossed = config.up_block_types[i] == "CrossAttnUpBlock2D";
    let below = c[(level + 1).min(c.len() - 1)];
    let mut block = UpBlock { resnets: Vec::new(), attentions: Vec::new(), upsample: None };
    for j in 0..=config.layers_per_block {
        let from = if j == 0 { below } else { c[level] };
        // The last skip of a level is the downsampled output of the level above (or conv_in).
        let skip = if j == config.layers_per_block { c[level.saturating_sub(1)] } else { c[level] };
        block.resnets.push(resnet(config, from + skip, c[level], time, &w.pp("resnets").pp(j))?);
        if crossed {
            block.attentions.push(attention(config, level, &w.pp("attentions").pp(j))?);
        }
    }
    if level > 0 {
        block.upsample = Some(Upsample::new(c[level], &w.pp("upsamplers.0"))?);
    }
    Ok(block)
}
