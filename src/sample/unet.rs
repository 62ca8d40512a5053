//! A prior's U-Net as a [`ConditionedPredictor`].

use candle_core::Tensor;

use super::guidance::{Branch, ConditionedPredictor};
use crate::error::{Error, Result};
use crate::prior::Prior;
use crate::prior::conditioning::Conditioning;
use crate::prior::control::{ControlNet, Residuals};
use crate::prior::nn;
use crate::prior::unet::attention::AttentionHook;
use crate::prior::unet::{Added, UnetInputs};

/// ε̂ of a prior under given texts, cameras and control pictures.
pub struct UnetPredictor<'a> {
    /// The prior.
    pub prior: &'a Prior,
    /// The empty or negative prompt, one row.
    pub unconditional: Conditioning,
    /// The prompt: one row, or one a sample.
    pub conditional: Conditioning,
    /// Prompts to push away from, each one row or one a sample (Perp-Neg, the noise-free loss).
    pub negatives: Vec<Conditioning>,
    /// Cameras `[B, 16]`, for priors that take them.
    pub cameras: Option<Tensor>,
    /// Further channels of the U-Net's input, `[1, n, h, w]` (inpainting models).
    pub further: Option<Tensor>,
    /// Pictures that steer.
    pub controls: &'a [Control],
    /// Stand in for the networks' attentions.
    pub hooks: Option<&'a dyn Hooks>,
}

/// Attention hooks of a predictor. Branches are evaluated side by side: each needs a hook of its own.
pub trait Hooks: Sync {
    /// Of the U-Net.
    fn unet(&self, branch: Branch) -> Option<&dyn AttentionHook>;

    /// Of the network of the control `index`.
    fn control(&self, index: usize, branch: Branch) -> Option<&dyn AttentionHook>;
}

/// A `ControlNet` with its picture.
pub struct Control {
    /// The network.
    pub net: ControlNet,
    /// `[1, 3, H, W]` in 0..1, or one picture a sample.
    pub picture: Tensor,
    /// How much its residuals count; 1 as trained.
    pub scale: f64,
    /// Deeper residuals count more, and the unconditional answer none (diffusers' guess mode).
    pub guess: bool,
}

impl<'a> UnetPredictor<'a> {
    /// Texts only.
    pub fn new(prior: &'a Prior, unconditional: Conditioning, conditional: Conditioning) -> Self {
        Self {
            prior,
            unconditional,
            conditional,
            negatives: Vec::new(),
            cameras: None,
            further: None,
            controls: &[],
            hooks: None,
        }
    }
}

impl ConditionedPredictor for UnetPredictor<'_> {
    /// The branches side by side: a pass through the network has serial stretches, which another's
    /// parallel ones fill.
    fn predict(&self, x_t: &Tensor, t: &[f32], branches: &[Branch]) -> Result<Tensor> {
        let batch = t.len() / branches.len().max(1);
        let done = nn::in_parts(branches.len(), |i| {
            let x = x_t.narrow(0, i * batch, batch)?.contiguous()?;
            self.branch(&x, &t[i * batch..(i + 1) * batch], branches[i])
        })?;
        Ok(Tensor::cat(&done, 0)?)
    }
}

impl UnetPredictor<'_> {
    fn branch(&self, x_t: &Tensor, t: &[f32], branch: Branch) -> Result<Tensor> {
        let text = match branch {
            Branch::Unconditional => self.unconditional.rows(t.len())?,
            Branch::Conditional => self.conditional.rows(t.len())?,
            Branch::Negative(i) => {
                let text = self.negatives.get(i);
                let why = || Error::invalid("guidance", format!("no text for negative branch {i}"));
                text.ok_or_else(why)?.rows(t.len())?
            }
        };
        let with_further = match &self.further {
            Some(further) => {
                let (_, c, h, w) = further.dims4()?;
                Some(Tensor::cat(&[x_t, &further.expand((t.len(), c, h, w))?], 1)?.contiguous()?)
            }
            None => None,
        };
        let (unet, cameras) = (&self.prior.unet, self.cameras.as_ref());
        let input = with_further.as_ref().unwrap_or(x_t);
        let with_rays = unet.with_rays(input, cameras)?;
        let time = Tensor::from_vec(t.to_vec(), t.len(), x_t.device())?;
        let time_ids = self.time_ids(x_t)?;
        let inputs = UnetInputs {
            class_labels: cameras,
            added: text.pooled.as_ref().map(|p| Added { text_embeds: p, time_ids: &time_ids }),
            ..UnetInputs::new(with_rays.as_ref().unwrap_or(input), &time, &text.context)
        };
        let residuals = self.residuals(&inputs, x_t, branch)?;
        let output = unet.predict(&UnetInputs {
            down_residuals: residuals.as_ref().map_or(&[], |r| &r.down),
            mid_residual: residuals.as_ref().map(|r| &r.mid),
            hook: self.hooks.and_then(|h| h.unet(branch)),
            ..inputs
        })?;
        self.prior.schedule.to_epsilon(&output, x_t, t)
    }

    /// SDXL's sizes: original and target are the picture's own, nothing is cropped.
    fn time_ids(&self, x_t: &Tensor) -> Result<Tensor> {
        let (rows, _, h, w) = x_t.dims4()?;
        let factor = self.prior.vae.factor();
        let (h, w) = ((h * factor) as f32, (w * factor) as f32);
        Ok(Tensor::new(&[[h, w, 0.0, 0.0, h, w]], x_t.device())?.expand((rows, 6))?.contiguous()?)
    }

    /// The sum of all controls' residuals for `inputs`, whose `sample` is the U-Net's; `x_t` are the
    /// latents alone.
    fn residuals(&self, inputs: &UnetInputs<'_>, x_t: &Tensor, branch: Branch) -> Result<Option<Residuals>> {
        let rows = x_t.dim(0)?;
        let mut sum: Option<Residuals> = None;
        for (index, control) in self.controls.iter().enumerate() {
            if control.guess && branch != Branch::Conditional {
                continue;
            }
            // A ControlNet that was trained beside an inpainting U-Net sees the latents alone.
            let own = control.net.config.unet.in_channels == inputs.sample.dim(1)?;
            let inputs = UnetInputs {
                sample: if own { inputs.sample } else { x_t },
                hook: self.hooks.and_then(|h| h.control(index, branch)),
                ..*inputs
            };
            let (_, c, h, w) = control.picture.dims4()?;
            let picture = control.picture.expand((rows, c, h, w))?.contiguous()?;
            let got = control.net.forward(&inputs, &picture, control.scale, control.guess)?;
            sum = Some(match sum {
                Some(sum) => sum.plus(&got)?,
                None => got,
            });
        }
        Ok(sum)
    }
}
