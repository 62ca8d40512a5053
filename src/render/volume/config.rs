//! Settings, results and gradients of the volume renderer.

use glam::Vec3;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How rays are sampled and what is skipped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeConfig {
    /// Bins along the diagonal of the sampled box, 1 to 1024; a bin's length is `2√3·half_extent / bins`.
    pub bins: u32,
    /// Only [-half_extent, half_extent]³ is rendered, at most 1.
    pub half_extent: f32,
    /// Rays start no nearer to the camera than this.
    pub near: f32,
    /// Cells of the occupancy grid a side, a multiple of 4 up to 256.
    pub occupancy_resolution: u32,
    /// The occupancy grid is updated every so many steps.
    pub occupancy_every: u32,
    /// Decay of a cell's density at an update.
    pub occupancy_decay: f32,
    /// A cell is skipped if its density is below the smaller of this and the grid's mean.
    pub occupancy_threshold: f32,
    /// Samples behind a transmittance below this have no weight.
    pub early_stop: f32,
    /// Samples with a smaller weight get no normal.
    pub normal_threshold: f32,
    /// Distance of the density queries of a normal.
    pub normal_epsilon: f32,
}

impl Default for VolumeConfig {
    fn default() -> Self {
        Self {
            bins: 96,
            half_extent: 1.0,
            near: 0.05,
            occupancy_resolution: 64,
            occupancy_every: 16,
            occupancy_decay: 0.95,
            occupancy_threshold: 0.1,
            early_stop: 1e-4,
            normal_threshold: 1e-3,
            normal_epsilon: 0.01,
        }
    }
}

impl VolumeConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let bad = |what: &str, reason: &str| Err(Error::invalid(format!("volume.{what}"), reason));
        if !(1..=1024).contains(&self.bins) {
            return bad("bins", "must be 1 to 1024");
        }
        if !(self.half_extent > 0.0 && self.half_extent <= 1.0) {
            return bad("half_extent", "must be above 0 and at most 1");
        }
        if !(self.near >= 0.0 && self.near.is_finite()) {
            return bad("near", "must be at least 0");
        }
        let res = self.occupancy_resolution;
        if !(4..=256).contains(&res) || !res.is_multiple_of(4) {
            return bad("occupancy_resolution", "must be a multiple of 4 from 4 to 256");
        }
        if self.occupancy_every == 0 {
            return bad("occupancy_every", "must be at least 1");
        }
        if !(0.0..=1.0).contains(&self.occupancy_decay) || self.occupancy_threshold.is_nan() {
            return bad("occupancy_decay", "must be 0 to 1, and occupancy_threshold a number");
        }
        if !(0.0..1.0).contains(&self.early_stop) || self.normal_threshold.is_nan() {
            return bad("early_stop", "must be at least 0 and below 1, and normal_threshold a number");
        }
        if !(self.normal_epsilon > 0.0 && self.normal_epsilon <= 0.25) {
            return bad("normal_epsilon", "must be above 0 and at most 0.25");
        }
        Ok(())
    }

    /// Length of a bin.
    pub fn step_size(&self) -> f32 {
        2.0 * 3f32.sqrt() * self.half_extent / self.bins as f32
    }
}

/// What is behind the field.
#[derive(Debug, Clone, Copy)]
pub enum Background<'a> {
    /// One linear colour a view.
    Solid(&'a [Vec3]),
    /// The trained background: a small MLP of the ray's direction (spherical harmonics to degree 2).
    Mlp,
}

/// Whether a render will be differentiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Samples are jittered; what `backward` needs is kept.
    Train,
    /// Samples sit in the middle of their bins; nothing is kept, pictures may be large.
    Eval,
}

/// Settings of one render.
#[derive(Debug, Clone, Copy)]
pub struct RenderOptions {
    /// Step: keys the jitter and the number of active levels.
    pub step: u32,
    /// Training or not.
    pub mode: Mode,
    /// Also render normals and the orientation penalty (four more density queries a visible sample).
    pub normals: bool,
}

/// A render of `views` pictures; every vector is `[views, height, width, channels]`.
#[derive(Debug, Clone, Default)]
pub struct RenderOutput {
    /// Number of pictures.
    pub views: usize,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Linear colour over the background, 3 channels.
    pub rgb: Vec<f32>,
    /// `O = Σ wᵢ`, in 0..1.
    pub opacity: Vec<f32>,
    /// `Σ wᵢ tᵢ`: distance from the camera along the ray, weighted (not divided by the opacity).
    pub depth: Vec<f32>,
    /// `Σ wᵢ (tᵢ − depth/O)²`.
    pub z_variance: Vec<f32>,
    /// `Σ wᵢ nᵢ`, 3 channels, if asked for.
    pub normal: Option<Vec<f32>>,
    /// `Σ wᵢ max(0, nᵢ·d)²`, if normals were asked for. Its gradient does not flow through `wᵢ`
    /// (DreamFusion, appendix A.2).
    pub orientation: Option<Vec<f32>>,
    /// Samples taken.
    pub samples: usize,
}

/// Gradient of a loss by the fields of [`RenderOutput`]; `None` is zero.
#[derive(Debug, Clone, Copy, Default)]
pub struct RenderGrad<'a> {
    /// By `rgb`.
    pub rgb: Option<&'a [f32]>,
    /// By `opacity`.
    pub opacity: Option<&'a [f32]>,
    /// By `depth`.
    pub depth: Option<&'a [f32]>,
    /// By `z_variance`.
    pub z_variance: Option<&'a [f32]>,
    /// By `normal`; the render must have been asked for normals.
    pub normal: Option<&'a [f32]>,
    /// By `orientation`; the render must have been asked for normals.
    pub orientation: Option<&'a [f32]>,
}
