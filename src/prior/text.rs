//! The CLIP text encoder (transformers' `CLIPTextModel`).

use candle_core::{IndexOp, Tensor};
use serde::{Deserialize, Serialize};

use super::layers::{LayerNorm, Linear};
use super::nn;
use super::weights::{Init, Weights};
use crate::error::{Error, Result};

/// `text_encoder/config.json`, the keys that decide the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TextConfig {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Longest token sequence.
    pub max_position_embeddings: usize,
    /// `quick_gelu` or `gelu`.
    pub hidden_act: String,
    /// ε of the layer norms.
    #[serde(default = "default_eps")]
    pub layer_norm_eps: f64,
    /// Width of the projected pooled text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection_dim: Option<usize>,
    /// The token whose hidden state is the pooled text; 2 stands for the largest id, as in files
    /// written before this key was used.
    #[serde(default = "default_eos")]
    pub eos_token_id: u32,
    /// `CLIPTextModel`, or `CLIPTextModelWithProjection` (SDXL's second encoder).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
}

fn default_eps() -> f64 {
    1e-5
}

fn default_eos() -> u32 {
    LARGEST
}

/// In place of `eos_token_id`: the end of the text is the largest id.
const LARGEST: u32 = 2;

/// What the encoder makes of a text.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// After the final norm, `[B, L, hidden_size]`.
    pub last: Tensor,
    /// At the end-of-text token: projected if the model has a projection, else as in `last`.
    pub pooled: Tensor,
    /// Before the first block and after each, `[B, L, hidden_size]`, not normalised.
    pub hidden: Vec<Tensor>,
}

impl TextConfig {
    /// Refuses values that no network can be built from.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn check(&self) -> Result<()> {
        let key = |k: &str, why: String| Err(Error::invalid(format!("text_encoder/config.json: {k}"), why));
        if !matches!(self.hidden_act.as_str(), "quick_gelu" | "gelu") {
            return key("hidden_act", format!("unsupported value {:?} (quick_gelu, gelu)", self.hidden_act));
        }
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return key("num_attention_heads", "must divide hidden_size".into());
        }
        let sizes = [self.vocab_size, self.hidden_size, self.intermediate_size, self.max_position_embeddings];
        if sizes.iter().any(|&s| s == 0 || s > 1 << 20) || self.num_hidden_layers > 256 {
            return key("sizes", "out of range".into());
        }
        Ok(())
    }
}

struct Block {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// A causal transformer over token and position embeddings.
pub struct TextEncoder {
    /// The configuration it was built from.
    pub config: TextConfig,
    tokens: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    projection: Option<Linear>,
}

impl TextEncoder {
    /// Takes its tensors from `w` (names start with `text_model.`).
    ///
    /// # Errors
    /// An unsupported config value; a tensor that cannot be made.
    pub fn new(config: TextConfig, w: &Weights) -> Result<Self> {
        config.check()?;
        let projected = config.architectures.iter().any(|a| a == "CLIPTextModelWithProjection");
        let projection = projected
            .then(|| {
                let width = config.projection_dim.unwrap_or(config.hidden_size);
                Linear::new(config.hidden_size, width, false, &w.pp("text_projection"))
            })
            .transpose()?;
        let (c, m, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let w = w.pp("text_model");
        let e = w.pp("embeddings");
        let table = |name: &str, n: usize| e.pp(name).get("weight", &[n, c], Init::Normal(0.02));
        let tokens = table("token_embedding", config.vocab_size)?;
        let positions = table("position_embedding", config.max_position_embeddings)?;
        let mut blocks = Vec::new();
        for i in 0..config.num_hidden_layers {
            let b = w.pp("encoder.layers").pp(i);
            let a = b.pp("self_attn");
            blocks.push(Block {
                norm1: LayerNorm::new(c, eps, &b.pp("layer_norm1"))?,
                q: Linear::new(c, c, true, &a.pp("q_proj"))?,
                k: Linear::new(c, c, true, &a.pp("k_proj"))?,
                v: Linear::new(c, c, true, &a.pp("v_proj"))?,
                out: Linear::new(c, c, true, &a.pp("out_proj"))?,
                norm2: LayerNorm::new(c, eps, &b.pp("layer_norm2"))?,
                fc1: Linear::new(c, m, true, &b.pp("mlp.fc1"))?,
                fc2: Linear::new(m, c, true, &b.pp("mlp.fc2"))?,
            });
        }
        let norm = LayerNorm::new(c, eps, &w.pp("final_layer_norm"))?;
        Ok(Self { config, tokens, positions, blocks, norm, projection })
    }

    /// Hidden states `[B, L, hidden_size]` after the final norm, of token ids `[B, L]` (u32).
    ///
    /// # Errors
    /// If L exceeds `max_position_embeddings` or shapes do not fit.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let mut x = self.embed(ids)?;
        for b in &self.blocks {
            x = self.block(b, &x)?;
        }
        self.norm.forward(&x)
    }

    /// Everything the encoder knows about token ids `[B, L]` (u32).
    ///
    /// # Errors
    /// As [`TextEncoder::forward`].
    pub fn encode(&self, ids: &Tensor) -> Result<Encoded> {
        let mut hidden = vec![self.embed(ids)?];
        for b in &self.blocks {
            hidden.push(self.block(b, &hidden[hidden.len() - 1])?);
        }
        let last = self.norm.forward(&hidden[hidden.len() - 1])?;
        let rows: Vec<Tensor> = ids
            .to_vec2::<u32>()?
            .iter()
            .enumerate()
            .map(|(i, row)| last.i((i, end_of_text(row, self.config.eos_token_id))))
            .collect::<candle_core::Result<_>>()?;
        let pooled = Tensor::stack(&rows, 0)?;
        let pooled = match &self.projection {
            Some(projection) => projection.forward(&pooled)?,
            None => pooled,
        };
        Ok(Encoded { last, pooled, hidden })
    }

    /// The hidden states of the block that is `skip` before the last one, after the final norm
    /// (clip skip; 0 is [`TextEncoder::forward`]).
    ///
    /// # Errors
    /// If there are not so many blocks, and as [`TextEncoder::forward`].
    pub fn skipping(&self, ids: &Tensor, skip: usize) -> Result<Tensor> {
        let count = self.blocks.len().checked_sub(skip).filter(|c| *c > 0);
        let count = count
            .ok_or_else(|| Error::invalid("clip skip", format!("{skip} of {} blocks", self.blocks.len())))?;
        let mut x = self.embed(ids)?;
        for b in &self.blocks[..count] {
            x = self.block(b, &x)?;
        }
        self.norm.forward(&x)
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let (_, l) = ids.dims2()?;
        if l > self.config.max_position_embeddings {
            let limit = self.config.max_position_embeddings;
            return Err(Error::invalid("prompt", format!("{l} tokens, the text encoder takes {limit}")));
        }
        Ok(nn::embedding(ids, &self.tokens)?.broadcast_add(&self.positions.i(..l)?)?)
    }

    fn block(&self, b: &Block, x: &Tensor) -> Result<Tensor> {
        let heads = self.config.num_attention_heads;
        let scale = ((self.config.hidden_size / heads) as f64).powf(-0.5);
        let h = b.norm1.forward(x)?;
        let (q, k, v) = (b.q.forward(&h)?, b.k.forward(&h)?, b.v.forward(&h)?);
        let x = (x + b.out.forward(&nn::attention(&q, &k, &v, heads, scale, true)?)?)?;
        let h = b.fc1.forward(&b.norm2.forward(&x)?)?;
        let h = if self.config.hidden_act == "gelu" { nn::gelu(&h)? } else { nn::quick_gelu(&h)? };
        Ok((&x + b.fc2.forward(&h)?)?)
    }
}

/// Where the text ends: at the first `eos`, or the first of the largest ids; 0 if there is none.
fn end_of_text(ids: &[u32], eos: u32) -> usize {
    let wanted = if eos == LARGEST { ids.iter().copied().max() } else { Some(eos) };
    ids.iter().position(|&id| Some(id) == wanted).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_ends_at_the_first_end_token() {
        assert_eq!(end_of_text(&[9, 3, 11, 11, 11], LARGEST), 2);
        assert_eq!(end_of_text(&[9, 3, 7, 11, 7], 7), 2);
        assert_eq!(end_of_text(&[9, 3], 7), 0);
    }
}
