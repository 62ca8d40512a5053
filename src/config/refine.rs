//! The table of the second stage, which optimises a surface.

use serde::{Deserialize, Serialize};

use crate::distill::TimestepRange;
use crate::refine::{Extractor, Weights};

/// What the second stage begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefineStart {
    /// The surface of the first stage's field.
    Field,
    /// A ball; then the first stage may have no steps.
    Ball,
}

/// The second stage: a surface that begins as the field's, is drawn as triangles, and is optimised together
/// with its colours. What it says of pictures, cameras and the prior holds for this stage alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RefineConfig {
    /// Steps (0 … 100,000); 0: the field's surface is the product.
    pub steps: u32,
    /// What it begins with. `gen3d fit` begins with the field.
    pub start: RefineStart,
    /// How triangles come from signed distances.
    pub extractor: Extractor,
    /// Cells of the lattice along a side of the box (8 … 128).
    pub resolution: usize,
    /// Views a step (1 … 64).
    pub views: u32,
    /// Pixels along a side (16 … 1024).
    pub size: u32,
    /// Samples across a pixel (1 … 4).
    pub supersample: u32,
    /// Vertical field of view in degrees (5 … 120); 0: as in the first stage. Not for `gen3d fit`.
    pub fov: f32,
    /// Distance of the cameras (1.2 … 10); 0: as in the first stage. Not for `gen3d fit`.
    pub distance: f32,
    /// Classifier-free guidance (0 … 1000); 0: as in the first stage.
    pub guidance_scale: f64,
    /// The same while normals are shown; 0: as otherwise in this stage.
    pub normals_scale: f64,
    /// Which timesteps, and how that changes over the stage.
    pub timesteps: TimestepRange,
    /// Learning rate of the signed distances, in world units a step (0 … 1).
    pub lr_sdf: f32,
    /// Of the lattice's raw deformation (0 … 1).
    pub lr_deform: f32,
    /// Of FlexiCubes' raw weights (0 … 1).
    pub lr_weights: f32,
    /// Of the colours' hash grid (0 … 1).
    pub lr_grid: f32,
    /// Of the colours' MLP (0 … 1).
    pub lr_mlp: f32,
    /// Learning rates at the end as a fraction of the full ones, reached along a cosine (0 … 1).
    pub final_rate: f32,
    /// Fraction of the stage in which normals and coverage stand for latents, unencoded (0 … 1; Fantasia3D's
    /// first steps). Not for `gen3d fit`.
    pub latents_until: f64,
    /// Fraction of the stage in which the prior sees normals and the colours rest (0 … 1). Not for `gen3d fit`.
    pub normals_until: f64,
    /// After normals were shown, the shape rests.
    pub freeze: bool,
    /// Fraction of the stage after which the shape rests in any case, and colours alone are optimised (0 … 1;
    /// ProlificDreamer's third stage). Not for `gen3d fit`.
    pub shape_until: f64,
    /// Weight of the squared difference of the silhouettes (0 … 10,000). Only for `gen3d fit`.
    pub mask: f64,
    /// Weights of the regularisers.
    pub regularize: Weights,
}

impl Default for RefineConfig {
    fn default() -> Self {
        Self {
            steps: 0,
            start: RefineStart::Field,
            extractor: Extractor::Flexicubes,
            resolution: 64,
            views: 4,
            size: 64,
            supersample: 1,
            fov: 0.0,
            distance: 0.0,
            guidance_scale: 0.0,
            normals_scale: 0.0,
            timesteps: TimestepRange { max: [0.5, 0.3], ..TimestepRange::default() },
            lr_sdf: 1e-3,
            lr_deform: 1e-2,
            lr_weights: 1e-2,
            lr_grid: 5e-3,
            lr_mlp: 2e-3,
            final_rate: 0.1,
            latents_until: 0.0,
            normals_until: 0.0,
            freeze: true,
            shape_until: 1.0,
            mask: 1.0,
            regularize: Weights::default(),
        }
    }
}

impl RefineConfig {
    /// The factor on the learning rates at `step` of the stage: half a cosine down to `final_rate`.
    pub fn rate(&self, step: u32) -> f32 {
        let done = std::f32::consts::PI * step as f32 / self.steps.max(1) as f32;
        self.final_rate + (1.0 - self.final_rate) * 0.5 * (1.0 + done.cos())
    }
}
