//! The embedding that steers every residual block: the timestep, and what else a model is told as
//! numbers (a class, a camera, picture sizes, the text as a whole).

use candle_core::{DType, Tensor};

use super::config::UnetConfig;
use super::pooled::PooledText;
use super::{Added, UnetInputs};
use crate::error::{Error, Result};
use crate::prior::layers::{EmbeddingMlp, Linear};
use crate::prior::nn;
use crate::prior::weights::{Init, Weights};

enum Class {
    None,
    /// `[B]` class numbers.
    Table(Tensor),
    /// `[B]` numbers, embedded as timesteps are.
    Timestep(EmbeddingMlp),
    /// `[B, n]`.
    Projection(EmbeddingMlp),
    /// `[B, time width]`.
    Identity,
}

enum Addition {
    None,
    Text(PooledText),
    TextTime { mlp: EmbeddingMlp, width: usize },
}

/// The sum of all embeddings, `[B, time width]`.
pub(in crate::prior) struct Embedding {
    width: usize,
    flip: bool,
    shift: f64,
    time: EmbeddingMlp,
    condition: Option<Linear>,
    class: Class,
    addition: Addition,
}

impl Embedding {
    pub(in crate::prior) fn new(config: &UnetConfig, w: &Weights) -> Result<Self> {
        let (width, time) = (config.block_out_channels[0], config.time_width());
        let inputs = config.projection_class_embeddings_input_dim.unwrap_or(0);
        let mlp = |inputs: usize, name: &str| EmbeddingMlp::new(inputs, time, &w.pp(name));
        let class = match (config.class_embed_type.as_deref(), config.num_class_embeds) {
            (Some("timestep"), _) => Class::Timestep(mlp(width, "class_embedding")?),
            (Some("projection"), _) => Class::Projection(mlp(inputs, "class_embedding")?),
            (Some("identity"), _) => Class::Identity,
            (_, Some(n)) => {
                Class::Table(w.pp("class_embedding").get("weight", &[n, time], Init::Normal(1.0))?)
            }
            _ => Class::None,
        };
        let addition = match config.addition_embed_type.as_deref() {
            Some("text") => {
                let heads = config.addition_embed_type_num_heads;
                let w = w.pp("add_embedding");
                Addition::Text(PooledText::new(config.cross_attention_dim, time, heads, &w)?)
            }
            Some(_) => Addition::TextTime {
                mlp: mlp(inputs, "add_embedding")?,
                width: config.addition_time_embed_dim.unwrap_or(0),
            },
            None => Addition::None,
        };
        let condition = config
            .time_cond_proj_dim
            .map(|n| Linear::new(n, width, false, &w.pp("time_embedding.cond_proj")))
            .transpose()?;
        Ok(Self {
            width,
            flip: config.flip_sin_to_cos,
            shift: config.freq_shift,
            time: mlp(width, "time_embedding")?,
            condition,
            class,
            addition,
        })
    }

    /// SiLU of the sum: what residual blocks take.
    pub(in crate::prior) fn forward(&self, inputs: &UnetInputs<'_>) -> Result<Tensor> {
        let dtype = inputs.sample.dtype();
        let sinusoid = |t: &Tensor, width| -> Result<Tensor> {
            Ok(timestep_embedding(t, width, self.flip, self.shift)?.to_dtype(dtype)?)
        };
        let mut t = sinusoid(inputs.timestep, self.width)?;
        if let (Some(linear), Some(condition)) = (&self.condition, inputs.timestep_cond) {
            t = (t + linear.forward(condition)?)?;
        }
        let mut sum = self.time.forward(&t)?;
        let labels = || {
            let why = "the model is conditioned by a class (or camera); none was given";
            inputs.class_labels.ok_or_else(|| Error::invalid("class_labels", why))
        };
        match &self.class {
            Class::None => {}
            Class::Table(table) => {
                let ids = labels()?.to_dtype(DType::U32)?.reshape(((), 1))?;
                sum = (sum + nn::embedding(&ids, table)?.squeeze(1)?)?;
            }
            Class::Timestep(mlp) => {
                sum = (sum + mlp.forward(&sinusoid(&labels()?.flatten_all()?, self.width)?)?)?;
            }
            Class::Projection(mlp) => sum = (sum + mlp.forward(labels()?)?)?,
            Class::Identity => sum = (sum + labels()?)?,
        }
        match &self.addition {
            Addition::None => {}
            Addition::Text(pooled) => sum = (sum + pooled.forward(inputs.context)?)?,
            Addition::TextTime { mlp, width } => {
                let Some(Added { text_embeds, time_ids }) = inputs.added else {
                    let why = "the model takes a pooled text and picture sizes; none were given";
                    return Err(Error::invalid("added_cond_kwargs", why));
                };
                let (batch, numbers) = time_ids.dims2()?;
                let times = sinusoid(&time_ids.flatten_all()?, *width)?.reshape((batch, numbers * width))?;
                sum = (sum + mlp.forward(&Tensor::cat(&[text_embeds, &times], 1)?.contiguous()?)?)?;
            }
        }
        Ok(nn::silu(&sum)?)
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
        // An odd width is padded with a zero, as in diffusers.
        values.resize(values.len() + width % 2, 0.0);
    }
    Ok(Tensor::from_vec(values, (t.len(), width), timestep.device())?)
}
