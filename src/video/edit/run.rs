//! One run of an edit: its stages over the windows, each step in the store before the next begins.

mod decode;
mod encode;
mod null;
mod steps;

use candle_core::Tensor;

#[cfg(test)]
pub(super) use null::Problem;

use super::config::{EditConfig, Start};
use super::editor::{ControlPictures, Editor};
use super::frames::FrameSource;
use super::session::{Session, Texts};
use super::smooth::Interpolator;
use super::store::Store;
use super::tune::Tuned;
use super::window::{Window, windows};
use crate::prior::Prior;
use crate::sample::guidance::Guidance;
use crate::sample::{Control, Trajectory};
use crate::{Error, Result};

/// See the module's text.
pub(super) struct Run<'a> {
    prior: &'a Prior,
    config: EditConfig,
    store: &'a dyn Store,
    source: &'a dyn FrameSource,
    masks: Option<&'a dyn FrameSource>,
    interpolator: &'a dyn Interpolator,
    tuned: Option<&'a Tuned>,
    windows: Vec<Window>,
    /// From the noisiest level of the edit to the clean one.
    path: Trajectory,
    /// Height and width of the latents.
    latent: (usize, usize),
    /// With the pictures of the window that is being evaluated.
    controls: Vec<Control>,
    pictures: Vec<ControlPictures<'a>>,
}

/// Where something of a window waits.
fn key(stage: &str, step: usize, window: &Window) -> String {
    format!("{stage}/{step:04}/{:05}", window.index)
}

impl<'a> Run<'a> {
    pub(super) fn new(editor: Editor<'a>, source: &'a dyn FrameSource) -> Result<Self> {
        let config = editor.config;
        let steps = ((config.steps as f64 * config.strength).round() as usize).max(1);
        let path = Trajectory::new(&editor.prior.schedule, config.steps)?.last(steps);
        let factor = editor.prior.vae.factor();
        let (w, h) = source.size();
        let (mut controls, mut pictures) = (Vec::new(), Vec::new());
        for track in editor.controls {
            let picture = Tensor::zeros((1, 3, 1, 1), candle_core::DType::F32, &editor.prior.device)?;
            controls.push(Control { net: track.net, picture, scale: track.scale, guess: false });
            pictures.push(track.pictures);
        }
        Ok(Self {
            prior: editor.prior,
            store: editor.store,
            source,
            masks: editor.masks,
            interpolator: editor.interpolator,
            tuned: editor.tuned,
            windows: windows(source.len(), config.window),
            path,
            latent: (h.div_ceil(factor), w.div_ceil(factor)),
            controls,
            pictures,
            config,
        })
    }

    /// Number of steps.
    fn steps(&self) -> usize {
        self.path.steps()
    }

    fn get(&self, stage: &str, step: usize, window: &Window) -> Result<Tensor> {
        Ok(self.store.get(&key(stage, step, window))?.to_device(&self.prior.device)?)
    }

    fn put(&self, stage: &str, step: usize, window: &Window, tensor: &Tensor) -> Result<()> {
        self.store.put(&key(stage, step, window), tensor)
    }

    /// True if the step is in the store for every window.
    fn complete(&self, stage: &str, step: usize) -> bool {
        self.windows.iter().all(|w| self.store.has(&key(stage, step, w)))
    }

    fn forget(&self, stage: &str, step: usize) -> Result<()> {
        self.windows.iter().try_for_each(|w| self.store.remove(&key(stage, step, w)))
    }

    /// True if there is a mask of what is edited.
    fn masked(&self) -> bool {
        self.masks.is_some() || !self.config.phrase.is_empty()
    }

    fn inverted(&self) -> bool {
        self.config.start == Start::Inverted
    }

    /// The mask `[W, 1, h, w]` of a window, if there is one.
    fn mask(&self, window: &Window) -> Result<Option<Tensor>> {
        self.masked().then(|| self.get("mask", 0, window)).transpose()
    }

    /// A session that asks for the target under guidance, or for the source without.
    fn session(&self, target: bool) -> Result<Session<'a>> {
        let mut session = self.guided_session(target)?;
        if !target {
            session.guidance = Guidance::scale(1.0);
        }
        Ok(session)
    }

    /// A session that asks for the target or the source under guidance.
    fn guided_session(&self, target: bool) -> Result<Session<'a>> {
        let c = &self.config;
        // All together, so that they have one length.
        let all = [c.negative_prompt.as_str(), c.source_prompt.as_str(), c.target_prompt.as_str()];
        let texts = self.prior.encode_texts(&all)?;
        let conditional = texts[1 + usize::from(target)].clone();
        let texts = Texts { unconditional: texts[0].clone(), conditional };
        let guidance = Guidance::scale(c.guidance_scale);
        let mut session = Session::new(self.prior, &c.attention, texts, guidance, self.controls.len());
        session.cameras = self.cameras()?;
        session.tuned = self.tuned;
        Ok(session)
    }

    /// The cameras of all frames, for priors that take them.
    fn cameras(&self) -> Result<Option<Tensor>> {
        let frames: Vec<usize> = (0..self.source.len()).collect();
        self.config.camera.embeddings(self.prior, &frames, frames.len())
    }

    /// Gives the controls their pictures of a window.
    fn show(&mut self, window: &Window) -> Result<()> {
        for (i, control) in self.controls.iter_mut().enumerate() {
            let bytes = self.store.get(&key(&format!("control{i}"), 0, window))?;
            let picture = bytes.to_dtype(candle_core::DType::F32)?.affine(1.0 / 255.0, 0.0)?;
            control.picture = picture.to_device(&self.prior.device)?;
        }
        Ok(())
    }

    /// Latents of the source at level `step`: inverted, or noised by the edit's own noise.
    fn source_latents(&self, step: usize, window: &Window) -> Result<Tensor> {
        if self.inverted() {
            return self.get("inverted", step, window);
        }
        let (clean, level) = (self.get("inverted", self.steps(), window)?, self.path.levels[step]);
        if step == self.steps() {
            return Ok(clean);
        }
        let noise = self.noise(window)?;
        Ok((clean.affine(level.alpha(), 0.0)? + noise.affine(level.sigma(), 0.0)?)?)
    }
}

impl Run<'_> {
    /// First noise of the window's frames `[W, c, h, w]`: one for all, moved with the picture if asked.
    fn noise(&self, window: &Window) -> Result<Tensor> {
        let (h, w) = self.latent;
        let c = self.prior.vae.latent_channels();
        let moved = match self.config.start {
            Start::Warped => self.store.get(&key("motion", 0, window))?.to_vec2::<f64>()?,
            _ => vec![vec![0.0; 2]; window.len()],
        };
        let factor = self.prior.vae.factor() as f64;
        let cells = |pixels: f64| (pixels / factor).round() as i64;
        let values: Vec<f32> = moved
            .iter()
            .flat_map(|m| super::motion::noise((c, h, w), self.config.seed, (cells(m[0]), cells(m[1]))))
            .collect();
        Ok(Tensor::from_vec(values, (window.len(), c, h, w), &self.prior.device)?)
    }

    /// The number of the window before, for stages that go from one to the next.
    fn before(&self, window: &Window) -> Result<Window> {
        let index = window.index.checked_sub(1).ok_or_else(|| Error::Failed("no window before".into()))?;
        Ok(self.windows[index])
    }
}
