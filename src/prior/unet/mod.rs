//! The noise predictor: diffusers' `UNet2DConditionModel`, optionally conditioned by a camera.

pub mod attention;
mod config;
mod embedding;
mod encoder;
mod pooled;
mod rays;
mod recompute;
mod transformer;

use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;

use attention::AttentionHook;
pub use config::{PerBlock, UnetConfig};
pub(super) use embedding::Embedding;
pub use embedding::timestep_embedding;
use encoder::Stage;
pub(super) use encoder::{Encoder, State, Told};
pub use rays::ray_map;
pub use recompute::Recomputed;

use super::layers::{Conv2d, GroupNorm, Upsample};
use super::nn::Padding;
use super::weights::{Init, Weights};
use crate::error::{Error, Result};

/// See the module's text.
pub struct Unet {
    /// The configuration it was built from.
    pub config: UnetConfig,
    embedding: Embedding,
    encoder: Encoder,
    up: Vec<(Stage, Option<Upsample>)>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    evaluated: AtomicU64,
}

/// What SDXL is told beside the text's hidden states.
#[derive(Debug, Clone, Copy)]
pub struct Added<'a> {
    /// The pooled text `[B, n]`.
    pub text_embeds: &'a Tensor,
    /// Original size, crop and target size, `[B, 6]`.
    pub time_ids: &'a Tensor,
}

/// Everything a U-Net (or `ControlNet`) can be given. [`UnetInputs::new`] has what all need.
#[derive(Clone, Copy)]
pub struct UnetInputs<'a> {
    /// Noisy latents `[B, in_channels, h, w]`.
    pub sample: &'a Tensor,
    /// `[B]`, f32, 0..1000.
    pub timestep: &'a Tensor,
    /// The text's hidden states `[B, L, cross_attention_dim]`.
    pub context: &'a Tensor,
    /// As `class_embed_type` says: `[B, projection_class_embeddings_input_dim]` or `[B]`.
    pub class_labels: Option<&'a Tensor>,
    /// For `addition_embed_type: text_time`.
    pub added: Option<Added<'a>>,
    /// `[B, time_cond_proj_dim]`; nothing is added if absent.
    pub timestep_cond: Option<&'a Tensor>,
    /// Added to the skip connections, from the first to the last (`ControlNet`); may be empty.
    pub down_residuals: &'a [Tensor],
    /// Added at the bottom.
    pub mid_residual: Option<&'a Tensor>,
    /// Stands in for the attentions.
    pub hook: Option<&'a dyn AttentionHook>,
}

impl<'a> UnetInputs<'a> {
    /// Without extras.
    pub fn new(sample: &'a Tensor, timestep: &'a Tensor, context: &'a Tensor) -> Self {
        Self {
            sample,
            timestep,
            context,
            class_labels: None,
            added: None,
            timestep_cond: None,
            down_residuals: &[],
            mid_residual: None,
            hook: None,
        }
    }
}

impl Unet {
    /// Takes its tensors from `w`.
    ///
    /// # Errors
    /// An unsupported config value; a tensor that cannot be made.
    pub fn new(config: UnetConfig, w: &Weights) -> Result<Self> {
        config.check()?;
        let c = &config.block_out_channels;
        let (first, outputs) = (c[0], config.out_channels);
        let conv_out = Conv2d::full(first, outputs, 3, 1, Padding::Same(1), Init::Zeros, &w.pp("conv_out"))?;
        Ok(Self {
            embedding: Embedding::new(&config, w)?,
            encoder: Encoder::new(&config, w)?,
            up: (0..c.len()).map(|i| up(&config, i, &w.pp("up_blocks").pp(i))).collect::<Result<_>>()?,
            norm_out: GroupNorm::new(first, config.norm_num_groups, config.norm_eps, &w.pp("conv_norm_out"))?,
            conv_out,
            evaluated: AtomicU64::new(0),
            config,
        })
    }

    /// [`Unet::predict`] without extras but `class_labels`; with the camera's rays added to `x`
    /// (`[B, latent channels, h, w]`) where the config asks for them; the rays pass no gradient on.
    ///
    /// # Errors
    /// As [`Unet::predict`].
    pub fn forward(
        &self,
        x: &Tensor,
        timestep: &Tensor,
        context: &Tensor,
        class_labels: Option<&Tensor>,
    ) -> Result<Tensor> {
        let with_rays = self.with_rays(x, class_labels)?;
        let x = with_rays.as_ref().unwrap_or(x);
        self.predict(&UnetInputs { class_labels, ..UnetInputs::new(x, timestep, context) })
    }

    /// `x` with the rays of `cameras` (`[B, 16]`) as further channels; nothing if the model takes none.
    ///
    /// # Errors
    /// If it takes rays and no cameras are given.
    pub fn with_rays(&self, x: &Tensor, cameras: Option<&Tensor>) -> Result<Option<Tensor>> {
        let Some(fov) = self.config.camera_rays_fov else { return Ok(None) };
        let Some(cameras) = cameras else {
            return Err(Error::invalid(
                "class_labels",
                "this prior is conditioned by a camera; none was given",
            ));
        };
        let (_, _, h, w) = x.dims4()?;
        let rays = rays::ray_map(cameras, fov, (h, w))?.to_dtype(x.dtype())?;
        Ok(Some(Tensor::cat(&[x, &rays], 1)?.contiguous()?))
    }

    /// The network's prediction `[B, out_channels, h, w]` (ε, v or x₀ as the scheduler says).
    ///
    /// # Errors
    /// If shapes do not fit, or a conditioning that the config asks for is missing.
    pub fn predict(&self, inputs: &UnetInputs<'_>) -> Result<Tensor> {
        self.check(inputs)?;
        self.evaluated.fetch_add(inputs.sample.dim(0)? as u64, Ordering::Relaxed);
        let emb = self.embedding.forward(inputs)?;
        let told = Told { emb: &emb, context: inputs.context, hook: inputs.hook };
        let mut state = State { h: self.centred(inputs.sample)?, skips: Vec::new() };
        for segment in 0..self.segments() {
            self.run(segment, &mut state, &told, inputs)?;
        }
        Ok(state.h)
    }

    /// Samples that went through [`Unet::predict`] since it was built: what the costs of methods are
    /// counted in.
    pub fn evaluated(&self) -> u64 {
        self.evaluated.load(Ordering::Relaxed)
    }

    fn centred(&self, x: &Tensor) -> Result<Tensor> {
        Ok(if self.config.center_input_sample { x.affine(2.0, -1.0)? } else { x.clone() })
    }

    /// Number of parts that [`Unet::run`] runs one after the other: `conv_in`, the blocks, `conv_out`.
    fn segments(&self) -> usize {
        2 * self.up.len() + 3
    }

    fn run(&self, segment: usize, state: &mut State, told: &Told<'_>, inputs: &UnetInputs<'_>) -> Result<()> {
        let levels = self.up.len();
        if segment == 0 {
            *state = self.encoder.start(&state.h, None)?;
        } else if segment <= levels {
            self.encoder.down(segment - 1, state, told)?;
        } else if segment == levels + 1 {
            self.encoder.mid(state, told)?;
            for (skip, residual) in state.skips.iter_mut().zip(inputs.down_residuals) {
                *skip = (&*skip + residual)?;
            }
            if let Some(residual) = inputs.mid_residual {
                state.h = (&state.h + residual)?;
            }
        } else if segment <= 2 * levels + 1 {
            self.up(segment - levels - 2, state, told)?;
        } else {
            state.h = self.conv_out.forward(&self.norm_out.forward_silu(&state.h)?)?;
        }
        Ok(())
    }

    /// Up block `i`: takes as many skip connections as it has residual blocks.
    fn up(&self, i: usize, state: &mut State, told: &Told<'_>) -> Result<()> {
        let (stage, upsample) = &self.up[i];
        for j in 0..stage.len() {
            let skip = state.skips.pop().ok_or_else(|| Error::Failed("u-net skip connections".into()))?;
            state.h = stage.step(j, &Tensor::cat(&[&state.h, &skip], 1)?.contiguous()?, told)?;
        }
        if let Some(upsample) = upsample {
            // Odd sides were rounded up on the way down: the skip tells what they were.
            let (_, _, height, width) = state.skips.last().unwrap_or(&state.h).dims4()?;
            state.h = upsample.forward_to(&state.h, height, width)?;
        }
        Ok(())
    }

    fn check(&self, inputs: &UnetInputs<'_>) -> Result<()> {
        let (batch, channels, _, _) = inputs.sample.dims4()?;
        let c = &self.config;
        if channels != c.in_channels {
            let why = format!("{channels} channels, the model takes {}", c.in_channels);
            return Err(Error::invalid("sample", why));
        }
        let wrong = |name: &str, t: &Tensor, want: &str| {
            Err(Error::invalid(name, format!("shape {:?}, expected {want}", t.dims())))
        };
        if inputs.timestep.dims() != [batch] {
            return wrong("timestep", inputs.timestep, "one a sample");
        }
        let (rows, _, width) = inputs.context.dims3()?;
        if (rows, width) != (batch, c.cross_attention_dim) {
            return wrong(
                "encoder_hidden_states",
                inputs.context,
                &format!("[{batch}, _, {}]", c.cross_attention_dim),
            );
        }
        let (given, skips) = (inputs.down_residuals.len(), self.skips());
        if given != 0 && given != skips {
            return Err(Error::invalid(
                "down_residuals",
                format!("{given} tensors, the model takes {skips}"),
            ));
        }
        Ok(())
    }

    /// Number of skip connections.
    pub fn skips(&self) -> usize {
        let levels = self.config.block_out_channels.len();
        levels + (0..levels).map(|i| self.config.layers_per_block.at(i)).sum::<usize>()
    }
}

/// Up block `i`, counted from the lowest resolution.
fn up(config: &UnetConfig, i: usize, w: &Weights) -> Result<(Stage, Option<Upsample>)> {
    let c = &config.block_out_channels;
    let level = c.len() - 1 - i;
    let crossed = config.up_block_types[i] == "CrossAttnUpBlock2D";
    let below = c[(level + 1).min(c.len() - 1)];
    let layers = config.layers_per_block.at(level);
    let inputs: Vec<usize> = (0..=layers)
        .map(|j| {
            let from = if j == 0 { below } else { c[level] };
            // The last skip of a level is the downsampled output of the level above (or conv_in).
            let skip = if j == layers { c[level.saturating_sub(1)] } else { c[level] };
            from + skip
        })
        .collect();
    let stage = Stage::new(config, level, crossed, &inputs, w)?;
    let upsample = (level > 0).then(|| Upsample::new(c[level], &w.pp("upsamplers.0"))).transpose()?;
    Ok((stage, upsample))
}
