//! Layers with weights: thin structs over [`super::nn`]'s differentiable operations.

use std::sync::Arc;

use candle_core::Tensor;

use super::nn::{self, Kept, Padding};
use super::weights::{Adapter, Init, Weights};
use crate::error::Result;

/// y = x Wᵀ + b, plus what low-rank adapters add (Hu et al. 2021): Σ s·(x Dᵀ) Uᵀ.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    adapters: Vec<Adapter>,
    kept: Arc<Kept>,
}

impl Linear {
    /// `[…, in]` to `[…, out]`.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(inputs: usize, outputs: usize, bias: bool, w: &Weights) -> Result<Self> {
        Self::with_init(inputs, outputs, bias, Init::Uniform(inputs), w)
    }

    /// As [`Linear::new`], the weight starting as `init`.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn with_init(inputs: usize, outputs: usize, bias: bool, init: Init, w: &Weights) -> Result<Self> {
        let weight = w.get("weight", &[outputs, inputs], init)?;
        let bias = if bias { Some(w.get("bias", &[outputs], Init::Zeros)?) } else { None };
        Ok(Self { weight, bias, adapters: w.adapters(inputs, outputs)?, kept: Arc::default() })
    }

    /// Applies the layer to the last dimension.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = nn::linear_kept(x, &self.weight, self.bias.as_ref(), &self.kept)?;
        for a in &self.adapters {
            // The scale goes where the numbers are few.
            let low = (nn::linear(x, &a.down, None)? * a.scale)?;
            y = (y + nn::linear(&low, &a.up, None)?)?;
        }
        Ok(y)
    }
}

/// A 2-D convolution, NCHW.
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: usize,
    padding: Padding,
    kept: Arc<Kept>,
}

impl Conv2d {
    /// Kernel `k`×`k`, stride 1, symmetric padding (k−1)/2: the picture keeps its size.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(inputs: usize, outputs: usize, k: usize, w: &Weights) -> Result<Self> {
        Self::full(inputs, outputs, k, 1, Padding::Same(k / 2), Init::Uniform(inputs * k * k), w)
    }

    /// All choices.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn full(
        inputs: usize,
        outputs: usize,
        k: usize,
        stride: usize,
        padding: Padding,
        init: Init,
        w: &Weights,
    ) -> Result<Self> {
        let weight = w.get("weight", &[outputs, inputs, k, k], init)?;
        let bias = Some(w.get("bias", &[outputs], Init::Zeros)?);
        Ok(Self { weight, bias, stride, padding, kept: Arc::default() })
    }

    /// Kernel 3×3, symmetric padding, without a bias.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn plain3x3(inputs: usize, outputs: usize, stride: usize, w: &Weights) -> Result<Self> {
        let weight = w.get("weight", &[outputs, inputs, 3, 3], Init::Uniform(inputs * 9))?;
        Ok(Self { weight, bias: None, stride, padding: Padding::Same(1), kept: Arc::default() })
    }

    /// `[B, in, H, W]` to `[B, out, H′, W′]`.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.as_ref();
        Ok(nn::conv2d_kept(x, &self.weight, bias, self.stride, self.padding, &self.kept)?)
    }
}

/// Group normalisation with affine weights, optionally followed by SiLU.
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Over `channels` in `groups`.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(channels: usize, groups: usize, eps: f64, w: &Weights) -> Result<Self> {
        let weight = w.get("weight", &[channels], Init::Ones)?;
        let bias = w.get("bias", &[channels], Init::Zeros)?;
        Ok(Self { weight, bias, groups, eps })
    }

    /// Normalises `[B, C, …]`.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(nn::group_norm(x, &self.weight, &self.bias, self.groups, self.eps, false)?)
    }

    /// Normalises `[B, C, …]` and applies SiLU in the same pass.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(nn::group_norm(x, &self.weight, &self.bias, self.groups, self.eps, true)?)
    }
}

/// Layer normalisation over the last dimension.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Over a last dimension of `channels`.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(channels: usize, eps: f64, w: &Weights) -> Result<Self> {
        let weight = w.get("weight", &[channels], Init::Ones)?;
        let bias = w.get("bias", &[channels], Init::Zeros)?;
        Ok(Self { weight, bias, eps })
    }

    /// Normalises `[…, C]`.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(nn::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }
}

/// The two-convolution residual block of diffusers (`ResnetBlock2D`).
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    /// From `inputs` to `outputs` channels; `time` is the width of the time embedding, if any.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(
        inputs: usize,
        outputs: usize,
        time: Option<usize>,
        groups: usize,
        eps: f64,
        w: &Weights,
    ) -> Result<Self> {
        let time = time.map(|t| Linear::new(t, outputs, true, &w.pp("time_emb_proj"))).transpose()?;
        let shortcut = (inputs != outputs)
            .then(|| Conv2d::new(inputs, outputs, 1, &w.pp("conv_shortcut")))
            .transpose()?;
        Ok(Self {
            norm1: GroupNorm::new(inputs, groups, eps, &w.pp("norm1"))?,
            conv1: Conv2d::new(inputs, outputs, 3, &w.pp("conv1"))?,
            time,
            norm2: GroupNorm::new(outputs, groups, eps, &w.pp("norm2"))?,
            // A fresh block starts as the identity (Ho et al. 2020), which steadies training.
            conv2: Conv2d::full(outputs, outputs, 3, 1, Padding::Same(1), Init::Zeros, &w.pp("conv2"))?,
            shortcut,
        })
    }

    /// `x` `[B, in, H, W]` and the activated embedding `silu(emb)` `[B, time]` to `[B, out, H, W]`.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, x: &Tensor, silu_emb: Option<&Tensor>) -> Result<Tensor> {
        let mut h = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        if let (Some(proj), Some(emb)) = (&self.time, silu_emb) {
            h = nn::add_per_channel(&h, &proj.forward(emb)?)?;
        }
        let h = self.conv2.forward(&self.norm2.forward_silu(&h)?)?;
        match &self.shortcut {
            Some(conv) => Ok((conv.forward(x)? + h)?),
            None => Ok((x + h)?),
        }
    }
}

/// Nearest-neighbour doubling followed by a convolution (`Upsample2D`).
pub struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    /// On `channels`.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(channels: usize, w: &Weights) -> Result<Self> {
        Ok(Self { conv: Conv2d::new(channels, channels, 3, &w.pp("conv"))? })
    }

    /// `[B, C, H, W]` to `[B, C, 2H, 2W]`.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(&nn::upsample_nearest2x(x)?)
    }

    /// As [`Upsample::forward`], cut to `height`×`width` (2H or 2H − 1, 2W or 2W − 1) before the
    /// convolution: what nearest-neighbour interpolation to that size gives.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward_to(&self, x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        if (2 * h, 2 * w) == (height, width) {
            return self.forward(x);
        }
        let large = nn::upsample_nearest2x(x)?.narrow(2, 0, height)?.narrow(3, 0, width)?;
        self.conv.forward(&large.contiguous()?)
    }
}

/// Two linear layers with SiLU between (`TimestepEmbedding`).
pub struct EmbeddingMlp {
    linear1: Linear,
    linear2: Linear,
}

impl EmbeddingMlp {
    /// From `inputs` to `outputs` numbers.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(inputs: usize, outputs: usize, w: &Weights) -> Result<Self> {
        Ok(Self {
            linear1: Linear::new(inputs, outputs, true, &w.pp("linear_1"))?,
            linear2: Linear::new(outputs, outputs, true, &w.pp("linear_2"))?,
        })
    }

    /// `[B, in]` to `[B, out]`.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear2.forward(&nn::silu(&self.linear1.forward(x)?)?)
    }
}
