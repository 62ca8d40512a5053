//! `unet/config.json` of diffusers' `UNet2DConditionModel`, key by key.

use serde::{Deserialize, Serialize};

use super::rays::CHANNELS;
use crate::error::{Error, Result};

/// One number for all blocks, or one a block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerBlock {
    /// The same everywhere.
    One(usize),
    /// One value a block, from the highest resolution down.
    Each(Vec<usize>),
}

impl PerBlock {
    /// The value of block `i`.
    pub fn at(&self, i: usize) -> usize {
        match self {
            Self::One(v) => *v,
            Self::Each(v) => v[i],
        }
    }

    /// One positive value, or as many as there are blocks.
    pub(in crate::prior) fn fits(&self, blocks: usize) -> bool {
        match self {
            Self::One(v) => *v > 0,
            Self::Each(v) => v.len() == blocks && v.iter().all(|&n| n > 0),
        }
    }
}

/// The keys that decide the network. Keys that name a feature outside it must hold its "off" value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnetConfig {
    /// Side of the latents it was trained on.
    #[serde(default = "default_sample_size", deserialize_with = "side")]
    pub sample_size: usize,
    /// Channels of the noisy latents.
    #[serde(default = "default_channels")]
    pub in_channels: usize,
    /// Channels of the prediction.
    #[serde(default = "default_channels")]
    pub out_channels: usize,
    /// `DownBlock2D` or `CrossAttnDownBlock2D`, from the highest resolution down.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D` or `CrossAttnUpBlock2D`, from the lowest resolution up.
    #[serde(default)]
    pub up_block_types: Vec<String>,
    /// `UNetMidBlock2DCrossAttn` or `UNetMidBlock2D` (no attention).
    #[serde(default = "default_mid")]
    pub mid_block_type: String,
    /// Channels, from the highest resolution down.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each down block; up blocks have one more.
    #[serde(default = "default_layers")]
    pub layers_per_block: PerBlock,
    /// Blocks of each spatial transformer.
    #[serde(default = "one_layer")]
    pub transformer_layers_per_block: PerBlock,
    /// Width of the text embedding.
    pub cross_attention_dim: usize,
    /// Number of attention heads (diffusers' historical name), unless `num_attention_heads` is given.
    #[serde(default = "default_heads")]
    pub attention_head_dim: PerBlock,
    /// Number of attention heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<PerBlock>,
    /// Groups of the group norms.
    #[serde(default = "default_groups")]
    pub norm_num_groups: usize,
    /// ε of the group norms.
    #[serde(default = "default_eps")]
    pub norm_eps: f64,
    /// Linear instead of 1×1 convolution around the transformers.
    #[serde(default)]
    pub use_linear_projection: bool,
    /// Maps the sample from 0..1 to −1..1 first.
    #[serde(default)]
    pub center_input_sample: bool,
    /// cos before sin in the timestep embedding.
    #[serde(default = "default_true")]
    pub flip_sin_to_cos: bool,
    /// Shift in the timestep embedding's frequencies.
    #[serde(default)]
    pub freq_shift: f64,
    /// Width of the time embedding; four times the first channels if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_embedding_dim: Option<usize>,
    /// Width of a vector added to the sinusoidal embedding (the guidance scale of distilled models).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_cond_proj_dim: Option<usize>,
    /// `null`, `timestep` (a number, embedded as the timestep is), `projection` (a vector, such as a
    /// camera, through an MLP) or `identity` (a time embedding as it is); with `num_class_embeds` and
    /// `null`, a class number.
    #[serde(default)]
    pub class_embed_type: Option<String>,
    /// Number of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_class_embeds: Option<usize>,
    /// Width of the vector of `projection`, or of all that `text_time` adds.
    #[serde(default)]
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// `null`, `text` (the pooled text is added to the time embedding) or `text_time` (SDXL: a given
    /// pooled text, sizes and crops).
    #[serde(default)]
    pub addition_embed_type: Option<String>,
    /// Heads of `text`'s pooling.
    #[serde(default = "default_pool_heads")]
    pub addition_embed_type_num_heads: usize,
    /// Width of the embedding of each number of `text_time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addition_time_embed_dim: Option<usize>,
    /// The last six of `in_channels` are the rays of cameras with this vertical field of view (degrees);
    /// gen3d's own key, [`super::Unet::forward`] fills them in.
    #[serde(default, rename = "_camera_rays_fov", skip_serializing_if = "Option::is_none")]
    pub camera_rays_fov: Option<f32>,
    /// Everything else in the file.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

/// A side, or height and width, of which the smaller counts here; `null` for the default.
fn side<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<usize, D::Error> {
    Ok(match Option::<PerBlock>::deserialize(from)? {
        None => default_sample_size(),
        Some(PerBlock::One(side)) => side,
        Some(PerBlock::Each(sides)) => sides.into_iter().min().unwrap_or(64),
    })
}

fn default_sample_size() -> usize {
    64
}

fn default_channels() -> usize {
    4
}

fn default_layers() -> PerBlock {
    PerBlock::One(2)
}

fn one_layer() -> PerBlock {
    PerBlock::One(1)
}

fn default_heads() -> PerBlock {
    PerBlock::One(8)
}

fn default_mid() -> String {
    "UNetMidBlock2DCrossAttn".into()
}

fn default_groups() -> usize {
    32
}

fn default_eps() -> f64 {
    1e-5
}

fn default_pool_heads() -> usize {
    64
}

fn default_true() -> bool {
    true
}

/// Keys outside [`UnetConfig`] and the JSON values under which this network is the same function.
const OFF: &[(&str, &[&str])] = &[
    ("act_fn", &["\"silu\"", "\"swish\""]),
    ("attention_type", &["\"default\""]),
    ("class_embeddings_concat", &["false"]),
    ("conv_in_kernel", &["3"]),
    ("conv_out_kernel", &["3"]),
    ("cross_attention_norm", &["null"]),
    ("downsample_padding", &["1"]),
    ("dropout", &["0", "0.0"]),
    ("dual_cross_attention", &["false"]),
    ("encoder_hid_dim", &["null"]),
    ("encoder_hid_dim_type", &["null"]),
    ("mid_block_only_cross_attention", &["null", "false"]),
    ("mid_block_scale_factor", &["1", "1.0"]),
    ("only_cross_attention", &["false"]),
    ("resnet_out_scale_factor", &["1", "1.0"]),
    ("resnet_skip_time_act", &["false"]),
    ("resnet_time_scale_shift", &["\"default\""]),
    ("reverse_transformer_layers_per_block", &["null"]),
    ("time_embedding_act_fn", &["null"]),
    ("time_embedding_type", &["\"positional\""]),
    ("timestep_post_act", &["null"]),
    ("upcast_attention", &["false", "null", "true"]), // all arithmetic is f32 already
];

/// Keys of diffusers' `ControlNetModel` that it has beyond the U-Net's, which its own config reads.
const CONTROL: &[&str] =
    &["conditioning_channels", "conditioning_embedding_out_channels", "global_pool_conditions"];

impl UnetConfig {
    /// Number of attention heads at level `i`.
    pub fn heads(&self, i: usize) -> usize {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim).at(i)
    }

    /// Channels of the noisy latents: `in_channels` without rays.
    pub fn latent_channels(&self) -> usize {
        self.in_channels - if self.camera_rays_fov.is_some() { CHANNELS } else { 0 }
    }

    /// Width of the time embedding.
    pub fn time_width(&self) -> usize {
        self.time_embedding_dim.unwrap_or(self.block_out_channels[0] * 4)
    }

    /// Refuses unknown keys and values this network does not implement.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key and the values it may hold.
    pub fn check(&self) -> Result<()> {
        self.check_rest(&[])?;
        self.check_encoder()?;
        if self.up_block_types.len() != self.block_out_channels.len() {
            return bad("up_block_types", "must be as long as block_out_channels".into());
        }
        known("up_block_types", &self.up_block_types, &["UpBlock2D", "CrossAttnUpBlock2D"])
    }

    /// [`UnetConfig::check`] for a `ControlNet`, which has no up blocks but keys of its own.
    pub(in crate::prior) fn check_control(&self) -> Result<()> {
        self.check_rest(CONTROL)?;
        self.check_encoder()
    }

    fn check_rest(&self, more: &[&str]) -> Result<()> {
        for (key, value) in self.rest.iter().filter(|(k, _)| !k.starts_with('_')) {
            let text = value.to_string();
            match OFF.iter().find(|(k, _)| k == key) {
                Some((_, ok)) if ok.contains(&text.as_str()) => {}
                Some((_, ok)) => {
                    return bad(key, format!("unsupported value {text} (supported: {})", ok.join(", ")));
                }
                None if more.contains(&key.as_str()) => {}
                None => return bad(key, format!("unknown key (value {text})")),
            }
        }
        Ok(())
    }

    fn check_encoder(&self) -> Result<()> {
        if let Some(fov) = self.camera_rays_fov
            && !(self.in_channels > CHANNELS && fov > 0.0 && fov < 180.0)
        {
            return bad("_camera_rays_fov", "needs more than 6 in_channels, and 0 to 180 degrees".into());
        }
        let n = self.block_out_channels.len();
        if n == 0 || n > 8 || self.down_block_types.len() != n {
            return bad("block_out_channels", "must be as long as down_block_types".into());
        }
        let groups = self.norm_num_groups.max(1);
        if self.block_out_channels.iter().any(|&c| c == 0 || c > 1 << 14 || !c.is_multiple_of(groups)) {
            return bad("block_out_channels", format!("must be multiples of norm_num_groups {groups}"));
        }
        let heads = self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim);
        if !heads.fits(n) {
            return bad("attention_head_dim", "must be one positive number, or one a block".into());
        }
        for (i, &c) in self.block_out_channels.iter().enumerate() {
            let attends = self.down_block_types[i].starts_with("CrossAttn") || i + 1 == n;
            if attends && !c.is_multiple_of(heads.at(i)) {
                return bad("attention_head_dim", format!("must divide {c} channels"));
            }
        }
        let layers = |p: &PerBlock, most| p.fits(n) && (0..n).all(|i| p.at(i) <= most);
        if !layers(&self.layers_per_block, 16) {
            return bad("layers_per_block", "out of range 1..=16".into());
        }
        if !layers(&self.transformer_layers_per_block, 64) {
            return bad("transformer_layers_per_block", "out of range 1..=64".into());
        }
        known("down_block_types", &self.down_block_types, &["DownBlock2D", "CrossAttnDownBlock2D"])?;
        let mid = std::slice::from_ref(&self.mid_block_type);
        known("mid_block_type", mid, &["UNetMidBlock2DCrossAttn", "UNetMidBlock2D"])?;
        self.check_embeddings()
    }

    fn check_embeddings(&self) -> Result<()> {
        let inputs = self.projection_class_embeddings_input_dim;
        let needed = "projection_class_embeddings_input_dim";
        match self.addition_embed_type.as_deref() {
            None => {}
            Some("text") => {
                let heads = self.addition_embed_type_num_heads;
                if heads == 0 || !self.cross_attention_dim.is_multiple_of(heads) {
                    return bad("addition_embed_type_num_heads", "must divide cross_attention_dim".into());
                }
            }
            Some("text_time") if self.addition_time_embed_dim.is_none() => {
                return bad("addition_time_embed_dim", "is needed by addition_embed_type text_time".into());
            }
            Some("text_time") if inputs.is_none() => {
                return bad(needed, "is needed by addition_embed_type text_time".into());
            }
            Some("text_time") => {}
            Some(t) => {
                return bad(
                    "addition_embed_type",
                    format!("unsupported value {t:?} (text, text_time, null)"),
                );
            }
        }
        match self.class_embed_type.as_deref() {
            None | Some("timestep" | "identity") => Ok(()),
            Some("projection") if inputs.is_none() => {
                bad(needed, "is needed by class_embed_type projection".into())
            }
            Some("projection") => Ok(()),
            Some(t) => bad(
                "class_embed_type",
                format!("unsupported value {t:?} (projection, timestep, identity, null)"),
            ),
        }
    }
}

fn known(key: &str, values: &[String], ok: &[&str]) -> Result<()> {
    match values.iter().find(|v| !ok.contains(&v.as_str())) {
        Some(v) => bad(key, format!("unsupported block {v} (supported: {})", ok.join(", "))),
        None => Ok(()),
    }
}

fn bad(key: &str, why: String) -> Result<()> {
    Err(Error::invalid(format!("unet/config.json: {key}"), why))
}
