//! `unet/config.json` of diffusers' `UNet2DConditionModel`, key by key.

use serde::{Deserialize, Serialize};

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

    fn fits(&self, blocks: usize) -> bool {
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
    pub sample_size: usize,
    /// Channels of the noisy latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// `DownBlock2D` or `CrossAttnDownBlock2D`, from the highest resolution down.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D` or `CrossAttnUpBlock2D`, from the lowest resolution up.
    pub up_block_types: Vec<String>,
    /// Channels, from the highest resolution down.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each down block; up blocks have one more.
    pub layers_per_block: usize,
    /// Width of the text embedding.
    pub cross_attention_dim: usize,
    /// Number of attention heads (diffusers' historical name).
    pub attention_head_dim: PerBlock,
    /// Groups of the group norms.
    #[serde(default = "default_groups")]
    pub norm_num_groups: usize,
    /// ε of the group norms.
    #[serde(default = "default_eps")]
    pub norm_eps: f64,
    /// Linear instead of 1×1 convolution around the transformers.
    #[serde(default)]
    pub use_linear_projection: bool,
    /// cos before sin in the timestep embedding.
    #[serde(default = "default_true")]
    pub flip_sin_to_cos: bool,
    /// Shift in the timestep embedding's frequencies.
    #[serde(default)]
    pub freq_shift: f64,
    /// `null` or `projection` (a vector, such as a camera, through an MLP onto the time embedding).
    #[serde(default)]
    pub class_embed_type: Option<String>,
    /// Width of that vector.
    #[serde(default)]
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// `null` or `text` (the pooled text is added to the time embedding).
    #[serde(default)]
    pub addition_embed_type: Option<String>,
    /// Heads of that pooling.
    #[serde(default = "default_pool_heads")]
    pub addition_embed_type_num_heads: usize,
    /// Everything else in the file.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
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
    ("act_fn", &["\"silu\""]),
    ("addition_time_embed_dim", &["null"]),
    ("attention_type", &["\"default\""]),
    ("center_input_sample", &["false"]),
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
    ("mid_block_type", &["\"UNetMidBlock2DCrossAttn\""]),
    ("num_attention_heads", &["null"]),
    ("num_class_embeds", &["null"]),
    ("only_cross_attention", &["false"]),
    ("resnet_out_scale_factor", &["1", "1.0"]),
    ("resnet_skip_time_act", &["false"]),
    ("resnet_time_scale_shift", &["\"default\""]),
    ("reverse_transformer_layers_per_block", &["null"]),
    ("time_cond_proj_dim", &["null"]),
    ("time_embedding_act_fn", &["null"]),
    ("time_embedding_dim", &["null"]),
    ("time_embedding_type", &["\"positional\""]),
    ("timestep_post_act", &["null"]),
    ("transformer_layers_per_block", &["1"]),
    ("upcast_attention", &["false", "null", "true"]), // all arithmetic is f32 already
];

impl UnetConfig {
    /// Refuses unknown keys and values this network does not implement.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key and the values it may hold.
    pub fn check(&self) -> Result<()> {
        for (key, value) in self.rest.iter().filter(|(k, _)| !k.starts_with('_')) {
            let text = value.to_string();
            match OFF.iter().find(|(k, _)| k == key) {
                Some((_, ok)) if ok.contains(&text.as_str()) => {}
                Some((_, ok)) => {
                    return bad(key, format!("unsupported value {text} (supported: {})", ok.join(", ")));
                }
                None => return bad(key, format!("unknown key (value {text})")),
            }
        }
        self.check_sizes()
    }

    fn pools_evenly(&self) -> bool {
        let heads = self.addition_embed_type_num_heads;
        heads > 0 && self.cross_attention_dim.is_multiple_of(heads)
    }

    fn check_sizes(&self) -> Result<()> {
        let n = self.block_out_channels.len();
        if n == 0 || n > 8 || self.down_block_types.len() != n || self.up_block_types.len() != n {
            return bad(
                "block_out_channels",
                "must be as long as down_block_types and up_block_types".into(),
            );
        }
        let groups = self.norm_num_groups.max(1);
        if self.block_out_channels.iter().any(|&c| c == 0 || c > 1 << 14 || !c.is_multiple_of(groups)) {
            return bad("block_out_channels", format!("must be multiples of norm_num_groups {groups}"));
        }
        if !self.attention_head_dim.fits(n) {
            return bad("attention_head_dim", "must be one positive number, or one a block".into());
        }
        for (i, &c) in self.block_out_channels.iter().enumerate() {
            if !c.is_multiple_of(self.attention_head_dim.at(i)) {
                return bad("attention_head_dim", format!("must divide {c} channels"));
            }
        }
        if self.layers_per_block == 0 || self.layers_per_block > 16 {
            return bad("layers_per_block", "out of range 1..=16".into());
        }
        let known = |t: &String, a: &str, b: &str| t == a || t == b;
        if let Some(t) =
            self.down_block_types.iter().find(|t| !known(t, "DownBlock2D", "CrossAttnDownBlock2D"))
        {
            return bad("down_block_types", format!("unsupported block {t}"));
        }
        if let Some(t) = self.up_block_types.iter().find(|t| !known(t, "UpBlock2D", "CrossAttnUpBlock2D")) {
            return bad("up_block_types", format!("unsupported block {t}"));
        }
        match self.addition_embed_type.as_deref() {
            None => {}
            Some("text") if self.pools_evenly() => {}
            Some("text") => {
                return bad("addition_embed_type_num_heads", "must divide cross_attention_dim".into());
            }
            Some(t) => return bad("addition_embed_type", format!("unsupported value {t:?} (text, null)")),
        }
        match (self.class_embed_type.as_deref(), self.projection_class_embeddings_input_dim) {
            (None, _) | (Some("projection"), Some(_)) => Ok(()),
            (Some("projection"), None) => bad(
                "projection_class_embeddings_input_dim",
                "is needed by class_embed_type projection".into(),
            ),
            (Some(t), _) => bad("class_embed_type", format!("unsupported value {t:?} (projection, null)")),
        }
    }
}

fn bad(key: &str, why: String) -> Result<()> {
    Err(Error::invalid(format!("unet/config.json: {key}"), why))
}
