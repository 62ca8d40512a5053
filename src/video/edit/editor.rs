//! The editor: what it is given, and the order of its stages.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use super::config::{EditConfig, Start};
use super::frames::{FrameSink, FrameSource};
use super::memory;
use super::run::Run;
use super::smooth::Interpolator;
use super::store::Store;
use super::tune::{TuneConfig, Tuned, tune};
use super::words;
use crate::paint::hed::Hed;
use crate::prior::Prior;
use crate::prior::control::ControlNet;
use crate::{Error, Result};

/// Part of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The prior is tuned to the clip (steps, not windows).
    Tune,
    /// Frames to latents, and control pictures.
    Encode,
    /// The source to noise.
    Invert,
    /// The empty prompt's embedding, so that the source comes back under guidance.
    NullText,
    /// The target from noise.
    Edit,
    /// Latents to frames.
    Decode,
}

/// How far an edit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Windows done in it, over all steps.
    pub done: usize,
    /// Windows of it.
    pub total: usize,
}

/// Where control pictures come from.
pub enum ControlPictures<'a> {
    /// Edges of the source's frames.
    Canny,
    /// Soft edges of the source's frames.
    SoftEdges(&'a Hed),
    /// Ready pictures (depth, poses, …), one a frame, −1..1.
    Frames(&'a dyn FrameSource),
}

/// A `ControlNet` for the whole clip.
pub struct ControlTrack<'a> {
    /// The network (see [`crate::paint::control::network`]).
    pub net: ControlNet,
    /// How much its residuals count; 1 as trained.
    pub scale: f64,
    /// What steers.
    pub pictures: ControlPictures<'a>,
}

/// An edit that is ready to run.
pub struct Editor<'a> {
    /// The prior.
    pub prior: &'a Prior,
    /// The settings.
    pub config: EditConfig,
    /// Where latents wait; a run that finds its own there goes on.
    pub store: &'a dyn Store,
    /// What steers.
    pub controls: Vec<ControlTrack<'a>>,
    /// The user's masks of what the phrase would name, one channel in 0..1, in place of attention maps.
    pub masks: Option<&'a dyn FrameSource>,
    /// What was tuned to the clip (see [`super::tune`]).
    pub tuned: Option<&'a Tuned>,
    /// For the smoother.
    pub interpolator: &'a dyn Interpolator,
}

/// Whom a run tells, and who may stop it.
pub(super) struct Report<'a> {
    pub(super) progress: &'a mut dyn FnMut(Progress) -> Result<()>,
    pub(super) cancel: &'a AtomicBool,
}

impl Report<'_> {
    pub(super) fn tick(&mut self, stage: Stage, done: usize, total: usize) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        (self.progress)(Progress { stage, done, total })
    }
}

impl<'a> Editor<'a> {
    /// An editor without controls and masks.
    pub fn new(prior: &'a Prior, config: EditConfig, store: &'a dyn Store) -> Self {
        let interpolator = &super::smooth::Average;
        Self { prior, config, store, controls: Vec::new(), masks: None, tuned: None, interpolator }
    }

    /// Edits `source` into `sink`. `progress` is told after each window and may end the run with an error;
    /// so does `cancel`. The same editor over the same store goes on with the last step that was not
    /// finished, to the same bytes.
    ///
    /// # Errors
    /// Settings that do not fit, a store of another edit, [`Error::Interrupted`], and those of source and sink.
    pub fn edit(
        self,
        source: &dyn FrameSource,
        sink: &mut dyn FrameSink,
        progress: &mut dyn FnMut(Progress) -> Result<()>,
        cancel: &AtomicBool,
    ) -> Result<()> {
        let mut report = Report { progress, cancel };
        self.check(source)?;
        if self.config.strength == 0.0 {
            return copy(source, sink, &mut report);
        }
        memory::check(memory::estimate(&self.config, self.prior, source.size()))?;
        self.claim(source)?;
        let own = self.tune(source, &mut report)?;
        let mut editor = self;
        editor.tuned = own.as_ref().or(editor.tuned);
        let mut run = Run::new(editor, source)?;
        run.encode(&mut report)?;
        run.invert(&mut report)?;
        run.null_text(&mut report)?;
        run.masks()?;
        run.edit(&mut report)?;
        run.decode(sink, &mut report)
    }

    /// Tunes the prior to the clip, if the settings say so; a tuning that was completed is in the store.
    fn tune(&self, source: &dyn FrameSource, report: &mut Report<'_>) -> Result<Option<Tuned>> {
        let Some(settings) = &self.config.tune else { return Ok(None) };
        if let Some(kept) = Tuned::kept(self.store, self.prior)? {
            return Ok(Some(kept));
        }
        let settings = TuneConfig {
            prompt: self.config.source_prompt.clone(),
            camera: self.config.camera.clone(),
            ..settings.clone()
        };
        let tuned = Tuned::fresh(self.prior)?;
        tune(self.prior, source, &tuned, &settings, &mut |step, steps, _| {
            report.tick(Stage::Tune, step, steps)
        })?;
        tuned.keep(self.store)?;
        Ok(Some(tuned))
    }

    fn check(&self, source: &dyn FrameSource) -> Result<()> {
        self.config.check()?;
        let (w, h) = source.size();
        if source.is_empty() || w == 0 || h == 0 {
            return Err(Error::invalid("clip", "has no frames"));
        }
        if self.prior.unet.config.latent_channels() != self.prior.vae.latent_channels() {
            return Err(Error::invalid("prior", "is an inpainting model")
                .hint("clips are edited with the plain model of the same family"));
        }
        let mut others: Vec<(&str, &dyn FrameSource)> = Vec::new();
        others.extend(self.masks.map(|m| ("masks", m)));
        for control in &self.controls {
            if let ControlPictures::Frames(frames) = control.pictures {
                others.push(("control pictures", frames));
            }
        }
        for (what, other) in others {
            if other.len() != source.len() || other.size() != source.size() {
                let shown = |s: &dyn FrameSource| format!("{} frames of {:?}", s.len(), s.size());
                let why = format!("{}, the clip has {}", shown(other), shown(source));
                return Err(Error::invalid(what, why).hint("give one a frame, of the clip's size"));
            }
        }
        if !self.config.phrase.is_empty() && self.masks.is_none() {
            if self.config.start != Start::Inverted {
                return Err(Error::invalid("phrase", "its mask is found while the source is inverted")
                    .hint("set start = \"inverted\", or give mask frames"));
            }
            words::positions(self.prior, &self.config.source_prompt, &self.config.phrase)?;
        }
        Ok(())
    }

    /// Writes into the store what is edited and how, or finds the same there.
    fn claim(&self, source: &dyn FrameSource) -> Result<()> {
        const KEY: &str = "identity";
        let text = self.identity(source)?;
        if !self.store.has(KEY) {
            let bytes = Tensor::from_vec(text.clone().into_bytes(), text.len(), &Device::Cpu)?;
            return self.store.put(KEY, &bytes);
        }
        if self.store.get(KEY)?.to_vec1::<u8>()? == text.as_bytes() {
            return Ok(());
        }
        Err(Error::invalid("run folder", "holds the state of another edit")
            .hint("remove it to start anew, or give the same clip and settings to go on"))
    }

    fn identity(&self, source: &dyn FrameSource) -> Result<String> {
        let mut hash = Sha256::new();
        for i in [0, source.len() / 2, source.len() - 1] {
            let values = source.frame(i)?.flatten_all()?.to_vec1::<f32>()?;
            hash.update(bytemuck::cast_slice::<f32, u8>(&values));
        }
        let config = toml::to_string(&self.config).map_err(|e| Error::Failed(e.to_string()))?;
        let scales: Vec<f64> = self.controls.iter().map(|c| c.scale).collect();
        let soft = self.controls.iter().find_map(|c| match c.pictures {
            ControlPictures::SoftEdges(hed) => Some(format!("\nsoft edges {}", hed.digest())),
            _ => None,
        });
        let soft = soft.unwrap_or_default();
        Ok(format!(
            "gen3d-video-edit-1\nprior {}\nframes {} of {:?}, {:x}\ncontrols {scales:?}{soft}\nmasks {}\ntuned {}\n{config}",
            self.prior.digest,
            source.len(),
            source.size(),
            hash.finalize(),
            self.masks.is_some(),
            self.tuned.map_or_else(|| Ok("no".to_owned()), Tuned::digest)?,
        ))
    }
}

/// Strength 0: every frame as it is.
fn copy(source: &dyn FrameSource, sink: &mut dyn FrameSink, report: &mut Report<'_>) -> Result<()> {
    for i in 0..source.len() {
        sink.put(i, &source.frame(i)?)?;
        report.tick(Stage::Decode, i + 1, source.len())?;
    }
    Ok(())
}
