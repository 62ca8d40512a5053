//! The seam between clips and the models that edit them.

use std::path::Path;

use super::store::FrameStore;
use crate::{Error, Result};

/// What an editor is asked.
#[derive(Debug)]
pub struct Request<'a> {
    /// The source's frames at the model's size, any of them at any time.
    pub source: &'a FrameStore,
    /// Number of frames.
    pub frames: usize,
    /// A mask for each frame, 0 … 1 in all channels: what a phrase would name.
    pub mask: Option<&'a FrameStore>,
    /// Where the edited frames go, in any order; some may be there from a run that was killed.
    pub result: &'a FrameStore,
    /// A folder for what the editor wants to find again after it was killed.
    pub work: &'a Path,
}

/// How far an edit is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// What is being done, in a word.
    pub part: &'static str,
    /// Steps of it that are done.
    pub done: usize,
    /// All steps of it.
    pub total: usize,
    /// Share of all the work that is done, as foreseen.
    pub share: f64,
    /// Share that will be done when this part is.
    pub until: f64,
}

/// Whether to go on.
pub type Listener<'a> = dyn FnMut(Step) -> bool + 'a;

/// A model that edits clips.
///
/// Frames wait on disk, so an editor may walk over them as often as it likes (all windows at one
/// denoising step, then all at the next) in the memory of one window.
pub trait FrameEditor {
    /// The model's sides are multiples of this.
    fn factor(&self) -> usize;

    /// The short side it was trained for, pixels.
    fn short_side(&self) -> usize;

    /// Fills `request.result` with frames `0..request.frames`.
    ///
    /// # Errors
    /// What fails in the model; [`Error::Interrupted`] when `listener` says stop, after which the
    /// same request continues.
    fn edit(&mut self, request: &Request<'_>, listener: &mut Listener<'_>) -> Result<()>;
}

/// An editor that looks at one frame at a time: a function. For tests and simple filters.
pub struct PerFrame<F> {
    /// Sides are multiples of this.
    pub factor: usize,
    /// Short side.
    pub short_side: usize,
    /// The function.
    pub function: F,
}

impl<F: FnMut(usize, super::io::Picture) -> super::io::Picture> FrameEditor for PerFrame<F> {
    fn factor(&self) -> usize {
        self.factor
    }

    fn short_side(&self) -> usize {
        self.short_side
    }

    fn edit(&mut self, request: &Request<'_>, listener: &mut Listener<'_>) -> Result<()> {
        for i in 0..request.frames {
            if !request.result.has(i) {
                request.result.put(i, &(self.function)(i, request.source.get(i)?))?;
            }
            let (done, total) = (i + 1, request.frames);
            let share = done as f64 / total as f64;
            if !listener(Step { part: "edit", done, total, share, until: 1.0 }) {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}
