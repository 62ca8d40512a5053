//! The spatial transformer of the U-Net (`Transformer2DModel` with one `BasicTransformerBlock`).

use candle_core::Tensor;

use crate::error::Result;
use crate::prior::layers::{Conv2d, GroupNorm, LayerNorm, Linear};
use crate::prior::nn::{self, Padding};
use crate::prior::weights::{Init, Weights};

/// Multi-head attention with diffusers' names (`to_q`, `to_k`, `to_v`, `to_out.0`).
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
    scale: f64,
}

impl Attention {
    fn new(channels: usize, context: usize, heads: usize, w: &Weights) -> Result<Self> {
        Ok(Self {
            q: Linear::new(channels, channels, false, &w.pp("to_q"))?,
            k: Linear::new(context, channels, false, &w.pp("to_k"))?,
            v: Linear::new(context, channels, false, &w.pp("to_v"))?,
            out: Linear::new(channels, channels, true, &w.pp("to_out.0"))?,
            heads,
            scale: ((channels / heads) as f64).powf(-0.5),
        })
    }

    fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (q, k, v) = (self.q.forward(x)?, self.k.forward(context)?, self.v.forward(context)?);
        self.out.forward(&nn::attention(&q, &k, &v, self.heads, self.scale, false)?)
    }
}

enum Projection {
    Conv(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn new(channels: usize, linear: bool, init: Init, w: &Weights) -> Result<Self> {
        Ok(if linear {
            Self::Linear(Linear::with_init(channels, channels, true, init, w)?)
        } else {
            Self::Conv(Conv2d::full(channels, channels, 1, 1, Padding::Same(0), init, w)?)
        })
    }
}

/// Self-attention, cross-attention to the text, and a gated MLP over the pixels of a feature map.
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Projection,
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
    proj_out: Projection,
}

impl Transformer {
    pub(super) fn new(
        channels: usize,
        context: usize,
        heads: usize,
        groups: usize,
        linear: bool,
        w: &Weights,
    ) -> Result<Self> {
        let b = w.pp("transformer_blocks.0");
        let norm = |name: &str| LayerNorm::new(channels, 1e-5, &b.pp(name));
        let uniform = Init::Uniform(channels);
        Ok(Self {
            norm: GroupNorm::new(channels, groups, 1e-6, &w.pp("norm"))?,
            proj_in: Projection::new(channels, linear, uniform, &w.pp("proj_in"))?,
            norm1: norm("norm1")?,
            attn1: Attention::new(channels, channels, heads, &b.pp("attn1"))?,
            norm2: norm("norm2")?,
            attn2: Attention::new(channels, context, heads, &b.pp("attn2"))?,
            norm3: norm("norm3")?,
            ff_in: Linear::new(channels, channels * 8, true, &b.pp("ff.net.0.proj"))?,
            ff_out: Linear::new(channels * 4, channels, true, &b.pp("ff.net.2"))?,
            proj_out: Projection::new(channels, linear, Init::Zeros, &w.pp("proj_out"))?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let normed = self.norm.forward(x)?;
        let tokens =
            |t: &Tensor| -> Result<Tensor> { Ok(t.reshape((b, c, h * w))?.transpose(1, 2)?.contiguous()?) };
        let picture =
            |t: &Tensor| -> Result<Tensor> { Ok(t.transpose(1, 2)?.contiguous()?.reshape((b, c, h, w))?) };
        let mut t = match &self.proj_in {
            Projection::Conv(conv) => tokens(&conv.forward(&normed)?)?,
            Projection::Linear(linear) => linear.forward(&tokens(&normed)?)?,
        };
        let n = self.norm1.forward(&t)?;
        t = (self.attn1.forward(&n, &n)? + t)?;
        t = (self.attn2.forward(&self.norm2.forward(&t)?, context)? + t)?;
        t = (self.ff_out.forward(&nn::geglu(&self.ff_in.forward(&self.norm3.forward(&t)?)?)?)? + t)?;
        let y = match &self.proj_out {
            Projection::Conv(conv) => conv.forward(&picture(&t)?)?,
            Projection::Linear(linear) => picture(&linear.forward(&t)?)?,
        };
        Ok((y + x)?)
    }
}
