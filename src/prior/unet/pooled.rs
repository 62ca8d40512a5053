//! The text as a whole, added to the time embedding (diffusers' `addition_embed_type: text`).
//!
//! Cross-attention lets each pixel look up words; this path lets the words steer every residual block
//! at once (which colours, what kind of thing), which a small network learns much sooner.

use candle_core::Tensor;

use crate::error::Result;
use crate::prior::layers::{LayerNorm, Linear};
use crate::prior::nn;
use crate::prior::weights::{Init, Weights};

/// `TextTimeEmbedding`: layer norm, attention pooling, projection, layer norm.
pub(super) struct PooledText {
    norm1: LayerNorm,
    position: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    proj: Linear,
    norm2: LayerNorm,
    heads: usize,
}

impl PooledText {
    /// From hidden states of `width` numbers to `outputs` numbers.
    pub(super) fn new(width: usize, outputs: usize, heads: usize, w: &Weights) -> Result<Self> {
        let pool = w.pp("pool");
        let linear = |name: &str| Linear::new(width, width, true, &pool.pp(name));
        let spread = Init::Normal((width as f32).powf(-0.5));
        Ok(Self {
            norm1: LayerNorm::new(width, 1e-5, &w.pp("norm1"))?,
            position: pool.get("positional_embedding", &[1, width], spread)?,
            q: linear("q_proj")?,
            k: linear("k_proj")?,
            v: linear("v_proj")?,
            proj: Linear::new(width, outputs, true, &w.pp("proj"))?,
            norm2: LayerNorm::new(outputs, 1e-5, &w.pp("norm2"))?,
            heads,
        })
    }

    /// `[B, L, width]` to `[B, outputs]`: the mean token asks all tokens.
    pub(super) fn forward(&self, context: &Tensor) -> Result<Tensor> {
        let x = self.norm1.forward(context)?;
        let (batch, _, width) = x.dims3()?;
        let mean = x.mean_keepdim(1)?.broadcast_add(&self.position)?;
        let all = Tensor::cat(&[&mean, &x], 1)?.contiguous()?;
        let (q, k, v) = (self.q.forward(&mean)?, self.k.forward(&all)?, self.v.forward(&all)?);
        let scale = ((width / self.heads) as f64).powf(-0.5);
        let pooled = nn::attention(&q, &k, &v, self.heads, scale, false)?.reshape((batch, width))?;
        self.norm2.forward(&self.proj.forward(&pooled)?)
    }
}
