//! The half of the U-Net that goes down, and its bottom: shared with `ControlNet`.

use candle_core::Tensor;

use super::attention::AttentionHook;
use super::config::UnetConfig;
use super::transformer::{Shape, Transformer};
use crate::error::Result;
use crate::prior::layers::{Conv2d, ResnetBlock};
use crate::prior::nn::Padding;
use crate::prior::weights::{Init, Weights};

/// Residual blocks, each followed by a transformer where the block has them.
pub(super) struct Stage {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Transformer>,
}

impl Stage {
    /// Of `channels(j)` → `outputs` for each residual block j, at level `level`.
    pub(super) fn new(
        config: &UnetConfig,
        level: usize,
        crossed: bool,
        inputs: &[usize],
        w: &Weights,
    ) -> Result<Self> {
        let mut stage = Self { resnets: Vec::new(), attentions: Vec::new() };
        for (j, &inputs) in inputs.iter().enumerate() {
            let outputs = config.block_out_channels[level];
            stage.resnets.push(resnet(config, inputs, outputs, &w.pp("resnets").pp(j))?);
            if crossed {
                stage.attentions.push(attention(config, level, &w.pp("attentions").pp(j))?);
            }
        }
        Ok(stage)
    }

    /// Number of residual blocks.
    pub(super) fn len(&self) -> usize {
        self.resnets.len()
    }

    /// Residual block `j` and its transformer.
    pub(super) fn step(&self, j: usize, x: &Tensor, told: &Told<'_>) -> Result<Tensor> {
        let h = self.resnets[j].forward(x, Some(told.emb))?;
        match self.attentions.get(j) {
            Some(attention) => attention.forward(&h, told.context, told.hook),
            None => Ok(h),
        }
    }
}

/// What every block is told.
#[derive(Clone, Copy)]
pub(in crate::prior) struct Told<'a> {
    /// The sum of all embeddings, `[B, time width]`.
    pub(in crate::prior) emb: &'a Tensor,
    /// The text's hidden states.
    pub(in crate::prior) context: &'a Tensor,
    pub(in crate::prior) hook: Option<&'a dyn AttentionHook>,
}

/// What one block hands to the next.
#[derive(Clone)]
pub(in crate::prior) struct State {
    /// The feature map.
    pub(in crate::prior) h: Tensor,
    /// After `conv_in`, each residual block and each downsampling, as far as the way up has not taken
    /// them yet.
    pub(in crate::prior) skips: Vec<Tensor>,
}

/// `conv_in`, `down_blocks` and `mid_block`.
pub(in crate::prior) struct Encoder {
    conv_in: Conv2d,
    down: Vec<(Stage, Option<Conv2d>)>,
    mid_resnets: Vec<ResnetBlock>,
    mid_attention: Option<Transformer>,
}

impl Encoder {
    pub(in crate::prior) fn new(config: &UnetConfig, w: &Weights) -> Result<Self> {
        let c = &config.block_out_channels;
        let last = c.len() - 1;
        let mid = w.pp("mid_block");
        let crossed = config.mid_block_type == "UNetMidBlock2DCrossAttn";
        let mid_resnet = |i: usize| resnet(config, c[last], c[last], &mid.pp("resnets").pp(i));
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, c[0], 3, &w.pp("conv_in"))?,
            down: (0..c.len()).map(|i| down(config, i, &w.pp("down_blocks").pp(i))).collect::<Result<_>>()?,
            mid_resnets: (0..=usize::from(crossed)).map(mid_resnet).collect::<Result<_>>()?,
            mid_attention: crossed.then(|| attention(config, last, &mid.pp("attentions.0"))).transpose()?,
        })
    }

    /// The way from `x` to the bottom; `hint`, if any, is added after `conv_in`.
    pub(in crate::prior) fn forward(
        &self,
        x: &Tensor,
        hint: Option<&Tensor>,
        told: &Told<'_>,
    ) -> Result<State> {
        let mut state = self.start(x, hint)?;
        for i in 0..self.down.len() {
            self.down(i, &mut state, told)?;
        }
        self.mid(&mut state, told)?;
        Ok(state)
    }

    /// `conv_in`.
    pub(super) fn start(&self, x: &Tensor, hint: Option<&Tensor>) -> Result<State> {
        let mut h = self.conv_in.forward(x)?;
        if let Some(hint) = hint {
            h = (h + hint)?;
        }
        Ok(State { skips: vec![h.clone()], h })
    }

    /// Down block `i`.
    pub(super) fn down(&self, i: usize, state: &mut State, told: &Told<'_>) -> Result<()> {
        let (stage, downsample) = &self.down[i];
        for j in 0..stage.len() {
            state.h = stage.step(j, &state.h, told)?;
            state.skips.push(state.h.clone());
        }
        if let Some(conv) = downsample {
            state.h = conv.forward(&state.h)?;
            state.skips.push(state.h.clone());
        }
        Ok(())
    }

    /// The bottom.
    pub(super) fn mid(&self, state: &mut State, told: &Told<'_>) -> Result<()> {
        let mut h = self.mid_resnets[0].forward(&state.h, Some(told.emb))?;
        if let Some(attention) = &self.mid_attention {
            h = attention.forward(&h, told.context, told.hook)?;
        }
        for resnet in &self.mid_resnets[1..] {
            h = resnet.forward(&h, Some(told.emb))?;
        }
        state.h = h;
        Ok(())
    }
}

fn down(config: &UnetConfig, i: usize, w: &Weights) -> Result<(Stage, Option<Conv2d>)> {
    let c = &config.block_out_channels;
    let crossed = config.down_block_types[i] == "CrossAttnDownBlock2D";
    let mut inputs = vec![c[i]; config.layers_per_block.at(i)];
    inputs[0] = c[i.saturating_sub(1)];
    let stage = Stage::new(config, i, crossed, &inputs, w)?;
    let downsample = (i + 1 < c.len())
        .then(|| {
            let (init, w) = (Init::Uniform(c[i] * 9), w.pp("downsamplers.0.conv"));
            Conv2d::full(c[i], c[i], 3, 2, Padding::Same(1), init, &w)
        })
        .transpose()?;
    Ok((stage, downsample))
}

fn resnet(config: &UnetConfig, inputs: usize, outputs: usize, w: &Weights) -> Result<ResnetBlock> {
    let time = Some(config.time_width());
    ResnetBlock::new(inputs, outputs, time, config.norm_num_groups, config.norm_eps, w)
}

fn attention(config: &UnetConfig, level: usize, w: &Weights) -> Result<Transformer> {
    let shape = Shape {
        channels: config.block_out_channels[level],
        context: config.cross_attention_dim,
        heads: config.heads(level),
        layers: config.transformer_layers_per_block.at(level),
        groups: config.norm_num_groups,
        linear: config.use_linear_projection,
    };
    Transformer::new(&shape, w)
}
