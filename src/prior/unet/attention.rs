//! Attention of the U-Net, open to whoever wants other keys, other values or the maps.

use candle_core::{D, Tensor};

use crate::error::Result;
use crate::prior::layers::Linear;
use crate::prior::nn;
use crate::prior::weights::Weights;

/// Which attention of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// diffusers' name, such as `down_blocks.1.attentions.0.transformer_blocks.0.attn1`.
    pub name: String,
    /// Attends to the text (`attn2`), not to the picture itself (`attn1`).
    pub cross: bool,
}

/// One evaluation of an attention: projected and not yet attended.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Queries `[B, N, heads·d]`.
    pub q: &'a Tensor,
    /// Keys `[B, M, heads·d]`.
    pub k: &'a Tensor,
    /// Values `[B, M, heads·d]`.
    pub v: &'a Tensor,
    /// Number of heads.
    pub heads: usize,
    /// Factor of the logits, d^−½.
    pub scale: f64,
}

impl Call<'_> {
    /// What the network does by itself: softmax(scale q kᵀ) v, `[B, N, heads·d]`.
    ///
    /// # Errors
    /// If shapes do not fit (replaced keys of another batch size, say).
    pub fn attend(&self) -> Result<Tensor> {
        Ok(nn::attention(self.q, self.k, self.v, self.heads, self.scale, false)?)
    }

    /// The attention maps `[B, heads, N, M]`, each row a distribution over the keys.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn maps(&self) -> Result<Tensor> {
        let (q, k) = (self.split(self.q)?, self.split(self.k)?);
        let logits = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * self.scale)?;
        let raised = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?.exp()?;
        Ok(raised.broadcast_div(&raised.sum_keepdim(D::Minus1)?)?)
    }

    /// What maps that were captured, mixed or edited give with this call's values.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn with_maps(&self, maps: &Tensor) -> Result<Tensor> {
        let out = maps.matmul(&self.split(self.v)?)?;
        let (b, _, n, _) = out.dims4()?;
        Ok(out.transpose(1, 2)?.contiguous()?.reshape((b, n, self.v.dim(2)?))?)
    }

    /// `[B, N, heads·d]` to `[B, heads, N, d]`.
    fn split(&self, x: &Tensor) -> Result<Tensor> {
        let (b, n, width) = x.dims3()?;
        Ok(x.reshape((b, n, self.heads, width / self.heads))?.transpose(1, 2)?.contiguous()?)
    }
}

/// Stands in for an attention. A hook sees every site in the order in which the network runs them.
pub trait AttentionHook {
    /// The attended values `[B, N, heads·d]` of `call` at `site`; [`Call::attend`] changes nothing.
    ///
    /// # Errors
    /// Whatever ends the evaluation.
    fn attend(&self, site: &Site, call: Call<'_>) -> Result<Tensor>;
}

/// Multi-head attention with diffusers' names (`to_q`, `to_k`, `to_v`, `to_out.0`).
pub(super) struct Attention {
    site: Site,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
    scale: f64,
}

impl Attention {
    pub(super) fn new(channels: usize, context: usize, heads: usize, w: &Weights) -> Result<Self> {
        Ok(Self {
            site: Site { name: w.path().to_owned(), cross: w.path().ends_with("attn2") },
            q: Linear::new(channels, channels, false, &w.pp("to_q"))?,
            k: Linear::new(context, channels, false, &w.pp("to_k"))?,
            v: Linear::new(context, channels, false, &w.pp("to_v"))?,
            out: Linear::new(channels, channels, true, &w.pp("to_out.0"))?,
            heads,
            scale: ((channels / heads) as f64).powf(-0.5),
        })
    }

    pub(super) fn forward(
        &self,
        x: &Tensor,
        context: &Tensor,
        hook: Option<&dyn AttentionHook>,
    ) -> Result<Tensor> {
        let (q, k, v) = (self.q.forward(x)?, self.k.forward(context)?, self.v.forward(context)?);
        let call = Call { q: &q, k: &k, v: &v, heads: self.heads, scale: self.scale };
        let attended = match hook {
            Some(hook) => hook.attend(&self.site, call)?,
            None => call.attend()?,
        };
        self.out.forward(&attended)
    }
}
