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
    /// Where the edited frames go, in any order; some may be there from a run that was killed.
    pub result: &'a FrameStore,
    /// A folder for what the editor wants to find again after it was killed.
    pub work: &'a Path,
}

/// Whether to go on; called with the share of the work that is done.
pub type Listener<'a> = dyn FnMut(f64) -> bool + 'a;

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
            if !listener((i + 1) as f64 / request.frames as f64) {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}
