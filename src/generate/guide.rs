//! Who judges the pictures. The optimisation loop knows a guide by this trait only; the guide of
//! `gen3d` is a latent diffusion prior with score distillation (`latent.rs`).

use super::checkpoint::State;
use super::timing::Timings;
use crate::Result;
use crate::render::camera::Camera;

/// What pictures are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shown {
    /// Colours.
    #[default]
    Colors,
    /// Normals, as colours.
    Normals,
    /// Normals and coverage, which stand for latents as they are (four channels).
    NormalLatents,
}

/// The pictures of one step.
#[derive(Debug, Clone, Copy)]
pub struct Views<'a> {
    /// `[views, 3, size, size]`, sRGB in [−1, 1] (linear for normals); four channels for
    /// [`Shown::NormalLatents`].
    pub pixels: &'a [f32],
    /// Pixels along a side.
    pub size: usize,
    /// Where each was taken from.
    pub cameras: &'a [Camera],
    /// The optimisation step; keys the guide's random numbers.
    pub step: u32,
    /// How much of the stage is done, 0 … 1; moves what anneals.
    pub progress: f64,
    /// Seed of the guide's random numbers: another one for each particle and each attempt.
    pub seed: u64,
    /// Pictures of the second stage's surface.
    pub second_stage: bool,
    /// What they are of.
    pub shown: Shown,
}

/// What a guide says about them.
#[derive(Debug, Clone)]
pub struct Guidance {
    /// Gradient of its loss by [`Views::pixels`].
    pub gradient: Vec<f32>,
    /// Root mean square of its gradient in its own space (latents), for the log.
    pub rms: f32,
    /// Mean timestep, for the log.
    pub timestep: f32,
    /// Loss of what the guide itself learns, for the log; 0 if it learns nothing.
    pub learned: f32,
}

/// A judge of pictures.
pub trait Guide {
    /// Which judge with which knowledge: a checkpoint is only continued under the same identity.
    fn identity(&self) -> String;

    /// The gradient by the pictures. A pure function of `views` and of what [`Guide::state`] gives (no
    /// other memory, no clock), or a resumed run would differ.
    ///
    /// # Errors
    /// [`crate::Error::NotFinite`] if there is no usable gradient; if a tensor operation fails.
    fn guide(&mut self, views: &Views<'_>, timings: &mut Timings) -> Result<Guidance>;

    /// Pixels along a side that pictures of the first stage should have at `progress`, if the configuration's `size`
    /// is not what this guide wants then.
    fn size(&self, size: u32, _progress: f64) -> u32 {
        size
    }

    /// What the guide has learned in this run, for a checkpoint; nothing, for most.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn state(&self) -> Result<State> {
        Ok(State::new())
    }

    /// Takes over what [`Guide::state`] gave; other names are ignored.
    ///
    /// # Errors
    /// If something is missing or does not fit.
    fn load_state(&mut self, _state: &State) -> Result<()> {
        Ok(())
    }

    /// Forgets what it has learned: the run begins again.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn reset(&mut self) -> Result<()> {
        Ok(())
    }
}
