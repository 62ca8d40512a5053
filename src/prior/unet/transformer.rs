//! The spatial transformer of the U-Net (`Transformer2DModel` of `BasicTransformerBlock`s).

use candle_core::Tensor;

use super::attention::{Attention, AttentionHook};
use crate::error::Result;
use crate::prior::layers::{Conv2d, GroupNorm, LayerNorm, Linear};
use crate::prior::nn::{self, Padding};
use crate::prior::weights::{Init, Weights};

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

/// Self-attention, cross-attention to the text, and a gated MLP.
struct Block {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
}

impl Block {
    fn new(s: &Shape, w: &Weights) -> Result<Self> {
        let c = s.channels;
        let norm = |name: &str| LayerNorm::new(c, 1e-5, &w.pp(name));
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::new(c, c, s.heads, &w.pp("attn1"))?,
            norm2: norm("norm2")?,
            attn2: Attention::new(c, s.context, s.heads, &w.pp("attn2"))?,
            norm3: norm("norm3")?,
            ff_in: Linear::new(c, c * 8, true, &w.pp("ff.net.0.proj"))?,
            ff_out: Linear::new(c * 4, c, true, &w.pp("ff.net.2"))?,
        })
    }

    fn forward(&self, t: &Tensor, context: &Tensor, hook: Option<&dyn AttentionHook>) -> Result<Tensor> {
        let n = self.norm1.forward(t)?;
        let t = (self.attn1.forward(&n, &n, hook)? + t)?;
        let t = (self.attn2.forward(&self.norm2.forward(&t)?, context, hook)? + t)?;
        Ok((self.ff_out.forward(&nn::geglu(&self.ff_in.forward(&self.norm3.forward(&t)?)?)?)? + t)?)
    }
}

/// Sizes of a [`Transformer`].
pub(super) struct Shape {
    pub(super) channels: usize,
    pub(super) context: usize,
    pub(super) heads: usize,
    pub(super) layers: usize,
    pub(super) groups: usize,
    /// Linear instead of 1×1 convolution around the blocks.
    pub(super) linear: bool,
}

/// Transformer blocks over the pixels of a feature map.
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Projection,
    blocks: Vec<Block>,
    proj_out: Projection,
}

impl Transformer {
    pub(super) fn new(s: &Shape, w: &Weights) -> Result<Self> {
        let c = s.channels;
        let blocks = w.pp("transformer_blocks");
        Ok(Self {
            norm: GroupNorm::new(c, s.groups, 1e-6, &w.pp("norm"))?,
            proj_in: Projection::new(c, s.linear, Init::Uniform(c), &w.pp("proj_in"))?,
            blocks: (0..s.layers).map(|i| Block::new(s, &blocks.pp(i))).collect::<Result<_>>()?,
            proj_out: Projection::new(c, s.linear, Init::Zeros, &w.pp("proj_out"))?,
        })
    }

    pub(super) fn forward(
        &self,
        x: &Tensor,
        context: &Tensor,
        hook: Option<&dyn AttentionHook>,
    ) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let normed = self.norm.forward(x)?;
        let tokens = |t: &Tensor| -> Result<Tensor> { Ok(nn::turned(&t.reshape((b, c, h * w))?)?) };
        let picture = |t: &Tensor| -> Result<Tensor> { Ok(nn::turned(t)?.reshape((b, c, h, w))?) };
        let mut t = match &self.proj_in {
            Projection::Conv(conv) => tokens(&conv.forward(&normed)?)?,
            Projection::Linear(linear) => linear.forward(&tokens(&normed)?)?,
        };
        for block in &self.blocks {
            t = block.forward(&t, context, hook)?;
        }
        let y = match &self.proj_out {
            Projection::Conv(conv) => conv.forward(&picture(&t)?)?,
            Projection::Linear(linear) => picture(&linear.forward(&t)?)?,
        };
        Ok((y + x)?)
    }
}
