//! Single-file checkpoints: the names of the original (LDM) code translated to diffusers'.

use std::collections::HashMap;

use candle_core::Tensor;

use crate::error::{Error, Result};

/// The parts of a single file, each with diffusers' names.
#[derive(Default)]
pub struct Parts {
    /// `unet`.
    pub unet: HashMap<String, Tensor>,
    /// `vae`.
    pub vae: HashMap<String, Tensor>,
    /// `text_encoder`.
    pub text: HashMap<String, Tensor>,
    /// `text_encoder_2` (SDXL).
    pub text2: HashMap<String, Tensor>,
    /// The (only) text encoder is `open_clip`'s: Stable Diffusion 2.
    pub second: bool,
    /// The file says that its U-Net predicts v (the tensor `v_pred`).
    pub v_prediction: bool,
    /// The file says that its last timestep is pure noise (the tensor `ztsnr`).
    pub zero_terminal_snr: bool,
}

const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";
/// CLIP as transformers has it (Stable Diffusion 1).
const CLIP: &str = "cond_stage_model.transformer.";
/// CLIP as `open_clip` has it (Stable Diffusion 2).
const OPEN_CLIP: &str = "cond_stage_model.model.";
/// SDXL's first text encoder, as transformers has it.
const XL_FIRST: &str = "conditioner.embedders.0.transformer.";
/// SDXL's second text encoder, as `open_clip` has it.
const XL_SECOND: &str = "conditioner.embedders.1.model.";

/// True if these are the names of a single-file checkpoint.
pub fn is_single_file<'a>(mut names: impl Iterator<Item = &'a String>) -> bool {
    names.any(|n| n.starts_with(UNET))
}

/// Sorts the tensors of a single file into parts and renames them. What belongs to training only (the
/// noise schedule, averaged weights) is left out.
///
/// # Errors
/// [`Error::Invalid`] naming a tensor of the U-Net, VAE or text encoder whose place is not known.
pub fn split(tensors: HashMap<String, Tensor>) -> Result<Parts> {
    let mut parts = Parts::default();
    let levels = vae_levels(&tensors);
    let mut blocks: Vec<usize> = tensors.keys().filter_map(|n| resblock(n)).collect();
    blocks.sort_unstable();
    let unknown = |name: &str| Error::invalid(name, "a tensor that no Stable Diffusion file has");
    for (name, tensor) in tensors {
        if let Some(rest) = name.strip_prefix(UNET) {
            let new = unet(rest).ok_or_else(|| unknown(&name))?;
            parts.unet.insert(new, tensor);
        } else if let Some(rest) = name.strip_prefix(VAE) {
            let new = vae(rest, levels).ok_or_else(|| unknown(&name))?;
            let tensor = match *tensor.dims() {
                [o, i, 1, 1] if new.contains("attentions.") => tensor.reshape((o, i))?,
                _ => tensor,
            };
            parts.vae.insert(new, tensor);
        } else if let Some(rest) = name.strip_prefix(CLIP).or_else(|| name.strip_prefix(XL_FIRST)) {
            parts.text.insert(rest.to_owned(), tensor);
        } else if let Some(rest) = name.strip_prefix(XL_SECOND) {
            if rest == "text_projection" {
                parts.text2.insert("text_projection.weight".into(), tensor.t()?.contiguous()?);
                continue;
            }
            open_clip(rest, tensor, &mut parts.text2).map_err(|e| e.unwrap_or_else(|| unknown(&name)))?;
        } else if let Some(rest) = name.strip_prefix(OPEN_CLIP) {
            parts.second = true;
            // Stable Diffusion 2 reads the last block but one: the last is not kept.
            if resblock(&name).is_some_and(|b| Some(&b) == blocks.last()) {
                continue;
            }
            open_clip(rest, tensor, &mut parts.text).map_err(|e| e.unwrap_or_else(|| unknown(&name)))?;
        } else {
            parts.mark(&name)?;
        }
    }
    Ok(parts)
}

impl Parts {
    /// What some files of SDXL's shape say about themselves by a tensor without content: nothing else in
    /// them tells v from ε.
    fn mark(&mut self, name: &str) -> Result<()> {
        match name {
            "v_pred" => self.v_prediction = true,
            "ztsnr" => self.zero_terminal_snr = true,
            _ if name.starts_with("edm_") => {
                let why =
                    "marks a model of EDM's noise levels; those of Stable Diffusion's schedule are supported";
                return Err(Error::invalid(name, why));
            }
            _ => {}
        }
        Ok(())
    }
}

/// `a.b.rest` to (`a.b`'s number b, `rest`), for names that begin with `a.`.
fn numbered<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let rest = name.strip_prefix(prefix)?;
    let (number, rest) = rest.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// The U-Net. All of Stable Diffusion's have two residual blocks a level.
fn unet(name: &str) -> Option<String> {
    const LAYERS: usize = 2;
    for (old, new) in [
        ("time_embed.0.", "time_embedding.linear_1."),
        ("time_embed.2.", "time_embedding.linear_2."),
        ("label_emb.0.0.", "add_embedding.linear_1."),
        ("label_emb.0.2.", "add_embedding.linear_2."),
        ("out.0.", "conv_norm_out."),
        ("out.2.", "conv_out."),
        ("input_blocks.0.0.", "conv_in."),
    ] {
        if let Some(rest) = name.strip_prefix(old) {
            return Some(format!("{new}{rest}"));
        }
    }
    if let Some((i, rest)) = numbered(name, "input_blocks.") {
        let (block, layer) = (i.checked_sub(1)? / (LAYERS + 1), (i - 1) % (LAYERS + 1));
        if let Some(rest) = rest.strip_prefix("0.op.") {
            return Some(format!("down_blocks.{block}.downsamplers.0.conv.{rest}"));
        }
        return inside(rest, &format!("down_blocks.{block}"), layer);
    }
    if let Some((i, rest)) = numbered(name, "middle_block.") {
        return match i {
            0 | 2 => Some(format!("mid_block.resnets.{}.{}", i / 2, resnet(rest)?)),
            1 => Some(format!("mid_block.attentions.0.{rest}")),
            _ => None,
        };
    }
    let (i, rest) = numbered(name, "output_blocks.")?;
    let (block, layer) = (i / (LAYERS + 1), i % (LAYERS + 1));
    // The upsampler follows the residual block and, where there is one, the transformer.
    for upsampler in ["1.conv.", "2.conv."] {
        if let Some(rest) = rest.strip_prefix(upsampler) {
            return Some(format!("up_blocks.{block}.upsamplers.0.conv.{rest}"));
        }
    }
    inside(rest, &format!("up_blocks.{block}"), layer)
}

fn inside(rest: &str, block: &str, layer: usize) -> Option<String> {
    if let Some(rest) = rest.strip_prefix("0.") {
        return Some(format!("{block}.resnets.{layer}.{}", resnet(rest)?));
    }
    rest.strip_prefix("1.").map(|rest| format!("{block}.attentions.{layer}.{rest}"))
}

fn resnet(rest: &str) -> Option<String> {
    for (old, new) in [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ] {
        if let Some(rest) = rest.strip_prefix(old) {
            return Some(format!("{new}{rest}"));
        }
    }
    None
}

/// A layer of the U-Net as kohya's adapter files for SDXL call it, with underscores for dots
/// (`input_blocks_4_1_transformer_blocks_0_attn1_to_q`), under diffusers' name; dots and underscores
/// after the block's place stay as they are.
pub(super) fn underscored_layer(name: &str) -> Option<String> {
    let (side, rest) = ["input_blocks", "middle_block", "output_blocks"]
        .iter()
        .find_map(|side| Some((side, name.strip_prefix(side)?.strip_prefix('_')?)))?;
    let (first, rest) = rest.split_once('_')?;
    first.parse::<usize>().ok()?;
    let (place, rest) = if *side == "middle_block" {
        (first.to_owned(), rest)
    } else {
        let (second, rest) = rest.split_once('_')?;
        second.parse::<usize>().ok()?;
        (format!("{first}.{second}"), rest)
    };
    let new = unet(&format!("{side}.{place}.{}.", dotted(rest)))?;
    Some(new.trim_end_matches('.').to_owned())
}

/// Residual blocks' layers have a number inside their name.
fn dotted(rest: &str) -> String {
    for old in ["in_layers_0", "in_layers_2", "emb_layers_1", "out_layers_0", "out_layers_3"] {
        if rest == old {
            let (head, number) = old.rsplit_once('_').unwrap_or((old, ""));
            return format!("{head}.{number}");
        }
    }
    rest.to_owned()
}

/// Number of resolutions: the decoder counts its levels from the other end.
fn vae_levels(tensors: &HashMap<String, Tensor>) -> usize {
    let level = |n: &String| Some(numbered(n.strip_prefix(VAE)?, "decoder.up.")?.0 + 1);
    tensors.keys().filter_map(level).max().unwrap_or(0)
}

fn vae(name: &str, levels: usize) -> Option<String> {
    if name.starts_with("quant_conv.") || name.starts_with("post_quant_conv.") {
        return Some(name.to_owned());
    }
    let (side, rest) = name.split_once('.')?;
    if side != "encoder" && side != "decoder" {
        return None;
    }
    if let Some(rest) = rest.strip_prefix("norm_out.") {
        return Some(format!("{side}.conv_norm_out.{rest}"));
    }
    if rest.starts_with("conv_in.") || rest.starts_with("conv_out.") {
        return Some(name.to_owned());
    }
    if let Some(rest) = rest.strip_prefix("mid.") {
        if let Some((i, rest)) = numbered(rest, "block_") {
            return Some(format!("{side}.mid_block.resnets.{}.{rest}", i.checked_sub(1)?));
        }
        let rest = rest.strip_prefix("attn_1.")?;
        let (old, rest) = rest.split_once('.')?;
        let new = match old {
            "norm" => "group_norm",
            "q" => "to_q",
            "k" => "to_k",
            "v" => "to_v",
            "proj_out" => "to_out.0",
            _ => return None,
        };
        return Some(format!("{side}.mid_block.attentions.0.{new}.{rest}"));
    }
    let (way, old, level, rest) = match (numbered(rest, "down."), numbered(rest, "up.")) {
        (Some((i, rest)), _) => ("down", "downsample", i, rest),
        (_, Some((i, rest))) => ("up", "upsample", levels.checked_sub(i + 1)?, rest),
        _ => return None,
    };
    let block = format!("{side}.{way}_blocks.{level}");
    if let Some(rest) = rest.strip_prefix(&format!("{old}.conv.")) {
        return Some(format!("{block}.{old}rs.0.conv.{rest}"));
    }
    let (j, rest) = numbered(rest, "block.")?;
    Some(format!("{block}.resnets.{j}.{}", rest.replace("nin_shortcut", "conv_shortcut")))
}

/// The number of an `open_clip` block.
fn resblock(name: &str) -> Option<usize> {
    Some(numbered(name.strip_prefix(OPEN_CLIP)?, "transformer.resblocks.")?.0)
}

/// `open_clip`'s text tower. The error is `None` for a name that is not known.
fn open_clip(
    name: &str,
    tensor: Tensor,
    out: &mut HashMap<String, Tensor>,
) -> std::result::Result<(), Option<Error>> {
    let plain = match name {
        "token_embedding.weight" => Some("embeddings.token_embedding.weight".to_owned()),
        "positional_embedding" => Some("embeddings.position_embedding.weight".to_owned()),
        // Nothing here asks for the projected text or the training's temperature.
        "text_projection" | "logit_scale" | "attn_mask" => return Ok(()),
        _ => name.strip_prefix("ln_final.").map(|rest| format!("final_layer_norm.{rest}")),
    };
    if let Some(new) = plain {
        out.insert(format!("text_model.{new}"), tensor);
        return Ok(());
    }
    let (i, rest) = numbered(name, "transformer.resblocks.").ok_or(None)?;
    let block = format!("text_model.encoder.layers.{i}");
    if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
        // Query, key and value are one matrix there.
        let parts = tensor.chunk(3, 0).map_err(|e| Some(e.into()))?;
        for (part, name) in parts.into_iter().zip(["q_proj", "k_proj", "v_proj"]) {
            let part = part.contiguous().map_err(|e| Some(e.into()))?;
            out.insert(format!("{block}.self_attn.{name}.{kind}"), part);
        }
        return Ok(());
    }
    for (old, new) in [
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("attn.out_proj.", "self_attn.out_proj."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ] {
        if let Some(rest) = rest.strip_prefix(old) {
            out.insert(format!("{block}.{new}{rest}"), tensor);
            return Ok(());
        }
    }
    Err(None)
}
