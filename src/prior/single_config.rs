//! The configs of a single-file checkpoint, which holds none: read off the shapes of its tensors.

use std::collections::HashMap;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::single_file::Parts;
use crate::error::{Error, Result};

type Tensors = HashMap<String, Tensor>;

/// Config texts by their path in a diffusers folder.
///
/// # Errors
/// [`Error::Invalid`] naming the tensor without which the shape of the model is not known.
pub(super) fn configs(parts: &Parts) -> Result<HashMap<String, String>> {
    let (second, xl) = (parts.second, !parts.text2.is_empty());
    let mut configs = vec![
        ("unet/config.json", unet(&parts.unet)?),
        ("vae/config.json", vae(&parts.vae, xl)?),
        ("text_encoder/config.json", text(&parts.text, second)?),
        ("scheduler/scheduler_config.json", scheduler(parts)),
    ];
    if xl {
        configs.push(("text_encoder_2/config.json", text(&parts.text2, true)?));
    }
    Ok(configs.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect())
}

fn dims<'a>(tensors: &'a Tensors, name: &str) -> Result<&'a [usize]> {
    let missing = || Error::invalid(name, "is missing: no Stable Diffusion checkpoint, or an incomplete one");
    tensors.get(name).map(Tensor::dims).ok_or_else(missing)
}

/// How many of `prefix.0.…`, `prefix.1.…`, … there are.
fn count(tensors: &Tensors, prefix: &str) -> usize {
    let start = format!("{prefix}.");
    let number = |n: &String| n.strip_prefix(&start)?.split('.').next()?.parse::<usize>().ok();
    tensors.keys().filter_map(number).max().map_or(0, |n| n + 1)
}

/// First dimension of a weight at each level.
fn widths(tensors: &Tensors, prefix: &str) -> Result<Vec<usize>> {
    let levels = count(tensors, prefix);
    (0..levels).map(|i| Ok(dims(tensors, &format!("{prefix}.{i}.resnets.0.conv1.weight"))?[0])).collect()
}

fn unet(t: &Tensors) -> Result<Value> {
    let input = dims(t, "conv_in.weight")?;
    let channels = widths(t, "down_blocks")?;
    let n = channels.len();
    let has = |name: String| t.keys().any(|k| k.starts_with(&name));
    let kind = |way: &str, i: usize, plain: &str, crossed: &str| {
        if has(format!("{way}_blocks.{i}.attentions.")) { crossed.to_owned() } else { plain.to_owned() }
    };
    let block = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight";
    let linear = dims(t, "mid_block.attentions.0.proj_in.weight")?.len() == 2;
    let depth = |place: String| count(t, &format!("{place}.attentions.0.transformer_blocks")).max(1);
    let depths: Vec<usize> = (0..n)
        .map(|i| if i + 1 == n { depth("mid_block".into()) } else { depth(format!("down_blocks.{i}")) })
        .collect();
    // Heads are 64 wide since Stable Diffusion 2, eight in number before.
    let heads: Vec<usize> = channels.iter().map(|c| if linear { (c / 64).max(1) } else { 8 }).collect();
    let added = t.get("add_embedding.linear_1.weight").map(Tensor::dims);
    Ok(json!({
        "sample_size": if added.is_some() { 128 } else if linear { 96 } else { 64 },
        "in_channels": input.get(1),
        "out_channels": dims(t, "conv_out.weight")?[0],
        "block_out_channels": channels,
        "layers_per_block": count(t, "down_blocks.0.resnets"),
        "down_block_types": (0..n).map(|i| kind("down", i, "DownBlock2D", "CrossAttnDownBlock2D")).collect::<Vec<_>>(),
        "up_block_types": (0..n).map(|i| kind("up", i, "UpBlock2D", "CrossAttnUpBlock2D")).collect::<Vec<_>>(),
        "cross_attention_dim": dims(t, block)?.get(1),
        "attention_head_dim": heads,
        "transformer_layers_per_block": depths,
        "use_linear_projection": linear,
        "addition_embed_type": added.map(|_| "text_time"),
        "addition_time_embed_dim": added.map(|_| 256),
        "projection_class_embeddings_input_dim": added.and_then(|d| d.get(1)),
        "norm_num_groups": groups(&channels),
    }))
}

/// 32, as everywhere; fewer where the channels are too few (test models).
fn groups(channels: &[usize]) -> usize {
    [32, 16, 8, 4, 2].into_iter().find(|g| channels.iter().all(|c| c % g == 0)).unwrap_or(1)
}

fn vae(t: &Tensors, xl: bool) -> Result<Value> {
    let channels = widths(t, "encoder.down_blocks")?;
    let n = channels.len();
    Ok(json!({
        "in_channels": dims(t, "encoder.conv_in.weight")?.get(1),
        "out_channels": dims(t, "decoder.conv_out.weight")?[0],
        "block_out_channels": channels,
        "layers_per_block": count(t, "encoder.down_blocks.0.resnets"),
        "latent_channels": dims(t, "decoder.conv_in.weight")?.get(1),
        "norm_num_groups": groups(&channels),
        "scaling_factor": if xl { 0.13025 } else { 0.18215 },
        "down_block_types": vec!["DownEncoderBlock2D"; n],
        "up_block_types": vec!["UpDecoderBlock2D"; n],
    }))
}

fn text(t: &Tensors, second: bool) -> Result<Value> {
    let tokens = dims(t, "text_model.embeddings.token_embedding.weight")?;
    let width = tokens.get(1).copied().unwrap_or(0);
    let projection = t.get("text_projection.weight").map(|p| p.dims()[0]);
    let class = if projection.is_some() { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
    Ok(json!({
        "architectures": [class],
        "projection_dim": projection,
        "vocab_size": tokens[0],
        "hidden_size": width,
        "intermediate_size": dims(t, "text_model.encoder.layers.0.mlp.fc1.weight")?[0],
        "num_hidden_layers": count(t, "text_model.encoder.layers"),
        "num_attention_heads": (width / 64).max(1),
        "max_position_embeddings": dims(t, "text_model.embeddings.position_embedding.weight")?[0],
        "hidden_act": if second { "gelu" } else { "quick_gelu" },
        "eos_token_id": 2,
    }))
}

/// Stable Diffusion's. Version 2 comes as `base` (ε) and not (v), of equal shapes: a
/// `scheduler/scheduler_config.json` beside the file tells. Models of SDXL's shape that predict v say so
/// in the file.
fn scheduler(parts: &Parts) -> Value {
    let v = parts.second || parts.v_prediction;
    json!({
        "_class_name": "DDIMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "clip_sample": false,
        "set_alpha_to_one": false,
        "steps_offset": 1,
        "prediction_type": if v { "v_prediction" } else { "epsilon" },
        "rescale_betas_zero_snr": parts.zero_terminal_snr,
        // Only so is the first step taken from where there is nothing but noise.
        "timestep_spacing": if parts.zero_terminal_snr { "trailing" } else { "leading" },
    })
}
