//! The tables of [`super::Config`]. Units and limits stand beside each key; `limits.rs` checks them.

use serde::{Deserialize, Serialize};

use crate::distill::{TimestepRange, Weighting};

/// How the prior's opinion becomes a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Score distillation sampling (DreamFusion, eq. 3).
    Sds,
}

/// The camera rig: cameras on a sphere around the origin, looking at it. It must be the rig that
/// the prior was trained with, or the prior judges views it has never seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CameraConfig {
    /// Views per step (1 … 64), their azimuths stratified over the circle.
    pub views: u32,
    /// Pixels along a side (16 … 512); the prior decides what is sensible.
    pub size: u32,
    /// Vertical field of view in degrees (5 … 120).
    pub fov: f32,
    /// Distance of the camera from the origin in world units (1.2 … 10).
    pub distance: f32,
    /// Relative half width of the distance's uniform distribution (0 … 0.5).
    pub distance_jitter: f32,
    /// Lowest and highest elevation in degrees (−90 … 90).
    pub elevation: [f32; 2],
}

impl Default for CameraConfig {
    fn default() -> Self {
        Self { views: 4, size: 64, fov: 40.0, distance: 2.4, distance_jitter: 0.1, elevation: [-10.0, 50.0] }
    }
}

/// Score distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SdsConfig {
    /// Classifier-free guidance ε̂ = ε_∅ + s (ε_y − ε_∅) (0 … 1000).
    pub guidance_scale: f64,
    /// How far ε̂ is scaled back to the conditional answer's standard deviation (0 … 1).
    pub guidance_rescale: f64,
    /// What the unconditional branch reads.
    pub negative_prompt: String,
    /// The weight w(t).
    pub weighting: Weighting,
    /// Bound on the root mean square of a view's gradient (0 … 1000); 0 for none.
    pub max_gradient_rms: f64,
    /// Which timesteps, and how that changes over the run.
    pub timesteps: TimestepRange,
}

impl Default for SdsConfig {
    /// For the embedded prior, which is told the camera: its answers agree between views by themselves,
    /// and little guidance keeps the colours it has learned. (Priors that are not told the camera want
    /// 7.5 to 100.)
    fn default() -> Self {
        Self {
            guidance_scale: 1.5,
            guidance_rescale: 0.0,
            negative_prompt: String::new(),
            weighting: Weighting::Sigma2,
            max_gradient_rms: 0.0,
            timesteps: TimestepRange { max: [0.98, 0.3], ..TimestepRange::default() },
        }
    }
}

impl SdsConfig {
    /// The settings of the loss itself.
    pub fn loss(&self) -> crate::distill::SdsConfig {
        crate::distill::SdsConfig {
            timesteps: self.timesteps.clone(),
            weighting: self.weighting,
            max_gradient_rms: (self.max_gradient_rms > 0.0).then_some(self.max_gradient_rms),
            threshold: None,
        }
    }
}

/// Weights of the regularisers of [`crate::distill::regularize`] (each 0 … 10,000; 0 leaves a term
/// out). All are means over pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegularizeConfig {
    /// Binary cross-entropy of the opacity with itself: opaque or empty, nothing between.
    pub opaque: f64,
    /// √(opacity² + 0.01): no fog.
    pub sparsity: f64,
    /// Variance of the depth along a ray: surfaces instead of clouds.
    pub z_variance: f64,
    /// Normals of what is seen face the camera.
    pub orientation: f64,
    /// Square differences of neighbouring normals.
    pub smoothness: f64,
}

impl Default for RegularizeConfig {
    fn default() -> Self {
        Self { opaque: 0.05, sparsity: 0.05, z_variance: 0.05, orientation: 0.0, smoothness: 0.0 }
    }
}

/// Steps, and how Adam's learning rates move over them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimConfig {
    /// Optimisation steps (1 … 100,000).
    pub steps: u32,
    /// Steps over which the learning rates rise from zero (0 … 100,000; at most half of `steps` are used).
    pub warmup: u32,
    /// Learning rates at the end as a fraction of the full ones, reached along a cosine (0 … 1).
    pub final_rate: f32,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self { steps: 1200, warmup: 20, final_rate: 0.1 }
    }
}

/// Previews and checkpoints; nothing here changes the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputConfig {
    /// Steps between previews; 0 for none.
    pub preview_every: u32,
    /// Pixels along a side of one of the eight views of a preview (16 … 512).
    pub preview_size: u32,
    /// Pixels along a side of one of the eight views of the finished asset (16 … 2048).
    pub sheet_size: u32,
    /// Steps between checkpoints; 0 for none but the one at the end and on Ctrl-C.
    pub checkpoint_every: u32,
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self { preview_every: 100, preview_size: 96, sheet_size: 256, checkpoint_every: 50 }
    }
}
