//! The prior's answer for one window after the other, with what they share.

use std::sync::Mutex;

use candle_core::Tensor;

use super::attention::{AttentionConfig, FrameHook, References, lock};
use super::blend::Blend;
use super::tune::Tuned;
use super::window::Window;
use super::words::WordMaps;
use crate::prior::Prior;
use crate::prior::conditioning::Conditioning;
use crate::prior::unet::attention::AttentionHook;
use crate::sample::guidance::{Branch, ConditionedPredictor, Guidance, Guided};
use crate::sample::{Control, Hooks, NoisePredictor, UnetPredictor};
use crate::{Error, Result};

/// Texts of one evaluation, one row each.
#[derive(Clone)]
pub(super) struct Texts {
    pub(super) conditional: Conditioning,
    pub(super) unconditional: Conditioning,
}

/// What an evaluation gathers, or is given.
#[derive(Clone, Copy, Default)]
pub(super) struct Watch<'a> {
    pub(super) words: Option<&'a Mutex<WordMaps>>,
    pub(super) blend: Option<&'a Blend<'a>>,
    /// In place of the negative prompt.
    pub(super) unconditional: Option<&'a Conditioning>,
}

/// ε̂ of the windows of one step, in their order.
pub(super) struct Session<'a> {
    pub(super) prior: &'a Prior,
    pub(super) attention: AttentionConfig,
    pub(super) texts: Texts,
    pub(super) guidance: Guidance,
    /// Cameras of all frames, `[F, 16]`.
    pub(super) cameras: Option<Tensor>,
    /// What was tuned to the clip, in the U-Net.
    pub(super) tuned: Option<&'a Tuned>,
    /// Of the U-Net and each control, for either branch.
    references: Vec<[Mutex<References>; 2]>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        prior: &'a Prior,
        attention: &AttentionConfig,
        texts: Texts,
        guidance: Guidance,
        controls: usize,
    ) -> Self {
        let references = (0..=controls).map(|_| Default::default()).collect();
        Self { prior, attention: attention.clone(), texts, guidance, cameras: None, tuned: None, references }
    }

    /// ε̂ `[W, c, h, w]` of a window's latents at timestep `t`, with its control pictures in `controls`. It
    /// may be asked again (refinement); the windows before it have to be settled.
    ///
    /// # Errors
    /// What the networks report.
    pub(super) fn predict(
        &self,
        z: &Tensor,
        t: f32,
        window: &Window,
        controls: &[Control],
        watch: Watch<'_>,
    ) -> Result<Tensor> {
        self.ready();
        let hooks = self.hooks(window, controls, watch);
        let unconditional = watch.unconditional.unwrap_or(&self.texts.unconditional);
        let model = self.model(window, controls, &hooks, unconditional)?;
        let times = vec![t; window.len()];
        let eps = Guided { model: &model, guidance: &self.guidance }.predict(z, &times)?;
        let sum = eps.abs()?.sum_all()?.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
        if !sum.is_finite() {
            return Err(Error::Failed(format!("the prior's answer is not finite (timestep {t})")));
        }
        Ok(eps)
    }

    /// Before the evaluations of a window that [`Session::answer`] makes.
    pub(super) fn ready(&self) {
        for references in self.references.iter().flatten() {
            lock(references).attempt();
        }
    }

    /// The answer of one branch, with `unconditional` as the negative prompt; on the tape of that. The last
    /// answer of each branch is what later windows refer to.
    ///
    /// # Errors
    /// What the networks report.
    pub(super) fn answer(
        &self,
        z: &Tensor,
        t: f32,
        window: &Window,
        controls: &[Control],
        branch: Branch,
        unconditional: &Conditioning,
    ) -> Result<Tensor> {
        let hooks = self.hooks(window, controls, Watch::default());
        let model = self.model(window, controls, &hooks, unconditional)?;
        model.predict(z, &vec![t; window.len()], &[branch])
    }

    fn model<'m>(
        &'m self,
        window: &Window,
        controls: &'m [Control],
        hooks: &'m WindowHooks<'_>,
        unconditional: &Conditioning,
    ) -> Result<UnetPredictor<'m>> {
        let mut model = UnetPredictor::new(self.prior, unconditional.clone(), self.texts.conditional.clone());
        model.controls = controls;
        model.hooks = Some(hooks);
        if let Some(cameras) = &self.cameras {
            model.cameras = Some(cameras.narrow(0, window.start, window.len())?.contiguous()?);
        }
        Ok(model)
    }

    /// The window's last answer stands: what later windows refer to is kept.
    pub(super) fn settle(&self) {
        for references in self.references.iter().flatten() {
            lock(references).turn();
        }
    }

    /// Before the first window of a step.
    pub(super) fn begin(&self) {
        for references in self.references.iter().flatten() {
            lock(references).clear();
        }
    }

    fn hooks<'h>(&'h self, window: &Window, controls: &[Control], watch: Watch<'h>) -> WindowHooks<'h> {
        let first = |c: &[usize]| (self.attention.least_width * c[0] as f64).ceil() as usize;
        let hook = |network: usize, branch: usize, least_channels: usize, watch: Watch<'h>| FrameHook {
            config: &self.attention,
            least_channels,
            window: *window,
            references: &self.references[network][branch],
            words: watch.words,
            blend: watch.blend,
            tuned: self.tuned.filter(|_| network == 0),
        };
        let least = first(&self.prior.unet.config.block_out_channels);
        let nothing = Watch::default();
        WindowHooks {
            // Words and maps belong to the prompt: the empty one has neither.
            unet: [hook(0, 0, least, nothing), hook(0, 1, least, watch)],
            controls: controls
                .iter()
                .enumerate()
                .map(|(i, control)| {
                    let least = first(&control.net.config.unet.block_out_channels);
                    [0, 1].map(|branch| hook(i + 1, branch, least, nothing))
                })
                .collect(),
        }
    }
}

struct WindowHooks<'a> {
    unet: [FrameHook<'a>; 2],
    controls: Vec<[FrameHook<'a>; 2]>,
}

fn number(branch: Branch) -> usize {
    usize::from(branch == Branch::Conditional)
}

impl Hooks for WindowHooks<'_> {
    fn unet(&self, branch: Branch) -> Option<&dyn AttentionHook> {
        Some(&self.unet[number(branch)])
    }

    fn control(&self, index: usize, branch: Branch) -> Option<&dyn AttentionHook> {
        Some(&self.controls.get(index)?[number(branch)])
    }
}
